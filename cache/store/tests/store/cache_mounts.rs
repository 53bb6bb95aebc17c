//! Cache mounts.

use std::{
    fs, io,
    ops::ControlFlow,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
};

use store::{CacheMount, CacheMountSpec, Lease, Sharing, Store};

use crate::fixture::{open, taking};

fn spec(id: &str, sharing: Sharing) -> CacheMountSpec {
    CacheMountSpec { id: id.to_owned(), sharing, mode: 0o755, owner: None }
}

/// Takes it if nobody keeps it from being taken.
fn take(store: &Store, lease: &Lease, spec: &CacheMountSpec) -> Option<CacheMount> {
    store.cache_mount(lease, spec, None, &mut |_| ControlFlow::Break(())).expect("asked")
}

#[test]
fn mode_owner_and_seed_are_of_the_first_use() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path(), "1");
    let lease = store.lease().expect("a lease");
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let has_ids = map.lines().any(|range| range.split_whitespace().last() != Some("1"));
    let owner = (rustix::process::geteuid().is_root() && has_ids).then_some((1000, 1001));
    if owner.is_none() {
        println!(
            "SKIP cache_mounts::mode_owner_and_seed_are_of_the_first_use: needs root: another owner, in part"
        );
    }
    let first = CacheMountSpec { mode: 0o2770, owner, ..spec("go", Sharing::Shared) };
    let seed: &dyn Fn(&Path) -> io::Result<()> = &|at| fs::write(at.join("seed"), "1");
    let mount = store
        .cache_mount(&lease, &first, Some(seed), &mut |_| ControlFlow::Break(()))
        .expect("asked")
        .expect("free");
    let check = |path: &Path| {
        let metadata = fs::metadata(path).expect("made");
        assert_eq!(metadata.permissions().mode() & 0o7777, 0o2770);
        if let Some(owner) = owner {
            assert_eq!((metadata.uid(), metadata.gid()), owner);
        }
    };
    check(mount.path());
    assert_eq!(fs::read_to_string(mount.path().join("seed")).expect("read"), "1");
    fs::write(mount.path().join("seed"), "2").expect("written");
    let path = mount.path().to_owned();
    drop(mount);
    let never: &dyn Fn(&Path) -> io::Result<()> = &|_| panic!("it is there");
    let second = CacheMountSpec { mode: 0o700, owner: None, ..first };
    let mount = store.cache_mount(&lease, &second, Some(never), &mut |_| ControlFlow::Break(()));
    let mount = mount.expect("asked").expect("free");
    assert_eq!(mount.path(), path);
    check(mount.path());
    assert_eq!(fs::read_to_string(path.join("seed")).expect("read"), "2");
}

#[test]
fn a_seed_that_fails_leaves_no_mount() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path(), "1");
    let lease = store.lease().expect("a lease");
    let seed: &dyn Fn(&Path) -> io::Result<()> = &|at| {
        fs::write(at.join("half"), "")?;
        Err(io::Error::other("no"))
    };
    let shared = spec("go", Sharing::Shared);
    store
        .cache_mount(&lease, &shared, Some(seed), &mut |_| ControlFlow::Break(()))
        .expect_err("the seed's error");
    let mount = take(&store, &lease, &shared).expect("free");
    assert_eq!(fs::read_dir(mount.path()).expect("listed").count(), 0);
}

#[test]
fn sharing_says_who_may_use_it_at_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path(), "1");
    let lease = store.lease().expect("a lease");
    let [shared, locked, private] =
        [Sharing::Shared, Sharing::Locked, Sharing::Private].map(|sharing| spec("go", sharing));
    let path_of = |mount: &Option<CacheMount>| mount.as_ref().map(|mount| mount.path().to_owned());

    let (one, two) = (take(&store, &lease, &shared), take(&store, &lease, &shared));
    assert!(one.is_some());
    assert_eq!(path_of(&one), path_of(&two));
    assert!(take(&store, &lease, &locked).is_none());
    drop((one, two));

    let held = take(&store, &lease, &locked);
    assert!(held.is_some());
    assert!(take(&store, &lease, &locked).is_none() && take(&store, &lease, &shared).is_none());
    let mut waited = 0;
    let mut held = held;
    let got = store.cache_mount(&lease, &locked, None, &mut |_| {
        waited += 1;
        held = None;
        ControlFlow::Continue(())
    });
    assert!(got.expect("asked").is_some());
    assert_eq!(waited, 1, "taken as soon as it was given back");

    let (one, two) = (take(&store, &lease, &private), take(&store, &lease, &private));
    assert!(one.is_some() && two.is_some());
    assert_ne!(path_of(&one), path_of(&two), "a copy for each");
    let second = path_of(&two);
    drop(two);
    assert_eq!(path_of(&take(&store, &lease, &private)), second, "a copy is used again");
    let mounts = store.cache_mounts().expect("listed");
    assert_eq!(mounts.len(), 1);
    assert_eq!((mounts[0].id.as_str(), mounts[0].copies.len()), ("go", 2));
}

#[test]
fn a_mount_in_use_is_not_removed() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path(), "1");
    let lease = store.lease().expect("a lease");
    let shared = spec("../../etc", Sharing::Shared);
    let held = take(&store, &lease, &shared);
    let path = held.as_ref().expect("free").path().to_owned();
    assert!(path.starts_with(folder.path().join("mounts")), "an id is no path");
    let all = taking("type==exec.cachemount");
    assert_eq!(store.collect(&all).expect("collected").cache_mounts, 0);
    assert!(path.exists());
    drop(held);
    assert_eq!(store.collect(&all).expect("collected").cache_mounts, 1);
    assert!(!path.exists());
    assert!(store.cache_mounts().expect("listed").is_empty());
    assert!(!store.remove_cache_mount(&lease, "../../etc").expect("asked"));
    assert!(take(&store, &lease, &shared).is_some(), "and made anew");
}
