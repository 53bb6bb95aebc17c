//! What is here and what it takes; what a policy takes away.

use std::{collections::BTreeMap, fs, os::unix::fs::MetadataExt, path::Path};

use oci::{Digest, Epoch, Reference};
use store::{
    CacheMountSpec, Caps, Collection, Filter, Lease, Options, Record, Rule, Sharing, Space, Store, TaggedBy,
    Usage, UsageType,
};
use tree::LayerId;

use crate::fixture::{
    NOW, SetClock, add_form, add_image, add_layer, count, open, options, record, taking, taking_all,
};

/// The blocks of a folder and all below it, as `du -s` has them.
fn blocks(path: &Path) -> u64 {
    let found = fs::symlink_metadata(path).expect("it is there");
    let below = if found.is_dir() {
        fs::read_dir(path).expect("read").map(|e| blocks(&e.expect("read").path())).sum()
    } else {
        0
    };
    found.blocks() * 512 + below
}

fn entries(store: &Store) -> BTreeMap<String, Usage> {
    let usage = store.disk_usage().expect("looked");
    usage.entries.into_iter().map(|entry| (entry.description.clone(), entry)).collect()
}

/// Adds a layer of so many KiB.
fn large_layer(store: &Store, lease: &Lease, name: &str, kib: usize) -> LayerId {
    add_layer(store, lease, &name.repeat(kib * 1024 / name.len()), None)
}

/// A step's record, which took so long.
fn step(store: &Store, lease: &Lease, name: &str, result: &[LayerId], duration_ms: u64) -> Record {
    let record = Record { duration_ms, stage: String::new(), ..record(name, result) };
    store.put_record(lease, &record).expect("added");
    record
}

fn is_known(store: &Store, record: &Record) -> bool {
    let lease = store.lease().expect("a lease");
    store.by_definition_key(&lease, &record.definition_key).expect("asked").is_some()
}

#[test]
fn each_byte_is_counted_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(&folder.path().join("root"), "1");
    let lease = store.lease().expect("a lease");
    let base = large_layer(&store, &lease, "base", 300);
    let top = large_layer(&store, &lease, "top", 100);
    for n in 0..5 {
        step(&store, &lease, &format!("{n}"), &[base], 10);
        step(&store, &lease, &format!("{n} too"), &[base, top], 10);
    }
    let blob = vec![7; 50_000];
    add_form(&store, &lease, &base, "form", &blob);
    for name in ["one", "two"] {
        let image = add_image(&store, &lease, name, &blob);
        store.keep().expect("kept");
        let tag = Reference::parse(name).expect("a name");
        store.tag(&lease, &tag, &image, Epoch(NOW), TaggedBy::Build).expect("tagged");
    }
    let mount = CacheMountSpec { id: "go".to_owned(), sharing: Sharing::Shared, mode: 0o755, owner: None };
    let held = store.cache_mount(&lease, &mount, None, &mut |_| std::ops::ControlFlow::Break(()));
    let held = held.expect("made").expect("free");
    fs::write(held.path().join("archive"), vec![1; 200_000]).expect("written");
    fs::write(store.root().join("partial").join(Digest::of(b"half").hex()), vec![1; 20_000])
        .expect("written");
    fs::create_dir_all(store.root().join("layers/stray/deep")).expect("made");
    drop(lease);

    let usage = store.disk_usage().expect("looked");
    let (total, real) = (usage.total_bytes(), blocks(store.root()));
    assert!(total.abs_diff(real) < 40_000, "{total} in the books, {real} on the disk: {usage:#?}");
    let all = entries(&store);
    let of =
        |what: &str| all.iter().find(|(name, _)| name.contains(what)).map(|(_, entry)| entry).expect(what);
    let base_entry = &all["RUN 4"];
    assert!(base_entry.shared && base_entry.size_bytes > 350 * 1024);
    assert!(base_entry.reclaimable_bytes < base_entry.size_bytes - 50_000, "the images need its blob");
    let top_entry = &all["RUN 4 too"];
    assert_eq!((top_entry.shared, &top_entry.parents), (false, &vec![base.digest().hex()]));
    assert_eq!(top_entry.reclaimable_bytes, top_entry.size_bytes);
    assert!(of("cache mount go").in_use && of("cache mount go").reclaimable_bytes == 0);
    assert!(!of("one").in_use && of("one").kind == UsageType::Image && of("one").reclaimable_bytes == 0);
    assert!(of("interrupted download").size_bytes >= 20_000);
    assert!(of("killed builds").size_bytes >= 4096);
    assert_eq!(usage.entries.iter().filter(|entry| entry.kind == UsageType::Regular).count(), 3);

    drop(held);
    let reclaimable = store.disk_usage().expect("looked").reclaimable_bytes();
    let freed = store.collect(&taking_all()).expect("collected");
    assert_eq!(freed.disk_bytes(), reclaimable);
    // The database itself has grown meanwhile.
    let left = blocks(store.root());
    assert!(
        (real - left).abs_diff(reclaimable) < 120_000,
        "{reclaimable} in the books, {} on the disk",
        real - left
    );
    let usage = store.disk_usage().expect("looked");
    assert_eq!(usage.reclaimable_bytes(), 0, "{usage:#?}");
    assert!(usage.total_bytes().abs_diff(left) < 40_000);
    let lease = store.lease().expect("a lease");
    assert_eq!(store.blob_bytes(&lease, &Digest::of(&blob)).expect("the images' layer"), blob);
}

