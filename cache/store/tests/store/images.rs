//! The local image store.

use oci::{Descriptor, Digest, Epoch, Index, MediaType, Reference};
use store::{Collection, Error, Lease, Store, TagChange, TagPlace, TaggedBy};

use crate::fixture::{add_image, count, open};

fn name(text: &str) -> Reference {
    Reference::parse(text).expect(text)
}

/// Two images, `a` and `b`, of one layer each; kept.
fn two(store: &Store, lease: &Lease) -> (Descriptor, Descriptor) {
    let images = (add_image(store, lease, "a", b"layer"), add_image(store, lease, "b", b"layer"));
    store.keep().expect("kept");
    images
}

#[test]
fn a_name_moves_from_image_to_image_and_its_history_stays() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path(), "1");
    let lease = store.lease().expect("a lease");
    let (a, b) = two(&store, &lease);
    let app = name("app");
    for (image, at, change) in [
        (&a, 1, TagChange::New),
        (&a, 2, TagChange::Same),
        (&b, 3, TagChange::MovedFrom(a.digest)),
        (&a, 4, TagChange::MovedFrom(b.digest)),
    ] {
        assert_eq!(store.tag(&lease, &app, image, Epoch(at), TaggedBy::Build).expect("tagged"), change);
        assert_eq!(store.image(&lease, &app).expect("asked").expect("listed").descriptor, *image);
    }
    store.tag(&lease, &name("zoo/app:2"), &a, Epoch(5), TaggedBy::Build).expect("tagged");
    let images = store.images().expect("listed");
    assert_eq!(images.iter().map(|image| image.added).collect::<Vec<_>>(), [Epoch(3), Epoch(1)]);
    assert_eq!(images[0].names, []);
    assert_eq!(images[1].names, [name("app"), name("zoo/app:2")]);
    let history = [(a.digest, Epoch(4)), (b.digest, Epoch(3)), (a.digest, Epoch(1))];
    assert_eq!(local_history(&store, &app), history);

    assert_eq!(store.untag(&app).expect("untagged"), Some(a.digest));
    assert_eq!(store.untag(&app).expect("untagged"), None);
    assert_eq!(store.image(&lease, &app).expect("asked"), None);
    let pinned = Reference { digest: Some(a.digest), ..app };
    assert!(store.image(&lease, &pinned).expect("asked").is_some(), "by its digest");
    assert!(matches!(store.tag(&lease, &pinned, &a, Epoch(6), TaggedBy::Build), Err(Error::NotATag(_))));
    assert!(store.remove_image(&a.digest).expect("removed"));
    assert!(!store.remove_image(&a.digest).expect("removed"));
    assert_eq!(store.image(&lease, &name("zoo/app:2")).expect("asked"), None, "its names are gone too");
    assert_eq!(local_history(&store, &name("app")), history, "what it was is still known");
}

fn local_history(store: &Store, of: &Reference) -> Vec<(Digest, Epoch)> {
    let events = store.tag_history(of, TagPlace::Local).expect("asked");
    events.into_iter().map(|event| (event.digest, event.at)).collect()
}

#[test]
fn an_image_is_found_by_the_start_of_its_id() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path(), "1");
    let lease = store.lease().expect("a lease");
    let (a, _) = two(&store, &lease);
    store.add_image(&lease, &a, Epoch(1)).expect("listed");
    store.add_image(&lease, &a, Epoch(2)).expect("listed already");
    let config = Digest::of(br#"{"name":"a"}"#);
    let (id, config_id) = (a.digest.to_string(), config.short());
    for (prefix, found) in
        [(id.as_str(), 1), (&id[..12], 1), (&config_id, 1), ("", 0), ("sha256:", 0), ("xyz", 0)]
    {
        assert_eq!(store.images_by_id_prefix(prefix).expect("asked").len(), found, "{prefix}");
    }
    let row = store.images().expect("listed").remove(0);
    assert_eq!((row.config, row.added), (Some(config), Epoch(1)));
}

#[test]
fn an_image_is_listed_only_when_it_is_kept_and_is_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path(), "1");
    let lease = store.lease().expect("a lease");
    let image = add_image(&store, &lease, "a", b"layer");
    let refused = store.tag(&lease, &name("app"), &image, Epoch(1), TaggedBy::Build);
    assert!(
        matches!(&refused, Err(Error::NotKept { manifest, .. }) if *manifest == image.digest),
        "{refused:?}"
    );
    assert!(store.images().expect("listed").is_empty(), "nothing was listed");
    store.keep().expect("kept");
    store.tag(&lease, &name("app"), &image, Epoch(1), TaggedBy::Build).expect("tagged");

    let absent = Descriptor::of(MediaType::manifest(), b"absent");
    assert!(matches!(store.add_image(&lease, &absent, Epoch(1)), Err(Error::MissingBlob(_))));
    let absent = Descriptor::of(MediaType::index(), b"absent");
    assert!(matches!(store.add_image(&lease, &absent, Epoch(1)), Err(Error::MissingBlob(_))));
    let config = Descriptor::of(MediaType::config(), b"{}");
    assert!(matches!(store.add_image(&lease, &config, Epoch(1)), Err(Error::NotAnImage { .. })));
    let text = store.add_blob(&lease, b"text").expect("added");
    store.keep().expect("kept");
    let bad = Descriptor::new(MediaType::manifest(), text.digest, text.size_bytes);
    assert!(matches!(store.add_image(&lease, &bad, Epoch(1)), Err(Error::BadImage { .. })));
}

#[test]
fn an_index_holds_on_to_the_platforms_that_are_here() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path(), "1");
    let lease = store.lease().expect("a lease");
    let here = add_image(&store, &lease, "a", b"layer");
    let elsewhere = Descriptor::of(MediaType::manifest(), b"of another platform");
    let index = Index::new(vec![here.clone(), elsewhere]).bytes();
    store.add_blob(&lease, &index).expect("added");
    store.keep().expect("kept");
    let index = Descriptor::of(MediaType::index(), &index);
    store.tag(&lease, &name("app"), &index, Epoch(1), TaggedBy::Build).expect("tagged");
    drop(lease);
    assert_eq!(store.collect(&Collection::default()).expect("collected").contents, 0);
    assert_eq!(count(&store, "blobs/sha256"), 4, "index, manifest, config, layer");

    let lease = store.lease().expect("a lease");
    let layers = store.layers_of_image(&lease, &here.digest).expect("read");
    assert_eq!(layers.len(), 1);
    assert_eq!((layers[0].descriptor.digest, layers[0].layer), (Digest::of(b"layer"), None));
    assert!(matches!(store.layers_of_image(&lease, &index.digest), Err(Error::BadImage { .. })));
}
