//! The indexes of estargz and zstd:chunked, read as their specifications have it, by nothing of ours.

use std::{
    collections::BTreeMap,
    io::{Cursor, Read},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use image::{
    compress::Codec,
    detect::decompress,
    encode::{EncodedLayer, encode_tar},
    seekable::{Unindexed, is_estargz, is_zstd_chunked},
};
use oci::Digest;
use proptest::prelude::*;
use serde_json::Value;

use crate::archive::{archive, file, folder, hard_link, symlink};

const TOC_DIGEST: &str = "containerd.io/snapshot/stargz/toc.digest";
const UNCOMPRESSED_SIZE: &str = "io.containers.estargz.uncompressed-size";
const CHUNKED: &str = "io.github.containers.zstd-chunked.";

pub fn encode(tar: &[u8], codec: Codec) -> (Vec<u8>, EncodedLayer) {
    let mut blob = Vec::new();
    let encoded = encode_tar(&mut &tar[..], codec, &mut blob).expect("encoded");
    assert_eq!(encoded.blob.digest(), Digest::of(&blob));
    assert_eq!(encoded.size_bytes, blob.len() as u64);
    (blob, encoded)
}

fn plain(blob: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    decompress(blob).expect("opened").1.read_to_end(&mut plain).expect("decompressed");
    plain
}

/// Names and contents of the regular files that another reader of tars finds before the end's mark.
fn files(tar: &[u8]) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in tar::Archive::new(tar).entries().expect("a tar") {
        let mut entry = entry.expect("a member");
        if entry.header().entry_type() == tar::EntryType::Regular {
            let mut contents = Vec::new();
            entry.read_to_end(&mut contents).expect("contents");
            files.insert(entry.path_bytes().into_owned(), contents);
        }
    }
    files
}

fn number(entry: &Value, field: &str) -> Option<u64> {
    entry.get(field).map(|value| value.as_u64().expect("a number"))
}

/// The entries of an index, grouped: a file with its further pieces.
fn grouped(toc: &Value) -> Vec<(&Value, Vec<&Value>)> {
    assert_eq!(toc["version"], 1);
    let mut groups: Vec<(&Value, Vec<&Value>)> = Vec::new();
    for entry in toc["entries"].as_array().expect("entries") {
        if entry["type"] == "chunk" {
            let (first, pieces) = groups.last_mut().expect("a file before its pieces");
            assert_eq!(entry["name"], first["name"]);
            pieces.push(entry);
        } else {
            groups.push((entry, vec![entry]));
        }
    }
    groups
}

/// Puts every file together by the index alone. `piece` gives the bytes from an offset on, as many as it is asked for.
fn by_index(toc: &Value, piece: impl Fn(u64, usize) -> Vec<u8>) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut files = BTreeMap::new();
    for (first, pieces) in grouped(toc) {
        if first["type"] != "reg" {
            assert!(first.get("offset").is_none() && pieces.len() == 1, "{first}");
            continue;
        }
        let size = number(first, "size").unwrap_or(0);
        let mut contents = Vec::new();
        for (at, entry) in pieces.iter().enumerate().filter(|_| size > 0) {
            assert_eq!(number(entry, "chunkOffset").unwrap_or(0), contents.len() as u64, "{entry}");
            let rest = size - contents.len() as u64;
            let length = number(entry, "chunkSize").unwrap_or(rest);
            assert!(length <= rest && (at + 1 < pieces.len()) == (length < rest), "{entry}");
            let bytes = piece(number(entry, "offset").expect("an offset"), length as usize);
            // Alone it needs no digest of its own in zstd:chunked: that of the file is the same.
            let digest = entry.get("chunkDigest").unwrap_or(&first["digest"]);
            assert_eq!(*digest, Digest::of(&bytes).to_string(), "{entry}");
            if entry.get("chunkType").is_some_and(|kind| kind == "zeros") {
                assert!(bytes.iter().all(|byte| *byte == 0));
            }
            contents.extend(bytes);
        }
        if size > 0 {
            assert_eq!(first["digest"], Digest::of(&contents).to_string(), "{first}");
        }
        files.insert(first["name"].as_str().expect("a name").as_bytes().to_vec(), contents);
    }
    files
}

