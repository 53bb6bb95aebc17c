//! Blobs, downloads, layers and their forms.

use std::{
    collections::BTreeMap,
    fs,
    io::{Read, Write},
    ops::ControlFlow,
    os::unix::fs::PermissionsExt,
    thread,
    time::Duration,
};

use crate::fixture::{add_form, add_layer, count, layer, manifest, open, record};
use oci::{BlobDigest, DiffId, Digest, Epoch, MediaType};
use rustix::thread::CapabilitySet;
use store::{Codec, Download, Error, LayerBlob, LockName, Origin, Record, ResultLayer, Store};
use tree::{Layer, LayerId};

fn no_wait(_: &store::Waiting) -> ControlFlow<()> {
    panic!("nobody holds it")
}

#[test]
fn a_blob_is_hashed_as_it_is_written_and_is_there_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path(), "1");
    let lease = store.lease().expect("a lease");
    let digest = Digest::of(b"hello");
    for _ in 0..2 {
        let mut writer = store.blob_writer(&lease).expect("a writer");
        writer.write_all(b"hel").expect("written");
        writer.write_all(b"lo").expect("written");
        assert_eq!(writer.size_bytes(), 5);
        let blob = writer.commit(Some(&digest)).expect("committed");
        assert_eq!((blob.digest, blob.size_bytes), (digest, 5));
        assert_eq!(fs::read(&blob.path).expect("read"), b"hello");
    }
    assert_eq!(store.blob(&lease, &digest).expect("asked").expect("here").size_bytes, 5);
    assert_eq!(count(&store, "blobs/sha256"), 1);
    assert_eq!(count(&store, &format!("tmp/{}", lease.id())), 0, "nothing half made is left");
}

#[test]
fn a_blob_that_is_not_what_was_expected_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path(), "1");
    let lease = store.lease().expect("a lease");
    let mut writer = store.blob_writer(&lease).expect("a writer");
    writer.write_all(b"hello").expect("written");
    let (expected, actual) = (Digest::of(b"other"), Digest::of(b"hello"));
    let refused = writer.commit(Some(&expected)).expect_err("another digest");
    assert!(
        matches!(&refused, Error::DigestMismatch { expected: e, actual: a, size_bytes: 5 } if (*e, *a) == (expected, actual))
    );
    assert_eq!(store.blob(&lease, &actual).expect("asked"), None);
    assert_eq!(count(&store, &format!("tmp/{}", lease.id())), 0);
    assert!(matches!(store.blob_bytes(&lease, &expected), Err(Error::MissingBlob(d)) if d == expected));
}

#[test]
fn a_blob_that_somebody_deleted_or_cut_is_not_here() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path(), "1");
    let lease = store.lease().expect("a lease");
    let blob = store.add_blob(&lease, b"hello").expect("added");
    fs::write(&blob.path, "hell").expect("cut");
    assert_eq!(store.blob(&lease, &blob.digest).expect("asked"), None);
    store.add_blob(&lease, b"hello").expect("added again");
    assert_eq!(store.blob_bytes(&lease, &blob.digest).expect("here"), b"hello");
    fs::write(&blob.path, "jello").expect("changed");
    assert!(matches!(store.blob_bytes(&lease, &blob.digest), Err(Error::DigestMismatch { .. })));
    fs::remove_file(&blob.path).expect("deleted");
    assert_eq!(store.blob(&lease, &blob.digest).expect("asked"), None);
}

#[test]
fn a_blob_is_dropped_only_if_its_bytes_are_others() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path(), "1");
    let lease = store.lease().expect("a lease");
    let blob = store.add_blob(&lease, b"hello").expect("added");
    assert!(!store.drop_damaged_blob(&blob.digest).expect("read"));
    assert!(blob.path.exists());
    fs::write(&blob.path, "jello").expect("changed");
    assert!(store.drop_damaged_blob(&blob.digest).expect("read"));
    assert_eq!(store.blob(&lease, &blob.digest).expect("asked"), None);
    assert!(!store.drop_damaged_blob(&blob.digest).expect("not there"));
    store.add_blob(&lease, b"hello").expect("added again");
    assert_eq!(store.blob_bytes(&lease, &blob.digest).expect("here"), b"hello");
}

fn partial(store: &Store, lease: &store::Lease, digest: &Digest) -> store::Partial {
    match store.download(lease, digest, &mut no_wait).expect("asked").expect("not stopped") {
        Download::Missing(partial) => partial,
        Download::Here(blob) => panic!("{blob:?} is here"),
    }
}

