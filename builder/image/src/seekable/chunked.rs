//! zstd:chunked's index: three frames that decoders skip.
//!
//! The first holds the index, the second what tar-split makes of the archive, from which and from the files the tar can
//! be put together again byte by byte; the third says where they are. Readers go by the annotations, which say it as
//! well and are covered by the digest of the manifest.

use std::collections::{BTreeMap, VecDeque};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use oci::Digest;
use serde::Serialize;

use super::{
    Indexed, Unindexed,
    toc::{Toc, TocEntry},
    unit::compress,
    writer::Tail,
};
use crate::compress::{Codec, Sizes};

/// Where files are cut. The same bytes are found again in another version of a file, so that a piece that is here
/// already is not fetched; containers/storage cuts at 64 KiB on average, for which the blob grows by some percent.
pub(super) const SIZES: Sizes = Sizes { least: 128 << 10, most: 1 << 20, bits: 18 };

/// Digest of the index's frame.
pub(super) const CHECKSUM: &str = "io.github.containers.zstd-chunked.manifest-checksum";
/// Its offset, length, length uncompressed and kind.
pub(super) const POSITION: &str = "io.github.containers.zstd-chunked.manifest-position";
/// Digest of tar-split's frame: for readers older than the field in the index.
const SPLIT_CHECKSUM: &str = "io.github.containers.zstd-chunked.tarsplit-checksum";
/// Its offset, length and length uncompressed.
const SPLIT_POSITION: &str = "io.github.containers.zstd-chunked.tarsplit-position";

/// The only kind of index there is.
const KIND: u64 = 1;

/// How long a frame of tar-split's lines is before it is compressed.
const SPLIT_FRAME: usize = 4 << 20;

/// How much may follow an archive's end: the index has to hold it.
const MAX_REST: usize = 64 << 20;

/// What tar-split keeps of an archive: all of it but the contents of files.
pub(super) struct TarSplit {
    codec: Codec,
    /// Headers of members that are not written down yet, oldest first; which is the next.
    headers: VecDeque<Vec<u8>>,
    next: usize,
    /// What follows the last member.
    rest: Vec<u8>,
    /// How many lines there are.
    lines: u64,
    plain: Vec<u8>,
    plain_size: u64,
    frames: Vec<u8>,
}

/// A line: one JSON document, its fields in tar-split's order.
#[derive(Serialize)]
struct Line<'a> {
    /// 1 for a file, 2 for bytes of the archive.
    #[serde(rename = "type")]
    kind: u8,
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    #[serde(skip_serializing_if = "is_zero")]
    size: u64,
    /// The bytes, or the CRC-64 of a file that is not empty.
    payload: Option<String>,
    position: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_zero(size: &u64) -> bool {
    *size == 0
}

impl TarSplit {
    /// Nothing yet. Only zstd:chunked has one; for another codec nothing is kept.
    pub(super) fn new(codec: Codec) -> TarSplit {
        TarSplit {
            codec,
            headers: VecDeque::new(),
            next: 0,
            rest: Vec::new(),
            lines: 0,
            plain: Vec::new(),
            plain_size: 0,
            frames: Vec::new(),
        }
    }

    fn is_wanted(&self) -> bool {
        matches!(self.codec, Codec::ZstdChunked { .. })
    }

    /// All that stands before the next member's contents.
    pub(super) fn header(&mut self, raw: Vec<u8>) {
        if self.is_wanted() {
            self.headers.push_back(raw);
        }
    }

    /// What stands behind the last member.
    pub(super) fn rest(&mut self, raw: &[u8]) -> Result<(), Unindexed> {
        if !self.is_wanted() {
            return Ok(());
        }
        if self.rest.len() + raw.len() > MAX_REST {
            return Err(Unindexed::Unclear { why: format!("more than {MAX_REST} bytes follow its end") });
        }
        self.rest.extend_from_slice(raw);
        Ok(())
    }

    /// Writes down the members whose contents were written.
    pub(super) fn advance(&mut self, members: &[Indexed]) {
        while let Some(indexed) = members.get(self.next) {
            let size = indexed.member.size();
            if indexed.chunks.iter().map(|chunk| chunk.size).sum::<u64>() < size {
                return;
            }
            let Some(header) = self.headers.pop_front() else { return };
            self.line(2, "", 0, Some(STANDARD.encode(header)));
            let crc64 = indexed.sums.map(|(_, crc64)| STANDARD.encode(crc64.to_be_bytes()));
            let name = std::str::from_utf8(&indexed.member.entry.path).unwrap_or_default();
            self.line(1, name, size, crc64);
            self.next += 1;
        }
    }

