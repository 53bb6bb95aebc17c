//! Our codec against others': the `tar` crate where it is right, Python's `tarfile`, GNU tar.

use std::{
    fs::{self, File},
    io::{Read, Seek, SeekFrom, Write},
    path::Path,
    process::Command,
};

use crate::archive::{everything, has, is_machines_root, run};
use image::tar::{Entry, EntryKind, Reader};
use oci::Digest;
use serde_json::Value;

fn read_all(bytes: &[u8]) -> Vec<(Entry, Vec<u8>)> {
    let mut reader = Reader::new(bytes);
    let mut entries = Vec::new();
    while let Some(entry) = reader.next_entry().expect("a sound tar") {
        let mut contents = Vec::new();
        reader.contents().read_to_end(&mut contents).expect("contents");
        entries.push((entry, contents));
    }
    entries
}

#[test]
fn the_tar_crate_reads_what_we_write() {
    let mut made = everything();
    // What that crate reads wrongly: attributes with a newline, and times before 1970.
    for node in made.layer.entries.values_mut() {
        node.xattrs = Default::default();
        node.mtime.seconds = node.mtime.seconds.clamp(0, 1 << 33);
    }
    let bytes = made.tar();
    let ours = read_all(&bytes);
    let mut archive = tar::Archive::new(&bytes[..]);
    let mut count = 0;
    for (theirs, (entry, contents)) in archive.entries().expect("entries").zip(&ours) {
        let mut theirs = theirs.expect("an entry");
        assert_eq!(*theirs.path_bytes(), entry.path);
        let header = theirs.header().clone();
        assert_eq!(header.mode().expect("a mode"), entry.mode);
        let link = theirs.link_name_bytes().map(|name| name.into_owned());
        match &entry.kind {
            EntryKind::File { size } => assert_eq!(theirs.size(), *size),
            EntryKind::HardLink { target } | EntryKind::Symlink { target } => {
                assert_eq!(link.as_ref(), Some(target))
            }
            EntryKind::CharDevice { major, minor } | EntryKind::BlockDevice { major, minor } => {
                assert_eq!(header.device_major().expect("a number"), Some(*major));
                assert_eq!(header.device_minor().expect("a number"), Some(*minor));
            }
            EntryKind::Directory => assert!(header.entry_type().is_dir()),
            EntryKind::Fifo => assert!(header.entry_type().is_fifo()),
        }
        let mut found = Vec::new();
        theirs.read_to_end(&mut found).expect("contents");
        assert_eq!(found, *contents);
        count += 1;
    }
    assert_eq!(count, ours.len());
}

#[test]
fn we_read_what_the_tar_crate_writes() {
    let mut builder = tar::Builder::new(Vec::new());
    let long = format!("{}/{}", "d".repeat(200), "f".repeat(200));
    for (path, contents, uid) in [("a", &b"one"[..], 0), (&long, b"two", 5), ("big", b"three", 1 << 24)] {
        let mut header = tar::Header::new_gnu();
        header.set_size(contents.len() as u64);
        header.set_mode(0o100_640);
        header.set_uid(uid);
        header.set_mtime(77);
        builder.append_data(&mut header, path, contents).expect("appended");
    }
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    builder.append_link(&mut header, "link", "t".repeat(300)).expect("appended");
    let mut header = tar::Header::new_gnu();
    header.set_size(4);
    header.set_mode(0o600);
    builder
        .append_pax_extensions([("SCHILY.xattr.user.a", &b"v"[..]), ("mtime", b"-1.5")])
        .expect("appended");
    builder.append_data(&mut header, &long, &b"four"[..]).expect("appended");
    let entries = read_all(&builder.into_inner().expect("written"));
    let found: Vec<_> =
        entries.iter().map(|(entry, contents)| (&entry.path[..], &contents[..], entry.uid)).collect();
    assert_eq!(found[0], (&b"a"[..], &b"one"[..], 0));
    assert_eq!(found[1], (long.as_bytes(), &b"two"[..], 5));
    assert_eq!(found[2], (&b"big"[..], &b"three"[..], 1 << 24));
    assert_eq!(entries[0].0.mode, 0o640);
    assert_eq!(entries[3].0.kind, EntryKind::Symlink { target: vec![b't'; 300] });
    assert_eq!(entries[4].0.xattrs[&b"user.a"[..]], b"v");
    assert_eq!((entries[4].0.mtime.seconds, entries[4].0.mtime.nanoseconds), (-2, 500_000_000));
    assert_eq!(entries[4].0.path, long.as_bytes());
}

