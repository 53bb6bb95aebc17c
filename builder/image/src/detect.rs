//! What an archive is, by its content, and how to get at the tar in it.

use std::io::{self, BufRead, BufReader, Cursor, Read};

use crate::{
    tar::{BLOCK, Reader, is_header},
    xz::XzReader,
};

/// How a stream is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Not at all, as far as its first bytes say.
    Plain,
    /// RFC 1952.
    Gzip,
    /// bzip2.
    Bzip2,
    /// xz.
    Xz,
    /// RFC 8878; a skippable frame may come first.
    Zstd,
}

/// How many bytes [`Format::of`] wants to see.
pub const MAGIC_LENGTH: usize = 6;

/// The largest window of zstd that is decompressed: 128 MiB, what `zstd` itself takes unasked.
const ZSTD_WINDOW_LOG: u32 = 27;

impl Format {
    /// Tells the format by a stream's first bytes.
    pub fn of(start: &[u8]) -> Format {
        match start {
            [0x1f, 0x8b, 8, ..] => Format::Gzip,
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => Format::Bzip2,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Format::Xz,
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Format::Zstd,
            _ => Format::Plain,
        }
    }
}

/// Tells the format of a stream and decompresses it; a plain one passes through.
///
/// Memory is bounded: windows of zstd and dictionaries of xz above 128 MiB are refused. The length of what comes out is
/// not: the caller bounds it.
///
/// # Errors
/// When the first bytes cannot be read, or a decompressor cannot be made. Broken data is an error of the reader that is
/// returned.
pub fn decompress<'a>(source: impl Read + Send + 'a) -> io::Result<(Format, Box<dyn Read + Send + 'a>)> {
    let mut source = source;
    let mut start = Vec::with_capacity(MAGIC_LENGTH);
    source.by_ref().take(MAGIC_LENGTH as u64).read_to_end(&mut start)?;
    let format = Format::of(&start);
    let whole = BufReader::with_capacity(128 * 1024, Cursor::new(start).chain(source));
    Ok((format, open(format, whole)?))
}

/// Decompresses a stream of a known format.
///
/// # Errors
/// As [`decompress`].
pub fn open<'a>(format: Format, source: impl BufRead + Send + 'a) -> io::Result<Box<dyn Read + Send + 'a>> {
    Ok(match format {
        Format::Plain => Box::new(source),
        Format::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(source)),
        Format::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(source)),
        Format::Xz => Box::new(XzReader::new(source)),
        Format::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(source)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG)?;
            Box::new(decoder)
        }
    })
}

/// Whether a stream is an archive that `ADD` unpacks: a tar, plain or compressed in a way that is known.
///
/// Decided by the content, whatever its name is: after decompression stands a tar header whose checksum is right. An
/// empty stream is none.
///
/// # Errors
/// When `source` cannot be read. Broken compressed data is no error: it is no archive.
pub fn is_archive(source: impl Read + Send) -> io::Result<bool> {
    let mut failing = Remember { source, error: None };
    let first = decompress(&mut failing).and_then(|(_, mut plain)| {
        let mut first = Vec::with_capacity(BLOCK);
        plain.by_ref().take(BLOCK as u64).read_to_end(&mut first)?;
        // A header may be followed by extensions, so that the reader needs the rest as well.
        let zeros = first.iter().all(|b| *b == 0);
        Ok(!zeros
            && Reader::new(Cursor::new(first).chain(plain)).next_entry().is_ok_and(|entry| entry.is_some()))
    });
    match (first, failing.error) {
        (_, Some(error)) => Err(error),
        (found, None) => Ok(found.unwrap_or(false)),
    }
}

/// How much of a stream [`begins_archive`] wants.
pub const ARCHIVE_START: usize = BLOCK;

/// Whether what begins so is taken for an archive rather than for a text: packed in a way that is known, or a tar. A guess
/// from the start alone, where [`is_archive`] reads on.
pub fn begins_archive(start: &[u8]) -> bool {
    let magic = &start[..start.len().min(MAGIC_LENGTH)];
    Format::of(magic) != Format::Plain || start.first_chunk::<BLOCK>().is_some_and(is_header)
}