    fn line(&mut self, kind: u8, name: &str, size: u64, payload: Option<String>) {
        let line = Line { kind, name, size, payload, position: self.lines };
        self.lines += 1;
        serde_json::to_writer(&mut self.plain, &line).expect("text and numbers are always JSON");
        self.plain.push(b'\n');
        if self.plain.len() >= SPLIT_FRAME {
            self.end_frame();
        }
    }

    fn end_frame(&mut self) {
        self.plain_size += self.plain.len() as u64;
        self.frames.extend(compress(self.codec, &self.plain));
        self.plain.clear();
    }

    /// The frames, and how long they are uncompressed.
    fn finish(mut self, members: &[Indexed]) -> (Vec<u8>, u64) {
        self.advance(members);
        let rest = STANDARD.encode(&self.rest);
        self.line(2, "", 0, Some(rest));
        if !self.plain.is_empty() {
            self.end_frame();
        }
        (self.frames, self.plain_size)
    }
}

/// The frames behind a blob that is `position` bytes long.
pub(super) fn tail(members: &[Indexed], split: TarSplit, codec: Codec, position: u64) -> Tail {
    let (split, split_size) = split.finish(members);
    let split_digest = Digest::of(&split).to_string();
    let toc = Toc {
        version: 1,
        entries: members.iter().flat_map(entries).collect(),
        tar_split_digest: Some(split_digest.clone()),
    };
    let plain = serde_json::to_vec(&toc).expect("text and numbers are always JSON");
    let index = compress(codec, &plain);
    let index_at = position + FRAME_HEADER;
    let split_at = index_at + index.len() as u64 + FRAME_HEADER;
    let numbers = [
        index_at,
        index.len() as u64,
        plain.len() as u64,
        KIND,
        split_at,
        split.len() as u64,
        split_size,
        u64::from_le_bytes(*b"GNUlInUx"),
    ];
    let footer = numbers.map(u64::to_le_bytes).concat();
    let bytes = [&index, &split, &footer].map(|data| skippable(data)).concat();
    let annotations = [
        (CHECKSUM, Digest::of(&index).to_string()),
        (POSITION, format!("{index_at}:{}:{}:{KIND}", index.len(), plain.len())),
        (SPLIT_CHECKSUM, split_digest),
        (SPLIT_POSITION, format!("{split_at}:{}:{split_size}", split.len())),
    ];
    let annotations: BTreeMap<_, _> =
        annotations.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    Tail { bytes, behind: Vec::new(), annotations }
}

/// Magic number and length of a frame that decoders skip.
const FRAME_HEADER: u64 = 8;

/// RFC 8878 § 3.1.2.
fn skippable(data: &[u8]) -> Vec<u8> {
    let length = u32::try_from(data.len()).expect("an index of 4 GiB would be of tens of millions of files");
    [&[0x50, 0x2a, 0x4d, 0x18][..], &length.to_le_bytes(), data].concat()
}

/// A member's entries: one, or where its contents are in several pieces one for each.
fn entries(indexed: &Indexed) -> Vec<TocEntry<'_>> {
    let mut first = TocEntry::of(&indexed.member);
    let name = first.name;
    first.digest = indexed.sums.map(|(digest, _)| digest.to_string());
    first.offset = indexed.chunks.first().map(|chunk| chunk.offset);
    first.end_offset = indexed.chunks.last().map(|chunk| chunk.end);
    let mut entries = vec![first];
    let further = indexed.chunks.iter().skip(1).map(|chunk| TocEntry {
        name,
        kind: "chunk",
        chunk_offset: Some(chunk.file_offset),
        ..TocEntry::default()
    });
    entries.extend(further);
    if indexed.chunks.len() > 1 {
        for (entry, chunk) in entries.iter_mut().zip(&indexed.chunks) {
            entry.offset = Some(chunk.offset);
            entry.chunk_size = Some(chunk.size);
            entry.chunk_digest = Some(chunk.digest.to_string());
            entry.chunk_type = chunk.zeros.then_some("zeros");
        }
    }
    entries
}
