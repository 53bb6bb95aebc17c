//! Reading ahead changes neither the bytes of a tar nor which error is told.

use std::io;

use image::{
    layer_tar::{LayerTarError, TarOptions, write_layer},
    tar::AppendError,
};
use oci::Digest;
use tree::{Kind, Node};

use crate::archive::{Made, path};

const KIB: usize = 1024;

fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at / 3 % 251) as u8).collect()
}

/// Small files and large ones in turns, around the length from which a file is read on its own.
fn many() -> Made {
    let mut made = Made::default();
    for at in 0..300usize {
        let length = match at {
            40 => 256 * KIB,
            80 => 256 * KIB + 1,
            120 => 1000 * KIB,
            160 => 0,
            _ => at * 77,
        };
        made = made.folder(&format!("{at:03}"), 0o755).file(&format!("{at:03}/file"), &bytes(length));
    }
    made
}

fn write(made: &Made, verify: bool, threads: usize) -> Result<Vec<u8>, LayerTarError> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
    let mut tar = Vec::new();
    let options = TarOptions { epoch: None, verify };
    pool.install(|| write_layer(&made.layer, &made.contents, options, &mut tar)).map(|()| tar)
}

#[test]
fn a_tar_is_the_same_with_any_number_of_threads() {
    let made = many();
    let one = write(&made, false, 1).expect("written");
    for (verify, threads) in [(true, 1), (false, 2), (true, 2), (true, 8)] {
        assert!(write(&made, verify, threads).expect("written") == one, "{threads} threads, {verify}");
    }
    // Outside of any pool of ours.
    assert!(made.tar() == one);
}

#[test]
fn the_first_file_that_is_not_what_it_was_is_told() {
    for (file, length) in [("010/file", 770), ("080/file", 256 * KIB + 1)] {
        let with = |contents: Vec<u8>| {
            let mut made = many();
            made.contents.0.insert(path(file), contents);
            // A later one is wrong, too, and is reached sooner by another thread.
            made.contents.0.remove(&path("200/file"));
            [1, 2, 8].map(|threads| write(&made, true, threads).expect_err("it is another file"))
        };
        for error in with(vec![7; length]) {
            let LayerTarError::Changed { path: at, expected, found } = error else { panic!("{error}") };
            assert_eq!((at, expected), (path(file), Digest::of(&bytes(length))));
            assert_eq!(found, Digest::of(&vec![7; length]));
        }
        for (found, contents) in [(Some(length as u64 - 1), length - 1), (None, length + 1)] {
            for error in with(bytes(contents)) {
                let LayerTarError::Append(AppendError::Size { path: at, expected, found: told }) = &error
                else {
                    panic!("{error}")
                };
                assert_eq!((at.as_str(), *expected, *told), (file, length as u64, found), "{error}");
            }
        }
    }
}

/// The longest piece that was written at once.
struct Longest(usize);

impl io::Write for Longest {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 = self.0.max(bytes.len());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn what_is_read_ahead_is_bounded_where_names_are_long() {
    let mut made = Made::default();
    for at in 0..1000 {
        made = made.file(&format!("{}{at}", "a-long-name/".repeat(250)), b"");
    }
    let mut longest = Longest(0);
    write_layer(&made.layer, &made.contents, TarOptions::default(), &mut longest).expect("written");
    assert!(longest.0 < 512 * KIB, "{} KiB at once", longest.0 / KIB);
}

#[test]
fn a_file_that_is_gone_and_an_archive_that_is_full_are_told() {
    let mut made = many();
    made.contents.0.remove(&path("120/file"));
    let error = write(&made, false, 2).expect_err("it is gone");
    assert!(matches!(&error, LayerTarError::Open { path: at, .. } if *at == path("120/file")), "{error}");

    struct Full(usize);
    impl io::Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 = self.0.checked_sub(bytes.len()).ok_or(io::ErrorKind::StorageFull)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let made = many();
    let error = write_layer(&made.layer, &made.contents, TarOptions::default(), &mut Full(700_000));
    assert!(matches!(error, Err(LayerTarError::Append(AppendError::Write(_)))), "{error:?}");
}

#[test]
fn a_size_that_nothing_can_have_is_an_error() {
    let huge = Node::new(Kind::File { size: u64::MAX / 4, content: Digest::of(b"") }, 0o644);
    let mut made = Made::default().node("huge", huge);
    made.contents.0.insert(path("huge"), b"little".to_vec());
    let error = write(&made, true, 2).expect_err("it is shorter");
    assert!(matches!(error, LayerTarError::Append(AppendError::Size { found: Some(6), .. })), "{error}");
}
