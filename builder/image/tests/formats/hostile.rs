//! Archives made to do harm, or to be understood in two ways.

use std::fs;

use crate::archive::{archive, entry, everything, file, folder, hard_link, is_root, symlink};
use image::{
    apply::{Applied, ApplyError, ApplyOptions, Limits, WhiteoutNames, apply},
    tar::{Entry, EntryKind, Reader, TarError, header},
};
use proptest::prelude::*;
use tree::Kind;

fn unpack(bytes: &[u8], options: &ApplyOptions) -> (tempfile::TempDir, Result<Applied, ApplyError>) {
    let folder = tempfile::tempdir().expect("a folder");
    fs::create_dir(folder.path().join("root")).expect("made");
    fs::write(folder.path().join("outside"), b"untouched").expect("written");
    let applied = apply(bytes, &folder.path().join("root"), options);
    let names: Vec<_> =
        fs::read_dir(folder.path()).expect("read").map(|e| e.expect("read").file_name()).collect();
    assert_eq!(names.len(), 2, "something was made outside: {names:?}");
    assert_eq!(fs::read(folder.path().join("outside")).expect("read"), b"untouched");
    (folder, applied)
}

fn read_all(bytes: &[u8]) -> Result<Vec<Entry>, TarError> {
    let mut reader = Reader::new(bytes);
    let mut entries = Vec::new();
    while let Some(entry) = reader.next_entry()? {
        entries.push(entry);
    }
    Ok(entries)
}

#[test]
fn nothing_leaves_the_root() {
    if !is_root() {
        return;
    }
    let device = |major, minor| (entry("zero", EntryKind::CharDevice { major, minor }), &b""[..]);
    for (members, part) in [
        (vec![file("../outside", b"x")], "leaves its root"),
        (vec![file("a/../../outside", b"x")], "leaves its root"),
        (vec![folder("a"), file("a/../../../outside", b"x")], "leaves its root"),
        (vec![hard_link("l", "../outside")], "leaves its root"),
        (vec![hard_link("l", "/etc/passwd")], "not in the archive"),
        (vec![hard_link("l", "l")], "not in the archive"),
        (vec![file("l", b""), hard_link("l", "l")], "would replace"),
        (vec![folder("d"), file("d/f", b""), hard_link("d", "d/f")], "would replace"),
        (vec![symlink("s", ".."), hard_link("l", "s/outside")], "not in the archive"),
        (vec![folder("d"), hard_link("l", "d")], "is a folder"),
        (vec![hard_link("l", "later"), file("later", b"")], "not in the archive"),
        (vec![file("f", b""), file("f/below", b"")], "no folder"),
        (vec![symlink("a", "b"), symlink("b", "a"), file("a/f", b"")], "loop"),
        (vec![symlink("a", "a/a"), file("a/f", b"")], "loop"),
        (vec![file(".wh.", b"")], "whiteout"),
        (vec![file("d/.wh..", b"")], "whiteout"),
        (vec![file("d/.wh...", b"")], "whiteout"),
        (vec![file("d/.wh.a/b", b"")], "whiteout"),
        (vec![file(".", b"")], "root is no folder"),
        (vec![symlink("/", "/etc")], "root is no folder"),
        (vec![device(0, 0)], "0:0"),
        (vec![file(&"x".repeat(256), b"")], "longer than the kernel"),
        (vec![file(&"x/".repeat(3000), b"")], "longer than the kernel"),
    ] {
        let shown: Vec<_> = members.iter().map(|(entry, _)| String::from_utf8_lossy(&entry.path)).collect();
        let (_folder, applied) = unpack(&archive(&members), &ApplyOptions::default());
        let error = applied.expect_err(&format!("{shown:?} was unpacked")).to_string();
        assert!(error.contains(part), "{shown:?} gives: {error}");
    }
}

#[test]
fn links_are_followed_inside_the_root() {
    if !is_root() {
        return;
    }
    for (target, at) in [
        ("/real", "root/real/f"),
        ("../../../real", "root/real/f"),
        ("real/deep/..", "root/real/f"),
        ("/../outside", "root/outside/f"),
        ("./", "root/f"),
    ] {
        let members = [folder("real"), folder("real/deep"), symlink("link", target), file("link/f", b"in")];
        let (folder, applied) = unpack(&archive(&members), &ApplyOptions::default());
        applied.expect(target);
        assert_eq!(fs::read(folder.path().join(at)).expect(target), b"in");
    }
}

