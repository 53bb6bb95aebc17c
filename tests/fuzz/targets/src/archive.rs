//! What an archive is, told by its content: the same however the bytes come, and in bounded memory.

use std::io::Read;

use image::detect::{Format, MAGIC_LENGTH, decompress, is_archive};

use crate::tar::Trickle;

/// How many bytes of what is decompressed are looked at.
const LOOKED_AT: u64 = 1 << 20;

/// Asks whether the bytes are an archive, and decompresses them.
pub fn archive(data: &[u8]) {
    let format = Format::of(&data[..data.len().min(MAGIC_LENGTH)]);
    assert_eq!(format, Format::of(data), "the first bytes decide");
    let whole = is_archive(data).expect("memory can be read");
    let slowly = is_archive(Trickle { rest: data, step: 7 }).expect("memory can be read");
    assert_eq!(whole, slowly, "an archive or none, by how the bytes come");
    if whole {
        assert!(data.len() >= 20 && (format != Format::Plain || data.len() >= 512));
    }
    let (at_once, slowly) = (plain(data), plain(Trickle { rest: data, step: 5 }));
    match (&at_once, &slowly) {
        (Ok(at_once), Ok(slowly)) => assert!(at_once == slowly, "decompressed in two ways"),
        (Err(_), Err(_)) => {}
        _ => panic!("broken or not, by how the bytes come: {at_once:?}, {slowly:?}"),
    }
    if format == Format::Plain {
        assert_eq!(at_once.expect("it passes through").len(), data.len().min(LOOKED_AT as usize));
    }
}

fn plain(source: impl Read + Send) -> Result<Vec<u8>, String> {
    let (_, reader) = decompress(source).map_err(|error| error.to_string())?;
    let mut out = Vec::new();
    reader.take(LOOKED_AT).read_to_end(&mut out).map_err(|error| error.to_string())?;
    Ok(out)
}
