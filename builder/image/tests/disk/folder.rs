use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs,
    os::unix::{ffi::OsStrExt, fs::MetadataExt, fs::PermissionsExt, fs::symlink},
    path::Path,
    sync::Arc,
};

use image::{
    apply::Ownership,
    copy::{ContentSource, CopySpec, Destination, Input, Mkfile, Plan, Planner, Rm, Source},
    folder::{FolderError, Form, PlannedLayer, SourceFolder, export_local, remove_tree, replant, write_plan},
    layer_tar::{LayerTarError, TarOptions, write_layer},
    overlay::OverlayXattrs,
    scan::{HashCache, KnownFiles, Purpose, ScanOptions, StatKey, Visit, scan},
};
use oci::Digest;
use rustix::fs::{CWD, FileType, Mode, XattrFlags, lgetxattr, lsetxattr, makedev, mknodat};
use tempfile::tempdir;
use tree::{Kind, Layer, Mtime, Node, Stack};

use crate::scratch::{is_root, make, path, scanned, shown};

const REAL: Form = Form::Upper { overlay: OverlayXattrs::Trusted, ownership: Ownership::Real };

fn stored(folder: &Path) -> Vec<Vec<SourceFolder>> {
    vec![vec![SourceFolder::stored(folder).expect("opened")]]
}

fn watched(folder: &Path) -> Vec<Vec<SourceFolder>> {
    vec![vec![SourceFolder::watched(folder).expect("opened")]]
}

#[test]
fn a_snapshot_is_written_as_it_was_scanned() {
    if !is_root("owners, devices and trusted attributes") {
        return;
    }
    let from = tempdir().expect("a folder");
    let at = |name: &str| from.path().join(name);
    make(from.path(), "d/:2775 d/f=text:4750 d/g~d/f d/l->f d/none:0 d/closed/:0 e/ e/h~d/f");
    make(&at("d/closed"), "deep");
    std::os::unix::fs::lchown(at("d/l"), Some(5), Some(6)).expect("chowned");
    std::os::unix::fs::chown(at("d/f"), Some(7), Some(8)).expect("chowned");
    fs::set_permissions(at("d/f"), fs::Permissions::from_mode(0o4750)).expect("set");
    let cap = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    lsetxattr(at("d/f"), "security.capability", &cap, XattrFlags::empty()).expect("set");
    mknodat(CWD, at("d/null"), FileType::CharacterDevice, Mode::RUSR, makedev(1, 3)).expect("made");
    mknodat(CWD, at("d/blk"), FileType::BlockDevice, Mode::RUSR, makedev(7, 9)).expect("made");
    mknodat(CWD, at("d/fifo"), FileType::Fifo, Mode::RUSR, 0).expect("made");
    fs::write(at("e").join(OsStr::from_bytes(b"latin-\xe9\n")), "x").expect("written");
    let old = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::new(1_000_000_000, 7);
    for name in ["d/f", "e", "d/closed", "d"] {
        fs::File::open(at(name)).and_then(|file| file.set_modified(old)).expect("set");
    }
    let mut layer = scanned(from.path(), Purpose::Snapshot).expect("scanned");
    layer.entries.insert(path("e/gone"), Node::whiteout());
    let mut hides = Node::new(Kind::Directory { opaque: true }, 0o700);
    hides.mtime.seconds = 5;
    layer.entries.insert(path("hides"), hides);
    for inputs in [stored(from.path()), watched(from.path())] {
        let to = tempdir().expect("a folder");
        assert!(write_plan(&replant(&layer), &inputs, to.path(), REAL).expect("written").is_empty());
        let back = scanned(to.path(), Purpose::Upper(OverlayXattrs::Trusted)).expect("scanned");
        assert_eq!(back, layer);
    }
}

#[test]
fn holes_stay_holes() {
    let from = tempdir().expect("a folder");
    let file = fs::File::create(from.path().join("sparse")).expect("made");
    file.set_len(9 << 20).expect("set");
    rustix::io::pwrite(&file, b"middle", 4 << 20).expect("written");
    fs::File::create(from.path().join("hole")).and_then(|file| file.set_len(3 << 20)).expect("set");
    fs::write(from.path().join("big"), vec![7u8; 700_001]).expect("written");
    let layer = scanned(from.path(), Purpose::Context).expect("scanned");
    for inputs in [stored(from.path()), watched(from.path())] {
        let to = tempdir().expect("a folder");
        write_plan(&replant(&layer), &inputs, to.path(), Form::Export).expect("written");
        for name in ["sparse", "hole", "big"] {
            let same = fs::read(from.path().join(name)).ok() == fs::read(to.path().join(name)).ok();
            assert!(same, "{name}");
        }
        let blocks = fs::metadata(to.path().join("sparse")).expect("there").blocks();
        assert!(blocks * 512 < 1 << 20, "{blocks} blocks");
    }
}