#[test]
fn a_layer_that_stands_on_itself_and_on_others_goes_with_its_records() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path(), "1");
    let lease = store.lease().expect("a lease");
    let [empty, x, base] = ["empty", "x", "base"].map(|name| add_layer(&store, &lease, name, None));
    for (name, result) in [
        ("a", vec![base, empty]),
        ("b", vec![base, empty, x]),
        ("c", vec![base, empty, x, empty]),
        ("d", vec![x, empty]),
        ("e", vec![empty]),
    ] {
        step(&store, &lease, name, &result, 5);
    }
    drop(lease);
    let freed = store.collect(&Collection::by(vec![Rule::default()])).expect("collected");
    assert_eq!((freed.records, freed.contents), (5, 6));
    assert_eq!(["trees", "layers"].map(|folder| count(&store, folder)), [0, 0]);
}

#[test]
fn what_may_stay_stays_and_the_least_worth_goes() {
    let folder = tempfile::tempdir().expect("a folder");
    let clock = SetClock::new(NOW);
    let store = Store::open(Options { clock: clock.clock(), ..options(folder.path(), "1") }).expect("opens");
    let lease = store.lease().expect("a lease");
    let base = large_layer(&store, &lease, "base", 4096);
    add_form(&store, &lease, &base, "form", b"pulled");
    let made = ["quick", "slow"].map(|name| large_layer(&store, &lease, name, 2048));
    let quick = step(&store, &lease, "quick", &[base, made[0]], 50);
    let slow = step(&store, &lease, "slow", &[base, made[1]], 90_000);
    drop(lease);
    let keep = |mib: u64| {
        let caps = Caps { reserved: Some(Space::Bytes(mib << 20)), ..Caps::default() };
        Collection::by(vec![Rule { caps, ..Rule::default() }])
    };
    assert!(store.collect(&keep(9)).expect("collected").entries.is_empty());
    let freed = store.collect(&keep(7)).expect("collected");
    assert_eq!(
        freed.entries.iter().map(|entry| entry.description.as_str()).collect::<Vec<_>>(),
        ["RUN quick"]
    );
    assert!((is_known(&store, &slow), is_known(&store, &quick)) == (true, false));
    assert!(freed.used_bytes < 7 << 20);
    let freed = store.collect(&keep(5)).expect("collected");
    assert_eq!(
        (freed.records, is_known(&store, &slow)),
        (1, false),
        "the base stays, as it is worth more alone"
    );
    let lease = store.lease().expect("a lease");
    assert!(store.has_layer(&lease, &base).expect("asked"));
    drop(lease);
    store.collect(&keep(0)).expect("collected");
    assert_eq!(["blobs/sha256", "trees", "layers"].map(|folder| count(&store, folder)), [0; 3]);
}