/// Lists an archive as JSON, a member a line.
const LIST: &str = r#"
import hashlib, json, os, sys, tarfile
kinds = {tarfile.REGTYPE: "file", tarfile.DIRTYPE: "folder", tarfile.SYMTYPE: "symlink", tarfile.LNKTYPE: "hard",
         tarfile.CHRTYPE: "char", tarfile.BLKTYPE: "block", tarfile.FIFOTYPE: "fifo",
         tarfile.GNUTYPE_SPARSE: "file"}
with tarfile.open(sys.argv[1], encoding="utf-8", errors="surrogateescape") as t:
    for m in t:
        data = t.extractfile(m).read() if m.isreg() else b""
        print(json.dumps([os.fsencode(m.name).hex(), kinds[m.type], m.mode, m.uid, m.gid, int(m.mtime // 1),
                          os.fsencode(m.linkname).hex(), m.size, hashlib.sha256(data).hexdigest(),
                          [m.devmajor, m.devminor] if m.type in (tarfile.CHRTYPE, tarfile.BLKTYPE) else []]))
"#;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// The same list as Python makes it.
fn list(bytes: &[u8]) -> Vec<Value> {
    let mut lines = Vec::new();
    for (entry, contents) in read_all(bytes) {
        let trimmed = entry.path.strip_suffix(b"/").unwrap_or(&entry.path);
        let (kind, link, size, device) = match &entry.kind {
            EntryKind::File { size } => ("file", &[][..], *size, None),
            EntryKind::Directory => ("folder", &[][..], 0, None),
            EntryKind::Symlink { target } => ("symlink", &target[..], 0, None),
            EntryKind::HardLink { target } => ("hard", &target[..], 0, None),
            EntryKind::CharDevice { major, minor } => ("char", &[][..], 0, Some([*major, *minor])),
            EntryKind::BlockDevice { major, minor } => ("block", &[][..], 0, Some([*major, *minor])),
            EntryKind::Fifo => ("fifo", &[][..], 0, None),
        };
        lines.push(serde_json::json!([
            hex(trimmed),
            kind,
            entry.mode,
            entry.uid,
            entry.gid,
            entry.mtime.seconds,
            hex(link),
            size,
            Digest::of(&contents).hex(),
            device.map(|d| d.to_vec()).unwrap_or_default(),
        ]));
    }
    lines
}

fn python_list(archive: &Path) -> Vec<Value> {
    let output = run(Command::new("python3").args(["-c", LIST]).arg(archive));
    let text = String::from_utf8(output).expect("text");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[test]
fn python_reads_what_we_write() {
    if !has("python3") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a.tar");
    let bytes = everything().tar();
    fs::write(&path, &bytes).expect("written");
    assert_eq!(python_list(&path), list(&bytes));
}

/// Makes a folder of files with long names, links, holes and a pipe.
fn make_tree(root: &Path) {
    let deep = root.join("d".repeat(150)).join("e".repeat(150));
    fs::create_dir_all(&deep).expect("made");
    fs::write(deep.join("f".repeat(200)), b"deep").expect("written");
    fs::write(root.join("plain"), vec![5; 3000]).expect("written");
    fs::hard_link(root.join("plain"), root.join("zlink")).expect("linked");
    std::os::unix::fs::symlink("t".repeat(250), root.join("symlink")).expect("linked");
    rustix::fs::mkfifoat(rustix::fs::CWD, root.join("fifo"), rustix::fs::Mode::RWXU).expect("made");
    // More pieces than fit into the header, a hole at the end, one without any data.
    let mut sparse = File::create(root.join("sparse")).expect("made");
    for at in 0..60u64 {
        sparse.seek(SeekFrom::Start(at * 65536 + 4096)).expect("moved");
        sparse.write_all(&[at as u8 + 1; 4096]).expect("written");
    }
    sparse.set_len(10_485_760).expect("set");
    File::create(root.join("sparse-empty")).and_then(|file| file.set_len(1 << 20)).expect("set");
}

#[test]
fn we_read_what_gnu_tar_writes() {
    if !has("tar") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path().join("root");
    make_tree(&root);
    let sparse = fs::read(root.join("sparse")).expect("read");
    let name_of_deep = format!("./{}/{}/{}", "d".repeat(150), "e".repeat(150), "f".repeat(200));
    for options in [
        &["--format=gnu"][..],
        &["--format=gnu", "-S"],
        &["--format=pax"],
        &["--format=pax", "-S", "--sparse-version=0.0"],
        &["--format=pax", "-S", "--sparse-version=0.1"],
        &["--format=pax", "-S", "--sparse-version=1.0"],
        &["--format=pax", "--pax-option=globexthdr.name=g,comment=x"],
    ] {
        let tar = folder.path().join("a.tar");
        run(Command::new("tar").args(options).arg("-C").arg(&root).arg("-cf").arg(&tar).arg("."));
        let bytes = fs::read(&tar).expect("read");
        if options.contains(&"-S") {
            assert!(bytes.len() < 2_000_000, "{options:?}: the holes are not stored");
        }
        let entries = read_all(&bytes);
        assert_eq!(entries.len(), 10, "{options:?}");
        let contents = |name: &str| {
            let found = entries.iter().find(|(entry, _)| entry.path == name.as_bytes());
            &found.unwrap_or_else(|| panic!("{options:?}: {name} is missing")).1
        };
        assert!(*contents("./sparse") == sparse, "{options:?}");
        assert!(*contents("./sparse-empty") == vec![0; 1 << 20], "{options:?}");
        assert_eq!(contents(&name_of_deep), b"deep");
        let kinds =
            |want: fn(&EntryKind) -> bool| entries.iter().filter(|(entry, _)| want(&entry.kind)).count();
        assert_eq!(kinds(|kind| matches!(kind, EntryKind::HardLink { .. })), 1);
        assert_eq!(kinds(|kind| matches!(kind, EntryKind::Symlink { target } if target.len() == 250)), 1);
        assert_eq!(kinds(|kind| *kind == EntryKind::Fifo), 1);
        if has("python3") && !options.iter().any(|option| option.starts_with("--sparse-version=0.0")) {
            assert_eq!(python_list(&tar), list(&bytes), "{options:?}");
        }
    }
}

#[test]
fn gnu_tar_unpacks_what_we_write() {
    if !has("tar") || !is_machines_root() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let tar = folder.path().join("a.tar");
    let bytes = everything().tar();
    fs::write(&tar, &bytes).expect("written");
    run(Command::new("tar")
        .args(["--xattrs", "--xattrs-include=*", "-C"])
        .arg(folder.path())
        .arg("-xpf")
        .arg(&tar));
    assert_eq!(fs::read(folder.path().join("bin/tool")).expect("read"), [0x7f; 70_000]);
    let mut value = [0; 100];
    let read = rustix::fs::getxattr(folder.path().join("bin/tool"), "security.capability", &mut value[..]);
    assert_eq!(value[..read.expect("read")], crate::archive::capability());
    let second = fs::metadata(folder.path().join("zhard")).expect("there");
    assert_eq!(std::os::unix::fs::MetadataExt::nlink(&second), 2);
}

/// Writes an archive in each of Python's three formats.
const WRITE: &str = r#"
import io, sys, tarfile
formats = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}
with tarfile.open(sys.argv[1], "w", format=formats[sys.argv[2]]) as t:
    for name, size, uid in [("a/b", 5, 1), ("p" * 90 + "/" + "n" * 90, 600, 0), ("z", 0, 70000)]:
        m = tarfile.TarInfo(name); m.size = size; m.uid = uid; m.mtime = 1234567890; m.uname = "someone"
        t.addfile(m, io.BytesIO(b"x" * size))
    if sys.argv[2] != "ustar":
        m = tarfile.TarInfo("l" * 300); m.size = 3; m.mtime = -5; m.uid = 2 ** 31; t.addfile(m, io.BytesIO(b"abc"))
        m = tarfile.TarInfo("s"); m.type = tarfile.SYMTYPE; m.linkname = "k" * 200; t.addfile(m)
    m = tarfile.TarInfo("folder"); m.type = tarfile.DIRTYPE; m.mode = 0o1777; t.addfile(m)
"#;

#[test]
fn we_read_what_python_writes() {
    if !has("python3") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    for format in ["ustar", "gnu", "pax"] {
        let tar = folder.path().join(format);
        run(Command::new("python3").args(["-c", WRITE]).arg(&tar).arg(format));
        assert_eq!(list(&fs::read(&tar).expect("read")), python_list(&tar), "{format}");
    }
}
