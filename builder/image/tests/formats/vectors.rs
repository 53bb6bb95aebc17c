//! Every codec's bytes for small trees, written down in `tests/vectors.txt`: what changes one of them changes the digest
//! of every layer that anybody builds.
//!
//! `BLESS=1` writes the file, but never another digest under the same `ENCODER_VERSION`.

use std::{collections::BTreeMap, env, fmt::Write as _, fs, io, path::Path};

use image::{
    compress::{Codec, ENCODER_VERSION},
    encode::encode_layer,
    layer_tar::TarOptions,
};
use rayon::prelude::*;
use tree::{Kind, Mtime, Node};

use crate::archive::{Made, capability, path};

/// The levels at the ends, and those that everybody uses.
const CODECS: [Codec; 14] = [
    Codec::Uncompressed,
    Codec::Gzip { level: Some(0) },
    Codec::Gzip { level: Some(1) },
    Codec::GZIP,
    Codec::Gzip { level: Some(9) },
    Codec::Zstd { level: 1 },
    Codec::ZSTD,
    Codec::Zstd { level: 9 },
    Codec::EStargz { level: Some(1) },
    Codec::ESTARGZ,
    Codec::EStargz { level: Some(9) },
    Codec::ZstdChunked { level: 1 },
    Codec::ZSTD_CHUNKED,
    Codec::ZstdChunked { level: 9 },
];

/// Bytes that do not compress, the same for ever.
fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    let next = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..length).map(next).collect()
}

/// Bytes that compress as a text does.
fn text(length: usize, seed: u64) -> Vec<u8> {
    let words = ["the ", "layer", " of\n", "/usr/lib/", "0123", "return ", "{\n    ", "image", ", ", "};\n"];
    let mut bytes: Vec<u8> = Vec::with_capacity(length + 16);
    for choice in noise(length, seed) {
        bytes.extend_from_slice(words[usize::from(choice) % words.len()].as_bytes());
        if bytes.len() >= length {
            break;
        }
    }
    bytes.truncate(length);
    bytes
}

/// Words and numbers, most of which were not there before.
fn numbers(length: usize, seed: u64) -> Vec<u8> {
    let words = ["import", "digest", "layer", "fn", ";", "return", "0x"];
    let line = |bytes: &[u8]| format!("{}{} ", words[usize::from(bytes[0]) % words.len()], hex(&bytes[1..]));
    let mut bytes: Vec<u8> =
        noise(length, seed).chunks_exact(5).flat_map(|five| line(five).into_bytes()).collect();
    bytes.truncate(length);
    bytes
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn at(seconds: i64, kind: Kind, mode: u32) -> Node {
    let mut node = Node::new(kind, mode);
    node.mtime = Mtime { seconds, nanoseconds: 0 };
    node
}

/// The trees by name.
fn trees() -> BTreeMap<&'static str, Made> {
    let empty = Made::default();
    let root = Made::default().folder("", 0o755);
    let small = Made::default().folder("etc", 0o755).file("etc/hostname", b"kiln\n").file("etc/empty", b"");
    let mut many = Made::default().folder("many", 0o755);
    for number in 0..300usize {
        many = many.file(&format!("many/{number:03}"), &text(number * 7, number as u64));
    }
    // The bounds of blocks, of zstd:chunked's pieces and of estargz's.
    let mut borders = Made::default().folder("at", 0o755);
    for size in [511, 512, 513, 1 << 17, (1 << 17) + 1, 1 << 18, 1 << 20] {
        borders = borders.file(&format!("at/{size}"), &text(size, size as u64));
    }
    let incompressible = Made::default().file("noise", &noise(600_000, 1)).file("text", &text(600_000, 2));
    let literals = Made::default().file("numbers", &numbers(700_000, 5)).file("small", &numbers(20_000, 6));
    let mut holes = vec![0; (4 << 20) + 1];
    holes[1 << 20..(1 << 20) + 5].copy_from_slice(b"alone");
    let sparse = Made::default().file("holes", &holes).file("zeros", &vec![0; 4 << 20]);
    let folder = format!("long/{}", "d".repeat(150));
    let names = Made::default()
        .folder("long", 0o755)
        .folder(&folder, 0o755)
        .file(&format!("{folder}/{}", "f".repeat(150)), b"deep")
        .file("näme mit \"Zeichen\" <&>", b"odd")
        .node("link", at(9, Kind::Symlink { target: vec![b't'; 300] }, 0o777));
    let mut owners = Made::default()
        .file_with("bin/tool", &text(70_000, 3), |node| {
            (node.mode, node.mtime.seconds) = (0o4755, 1_700_000_000);
            node.xattrs.insert(b"security.capability".to_vec(), capability());
            node.xattrs.insert(b"user.note".to_vec(), b"a\nb=c".to_vec());
        })
        .file_with("bin/owned", b"x", |node| (node.uid, node.gid) = (3_000_000, 4_000_000_000))
        .file_with("bin/old", b"x", |node| node.mtime.seconds = -86_400)
        .folder("bin", 0o2755);
    let mut hard = owners.layer.entries[&path("bin/tool")].clone();
    hard.hardlink = Some(path("bin/tool"));
    owners.layer.entries.insert(path("bin/xlink"), hard.clone());
    owners.layer.entries.insert(path("zlink"), hard);
    let kinds = Made::default()
        .folder("dev", 0o755)
        .node("dev/null", at(0, Kind::CharDevice { major: 1, minor: 3 }, 0o666))
        .node("dev/loop0", at(0, Kind::BlockDevice { major: 7, minor: 0 }, 0o660))
        .node("dev/pipe", at(3, Kind::Fifo, 0o600))
        .node("gone", Node::whiteout())
        .node("opaque", at(4, Kind::Directory { opaque: true }, 0o1777))
        .file("opaque/kept", b"kept")
        .node("soft", at(5, Kind::Symlink { target: b"opaque/kept".to_vec() }, 0o777));
    BTreeMap::from([
        ("borders", borders),
        ("empty", empty),
        ("incompressible", incompressible),
        ("kinds", kinds),
        ("literals", literals),
        ("many", many),
        ("names", names),
        ("owners", owners),
        ("root", root),
        ("small", small),
        ("sparse", sparse),
    ])
}

