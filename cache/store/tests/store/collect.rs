//! Leases and collection: what stays, and what goes.

use std::{fs, path::Path};

use oci::{Digest, Epoch, Reference};
use store::{Collection, LockName, Origin, Store, TaggedBy};

use crate::fixture::{add_form, add_image, add_layer, count, manifest, open, record, taking, taking_all};

fn everything(store: &Store) -> [usize; 5] {
    ["blobs/sha256", "trees", "layers", "tmp", "leases"].map(|folder| count(store, folder))
}

#[test]
fn what_nothing_names_goes() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path(), "1");
    let lease = store.lease().expect("a lease");
    add_layer(&store, &lease, "nobody's", Some(Origin { op: Digest::of(b"op"), created: Epoch(1) }));
    store.add_blob(&lease, b"nobody's").expect("added");
    let layer = add_layer(&store, &lease, "a record's", None);
    store.put_record(&lease, &record("make", &[layer])).expect("added");
    assert_eq!(store.collect(&Collection::default()).expect("collected").contents, 0, "a live build's");
    assert_eq!(everything(&store), [1, 2, 2, 1, 1]);
    drop(lease);
    let freed = store.collect(&Collection::default()).expect("collected");
    assert_eq!((freed.contents, freed.records), (3, 0), "a blob, a tree manifest, a folder");
    assert_eq!(everything(&store), [0, 1, 1, 0, 0]);
    let freed = store.collect(&taking_all()).expect("collected");
    assert_eq!((freed.contents, freed.records), (2, 1));
    assert_eq!(everything(&store), [0; 5]);
}

#[test]
fn an_image_holds_on_to_its_blobs_and_their_layers() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path(), "1");
    let lease = store.lease().expect("a lease");
    let image = add_image(&store, &lease, "a", b"layer");
    let layer = store.commit_layer(&lease, &manifest("x", 0), None, None).expect("added");
    for (codec, bytes) in [("pulled", &b"layer"[..]), ("zstd", b"another form")] {
        add_form(&store, &lease, &layer, codec, bytes);
    }
    store.keep().expect("kept");
    let name = Reference::parse("app").expect("a name");
    store.tag(&lease, &name, &image, Epoch(1), TaggedBy::Build).expect("tagged");
    let layers = store.layers_of_image(&lease, &image.digest).expect("read");
    assert_eq!(layers[0].layer, Some(layer));
    drop(lease);

    let untagged = taking("type==image");
    assert_eq!(store.collect(&untagged).expect("collected").contents, 0);
    store.untag(&name).expect("untagged");
    assert_eq!(store.collect(&Collection::default()).expect("collected").contents, 0, "listed by its digest");
    let lease = store.lease().expect("a lease");
    let by_digest = Reference { digest: Some(image.digest), ..name };
    assert!(store.image(&lease, &by_digest).expect("asked").is_some());
    assert_eq!(store.collect(&untagged).expect("collected").contents, 0, "a build uses it");
    drop(lease);
    let freed = store.collect(&untagged).expect("collected");
    assert_eq!((freed.images, freed.contents), (1, 5), "manifest, config, two forms, tree manifest");
    assert_eq!(everything(&store), [0; 5]);
}

#[test]
fn a_removed_image_stays_whole_for_a_build_that_uses_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path(), "1");
    let lease = store.lease().expect("a lease");
    let image = add_image(&store, &lease, "a", b"layer");
    store.keep().expect("kept");
    let name = Reference::parse("app").expect("a name");
    store.tag(&lease, &name, &image, Epoch(1), TaggedBy::Build).expect("tagged");
    drop(lease);
    let build = store.lease().expect("a lease");
    store.image(&build, &name).expect("asked").expect("listed");
    assert!(store.remove_image(&image.digest).expect("removed"));
    assert_eq!(store.collect(&Collection::default()).expect("collected").contents, 0);
    drop(build);
    assert_eq!(store.collect(&Collection::default()).expect("collected").contents, 3);
}

#[test]
fn a_file_without_a_row_goes_and_a_row_without_a_file_is_not_believed() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path(), "1");
    let stray = |path: &str| folder.path().join(path);
    fs::create_dir_all(stray("layers/00/deep")).expect("made");
    fs::write(stray("layers/00/deep/file"), "x").expect("written");
    for path in ["blobs/sha256/11", "trees/22"] {
        fs::write(stray(path), "x").expect("written");
    }
    fs::create_dir(stray("tmp/33-0")).expect("made");
    store.collect(&Collection::default()).expect("collected");
    assert_eq!(everything(&store), [0; 5]);

    let lease = store.lease().expect("a lease");
    let layer = add_layer(&store, &lease, "x", None);
    store.put_record(&lease, &record("make", &[layer])).expect("added");
    drop(lease);
    fs::remove_dir_all(stray("layers").join(layer.digest().hex())).expect("removed");
    let freed = store.collect(&Collection::default()).expect("collected");
    assert_eq!((freed.records, freed.contents), (1, 2), "a record without its layer helps nobody");
}

#[test]
fn what_another_boot_did_not_keep_goes() {
    let folder = tempfile::tempdir().expect("a folder");
    let before = open(folder.path(), "1");
    let lease = before.lease().expect("a lease");
    let layer = add_layer(&before, &lease, "x", None);
    before.put_record(&lease, &record("make", &[layer])).expect("added");
    drop(lease);
    let store = open(folder.path(), "2");
    let freed = store.collect(&Collection::default()).expect("collected");
    assert_eq!((freed.records, freed.contents), (1, 2));
    assert_eq!(everything(&store), [0; 5]);
}

#[test]
fn interrupted_downloads_stay_for_a_day() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path(), "1");
    let path = folder.path().join("partial").join(Digest::of(b"x").hex());
    let write = |days_ago: u64| {
        fs::write(&path, "half").expect("written");
        let at = std::time::UNIX_EPOCH
            + std::time::Duration::from_secs(crate::fixture::NOW - days_ago * 24 * 60 * 60 - 1);
        let file = fs::File::options().write(true).open(&path).expect("opened");
        file.set_modified(at).expect("set");
    };
    write(0);
    store.collect(&Collection::default()).expect("collected");
    assert!(path.exists());
    write(1);
    let lock = store.try_lock(&LockName::Pull(Digest::of(b"x"))).expect("asked").expect("free");
    store.collect(&Collection::default()).expect("collected");
    assert!(path.exists(), "somebody downloads it");
    drop(lock);
    store.collect(&Collection::default()).expect("collected");
    assert!(!path.exists());
    assert_eq!(count(&store, "locks"), 0);
}

#[test]
fn a_lease_ends_with_its_last_clone() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path(), "1");
    let lease = store.lease().expect("a lease");
    let made = lease.new_folder().expect("a folder");
    fs::write(made.join("file"), "x").expect("written");
    let clone = lease.clone();
    drop(lease);
    assert_eq!(store.sweep().expect("swept"), 0, "it lives");
    assert!(Path::new(&made).exists());
    drop(clone);
    assert_eq!(everything(&store), [0; 5]);
}
