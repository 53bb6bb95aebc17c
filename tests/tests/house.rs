//! Keeping house: what the state folder holds, what is removed from it, by whom and when, and what never is.
//!
//! `KILN_KILLS` sets how many times `kiln prune` is killed (8 where unset), `KILN_SEED` at which instants.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use kiln_tests::image::Image;
use kiln_tests::machine;
use kiln_tests::program::kiln;
use serde_json::Value;

/// Says why a test cannot run here, and whether.
fn cannot(test: &str) -> bool {
    machine::cannot(test, ["steps", "busybox"])
}

/// Steps that are quick and slow, small and large, of two stages, with a cache mount. All that they make is alike each time.
const STEPS: &str = "\
FROM busybox AS one
COPY tree /tree
RUN mkdir /many && for i in $(seq 200); do echo $i > /many/$i; done; sleep 0.05
FROM busybox AS two
RUN yes kiln | head -c 3000000 > /large
RUN --mount=type=cache,target=/cache echo x >> /cache/x; head -c 1500000 /dev/zero > /zeros
FROM busybox
ARG N=0
COPY --from=two /large /zeros /
RUN echo $N > /n; sleep 0.05
COPY --from=one /many /many
";

/// A folder with a context, a state folder, and settings of its own.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Place {
        let folder = tempfile::Builder::new().prefix("kiln-house-").tempdir().expect("a temporary folder");
        let place = Place(folder);
        fs::create_dir_all(place.path("context/tree")).expect("it is empty");
        fs::write(place.path("context/Dockerfile"), STEPS).expect("its parent is there");
        for n in 0..50 {
            fs::write(place.path(&format!("context/tree/{n}")), "text\n".repeat(n))
                .expect("its parent is there");
        }
        place.settings("gc.enabled = false\n");
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn settings(&self, text: &str) {
        fs::write(self.path("kiln.toml"), text).expect("the place can be written");
    }

    fn command(&self, words: &str) -> Command {
        let base = machine::base_argument().expect("the test asked for it");
        let place = self.0.path().display().to_string();
        let mut command = kiln();
        command.arg("--root").arg(self.path("root")).env("KILN_CONFIG", self.path("kiln.toml"));
        command.args(words.split(' ').map(|word| word.replace("PLACE", &place).replace("BASE", &base)));
        command.stdin(Stdio::null());
        command
    }

    fn kiln(&self, words: &str) -> Output {
        self.command(words).output().expect("the program was built")
    }

    /// As [`Place::kiln`], and it must succeed. What it wrote to standard output and to standard error.
    fn done(&self, words: &str) -> (String, String) {
        let output = self.kiln(words);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        let (out, said) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "kiln {words}: {said}");
        (out, said)
    }

    fn build(&self, words: &str) -> String {
        self.done(&format!("build -q --build-context BASE {words} PLACE/context")).0
    }

    fn start(&self, words: &str) -> Started {
        let mut command = self.command(words);
        Started(command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the program was built"))
    }

    /// What an image holds, once all of it was found to match its digests.
    fn exported(&self, image: &str) -> String {
        self.done(&format!("save --format oci -o PLACE/image.tar {image}"));
        let shown = Image::read(&self.path("image.tar")).and_then(|image| image.show(0));
        shown.unwrap_or_else(|error| panic!("{image}: {error}"))
    }

    /// Exports all images of the list.
    fn check_images(&self, when: &str) {
        let (listed, _) = self.done("images -q");
        assert!(!listed.is_empty(), "{when}");
        listed.lines().for_each(|image| drop(self.exported(image)));
    }

    fn usage(&self) -> Vec<Value> {
        let (lines, _) = self.done("du --format json");
        lines.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
    }

    fn reclaimable(&self) -> u64 {
        self.usage().iter().filter_map(|entry| entry["ReclaimableSize"].as_u64()).sum()
    }

    fn on_disk(&self) -> u64 {
        blocks(&self.path("root"))
    }
}

/// What a folder and all below it takes, names of one file counted once.
fn blocks(root: &Path) -> u64 {
    let (mut sum, mut seen, mut left) = (0, Vec::new(), vec![root.to_owned()]);
    while let Some(path) = left.pop() {
        let found = fs::symlink_metadata(&path).expect("nobody else writes here");
        if !found.is_dir() && found.nlink() > 1 {
            if seen.contains(&found.ino()) {
                continue;
            }
            seen.push(found.ino());
        }
        sum += found.blocks() * 512;
        if found.is_dir() {
            left.extend(fs::read_dir(path).expect("read").map(|entry| entry.expect("read").path()));
        }
    }
    sum
}

/// A command in the background; killed when dropped.
struct Started(Child);

impl Started {
    fn finish(mut self, when: &str) {
        let pipe = self.0.stderr.take().expect("started with a pipe");
        let said = std::io::read_to_string(pipe).expect("text");
        let status = self.0.wait().expect("it is our child");
        assert!(status.success(), "{when}: {status}\n{said}");
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        // It has ended by itself, or is to be killed here.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn setting(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(otherwise)
}

/// A number of at least 0 and less than 1 (SplitMix64).
fn next(state: &mut u64) -> f64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
}

