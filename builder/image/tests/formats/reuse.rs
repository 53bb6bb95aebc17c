//! Blocks that are taken from earlier blobs change nothing of what comes out.

use std::{
    collections::BTreeSet,
    io::{Read, Write},
    sync::Arc,
};

use image::{
    compress::{Blocks, Codec, Earlier, Encoder},
    detect::decompress,
    encode::{EncodedLayer, encode_tar},
};
use proptest::prelude::*;

/// Bytes of several kinds in turns: text, noise, zeros, what was there before.
fn mixed(pieces: &[(u8, u32, u64)]) -> Vec<u8> {
    let mut bytes: Vec<u8> = Vec::new();
    for (kind, length, seed) in pieces {
        let (length, mut state) = (*length as usize, *seed);
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        };
        match kind % 4 {
            0 => bytes.extend((0..length).map(|_| b"etaoin shrdlu\nKM"[usize::from(next() % 16)])),
            1 => bytes.extend((0..length).map(|_| next())),
            2 => bytes.resize(bytes.len() + length, 0),
            _ => bytes.extend_from_within(..length.min(bytes.len())),
        }
    }
    bytes
}

fn encode(tar: &[u8], encoder: impl Into<Encoder>, threads: usize) -> (Vec<u8>, EncodedLayer) {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
    let (encoder, mut blob) = (encoder.into(), Vec::new());
    let encoded = pool.install(|| encode_tar(&mut &tar[..], encoder, &mut blob)).expect("encoded");
    (blob, encoded)
}

/// A blob as it lies in a state folder, with its list of blocks, through bytes and back.
fn earlier(codec: Codec, blob: &[u8], blocks: &Blocks) -> Earlier {
    let mut file = tempfile::tempfile().expect("a file");
    file.write_all(blob).expect("written");
    let blocks = Blocks::decode(&blocks.encode(codec), codec).expect("what was written");
    let mut earlier = Earlier::new();
    earlier.add(file, blocks);
    earlier
}

fn pieces() -> impl Strategy<Value = Vec<(u8, u32, u64)>> {
    proptest::collection::vec((any::<u8>(), 0u32..600_000, any::<u64>()), 0..6)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn blobs_are_the_same_with_and_without(
        before in pieces(), edit in pieces(), at in any::<prop::sample::Index>(), cut in 0usize..200_000, threads in 1usize..4,
        zstd in any::<bool>(),
    ) {
        let codec = if zstd { Codec::Zstd { level: 1 } } else { Codec::Gzip { level: Some(1) } };
        let old = mixed(&before);
        let at = at.index(old.len() + 1);
        let rest = &old[(at + cut).min(old.len())..];
        let new = [&old[..at], &mixed(&edit), rest].concat();
        let (old_blob, old_encoded) = encode(&old, codec, 2);
        let (expected, without) = encode(&new, codec, 1);
        let found = Encoder { codec, earlier: Arc::new(earlier(codec, &old_blob, &old_encoded.blocks)) };
        let (blob, with) = encode(&new, found, threads);
        prop_assert!(blob == expected);
        prop_assert_eq!(with, without);
        let mut plain = Vec::new();
        decompress(&blob[..]).expect("opened").1.read_to_end(&mut plain).expect("decompressed");
        prop_assert!(plain == new);
    }
}

/// What the blocks of a blob are called.
fn names(encoded: &EncodedLayer) -> Vec<Vec<u8>> {
    // Lines of 84 bytes, between a head of two lines and a digest; the first 32 are the plain block's.
    let bytes = encoded.blocks.encode(Codec::GZIP);
    let head = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n').nth(1).expect("two lines").0 + 1;
    bytes[head..bytes.len() - 32].chunks(84).map(|line| line[..32].to_vec()).collect()
}

#[test]
fn an_edit_leaves_most_blocks_and_a_damaged_blob_serves_none() {
    let codec = Codec::GZIP;
    let old = mixed(&[(0, 6_000_000, 1)]);
    let mut new = old.clone();
    new.splice(3_000_000..3_000_010, *b"something else");
    let (old_blob, old_encoded) = encode(&old, codec, 2);
    let (expected, encoded) = encode(&new, codec, 2);
    let (before, after) = (names(&old_encoded), names(&encoded));
    let new_blocks = after.iter().filter(|name| !before.contains(name)).count();
    assert!(
        (1..=4).contains(&new_blocks) && after.len() > 20,
        "{new_blocks} of {} blocks are new",
        after.len()
    );

    let mut file = tempfile::tempfile().expect("a file");
    file.write_all(&old_blob.iter().map(|byte| !byte).collect::<Vec<u8>>()).expect("written");
    let mut damaged = Earlier::new();
    damaged.add(file, old_encoded.blocks);
    let (blob, _) = encode(&new, Encoder { codec, earlier: Arc::new(damaged) }, 2);
    assert!(blob == expected);
}

#[test]
fn a_text_between_noise_is_cut_alike_each_time() {
    let text = mixed(&[(0, 2 << 20, 1)]);
    let noise = |seed| mixed(&[(1, 1 << 20, seed)]);
    let tar = [&noise(1)[..], &text, &noise(2), &text, &noise(3), &text].concat();
    let (blob, encoded) = encode(&tar, Codec::GZIP, 2);
    let (alone, _) = encode(&text, Codec::GZIP, 2);
    // Stored noise costs five bytes for 65535; what is at a border is cut in other ways.
    let most = (3 << 20) * 1001 / 1000 + 3 * alone.len() * 101 / 100;
    assert!(blob.len() < most, "{} for 3 of {}", blob.len(), alone.len());
    let (all, once) = (names(&encoded), BTreeSet::from_iter(names(&encoded)));
    assert!(once.len() * 3 < all.len() * 2, "{} of {} blocks are one of their kind", once.len(), all.len());
}
