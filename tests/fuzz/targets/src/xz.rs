//! The xz container, behind its checksums: the harness writes those, so that mutations come to what they guard.
//!
//! The input: the id of the check, how many bytes of filters there are, the filters as a block header has them, then
//! LZMA2 chunks and whatever follows.

use std::io::Read;

use image::detect::{Format, open};

use crate::tar::Trickle;

/// How many bytes of what is decompressed are looked at.
const LOOKED_AT: u64 = 4 << 20;

/// Decompresses a stream of one block with these filters and this content.
pub fn xz(data: &[u8]) {
    let [check, length, rest @ ..] = data else { return };
    let (filters, content) = rest.split_at(usize::from(length % 64).min(rest.len()));
    let file = [stream_header(check % 16), block_header(filters), content.to_vec()].concat();
    let (at_once, slowly) = (decompress(&file[..]), decompress(Trickle { rest: &file, step: 3 }));
    match (&at_once, &slowly) {
        (Ok(at_once), Ok(slowly)) => assert!(at_once == slowly, "decompressed in two ways"),
        (Err(_), Err(_)) => {}
        _ => panic!("broken or not, by how the bytes come: {:?}, {:?}", at_once.err(), slowly.err()),
    }
}

fn decompress(source: impl Read + Send) -> Result<Vec<u8>, String> {
    let reader = open(Format::Xz, std::io::BufReader::new(source)).map_err(|error| error.to_string())?;
    let mut out = Vec::new();
    reader.take(LOOKED_AT).read_to_end(&mut out).map_err(|error| error.to_string())?;
    Ok(out)
}

fn stream_header(check: u8) -> Vec<u8> {
    let mut header = vec![0xfd, b'7', b'z', b'X', b'Z', 0, 0, check];
    header.extend(crc32fast::hash(&[0, check]).to_le_bytes());
    header
}

/// Size, flags and filters, zeros up to a multiple of four, checksum.
fn block_header(filters: &[u8]) -> Vec<u8> {
    let length = (1 + filters.len()).next_multiple_of(4) + 4;
    let mut header = vec![u8::try_from(length / 4 - 1).expect("at most 64 bytes of filters")];
    header.extend_from_slice(filters);
    header.resize(length - 4, 0);
    header.extend(crc32fast::hash(&header).to_le_bytes());
    header
}
