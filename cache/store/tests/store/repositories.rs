//! Copies of git repositories, and downloads of what has no digest yet.

use std::{fs, io::Write, ops::ControlFlow};

use oci::Digest;
use store::{Collection, Lease, Partial, Repository, Store};

use crate::fixture::{SetClock, count, open, options};

const REMOTE: &str = "https://h.example/x.git";

/// Takes it if nobody keeps it from being taken.
fn take(store: &Store) -> Option<Repository> {
    store.repository(REMOTE, &mut |_| ControlFlow::Break(())).expect("asked")
}

fn make(repository: &Repository, lease: &Lease, text: &str) {
    let folder = lease.new_folder().expect("a folder");
    fs::write(folder.join("HEAD"), text).expect("written");
    repository.adopt(lease, &folder).expect("adopted");
}

#[test]
fn a_copy_is_one_builds_at_a_time_and_outlives_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path(), "1");
    let lease = store.lease().expect("a lease");
    let repository = take(&store).expect("free");
    assert!(!repository.exists());
    make(&repository, &lease, "one");
    assert!(take(&store).is_none(), "it is in use");
    let path = repository.path().to_owned();
    drop(repository);
    drop(lease);
    let again = take(&store).expect("free");
    assert!(again.exists());
    assert_eq!(
        (again.path(), fs::read_to_string(path.join("HEAD")).expect("read")),
        (&*path, "one".to_owned())
    );
}

#[test]
fn a_copy_without_its_stamp_is_none_and_is_replaced() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path(), "1");
    let lease = store.lease().expect("a lease");
    let repository = take(&store).expect("free");
    make(&repository, &lease, "one");
    // As one leaves it who is killed while he throws it away.
    fs::remove_file(repository.path().join("kiln-remote")).expect("there");
    assert!(!repository.exists());
    make(&repository, &lease, "two");
    assert!(repository.exists());
    assert_eq!(fs::read_to_string(repository.path().join("HEAD")).expect("read"), "two");
    repository.discard(&lease).expect("thrown away");
    assert!(!repository.exists() && !repository.path().exists());
}

#[test]
fn a_copy_that_nobody_uses_is_collected() {
    let folder = tempfile::tempdir().expect("a folder");
    let now =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs();
    let clock = SetClock::new(now);
    let store =
        Store::open(store::Options { clock: clock.clock(), ..options(folder.path(), "1") }).expect("opens");
    let lease = store.lease().expect("a lease");
    let repository = take(&store).expect("free");
    make(&repository, &lease, "one");
    let path = repository.path().to_owned();
    let collect = || store.collect(&Collection::default()).expect("collected");
    clock.set(now + 29 * 24 * 60 * 60);
    drop(repository);
    collect();
    assert!(path.exists(), "it was used this month");
    clock.set(now + 31 * 24 * 60 * 60);
    let held = take(&store).expect("free");
    collect();
    assert!(path.exists(), "it is in use");
    drop(held);
    // Its stamp is new where it was taken into use; the clock goes on from the file's own time.
    clock.set(now + 62 * 24 * 60 * 60);
    collect();
    assert!(!path.exists(), "nobody has used it for a month");
}

#[test]
fn a_download_without_a_digest_goes_on_under_its_name() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path(), "1");
    let lease = store.lease().expect("a lease");
    let name = Digest::of(b"https://h.example/file tag");
    let begin = || -> Partial {
        store.partial(&lease, &name, &mut |_| ControlFlow::Break(())).expect("asked").expect("free")
    };
    let mut first = begin();
    first.write_all(b"one ").expect("written");
    assert!(store.partial(&lease, &name, &mut |_| ControlFlow::Break(())).expect("asked").is_none());
    drop(first);
    let mut second = begin();
    assert_eq!(second.size_bytes(), 4);
    second.write_all(b"two").expect("written");
    let (path, digest) = second.finish().expect("finished");
    assert_eq!((fs::read(path).expect("there"), digest), (b"one two".to_vec(), Digest::of(b"one two")));
    assert_eq!(count(&store, "partial") + count(&store, "locks"), 0);
    assert_eq!(begin().size_bytes(), 0);
}
