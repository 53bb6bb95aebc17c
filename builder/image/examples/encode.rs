//! Measures encoding: `encode CODEC [LEVEL] < TAR` compresses a tar from standard input, says how large and how fast.

use std::{
    io::{self, Read},
    time::Instant,
};

use image::{compress::Codec, encode::encode_tar};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let level: Option<u32> = arguments.get(2).map(|level| level.parse()).transpose()?;
    let codec = match arguments.get(1).map(String::as_str) {
        Some("gzip") => Codec::Gzip { level },
        Some("zstd") => Codec::Zstd { level: level.unwrap_or(3) },
        Some("estargz") => Codec::EStargz { level },
        Some("zstd:chunked") => Codec::ZstdChunked { level: level.unwrap_or(3) },
        _ => Codec::Uncompressed,
    };
    let mut tar = Vec::new();
    io::stdin().read_to_end(&mut tar)?;
    let start = Instant::now();
    let mut blob = Vec::new();
    let encoded = encode_tar(&mut &tar[..], codec, &mut blob)?;
    let seconds = start.elapsed().as_secs_f64();
    let megabytes = tar.len() as f64 / 1e6;
    let ratio = tar.len() as f64 / encoded.size_bytes as f64;
    println!(
        "{codec}: {:.0} MB/s, ratio {ratio:.3}, {} bytes, {}",
        megabytes / seconds,
        encoded.size_bytes,
        encoded.blob
    );
    Ok(())
}
