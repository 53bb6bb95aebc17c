//! A tar that is unpacked to a folder, looked at with the kernel's eyes.

use std::{
    fs,
    io::Write,
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    path::Path,
    process::Command,
};

use crate::archive::{
    archive, capability, entry, everything, file, folder, hard_link, is_machines_root, is_root, path, symlink,
};
use image::{
    apply::{Applied, ApplyError, ApplyOptions, Ownership, WhiteoutNames, apply},
    detect::decompress,
    overlay::OverlayXattrs,
    tar::{Entry, EntryKind},
};
use oci::Digest;
use tree::{Kind, LayerPath, Mtime, Node};

fn unpack(members: &[(Entry, &[u8])], options: &ApplyOptions) -> (tempfile::TempDir, Applied) {
    let folder = tempfile::tempdir().expect("a folder");
    let applied = apply(&archive(members)[..], folder.path(), options).expect("unpacked");
    (folder, applied)
}

fn xattr(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = vec![0; 256];
    let length = rustix::fs::lgetxattr(path, name, &mut value[..]).ok()?;
    value.truncate(length);
    Some(value)
}

#[test]
fn everything_is_on_disk() {
    if !is_machines_root() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let made = everything();
    let applied = apply(&made.tar()[..], folder.path(), &ApplyOptions::default()).expect("unpacked");
    assert_eq!(applied.layer, made.layer);
    assert_eq!(applied.implied, [path("odd")].into());
    let at = |name: &str| folder.path().join(name);
    let tool = fs::metadata(at("bin/tool")).expect("there");
    assert_eq!(
        (tool.mode() & 0o7777, tool.nlink(), tool.mtime(), tool.len()),
        (0o4755, 2, 1_700_000_000, 70_000)
    );
    assert_eq!(tool.ino(), fs::metadata(at("zhard")).expect("there").ino());
    assert_eq!(xattr(&at("bin/tool"), "security.capability"), Some(capability()));
    let owned = fs::metadata(at("bin/aaa")).expect("there");
    assert_eq!((owned.uid(), owned.gid()), (3_000_000, 4_000_000_000));
    let device = fs::metadata(at("dev/null")).expect("there");
    assert!(device.file_type().is_char_device());
    assert_eq!((rustix::fs::major(device.rdev()), rustix::fs::minor(device.rdev())), (1, 3));
    assert!(fs::metadata(at("dev/loop0")).expect("there").file_type().is_block_device());
    assert_eq!(fs::symlink_metadata(at("dev/pipe")).expect("there").mtime(), -5);
    let whiteout = fs::symlink_metadata(at("gone")).expect("there");
    assert!(whiteout.file_type().is_char_device() && whiteout.rdev() == 0);
    assert_eq!(xattr(&at("opaque"), "trusted.overlay.opaque"), Some(b"y".to_vec()));
    let opaque = fs::metadata(at("opaque")).expect("there");
    assert_eq!((opaque.mode() & 0o7777, opaque.uid(), opaque.mtime()), (0o1777, 7, 5));
    assert_eq!(fs::read_link(at("longlink")).expect("a link").as_os_str().len(), 300);
    assert_eq!(fs::symlink_metadata(at("link")).expect("there").mtime(), 9);
    assert_eq!(fs::metadata(folder.path()).expect("there").mtime(), 1);
    assert_eq!(fs::metadata(at("odd")).expect("there").mode() & 0o7777, 0o755);
}

