//! Several processes on one state folder, some of them killed with SIGKILL.
//!
//! A child is this test program again, told to run one of the tests of `child`.

use std::{
    collections::BTreeSet,
    env, fs,
    io::{BufRead, BufReader},
    ops::ControlFlow,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    thread,
    time::Duration,
};

use oci::Digest;
use store::{Collection, LockName, Store, TaggedBy};

use crate::fixture::{add_layer, count, open, record, taking_all};

const ROOT: &str = "KILN_TEST_ROOT";
const NAME: &str = "KILN_TEST_NAME";
const SAYS: &str = "child says ";

struct Running {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Running {
    fn start(role: &str, root: &Path, name: &str) -> Running {
        let test = format!("processes::child::{role}");
        let mut command = Command::new(env::current_exe().expect("this program"));
        command.args(["--exact", &test, "--ignored", "--nocapture", "--test-threads=1"]);
        let mut child =
            command.env(ROOT, root).env(NAME, name).stdout(Stdio::piped()).spawn().expect("started");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        Running { child, lines }
    }

    /// The next thing that the child says; `None` at its end.
    fn hear(&mut self) -> Option<String> {
        self.lines.find_map(|line| {
            let line = line.expect("text");
            line.split_once(SAYS).map(|(_, said)| said.to_owned())
        })
    }

    fn kill(mut self) -> Vec<String> {
        self.child.kill().expect("killed");
        self.child.wait().expect("waited");
        std::iter::from_fn(|| self.hear()).collect()
    }

    fn succeed(mut self) -> Vec<String> {
        let said = std::iter::from_fn(|| self.hear()).collect();
        assert!(self.child.wait().expect("waited").success());
        said
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // When a test fails its children end with it. One that has ended needs no killing.
        let _ended = self.child.kill().and_then(|()| self.child.wait());
    }
}

/// Everything that a record found by its key promises is there and right. Returns whether there is one.
fn check_record(store: &Store, name: &str) -> bool {
    let lease = store.lease().expect("a lease");
    let Some(found) = store.by_definition_key(&lease, &record(name, &[]).definition_key).expect("asked")
    else {
        return false;
    };
    for part in &found.result {
        let tree = store.tree(&part.layer).expect("a manifest");
        let folder = store.layer_folder(&lease, &part.layer).expect("asked").expect("a folder");
        let text = fs::read(folder.join("file")).expect("a file");
        let node = tree.entries.values().next().expect("an entry");
        let content = tree::Kind::File { size: text.len() as u64, content: Digest::of(&text) };
        assert_eq!(node.kind, content);
    }
    true
}

/// As [`check_record`], with the blob that writers add beside it, and that no record names.
fn check_written(store: &Store, name: &str) -> bool {
    let lease = store.lease().expect("a lease");
    let blob = store.blob_bytes(&lease, &Digest::of(name.as_bytes())).expect("a blob");
    blob == name.as_bytes() && check_record(store, name)
}

mod child {
    //! What children do. Ignored unless a test asks for one by its name.

    use super::*;

    fn given() -> (Store, String) {
        let root = PathBuf::from(env::var_os(ROOT).expect("run by a test of `processes`"));
        (open(&root, "1"), env::var(NAME).expect("run by a test of `processes`"))
    }

    fn say(text: &str) {
        use std::io::Write;
        let mut out = std::io::stdout().lock();
        writeln!(out, "{SAYS}{text}").and_then(|()| out.flush()).expect("heard");
    }

    fn add(store: &Store, lease: &store::Lease, name: &str) {
        let layer = add_layer(store, lease, name, None);
        store.add_blob(lease, name.as_bytes()).expect("added");
        store.put_record(lease, &record(name, &[layer])).expect("added");
    }

    #[test]
    #[ignore = "a child"]
    fn writes_a_hundred() {
        let (store, name) = given();
        let lease = store.lease().expect("a lease");
        for n in 0..100 {
            add(&store, &lease, &format!("{name} {n}"));
            add(&store, &lease, &format!("everybody's {n}"));
        }
        store.keep().expect("kept");
    }

    #[test]
    #[ignore = "a child"]
    fn writes_for_ever() {
        let (store, name) = given();
        let lease = store.lease().expect("a lease");
        for n in 0.. {
            let name = format!("{name} {n}");
            add(&store, &lease, &name);
            say(&name);
        }
    }

