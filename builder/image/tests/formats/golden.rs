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
        writer.finish().expect("written")
    })
}

#[test]
fn blobs_are_the_same_with_any_number_of_threads_and_for_ever() {
    let sample = sample();
    assert_eq!(ENCODER_VERSION, 1, "a new version has new digests");
    for (codec, digest) in [
        (Codec::Gzip { level: 0 }, "36df2aceb6f983ac677b9b31e6d1a6089703aed1377a5a80477b0d43af9314ba"),
        (Codec::Gzip { level: 1 }, "93925eef41c72d1c0483a73381084b562df4c60ad933bc3693e61e1b610cb657"),
        (Codec::Gzip { level: 6 }, "2fcadee2c96761b86a24eeceba94de4265968a70fb89557f5227bc947facc5f4"),
        (Codec::Gzip { level: 9 }, "a4b89d25cfc7c81e0c2ddc4be4e40d46f44693cfd33ed3ceade47be623dfba42"),
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
    assert_eq!(gzip.blob.digest().hex(), "a9a0b1444c57263e5a2693fa0d7770723e3145bcffbde682fca157d89dcf7456");
    let clamped = encode(Codec::Uncompressed, TarOptions { epoch: Some(Epoch(1000)), verify: true });
    assert_eq!(
        clamped.diff_id.digest().hex(),
        "087d9e8cdbaf44e25f4e31768b44843ba1dfdd084a0654a9521124dea6abae80"
    );

    let mut blob = Vec::new();
    let again = encode_tar(&mut &made.tar()[..], Codec::GZIP, &mut blob).expect("encoded");
    assert_eq!(again, gzip);
}
