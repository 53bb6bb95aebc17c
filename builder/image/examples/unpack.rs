//! Measures unpacking and packing: `unpack FOLDER < LAYER` unpacks a layer, compressed or not, to an empty folder, and
//! makes a gzip blob of the folder again.

use std::{io, path::Path, time::Instant};

use image::{
    apply::{ApplyOptions, apply},
    compress::Codec,
    contents::Folder,
    detect::decompress,
    encode::encode_layer,
    layer_tar::TarOptions,
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::args().nth(1).ok_or("no folder was named")?;
    let folder = Path::new(&folder);
    let start = Instant::now();
    let (format, tar) = decompress(io::stdin())?;
    let applied = apply(tar, folder, &ApplyOptions::default())?;
    let megabytes = applied.diff_size_bytes as f64 / 1e6;
    let speed = || megabytes / start.elapsed().as_secs_f64();
    println!(
        "unpacked {format:?}: {megabytes:.0} MB, {} entries, {:.0} MB/s",
        applied.layer.entries.len(),
        speed()
    );

    for codec in [Codec::Uncompressed, Codec::GZIP, Codec::ZSTD] {
        let start = Instant::now();
        let contents = Folder::open(folder)?;
        let encoded = encode_layer(&applied.layer, &contents, TarOptions::default(), codec, &mut io::sink())?;
        let ratio = encoded.diff_size_bytes as f64 / encoded.size_bytes as f64;
        let speed = encoded.diff_size_bytes as f64 / 1e6 / start.elapsed().as_secs_f64();
        println!("packed {codec}: {speed:.0} MB/s, ratio {ratio:.3}, {}", encoded.blob);
    }
    Ok(())
}