const PRUNES: [&str; 4] =
    ["prune -f -a", "prune -f", "prune -f -a --reserved-space 2MB", "prune -f --filter type=exec.cachemount"];

#[test]
fn prune_killed_at_any_instant_loses_nothing() {
    if cannot("house::prune_killed_at_any_instant_loses_nothing") {
        return;
    }
    let place = Place::new();
    place.build("-t app:kept");
    let kept = place.exported("app:kept");
    let n_of = |shown: &str, n: u64| {
        let digest = oci::Digest::of(format!("{n}\n").as_bytes()).to_string();
        assert!(shown.contains(&digest), "the image of {n}:\n{shown}");
    };
    n_of(&kept, 0);
    let started = Instant::now();
    place.done("prune -f -a");
    let seconds = started.elapsed().as_secs_f64();

    let mut state = setting("KILN_SEED", 3);
    for number in 0..setting("KILN_KILLS", 8) {
        place.build("-t app:kept");
        let n = number % 3 + 1;
        let words = format!("build -q --build-context BASE --build-arg N={n} -t app:running PLACE/context");
        let build = place.start(&words);
        // In the beginning of the build as well as at its end.
        sleep(Duration::from_secs_f64(next(&mut state) * 0.4));
        let prune = place.start(PRUNES[usize::try_from(number).expect("small") % PRUNES.len()]);
        let wait = next(&mut state) * seconds * 1.2;
        sleep(Duration::from_secs_f64(wait));
        drop(prune);
        let when = format!("kill {number}, after {wait:.3} s of {seconds:.3} s");
        build.finish(&when);
        place.check_images(&when);
        n_of(&place.exported("app:running"), n);
        place.build("-t app:again");
        assert_eq!(place.exported("app:again"), kept, "{when}: what is cached is right");
        assert_eq!(place.exported("app:kept"), kept, "{when}");
    }
    place.done("prune -f -a");
    assert_eq!(place.reclaimable(), 0, "{:#?}", place.usage());
    place.check_images("at the end");
}

#[test]
fn prune_beside_four_builds() {
    if cannot("house::prune_beside_four_builds") {
        return;
    }
    let place = Place::new();
    for round in 0..2 {
        let started: Vec<Started> = (0..4)
            .map(|n| {
                let n = round * 4 + n;
                place.start(&format!(
                    "build -q --build-context BASE --build-arg N={n} -t app:{n} PLACE/context"
                ))
            })
            .collect();
        let builds =
            std::thread::spawn(move || started.into_iter().for_each(|build| build.finish("beside a prune")));
        let mut prunes = 0;
        while !builds.is_finished() {
            place.done(PRUNES[prunes % PRUNES.len()]);
            prunes += 1;
        }
        builds.join().expect("all four were built");
        assert!(prunes > 1, "there was time for it");
    }
    place.check_images("after eight builds");
    assert_eq!(place.done("images -q").0.lines().count(), 8);
}

#[test]
fn the_books_say_what_the_disk_holds_and_prune_brings_it_down() {
    if cannot("house::the_books_say_what_the_disk_holds_and_prune_brings_it_down") {
        return;
    }
    let place = Place::new();
    place.build("--build-arg N=1 -t app:1");
    place.build("--build-arg N=2 -t app:2");
    place.build("--target two");
    let total = |usage: &[Value]| usage.iter().filter_map(|entry| entry["Size"].as_u64()).sum::<u64>();
    let near = |place: &Place| {
        let (books, disk) = (total(&place.usage()), place.on_disk());
        assert!(books.abs_diff(disk) < disk / 20 + 100_000, "{books} in the books, {disk} on the disk");
        disk
    };
    let before = near(&place);
    let usage = place.usage();
    let large: Vec<&Value> = usage
        .iter()
        .filter(|entry| entry["Description"].as_str().is_some_and(|d| d.contains("yes kiln")))
        .collect();
    assert_eq!(large.len(), 1, "a layer of two images and more records is one entry: {usage:#?}");
    assert!(large[0]["UserMicroseconds"].is_u64() && large[0]["SystemMicroseconds"].is_u64(), "{large:?}");
    assert!(place.done("du --verbose").0.contains("\nProcessor time: "));
    let types: Vec<&str> = usage.iter().filter_map(|entry| entry["Type"].as_str()).collect();
    for kind in ["regular", "image", "exec.cachemount", "source.local", "internal"] {
        assert!(types.contains(&kind), "{kind}: {types:?}");
    }

    assert!(place.reclaimable() > 4_000_000);
    let (said, _) = place.done("prune -f -a --keep-storage 4MB");
    assert!(said.lines().last().is_some_and(|line| line.starts_with("Total:")), "{said}");
    assert!(place.reclaimable() <= 4 << 20);
    let kept = near(&place);
    assert!(kept < before);
    place.done("prune -f -a");
    assert!(near(&place) < kept);
    assert_eq!(place.reclaimable(), 0);
    assert_eq!(place.done("prune -f -a").0, "Total:          0B");
    place.check_images("after all was pruned");
}