#[test]
fn later_entries_replace_earlier_ones() {
    if !is_root() {
        return;
    }
    let options = ApplyOptions::default();
    let (root, applied) = unpack(
        &[
            file("f", b"one"),
            hard_link("g", "f"),
            file("f", b"two"),
            folder("d"),
            file("d/x", b"gone"),
            file("d-x", b"stays"),
            folder("d/sub"),
            file("d/sub/y", b"gone"),
            file("d", b"now a file"),
            symlink("s", "elsewhere"),
            folder("s"),
            file("s/in", b"in"),
            folder("kept"),
            file("kept/a", b"a"),
            (Entry { mode: 0o700, ..entry("kept", EntryKind::Directory) }, b""),
        ],
        &options,
    );
    let names: Vec<_> = applied.layer.entries.keys().map(LayerPath::to_string).collect();
    assert_eq!(names, ["/d", "/d-x", "/f", "/g", "/kept", "/kept/a", "/s", "/s/in"]);
    let read = |name: &str| fs::read(root.path().join(name)).expect(name);
    assert_eq!((read("f"), read("g"), read("d")), (b"two".to_vec(), b"one".to_vec(), b"now a file".to_vec()));
    assert_eq!(fs::metadata(root.path().join("kept")).expect("there").mode() & 0o777, 0o700);
    // The two names parted when the first was replaced.
    assert!(applied.layer.entries.values().all(|node| node.hardlink.is_none()));
    assert!(!root.path().join("elsewhere").exists());
}

#[test]
fn the_first_name_in_path_order_has_the_content() {
    if !is_root() {
        return;
    }
    let (_root, applied) =
        unpack(&[file("z", b"abc"), hard_link("m", "z"), hard_link("a", "m")], &ApplyOptions::default());
    let links: Vec<_> = applied.layer.entries.values().map(|node| node.hardlink.clone()).collect();
    assert_eq!(links, [None, Some(path("a")), Some(path("a"))]);
    let content = Kind::File { size: 3, content: Digest::of(b"abc") };
    assert!(applied.layer.entries.values().all(|node| node.kind == content));
}

#[test]
fn the_order_of_whiteouts_does_not_matter() {
    if !is_machines_root() {
        return;
    }
    let mut members = vec![
        file("d/.wh..wh..opq", b""),
        folder("d"),
        file("d/kept", b""),
        file(".wh.f", b""),
        file("f", b"new"),
        file("e/.wh.gone", b""),
        folder("replaced"),
        file("replaced/new", b""),
        file(".wh.replaced", b""),
        file(".wh.h", b""),
        file("h/.wh.below", b""),
        file(".wh..wh.plnk", b""),
    ];
    let (_, forward) = unpack(&members, &ApplyOptions::default());
    members.reverse();
    let (root, backward) = unpack(&members, &ApplyOptions::default());
    assert_eq!(forward.layer, backward.layer);
    let kinds: Vec<_> =
        forward.layer.entries.iter().map(|(path, node)| (path.to_string(), node.kind.clone())).collect();
    let empty = Kind::File { size: 0, content: Digest::of(b"") };
    assert_eq!(
        kinds,
        [
            ("/d".to_owned(), Kind::Directory { opaque: true }),
            ("/d/kept".to_owned(), empty.clone()),
            ("/e/gone".to_owned(), Kind::Whiteout),
            ("/f".to_owned(), Kind::File { size: 3, content: Digest::of(b"new") }),
            ("/h".to_owned(), Kind::Whiteout),
            ("/replaced".to_owned(), Kind::Directory { opaque: true }),
            ("/replaced/new".to_owned(), empty),
        ]
    );
    assert_eq!(xattr(&root.path().join("replaced"), "trusted.overlay.opaque"), Some(b"y".to_vec()));
    assert_eq!(backward.implied, [path("e")].into());
}

#[test]
fn a_whiteout_may_have_the_longest_name_there_is() {
    if !is_root() {
        return;
    }
    let longest = "n".repeat(255);
    let (_root, applied) = unpack(&[file(&format!("d/.wh.{longest}"), b"")], &ApplyOptions::default());
    assert_eq!(applied.layer.entries[&path(&format!("d/{longest}"))], Node::whiteout());
}