#[test]
fn limits_hold() {
    if !is_root() {
        return;
    }
    let options =
        |entries, bytes| ApplyOptions { limits: Limits { entries, bytes }, ..ApplyOptions::default() };
    let three = archive(&[file("a", b"aaaa"), file("b", b"bbbb"), folder("c")]);
    unpack(&three, &options(3, 1 << 20)).1.expect("within");
    assert!(matches!(
        unpack(&three, &options(2, 1 << 20)).1,
        Err(ApplyError::TooLarge { what: "entries", .. })
    ));
    let zeros = archive(&[(entry("a", EntryKind::File { size: 1 << 20 }), &[0; 1 << 20])]);
    let too_large = |applied| matches!(applied, Err(ApplyError::TooLarge { what: "bytes", .. }));
    assert!(too_large(unpack(&zeros, &options(3, 1 << 19)).1));
    // Behind the end marker stands no entry that could be counted.
    let padded = [archive(&[]), vec![0; 1 << 20]].concat();
    assert!(too_large(unpack(&padded, &options(3, 1 << 19)).1));
    // A hole costs the archive nothing, and the reader a pass of SHA-256.
    let hole = with_pax(
        &[
            ("GNU.sparse.major", "1"),
            ("GNU.sparse.minor", "0"),
            ("GNU.sparse.realsize", "9000000000000000000"),
        ],
        512,
        b"0\n",
    );
    assert!(matches!(unpack(&hole, &options(3, 1 << 20)).1, Err(ApplyError::TooLarge { what: "bytes", .. })));
}

#[test]
fn a_folder_that_holds_something_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("old"), b"").expect("written");
    let applied = apply(&archive(&[])[..], folder.path(), &ApplyOptions::default());
    assert!(matches!(applied, Err(ApplyError::NotEmpty)));
}

#[test]
fn literal_names_are_files() {
    if !is_root() {
        return;
    }
    let options = ApplyOptions { names: WhiteoutNames::Literal, ..ApplyOptions::default() };
    let members = [file("d/.wh.gone", b"a"), file("d/.wh..wh..opq", b"")];
    let (folder, applied) = unpack(&archive(&members), &options);
    let layer = applied.expect("unpacked").layer;
    let names: Vec<_> = layer.entries.keys().map(ToString::to_string).collect();
    assert_eq!(names, ["/d", "/d/.wh..wh..opq", "/d/.wh.gone"]);
    assert_eq!(layer.entries[&crate::archive::path("d")].kind, Kind::Directory { opaque: false });
    assert_eq!(fs::read(folder.path().join("root/d/.wh.gone")).expect("read"), b"a");
}

/// An archive of one file behind a PAX header of these records.
fn with_pax(records: &[(&str, &str)], size: u64, contents: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    for (key, value) in records {
        let rest = key.len() + value.len() + 3;
        let length =
            (rest + 1..).find(|length| *length == rest + length.to_string().len()).expect("a length");
        text.extend(format!("{length} {key}={value}\n").into_bytes());
    }
    let mut bytes = extension(b'x', &text);
    bytes.extend(archive(&[(entry("f", EntryKind::File { size }), contents)]));
    bytes
}

/// An extension header and its contents.
fn extension(flag: u8, contents: &[u8]) -> Vec<u8> {
    let mut bytes = header(&entry("ext", EntryKind::File { size: contents.len() as u64 })).expect("a header");
    retype(&mut bytes, flag);
    bytes.extend_from_slice(contents);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

/// Changes the type flag of the first header and mends its checksum.
fn retype(bytes: &mut [u8], flag: u8) {
    bytes[156] = flag;
    mend(bytes);
}

fn mend(bytes: &mut [u8]) {
    bytes[148..156].fill(b' ');
    let sum: u32 = bytes[..512].iter().map(|b| u32::from(*b)).sum();
    bytes[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

#[test]
fn a_pax_size_counts_for_the_next_file_only() {
    // The ustar size is 0 and PAX says 512: a reader that believes ustar takes the contents for a header.
    let inner = header(&entry("smuggled", EntryKind::File { size: 0 })).expect("a header");
    let bytes = with_pax(&[("size", "512")], 0, &inner);
    let entries = read_all(&bytes).expect("read");
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0].kind, EntryKind::File { size: 512 });

    // The PAX header does not apply to the long name between it and the file.
    let mut bytes = extension(b'x', b"12 size=512\n");
    bytes.extend(extension(b'L', b"a name\0"));
    bytes.extend(archive(&[(entry("short", EntryKind::File { size: 0 }), &inner)]));
    let entries = read_all(&bytes).expect("read");
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0].path, b"a name");
}

