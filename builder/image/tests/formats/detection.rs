//! What is an archive stays one however much follows, and is told however the bytes come.

use std::io::{self, Read, Write};

use crate::archive::{archive, entry, file};
use image::{
    detect::is_archive,
    tar::{Entry, EntryKind},
};
use proptest::prelude::*;

/// A reader that gives a few bytes at a time.
struct Slow<'a>(&'a [u8], usize);

impl Read for Slow<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.1.min(buffer.len()).min(self.0.len());
        buffer[..length].copy_from_slice(&self.0[..length]);
        self.0 = &self.0[length..];
        Ok(length)
    }
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

/// An xz file of one block, whose chunks are stored.
fn xz(bytes: &[u8]) -> Vec<u8> {
    let sum = |bytes: &[u8]| crc32fast::hash(bytes).to_le_bytes();
    let mut out = [&[0xfd, b'7', b'z', b'X', b'Z', 0, 0, 0][..], &sum(&[0, 0])].concat();
    // LZMA2 with a dictionary of 64 KiB, and two bytes of padding.
    let header = [2, 0, 0x21, 1, 8, 0, 0, 0];
    out.extend(header.iter().chain(&sum(&header)));
    for (at, chunk) in bytes.chunks(400).enumerate() {
        out.push(if at == 0 { 1 } else { 2 });
        out.extend(u16::try_from(chunk.len() - 1).expect("a short chunk").to_be_bytes());
        out.extend(chunk);
    }
    out.push(0);
    out.resize(out.len().next_multiple_of(4), 0);
    // An index without records: it is checked to be there, not to be right.
    let (index, footer) = ([0, 0, 0, 0], [1, 0, 0, 0, 0, 0]);
    out.extend(index.iter().chain(&sum(&index)).chain(&sum(&footer)).chain(&footer).chain(b"YZ"));
    out
}

/// Archives whose first member has a short name, a name that needs an extension, and an attribute.
fn tars() -> Vec<Vec<u8>> {
    let long = |length: usize| -> Entry { entry(&"n".repeat(length), EntryKind::Fifo) };
    let mut attribute = file("a", b"hello");
    attribute.0.xattrs.insert(b"user.a".to_vec(), vec![b'v'; 700]);
    vec![archive(&[file("a", b"hello"), file("b", b"")]), archive(&[(long(300), b"")]), archive(&[attribute])]
}

#[test]
fn a_beginning_that_is_an_archive_is_one_however_it_goes_on() {
    for tar in tars() {
        let zstd = zstd::bulk::compress(&tar, 3).expect("compressed");
        for packed in [tar.clone(), gzip(&tar), bzip2(&tar), xz(&tar), zstd] {
            let step = (packed.len() / 300).max(1);
            let lengths = (0..packed.len()).step_by(step).chain([packed.len()]);
            let answers: Vec<bool> =
                lengths.map(|length| is_archive(&packed[..length]).expect("read")).collect();
            let first = answers.iter().position(|answer| *answer).expect("all of it is an archive");
            assert!(first > 0, "nothing is an archive");
            assert!(answers[first..].iter().all(|answer| *answer), "{answers:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn it_does_not_count_how_the_bytes_come(
        which in 0..3usize,
        edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
        step in 1..40usize,
    ) {
        let tar = &tars()[which];
        for packed in [tar.clone(), gzip(tar), bzip2(tar), xz(tar)] {
            let mut bytes = packed;
            for (place, byte) in &edits {
                let place = place.index(bytes.len());
                bytes[place] = *byte;
            }
            let at_once = is_archive(&bytes[..]).expect("read");
            prop_assert_eq!(is_archive(Slow(&bytes, step)).expect("read"), at_once);
        }
    }

    #[test]
    fn text_is_no_archive(text in "[ -~\n]{0,1500}") {
        prop_assert!(!is_archive(text.as_bytes()).expect("read"));
        prop_assert!(!is_archive(&gzip(text.as_bytes())[..]).expect("read"));
    }
}