#[test]
fn a_file_that_is_not_what_it_was_fails_by_name() {
    let from = tempdir().expect("a folder");
    make(from.path(), "d/ d/f=1234 d/g=1234");
    let layer = scanned(from.path(), Purpose::Context).expect("scanned");
    type Meddle = fn(&Path);
    let changes: [Meddle; 5] = [
        |at| fs::write(at, "1235").expect("written"),
        |at| fs::write(at, "123").expect("written"),
        |at| fs::remove_file(at).expect("removed"),
        |at| {
            fs::remove_file(at).expect("removed");
            symlink("g", at).expect("linked");
        },
        |at| {
            fs::remove_file(at).expect("removed");
            fs::create_dir(at).expect("made");
        },
    ];
    for change in changes {
        let file = from.path().join("d/f");
        change(&file);
        let to = tempdir().expect("a folder");
        let error = write_plan(&replant(&layer), &watched(from.path()), to.path(), Form::Export)
            .expect_err("changed");
        assert!(matches!(&error, FolderError::Changed { path } if path.to_string() == "/d/f"), "{error}");
        remove_tree(&file).expect("removed");
        fs::write(&file, "1234").expect("written");
    }
    let to = tempdir().expect("a folder");
    let lost = Plan { layer, ..Plan::default() };
    let error = write_plan(&lost, &[], to.path(), Form::Export).expect_err("no contents");
    assert!(
        matches!(&error, FolderError::NoContent { path } if path.to_string().starts_with("/d/")),
        "{error}"
    );
}

/// Says of every file with one of these keys that its digest is known.
struct Remembered(std::sync::Mutex<BTreeMap<StatKey, Digest>>);

impl HashCache for Remembered {
    fn get(&self, key: &StatKey) -> Option<Digest> {
        self.0.lock().expect("held shortly").get(key).copied()
    }

    fn put(&self, key: StatKey, digest: Digest) {
        self.0.lock().expect("held shortly").insert(key, digest);
    }
}

impl KnownFiles for Remembered {
    fn is(&self, key: &StatKey, digest: &Digest) -> bool {
        self.get(key).as_ref() == Some(digest)
    }
}

#[test]
fn a_file_that_is_known_is_not_hashed_and_one_that_was_rewritten_is() {
    let from = tempdir().expect("a folder");
    make(from.path(), "d/ d/f=1234");
    let hashes = Arc::new(Remembered(Default::default()));
    let purpose = Purpose::Context;
    let options = ScanOptions { purpose, filter: &|_, _| Visit::Take, hashes: &*hashes };
    let mut layer = scan(from.path(), &options).expect("scanned");
    let written = |layer: &Layer| {
        let source = SourceFolder::watched(from.path()).expect("opened").knowing(hashes.clone());
        let inputs = vec![vec![source]];
        let to = tempdir().expect("a folder");
        let in_folder = write_plan(&replant(layer), &inputs, to.path(), Form::Export).map(drop);
        let planned = PlannedLayer::new(replant(layer), inputs);
        let options = TarOptions { verify: planned.is_watched(), ..TarOptions::default() };
        let in_tar = write_layer(layer, &planned, options, &mut std::io::sink());
        (in_folder, in_tar)
    };
    // A digest that is wrong, and remembered for the file as it is: nobody looks at the bytes.
    let wrong = Digest::of(b"other");
    hashes.0.lock().expect("held shortly").values_mut().for_each(|digest| *digest = wrong);
    let file = layer.entries.get_mut(&path("d/f")).expect("scanned");
    file.kind = Kind::File { size: 4, content: wrong };
    let (in_folder, in_tar) = written(&layer);
    assert!(in_folder.is_ok() && in_tar.is_ok(), "{in_folder:?} {in_tar:?}");
    // As long as it was, and with the time that it had.
    let time = fs::metadata(from.path().join("d/f")).and_then(|file| file.modified()).expect("there");
    fs::write(from.path().join("d/f"), "1235").expect("written");
    fs::File::open(from.path().join("d/f")).and_then(|file| file.set_modified(time)).expect("set");
    let (in_folder, in_tar) = written(&layer);
    assert!(matches!(in_folder, Err(FolderError::Changed { .. })), "{in_folder:?}");
    assert!(matches!(in_tar, Err(LayerTarError::Changed { .. })), "{in_tar:?}");
}