#[test]
fn an_image_without_a_name_goes_before_its_layers_and_one_with_a_name_keeps_its_blobs() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path(), "1");
    let lease = store.lease().expect("a lease");
    let layer = add_layer(&store, &lease, "layer", None);
    add_form(&store, &lease, &layer, "form", b"layer");
    let made = step(&store, &lease, "make", &[layer], 5);
    let image = add_image(&store, &lease, "app", b"layer");
    store.keep().expect("kept");
    let name = Reference::parse("app").expect("a name");
    store.tag(&lease, &name, &image, Epoch(1), TaggedBy::Build).expect("tagged");
    drop(lease);
    let private = Collection::by(vec![Rule::default()]);
    assert_eq!(store.collect(&private).expect("collected").entries, [], "it is shared");
    let freed = store.collect(&taking_all()).expect("collected");
    assert_eq!(
        (freed.records, freed.contents, freed.images),
        (1, 2, 0),
        "the record, the folder, its manifest"
    );
    assert!(!is_known(&store, &made));

    store.untag(&name).expect("untagged");
    assert_eq!(
        store.collect(&taking("type==regular")).expect("collected").contents,
        0,
        "the image stands on it"
    );
    let freed = store.collect(&private).expect("collected");
    assert_eq!((freed.images, freed.contents), (1, 3), "manifest, config, blob");
    assert_eq!(store.disk_usage().expect("looked").reclaimable_bytes(), 0);
}

#[test]
fn a_base_for_which_nothing_was_made_yet_stays_for_a_policy_and_not_for_the_rest() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path(), "1");
    let lease = store.lease().expect("a lease");
    let base = add_layer(&store, &lease, "base", None);
    add_form(&store, &lease, &base, "form", b"pulled");
    store.add_blob(&lease, b"a layer of it, not unpacked yet").expect("added");
    let nobodys = add_layer(&store, &lease, "of no use", None);
    drop(lease);
    let week = Rule { keep_seconds: u64::MAX, ..Rule::default() };
    let freed = store.collect(&Collection::by(vec![week])).expect("collected");
    assert_eq!(freed.contents, 2);
    let lease = store.lease().expect("a lease");
    assert!(!store.has_layer(&lease, &nobodys).expect("asked"));
    assert!(store.layer_folder(&lease, &base).expect("asked").is_some());
    drop(lease);
    assert_eq!(store.collect(&Collection::default()).expect("collected").contents, 4);
}

#[test]
fn tidying_looks_when_something_was_added_and_it_is_due() {
    let folder = tempfile::tempdir().expect("a folder");
    let clock = SetClock::new(NOW);
    let open =
        || Store::open(Options { clock: clock.clock(), ..options(folder.path(), "1") }).expect("opens");
    let caps = Caps { max_used: Some(Space::Bytes(3 << 20)), ..Caps::default() };
    let rules = [Rule { caps, ..Rule::default() }];
    let store = open();
    assert_eq!(store.tidy(&rules).expect("tidied"), None, "nothing was added");
    assert_eq!(count(&store, ""), count(&open(), ""), "and nothing is written");
    let add = |name: &str| {
        let store = open();
        let lease = store.lease().expect("a lease");
        let layer = large_layer(&store, &lease, name, 1024);
        step(&store, &lease, name, &[layer], 5);
        drop(lease);
        store.tidy(&rules).expect("tidied").map(|freed| freed.records)
    };
    assert_eq!(add("a"), None, "the folder is new, and there is room");
    clock.set(NOW + 100);
    assert_eq!(add("b"), None, "it is known that there is room");
    assert_eq!(add("c"), Some(1), "there is none");
    clock.set(NOW + 120);
    assert_eq!(add("d"), None, "a moment ago");
    clock.set(NOW + 200);
    assert_eq!(add("e"), Some(2));
    let other = open();
    let lease = other.lease().expect("a lease");
    let lock = other.try_lock(&store::LockName::Collection).expect("asked").expect("free");
    clock.set(NOW + 100_000);
    assert_eq!(add("f"), None, "another is at it");
    drop((lock, lease));
    assert_eq!(open().tidy(&[]).expect("tidied"), None);
}