    #[test]
    #[ignore = "a child"]
    fn collects_for_ever() {
        let (store, name) = given();
        for n in 0.. {
            let lease = store.lease().expect("a lease");
            add(&store, &lease, &format!("rubbish of {name} {n}"));
            drop(lease);
            store.collect(&taking_all()).expect("collected");
            say("collected");
        }
    }

    #[test]
    #[ignore = "a child"]
    fn uses_what_it_finds() {
        let (store, name) = given();
        for n in 0..150 {
            let lease = store.lease().expect("a lease");
            // The same few names, so that the collectors take what this one looks for.
            let name = format!("found {}", n % 5);
            if !check_record(&store, &name) {
                add(&store, &lease, &name);
                assert!(check_written(&store, &name), "it is in the lease");
            }
        }
        say(&name);
    }

    #[test]
    #[ignore = "a child"]
    fn holds_a_lock() {
        let (store, name) = given();
        let _lock =
            store.try_lock(&LockName::Step(Digest::of(name.as_bytes()))).expect("asked").expect("free");
        say(&std::process::id().to_string());
        thread::sleep(Duration::from_secs(600));
    }

    #[test]
    #[ignore = "a child"]
    fn holds_a_lease() {
        let (store, _) = given();
        let lease = store.lease().expect("a lease");
        let folder = lease.new_folder().expect("a folder");
        fs::write(folder.join("file"), "x").expect("written");
        store.add_blob(&lease, b"leased").expect("added");
        say(&folder.display().to_string());
        thread::sleep(Duration::from_secs(600));
    }
}

#[test]
fn several_writers_lose_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let names = ["a", "b", "c"];
    // Their first use of the folder, too, is at once.
    let children: Vec<Running> =
        names.iter().map(|name| Running::start("writes_a_hundred", folder.path(), name)).collect();
    for child in children {
        child.succeed();
    }
    let store = open(folder.path(), "2");
    for name in names.iter().chain(&["everybody's"]) {
        for n in 0..100 {
            assert!(check_written(&store, &format!("{name} {n}")), "{name} {n}");
        }
    }
    assert_eq!(count(&store, "layers"), 400);
    assert_eq!(count(&store, "leases") + count(&store, "tmp"), 0);
}

#[test]
fn a_killed_writer_leaves_whole_things_and_what_it_left_is_swept() {
    let folder = tempfile::tempdir().expect("a folder");
    for round in 0..12 {
        let mut child = Running::start("writes_for_ever", folder.path(), &round.to_string());
        let mut said = vec![child.hear().expect("a record")];
        thread::sleep(Duration::from_millis(3 * round));
        said.extend(child.kill());
        let store = open(folder.path(), "1");
        for name in &said {
            assert!(check_written(&store, name), "{name} was said to be there");
        }
        check_record(&store, &format!("{round} {}", said.len()));
    }
    let store = open(folder.path(), "1");
    store.sweep().expect("swept");
    assert_eq!(count(&store, "leases") + count(&store, "tmp"), 0);
    // What the kills left between a rename and its commit.
    store.collect(&Collection::default()).expect("collected");
    let folders = count(&store, "layers");
    assert_eq!(folders, count(&store, "trees"));
    assert_eq!(store.collect(&taking_all()).expect("collected").records as usize, folders);
    assert_eq!(count(&store, "layers") + count(&store, "trees") + count(&store, "blobs/sha256"), 0);
}

#[test]
fn a_sweep_takes_the_dead_and_leaves_the_living() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut child = Running::start("holds_a_lease", folder.path(), "");
    let half_made = PathBuf::from(child.hear().expect("a folder"));
    let store = open(folder.path(), "1");
    assert_eq!(store.sweep().expect("swept"), 0);
    assert_eq!(store.collect(&Collection::default()).expect("collected").contents, 0, "it is leased");
    assert!(half_made.join("file").exists());
    child.kill();
    assert_eq!(store.sweep().expect("swept"), 1);
    assert!(!half_made.exists());
    assert_eq!(count(&store, "leases") + count(&store, "tmp"), 0);
    assert_eq!(store.collect(&Collection::default()).expect("collected").contents, 1);
}

#[test]
fn who_tries_a_file_system_is_left_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let trial = |at: &str| folder.path().join(at).join(".kiln-look.abc");
    // Before there is a state folder, and in it.
    fs::create_dir(trial("")).expect("made");
    let store = open(folder.path(), "1");
    fs::create_dir(trial("tmp")).expect("made");
    store.sweep().expect("swept");
    assert!(trial("").exists() && trial("tmp").exists());
}

