//! Lists of blocks beside blobs.

use std::fs;

use oci::{Digest, Epoch};
use store::{Codec, Collection, Lease, Origin, Store};
use tree::LayerId;

use crate::fixture::{add_form, manifest, open};

/// A layer that an operation made, with a blob of it.
fn made(store: &Store, lease: &Lease, op: &[u8], created: u64, codec: &str, blob: &[u8]) -> LayerId {
    let origin = Origin { op: Digest::of(op), created: Epoch(created) };
    let name = String::from_utf8_lossy(blob).into_owned();
    let layer = store.commit_layer(lease, &manifest(&name, 0), None, Some(origin)).expect("added");
    add_form(store, lease, &layer, codec, blob);
    layer
}

#[test]
fn earlier_blobs_are_those_of_the_operation_and_the_codec() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path(), "1");
    let lease = store.lease().expect("a lease");
    for (op, created, codec, blob) in [
        (&b"copy"[..], 1, "gzip v2", &b"oldest"[..]),
        (b"copy", 2, "gzip v2 epoch 7", b"older"),
        (b"copy", 3, "gzip v2", b"unlisted"),
        (b"copy", 4, "zstd-3 v2", b"another codec"),
        (b"copy", 5, "gzip v2", b"latest"),
        (b"run", 6, "gzip v2", b"another operation"),
    ] {
        made(&store, &lease, op, created, codec, blob);
        if blob != b"unlisted" {
            store.add_blocks(&lease, &Digest::of(blob), &[b"blocks of ", blob].concat()).expect("written");
        }
    }
    let now = made(&store, &lease, b"copy", 9, "gzip v2", b"now");
    store.add_blocks(&lease, &Digest::of(b"now"), b"its own").expect("written");
    let found = |most| -> Vec<String> {
        let found = store.earlier_blobs(&lease, &now, &Codec("gzip v2".to_owned()), most).expect("asked");
        let shown = |earlier: &store::EarlierBlob| {
            let blob = fs::read(&earlier.blob.path).expect("here");
            assert_eq!(earlier.blocks, [b"blocks of ", &blob[..]].concat());
            String::from_utf8_lossy(&blob).into_owned()
        };
        found.iter().map(shown).collect()
    };
    assert_eq!(found(9), ["latest", "older", "oldest"]);
    assert_eq!(found(1), ["latest"]);

    fs::remove_file(store.root().join("blobs/sha256").join(Digest::of(b"latest").hex())).expect("removed");
    assert_eq!(found(9), ["older", "oldest"], "people delete files");
    fs::remove_dir_all(store.root().join("blocks")).expect("removed");
    assert!(found(9).is_empty());
}

#[test]
fn a_list_goes_with_its_blob() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path(), "1");
    let lease = store.lease().expect("a lease");
    made(&store, &lease, b"copy", 1, "gzip v2", b"gone soon");
    store.add_blocks(&lease, &Digest::of(b"gone soon"), b"blocks").expect("written");
    let list = store.root().join("blocks").join(Digest::of(b"gone soon").hex());
    store.keep().expect("kept");
    store.collect(&Collection::default()).expect("collected");
    assert!(list.exists(), "a build uses it");
    drop(lease);
    store.collect(&Collection::default()).expect("collected");
    assert!(!list.exists());
}