/// Reads estargz: footer, index, every piece.
fn check_estargz(tar: &[u8], level: u32) -> Value {
    let (blob, encoded) = encode(tar, Codec::EStargz { level: Some(level) });
    assert_eq!(encoded.unindexed, None);
    assert!(is_estargz(&mut Cursor::new(&blob)).expect("read"));
    let whole = plain(&blob);
    assert_eq!(encoded.diff_id.digest(), Digest::of(&whole));
    assert_eq!(encoded.diff_size_bytes, whole.len() as u64);
    assert_eq!(encoded.annotations[UNCOMPRESSED_SIZE], whole.len().to_string());
    assert_eq!(encoded.annotations.len(), 2);
    assert!(whole.starts_with(tar), "the tar itself is not touched");
    assert_eq!(files(&whole), files(tar), "who unpacks it sees nothing else");

    let footer = &blob[blob.len() - 51..];
    assert_eq!(footer[..4], [0x1f, 0x8b, 8, 4]);
    assert_eq!(footer[10..16], [26, 0, b'S', b'G', 22, 0]);
    assert_eq!(footer[32..], *b"STARGZ\x01\x00\x00\xff\xff\0\0\0\0\0\0\0\0");
    let offset = usize::from_str_radix(std::str::from_utf8(&footer[16..32]).expect("hex"), 16).expect("hex");
    let member = |at: usize| {
        let mut bytes = Vec::new();
        flate2::read::GzDecoder::new(&blob[at..]).read_to_end(&mut bytes).expect("a member");
        bytes
    };
    let index = member(offset);
    let mut last = tar::Archive::new(&index[..]);
    let mut last = last.entries().expect("a tar");
    let mut entry = last.next().expect("the index").expect("the index");
    assert_eq!(entry.path_bytes().as_ref(), b"stargz.index.json");
    let mut text = Vec::new();
    entry.read_to_end(&mut text).expect("text");
    assert!(last.next().is_none(), "the index is the last member");
    assert_eq!(encoded.annotations[TOC_DIGEST], Digest::of(&text).to_string());
    let toc: Value = serde_json::from_slice(&text).expect("JSON");

    let mut expected = files(tar);
    expected.insert(b".no.prefetch.landmark".to_vec(), vec![0x0f]);
    // A piece is the start of a member; what follows it belongs to no file.
    let found = by_index(&toc, |at, length| member(at as usize)[..length].to_vec());
    assert!(found == expected);
    let mut offsets: Vec<_> = grouped(&toc).iter().flat_map(|(_, pieces)| pieces.clone()).collect();
    offsets.retain(|entry| entry.get("offset").is_some());
    let sorted: Vec<u64> = offsets.iter().filter_map(|entry| number(entry, "offset")).collect();
    assert!(sorted.is_sorted_by(|one, next| one < next), "an offset names one piece");
    toc
}

/// Reads zstd:chunked: annotations, the frames behind, every piece, and the tar from its parts.
fn check_zstd_chunked(tar: &[u8], level: u32) -> Value {
    let (blob, encoded) = encode(tar, Codec::ZstdChunked { level });
    assert_eq!(encoded.unindexed, None);
    assert!(is_zstd_chunked(&encoded.annotations) && encoded.annotations.len() == 4);
    assert_eq!(encoded.diff_id.digest(), Digest::of(tar));
    assert!(plain(&blob) == tar, "the index is not part of the stream");
    let numbers = |name: &str| -> Vec<usize> {
        let text = &encoded.annotations[&format!("{CHUNKED}{name}")];
        text.split(':').map(|number| number.parse().expect("a number")).collect()
    };
    let index = numbers("manifest-position");
    let split = numbers("tarsplit-position");
    assert_eq!((index.len(), split.len(), index[3]), (4, 3, 1));
    let footer = &blob[blob.len() - 64..];
    let fields: Vec<usize> =
        footer[..56].as_chunks::<8>().0.iter().map(|field| u64::from_le_bytes(*field) as usize).collect();
    assert_eq!(fields, [&index[..], &split[..]].concat());
    assert_eq!(footer[56..], *b"GNUlInUx");
    // Three frames that are skipped, and the blob ends.
    let mut at = index[0] - 8;
    for length in [index[1], split[1], 64] {
        assert_eq!(blob[at..at + 4], [0x50, 0x2a, 0x4d, 0x18]);
        assert_eq!(blob[at + 4..at + 8], (length as u32).to_le_bytes());
        at += 8 + length;
    }
    assert_eq!(at, blob.len());
    let part = |place: &[usize], checksum: &str| {
        let bytes = &blob[place[0]..place[0] + place[1]];
        assert_eq!(encoded.annotations[&format!("{CHUNKED}{checksum}")], Digest::of(bytes).to_string());
        let text = plain(bytes);
        assert_eq!(text.len(), place[2]);
        text
    };
    let toc: Value = serde_json::from_slice(&part(&index, "manifest-checksum")).expect("JSON");
    let lines = part(&split, "tarsplit-checksum");
    let split_digest = &encoded.annotations[&format!("{CHUNKED}tarsplit-checksum")];
    assert_eq!(toc["tarSplitDigest"], *split_digest);

    let ends: BTreeMap<u64, u64> = grouped(&toc)
        .iter()
        .flat_map(|(first, pieces)| {
            let next = pieces.iter().skip(1).filter_map(|piece| number(piece, "offset"));
            let ends: Vec<u64> = next.chain(number(first, "endOffset")).collect();
            pieces.iter().filter_map(|piece| number(piece, "offset")).zip(ends).collect::<Vec<_>>()
        })
        .collect();
    let found = by_index(&toc, |at, length| {
        let bytes = plain(&blob[at as usize..ends[&at] as usize]);
        assert_eq!(bytes.len(), length, "a frame holds a piece and nothing else");
        bytes
    });
    assert!(found == files(tar));
    assert!(assemble(&lines, &toc, &found) == tar, "tar-split and the files are the tar");
    toc
}

