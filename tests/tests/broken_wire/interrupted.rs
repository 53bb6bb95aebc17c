//! Killed, cut off, and started again: what was moved is not moved again. `KILN_WIRE_MIB` is how large the image is, 50 MiB
//! unless set.

use std::{env, fs, process::Child, time::Instant};

use kiln_tests::{registry::Registry, wire::Wire};
use rustix::process::{Pid, Signal, kill_process};

use crate::place::{Place, cannot, digest_there, wait};
use kiln_tests::program::said;

const LAYERS: usize = 10;

/// More than the heads of archives and of requests in flight may take.
const SLACK: u64 = 64 << 10;

fn place() -> (Place, u64) {
    let mib: usize = env::var("KILN_WIRE_MIB").ok().and_then(|text| text.parse().ok()).unwrap_or(50);
    let place = Place::new(LAYERS, (mib << 20) / LAYERS);
    (place, (mib as u64) << 20)
}

/// Its exit status, where it had one.
fn end(mut child: Child, signal: Signal) -> Option<i32> {
    let pid = Pid::from_raw(i32::try_from(child.id()).expect("a process id")).expect("not 0");
    kill_process(pid, signal).expect("it was started here and not waited for");
    child.wait().expect("it was started here").code()
}

#[test]
fn a_pull_that_was_killed_or_cut_off_moves_only_the_rest() {
    if cannot("broken_wire::a_pull_that_was_killed_or_cut_off_moves_only_the_rest") {
        return;
    }
    let (place, bytes) = place();
    let registry = Registry::start().expect("it starts");
    let wire = Wire::to(registry.address()).expect("a port is free");
    let digest = place.done("origin", "build -q -t app:1 PLACE/context");
    place.done("origin", &format!("push -q app:1 {}/app:1", registry.address()));
    let pull = format!("pull -q {}/app:1", wire.address());

    wire.hold_after(bytes * 2 / 5);
    let first = place.start("pulled", &pull);
    wait("two fifths of the image", || place.kept_bytes("pulled") + SLACK >= bytes * 2 / 5);
    // What came is unpacked before the rest comes: of the four layers that come at once at least one, with one core.
    wait("a layer's files", || place.unpacked_bytes("pulled") >= bytes / 20);
    end(first, Signal::KILL);
    let kept = place.kept_bytes("pulled");
    wire.mend();
    let before = wire.down();
    wire.cut_after(bytes * 2 / 5);
    let second = place.kiln("pulled", &pull);
    assert_eq!(second.status.code(), Some(1), "{}", said(&second));
    assert_eq!(place.done("pulled", "images -q"), "");
    wire.mend();
    assert_eq!(place.done("pulled", &pull), digest);
    let moved = wire.down() - before;
    println!(
        "pull: {bytes} bytes of files; {kept} kept when it was killed; then cut off, then {moved} moved in all"
    );
    println!("{}", wire.take_log().join("\n"));
    // Cut off, what the sockets held is lost, for as many blobs as come at once.
    let lost = 4 * (4 << 20);
    assert!(kept + moved <= bytes + SLACK + lost, "{kept} were kept and {moved} moved of {bytes}");
    assert_eq!(
        place.exported("pulled", &format!("{}/app:1", wire.address())),
        place.exported("origin", "app:1")
    );
}

#[test]
fn a_push_that_was_killed_between_parts_sends_only_the_rest() {
    if cannot("broken_wire::a_push_that_was_killed_between_parts_sends_only_the_rest") {
        return;
    }
    let (place, bytes) = place();
    let registry = Registry::start().expect("it starts");
    let wire = Wire::to(registry.address()).expect("a port is free");
    let digest = place.done("root", "build -q -t app:1 PLACE/context");
    let push = format!("push -q app:1 {}/app:1", wire.address());

    wire.hold_requests_after(bytes * 2 / 5);
    let first = place.start("root", &push);
    // The next request is made when the answer to the last is remembered.
    wait("two fifths of the image", || wire.up() >= bytes * 2 / 5 && wire.is_quiet_before(4));
    end(first, Signal::KILL);
    let sent = wire.up();
    wire.mend();
    assert_eq!(place.done("root", &push), digest);
    let moved = wire.up() - sent;
    println!("push: {bytes} bytes of files; {sent} sent when it was killed between parts; then {moved}");
    println!("{}", wire.take_log().join("\n"));
    assert!(sent + moved <= bytes + SLACK, "{sent} were sent and {moved} moved of {bytes}");
    assert_eq!(digest_there(&registry, "app:1"), Some(digest));
}

