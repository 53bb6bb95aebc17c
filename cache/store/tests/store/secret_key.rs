//! The key of marks of secrets: one for each state folder, for ever, for its owner alone.

use std::{fs, os::unix::fs::PermissionsExt, thread};

use store::{BootId, Memos};

use crate::fixture::open;

#[test]
fn it_is_made_once_and_for_its_owner() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path(), "1");
    let memos = Memos::at(folder.path(), BootId::named("1")).expect("it was opened");
    assert!(memos.secret_key().is_none());
    assert!(!folder.path().join("secret-key").exists());
    let key = store.secret_key().expect("made");
    let file = fs::metadata(folder.path().join("secret-key")).expect("it is there");
    assert_eq!((file.len(), file.permissions().mode() & 0o7777), (32, 0o600));
    assert_eq!(open(folder.path(), "2").secret_key().expect("read").bytes(), key.bytes());
    assert_eq!(memos.secret_key().expect("it is there").bytes(), key.bytes());
    let elsewhere = tempfile::tempdir().expect("a folder");
    assert_ne!(open(elsewhere.path(), "1").secret_key().expect("made").bytes(), key.bytes());
}

#[test]
fn all_who_need_it_at_once_have_the_same() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path(), "1");
    let keys: Vec<_> = thread::scope(|scope| {
        let asked: Vec<_> = (0..16).map(|_| scope.spawn(|| store.secret_key().expect("made"))).collect();
        asked.into_iter().map(|key| key.join().expect("no panic")).collect()
    });
    assert!(keys.windows(2).all(|pair| pair[0].bytes() == pair[1].bytes()));
    assert_eq!(fs::read_dir(folder.path().join("tmp")).expect("it is there").count(), 0);
}

#[test]
fn one_that_was_cut_short_is_made_anew() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path(), "1");
    let before = store.secret_key().expect("made");
    fs::write(folder.path().join("secret-key"), &before.bytes()[..7]).expect("it is ours");
    let after = store.secret_key().expect("made");
    assert_ne!(after.bytes(), before.bytes());
    assert_eq!(store.secret_key().expect("read").bytes(), after.bytes());
}

#[test]
fn one_that_others_could_read_is_made_anew() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path(), "1");
    let memos = Memos::at(folder.path(), BootId::named("1")).expect("it was opened");
    let path = folder.path().join("secret-key");
    let mut before = store.secret_key().expect("made");
    let chmod = |mode| fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("it is ours");
    for mode in [0o640, 0o604, 0o660] {
        chmod(mode);
        assert!(memos.secret_key().is_none(), "{mode:o}");
        let after = store.secret_key().expect("made");
        assert_ne!(after.bytes(), before.bytes(), "{mode:o}");
        assert_eq!(memos.secret_key().expect("it is there").bytes(), after.bytes());
        before = after;
    }
    // Who owns it knows it.
    if std::os::unix::fs::chown(&path, Some(12345), None).is_ok() {
        assert_ne!(store.secret_key().expect("made").bytes(), before.bytes());
    }
    fs::remove_file(&path).expect("it is there");
    fs::create_dir(&path).expect("nothing is there");
    assert!(store.secret_key().is_err());
    assert_eq!(fs::read_dir(folder.path().join("tmp")).expect("it is there").count(), 0);
}
