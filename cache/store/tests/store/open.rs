//! Opening a state folder: the first use, and the folders that are refused.

use std::{fs, os::unix::fs::PermissionsExt};

use crate::fixture::{add_layer, count, open, options, record};
use oci::Digest;
use store::{Error, IdMap, Store};

#[test]
fn the_first_use_makes_the_folder_for_its_owner_only() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path().join("a/b/kiln");
    let store = open(&root, "1");
    assert_eq!(fs::metadata(&root).expect("made").permissions().mode() & 0o7777, 0o700);
    assert!(root.join("format.json").exists());
    assert!(!root.join("kiln.db").exists(), "the database is made when it is first asked");
    drop(store);
    open(&root, "1");
    let left: Vec<_> =
        fs::read_dir(&root).expect("listed").map(|e| e.expect("an entry").file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().starts_with("format.json.")), "{left:?}");
}

#[test]
fn an_interrupted_first_use_is_finished() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::create_dir(folder.path().join("blobs")).expect("made");
    fs::write(folder.path().join("format.json.1-0"), "").expect("written");
    let store = open(folder.path(), "1");
    let lease = store.lease().expect("a lease");
    store.add_blob(&lease, b"x").expect("added");
}

#[test]
fn a_folder_that_does_not_fit_is_refused_with_the_fix() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path().join("kiln");
    open(&root, "1");
    let single = store::Options { id_map: IdMap::Single { uid: 1, gid: 2 }, ..options(&root, "1") };
    let refused = Store::open(single).expect_err("another id map");
    assert!(matches!(&refused, Error::OtherIdMap { found: IdMap::Root, .. }), "{refused:?}");
    assert!(refused.help().expect("a fix").contains("--root"));

    fs::write(root.join("format.json"), r#"{"format":2,"something":"new"}"#).expect("written");
    let refused = Store::open(options(&root, "1")).expect_err("a newer format");
    assert!(matches!(&refused, Error::NewerFormat { found: 2, .. }), "{refused:?}");
    assert!(refused.help().is_some());

    fs::write(root.join("format.json"), "").expect("written");
    let refused = Store::open(options(&root, "1")).expect_err("no format");
    assert!(matches!(&refused, Error::BadFormat { .. }), "{refused:?}");

    let refused = Store::open(options(folder.path(), "1")).expect_err("somebody's folder");
    assert!(matches!(&refused, Error::NotAStateFolder { .. }), "{refused:?}");
    assert!(!folder.path().join("blobs").exists(), "nothing was made in it");

    fs::write(folder.path().join("file"), "").expect("written");
    let refused = Store::open(options(&folder.path().join("file/kiln"), "1")).expect_err("below a file");
    assert!(matches!(&refused, Error::Io { .. }), "{refused:?}");
}

#[test]
fn a_damaged_database_is_named_with_the_fix() {
    let folder = tempfile::tempdir().expect("a folder");
    {
        let store = open(folder.path(), "1");
        let lease = store.lease().expect("a lease");
        add_layer(&store, &lease, "x", None);
    }
    for name in ["kiln.db-wal", "kiln.db-shm"] {
        let _absent = fs::remove_file(folder.path().join(name));
    }
    fs::write(folder.path().join("kiln.db"), [b'x'; 8192]).expect("written");
    let store = open(folder.path(), "1");
    let lease = store.lease().expect("a lease");
    let refused = store.blob(&lease, &Digest::of(b"x")).expect_err("damaged");
    assert!(matches!(&refused, Error::Corrupt { .. }), "{refused:?}");
    let fix = refused.help().expect("a fix");
    assert!(fix.contains(&folder.path().join("kiln.db").display().to_string()), "{fix}");

    for name in ["kiln.db", "kiln.db-wal", "kiln.db-shm"] {
        let _absent = fs::remove_file(folder.path().join(name));
    }
    let store = open(folder.path(), "1");
    let layer = add_layer(&store, &lease, "x", None);
    store.put_record(&lease, &record("x", &[layer])).expect("the fix works");
}

/// Mounts a small tmpfs; `None`, with the reason printed, where that is not allowed.
fn small_disk(at: &std::path::Path, options: &std::ffi::CStr) -> Option<Unmount> {
    let flags = rustix::mount::MountFlags::empty();
    if let Err(e) = rustix::mount::mount("tmpfs", at, "tmpfs", flags, Some(options)) {
        let test = std::thread::current().name().unwrap_or("open").to_owned();
        println!("SKIP {test}: needs root: a tmpfs: {e}");
        return None;
    }
    Some(Unmount(at.to_owned()))
}

struct Unmount(std::path::PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        let flags = rustix::mount::UnmountFlags::DETACH;
        rustix::mount::unmount(self.0.as_path(), flags).expect("unmounted");
    }
}

#[test]
fn a_full_disk_is_an_error_of_its_own() {
    let folder = tempfile::tempdir().expect("a folder");
    let Some(_disk) = small_disk(folder.path(), c"size=2m") else { return };
    let store = open(folder.path(), "1");
    let lease = store.lease().expect("a lease");
    store.add_blob(&lease, b"small").expect("fits");
    let full = store.add_blob(&lease, &vec![7; 4 << 20]).expect_err("does not fit");
    assert!(matches!(&full, Error::DiskFull { free_bytes, .. } if *free_bytes < 2 << 20), "{full:?}");
    assert!(full.help().expect("a fix").contains("free space"));
    let texts = (0..10_000).map(|n| format!("text {n}"));
    let failed = texts.map(|text| store.add_blob(&lease, text.as_bytes())).find_map(Result::err);
    let failed = failed.expect("a disk of 2 MiB ends");
    assert!(matches!(&failed, Error::DiskFull { .. }), "{failed:?}");
    drop(lease);
    assert_eq!(count(&store, "leases"), 0, "a full disk keeps nobody from tidying up");
    let freed = store.collect(&store::Collection::default());
    assert!(matches!(&freed, Ok(_) | Err(Error::DiskFull { .. })), "{freed:?}");
}

#[test]
fn a_folder_that_cannot_be_written_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let Some(_disk) = small_disk(folder.path(), c"size=1m") else { return };
    let flags = rustix::mount::MountFlags::RDONLY;
    rustix::mount::mount_remount(folder.path(), flags, "").expect("made read-only");
    let refused = Store::open(options(&folder.path().join("kiln"), "1")).expect_err("read-only");
    assert!(matches!(&refused, Error::NotWritable { .. }), "{refused:?}");
    assert!(refused.help().expect("a fix").contains("--root"));
}
