//! Everything that goes over a wire, with everything that a wire does.

use std::{fs, process::Output, time::Instant};

use kiln_tests::{
    registry::Registry,
    wire::{Fault, On, What, Wire},
};

use crate::place::{Place, cannot, check_blobs, digest_there};
use kiln_tests::program::said;

/// All requests of a kind.
const EVER: u32 = u32::MAX;

/// Beyond the head of a blob, before what a resumed transfer makes good: a failure that comes again and again.
const EARLY: u64 = 200_000;

/// What becomes of a command.
enum Ends {
    /// It succeeds.
    Well,
    /// It fails, and says this.
    With(&'static str),
}

/// A row of the table: what is wrong, with how many requests, and how pulls and pushes end by that.
struct Row {
    name: &'static str,
    what: What,
    times: u32,
    pull: Option<Ends>,
    push: Option<Ends>,
}

impl Row {
    fn fault(&self, on: On) -> Fault {
        Fault { on, what: self.what.clone(), times: self.times }
    }

    /// How many seconds of silence are too many.
    fn patience(&self) -> u32 {
        if matches!(self.what, What::Stall(_)) { 1 } else { 30 }
    }
}

fn rows() -> Vec<Row> {
    use Ends::{Well, With};
    let row = |name, what, times, pull, push| Row { name, what, times, pull, push };
    let both =
        |name, what: What, times, ends: fn() -> Ends| row(name, what, times, Some(ends()), Some(ends()));
    let seconds: What = What::Answer(429, &[("retry-after", "1")]);
    let date = What::Answer(
        429,
        &[("date", "Wed, 15 Nov 2023 08:00:00 GMT"), ("retry-after", "Wed, 15 Nov 2023 08:00:01 GMT")],
    );
    vec![
        both("reset", What::Reset(EARLY), 1, || Well),
        both("reset, late", What::Reset(700_000), 2, || Well),
        both("reset for ever", What::Reset(EARLY), EVER, || With("the connection broke")),
        both("silence", What::Stall(EARLY), 1, || Well),
        both("silence for ever", What::Stall(EARLY), EVER, || With("it sent nothing for")),
        row("end too early", What::End(EARLY), 2, Some(Well), None),
        row("end too early for ever", What::End(EARLY), EVER, Some(With("the connection broke")), None),
        row("lost answer", What::Lose, 1, None, Some(Well)),
        row("lost answers for ever", What::Lose, EVER, None, Some(With("the connection broke"))),
        row(
            "another byte",
            What::Change(EARLY),
            1,
            Some(With("its bytes have the digest")),
            Some(With("DIGEST_INVALID")),
        ),
        both("another byte for ever", What::Change(EARLY), EVER, || With("igest")),
        both("429, seconds", seconds.clone(), 2, || Well),
        both("429, date", date, 1, || Well),
        both("429 for ever", seconds, EVER, || With("it limits requests")),
        both("429, too long", What::Answer(429, &[("retry-after", "3600")]), 1, || {
            With("it limits requests")
        }),
        both("500", What::Answer(500, &[]), 3, || Well),
        both("502", What::Answer(502, &[]), 3, || Well),
        both("503", What::Answer(503, &[("retry-after", "0")]), 3, || Well),
        both("500 for ever", What::Answer(500, &[]), EVER, || With("it answered 500")),
        both("503 for ever", What::Answer(503, &[]), EVER, || With("it answered 503")),
    ]
}

/// Compares how a command ended with what was expected. Whether it succeeded.
fn ended(row: &Row, output: &Output, ends: &Ends, host: &str) -> bool {
    let name = row.name;
    let text = said(output);
    match ends {
        Ends::Well => assert!(output.status.success(), "{name}: {text}"),
        Ends::With(words) => {
            assert_eq!(output.status.code(), Some(1), "{name}: {text}");
            assert!(text.contains(words), "{name}: {text}");
            // The image, the host, the blob (an answer may already be about the config, which stands for the image) and what to
            // do, once.
            assert!(text.contains(&format!("{host}/app:1")), "{name}: {text}");
            assert!(text.contains("sha256:") || matches!(row.what, What::Answer(..)), "{name}: {text}");
            assert_eq!(text.matches("error[").count(), 1, "{name}: {text}");
            assert_eq!(text.matches("= help: ").count(), 1, "{name}: {text}");
        }
    }
    output.status.success()
}

/// The image, built once, in a registry; its digest and the blobs of its archive.
fn published(place: &Place, registry: &Registry) -> (String, Vec<String>) {
    let host = registry.address();
    let digest = place.done("origin", &format!("build -q -t {host}/app:1 PLACE/context"));
    place.done("origin", &format!("push -q {host}/app:1"));
    (digest, place.exported("origin", &format!("{host}/app:1")))
}

#[test]
fn pulls_end_right_or_not_at_all() {
    if cannot("broken_wire::pulls_end_right_or_not_at_all") {
        return;
    }
    let place = Place::new(2, 1_500_000);
    let registry = Registry::start().expect("it starts");
    let (digest, blobs) = published(&place, &registry);
    for row in rows() {
        let (name, Some(ends)) = (row.name, &row.pull) else { continue };
        let wire = Wire::to(registry.address()).expect("a port is free");
        let image = format!("{}/app:1", wire.address());
        place.wait_for(row.patience());
        wire.break_it(row.fault(On::Blob));
        let output = place.kiln("pulled", &format!("pull -q {image}"));
        if !ended(&row, &output, ends, &wire.address()) {
            assert_eq!(place.done("pulled", "images -q"), "", "{name}");
        }
        place.check_blobs("pulled");
        wire.mend();
        place.wait_for(30);
        assert_eq!(place.done("pulled", &format!("pull -q {image}")), digest, "{name}");
        assert_eq!(place.done("pulled", "images -q"), digest, "{name}");
        assert_eq!(place.exported("pulled", &image), blobs, "{name}");
        assert_eq!(place.partial_bytes("pulled"), 0, "{name}");
        fs::remove_dir_all(place.path("pulled")).expect("it is a state folder");
    }
}

#[test]
fn bases_come_right_or_not_at_all() {
    if cannot("broken_wire::bases_come_right_or_not_at_all") {
        return;
    }
    let place = Place::new(2, 1_500_000);
    let registry = Registry::start().expect("it starts");
    published(&place, &registry);
    let mut made = None;
    for row in rows() {
        let (name, Some(ends)) = (row.name, &row.pull) else { continue };
        let wire = Wire::to(registry.address()).expect("a port is free");
        let dockerfile = "ARG HOST\nFROM $HOST/app:1\nCOPY 0 /again\n";
        fs::write(place.path("context/Next"), dockerfile).expect("written");
        let host = format!("HOST={}", wire.address());
        let words = format!(
            "build -q -f PLACE/context/Next --build-arg {host} --output type=oci,dest=PLACE/built.tar PLACE/context"
        );
        place.wait_for(row.patience());
        wire.break_it(row.fault(On::Blob));
        let output = place.kiln("built", &words);
        if !ended(&row, &output, ends, &wire.address()) {
            assert!(!place.path("built.tar").exists(), "{name}");
        }
        place.check_blobs("built");
        wire.mend();
        place.wait_for(30);
        let digest = place.done("built", &words);
        assert_eq!(*made.get_or_insert(digest.clone()), digest, "{name}");
        fs::remove_file(place.path("built.tar")).expect("it was made");
        fs::remove_dir_all(place.path("built")).expect("it is a state folder");
    }
}

/// Pushes what `words` says, `IMAGE` being its name, over each wire to a registry of its own.
fn pushes(words: &str) {
    let place = Place::new(2, 1_500_000);
    let digest = place.done("root", "build -q -t app:1 PLACE/context");
    for row in rows() {
        let (name, Some(ends)) = (row.name, &row.push) else { continue };
        let registry = Registry::start().expect("it starts");
        let wire = Wire::to(registry.address()).expect("a port is free");
        let words = words.replace("IMAGE", &format!("{}/app:1", wire.address()));
        place.wait_for(row.patience());
        wire.break_it(row.fault(On::Upload));
        let output = place.kiln("root", &words);
        if !ended(&row, &output, ends, &wire.address()) {
            assert_eq!(digest_there(&registry, "app:1"), None, "{name}");
        }
        check_blobs(&registry.data());
        wire.mend();
        place.wait_for(30);
        assert_eq!(place.done("root", &words), digest, "{name}");
        assert_eq!(digest_there(&registry, "app:1"), Some(digest.clone()), "{name}");
    }
}

#[test]
fn pushes_end_right_or_not_at_all() {
    if cannot("broken_wire::pushes_end_right_or_not_at_all") {
        return;
    }
    pushes("push -q app:1 IMAGE");
}

#[test]
fn builds_are_pushed_right_or_not_at_all() {
    if cannot("broken_wire::builds_are_pushed_right_or_not_at_all") {
        return;
    }
    pushes("build -q --push -t IMAGE PLACE/context");
}

#[test]
fn documents_are_tried_again_and_a_wait_is_kept() {
    if cannot("broken_wire::documents_are_tried_again_and_a_wait_is_kept") {
        return;
    }
    let place = Place::new(1, 1000);
    let registry = Registry::start().expect("it starts");
    let (digest, _) = published(&place, &registry);
    let wire = Wire::to(registry.address()).expect("a port is free");
    let image = format!("{}/app:1", wire.address());
    let limited = What::Answer(429, &[("retry-after", "1")]);
    for (what, times, longer_than) in
        [(limited, 1, 1.0), (What::Answer(503, &[]), 2, 0.0), (What::Answer(500, &[]), 1, 0.0)]
    {
        for words in [format!("pull -q {image}"), format!("push -q {image}")] {
            wire.break_it(Fault { on: On::Manifest, what: what.clone(), times });
            let started = Instant::now();
            assert_eq!(place.done("root", &words), digest);
            assert!(started.elapsed().as_secs_f64() >= longer_than, "{words} did not wait");
        }
    }
    wire.break_it(Fault { on: On::Manifest, what: What::Answer(503, &[]), times: EVER });
    let output = place.kiln("other", &format!("pull -q {image}"));
    assert_eq!(output.status.code(), Some(1));
    let text = said(&output);
    assert!(text.contains("it answered 503") && text.contains("= help: run the command again"), "{text}");
}