#[test]
fn tidying_leaves_an_image_that_was_just_made() {
    let folder = tempfile::tempdir().expect("a folder");
    let clock = SetClock::new(NOW);
    let open =
        || Store::open(Options { clock: clock.clock(), ..options(folder.path(), "1") }).expect("opens");
    let store = open();
    let lease = store.lease().expect("a lease");
    let image = add_image(&store, &lease, "app", b"layer");
    store.keep().expect("kept");
    store.add_image(&lease, &image, Epoch(NOW)).expect("listed");
    drop(lease);
    let nothing_stays = [Rule { all: true, ..Rule::default() }];
    assert_eq!(store.tidy(&nothing_stays).expect("tidied"), None, "the folder is new");
    clock.set(NOW + 10 * 60);
    assert_eq!(store.tidy(&nothing_stays).expect("tidied").expect("a look").images, 0, "its digest was told");
    assert_eq!(store.collect(&Collection::by(vec![])).expect("collected").images, 0);
    assert_eq!(store.images().expect("listed").len(), 1);
    clock.set(NOW + 7 * 60 * 60);
    let later = open();
    later.add_blob(&later.lease().expect("a lease"), b"something new").expect("added");
    assert_eq!(later.tidy(&nothing_stays).expect("tidied").expect("a look").images, 1);

    let lease = store.lease().expect("a lease");
    let image = add_image(&store, &lease, "other", b"layer");
    store.keep().expect("kept");
    store.add_image(&lease, &image, Epoch(NOW + 7 * 60 * 60)).expect("listed");
    drop(lease);
    assert_eq!(store.collect(&taking_all()).expect("collected").images, 1, "who asks, gets");
}

#[test]
fn a_damaged_image_is_named_and_can_be_removed() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path(), "1");
    let lease = store.lease().expect("a lease");
    let image = add_image(&store, &lease, "app", b"layer");
    store.keep().expect("kept");
    let name = Reference::parse("app").expect("a name");
    store.tag(&lease, &name, &image, Epoch(1), TaggedBy::Build).expect("tagged");
    drop(lease);
    let path = folder.path().join("blobs/sha256").join(image.digest.hex());
    let length = fs::read(&path).expect("it is there").len();
    fs::write(&path, vec![b' '; length]).expect("it can be spoilt");
    let help = Some(format!("remove it: `kiln rmi {}`", image.digest));
    assert_eq!(store.disk_usage().expect_err("it is damaged").help(), help);
    assert_eq!(store.collect(&taking_all()).expect_err("it is damaged").help(), help);
    assert_eq!(count(&store, "blobs/sha256"), 3, "then nothing is removed");
    assert!(store.remove_image(&image.digest).expect("removed"));
    assert_eq!(store.collect(&taking_all()).expect("collected").contents, 3);
}

#[test]
fn filters_are_alternatives_of_selectors() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path(), "1");
    let lease = store.lease().expect("a lease");
    for name in ["apt", "make", "test"] {
        let layer = add_layer(&store, &lease, name, None);
        step(&store, &lease, name, &[layer], 5);
    }
    drop(lease);
    let parse = |text: &str| Filter::parse(text).expect("a filter");
    let filters = vec![parse("description~=apt,private"), parse("description==RUN test")];
    let freed = store.collect(&Collection::by(vec![Rule { filters, ..Rule::default() }])).expect("collected");
    assert_eq!(freed.records, 2);
    assert!(entries(&store).contains_key("RUN make"));
}
