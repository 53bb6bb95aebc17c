//! The encoders are frozen: these digests never change while `ENCODER_VERSION` is what it is.

use crate::archive::everything;
use image::{
    compress::{Codec, CompressWriter, ENCODER_VERSION},
    encode::{EncodedLayer, encode_layer, encode_tar},
    layer_tar::TarOptions,
};
use oci::{Digest, Epoch};
use std::io::Write;

/// 5 MB that compress about as a layer does: words, runs of zeros, noise.
fn sample() -> Vec<u8> {
    let words =
        ["layer", "manifest", " ", "\n", "digest", "config", "0123", "/usr/lib/", "\0\0\0\0", "fn main() {}"];
    let mut state = 42u64;
    let mut next = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize
    };
    let mut bytes = Vec::new();
    while bytes.len() < 5_000_000 {
        match next() % 1000 {
            0 => bytes.resize(bytes.len() + next() % 20_000, 0),
            1 => bytes.extend((0..next() % 20_000).map(|_| next() as u8).collect::<Vec<_>>()),
            _ => bytes.extend_from_slice(words[next() % words.len()].as_bytes()),
        }
    }
    bytes
}

fn compress(bytes: &[u8], codec: Codec, threads: usize) -> Vec<u8> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
    pool.install(|| {
        let mut writer = CompressWriter::new(Vec::new(), codec).expect("a level");
        for piece in bytes.chunks(77_777) {
            writer.write_all(piece).expect("written");
        }
        writer.finish().expect("written").0
    })
}

#[test]
fn blobs_are_the_same_with_any_number_of_threads_and_for_ever() {
    let sample = sample();
    assert_eq!(ENCODER_VERSION, 4, "a new version has new digests");
    for (codec, digest) in [
        (Codec::Gzip { level: Some(0) }, "71793454243901fe943112fb0606a6d5357e0ae7f706a0fbe7c70400e0cd6a73"),
        (Codec::Gzip { level: Some(1) }, "a85631b2274bd3908729490a71b19079fafdeaccb47ead663606be47a6c53f41"),
        (Codec::GZIP, "1523b7810cd87eecf0a4fe98a5ff0a4c7f08aa9d9833acb4160c7ea9b856d725"),
        (Codec::Gzip { level: Some(6) }, "878a196f86e9d22c57464e1f4f11f137bad775a79a736fc7dc0fd9bc49460b5d"),
        (Codec::Gzip { level: Some(9) }, "f3645cc3b62eb07d750ddeebc200f2d8f3cebb5ad9e7306b19c3bd464cd53480"),
        (Codec::Zstd { level: 1 }, "0b6abeaf4e571d682391b34c0fc2c246fa8bf30b5a8ef0efd7236b1383570349"),
        (Codec::Zstd { level: 3 }, "0d3352608623acc0d021c9b1105110cb0af0d85e04cb85d6efa7c0af4f141883"),
        (Codec::Zstd { level: 9 }, "1a739c04bc6da48de5c9ed12668f0b076c1d5ab7e4fa8602dbb308e5cd810383"),
    ] {
        let blobs = [1, 2, 8].map(|threads| Digest::of(&compress(&sample, codec, threads)).hex());
        assert!(blobs.iter().all(|blob| *blob == blobs[0]), "{codec}");
        assert_eq!(blobs[0], digest, "{codec}");
    }
}

#[test]
fn a_layer_is_the_same_for_ever() {
    let made = everything();
    let encode = |codec, options: TarOptions| -> EncodedLayer {
        let mut blob = Vec::new();
        let encoded = encode_layer(&made.layer, &made.contents, options, codec, &mut blob).expect("encoded");
        assert_eq!(encoded.blob.digest(), Digest::of(&blob));
        assert_eq!(encoded.size_bytes, blob.len() as u64);
        encoded
    };
    let plain = encode(Codec::Uncompressed, TarOptions::default());
    assert_eq!(
        plain.diff_id.digest().hex(),
        "97bff8ce88fb544df5e93bbd1a65ee8fc1b9df691966d244abc546b661e30557"
    );
    assert_eq!(plain.diff_id.digest(), plain.blob.digest());
    let gzip = encode(Codec::GZIP, TarOptions::default());
    assert_eq!(gzip.diff_id, plain.diff_id);
    assert_eq!(gzip.blob.digest().hex(), "855ac82673b7760d2db1015b8dd5c9c311b1c23d1f3835a7908e0ecc80509cde");
    let clamped = encode(Codec::Uncompressed, TarOptions { epoch: Some(Epoch(1000)), verify: true });
    assert_eq!(
        clamped.diff_id.digest().hex(),
        "087d9e8cdbaf44e25f4e31768b44843ba1dfdd084a0654a9521124dea6abae80"
    );

    let mut blob = Vec::new();
    let again = encode_tar(&mut &made.tar()[..], Codec::GZIP, &mut blob).expect("encoded");
    assert_eq!(again, gzip);
}