#[test]
fn what_can_be_read_in_two_ways_is_refused() {
    let file_after = |extensions: &[Vec<u8>]| [extensions.concat(), archive(&[file("f", b"")])].concat();
    let mut sized_folder = archive(&[(entry("d", EntryKind::File { size: 512 }), &[7; 512])]);
    retype(&mut sized_folder, b'5');
    let mut sized_link = sized_folder.clone();
    retype(&mut sized_link, b'1');
    for (bytes, part) in [
        (sized_folder, "no contents"),
        (sized_link, "no contents"),
        (archive(&[(entry("f/", EntryKind::File { size: 3 }), b"abc")]), "no contents"),
        (file_after(&[extension(b'x', b""), extension(b'x', b"")]), "two PAX"),
        (file_after(&[extension(b'L', b"a\0"), extension(b'L', b"b\0")]), "two long names"),
        (file_after(&[extension(b'K', b"a\0"), extension(b'K', b"b\0")]), "two long link"),
        (file_after(&[extension(b'L', b"a\0"), extension(b'x', b"11 path=bb\n")]), "different names"),
        (file_after(&[extension(b'g', b"11 path=bb\n")]), "global"),
        (file_after(&[extension(b'g', b"11 size=99\n")]), "global"),
        (extension(b'x', b"11 path=bb\n"), "without its entry"),
        (file_after(&[extension(b'x', b"12 path=bb\n")]), "malformed"),
        (file_after(&[extension(b'x', b"22 SCHILY.realsize=10\n")]), "star"),
        (extension(b'V', b""), "type flag"),
        (extension(b'M', b""), "type flag"),
        (with_pax(&[("size", "-1")], 0, b""), "size"),
        (with_pax(&[("size", "18446744073709551616")], 0, b""), "size"),
        (with_pax(&[("uid", "4294967295")], 0, b""), "bad uid"),
        (with_pax(&[("uid", "4294967296")], 0, b""), "bad uid"),
        (with_pax(&[("size", "99999")], 0, b""), "in the middle of a file"),
        (with_pax(&[("GNU.sparse.map", "0,5"), ("GNU.sparse.size", "3")], 5, b"abcde"), "beyond the end"),
        (with_pax(&[("GNU.sparse.map", "0,5")], 5, b"abcde"), "size is missing"),
        (with_pax(&[("GNU.sparse.map", "0,1,x"), ("GNU.sparse.size", "3")], 5, b"abcde"), "cannot be"),
        (
            with_pax(&[("GNU.sparse.major", "2"), ("GNU.sparse.realsize", "3")], 5, b"abcde"),
            "unknown version",
        ),
    ] {
        let error = read_all(&bytes).expect_err(part).to_string();
        assert!(error.contains(part), "expected `{part}`, found: {error}");
    }
    // A comment, as git writes one, is harmless.
    let entries = read_all(&file_after(&[extension(b'g', b"18 comment=abcdef\n")]));
    assert_eq!(entries.expect("read").len(), 1);
}

#[test]
fn huge_extensions_are_refused_before_they_are_read() {
    for flag in [b'x', b'g', b'L', b'K'] {
        let mut bytes = header(&entry("ext", EntryKind::File { size: 1 << 40 })).expect("a header");
        // Behind the PAX header that so large a size needs.
        bytes.drain(..1024);
        bytes[124..136].copy_from_slice(b"77777777777\0");
        retype(&mut bytes, flag);
        assert!(matches!(read_all(&bytes), Err(TarError::TooLarge { .. })));
    }
}

#[test]
fn archives_that_end_early_are_refused() {
    let whole = everything().tar();
    let entries = read_all(&whole).expect("read").len();
    for cut in (0..whole.len() - 1024).step_by(100) {
        match read_all(&whole[..cut]) {
            Ok(read) => assert!(cut % 512 == 0 && read.len() < entries, "cut at {cut}"),
            Err(error) => assert!(matches!(error, TarError::Truncated { .. }), "cut at {cut}: {error}"),
        }
    }
}

#[test]
fn a_flipped_bit_in_a_header_is_noticed() {
    let whole = archive(&[file("f", b"abc")]);
    for at in 0..500 {
        let mut damaged = whole.clone();
        damaged[at] ^= 1;
        assert!(read_all(&damaged).is_err(), "byte {at}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn no_damage_makes_the_reader_panic(changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20), mended in any::<bool>()) {
        let mut bytes = everything().tar();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
            if mended {
                let start = at / 512 * 512;
                if start + 512 <= bytes.len() {
                    mend(&mut bytes[start..start + 512]);
                }
            }
        }
        // An error or other entries: both will do.
        let _ = read_all(&bytes);
    }

    #[test]
    fn no_damage_makes_unpacking_leave_the_root(changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..9)) {
        if is_root() {
            let mut bytes = everything().tar();
            for (at, value) in changes {
                let at = at.index(bytes.len());
                bytes[at] = value;
                let start = (at / 512 * 512).min(bytes.len() - 512);
                mend(&mut bytes[start..start + 512]);
            }
            // `unpack` looks beside the root; whether this archive can be unpacked does not matter.
            let _ = unpack(&bytes, &ApplyOptions::default());
        }
    }

    #[test]
    fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..3000)) {
        let _ = read_all(&bytes);
    }
}