/// Keeps an error of the source apart from what a decompressor makes of its bytes.
struct Remember<R> {
    source: R,
    error: Option<io::Error>,
}

impl<R: Read> Read for Remember<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.source.read(buffer) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                let shown = io::Error::new(error.kind(), error.to_string());
                self.error = Some(error);
                Err(shown)
            }
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::tar::{Builder, Entry, EntryKind};

    fn tar() -> Vec<u8> {
        let mut builder = Builder::new(Vec::new());
        let entry = Entry {
            path: b"a".to_vec(),
            kind: EntryKind::File { size: 5 },
            mode: 0o644,
            uid: 0,
            gid: 0,
            mtime: tree::Mtime::default(),
            xattrs: Default::default(),
        };
        builder.append(&entry, &mut &b"hello"[..]).expect("written");
        builder.finish().expect("written")
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        writer.write_all(bytes).expect("written");
        writer.finish().expect("written")
    }

    fn bzip2(bytes: &[u8]) -> Vec<u8> {
        let mut writer = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::default());
        writer.write_all(bytes).expect("written");
        writer.finish().expect("written")
    }

    #[test]
    fn an_archive_is_told_from_a_text_by_its_start() {
        let text = [&b"FROM scratch\n"[..], &[b'#'; 600]].concat();
        for (start, archive) in [
            (tar(), true),
            (gzip(b"FROM scratch"), true),
            (bzip2(&tar())[..8].to_vec(), true),
            (b"\xfd7zXZ\0".to_vec(), true),
            (b"\x28\xb5\x2f\xfd".to_vec(), true),
            (tar()[..BLOCK - 1].to_vec(), false),
            ([&b"b"[..], &tar()[1..]].concat(), false),
            (vec![0; BLOCK], false),
            (text, false),
            (Vec::new(), false),
        ] {
            assert_eq!(begins_archive(&start), archive, "{:?}", &start[..start.len().min(8)]);
        }
    }

    #[test]
    fn formats_are_told_by_content() {
        let tar = tar();
        let zstd = zstd::bulk::compress(&tar, 3).expect("compressed");
        let skippable = [&[0x50, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 9, 9][..], &zstd].concat();
        for (bytes, format) in [
            (tar.clone(), Format::Plain),
            (gzip(&tar), Format::Gzip),
            ([gzip(&tar[..700]), gzip(&tar[700..])].concat(), Format::Gzip),
            (bzip2(&tar), Format::Bzip2),
            (zstd, Format::Zstd),
            (skippable, Format::Zstd),
        ] {
            let (found, mut plain) = decompress(&bytes[..]).expect("opened");
            assert_eq!(found, format);
            let mut out = Vec::new();
            plain.read_to_end(&mut out).expect("decompressed");
            assert_eq!(out, tar, "{format:?}");
            assert!(is_archive(&bytes[..]).expect("read"), "{format:?}");
        }
    }

    #[test]
    fn what_is_no_archive_stays_a_file() {
        let broken = gzip(&tar())[..40].to_vec();
        for bytes in [&b""[..], b"text", &[0; 2048], &gzip(b"text"), &gzip(b""), &broken, &tar()[1..]] {
            assert!(!is_archive(bytes).expect("read"), "{} bytes", bytes.len());
        }
    }

    #[test]
    fn an_error_of_the_source_is_not_swallowed() {
        struct Failing;
        impl Read for Failing {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::new(io::ErrorKind::PermissionDenied, "no"))
            }
        }
        let error = is_archive(Failing).expect_err("cannot be read");
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
    }

    #[test]
    fn huge_windows_are_refused() {
        // A frame without a content size whose window descriptor asks for 2 GiB.
        let frame = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 21 << 3, 0x01, 0x00, 0x00];
        let (_, mut plain) = decompress(&frame[..]).expect("opened");
        assert!(plain.read_to_end(&mut Vec::new()).is_err());
    }
}