#[test]
fn overlayfs_understands_the_folder() {
    if !is_machines_root() {
        return;
    }
    let base = tempfile::tempdir().expect("a folder");
    let at = |name: &str| base.path().join(name);
    for folder in ["lower/op", "lower/dir", "upper", "merged"] {
        fs::create_dir_all(at(folder)).expect("made");
    }
    for name in ["lower/op/hidden", "lower/dir/stays", "lower/dir/gone", "lower/gone"] {
        fs::write(at(name), b"old").expect("written");
    }
    fs::set_permissions(at("lower/dir"), fs::Permissions::from_mode(0o1777)).expect("set");
    let members = [
        folder("op"),
        file("op/new", b""),
        file("op/.wh..wh..opq", b""),
        file(".wh.gone", b""),
        file("dir/.wh.gone", b""),
    ];
    let options = ApplyOptions::default();
    let mut applied = apply(&archive(&members)[..], &at("upper"), &options).expect("unpacked");
    let lower = |path: &LayerPath| (*path == crate::archive::path("dir")).then(|| Node::directory(0o1777));
    applied.settle(&at("upper"), &options, &lower).expect("settled");
    let layers = format!("lowerdir={}:{}", at("upper").display(), at("lower").display());
    let mounted =
        Command::new("mount").args(["-t", "overlay", "overlay", "-o", &layers]).arg(at("merged")).status();
    if !mounted.is_ok_and(|status| status.success()) {
        eprintln!("skipped: overlayfs cannot be mounted here");
        return;
    }
    let list = |name: &str| {
        let entries = fs::read_dir(at(name)).expect("read");
        let mut names: Vec<_> =
            entries.map(|e| e.expect("read").file_name().into_string().expect("text")).collect();
        names.sort();
        names
    };
    let found = (list("merged"), list("merged/op"), list("merged/dir"));
    let mode = fs::metadata(at("merged/dir")).expect("there").mode() & 0o7777;
    crate::archive::run(Command::new("umount").arg(at("merged")));
    assert_eq!(found.0, ["dir", "op"]);
    assert_eq!(found.1, ["new"]);
    assert_eq!(found.2, ["stays"]);
    assert_eq!(mode, 0o1777, "an implied folder has the mode of the layer below");
}

#[test]
fn implied_folders_are_the_layers_own_only_in_a_users_archive() {
    if !is_root() {
        return;
    }
    let members = [file("a/b/f", b"")];
    let (_, layer) = unpack(&members, &ApplyOptions::default());
    assert_eq!(layer.layer.entries.len(), 1);
    assert_eq!(layer.implied, [path("a"), path("a/b")].into());
    let literal = ApplyOptions { names: WhiteoutNames::Literal, ..ApplyOptions::default() };
    let (_, added) = unpack(&members, &literal);
    assert_eq!(added.layer.entries.len(), 3);
    assert_eq!(added.layer.entries[&path("a/b")], Node::directory(0o755));
    assert!(added.implied.is_empty());
}

#[test]
fn what_follows_the_end_of_a_users_archive_does_not_matter() {
    if !is_root() {
        return;
    }
    let tar = archive(&[file("a", b"hello")]);
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(&tar).expect("written");
    // Tools that write blocks pad with zeros, which is no second member.
    let padded = [packed.finish().expect("written"), vec![0; 700]].concat();
    let into = |options: &ApplyOptions| {
        let root = tempfile::tempdir().expect("a folder");
        let (_, plain) = decompress(&*padded).expect("a known format");
        apply(plain, root.path(), options)
    };
    let literal = ApplyOptions { names: WhiteoutNames::Literal, ..ApplyOptions::default() };
    let added = into(&literal).expect("the archive is whole");
    assert!(added.layer.entries.contains_key(&path("a")));
    assert!(
        matches!(into(&ApplyOptions::default()), Err(ApplyError::Trailer(_))),
        "a layer is all of its blob"
    );
}

