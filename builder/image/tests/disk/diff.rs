use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown, symlink},
    path::Path,
    sync::Arc,
};

use image::{
    diff::diff,
    folder::remove_tree,
    overlay::OverlayXattrs,
    scan::{NoHashCache, Purpose, ScanError},
};
use rustix::{
    fs::{CWD, FileType, Mode, XattrFlags, lsetxattr},
    mount::{MountFlags, UnmountFlags, mount, unmount},
};
use tempfile::{TempDir, tempdir};
use tree::{Layer, Mtime, Stack};

use crate::{
    scratch::{is_root, make, path, scanned, shown},
    working_root::{self, Stepped},
};

/// An overlay on a lower folder.
struct Overlay {
    folder: TempDir,
    lower: Stack,
}

impl Overlay {
    fn on(words: &str) -> Overlay {
        let folder = tempdir().expect("a folder");
        for name in ["lower", "upper", "work", "merged"] {
            fs::create_dir(folder.path().join(name)).expect(name);
        }
        make(&folder.path().join("lower"), words);
        let layer = scanned(&folder.path().join("lower"), Purpose::Snapshot).expect("scanned");
        Overlay { folder, lower: Stack::new(vec![Arc::new(layer)]) }
    }

    /// Mounts it, lets `step` work in it, and tells what changed, and what the step saw at its end.
    fn after(&self, step: impl FnOnce(&Path)) -> (Layer, Layer) {
        let at = |name: &str| self.folder.path().join(name);
        let shown = |name: &str| at(name).display().to_string();
        let options = format!(
            "lowerdir={},upperdir={},workdir={},index=off,redirect_dir=off,metacopy=off",
            shown("lower"),
            shown("upper"),
            shown("work")
        );
        let options = std::ffi::CString::new(options).expect("no NUL");
        mount("overlay", at("merged"), "overlay", MountFlags::empty(), Some(options.as_c_str()))
            .expect("mounted");
        step(&at("merged"));
        let seen = scanned(&at("merged"), Purpose::Snapshot).expect("scanned");
        unmount(at("merged"), UnmountFlags::empty()).expect("unmounted");
        let changed =
            diff(&at("upper"), &self.lower, OverlayXattrs::Trusted, &NoHashCache).expect("compared");
        (changed, seen)
    }
}

fn check(lower: &str, step: impl Fn(&Path), expected: &[&str]) {
    let overlay = Overlay::on(lower);
    let (changed, seen) = overlay.after(&step);
    assert_eq!(shown(&changed), expected);
    let without = working_root::after(&overlay.folder.path().join("lower"), &overlay.lower, step);
    assert_eq!(timeless(without), timeless(changed.clone()), "as without overlayfs");
    // The layer on the lower ones is what the step saw, but for the times of folders and links that overlayfs
    // broke.
    let alike = |layer: Layer| {
        let mut layer = layer;
        for node in layer.entries.values_mut() {
            node.hardlink = None;
            if node.is_directory() {
                node.mtime = Mtime::default();
            }
        }
        layer
    };
    assert_eq!(alike(overlay.lower.with(Arc::new(changed)).flatten()), alike(seen));
}

/// A layer without the times, some of which are those of the test.
fn timeless(mut layer: Layer) -> Layer {
    layer.entries.values_mut().for_each(|node| node.mtime = Mtime::default());
    layer
}

