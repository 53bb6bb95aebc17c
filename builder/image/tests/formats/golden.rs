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
    let words = ["layer", "manifest", " ", "\n", "digest", "config", "0123", "/usr/lib/", "\0\0\0\0", "fn main() {}"];
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
        writer.finish().expect("written")
    })
}

#[test]
fn blobs_are_the_same_with_any_number_of_threads_and_for_ever() {
    let sample = sample();
    assert_eq!(ENCODER_VERSION, 1, "a new version has new digests");
    for (codec, digest) in [
        (Codec::Gzip { level: 0 }, "GZIP0"),
        (Codec::Gzip { level: 1 }, "GZIP1"),
        (Codec::Gzip { level: 6 }, "GZIP6"),
        (Codec::Gzip { level: 9 }, "GZIP9"),
        (Codec::Zstd { level: 1 }, "ZSTD1"),
        (Codec::Zstd { level: 3 }, "ZSTD3"),
        (Codec::Zstd { level: 19 }, "ZSTD19"),
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
    assert_eq!(plain.diff_id.digest().hex(), "LAYER");
    assert_eq!(plain.diff_id.digest(), plain.blob.digest());
    let gzip = encode(Codec::GZIP, TarOptions::default());
    assert_eq!(gzip.diff_id, plain.diff_id);
    assert_eq!(gzip.blob.digest().hex(), "LAYERGZ");
    let clamped = encode(Codec::Uncompressed, TarOptions { epoch: Some(Epoch(1000)), verify: true });
    assert_eq!(clamped.diff_id.digest().hex(), "CLAMPED");

    let mut blob = Vec::new();
    let again = encode_tar(&mut &made.tar()[..], Codec::GZIP, &mut blob).expect("encoded");
    assert_eq!(again, gzip);
}
