//! Blobs that are small, and of which much is made.

use std::io::{Read, Write};

use oci::{Digest, Hasher};

use super::tar::{Header, Tar};

/// A blob, and the digest of the tar that it unpacks to.
pub struct Bomb {
    /// The blob.
    pub blob: Vec<u8>,
    /// The tar's digest.
    pub diff_id: Digest,
}

/// A tar that is told piece by piece: these bytes, so often.
type Pieces<'a> = &'a [(&'a [u8], u64)];

fn digest(pieces: Pieces<'_>) -> Digest {
    let mut hasher = Hasher::new();
    for (bytes, times) in pieces {
        for _ in 0..*times {
            hasher.update(bytes);
        }
    }
    hasher.finish()
}

/// Each piece as a member of its own, as often as it stands there.
fn repeated(pieces: Pieces<'_>, compress: impl Fn(&[u8]) -> Vec<u8>) -> Vec<u8> {
    let packed =
        |(bytes, times): &(&[u8], u64)| compress(bytes).repeat(usize::try_from(*times).expect("a count"));
    pieces.iter().map(packed).collect::<Vec<_>>().concat()
}

/// The bytes in gzip.
pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    writer.write_all(bytes).and_then(|()| writer.finish()).expect("memory takes it")
}

/// The bytes in zstd, by the program of that name.
///
/// # Panics
/// Where it is not there or fails.
pub fn zstd(bytes: &[u8]) -> Vec<u8> {
    let mut child = std::process::Command::new("zstd")
        .args(["-19", "-q", "-c"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("zstd is there");
    let (mut input, bytes) = (child.stdin.take().expect("it was asked for"), bytes.to_vec());
    let writer = std::thread::spawn(move || input.write_all(&bytes));
    let mut packed = Vec::new();
    child.stdout.take().expect("it was asked for").read_to_end(&mut packed).expect("a pipe");
    writer.join().expect("it only writes").expect("zstd reads all");
    assert!(child.wait().expect("a child").success());
    packed
}

/// A file of so many MiB of zeros, of which `compress` makes little.
pub fn zeros(mebibytes: u64, compress: impl Fn(&[u8]) -> Vec<u8>) -> Bomb {
    let mebibyte = vec![0; 1 << 20];
    let header = Header::new(b"zeros", b'0', 0).field(124, &size(mebibytes << 20));
    let header = Tar::default().member(header, b"").cut();
    let pieces: Pieces<'_> = &[(&header, 1), (&mebibyte, mebibytes), (&[0; 1024], 1)];
    Bomb { blob: repeated(pieces, compress), diff_id: digest(pieces) }
}

/// An archive of so many thousand empty files, each with another name.
pub fn entries(thousands: u64) -> Bomb {
    let mut hasher = Hasher::new();
    let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    for thousand in 0..thousands {
        let mut tar = Tar::default().folder(&format!("{thousand}/"));
        for one in 0..1000 {
            tar = tar.file(&format!("{thousand}/{one}"), b"");
        }
        let tar = tar.cut();
        hasher.update(&tar);
        writer.write_all(&tar).expect("memory takes it");
    }
    hasher.update(&[0; 1024]);
    let packed = writer.write_all(&[0; 1024]).and_then(|()| writer.finish());
    Bomb { blob: packed.expect("memory takes it"), diff_id: hasher.finish() }
}

/// A size as the field of a header: octal, or base 256 where that does not hold it.
pub fn size(bytes: u64) -> [u8; 12] {
    let mut field = [0; 12];
    match bytes < 1 << 33 {
        true => field.copy_from_slice(format!("{bytes:011o}\0").as_bytes()),
        false => {
            field[0] = 0x80;
            field[4..].copy_from_slice(&bytes.to_be_bytes());
        }
    }
    field
}