#[test]
fn an_interrupted_download_is_resumed() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path(), "1");
    let lease = store.lease().expect("a lease");
    let digest = Digest::of(b"hello world");
    let mut first = partial(&store, &lease, &digest);
    first.write_all(b"hello").expect("written");
    assert!(store.try_lock(&LockName::Pull(digest)).expect("asked").is_none(), "one download at a time");
    drop(first);
    let mut second = partial(&store, &lease, &digest);
    assert_eq!((second.size_bytes(), second.digest()), (5, digest));
    let (mut whole, mut late) = (second.follow().expect("opened"), second.follow().expect("opened"));
    let mut here = [0; 5];
    whole.read_exact(&mut here).expect("it is here");
    assert_eq!(&here, b"hello");
    second.write_all(b" world").expect("written");
    assert_eq!(second.commit().expect("committed").size_bytes, 11);
    // The file has another name now, or is gone; who has it open reads on.
    let mut rest = String::new();
    whole.read_to_string(&mut rest).expect("read");
    late.read_to_string(&mut rest).expect("read");
    assert_eq!(rest, " worldhello world");
    let again = store.download(&lease, &digest, &mut no_wait).expect("asked");
    assert!(matches!(again, Some(Download::Here(blob)) if blob.digest == digest));
    assert_eq!(count(&store, "partial") + count(&store, "locks"), 0);
}

#[test]
fn a_download_of_wrong_bytes_is_thrown_away() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path(), "1");
    let lease = store.lease().expect("a lease");
    let digest = Digest::of(b"hello");
    let mut wrong = partial(&store, &lease, &digest);
    wrong.write_all(b"hellish").expect("written");
    assert!(matches!(wrong.commit(), Err(Error::DigestMismatch { size_bytes: 7, .. })));
    let mut right = partial(&store, &lease, &digest);
    assert_eq!(right.size_bytes(), 0);
    right.write_all(b"hel").expect("written");
    let mut follower = right.follow().expect("opened");
    right.restart().expect("restarted");
    right.write_all(b"hello").expect("written");
    right.commit().expect("committed");
    assert!(follower.read(&mut [0; 8]).is_err(), "it would join the two");
}

#[test]
fn a_layer_is_its_manifest_and_its_folder() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path(), "1");
    let lease = store.lease().expect("a lease");
    let (tree, upper) = layer(&lease, "x");
    let id = store.commit_layer(&lease, &tree, Some(&upper), None).expect("added");
    assert_eq!(id, tree.id());
    assert!(!upper.exists(), "it was moved");
    let there = store.layer_folder(&lease, &id).expect("asked").expect("here");
    assert_eq!(fs::read_to_string(there.join("file")).expect("read"), "x");
    assert_eq!(*store.tree(&id).expect("here"), tree);
    assert_eq!(*open(folder.path(), "1").tree(&id).expect("here"), tree, "read from disk");

    let (_, upper) = layer(&lease, "x");
    assert_eq!(store.commit_layer(&lease, &tree, Some(&upper), None).expect("added"), id);
    assert!(!upper.exists(), "a duplicate is dropped");
    assert_eq!(store.layer_folder(&lease, &id).expect("asked"), Some(there));

    let other = LayerId::of_manifest(Digest::of(b"other"));
    assert!(matches!(store.tree(&other), Err(Error::MissingLayer(id)) if id == other));
    assert_eq!(store.layer_folder(&lease, &other).expect("asked"), None);
}

#[test]
fn a_damaged_manifest_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path(), "1");
    let lease = store.lease().expect("a lease");
    let id = add_layer(&store, &lease, "x", None);
    let path = store.root().join("trees").join(id.digest().hex());
    let mut bytes = fs::read(&path).expect("read");
    *bytes.last_mut().expect("not empty") ^= 1;
    fs::write(&path, bytes).expect("written");
    assert!(matches!(store.tree(&id), Err(Error::BadTree { layer, source: None }) if layer == id));
}

#[test]
fn a_folder_of_another_boot_is_replaced() {
    let folder = tempfile::tempdir().expect("a folder");
    let before = open(folder.path(), "1");
    let lease = before.lease().expect("a lease");
    let id = add_layer(&before, &lease, "x", None);
    let there = before.layer_folder(&lease, &id).expect("asked").expect("here");
    fs::write(there.join("file"), "torn").expect("written");

    let store = open(folder.path(), "2");
    let lease = store.lease().expect("a lease");
    assert_eq!(store.layer_folder(&lease, &id).expect("asked"), None, "not kept, and another boot's");
    assert!(!store.has_layer(&lease, &id).expect("asked"));
    assert_eq!(add_layer(&store, &lease, "x", None), id);
    assert_eq!(fs::read_to_string(there.join("file")).expect("read"), "x");
}