/// What tar-split's `WriteOutputTarStream` does, and the checks that containers/storage makes before it believes an index:
/// each segment is the padding of the file before and one header, which says what the index says.
fn assemble(lines: &[u8], toc: &Value, files: &BTreeMap<Vec<u8>, Vec<u8>>) -> Vec<u8> {
    let entries: Vec<&Value> = grouped(toc).iter().map(|(first, _)| *first).collect();
    let (mut tar, mut seen, mut header) = (Vec::new(), 0, Vec::new());
    for (at, line) in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).enumerate() {
        let line: Value = serde_json::from_slice(line).expect("JSON");
        assert_eq!(line["position"], at);
        let payload = line["payload"].as_str().map(|text| STANDARD.decode(text).expect("base64"));
        if line["type"] == 2 {
            let segment = payload.expect("bytes");
            header = segment[tar.len().wrapping_neg() % 512..].to_vec();
            tar.extend(segment);
            continue;
        }
        assert_eq!(line["type"], 1);
        let entry = entries[seen];
        assert_eq!(line["name"], entry["name"], "the lines and the index have the same members");
        check_header(&header, entry);
        seen += 1;
        let Some(size) = number(&line, "size") else {
            assert_eq!(payload, None);
            continue;
        };
        let contents = &files[line["name"].as_str().expect("a name").as_bytes()];
        assert_eq!(contents.len() as u64, size);
        assert_eq!(payload.expect("a sum"), crc64(contents).to_be_bytes());
        tar.extend(contents);
    }
    assert_eq!(seen, entries.len());
    tar
}

fn check_header(header: &[u8], entry: &Value) {
    let mut archive = tar::Archive::new(header);
    let found = archive.entries().expect("a tar").next().expect("a member").expect("a member");
    assert_eq!(found.path_bytes().as_ref(), entry["name"].as_str().expect("a name").as_bytes());
    let link = found.link_name_bytes().map(|link| String::from_utf8(link.into_owned()).expect("UTF-8"));
    assert_eq!(link.as_deref(), entry["linkName"].as_str());
    assert_eq!(found.size(), number(entry, "size").unwrap_or(0));
    assert_eq!(entry["mode"], found.header().mode().expect("a mode"));
    let kind = match found.header().entry_type() {
        tar::EntryType::Regular => "reg",
        tar::EntryType::Link => "hardlink",
        tar::EntryType::Symlink => "symlink",
        tar::EntryType::Directory => "dir",
        tar::EntryType::Char => "char",
        tar::EntryType::Block => "block",
        other => panic!("{other:?}"),
    };
    assert_eq!(entry["type"], kind);
}

/// Go's `crc64.ISO`, a bit at a time.
fn crc64(bytes: &[u8]) -> u64 {
    let bit = |crc: u64, _| if crc & 1 == 1 { (crc >> 1) ^ 0xd800_0000_0000_0000 } else { crc >> 1 };
    !bytes.iter().fold(!0u64, |crc, byte| (0..8).fold(crc ^ u64::from(*byte), bit))
}

fn noise(length: usize) -> Vec<u8> {
    let mut state = length as u64;
    let next = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..length).map(next).collect()
}