#[test]
fn what_a_step_did_is_its_layer() {
    if !is_root("mounting an overlay") {
        return;
    }
    let write = |path: &Path, text: &str| fs::write(path, text).expect("written");
    // run-noop
    check("d/ d/f", |_| (), &[]);
    check("d/ d/f", |at| drop(fs::read(at.join("d/f"))), &[]);
    // run-whiteout-file-dir
    let gone = |at: &Path| {
        fs::remove_file(at.join("d/a")).expect("removed");
        fs::remove_dir_all(at.join("d/s")).expect("removed");
        fs::remove_file(at.join("top")).expect("removed");
    };
    check("d/ d/a d/s/ d/s/b d/k top", gone, &["dir /d", "whiteout /d/a", "whiteout /d/s", "whiteout /top"]);
    // run-replace-types: a folder on a file is not opaque, one on a folder is
    let replaced = |at: &Path| {
        fs::remove_file(at.join("f2d")).expect("removed");
        make(at, "f2d/ f2d/in");
        fs::remove_dir_all(at.join("d2f")).expect("removed");
        make(at, "d2f");
        fs::remove_dir_all(at.join("d2d")).expect("removed");
        make(at, "d2d/ d2d/y/ d2d/new");
        fs::remove_file(at.join("l2f")).expect("removed");
        make(at, "l2f");
    };
    check(
        "f2d d2f/ d2f/x/ d2d/ d2d/old d2d/y/ d2d/y/z l2f->f2d",
        replaced,
        &["opaque /d2d", "file /d2d/new", "dir /d2d/y", "file /d2f", "dir /f2d", "file /f2d/in", "file /l2f"],
    );
    // run-rename-lower-dir
    let moved = |at: &Path| fs::rename(at.join("old/f"), at.join("old/g")).expect("renamed");
    check("old/ old/f", moved, &["dir /old", "whiteout /old/f", "file /old/g"]);
    // run-metadata-only
    let touched = |at: &Path| {
        fs::set_permissions(at.join("m/f"), fs::Permissions::from_mode(0o4711)).expect("set");
        std::os::unix::fs::lchown(at.join("m/l"), Some(56), Some(78)).expect("set");
        let time = std::time::SystemTime::UNIX_EPOCH;
        fs::File::open(at.join("m/d")).and_then(|file| file.set_modified(time)).expect("set");
    };
    check("m/ m/f m/d/ m/d/g m/l->f", touched, &["dir /m", "file /m/f", "symlink /m/l"]);
    check("f", |at| write(&at.join("f"), "f"), &["file /f"]);
    // A copy that changes nothing at all: chmod to the mode it had.
    let same =
        |at: &Path| fs::set_permissions(at.join("d/f"), fs::Permissions::from_mode(0o644)).expect("set");
    check("d/ d/f:644", same, &[]);
    // Made and removed again.
    let fleeting = |at: &Path| {
        make(at, "d/x");
        fs::remove_file(at.join("d/x")).expect("removed");
    };
    check("d/ d/f", fleeting, &[]);
    // run-hardlinks: the name that did not change is not in the layer
    let link = |at: &Path| fs::hard_link(at.join("h/a"), at.join("h/late")).expect("linked");
    check("h/ h/a h/b~h/a", link, &["dir /h", "file /h/late"]);
    let pair = |at: &Path| make(at, "h/x h/y~h/x");
    check("h/", pair, &["dir /h", "file /h/x", "hardlink /h/y"]);
    check("a", |at| symlink("a", at.join("b")).expect("linked"), &["symlink /b"]);
    // One of the names goes, or both are given to another: overlayfs breaks the link.
    let one = |at: &Path| fs::remove_file(at.join("h/a")).expect("removed");
    check("h/ h/a h/b~h/a", one, &["dir /h", "whiteout /h/a"]);
    let owned = |at: &Path| {
        for name in ["h/a", "h/b"] {
            chown(at.join(name), Some(7), Some(8)).expect("chowned");
        }
    };
    check("h/ h/a h/b~h/a", owned, &["dir /h", "file /h/a", "file /h/b"]);
    // A folder's mode, with and without something in it; a folder that is moved.
    let closed = |at: &Path| {
        fs::set_permissions(at.join("d/e"), fs::Permissions::from_mode(0o700)).expect("set");
        fs::rename(at.join("new/n"), at.join("new/m")).expect("renamed");
    };
    let made = |at: &Path| {
        make(at, "new/ new/n/ new/n/f");
        closed(at);
    };
    check("d/ d/e/ d/e/f", made, &["dir /d", "dir /d/e", "dir /new", "dir /new/m", "file /new/m/f"]);
    // Pipes are kept, sockets are not, wherever they are.
    let special = |at: &Path| {
        rustix::fs::mknodat(CWD, at.join("p"), FileType::Fifo, Mode::RUSR, 0).expect("made");
        drop(std::os::unix::net::UnixListener::bind(at.join("s")).expect("bound"));
        fs::remove_file(at.join("f")).expect("removed");
        drop(std::os::unix::net::UnixListener::bind(at.join("f")).expect("bound"));
    };
    let overlay = Overlay::on("f");
    let without = Stepped::on(&overlay.folder.path().join("lower"), &overlay.lower, special);
    assert!(without.stamps.has_more_than_a_layer());
    assert_eq!(shown(&without.layer), shown(&overlay.after(special).0));
    assert_eq!(shown(&without.layer), ["fifo /p"]);
}

#[test]
fn the_root_is_taken_only_if_it_changed() {
    if !is_root("mounting an overlay") {
        return;
    }
    check("f", |at| make(at, "g"), &["file /g"]);
    check("f", |at| chown(at, Some(5), Some(5)).expect("chowned"), &["dir /"]);
}

#[test]
fn marks_of_another_kind_of_mount_mean_nothing() {
    if !is_root("trusted attributes") {
        return;
    }
    let upper = tempdir().expect("a folder");
    make(upper.path(), "d/ d/new");
    let mark = |name| lsetxattr(upper.path().join("d"), name, b"y", XattrFlags::empty()).expect(name);
    mark("user.overlay.opaque");
    let lower = Overlay::on("d/ d/old").lower;
    let changed = |marks| diff(upper.path(), &lower, marks, &NoHashCache);
    assert_eq!(shown(&changed(OverlayXattrs::Trusted).expect("compared")), ["dir /d", "file /d/new"]);
    assert_eq!(shown(&changed(OverlayXattrs::User).expect("compared")), ["opaque /d", "file /d/new"]);
    mark("trusted.overlay.redirect");
    let error = changed(OverlayXattrs::Trusted).expect_err("redirected");
    assert!(
        matches!(&error, ScanError::Redirected { path, .. } if *path == crate::scratch::path("d")),
        "{error}"
    );
    assert!(changed(OverlayXattrs::User).is_ok());
    assert!(lower.lookup(&path("d/old")).is_some());
    remove_tree(&upper.path().join("d")).expect("removed");
}