#[test]
fn a_layer_whose_own_mode_forbids_writing_is_moved_by_an_ordinary_user() {
    // On a thread of its own: capabilities are a thread's.
    let test = || {
        let mut sets = rustix::thread::capabilities(None).expect("asked");
        sets.effective.remove(CapabilitySet::DAC_OVERRIDE | CapabilitySet::DAC_READ_SEARCH);
        rustix::thread::set_capabilities(None, sets).expect("dropped");
        let folder = tempfile::tempdir().expect("a folder");
        for boot in ["1", "2"] {
            let store = open(folder.path(), boot);
            let lease = store.lease().expect("a lease");
            let (tree, upper) = layer(&lease, "x");
            fs::set_permissions(&upper, fs::Permissions::from_mode(0o555)).expect("changed");
            let id = store.commit_layer(&lease, &tree, Some(&upper), None).expect("added");
            let there = store.layer_folder(&lease, &id).expect("asked").expect("here");
            assert_eq!(fs::metadata(&there).expect("there").permissions().mode() & 0o7777, 0o555);
            drop(lease);
            assert_eq!(count(&store, "tmp") + count(&store, "leases"), 0, "the older one is gone");
        }
        open(folder.path(), "3").collect(&store::Collection::default()).expect("collected");
        assert_eq!(fs::read_dir(folder.path().join("layers")).expect("listed").count(), 0);
    };
    std::thread::spawn(test).join().expect("passed");
}

#[test]
fn a_layer_with_only_a_manifest_is_in_no_record() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path(), "1");
    let lease = store.lease().expect("a lease");
    let id = store.commit_layer(&lease, &manifest("x", 0), None, None).expect("added");
    let refused = store.put_record(&lease, &record("make", &[id]));
    assert!(matches!(refused, Err(Error::MissingLayer(layer)) if layer == id));
    add_form(&store, &lease, &id, "gzip", b"blob");
    store.put_record(&lease, &record("make", &[id])).expect("added");
}

#[test]
fn a_layer_has_a_blob_for_each_codec() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path(), "1");
    let lease = store.lease().expect("a lease");
    let tree: Layer = manifest("x", 0);
    let id = store.commit_layer(&lease, &tree, None, None).expect("added");
    assert!(!store.has_layer(&lease, &id).expect("asked"), "only a manifest");
    let gzip = add_form(&store, &lease, &id, "gzip 6", b"gzip");
    assert!(store.has_layer(&lease, &id).expect("asked"), "a manifest and a blob");
    let zstd = add_form(&store, &lease, &id, "zstd 3", b"zstd");
    for (codec, form) in [("gzip 6", Some(&gzip)), ("zstd 3", Some(&zstd)), ("gzip 9", None)] {
        assert_eq!(store.layer_blob(&lease, &id, &Codec(codec.to_owned())).expect("asked").as_ref(), form);
    }
    assert_eq!(store.layer_by_blob(&lease, &zstd.blob).expect("asked"), Some(id));
    assert_eq!(store.layer_by_diff_id(&lease, &gzip.diff_id).expect("asked"), Some(id));
    let other = BlobDigest::of_blob(Digest::of(b"other"));
    assert_eq!(store.layer_by_blob(&lease, &other).expect("asked"), None);

    fs::remove_file(store.root().join("blobs/sha256").join(gzip.blob.digest().hex())).expect("removed");
    assert_eq!(store.layer_blobs(&lease, &id).expect("asked"), [(Codec("zstd 3".to_owned()), zstd)]);
    let missing = LayerBlob { blob: other, ..gzip };
    let refused = store.add_layer_blob(&lease, &id, &Codec("x".to_owned()), &missing);
    assert!(matches!(refused, Err(Error::MissingBlob(_))));
}

