//! What is remembered outside the database: digests of files, and memos.

use std::fs;

use oci::{Digest, Epoch};
use store::{BootId, Claims, Collection, HashCache, IdMap, Memos, StatKey, Store, TaggedBy};

use crate::fixture::{NOW, add_image, add_layer, count, open, options, record};

fn key(inode: u64, size: u64) -> StatKey {
    StatKey { device: 1, inode, size, mtime_ns: -5, ctime_ns: 1_000_000_001 }
}

fn digest_of(inode: u64) -> Digest {
    Digest::of(&inode.to_be_bytes())
}

fn known(cache: &HashCache, inodes: impl Iterator<Item = u64>) -> usize {
    inodes.filter(|inode| cache.get(&key(*inode, 3)) == Some(digest_of(*inode))).count()
}

#[test]
fn digests_of_files_are_remembered() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path(), "1");
    let lease = store.lease().expect("a lease");
    let cache = store.hash_cache(b"/context").expect("loaded");
    for inode in (0..30_000).rev() {
        cache.put(key(inode, 3), digest_of(inode));
    }
    let now_ns = i64::try_from(NOW).expect("fits") * 1_000_000_000;
    let racy = StatKey { ctime_ns: now_ns - 1_000_000, ..key(40_000, 3) };
    cache.put(racy, digest_of(1));
    assert_eq!(known(&cache, 0..30_000), 0, "of this build only once they are saved");
    assert_eq!(cache.get(&racy), None);
    cache.into_known(Some(&lease)).expect("saved");

    for boot in ["1", "2"] {
        let store = open(folder.path(), boot);
        assert_eq!(known(&store.hash_cache(b"/other").expect("loaded"), 0..30_000), 0);
        let cache = store.hash_cache(b"/context").expect("loaded");
        assert_eq!(known(&cache, 0..30_001), 30_000);
        assert_eq!(cache.get(&key(7, 4)), None, "another size");
    }

    // For who knows the digests already, a mark of each is enough; also of those that are saved by this.
    let cache = store.hash_cache(b"/context").expect("loaded");
    assert_eq!(known(&cache, 0..30_000), 30_000);
    cache.put(key(29_998, 5), digest_of(1));
    let files = cache.into_known(Some(&lease)).expect("saved");
    for (key, digest, is) in [
        (key(7, 3), digest_of(7), true),
        (key(7, 3), digest_of(8), false),
        (key(7, 4), digest_of(7), false),
        (key(29_998, 3), digest_of(29_998), false),
        (key(29_998, 5), digest_of(1), true),
        (key(30_000, 3), digest_of(30_000), false),
    ] {
        assert_eq!(files.is(&key, &digest), is, "{key:?}");
    }
    let files = store.hash_cache(b"/context").expect("loaded").into_known(None).expect("loaded");
    assert!(files.is(&key(7, 3), &digest_of(7)) && !files.is(&key(7, 3), &digest_of(8)));

    // Few are asked for: of the others some stay. A changed file takes its old place.
    let cache = store.hash_cache(b"/context").expect("loaded");
    assert_eq!(known(&cache, 0..5), 5);
    cache.put(key(29_999, 4), digest_of(0));
    cache.into_known(Some(&lease)).expect("saved");
    let cache = store.hash_cache(b"/context").expect("loaded");
    assert_eq!(known(&cache, 0..5), 5);
    assert_eq!(cache.get(&key(29_999, 4)), Some(digest_of(0)));
    assert_eq!(cache.get(&key(29_999, 3)), None);
    let left = known(&cache, 5..30_000);
    assert!((9_000..=10_000).contains(&left), "{left}");
}

#[test]
fn a_memo_holds_until_a_name_moves() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path(), "1");
    let lease = store.lease().expect("a lease");
    let image = add_image(&store, &lease, "a", b"layer");
    let name = oci::Reference::parse("app").expect("a name");
    store.keep().expect("kept");
    store.tag(&lease, &name, &image, Epoch(1), TaggedBy::Build).expect("tagged");
    let key = Digest::of(b"key");
    let claim = Claims { names: vec![(name.clone(), Some(image.digest))], listed: vec![image.digest] };
    assert_eq!(store.memo_get(&key).expect("asked"), None);
    assert!(store.memo_put(&lease, &key, &claim, b"answer\n\0").expect("put"));
    assert_eq!(store.memo_get(&key).expect("asked").as_deref(), Some(&b"answer\n\0"[..]));

    store.tag(&lease, &name, &image, Epoch(2), TaggedBy::Build).expect("the same again");
    assert!(store.memo_get(&key).expect("asked").is_some());
    assert_eq!(open(folder.path(), "2").memo_get(&key).expect("asked"), None, "another boot");

    store.untag(&name).expect("untagged");
    assert_eq!(store.memo_get(&key).expect("asked"), None);
    assert!(!store.memo_put(&lease, &key, &claim, b"answer").expect("put"), "the name is gone");
    assert_eq!(count(&store, "memo"), 1);
    store.collect(&Collection::default()).expect("collected");
    assert_eq!(count(&store, "memo"), 0);
}