#[test]
fn the_next_build_sweeps_after_a_killed_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut child = Running::start("holds_a_lease", folder.path(), "");
    let half_made = PathBuf::from(child.hear().expect("a folder"));
    child.kill();
    let store = open(folder.path(), "1");
    let _lease = store.lease().expect("a lease");
    for _ in 0..200 {
        if !half_made.exists() && count(&store, "leases") == 1 {
            return;
        }
        thread::sleep(Duration::from_millis(25));
    }
    panic!("{} was not swept within 5 s", half_made.display());
}

#[test]
fn a_lock_of_a_killed_process_is_free() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut child = Running::start("holds_a_lock", folder.path(), "step");
    let holder: u32 = child.hear().expect("its id").parse().expect("a number");
    let store = open(folder.path(), "1");
    let name = LockName::Step(Digest::of(b"step"));
    assert!(store.try_lock(&name).expect("asked").is_none());
    let stopped = store.lock(&name, &mut |_| ControlFlow::Break(())).expect("asked");
    assert!(stopped.is_none(), "whoever is told to stop waiting stops");
    let mut child = Some(child);
    let mut waits = 0;
    let lock = store.lock(&name, &mut |waiting| {
        waits += 1;
        assert_eq!((waiting.attempts, waiting.holder), (waits, Some(holder)));
        if let Some(child) = child.take() {
            child.kill();
        }
        ControlFlow::Continue(())
    });
    let lock = lock.expect("asked").expect("it is free");
    assert_eq!(waits, 1);
    drop(lock);
    let again = store.try_lock(&name).expect("asked").expect("it is free");
    assert_eq!(count(&store, "locks"), 1, "a step's lock is given the file of the one before");
    drop(store);
    assert!(folder.path().join("locks").read_dir().expect("listed").next().is_some(), "and is still held");
    drop(again);
    let left = folder.path().join("locks").read_dir().expect("listed").count();
    assert_eq!(left, 0, "the files go with the store that took them, and the last lock");
}

#[test]
fn a_lock_is_held_by_one_at_a_time() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path(), "1");
    let name = LockName::Repository("m".to_owned());
    let (inside, most) = (std::sync::Mutex::new(0), std::sync::Mutex::new(BTreeSet::new()));
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..100 {
                    let lock = store.lock(&name, &mut |_| ControlFlow::Continue(())).expect("asked");
                    let now = {
                        let mut inside = inside.lock().expect("held shortly");
                        *inside += 1;
                        *inside
                    };
                    most.lock().expect("held shortly").insert(now);
                    thread::yield_now();
                    *inside.lock().expect("held shortly") -= 1;
                    drop(lock);
                }
            });
        }
    });
    assert_eq!(most.into_inner().expect("held shortly"), BTreeSet::from([1]));
}

#[test]
fn a_collector_takes_nothing_that_a_build_has_found() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut collectors: Vec<Running> =
        ["a", "b"].iter().map(|name| Running::start("collects_for_ever", folder.path(), name)).collect();
    for collector in &mut collectors {
        collector.hear().expect("collected");
    }
    let users: Vec<Running> =
        ["c", "d"].iter().map(|name| Running::start("uses_what_it_finds", folder.path(), name)).collect();
    for (user, name) in users.into_iter().zip(["c", "d"]) {
        assert_eq!(user.succeed(), [name]);
    }
    for collector in collectors {
        collector.kill();
    }
}

#[test]
fn a_killed_collector_loses_nothing_that_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path(), "1");
    let lease = store.lease().expect("a lease");
    let image = crate::fixture::add_image(&store, &lease, "image", b"layer");
    store.keep().expect("kept");
    let name = oci::Reference::parse("app").expect("a name");
    store.tag(&lease, &name, &image, oci::Epoch(1), TaggedBy::Build).expect("tagged");
    drop(lease);
    for round in 0..12 {
        let mut child = Running::start("collects_for_ever", folder.path(), &round.to_string());
        child.hear().expect("collected");
        thread::sleep(Duration::from_millis(2 * round));
        child.kill();
        let lease = store.lease().expect("a lease");
        store.image(&lease, &name).expect("asked").expect("listed");
        for blob in [&image.digest, &Digest::of(b"layer"), &Digest::of(br#"{"name":"image"}"#)] {
            store.blob_bytes(&lease, blob).expect("whole");
        }
    }
    store.collect(&taking_all()).expect("collected");
    let left = ["blobs/sha256", "layers", "trees", "tmp", "leases"].map(|folder| count(&store, folder));
    assert_eq!(left, [3, 0, 0, 0, 0], "the image, and nothing that the kills left");
}