#[test]
fn a_new_blob_is_known_as_a_layers_at_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path(), "1");
    let lease = store.lease().expect("a lease");
    let id = store.commit_layer(&lease, &manifest("x", 0), None, None).expect("added");
    let codec = Codec("gzip 6".to_owned());
    let digest = Digest::of(b"gzip");
    let form = LayerBlob {
        diff_id: DiffId::of_tar(Digest::of(b"tar")),
        blob: BlobDigest::of_blob(digest),
        size_bytes: 4,
        diff_size_bytes: 3,
        media_type: MediaType("x".to_owned()),
        annotations: BTreeMap::new(),
    };
    // The second is there already, and goes.
    for _ in 0..2 {
        let mut new = store.new_blob(&lease).expect("begun");
        new.write_all(b"gzip").expect("written");
        new.commit_as(&id, &codec, &form).expect("added");
        assert_eq!(store.layer_blob(&lease, &id, &codec).expect("asked").as_ref(), Some(&form));
        assert_eq!(store.blob_bytes(&lease, &digest).expect("here"), b"gzip");
    }
    assert!(store.has_layer(&lease, &id).expect("asked"));
    let used = fs::read_dir(store.root().join("leases")).expect("listed").next().expect("this one");
    let used = fs::read_to_string(used.expect("listed").path()).expect("read");
    assert!(
        used.contains(&format!("blob {digest}")) && used.contains(&format!("layer {}", id.digest())),
        "{used}"
    );
    drop(lease);
    assert_eq!(fs::read_dir(store.root().join("tmp")).expect("listed").count(), 0);
}

#[test]
fn the_first_result_of_an_operation_is_adopted() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path(), "1");
    let lease = store.lease().expect("a lease");
    let origin = |created| Some(Origin { op: Digest::of(b"op"), created: Epoch(created) });
    let (first, second) = (manifest("x", 1), manifest("x", 2));
    let content = first.content_digest();
    assert_eq!(content, second.content_digest());
    assert_eq!(store.intern(&lease, &Digest::of(b"op"), &content).expect("asked"), None);
    let upper = || Some(layer(&lease, "x").1);
    let id = store.commit_layer(&lease, &first, upper().as_deref(), origin(10)).expect("added");
    store.commit_layer(&lease, &second, upper().as_deref(), origin(20)).expect("added");
    let found = store.intern(&lease, &Digest::of(b"op"), &content).expect("asked").expect("here");
    assert_eq!((found.layer, found.created), (id, Epoch(10)));
    assert_eq!(store.intern(&lease, &Digest::of(b"other"), &content).expect("asked"), None);

    fs::remove_dir_all(store.layer_folder(&lease, &id).expect("asked").expect("here")).expect("removed");
    assert_eq!(store.intern(&lease, &Digest::of(b"op"), &content).expect("asked"), None, "it is gone");
    let later = store.commit_layer(&lease, &second, upper().as_deref(), origin(30)).expect("added");
    let found = store.intern(&lease, &Digest::of(b"op"), &content).expect("asked").expect("here");
    assert_eq!((found.layer, found.created), (later, Epoch(30)));
}

#[test]
fn a_step_ends_with_a_layer_and_then_a_record() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path(), "1");
    let lease = store.lease().expect("a lease");
    let origin = |created| Origin { op: Digest::of(b"op"), created: Epoch(created) };
    let finish = |name: &str, created, mtime| {
        let (_, made) = layer(&lease, "x");
        let manifest = manifest("x", mtime);
        let kept = store.finish_step(&lease, manifest, &made, origin(created)).expect("finished");
        assert!(!made.exists(), "taken or removed");
        let late = store.late_record(&lease, Record { result: vec![kept], ..record(name, &[]) });
        // Whoever asks for it waits until it is written, or will not be.
        let key = record(name, &[]).definition_key;
        let asked = thread::scope(|scope| {
            let asking = scope.spawn(|| store.by_definition_key(&lease, &key).expect("asked"));
            thread::sleep(Duration::from_millis(20));
            late.write().expect("written");
            asking.join().expect("no panic")
        });
        assert_eq!(asked.expect("recorded").result, [kept]);
        kept
    };
    let first = finish("first", 5, 0);
    assert_eq!(first, ResultLayer { layer: manifest("x", 0).id(), created: Some(Epoch(5)) });
    assert_eq!(store.layer_folder(&lease, &first.layer).expect("asked"), Some(store_layer(&store, &first)));
    // The same content at another time: the layer of the first counts, and the second's is nowhere.
    assert_eq!(finish("second", 6, 1), first);
    assert!(!store.has_layer(&lease, &manifest("x", 1).id()).expect("asked"));
    for name in ["first", "second"] {
        let key = record(name, &[]).definition_key;
        let found = store.by_definition_key(&lease, &key).expect("asked").expect("recorded");
        assert_eq!(found.result, [first]);
    }
    assert_eq!((count(&store, "layers"), count(&store, "trees")), (1, 1));
}

/// Where a layer's folder is.
fn store_layer(store: &store::Store, layer: &ResultLayer) -> std::path::PathBuf {
    store.root().join("layers").join(layer.layer.digest().hex())
}
