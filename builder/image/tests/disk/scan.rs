use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    os::{fd::AsFd, unix::fs::chown},
    sync::Mutex,
    time::{Duration, SystemTime},
};

use image::scan::{HashCache, Purpose, Reach, ScanError, ScanOptions, StatKey, Visit, scan};
use oci::Digest;
use rustix::fs::{CWD, FileType, Mode, XattrFlags, lsetxattr, makedev, mknodat};
use tempfile::tempdir;
use tree::{Kind, Layer, Mtime, Node};

use crate::scratch::{is_root, make, path, scanned, shown};

#[derive(Default)]
struct Memory {
    known: Mutex<BTreeMap<StatKey, Digest>>,
    asked: Mutex<Vec<bool>>,
}

impl HashCache for Memory {
    fn get(&self, key: &StatKey) -> Option<Digest> {
        let found = self.known.lock().expect("no panic").get(key).copied();
        self.asked.lock().expect("no panic").push(found.is_some());
        found
    }

    fn put(&self, key: StatKey, digest: Digest) {
        self.known.lock().expect("no panic").insert(key, digest);
    }
}

#[test]
fn a_context_says_nothing_of_its_machine() {
    let folder = tempdir().expect("a folder");
    make(folder.path(), "d/:700 d/f=text:640 l->d/f d/g~d/f d/s/ empty=");
    let old = SystemTime::UNIX_EPOCH + Duration::new(1_000_000_000, 5);
    fs::File::open(folder.path().join("d/f")).and_then(|file| file.set_modified(old)).expect("set");
    if is_root("an owner other than oneself") {
        chown(folder.path().join("d/f"), Some(7), Some(8)).expect("chowned");
        let set = |name, value: &[u8]| lsetxattr(folder.path().join("d/f"), name, value, XattrFlags::empty());
        set("user.note", b"x").expect("set");
        set("security.capability", &[1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
            .expect("set");
    }
    let layer = scanned(folder.path(), Purpose::Context).expect("scanned");
    assert_eq!(
        shown(&layer),
        ["dir /", "dir /d", "file /d/f", "hardlink /d/g", "dir /d/s", "file /empty", "symlink /l"]
    );
    let file = Node {
        mtime: Mtime { seconds: 1_000_000_000, nanoseconds: 5 },
        ..Node::new(Kind::File { size: 4, content: Digest::of(b"text") }, 0o640)
    };
    assert_eq!(layer.get(&path("d/f")), Some(&file));
    assert_eq!(layer.get(&path("d/g")), Some(&Node { hardlink: Some(path("d/f")), ..file }));
    assert_eq!(layer.get(&path("d")).map(|node| node.mode), Some(0o700));
    assert_eq!(layer.get(&path("")).map(|node| node.mode), Some(0o755));
    assert_eq!(Layer::decode(&layer.encode()), Ok(layer));
}

#[test]
fn special_files_are_what_buildkit_makes_of_them() {
    let folder = tempdir().expect("a folder");
    let at = |name| folder.path().join(name);
    let _socket = std::os::unix::net::UnixListener::bind(at("sock")).expect("bound");
    mknodat(CWD, at("fifo"), FileType::Fifo, Mode::from_raw_mode(0o640), 0).expect("made");
    let root = is_root("a device");
    if root {
        mknodat(CWD, at("loop"), FileType::BlockDevice, Mode::RUSR, makedev(7, 1)).expect("made");
        mknodat(CWD, at("null"), FileType::CharacterDevice, Mode::RUSR, makedev(1, 3)).expect("made");
    }
    let context = scanned(folder.path(), Purpose::Context).expect("scanned");
    let snapshot = scanned(folder.path(), Purpose::Snapshot).expect("scanned");
    let kind = |layer: &Layer, name| layer.get(&path(name)).map(|node| node.kind.clone());
    assert_eq!(kind(&context, "sock"), Some(Kind::File { size: 0, content: Digest::of(b"") }));
    assert_eq!(kind(&snapshot, "sock"), None);
    assert_eq!(kind(&context, "fifo"), Some(Kind::Fifo));
    if root {
        assert_eq!(kind(&context, "loop"), Some(Kind::CharDevice { major: 7, minor: 1 }));
        assert_eq!(kind(&snapshot, "loop"), Some(Kind::BlockDevice { major: 7, minor: 1 }));
        assert_eq!(kind(&snapshot, "null"), Some(Kind::CharDevice { major: 1, minor: 3 }));
    }
}

#[test]
fn a_snapshot_keeps_owners_and_capabilities() {
    if !is_root("owners and security.capability") {
        return;
    }
    let folder = tempdir().expect("a folder");
    make(folder.path(), "f");
    chown(folder.path().join("f"), Some(3_000_000), Some(4_294_967_294)).expect("chowned");
    let cap = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    for (name, value) in
        [("user.note", &b"x"[..]), ("security.capability", &cap), ("trusted.overlay.origin", b"y")]
    {
        lsetxattr(folder.path().join("f"), name, value, XattrFlags::empty()).expect(name);
    }
    let layer = scanned(folder.path(), Purpose::Snapshot).expect("scanned");
    let file = layer.get(&path("f")).expect("there");
    assert_eq!((file.uid, file.gid), (3_000_000, 4_294_967_294));
    assert_eq!(file.xattrs, [(b"security.capability".to_vec(), cap.to_vec())].into());
}

#[test]
fn only_what_is_wanted_is_read() {
    let folder = tempdir().expect("a folder");
    make(folder.path(), "a/ a/b/ a/b/c=1 a/x=2 skip/ skip/keep=3 skip/no=4 never=5");
    let hashes = Memory::default();
    let filter = |path: &tree::LayerPath, is_folder: bool| match path.as_bytes() {
        b"skip" if is_folder => Visit::Descend,
        b"skip/keep" => Visit::Take,
        b"a" | b"a/b" if is_folder => Visit::Descend,
        b"a/b/c" => Visit::Take,
        _ => Visit::Skip,
    };
    let options = ScanOptions { purpose: Purpose::Context, filter: &filter, hashes: &hashes };
    let layer = scan(folder.path(), &options).expect("scanned");
    assert_eq!(shown(&layer), ["dir /", "dir /a", "dir /a/b", "file /a/b/c", "dir /skip", "file /skip/keep"]);
    assert_eq!(*hashes.asked.lock().expect("no panic"), [false, false]);
    // A second time nothing is hashed, but for what changed.
    fs::write(folder.path().join("a/b/c"), "longer").expect("written");
    let again = scan(folder.path(), &options).expect("scanned");
    let content = Kind::File { size: 6, content: Digest::of(b"longer") };
    assert_eq!(again.get(&path("a/b/c")).map(|node| node.kind.clone()), Some(content));
    let mut asked = hashes.asked.lock().expect("no panic").clone();
    asked.sort();
    assert_eq!(asked, [false, false, false, true]);
    assert_eq!(Visit::Take.and(Visit::Descend), Visit::Descend);
    assert_eq!(Visit::Skip.and(Visit::Take), Visit::Skip);
}

#[test]
fn a_folder_that_holds_nothing_wanted_is_left_out() {
    let folder = tempdir().expect("a folder");
    make(folder.path(), "d/ d/x e/");
    let filter =
        |path: &tree::LayerPath, _: bool| if path.name() == b"x" { Visit::Skip } else { Visit::Descend };
    let hashes = Memory::default();
    let options = ScanOptions { purpose: Purpose::Context, filter: &filter, hashes: &hashes };
    assert_eq!(shown(&scan(folder.path(), &options).expect("scanned")), ["dir /"]);
}

#[test]
fn sources_reach_what_they_name() {
    let folder = tempdir().expect("a folder");
    let root = folder.path();
    make(
        root,
        "f d/ d/a1 d/a2 d/b d/sub/ d/sub/x l->d abs->/d/sub up->../../f big/ big/1 out->/etc/passwd ring->ring d/l->b",
    );
    make(root, "dl/ dl/m1->../big dl/m2");
    let open = fs::File::open(root).expect("opened");
    for (sources, expected) in [
        (vec!["f"], "file /f"),
        (vec!["d/a*"], "dir /d, file /d/a1, file /d/a2"),
        (vec!["l/sub"], "dir /d, dir /d/sub, file /d/sub/x, symlink /l"),
        (vec!["abs/x"], "symlink /abs, dir /d, dir /d/sub, file /d/sub/x"),
        (vec!["/up"], "file /f, symlink /up"),
        (vec!["out"], "symlink /out"),
        (vec!["ring", "nothing", "no/*"], "symlink /ring"),
        (vec!["dl/m*"], "dir /big, file /big/1, dir /dl, symlink /dl/m1, file /dl/m2"),
        (vec!["big/**/x"], "dir /big, file /big/1"),
        (vec!["d/../f"], "file /f"),
    ] {
        let texts: Vec<&[u8]> = sources.iter().map(|source| source.as_bytes()).collect();
        let reach = Reach::of(open.as_fd(), &texts).expect("found");
        let filter = |path: &tree::LayerPath, is_folder: bool| reach.visit(path, is_folder);
        let hashes = Memory::default();
        let options = ScanOptions { purpose: Purpose::Context, filter: &filter, hashes: &hashes };
        let mut layer = scan(root, &options).expect("scanned");
        layer.entries.remove(&path(""));
        assert_eq!(shown(&layer).join(", "), expected, "{sources:?}");
    }
    let whole = Reach::of(open.as_fd(), &[b"."]).expect("found");
    assert_eq!(whole, Reach::everything());
    assert_eq!(whole.visit(&path("any/thing"), false), Visit::Take);
}

#[test]
fn a_file_that_changes_under_the_scan_fails_by_name() {
    struct Meddler(std::path::PathBuf);
    impl HashCache for Meddler {
        fn get(&self, _key: &StatKey) -> Option<Digest> {
            let file = fs::OpenOptions::new().append(true).open(&self.0);
            file.and_then(|mut file| file.write_all(b"more")).expect("written");
            None
        }

        fn put(&self, _key: StatKey, _digest: Digest) {
            panic!("a digest of what changed must not be kept");
        }
    }
    let folder = tempdir().expect("a folder");
    make(folder.path(), "d/ d/busy");
    let hashes = Meddler(folder.path().join("d/busy"));
    let options = ScanOptions { purpose: Purpose::Context, filter: &|_, _| Visit::Take, hashes: &hashes };
    let error = scan(folder.path(), &options).expect_err("changed");
    assert!(matches!(&error, ScanError::Changed { path } if path.to_string() == "/d/busy"), "{error}");
    let error = scan(&folder.path().join("none"), &options).expect_err("missing");
    assert!(matches!(&error, ScanError::Call { call: "open", .. }), "{error}");
}

#[test]
fn any_number_of_threads_sees_the_same() {
    let folder = tempdir().expect("a folder");
    for outer in 0..12 {
        make(folder.path(), &format!("d{outer}/ d{outer}/e/"));
        for inner in 0..40 {
            make(folder.path(), &format!("d{outer}/f{inner} d{outer}/e/g{inner}={outer}"));
        }
    }
    let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a pool");
    let many = rayon::ThreadPoolBuilder::new().num_threads(8).build().expect("a pool");
    let scan = || scanned(folder.path(), Purpose::Context).expect("scanned");
    assert_eq!(one.install(scan), many.install(scan));
}

#[test]
fn a_deep_tree_takes_no_stack() {
    let folder = tempdir().expect("a folder");
    let path = ["a"; 1800].join("/");
    std::fs::create_dir_all(folder.path().join(path)).expect("its parent is there");
    let seen = scanned(folder.path(), Purpose::Context).expect("scanned");
    assert_eq!(seen.entries.len(), 1801);
}
