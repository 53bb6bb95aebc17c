//! estargz's index: a file of the tar, and a footer that says where it is.

use std::{
    collections::BTreeMap,
    io::{self, Read, Seek, SeekFrom},
};

use oci::Digest;
use tree::Mtime;

use super::{
    Indexed,
    toc::{Toc, TocEntry},
    writer::Tail,
};
use crate::{
    compress::gzip_member,
    tar::{BLOCK, Entry, EntryKind, Reader, header},
};

/// How long a piece of a file is.
pub(super) const CHUNK: usize = 4 << 20;

/// The index.
const TOC: &str = "stargz.index.json";
/// A file that says: nothing is to be fetched ahead. Without it readers fetch the first megabytes of the blob.
const NO_PREFETCH: &str = ".no.prefetch.landmark";
/// What is in it.
const LANDMARK: u8 = 0x0f;

/// Names that no member may have.
pub(super) const RESERVED: [&str; 3] = [TOC, NO_PREFETCH, ".prefetch.landmark"];

/// Digest of the index's text.
const TOC_DIGEST: &str = "containerd.io/snapshot/stargz/toc.digest";
/// Length of the uncompressed stream, index included: containers/storage wants it.
const UNCOMPRESSED_SIZE: &str = "io.containers.estargz.uncompressed-size";

/// Length of the footer.
const FOOTER: usize = 51;

/// What follows a blob that is `position` bytes long and `plain_size` uncompressed. `marked` says that it has the mark of
/// a tar's end; nobody who unpacks looks behind that.
pub(super) fn tail(
    members: &[Indexed],
    level: Option<u32>,
    position: u64,
    plain_size: u64,
    marked: bool,
) -> Tail {
    let before = [&vec![0; if marked { 0 } else { 2 * BLOCK }][..], &file_header(NO_PREFETCH, 1)].concat();
    let landmark = filled_up(vec![LANDMARK]);
    let mut bytes = gzip_member(&before, level);
    let landmark_at = position + bytes.len() as u64;
    bytes.extend(gzip_member(&landmark, level));
    let toc_at = position + bytes.len() as u64;

    let mut entries: Vec<TocEntry<'_>> = members.iter().flat_map(entries).collect();
    entries.push(landmark_entry(landmark_at));
    let toc = Toc { version: 1, entries, tar_split_digest: None };
    let text = serde_json::to_vec(&toc).expect("text and numbers are always JSON");
    let digest = Digest::of(&text);
    let index = [file_header(TOC, text.len() as u64), filled_up(text), vec![0; 2 * BLOCK]].concat();
    bytes.extend(gzip_member(&index, level));
    bytes.extend(footer(toc_at));

    let behind = [before, landmark, index].concat();
    let size = plain_size + behind.len() as u64;
    let annotations = BTreeMap::from([
        (TOC_DIGEST.to_owned(), digest.to_string()),
        (UNCOMPRESSED_SIZE.to_owned(), size.to_string()),
    ]);
    Tail { bytes, behind, annotations }
}

fn file_header(name: &str, size: u64) -> Vec<u8> {
    let entry = Entry {
        path: name.as_bytes().to_vec(),
        kind: EntryKind::File { size },
        mode: 0o644,
        uid: 0,
        gid: 0,
        mtime: Mtime::default(),
        xattrs: BTreeMap::new(),
    };
    header(&entry).expect("a short name and no attributes")
}

fn filled_up(mut contents: Vec<u8>) -> Vec<u8> {
    contents.resize(contents.len().next_multiple_of(BLOCK), 0);
    contents
}

/// A member's entries: one, or where its contents are in several pieces one for each.
fn entries(indexed: &Indexed) -> Vec<TocEntry<'_>> {
    let mut first = TocEntry::of(&indexed.member);
    let name = first.name;
    // The epoch means that there is no time, and is what readers take for none.
    first.modtime = first.modtime.filter(|_| indexed.member.entry.mtime.seconds != 0);
    (first.accesstime, first.changetime) = (None, None);
    first.digest = indexed.sums.map(|(digest, _)| digest.to_string());
    let mut entries = vec![first];
    entries.extend(indexed.chunks.iter().skip(1).map(|_| TocEntry {
        name,
        kind: "chunk",
        ..TocEntry::default()
    }));
    let last = indexed.chunks.len().saturating_sub(1);
    for (at, (entry, chunk)) in entries.iter_mut().zip(&indexed.chunks).enumerate() {
        entry.offset = Some(chunk.offset);
        entry.chunk_offset = (at > 0).then_some(chunk.file_offset);
        // The last piece goes to the file's end, and says so by saying nothing.
        entry.chunk_size = (at < last).then_some(chunk.size);
        entry.chunk_digest = Some(chunk.digest.to_string());
    }
    entries
}

fn landmark_entry(offset: u64) -> TocEntry<'static> {
    let digest = Digest::of(&[LANDMARK]).to_string();
    TocEntry {
        name: NO_PREFETCH,
        kind: "reg",
        size: Some(1),
        mode: Some(0o644),
        uid: Some(0),
        gid: Some(0),
        digest: Some(digest.clone()),
        offset: Some(offset),
        chunk_digest: Some(digest),
        ..TocEntry::default()
    }
}

/// An empty gzip member whose extra field says where the index is.
fn footer(toc_at: u64) -> Vec<u8> {
    let field = format!("{toc_at:016x}STARGZ");
    let mut footer = vec![0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 255];
    footer.extend([26, 0, b'S', b'G', 22, 0]);
    footer.extend(field.as_bytes());
    // One stored block of no bytes, the last; then the CRC and the length of nothing.
    footer.extend([1, 0, 0, 0xff, 0xff]);
    footer.extend([0; 8]);
    footer
}

/// Where a blob's index is, by its footer.
fn toc_offset(footer: &[u8; FOOTER]) -> Option<u64> {
    let field = std::str::from_utf8(&footer[16..32]).ok()?;
    let offset = u64::from_str_radix(field, 16).ok()?;
    // Another writer may have put another time or system into the gzip header.
    let ours = footer[..4] == [0x1f, 0x8b, 8, 4]
        && footer[10..16] == [26, 0, b'S', b'G', 22, 0]
        && footer[32..38] == *b"STARGZ";
    ours.then_some(offset)
}

/// Whether a blob is estargz: whether it has the footer, and the index where that says.
///
/// # Errors
/// When `blob` cannot be read. Broken data is no index.
pub fn has_index(blob: &mut (impl Read + Seek)) -> io::Result<bool> {
    let end = blob.seek(SeekFrom::End(0))?;
    let Some(footer_at) = end.checked_sub(FOOTER as u64) else { return Ok(false) };
    let mut footer = [0; FOOTER];
    blob.seek(SeekFrom::Start(footer_at))?;
    blob.read_exact(&mut footer)?;
    let Some(toc_at) = toc_offset(&footer).filter(|offset| *offset < footer_at) else { return Ok(false) };
    blob.seek(SeekFrom::Start(toc_at))?;
    let mut tar = Reader::new(flate2::read::GzDecoder::new(blob.take(footer_at - toc_at)));
    let first = tar.next_entry();
    Ok(first.is_ok_and(|entry| entry.is_some_and(|entry| entry.path == TOC.as_bytes())))
}