fn member(at: &str, contents: &[u8]) -> Vec<u8> {
    let entry = crate::archive::entry(at, image::tar::EntryKind::File { size: contents.len() as u64 });
    let mut bytes = image::tar::header(&entry).expect("a header");
    bytes.extend_from_slice(contents);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

#[test]
fn every_rule_holds_for_files_of_every_size() {
    let mut tar = Vec::new();
    for size in
        [0, 1, 511, 512, 513, 131_072, 131_073, 1 << 20, (4 << 20) - 1, 4 << 20, (4 << 20) + 1, 9 << 20]
    {
        tar.extend(member(&format!("noise/{size}"), &noise(size)));
    }
    tar.extend(member("zeros", &vec![0; 6 << 20]));
    tar.extend(member(&"n".repeat(300), b"long"));
    tar.resize(tar.len() + 10_240, 0);
    let toc = check_estargz(&tar, 6);
    let pieces = |toc: &Value, name: &str| {
        grouped(toc).iter().find(|(first, _)| first["name"] == name).map(|(_, pieces)| pieces.len())
    };
    assert_eq!(pieces(&toc, "noise/4194304"), Some(1));
    assert_eq!(pieces(&toc, "noise/4194305"), Some(2));
    assert_eq!(pieces(&toc, "noise/9437184"), Some(3));
    let toc = check_zstd_chunked(&tar, 3);
    assert_eq!(pieces(&toc, "noise/131072"), Some(1));
    assert!(pieces(&toc, "noise/9437184") > Some(9));
    let zeros = grouped(&toc).into_iter().find(|(first, _)| first["name"] == "zeros").expect("there").1;
    assert!(zeros.iter().all(|piece| piece["chunkType"] == "zeros"));
}

#[test]
fn an_index_says_what_the_headers_say() {
    let mut odd = crate::archive::entry("odd", image::tar::EntryKind::CharDevice { major: 5, minor: 7 });
    odd.mtime = tree::Mtime { seconds: -5, nanoseconds: 0 };
    (odd.uid, odd.gid, odd.mode) = (3_000_000, 4, 0o4711);
    odd.xattrs.insert(b"user.a".to_vec(), vec![0xff, 0x0a]);
    let tar = archive(&[
        folder("./"),
        folder("d"),
        file("d/f", b"contents"),
        hard_link("./h", "d/f"),
        symlink("s", "../<&>"),
        (odd, b""),
        file("empty", b""),
    ]);
    for toc in [check_estargz(&tar, 9), check_zstd_chunked(&tar, 19)] {
        let entry = |name: &str| {
            let found = grouped(&toc).into_iter().find(|(first, _)| first["name"] == name);
            found.unwrap_or_else(|| panic!("{name} is not in the index")).0.clone()
        };
        assert_eq!(entry("./")["type"], "dir");
        assert_eq!(entry("d/")["mode"], 0o755);
        assert_eq!((&entry("./h")["type"], &entry("./h")["linkName"]), (&"hardlink".into(), &"d/f".into()));
        assert_eq!((&entry("s")["type"], &entry("s")["linkName"]), (&"symlink".into(), &"../<&>".into()));
        let odd = entry("odd");
        assert_eq!(
            (&odd["devMajor"], &odd["devMinor"], &odd["type"]),
            (&5.into(), &7.into(), &"char".into())
        );
        assert_eq!((&odd["uid"], &odd["gid"], &odd["mode"]), (&3_000_000.into(), &4.into(), &0o4711.into()));
        assert_eq!(odd["modtime"], "1969-12-31T23:59:55Z");
        assert_eq!(odd["xattrs"]["user.a"], "/wo=");
        assert!(entry("empty").get("digest").is_none());
    }
}

#[test]
fn what_an_index_cannot_say_has_none() {
    let twice = |path: &str| Unindexed::Twice { path: path.to_owned() };
    let reserved = |path: &str| Unindexed::Reserved { path: path.to_owned() };
    let mut late = crate::archive::entry("late", image::tar::EntryKind::Fifo);
    late.mtime.seconds = 1 << 40;
    let mut odd = crate::archive::entry("odd", image::tar::EntryKind::Fifo);
    odd.path = b"\xff".to_vec();
    for (members, why) in [
        (vec![file("a", b"1"), file("b", b"2"), file("./a", b"3")], twice("./a")),
        (vec![file("./stargz.index.json", b"{}")], reserved("./stargz.index.json")),
        (vec![file(".prefetch.landmark", b"x")], reserved(".prefetch.landmark")),
        (
            vec![file("a", b"1"), hard_link("b", "c")],
            Unindexed::LinkTarget { path: "b".to_owned(), target: "c".to_owned() },
        ),
        (vec![(late, &b""[..])], Unindexed::Time { path: "late".to_owned() }),
        (vec![(odd, &b""[..])], Unindexed::NotUtf8 { path: "\\xff".to_owned() }),
    ] {
        let tar = archive(&members);
        for codec in [Codec::ESTARGZ, Codec::ZSTD_CHUNKED] {
            let (blob, encoded) = encode(&tar, codec);
            assert_eq!(encoded.unindexed.as_ref(), Some(&why));
            assert!(encoded.annotations.is_empty());
            assert!(plain(&blob) == tar && encoded.diff_id.digest() == Digest::of(&tar));
            assert!(!is_estargz(&mut Cursor::new(&blob)).expect("read"));
        }
    }
}

#[test]
fn what_is_no_archive_is_compressed_all_the_same() {
    let whole = archive(&[file("a", &[7; 3000]), file("b", b"2")]);
    for codec in [Codec::ESTARGZ, Codec::ZSTD_CHUNKED] {
        for bytes in [&b"text"[..], &[7; 10_000], &whole[..700], &whole[..4000], &[0x1f, 0x8b, 8]] {
            let (blob, encoded) = encode(bytes, codec);
            assert!(plain(&blob) == bytes, "{codec}, {} bytes", bytes.len());
            assert!(encoded.unindexed.is_some(), "{codec}, {} bytes", bytes.len());
        }
    }
}

#[test]
fn an_archive_without_an_end_gets_one_before_the_index() {
    for whole in [member("a", b"contents"), Vec::new()] {
        let (blob, encoded) = encode(&whole, Codec::ESTARGZ);
        assert_eq!(encoded.unindexed, None);
        assert_eq!(files(&plain(&blob)), files(&whole));
        check_zstd_chunked(&whole, 3);
    }
}

#[test]
fn an_index_is_told_by_more_than_the_footer() {
    let tar = archive(&[file("a", b"1")]);
    let (blob, _) = encode(&tar, Codec::ESTARGZ);
    let told = |blob: &[u8]| is_estargz(&mut Cursor::new(blob)).expect("read");
    assert!(told(&blob));
    assert!(!told(&encode(&tar, Codec::GZIP).0) && !told(b"") && !told(&blob[..blob.len() - 1]));
    for at in 16..32 {
        let mut moved = blob.clone();
        let digit = moved.len() - 51 + at;
        moved[digit] = if moved[digit] == b'0' { b'7' } else { b'0' };
        assert!(!told(&moved), "digit {at}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    #[test]
    fn any_archive_keeps_every_rule(sizes in proptest::collection::vec((0usize..600_000, any::<bool>()), 0..12), level in 1u32..7) {
        let mut tar = Vec::new();
        for (at, (size, random)) in sizes.iter().enumerate() {
            let contents = if *random { noise(*size) } else { vec![at as u8; *size] };
            tar.extend(member(&format!("f{at}"), &contents));
        }
        tar.resize(tar.len() + 1024, 0);
        check_estargz(&tar, level);
        check_zstd_chunked(&tar, level);
    }

    #[test]
    fn threads_and_pieces_change_no_byte(sizes in proptest::collection::vec(0usize..400_000, 0..8), piece in 1usize..100_000) {
        let mut tar = Vec::new();
        for (at, size) in sizes.iter().enumerate() {
            tar.extend(member(&format!("f{at}"), &noise(*size)));
        }
        tar.resize(tar.len() + 1024, 0);
        struct Pieces<'a>(&'a [u8], usize);
        impl Read for Pieces<'_> {
            fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
                let most = buffer.len().min(self.1);
                self.0.read(&mut buffer[..most])
            }
        }
        for codec in [Codec::ESTARGZ, Codec::ZSTD_CHUNKED, Codec::GZIP, Codec::ZSTD] {
            let all = [(1, tar.len().max(1)), (2, piece), (8, piece)].map(|(threads, piece)| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
                let mut out = std::io::sink();
                let encoded = pool.install(|| encode_tar(&mut Pieces(&tar, piece), codec, &mut out));
                encoded.expect("encoded")
            });
            prop_assert!(all[0] == all[1] && all[1] == all[2]);
        }
    }
}
