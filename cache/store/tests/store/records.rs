//! Records: by which keys they are found, and when they may be believed.

use std::fs;

use oci::{Digest, Epoch};
use proptest::{collection::vec, option, prelude::*};
use store::{Collection, Error, Ingredient, Options, Record, ResultLayer, Rule, Store, Took};
use tree::LayerId;

use crate::fixture::{NOW, SetClock, add_layer, manifest, open, options, record};

#[test]
fn a_record_is_valid_at_once_in_its_boot_and_once_kept_for_ever() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path(), "1");
    let lease = store.lease().expect("a lease");
    let made = record("make", &[add_layer(&store, &lease, "x", None)]);
    store.put_record(&lease, &made).expect("added");
    let find = |store: &Store| {
        let lease = store.lease().expect("a lease");
        let by_definition = store.by_definition_key(&lease, &made.definition_key).expect("asked");
        let by_content = store.by_content_key(&lease, &made.content_key.expect("given")).expect("asked");
        assert_eq!(by_definition, by_content);
        assert_eq!(by_definition.is_some(), store.has_op(&made.op).expect("asked"));
        by_definition
    };
    assert_eq!(find(&store).as_ref(), Some(&made));
    assert_eq!(find(&open(folder.path(), "1")).as_ref(), Some(&made), "another process of this boot");
    assert_eq!(find(&open(folder.path(), "2")), None, "after a reboot");
    store.write_ahead();
    assert_eq!(find(&open(folder.path(), "2")), None, "written, but not kept");
    let kept = store.keep().expect("kept");
    assert_eq!((kept.records, kept.contents), (1, 2), "the record; the layer's manifest and folder");
    assert_eq!(find(&open(folder.path(), "2")).as_ref(), Some(&made), "kept, after a reboot");
    assert_eq!(store.keep().expect("kept"), store::Kept::default(), "nothing is new");
}

#[test]
fn what_another_boot_left_is_never_kept() {
    let folder = tempfile::tempdir().expect("a folder");
    let before = open(folder.path(), "1");
    let lease = before.lease().expect("a lease");
    let made = record("make", &[add_layer(&before, &lease, "x", None)]);
    before.put_record(&lease, &made).expect("added");
    let store = open(folder.path(), "2");
    assert_eq!(store.keep().expect("kept"), store::Kept::default());
    let lease = store.lease().expect("a lease");
    assert_eq!(store.by_definition_key(&lease, &made.definition_key).expect("asked"), None);
}

#[test]
fn a_kept_record_without_its_layer_is_not_found() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path(), "1");
    let lease = store.lease().expect("a lease");
    let layer = add_layer(&store, &lease, "x", None);
    let made = record("make", &[layer]);
    store.put_record(&lease, &made).expect("added");
    store.keep().expect("kept");
    fs::remove_dir_all(store.layer_folder(&lease, &layer).expect("asked").expect("here")).expect("removed");
    let store = open(folder.path(), "1");
    let lease = store.lease().expect("a lease");
    assert_eq!(store.by_definition_key(&lease, &made.definition_key).expect("asked"), None);
    assert_eq!(store.nearest(&made.op, "", "").expect("asked"), Some(made), "still good to explain with");
}

#[test]
fn a_record_of_a_layer_that_is_not_here_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path(), "1");
    let lease = store.lease().expect("a lease");
    let absent = manifest("absent", 0).id();
    let refused = store.put_record(&lease, &record("make", &[absent]));
    assert!(matches!(refused, Err(Error::MissingLayer(layer)) if layer == absent));
    assert!(!store.has_op(&record("make", &[]).op).expect("asked"));
}

#[test]
fn the_newest_record_of_a_key_counts_and_replaces_the_older_when_kept() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path(), "1");
    let lease = store.lease().expect("a lease");
    let old = record("make", &[add_layer(&store, &lease, "old", None)]);
    store.put_record(&lease, &old).expect("added");
    store.keep().expect("kept");
    let new = record("make", &[add_layer(&store, &lease, "new", None)]);
    store.put_record(&lease, &new).expect("added");
    let find = |boot| {
        let store = open(folder.path(), boot);
        let lease = store.lease().expect("a lease");
        store.by_definition_key(&lease, &old.definition_key).expect("asked")
    };
    assert_eq!(find("1").as_ref(), Some(&new));
    assert_eq!(find("2").as_ref(), Some(&old), "the newer one was lost with its boot");
    store.keep().expect("kept");
    assert_eq!(find("2").as_ref(), Some(&new));
    drop(lease);
    let freed = store.collect(&Collection::default()).expect("collected");
    assert_eq!((freed.records, freed.contents), (0, 2), "the older record went when the newer was kept");
}