#[test]
fn a_push_that_was_killed_or_cut_off_anywhere_loses_only_the_blobs_under_way() {
    if cannot("broken_wire::a_push_that_was_killed_or_cut_off_anywhere_loses_only_the_blobs_under_way") {
        return;
    }
    let (place, bytes) = place();
    let digest = place.done("root", "build -q -t app:1 PLACE/context");
    for cut in [false, true] {
        let registry = Registry::start().expect("it starts");
        let wire = Wire::to(registry.address()).expect("a port is free");
        let push = format!("push -q app:1 {}/app:1", wire.address());
        let part = bytes * 7 / 10;
        if cut {
            wire.cut_after(part);
            let first = place.kiln("root", &push);
            assert_eq!(first.status.code(), Some(1), "{}", said(&first));
        } else {
            wire.hold_after(part);
            let first = place.start("root", &push);
            wait("seven tenths of the image", || wire.up() >= part);
            end(first, Signal::KILL);
        }
        assert_eq!(digest_there(&registry, "app:1"), None);
        let sent = wire.up();
        wire.mend();
        assert_eq!(place.done("root", &push), digest);
        let moved = wire.up() - sent;
        println!("push: {bytes} bytes of files; {sent} sent when it was stopped; then {moved}");
        println!("{}", wire.take_log().join("\n"));
        // Docker's registry throws an upload away in whose last part the connection broke: four blobs come at once.
        let lost = 4 * bytes / LAYERS as u64;
        assert!(sent + moved <= bytes + lost + SLACK, "{sent} were sent and {moved} moved of {bytes}");
        assert_eq!(digest_there(&registry, "app:1"), Some(digest.clone()));
    }
}

#[test]
fn a_pull_ends_with_ctrl_c_whatever_it_waits_for() {
    if cannot("broken_wire::a_pull_ends_with_ctrl_c_whatever_it_waits_for") {
        return;
    }
    let place = Place::new(2, 3_000_000);
    place.wait_for(600);
    let registry = Registry::start().expect("it starts");
    place.done("origin", "build -q -t app:1 PLACE/context");
    place.done("origin", &format!("push -q app:1 {}/app:1", registry.address()));
    for (root, words) in [("pulled", "pull"), ("blobs", "pull --no-unpack")] {
        let wire = Wire::to(registry.address()).expect("a port is free");
        wire.hold_after(2_000_000);
        let pull = place.start(root, &format!("{words} -q {}/app:1", wire.address()));
        wait("a part", || place.kept_bytes(root) >= 1_900_000);
        let started = Instant::now();
        assert_eq!(end(pull, Signal::INT), Some(130));
        assert!(started.elapsed().as_secs() < 5, "it took {:?}", started.elapsed());
        let left = fs::read_dir(place.path(root).join("tmp")).map_or(0, Iterator::count);
        assert_eq!(left, 0, "what was unpacked is still there");
    }
}

#[test]
fn what_is_damaged_here_is_fetched_anew() {
    if cannot("broken_wire::what_is_damaged_here_is_fetched_anew") {
        return;
    }
    let place = Place::new(2, 300_000);
    let registry = Registry::start().expect("it starts");
    let digest = place.done("origin", "build -q -t app:1 PLACE/context");
    place.done("origin", &format!("push -q app:1 {}/app:1", registry.address()));
    let blobs = place.exported("origin", "app:1");
    let pull = format!("{}/app:1", registry.address());
    let root = place.path("pulled");
    // A part, all of the length, and more than there ever was: of other bytes.
    for length in [1000, 300_278, 900_000] {
        for words in ["pull -q", "pull -q --no-unpack"] {
            place.done("pulled", "images -q");
            for blob in &blobs {
                fs::create_dir_all(root.join("partial")).expect("made");
                fs::write(root.join("partial").join(blob), vec![7; length]).expect("written");
            }
            assert_eq!(place.done("pulled", &format!("{words} {pull}")), digest);
            assert_eq!(place.exported("pulled", &pull), blobs);
            fs::remove_dir_all(&root).expect("it is a state folder");
        }
    }
}