#[test]
fn builds_collect_by_the_policy() {
    if cannot("house::builds_collect_by_the_policy") {
        return;
    }
    let place = Place::new();
    place.settings("[gc]\nreservedSpace = '0'\nmaxUsedSpace = '2MB'\nminFreeSpace = '0'\n");
    let build = |n: u64, tag: &str| {
        let words =
            format!("build --progress plain --build-context BASE --build-arg N={n} -t {tag} PLACE/context");
        place.done(&words).1
    };
    let said = build(1, "app:1");
    assert!(said.contains("of the build cache, "), "{said}");
    assert!(place.reclaimable() <= 2 << 20, "{:#?}", place.usage());
    place.check_images("collected");

    let state = stamps(&place.path("root"));
    let said = build(1, "app:1");
    assert!(!said.contains("of the build cache, "), "{said}");
    place.settings("gc.enabled = false\n");
    fs::remove_file(place.path("root/look.json")).expect("the first build left it");
    build(2, "app:2");
    assert!(!place.path("root/look.json").exists(), "it is switched off");
    // What ran before is cached now, and `kiln shell` says so from here on.
    build(2, "app:2");
    let again = stamps(&place.path("root"));
    assert_ne!(state, again);
    place.settings("gc.enabled = true\n");
    build(2, "app:2");
    assert_eq!(stamps(&place.path("root")), again, "a build that adds nothing writes nothing");

    // A damaged image is no reason to fail a build that does not need it.
    let (digest, _) = place.done("images -q");
    let digest = digest.lines().find_map(|line| line.strip_prefix("sha256:")).expect("an image");
    let manifest = place.path("root/blobs/sha256").join(digest);
    let length = fs::read(&manifest).expect("it is there").len();
    fs::write(&manifest, vec![b' '; length]).expect("it can be spoilt");
    let long_ago = r#"{"at":0,"contents_bytes":0,"used_bytes":0}"#;
    fs::write(place.path("root/look.json"), long_ago).expect("a look is due");
    let said = build(3, "app:3");
    assert!(said.contains("warning: the build cache was not collected"), "{said}");
    let remove = format!("rmi sha256:{digest}");
    for words in ["images", "du", "prune -f"] {
        let output = place.kiln(words);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(&format!("kiln {remove}")), "{words}: {said}");
    }
    place.done(&remove);
    for words in ["images", "du", "prune -f"] {
        place.done(words);
    }
    place.check_images("without the damaged one");
}

/// Names, lengths and times of all files but those of locks and leases.
fn stamps(root: &Path) -> Vec<(PathBuf, u64, i64, i64)> {
    let (mut found, mut left) = (Vec::new(), vec![root.to_owned()]);
    while let Some(path) = left.pop() {
        let metadata = fs::symlink_metadata(&path).expect("nobody else writes here");
        if metadata.is_dir() {
            left.extend(fs::read_dir(&path).expect("read").map(|entry| entry.expect("read").path()));
        } else if !path.ends_with("kiln.db-shm") {
            found.push((path, metadata.len(), metadata.mtime(), metadata.mtime_nsec()));
        }
    }
    found.sort();
    found
}

#[test]
fn an_image_without_a_name_outlives_the_build_that_made_it() {
    if cannot("house::an_image_without_a_name_outlives_the_build_that_made_it") {
        return;
    }
    let place = Place::new();
    place.settings("[gc]\nreservedSpace = '0'\nmaxUsedSpace = '0'\nminFreeSpace = '100%'\n");
    let id = place.build("--build-arg N=0");
    assert_eq!(place.done("images -q").0, id);
    place.exported(&id);
    assert_eq!(place.done(&format!("run {id} cat /n")).0, "0");
    place.done("prune -f");
    assert_eq!(place.done("images -q").0, "");
}

#[test]
fn bad_words_are_refused_with_the_good_ones() {
    let place = Place::new();
    for (words, says) in [
        ("prune", "kiln prune --force"),
        ("prune -a", "kiln prune --force"),
        ("prune -f --filter colour=red", "there are id, type, description"),
        ("prune -f --filter type=layer", "there are regular, image"),
        ("prune -f --filter until=soon", "--filter until=24h"),
        ("prune -f --reserved-space lots", "--reserved-space 64m"),
        ("prune -f --max-used-space 120%", "0% to 100%"),
        ("du --format yaml", "--format json"),
        ("du --filter id=(", "regular expression"),
    ] {
        let output = place.command(words).output().expect("the program was built");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{words}: {said}");
        assert!(said.contains(says), "{words}: {said}");
    }
    place.settings("[gc]\nkeepStorage = '1GB'\n");
    let output = place.command("build PLACE/context").output().expect("the program was built");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("kiln.toml") && said.contains("`reservedSpace`"), "{said}");
}