#[test]
fn a_planned_copy_is_written_from_all_its_inputs() {
    let (context, stage, to) = (tempdir().expect("a"), tempdir().expect("b"), tempdir().expect("c"));
    make(context.path(), "src/ src/a=A src/sub/ src/sub/b=B");
    make(stage.path(), "usr/ usr/c=C usr/d~usr/c");
    let read =
        |folder: &Path| Stack::new(vec![Arc::new(scanned(folder, Purpose::Context).expect("scanned"))]);
    let (context_stack, stage_stack) = (read(context.path()), read(stage.path()));
    let base = Stack::default();
    let mut planner = Planner::new(&base);
    let spec = |from: &str, to: &str| CopySpec {
        sources: vec![Source::new(from.as_bytes())],
        destination: Destination::parse(to.as_bytes()).expect("a path"),
        chown: None,
        chmod: None,
        exclude: None,
        created: Mtime { seconds: 42, nanoseconds: 0 },
        timestamp: None,
        contents_only: true,
        create_destination: true,
        replace: false,
        archives: BTreeMap::new(),
    };
    let context_input = Input { stack: &context_stack, index: 0, planned: None };
    let stage_input = Input { stack: &stage_stack, index: 1, planned: None };
    planner.copy(&context_input, &spec("src", "/opt/app")).expect("planned");
    planner.copy(&stage_input, &spec("usr/*", "/opt/app/lib/")).expect("planned");
    let data = Arc::from(&b"inline"[..]);
    let file =
        Mkfile { path: path("opt/app/note"), mode: 0o600, owner: None, data, created: Mtime::default() };
    planner.mkfile(&file).expect("planned");
    planner.rm(&Rm { path: path("opt/app/sub"), wildcard: false, allow_missing: false }).expect("planned");
    let plan = planner.finish();
    let folders = |path: &Path| vec![SourceFolder::watched(path).expect("opened")];
    let inputs = [folders(context.path()), folders(stage.path())];
    write_plan(&plan, &inputs, to.path(), Form::Export).expect("written");
    let text = |name: &str| fs::read_to_string(to.path().join("opt/app").join(name)).ok();
    let texts = ["a", "lib/c", "lib/d", "note", "sub/b"].map(text);
    let expected = [Some("A"), Some("C"), Some("C"), Some("inline"), None];
    assert_eq!(texts.each_ref().map(Option::as_deref), expected);
    let note = fs::metadata(to.path().join("opt/app/note")).expect("there");
    assert_eq!((note.mode() & 0o7777, note.mtime()), (0o600, 0));
    assert_eq!(fs::metadata(to.path().join("opt")).expect("there").mtime(), 42);
}

#[test]
fn without_rights_the_manifest_remembers() {
    let to = tempdir().expect("a folder");
    let mut layer = Layer::default();
    layer.entries.insert(path("dev"), Node::directory(0o755));
    let null = Node { uid: 5, gid: 6, ..Node::new(Kind::CharDevice { major: 1, minor: 3 }, 0o666) };
    layer.entries.insert(path("dev/null"), null);
    let form = Form::Upper { overlay: OverlayXattrs::User, ownership: Ownership::Recorded };
    write_plan(&replant(&layer), &[], to.path(), form).expect("written");
    let null = fs::metadata(to.path().join("dev/null")).expect("there");
    assert!(null.is_file() && null.len() == 0);
    assert_eq!(null.uid(), rustix::process::geteuid().as_raw());
}

