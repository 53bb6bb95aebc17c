//! What registries answered, and what names were.

use std::{fs, path::Path};

use oci::{Digest, Epoch, Platform, Reference};
use store::{Answer, Collection, Error, TagEvent, TagPlace, TaggedBy};

use crate::fixture::open;

fn name(text: &str) -> Reference {
    Reference::parse(text).expect("a name")
}

fn answer(text: &str, at: u64) -> Answer {
    let manifest = format!("{{\"manifest\": \"{text}\"}}\n").into_bytes();
    Answer { top: Digest::of(text.as_bytes()), manifest, config: b"{}".to_vec(), at: Epoch(at) }
}

#[test]
fn an_answer_is_that_of_its_name_and_platform() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path(), "1");
    let lease = store.lease().expect("a lease");
    let (amd, arm) = (Platform::new("linux", "amd64", None), Platform::new("linux", "arm64", None));
    let app = name("app:1");
    assert_eq!(store.answer(&app, &amd).expect("asked"), None);
    for (platform, text) in [(&amd, "old"), (&amd, "amd"), (&arm, "arm")] {
        store.remember_answer(&lease, &app, platform, answer(text, 7)).expect("remembered");
    }
    assert_eq!(store.answer(&app, &amd).expect("asked"), Some(answer("amd", 7)));
    assert_eq!(store.answer(&app, &arm).expect("asked"), Some(answer("arm", 7)));
    assert_eq!(store.answer(&name("app:2"), &amd).expect("asked"), None);
    // It needs nothing that a collection takes, and another boot believes it.
    store.collect(&Collection::default()).expect("collected");
    drop(lease);
    let store = open(folder.path(), "2");
    // The clock of these tests is many years ahead of the files.
    assert_eq!(store.answer(&app, &amd).expect("asked"), None, "nobody renewed it for a year");
    let lease = store.lease().expect("a lease");
    store.remember_answer(&lease, &app, &amd, answer("amd", 8)).expect("remembered");
    assert!(store.answer(&app, &amd).expect("asked").is_some());
    store.forget_answers(&app).expect("forgotten");
    store.forget_answers(&app).expect("nothing to forget");
    assert_eq!(store.answer(&app, &amd).expect("asked"), None);
}

#[test]
fn a_damaged_answer_is_none() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path(), "1");
    let lease = store.lease().expect("a lease");
    let (app, amd) = (name("app:1"), Platform::new("linux", "amd64", None));
    store.remember_answer(&lease, &app, &amd, answer("amd", 7)).expect("remembered");
    let mut files = fs::read_dir(folder.path().join("answers")).expect("it is there");
    let file = files.next().expect("one").expect("one").path();
    assert!(files.next().is_none());
    let whole = fs::read_to_string(&file).expect("read");
    for damaged in [
        whole.replace("amd\\\"", "amb\\\""),
        whole.replace("\"at\":7", "\"at\":8"),
        whole.replace("app:1", "app:2"),
        whole.replace("amd64", "arm64"),
        whole[..whole.len() / 2].to_owned(),
        "\0".repeat(100),
        String::new(),
    ] {
        assert_ne!(damaged, whole);
        fs::write(&file, damaged).expect("written");
        assert_eq!(store.answer(&app, &amd).expect("asked"), None);
        // And it is no obstacle to the next.
        store.remember_answer(&lease, &app, &amd, answer("new", 9)).expect("remembered");
        assert_eq!(store.answer(&app, &amd).expect("asked"), Some(answer("new", 9)));
    }
    let no_text = Answer { config: vec![0xff], ..answer("x", 10) };
    store.remember_answer(&lease, &app, &amd, no_text).expect("not remembered");
    assert_eq!(store.answer(&app, &amd).expect("asked"), Some(answer("new", 9)));
}

#[test]
fn a_name_of_a_registry_has_a_past_of_its_own() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path(), "1");
    let (app, [a, b]) = (name("app:1"), [Digest::of(b"a"), Digest::of(b"b")]);
    for (digest, at, by) in [
        (a, 1, TaggedBy::Resolve),
        (a, 2, TaggedBy::Resolve),
        (b, 3, TaggedBy::Push),
        (a, 4, TaggedBy::Rollback),
    ] {
        store.note_registry_tag(&app, &digest, Epoch(at), by).expect("noted");
    }
    let event = |digest, at, by| TagEvent { digest, at: Epoch(at), by: Some(by) };
    let expected =
        [event(a, 4, TaggedBy::Rollback), event(b, 3, TaggedBy::Push), event(a, 1, TaggedBy::Resolve)];
    assert_eq!(store.tag_history(&app, TagPlace::Registry).expect("asked"), expected);
    assert_eq!(store.tag_history(&app, TagPlace::Local).expect("asked"), []);
    let pinned = Reference { digest: Some(a), ..app.clone() };
    let refused = store.note_registry_tag(&pinned, &a, Epoch(5), TaggedBy::Push);
    assert!(matches!(refused, Err(Error::NotATag(_))));

    // The past has an end: in number, and for names that are nowhere here in time.
    for at in 10..200 {
        let digest = Digest::of(&[at]);
        store.note_registry_tag(&app, &digest, Epoch(at.into()), TaggedBy::Push).expect("noted");
    }
    let past = store.tag_history(&app, TagPlace::Registry).expect("asked");
    assert_eq!((past.len(), past[0].at), (100, Epoch(199)));
    let later = Epoch(199 + 366 * 86_400);
    store.note_registry_tag(&name("other"), &a, later, TaggedBy::Push).expect("noted");
    assert_eq!(store.tag_history(&app, TagPlace::Registry).expect("asked"), []);
}

/// The tables of a database with their columns: name, type, whether it must be there, default.
fn shape(path: &Path) -> Vec<String> {
    let database = rusqlite::Connection::open(path).expect("opened");
    let text = "SELECT m.name || ' ' || c.name || ' ' || c.type || ' ' || c.\"notnull\" || ' ' || ifnull(c.dflt_value, '')
                FROM sqlite_master AS m, pragma_table_info(m.name) AS c WHERE m.type = 'table' ORDER BY 1";
    let mut query = database.prepare(text).expect("SQL");
    let rows = query.query_map([], |row| row.get(0)).expect("asked");
    rows.map(|row| row.expect("text")).collect()
}

#[test]
fn a_database_of_the_first_version_becomes_one_of_this() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("kiln.db");
    let app = name("app:1");
    drop(open(folder.path(), "1").images().expect("made"));
    let of_this = shape(&path);
    for suffix in ["", "-wal", "-shm"] {
        let file = folder.path().join(format!("kiln.db{suffix}"));
        assert!(fs::remove_file(&file).is_ok() || !file.exists());
    }
    let before = rusqlite::Connection::open(&path).expect("made");
    before.pragma_update(None, "journal_mode", "WAL").expect("WAL");
    before.execute_batch(include_str!("schema_1.sql")).expect("the first version's");
    before.pragma_update(None, "user_version", 1).expect("a number");
    let digest = Digest::of(b"a");
    let given = "INSERT INTO tag_history (name, manifest, at) VALUES (?1, ?2, 1)";
    before.execute(given, rusqlite::params![app.to_string(), digest.raw()]).expect("as it did");
    drop(before);
    // The second finds it done.
    for _ in 0..2 {
        let store = open(folder.path(), "1");
        let past = store.tag_history(&app, TagPlace::Local).expect("asked");
        assert_eq!(past, [TagEvent { digest, at: Epoch(1), by: None }]);
    }
    assert_eq!(shape(&path), of_this, "schema.sql and the migrations lead to the same");
}
