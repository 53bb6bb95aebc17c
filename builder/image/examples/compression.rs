//! Measures every codec: `tar -c FOLDER | compression` prints the table of `docs/compression.md`.
//!
//! Each codec encodes the archive three times, of which the fastest counts. Speed is that of one core: the archive's
//! length by the processor time of all threads, which a busy machine changes little. `gzip` and `zstd`, where they are
//! installed, compress the same archive through a pipe.

use std::{
    fs,
    io::{self, Read, Write},
    process::{Command, Stdio},
    thread,
};

use image::{compress::Codec, detect::decompress, encode::encode_tar};

const ROUNDS: usize = 3;

/// `sysconf(_SC_CLK_TCK)`, the same on every Linux.
const TICKS: f64 = 100.0;

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let mut tar = Vec::new();
    io::stdin().read_to_end(&mut tar)?;
    println!("{} of tar\n", megabytes(tar.len()));
    println!("| codec | level | MB/s, encoding | MB/s, decoding | size | of the tar |");
    println!("|---|---|---|---|---|---|");
    for codec in [
        Codec::Uncompressed,
        Codec::Gzip { level: Some(1) },
        Codec::GZIP,
        Codec::Gzip { level: Some(6) },
        Codec::Gzip { level: Some(9) },
        Codec::EStargz { level: Some(1) },
        Codec::ESTARGZ,
        Codec::EStargz { level: Some(6) },
        Codec::EStargz { level: Some(9) },
        Codec::Zstd { level: 1 },
        Codec::ZSTD,
        Codec::Zstd { level: 9 },
        Codec::ZstdChunked { level: 1 },
        Codec::ZSTD_CHUNKED,
        Codec::ZstdChunked { level: 9 },
    ] {
        ours(&tar, codec)?;
    }
    for (program, level) in
        [("gzip", "-1"), ("gzip", "-6"), ("gzip", "-9"), ("zstd", "-1"), ("zstd", "-3"), ("zstd", "-9")]
    {
        theirs(&tar, program, level)?;
    }
    Ok(())
}

fn ours(tar: &[u8], codec: Codec) -> Result<(), Failure> {
    let mut blob = Vec::new();
    let encoded = fastest(|| {
        blob.clear();
        encode_tar(&mut &tar[..], codec, &mut blob).map(|_| ()).map_err(Failure::from)
    })?;
    let decoded = fastest(|| {
        let (_, mut plain) = decompress(&blob[..])?;
        io::copy(&mut plain, &mut io::sink())?;
        Ok(())
    })?;
    let text = codec.to_string();
    let (name, level) = text.rsplit_once('-').unwrap_or((&text, ""));
    row(name, level, tar.len(), (encoded, decoded), blob.len());
    Ok(())
}

fn theirs(tar: &[u8], program: &str, level: &str) -> Result<(), Failure> {
    let run = |arguments: &[&str], input: &[u8]| -> Result<Vec<u8>, Failure> {
        let mut child =
            Command::new(program).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut stdin = child.stdin.take().ok_or("no pipe")?;
        thread::scope(|scope| {
            scope.spawn(move || stdin.write_all(input));
            Ok(child.wait_with_output()?.stdout)
        })
    };
    if run(&[level, "-c"], b"").is_err() {
        println!("| `{program}` | {level} | not installed | | | |");
        return Ok(());
    }
    let mut blob = Vec::new();
    let encoded = fastest(|| {
        blob = run(&[level, "-c"], tar)?;
        Ok(())
    })?;
    let decoded = fastest(|| run(&["-dc"], &blob).map(|_| ()))?;
    row(&format!("`{program}`"), level, tar.len(), (encoded, decoded), blob.len());
    Ok(())
}

/// The least processor time of some rounds, in seconds.
fn fastest(mut round: impl FnMut() -> Result<(), Failure>) -> Result<f64, Failure> {
    let mut least = f64::INFINITY;
    for _ in 0..ROUNDS {
        let start = processor_time()?;
        round()?;
        least = least.min(processor_time()? - start);
    }
    Ok(least)
}

/// Processor time of this process and of those that it waited for, in seconds (proc(5), fields 14 to 17).
fn processor_time() -> Result<f64, Failure> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    let fields = stat.rsplit_once(')').ok_or("no stat")?.1.split_whitespace();
    let ticks: Result<Vec<f64>, _> = fields.skip(11).take(4).map(str::parse::<f64>).collect();
    Ok(ticks?.iter().sum::<f64>() / TICKS)
}

fn row(name: &str, level: &str, plain: usize, (encoded, decoded): (f64, f64), size: usize) {
    let speed = |seconds: f64| format!("{:.0}", plain as f64 / 1e6 / seconds.max(1.0 / TICKS));
    let (encoded, decoded) = (speed(encoded), speed(decoded));
    let share = 100.0 * size as f64 / plain as f64;
    println!("| {name} | {level} | {encoded} | {decoded} | {} | {share:.1} % |", megabytes(size));
}

fn megabytes(bytes: usize) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}
