//! What the encoders write is read by everybody else.

use std::{
    fs,
    io::{Read, Write},
    process::Command,
};

use crate::archive::{has, run};
use image::{
    compress::{Codec, CompressWriter},
    detect::{Format, decompress},
};
use proptest::prelude::*;

fn compress(bytes: &[u8], codec: Codec) -> Vec<u8> {
    let mut writer = CompressWriter::new(Vec::new(), codec).expect("a level");
    writer.write_all(bytes).expect("written");
    writer.finish().expect("written").0
}

fn samples() -> Vec<Vec<u8>> {
    let mut state = 1u64;
    let noise = (0..3_000_000).map(|_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    });
    let noise: Vec<u8> = noise.collect();
    let text: Vec<u8> = noise.iter().flat_map(|b| format!("{b} ").into_bytes()).collect();
    vec![Vec::new(), b"x".to_vec(), vec![0; 10_000_000], noise, text]
}

#[test]
fn real_tools_take_the_blobs() {
    let folder = tempfile::tempdir().expect("a folder");
    for (tool, codec, name) in [("gzip", Codec::GZIP, "a.gz"), ("zstd", Codec::ZSTD, "a.zst")] {
        if !has(tool) {
            continue;
        }
        for sample in samples() {
            let path = folder.path().join(name);
            fs::write(&path, compress(&sample, codec)).expect("written");
            run(Command::new(tool).arg("-t").arg(&path));
            let plain = run(Command::new(tool).arg("-dc").arg(&path));
            assert!(plain == sample, "{tool} gives other bytes back");
        }
    }
}

#[test]
fn gzip_is_one_member() {
    for sample in samples() {
        let blob = compress(&sample, Codec::GZIP);
        let mut plain = Vec::new();
        // `GzDecoder` stops after the first member.
        flate2::read::GzDecoder::new(&blob[..]).read_to_end(&mut plain).expect("gzip");
        assert!(plain == sample);
        assert_eq!(&blob[..10], [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255]);
    }
}

#[test]
fn xz_of_every_shape_is_read() {
    if !has("xz") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a");
    for mut sample in samples() {
        sample.truncate(400_000);
        fs::write(&path, &sample).expect("written");
        for options in [
            &["-1"][..],
            &["-6"],
            &["-0", "--check=none"],
            &["-0", "--check=crc32"],
            &["-0", "--check=sha256"],
            &["-0", "--block-size=100000"],
            &["--x86", "--lzma2=dict=1MiB"],
            &["--delta=dist=4", "--lzma2=dict=1MiB"],
            &["--arm64=start=4", "--lzma2=dict=64KiB"],
        ] {
            let shown = format!("{} bytes with {options:?}", sample.len());
            let packed = run(Command::new("xz").args(options).arg("-kc").arg(&path));
            // Two streams, padding between and behind them.
            let packed = [&packed[..], &[0; 8], &packed, &[0; 4]].concat();
            let (format, mut plain) = decompress(Trickle(&packed)).expect("opened");
            assert_eq!(format, Format::Xz);
            let mut found = Vec::new();
            plain.read_to_end(&mut found).expect(&shown);
            assert!(found == [&sample[..], &sample].concat(), "{shown}");
        }
    }
}

/// Gives a few bytes at a time, as a pipe may.
struct Trickle<'a>(&'a [u8]);

impl Read for Trickle<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let most = buffer.len().min(777);
        (&mut self.0).take(most as u64).read(&mut buffer[..most])
    }
}

#[test]
fn xz_that_is_damaged_is_refused() {
    if !has("xz") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a");
    fs::write(&path, vec![7; 5000]).expect("written");
    let packed = run(Command::new("xz").arg("-kc").arg(&path));
    for at in 0..packed.len() {
        let mut damaged = packed.clone();
        damaged[at] ^= 0x10;
        let mut found = Vec::new();
        let read = decompress(&damaged[..]).and_then(|(_, mut plain)| plain.read_to_end(&mut found));
        assert!(read.is_err() || found == damaged, "a flipped bit in byte {at} passed");
        let read = decompress(&packed[..at]).and_then(|(_, mut plain)| plain.read_to_end(&mut Vec::new()));
        assert!(at < 6 || read.is_err(), "cut at {at} passed");
    }
    let huge = run(Command::new("xz").args(["--lzma2=dict=256MiB", "-kc"]).arg(&path));
    let error = decompress(&huge[..]).and_then(|(_, mut plain)| plain.read_to_end(&mut Vec::new()));
    assert!(error.expect_err("too large").to_string().contains("dictionary"));
}

proptest! {
    #[test]
    fn any_bytes_survive(sample in proptest::collection::vec(any::<u8>(), 0..5000), repeat in 1usize..200) {
        let sample = sample.repeat(repeat);
        for codec in [Codec::Gzip { level: Some(0) }, Codec::Gzip { level: Some(1) }, Codec::GZIP, Codec::ZSTD] {
            let blob = compress(&sample, codec);
            let mut plain = Vec::new();
            decompress(&blob[..]).expect("opened").1.read_to_end(&mut plain).expect("decompressed");
            prop_assert!(plain == sample);
        }
    }

    #[test]
    fn no_bytes_make_a_decompressor_panic(magic in 0usize..5, bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let magics: [&[u8]; 5] = [b"", b"\x1f\x8b\x08", b"BZh9", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd"];
        let bytes = [magics[magic], &bytes].concat();
        if let Ok((_, plain)) = decompress(&bytes[..]) {
            // An error or some bytes: both will do.
            let _ = plain.take(1 << 20).read_to_end(&mut Vec::new());
        }
    }
}