#[test]
fn a_memo_is_void_where_an_ordinary_build_would_find_something_else() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path(), "1");
    let lease = store.lease().expect("a lease");
    let key = Digest::of(b"key");
    let nobody = oci::Reference::parse("nobody").expect("a name");
    let claims = Claims { names: vec![(nobody.clone(), None)], listed: Vec::new() };
    let put = |what: &str| {
        assert!(store.memo_put(&lease, &key, &claims, b"answer").expect("put"), "{what}");
        assert!(store.memo_get(&key).expect("asked").is_some(), "{what}");
    };
    let gone = |what: &str| assert_eq!(store.memo_get(&key).expect("asked"), None, "{what}");
    let first = add_layer(&store, &lease, "one", None);
    let second = add_layer(&store, &lease, "two", None);
    store.put_record(&lease, &record("make", &[first])).expect("added");
    put("made");
    store.put_record(&lease, &record("test", &[first])).expect("added");
    assert!(store.memo_get(&key).expect("asked").is_some(), "a step that nobody knew");
    store.put_record(&lease, &record("make", &[second])).expect("added");
    gone("a step that has another result now");

    put("made again");
    fs::remove_file(folder.path().join("trees").join(first.digest().hex())).expect("there");
    gone("a manifest was deleted by hand");
    let wrong = Claims { names: vec![(nobody.clone(), Some(key))], listed: Vec::new() };
    assert!(!store.memo_put(&lease, &key, &wrong, b"answer").expect("put"), "no image has the name");
    let wrong = Claims { names: Vec::new(), listed: vec![key] };
    assert!(!store.memo_put(&lease, &key, &wrong, b"answer").expect("put"), "it is not listed");

    put("without the manifest");
    let image = add_image(&store, &lease, "a", b"layer");
    store.keep().expect("kept");
    store.tag(&lease, &nobody, &image, Epoch(1), TaggedBy::Build).expect("tagged");
    gone("a name that nobody had");
    assert!(!store.memo_put(&lease, &key, &claims, b"answer").expect("put"), "somebody has it now");
}

#[test]
fn what_a_file_outside_holds_is_known_by_its_inode_and_its_times() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path(), "1");
    let lease = store.lease().expect("a lease");
    let (path, what) = (std::path::Path::new("/out.tar"), Digest::of(b"what"));
    let known = key(1, 2);
    assert!(!store.holds_output(path, &what, &known));
    store.remember_output(&lease, path, &what, &known).expect("remembered");
    assert!(store.holds_output(path, &what, &known));
    assert!(!store.holds_output(std::path::Path::new("/out"), &what, &known));
    assert!(!store.holds_output(path, &Digest::of(b"other"), &known));
    for other in [
        StatKey { device: 9, ..known },
        StatKey { inode: 9, ..known },
        StatKey { size: 9, ..known },
        StatKey { mtime_ns: 9, ..known },
        StatKey { ctime_ns: 9, ..known },
    ] {
        assert!(!store.holds_output(path, &what, &other), "{other:?}");
    }
    assert!(!open(folder.path(), "2").holds_output(path, &what, &known), "another boot");
    let memos = Memos::at(folder.path(), BootId::named("1")).expect("a state folder");
    assert!(memos.holds(path, &what, &known));
    assert!(Memos::at(&folder.path().join("none"), BootId::named("1")).is_none());
    assert_eq!(memos.id_map(), &IdMap::Root);
}

#[test]
fn the_database_is_not_opened_for_a_memo_or_a_hash_cache() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(options(folder.path(), "1")).expect("opened");
    let lease = store.lease().expect("a lease");
    let cache = store.hash_cache(b"/context").expect("loaded");
    cache.put(key(1, 2), digest_of(1));
    cache.into_known(Some(&lease)).expect("saved");
    assert_eq!(store.memo_get(&Digest::of(b"key")).expect("asked"), None);
    assert!(!folder.path().join("kiln.db").exists());
}
