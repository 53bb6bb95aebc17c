//! The bounded run: every target gets its whole corpus and a fixed number of mutations of it, the same ones each time.
//!
//! libFuzzer does more, but needs a nightly compiler; this runs with every `cargo test`. A panic names its input, which
//! is written to a file that `cargo fuzz run TARGET FILE` takes.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use fuzz_targets::{TARGETS, Target};

/// How many mutations each target gets; `KILN_FUZZ_MUTATIONS` says otherwise.
const MUTATIONS: usize = 1000;

/// No mutation grows longer.
const LONGEST: usize = 8192;

/// Pieces that mean something to one of the targets.
const TOKENS: [&[u8]; 40] = [
    b"\n",
    b"\\\n",
    b"\r\n",
    b"\n\n",
    b"# ",
    b"# escape=`\n",
    b"FROM ",
    b"RUN ",
    b"COPY --from=",
    b"ONBUILD ",
    b"<<EOF",
    b"\nEOF\n",
    b"--mount=type=",
    b"[\"",
    b"\"]",
    b"'",
    b"\"",
    b"\\",
    b"`",
    b"$",
    b"${",
    b"}",
    b":-",
    b"//",
    b"**",
    b"**/",
    b"!",
    b"[^",
    b"]",
    b"..",
    b"/",
    b"\0",
    b"\xff",
    b"\xC3\xA9",
    b"\xF4\x8F\xBF\xBF",
    b"18446744073709551616",
    b"0",
    b"=",
    b"@sha256:",
    b"ustar\x0000",
];

/// SplitMix64: small, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`, or 0.
    fn below(&mut self, end: usize) -> usize {
        (self.next() % (end.max(1) as u64)) as usize
    }
}

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../corpus").join(target);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("a file").path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "{} is empty", folder.display());
    paths.iter().map(|path| fs::read(path).expect("a corpus can be read")).collect()
}

/// One input made of others: some places cut out, doubled, overwritten, exchanged for tokens or parts of another.
fn mutate(random: &mut Random, corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = corpus[random.below(corpus.len())].clone();
    for _ in 0..=random.below(4) {
        let start = random.below(bytes.len() + 1);
        let most = if random.below(4) == 0 { 600 } else { 9 };
        let length = random.below(most);
        let end = (start + length).min(bytes.len());
        match random.below(6) {
            0 => drop(bytes.drain(start..end)),
            1 => {
                let piece = bytes[start..end].to_vec();
                drop(bytes.splice(start..start, piece));
            }
            2 if start < bytes.len() => bytes[start] ^= 1 << random.below(8),
            3 => {
                let other = &corpus[random.below(corpus.len())];
                let from = random.below(other.len() + 1);
                let piece = other[from..(from + 4 * length).min(other.len())].to_vec();
                drop(bytes.splice(start..end, piece));
            }
            4 if start < bytes.len() => bytes[start] = random.next().to_le_bytes()[0],
            _ => drop(bytes.splice(start..start, TOKENS[random.below(TOKENS.len())].iter().copied())),
        }
        bytes.truncate(LONGEST);
    }
    bytes
}

/// Runs one input; where it panics, says which it was.
fn run(name: &str, target: Target, input: &[u8]) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| target(input))) {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("fuzz-{name}"));
        fs::write(&path, input).expect("the input can be kept");
        eprintln!("the input is in {}: {:?}", path.display(), String::from_utf8_lossy(input));
        std::panic::resume_unwind(panic);
    }
}

fn feed(name: &str) {
    let (_, target) = TARGETS.into_iter().find(|(known, _)| *known == name).expect("a target");
    let corpus = corpus(name);
    corpus.iter().for_each(|input| run(name, target, input));
    let wanted = std::env::var("KILN_FUZZ_MUTATIONS").ok().and_then(|count| count.parse().ok());
    // The seed is of the target's name, so that each has mutations of its own.
    let mut random = Random(name.bytes().fold(0, |seed, byte| seed * 131 + u64::from(byte)));
    for _ in 0..wanted.unwrap_or(MUTATIONS) {
        run(name, target, &mutate(&mut random, &corpus));
    }
}

#[test]
fn every_corpus_has_a_target() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../corpus");
    let entries = fs::read_dir(folder).expect("a folder");
    let mut names: Vec<_> =
        entries.map(|entry| entry.expect("a folder").file_name().into_string().expect("text")).collect();
    names.sort();
    assert_eq!(names, TARGETS.map(|(name, _)| name));
}

#[test]
fn archive() {
    feed("archive");
}

#[test]
fn documents() {
    feed("documents");
}

#[test]
fn expander() {
    feed("expander");
}

#[test]
fn ignore() {
    feed("ignore");
}

#[test]
fn lower() {
    feed("lower");
}

#[test]
fn manifest() {
    feed("manifest");
}

#[test]
fn names() {
    feed("names");
}

#[test]
fn parser() {
    feed("parser");
}

#[test]
fn tar() {
    feed("tar");
}

#[test]
fn xz() {
    feed("xz");
}