#[test]
fn owners_that_cannot_be_set_are_recorded() {
    let options = ApplyOptions {
        ownership: Ownership::Recorded,
        overlay: OverlayXattrs::User,
        ..ApplyOptions::default()
    };
    let mut owned = file("f", b"x").0;
    (owned.uid, owned.gid, owned.mode) = (1234, 5678, 0o640);
    let device = entry("null", EntryKind::CharDevice { major: 1, minor: 3 });
    let (root, applied) =
        unpack(&[(owned, b"x"), (device, b""), folder("d"), file("d/.wh..wh..opq", b"")], &options);
    let node = &applied.layer.entries[&path("f")];
    assert_eq!((node.uid, node.gid, node.mode), (1234, 5678, 0o640));
    assert_eq!(applied.layer.entries[&path("null")].kind, Kind::CharDevice { major: 1, minor: 3 });
    let found = fs::metadata(root.path().join("f")).expect("there");
    assert_eq!(found.uid(), rustix::process::geteuid().as_raw());
    assert!(fs::metadata(root.path().join("null")).expect("there").is_file());
    assert_eq!(xattr(&root.path().join("d"), "user.overlay.opaque"), Some(b"y".to_vec()));
}

#[test]
fn overlays_own_attributes_do_not_get_in() {
    if !is_root() {
        return;
    }
    let mut evil = folder("d").0;
    evil.xattrs.insert(b"trusted.overlay.opaque".to_vec(), b"y".to_vec());
    evil.xattrs.insert(b"user.overlay.redirect".to_vec(), b"/etc".to_vec());
    evil.xattrs.insert(b"user.mine".to_vec(), b"1".to_vec());
    let (root, applied) = unpack(&[(evil, b"")], &ApplyOptions::default());
    let names: Vec<_> = applied.layer.entries[&path("d")].xattrs.keys().cloned().collect();
    assert_eq!(names, [b"user.mine".to_vec()]);
    assert_eq!(xattr(&root.path().join("d"), "trusted.overlay.opaque"), None);
    assert_eq!(xattr(&root.path().join("d"), "user.mine"), Some(b"1".to_vec()));
}

#[test]
fn holes_stay_holes() {
    if !is_root() || !crate::archive::has("tar") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let source = folder.path().join("source");
    fs::create_dir_all(&source).expect("made");
    let sparse = fs::File::create(source.join("sparse")).expect("made");
    std::os::unix::fs::FileExt::write_all_at(&sparse, &[9; 5000], 8 << 20).expect("written");
    sparse.set_len(32 << 20).expect("set");
    let tar = crate::archive::run(
        Command::new("tar").args(["--format=pax", "-S", "-cC"]).arg(&source).arg("sparse"),
    );
    let target = folder.path().join("target");
    fs::create_dir(&target).expect("made");
    let applied = apply(&tar[..], &target, &ApplyOptions::default()).expect("unpacked");
    let bytes = fs::read(source.join("sparse")).expect("read");
    let node = &applied.layer.entries[&path("sparse")];
    assert_eq!(node.kind, Kind::File { size: 32 << 20, content: Digest::of(&bytes) });
    assert!(fs::read(target.join("sparse")).expect("read") == bytes);
    assert!(fs::metadata(target.join("sparse")).expect("there").blocks() * 512 < 1 << 20);
}

#[test]
fn times_below_a_second_are_kept() {
    if !is_root() {
        return;
    }
    let mut builder = tar::Builder::new(Vec::new());
    builder.append_pax_extensions([("mtime", &b"1234567890.123456789"[..])]).expect("appended");
    let mut header = tar::Header::new_ustar();
    header.set_size(0);
    header.set_mode(0o644);
    builder.append_data(&mut header, "f", &b""[..]).expect("appended");
    let folder = tempfile::tempdir().expect("a folder");
    let bytes = builder.into_inner().expect("written");
    let applied = apply(&bytes[..], folder.path(), &ApplyOptions::default()).expect("unpacked");
    let mtime = Mtime { seconds: 1_234_567_890, nanoseconds: 123_456_789 };
    assert_eq!(applied.layer.entries[&path("f")].mtime, mtime);
    let found = fs::metadata(folder.path().join("f")).expect("there");
    assert_eq!((found.mtime(), found.mtime_nsec()), (1_234_567_890, 123_456_789));
}