#[test]
fn the_nearest_record_explains_a_miss() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path(), "1");
    let lease = store.lease().expect("a lease");
    let make = |name: &str, stage: &str, instruction: &str| {
        let (stage, instruction) = (stage.to_owned(), instruction.to_owned());
        let made = Record { stage, instruction, ..record(name, &[]) };
        store.put_record(&lease, &made).expect("added");
        made
    };
    let in_a = make("1", "a", "RUN make");
    let in_b = make("2", "b", "RUN make");
    let other = make("3", "b", "RUN other");
    let op = Digest::of(b"unknown");
    for (op, stage, instruction, nearest) in [
        (&op, "a", "RUN make", Some(&in_a)),
        (&op, "b", "RUN make", Some(&in_b)),
        (&op, "c", "RUN make", Some(&in_b)),
        (&in_a.op, "b", "RUN make", Some(&in_a)),
        (&other.op, "a", "RUN make", Some(&other)),
        (&op, "a", "RUN nothing", None),
    ] {
        assert_eq!(
            store.nearest(op, stage, instruction).expect("asked").as_ref(),
            nearest,
            "{stage} {instruction}"
        );
    }
}

#[test]
fn a_record_of_an_earlier_version_is_read() {
    let made = record("make", &[]);
    let mut old = serde_json::to_value(&made).expect("it is JSON");
    let fields = old.as_object_mut().expect("an object");
    fields.remove("took").expect("it is there");
    fields.insert("peak_memory_bytes".to_owned(), 7.into());
    assert_eq!(serde_json::from_value::<Record>(old).expect("it is read"), made);
}

#[test]
fn a_stamp_of_use_is_renewed_once_a_day() {
    let folder = tempfile::tempdir().expect("a folder");
    let clock = SetClock::new(NOW);
    let open =
        || Store::open(Options { clock: clock.clock(), ..options(folder.path(), "1") }).expect("opens");
    let store = open();
    let lease = store.lease().expect("a lease");
    let (used, unused) = (record("used", &[]), record("unused", &[]));
    store.put_record(&lease, &used).expect("added");
    store.put_record(&lease, &unused).expect("added");
    drop(lease);
    let day = 24 * 60 * 60;
    for now in [NOW + day - 1, NOW + day + 5] {
        clock.set(now);
        let lease = store.lease().expect("a lease");
        assert!(store.by_definition_key(&lease, &used.definition_key).expect("asked").is_some());
    }
    let idle_for = |keep_seconds| Collection::by(vec![Rule { keep_seconds, ..Rule::default() }]);
    assert_eq!(store.collect(&idle_for(day + 6)).expect("collected").records, 0);
    assert_eq!(store.collect(&idle_for(1)).expect("collected").records, 1, "the unused one");
    assert!(store.has_op(&used.op).expect("asked"));
    assert_eq!(store.collect(&idle_for(0)).expect("collected").records, 1);
}

fn digests() -> impl Strategy<Value = Digest> {
    any::<[u8; 32]>().prop_map(Digest::from_raw)
}

fn records(layers: Vec<LayerId>) -> impl Strategy<Value = Record> {
    let part = (proptest::sample::select(layers), option::of(any::<u64>().prop_map(Epoch)));
    let ingredient = (any::<String>(), any::<String>()).prop_map(|(name, value)| Ingredient { name, value });
    let keys = (digests(), option::of(digests()), digests());
    let lists = (vec(ingredient, 0..4), vec(part, 0..4));
    let numbers = (any::<u64>(), any::<u64>(), option::of(any::<u64>()));
    (keys, lists, numbers, any::<String>(), any::<String>()).prop_map(
        |((definition_key, content_key, op), (ingredients, result), numbers, stage, instruction)| Record {
            definition_key,
            content_key,
            op,
            ingredients,
            result: result.into_iter().map(|(layer, created)| ResultLayer { layer, created }).collect(),
            created: Epoch(numbers.0),
            duration_ms: numbers.1,
            took: Took {
                user_microseconds: numbers.1,
                system_microseconds: numbers.0,
                largest_process_bytes: numbers.2,
                peak_memory_bytes: numbers.2.map(|bytes| bytes / 2),
            },
            stays_here: numbers.1 % 2 == 0,
            stage,
            instruction,
        },
    )
}

#[test]
fn any_record_is_found_again_as_it_was() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path(), "1");
    let lease = store.lease().expect("a lease");
    let layers: Vec<LayerId> =
        ["a", "b", "c"].iter().map(|text| add_layer(&store, &lease, text, None)).collect();
    let mut runner = proptest::test_runner::TestRunner::default();
    let outcome = runner.run(&records(layers), |made| {
        store.put_record(&lease, &made).expect("added");
        let found = store.by_definition_key(&lease, &made.definition_key).expect("asked");
        prop_assert_eq!(found.as_ref(), Some(&made));
        if let Some(key) = made.content_key {
            let found = store.by_content_key(&lease, &key).expect("asked");
            prop_assert_eq!(found.as_ref(), Some(&made));
        }
        let found = store.nearest(&made.op, &made.stage, &made.instruction).expect("asked");
        prop_assert_eq!(found.as_ref(), Some(&made));
        Ok(())
    });
    outcome.expect("holds");
}