#[test]
fn an_export_replaces_what_is_in_the_way_and_nothing_else() {
    let (one, two, outside, to) =
        (tempdir().expect("a"), tempdir().expect("b"), tempdir().expect("c"), tempdir().expect("d"));
    make(one.path(), "d/ d/a=1 d/b=2 d/c~d/b f=3");
    make(two.path(), "d/ d/a=new g/ g/h=4");
    let mut upper = scanned(two.path(), Purpose::Context).expect("scanned");
    upper.entries.insert(path("f"), Node::whiteout());
    let lower = scanned(one.path(), Purpose::Context).expect("scanned");
    let stack = Stack::new(vec![Arc::new(lower), Arc::new(upper)]);
    // In the way: a link out of the folder, a file, a folder, and a file that stays.
    make(to.path(), "d/ d/a/ d/a/x g=file keep=kept");
    symlink(outside.path(), to.path().join("d/b")).expect("linked");
    make(outside.path(), "precious");
    let folders =
        || vec![SourceFolder::stored(one.path()).expect("1"), SourceFolder::stored(two.path()).expect("2")];
    assert!(export_local(&stack, folders(), to.path()).expect("exported").is_empty());
    let text = |name: &str| fs::read_to_string(to.path().join(name)).ok();
    let texts = ["d/a", "d/b", "d/c", "g/h", "keep", "f"].map(text);
    let expected = [Some("new"), Some("2"), Some("2"), Some("4"), Some("kept"), None];
    assert_eq!(texts.each_ref().map(Option::as_deref), expected);
    let inode = |name: &str| fs::symlink_metadata(to.path().join(name)).expect("there").ino();
    assert_eq!(inode("d/b"), inode("d/c"));
    assert!(outside.path().join("precious").exists());
    // A second time over itself.
    export_local(&stack, folders(), to.path()).expect("exported");
    // A folder of ours that became a link to elsewhere is replaced as well.
    fs::remove_dir_all(to.path().join("g")).expect("removed");
    symlink(outside.path(), to.path().join("g")).expect("linked");
    export_local(&stack, folders(), to.path()).expect("exported");
    assert!(!outside.path().join("h").exists());
    assert_eq!(text("g/h").as_deref(), Some("4"));
}

#[test]
fn folders_that_the_layer_does_not_name_are_made() {
    let to = tempdir().expect("a folder");
    let mut layer = Layer::default();
    let file = Node::new(Kind::File { size: 1, content: Digest::of(b"x") }, 0o644);
    layer.entries.insert(path("a/b/c/f"), file.clone());
    layer.entries.insert(path("a/z"), file);
    let mut plan = replant(&layer);
    for path in layer.entries.keys() {
        plan.contents.insert(path.clone(), ContentSource::Inline(Arc::from(&b"x"[..])));
    }
    write_plan(&plan, &[], to.path(), Form::Export).expect("written");
    let back = scanned(to.path(), Purpose::Context).expect("scanned");
    assert_eq!(shown(&back), ["dir /", "dir /a", "dir /a/b", "dir /a/b/c", "file /a/b/c/f", "file /a/z"]);
}

#[test]
fn a_tree_is_removed_however_deep_and_no_further() {
    let folder = tempdir().expect("a folder");
    let outside = tempdir().expect("a folder");
    make(outside.path(), "precious");
    make(folder.path(), "t/ t/closed/ t/closed/f");
    symlink(outside.path(), folder.path().join("t/out")).expect("linked");
    fs::set_permissions(folder.path().join("t/closed"), fs::Permissions::from_mode(0o0)).expect("set");
    // Deeper than a path may be long, and than descriptors may be open.
    let mut inner =
        rustix::fs::openat(CWD, folder.path().join("t"), rustix::fs::OFlags::RDONLY, Mode::empty())
            .expect("opened");
    let name = "n".repeat(200);
    for _ in 0..300 {
        rustix::fs::mkdirat(&inner, &name, Mode::RWXU).expect("made");
        inner = rustix::fs::openat(&inner, &name, rustix::fs::OFlags::RDONLY, Mode::empty()).expect("opened");
    }
    remove_tree(&folder.path().join("t")).expect("removed");
    assert_eq!(fs::read_dir(folder.path()).expect("read").count(), 0);
    assert!(outside.path().join("precious").exists());
    remove_tree(&folder.path().join("t")).expect("already gone");
    make(folder.path(), "file");
    remove_tree(&folder.path().join("file")).expect("removed");
    assert!(remove_tree(Path::new("/")).is_err());
    let error = lgetxattr(folder.path(), "user.none", vec![0u8; 1].as_mut_slice());
    assert!(error.is_err());
}