/// A tree's line for a codec.
fn line(name: &str, made: &Made, codec: Codec) -> (String, String) {
    let options = TarOptions::default();
    let encoded =
        encode_layer(&made.layer, &made.contents, options, codec, &mut io::sink()).expect("encoded");
    assert_eq!(encoded.unindexed, None, "{name} as {codec}");
    (format!("{name} {codec}"), format!("{} {}", encoded.size_bytes, encoded.blob))
}

const HEAD: &str = "# What every codec makes of small trees: tree, codec, length and digest of the blob.
# The trees are in tests/formats/vectors.rs. Written by: BLESS=1 cargo test -p image --test formats vectors
";

const HELP: &str = "A blob has other bytes than before: the code of an encoder was changed, or a dependency \
(libdeflater, zstd) was.
Where that is wanted: raise ENCODER_VERSION in src/compress/mod.rs, say in CHANGELOG.md that digests of layers change,
and run: BLESS=1 cargo test -p image --test formats vectors
Where it is not: pin the dependency to the version that it had.";

#[test]
fn blobs_of_small_trees_are_what_is_written_down() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors.txt");
    let written = fs::read_to_string(&file).unwrap_or_default();
    let version = format!("version {ENCODER_VERSION}");
    let same_version = written.lines().any(|line| line == version);
    let expected: BTreeMap<String, String> = written
        .lines()
        .filter(|line| same_version && !line.starts_with('#'))
        .filter_map(|line| line.match_indices(' ').nth(1).map(|(at, _)| line.split_at(at)))
        .map(|(key, value)| (key.to_owned(), value.trim().to_owned()))
        .collect();
    let trees = trees();
    let all: Vec<(&str, &Made, Codec)> =
        trees.iter().flat_map(|(name, made)| CODECS.map(|codec| (*name, made, codec))).collect();
    // Nested in the pool, as layers are when an image is written.
    let found: BTreeMap<String, String> =
        all.into_par_iter().map(|(name, made, codec)| line(name, made, codec)).collect();
    let changed: Vec<String> = found
        .iter()
        .filter(|(key, value)| expected.get(*key).is_some_and(|expected| expected != *value))
        .map(|(key, value)| format!("{key}: {value}, was {}", expected[key]))
        .collect();
    assert!(changed.is_empty(), "{}\n\n{HELP}", changed.join("\n"));
    if env::var_os("BLESS").is_some() {
        let mut text = format!("{HEAD}{version}\n");
        for (key, value) in &found {
            writeln!(text, "{key} {value}").expect("written to a string");
        }
        fs::write(&file, text).expect("written");
        return;
    }
    assert!(same_version, "{} is of another version of the encoders\n\n{HELP}", file.display());
    let differing = found.keys().filter(|key| !expected.contains_key(*key));
    let differing: Vec<&String> =
        differing.chain(expected.keys().filter(|key| !found.contains_key(*key))).collect();
    assert!(differing.is_empty(), "BLESS=1 writes down trees and codecs that came or went: {differing:?}");
}
