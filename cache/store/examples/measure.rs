//! Measures what a build with nothing to do asks of the state folder: `cargo run --release -p store --example measure`.
//!
//! Each number is the median of several runs in fresh processes' worth of state: a new handle, a new connection.

use std::time::{Duration, Instant, SystemTime};

use oci::{Digest, Epoch};
use store::{Clock, Options, Record, ResultLayer, StatKey, Store};
use tree::{Kind, Layer, LayerPath, Node};

const RECORDS: u64 = 10_000;
const FILES: u64 = 40_000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir_in(".")?;
    let open = || Store::open(Options::new(folder.path(), Clock::new(SystemTime::now)));
    fill(&open()?)?;
    measure("open", || open().map(drop))?;
    measure("open + lease", || open()?.lease().map(drop))?;
    measure("open + lease + first by_definition_key", || {
        let store = open()?;
        store.by_definition_key(&store.lease()?, &key(77)).map(drop)
    })?;
    measure("keep with nothing new", || open()?.keep().map(drop))?;
    let store = open()?;
    let lease = store.lease()?;
    measure("100 further by_definition_key", || {
        (0..100).try_for_each(|n| store.by_definition_key(&lease, &key(n * 97)).map(drop))
    })?;
    measure("100 put_record", || (0..100).try_for_each(|n| store.put_record(&lease, &record(n))))?;
    measure("keep of them", || {
        (0..100).try_for_each(|n| store.put_record(&lease, &record(n)))?;
        store.keep().map(drop)
    })?;
    measure("memo_get", || store.memo_get(&key(1)).map(drop))?;
    let cache = store.hash_cache(b"context")?;
    (0..FILES).for_each(|inode| cache.put(stat(inode), key(inode)));
    let begun = Instant::now();
    let _known = cache.into_known(Some(&lease))?;
    println!("{:>10.3} ms  hash cache of {FILES} files: save, and know them", millis(begun.elapsed()));
    measure("hash cache of 40000 files: load and get all", || {
        let cache = store.hash_cache(b"context")?;
        assert_eq!((0..FILES).filter(|inode| cache.get(&stat(*inode)).is_some()).count() as u64, FILES);
        Ok(())
    })?;
    Ok(())
}

fn measure(what: &str, run: impl Fn() -> store::Result<()>) -> store::Result<()> {
    let mut times = Vec::new();
    for _ in 0..21 {
        let begun = Instant::now();
        run()?;
        times.push(begun.elapsed());
    }
    times.sort();
    println!(
        "{:>10.3} ms  {what} (worst {:.3})",
        millis(times[times.len() / 2]),
        millis(times[times.len() - 1])
    );
    Ok(())
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

fn key(n: u64) -> Digest {
    Digest::of(&n.to_be_bytes())
}

fn stat(inode: u64) -> StatKey {
    StatKey { device: 1, inode, size: 2, mtime_ns: 3, ctime_ns: 4 }
}

/// A record whose result is twenty layers.
fn record(n: u64) -> Record {
    let part = |n| ResultLayer { layer: layer(n).id(), created: Some(Epoch(1)) };
    Record {
        definition_key: key(n),
        content_key: Some(key(n + RECORDS)),
        op: key(n % 100),
        ingredients: Vec::new(),
        result: (0..20).map(part).collect(),
        created: Epoch(2),
        duration_ms: 3,
        took: store::Took::default(),
        stage: "build".to_owned(),
        instruction: format!("RUN step {n}"),
        stays_here: false,
    }
}

fn layer(n: u64) -> Layer {
    let path = LayerPath::parse(n.to_string().as_bytes()).expect("digits are a path");
    Layer { entries: [(path, Node::new(Kind::Fifo, 0o644))].into() }
}

fn fill(store: &Store) -> store::Result<()> {
    let lease = store.lease()?;
    for n in 0..20 {
        store.commit_layer(&lease, &layer(n), Some(&lease.new_folder()?), None)?;
    }
    (0..RECORDS).try_for_each(|n| store.put_record(&lease, &record(n)))?;
    store.keep().map(drop)
}
