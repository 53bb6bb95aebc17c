//! The books of a state folder: what there is, what stands on what, and what goes by a policy. Touches no disk.
//!
//! An entry that another stands on stays as long as that one. Records stand on the layers of their result, and on the records
//! of what their result begins with: results are taken from the top. So of a chain of steps the last goes first, with the
//! layer that it made, and only then it is asked what the one below is worth.

use std::{cmp::Reverse, collections::BinaryHeap};

use oci::Digest;
use tree::LayerId;

use crate::{
    policy::{Disk, Rule},
    usage::Usage,
    worth::Worth,
};

/// What an entry is made of, for whoever removes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Thing {
    /// The records of one result, by their rows.
    Records(Vec<i64>),
    /// A layer: its folder and its manifest.
    Layer(LayerId),
    /// A blob.
    Blob,
    /// An image without a name.
    Image(Digest),
    /// A cache mount, by its id.
    CacheMount(String),
    /// A copy of a git repository, by the remote's address.
    Repository(String),
    /// What is remembered of a context, by its file's name.
    Context(String),
    /// An interrupted download, by its file's name.
    Partial(String),
    /// What has no row; whoever collects removes it in any case.
    Strays,
    /// Nothing that could be removed.
    Fixed,
}

/// One thing that the state folder holds.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) usage: Usage,
    pub(crate) thing: Thing,
    /// The blobs that go with it; those that an image with a name needs are not among them.
    pub(crate) blobs: Vec<Digest>,
    /// Of records, the layer that they made: it goes with the last of them.
    pub(crate) made: Option<usize>,
    /// The entries that it stands on.
    pub(crate) below: Vec<usize>,
    /// How many entries stand on it.
    pub(crate) above: usize,
    /// What of it counts as cache: what images with a name need does not.
    pub(crate) cache_bytes: u64,
    /// Whether nothing can be done with it any more.
    pub(crate) rubbish: bool,
    /// Whether it was taken out.
    pub(crate) gone: bool,
}

impl Entry {
    pub(crate) fn new(usage: Usage, thing: Thing) -> Entry {
        Entry {
            usage,
            thing,
            blobs: Vec::new(),
            made: None,
            below: Vec::new(),
            above: 0,
            cache_bytes: 0,
            rubbish: false,
            gone: false,
        }
    }

    fn can_go(&self) -> bool {
        // A blob that an image with a name needs has nothing to give.
        let stays = self.thing == Thing::Fixed || (self.thing == Thing::Blob && self.blobs.is_empty());
        !self.gone && !self.usage.in_use && self.above == 0 && !stays
    }

    /// Whether neither a record nor an image names it.
    fn is_unnamed(&self) -> bool {
        matches!(self.thing, Thing::Layer(_) | Thing::Blob) && !self.usage.shared
    }
}

/// All entries, and what decides about them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger {
    pub(crate) entries: Vec<Entry>,
    pub(crate) disk: Disk,
    /// Seconds since 1970.
    pub(crate) now: u64,
    /// No rule takes an image that was listed within this time.
    pub(crate) keep_images_seconds: u64,
}

impl Ledger {
    pub(crate) fn add(&mut self, entry: Entry) -> usize {
        self.entries.push(entry);
        self.entries.len() - 1
    }

    /// Says that one entry stands on another.
    pub(crate) fn stand(&mut self, above: usize, below: usize) {
        if above != below && !self.entries[above].below.contains(&below) {
            self.entries[above].below.push(below);
            self.entries[below].above += 1;
        }
    }

    /// What the cache takes, in bytes.
    pub(crate) fn used_bytes(&self) -> u64 {
        let left = self.entries.iter().filter(|entry| !entry.gone);
        left.map(|entry| entry.cache_bytes).fold(0, u64::saturating_add)
    }

    /// Takes out what nothing can be done with; with `unnamed`, also what no record, image or build names. In the order in
    /// which they go.
    pub(crate) fn take_rubbish(&mut self, unnamed: bool) -> Vec<usize> {
        let goes = |entry: &Entry| entry.can_go() && (entry.rubbish || (unnamed && entry.is_unnamed()));
        let mut taken = Vec::new();
        let mut look: Vec<usize> = (0..self.entries.len()).collect();
        while let Some(at) = look.pop() {
            if goes(&self.entries[at]) {
                look.extend(self.take(at, &mut taken));
            }
        }
        taken
    }

    /// Takes out what a rule says, the least worth first.
    pub(crate) fn take_by(&mut self, rule: &Rule) -> Vec<usize> {
        let mut used = self.used_bytes();
        let keep = rule.caps.keep_bytes(used, &self.disk);
        let candidate = |ledger: &Ledger, at: usize| {
            let entry = &ledger.entries[at];
            (entry.can_go() && ledger.is_for(rule, entry)).then(|| Reverse((ledger.worth(entry), at)))
        };
        let mut heap: BinaryHeap<_> = (0..self.entries.len()).filter_map(|at| candidate(self, at)).collect();
        let mut taken = Vec::new();
        while keep.is_none_or(|keep| used > keep) {
            let Some(Reverse((_, at))) = heap.pop() else { break };
            let before = taken.len();
            for below in self.take(at, &mut taken) {
                heap.extend(candidate(self, below));
            }
            let freed: u64 = taken[before..].iter().map(|at| self.entries[*at].cache_bytes).sum();
            used = used.saturating_sub(freed);
            self.disk.free_bytes = self.disk.free_bytes.saturating_add(freed);
        }
        taken
    }

    fn is_for(&self, rule: &Rule, entry: &Entry) -> bool {
        let usage = &entry.usage;
        let idle = usage.last_used.map(|used| self.now.saturating_sub(used.0));
        let is_new = matches!(entry.thing, Thing::Image(_))
            && idle.is_some_and(|idle| idle < self.keep_images_seconds);
        !is_new
            && (rule.all || !usage.shared)
            && idle.is_none_or(|idle| idle >= rule.keep_seconds)
            && (rule.filters.is_empty() || rule.filters.iter().any(|filter| filter.matches(usage)))
    }

    fn worth(&self, entry: &Entry) -> Worth {
        let idle = entry.usage.last_used.map_or(0, |used| self.now.saturating_sub(used.0));
        let bytes = |at: &usize| self.entries[*at].cache_bytes;
        let with: u64 = match entry.thing {
            // Nothing else keeps most of them.
            Thing::Image(_) => entry.below.iter().map(bytes).sum(),
            _ => entry.made.as_ref().map_or(0, bytes),
        };
        Worth::new(entry.usage.cost_ms, entry.cache_bytes + with, idle)
    }

    /// Marks an entry as gone, with the layer that it made if nothing else stands on that. Gives what it stood on and nothing
    /// else stands on.
    fn take(&mut self, at: usize, taken: &mut Vec<usize>) -> Vec<usize> {
        self.entries[at].gone = true;
        taken.push(at);
        let mut free = Vec::new();
        for below in self.entries[at].below.clone() {
            self.entries[below].above -= 1;
            if self.entries[below].above == 0 {
                free.push(below);
            }
        }
        if let Some(made) = self.entries[at].made.filter(|made| self.entries[*made].can_go()) {
            free.retain(|at| *at != made);
            free.extend(self.take(made, taken));
        }
        free
    }
}

#[cfg(test)]
mod tests {
    use oci::Epoch;

    use super::*;
    use crate::{
        filter::Filter,
        policy::{Caps, Space},
        usage::UsageType,
    };

    const MIB: u64 = 1 << 20;

    /// An entry of `mib` that costs so much and was used `idle` seconds ago.
    fn entry(id: &str, mib: u64, cost_ms: u64, idle: u64) -> Entry {
        let usage = Usage {
            id: id.to_owned(),
            size_bytes: mib * MIB,
            cost_ms,
            last_used: Some(Epoch(1_000_000 - idle)),
            ..Usage::of(UsageType::Regular)
        };
        let blobs = vec![Digest::of(id.as_bytes())];
        Entry { cache_bytes: mib * MIB, blobs, ..Entry::new(usage, Thing::Blob) }
    }

    /// Adds a layer and the record of the step that made it, on other entries.
    fn step(ledger: &mut Ledger, id: &str, mib: u64, cost_ms: u64, idle: u64, below: &[usize]) -> usize {
        let made = ledger.add(entry(&format!("{id}'s layer"), mib, 0, idle));
        let records = Entry { made: Some(made), ..entry(id, 0, cost_ms, idle) };
        let at = ledger.add(Entry { thing: Thing::Records(vec![1]), ..records });
        ledger.stand(at, made);
        below.iter().for_each(|below| ledger.stand(at, *below));
        at
    }

    /// A base of 100 MiB, a cheap step and an expensive one on it, and one that is in use on another base.
    fn ledger() -> Ledger {
        let mut ledger = Ledger { now: 1_000_000, ..Ledger::default() };
        let base = ledger.add(entry("base", 100, 5_000, 50));
        let copy = step(&mut ledger, "copy", 10, 20, 50, &[base]);
        step(&mut ledger, "make", 10, 60_000, 100, &[base, copy, copy - 1]);
        let other = ledger.add(entry("other base", 40, 3_000, 50));
        let running = step(&mut ledger, "running", 5, 10, 0, &[other]);
        ledger.entries[running].usage.in_use = true;
        let mut tagged = entry("tagged", 20, 10, 500);
        tagged.usage.shared = true;
        ledger.add(tagged);
        ledger
    }

    fn at(ledger: &Ledger, id: &str) -> usize {
        ledger.entries.iter().position(|entry| entry.usage.id == id).expect("it is there")
    }

    /// Without the layers, which go with their records.
    fn ids(ledger: &Ledger, taken: &[usize]) -> Vec<String> {
        let ids = taken.iter().map(|at| ledger.entries[*at].usage.id.clone());
        ids.filter(|id| !id.ends_with("layer")).collect()
    }

    fn max_used(mib: u64) -> Caps {
        Caps { max_used: Some(Space::Bytes(mib * MIB)), ..Caps::default() }
    }

    #[test]
    fn rules_take_from_the_top() {
        let id = |text: &str| vec![Filter::parse(text).expect("a filter")];
        let rule = Rule::default;
        for (what, rule, goes) in [
            ("all that may go", rule(), &["make", "copy", "base"][..]),
            ("what images share, too", Rule { all: true, ..rule() }, &["tagged", "make", "copy", "base"]),
            ("under the cap", Rule { caps: max_used(200), ..rule() }, &[]),
            ("just over it", Rule { caps: max_used(180), ..rule() }, &["make"]),
            (
                "the cheap one is below the expensive one",
                Rule { caps: max_used(170), ..rule() },
                &["make", "copy"],
            ),
            ("a used one keeps what is below", Rule { keep_seconds: 60, ..rule() }, &["make"]),
            ("all were used", Rule { keep_seconds: 101, ..rule() }, &[]),
            ("a filter", Rule { filters: id("id~=m"), ..rule() }, &["make"]),
            ("what is below does not go", Rule { filters: id("id==base"), ..rule() }, &[]),
        ] {
            let mut ledger = ledger();
            let taken = ledger.take_by(&rule);
            assert_eq!(ids(&ledger, &taken), goes, "{what}");
        }
    }

    #[test]
    fn of_equals_the_least_worth_goes_first() {
        let mut ledger = Ledger { now: 1_000_000, ..Ledger::default() };
        for (id, cost_ms, idle) in [("slow", 9_000, 5), ("quick", 90, 5), ("old", 9_000, 900_000)] {
            step(&mut ledger, id, 10, cost_ms, idle, &[]);
        }
        let taken = ledger.take_by(&Rule { caps: max_used(5), ..Rule::default() });
        assert_eq!(ids(&ledger, &taken), ["quick", "old", "slow"]);
    }

    #[test]
    fn an_image_without_a_name_does_not_outlive_a_cache_of_its_size() {
        let mut ledger = Ledger { now: 1_000_000, ..Ledger::default() };
        let base = ledger.add(entry("base", 50, 3_000, 5));
        let image =
            ledger.add(Entry { thing: Thing::Image(Digest::of(b"image")), ..entry("image", 0, 1_000, 5) });
        ledger.stand(image, base);
        ledger.add(entry("cache", 50, 6_000, 5));
        let taken = ledger.take_by(&Rule { caps: max_used(60), ..Rule::default() });
        assert_eq!(ids(&ledger, &taken), ["image", "base"]);
    }

    #[test]
    fn the_disk_gets_free_while_entries_go() {
        let mut ledger = ledger();
        ledger.disk = Disk { total_bytes: 1000 * MIB, free_bytes: 95 * MIB };
        let caps = Caps { min_free: Some(Space::Percent(10)), ..Caps::default() };
        let first = ledger.take_by(&Rule { caps, ..Rule::default() });
        assert_eq!(ids(&ledger, &first), ["make"]);
        assert_eq!(ledger.disk.free_bytes, 105 * MIB);
        assert!(ledger.take_by(&Rule { caps, ..Rule::default() }).is_empty(), "there is room now");
    }

    #[test]
    fn a_layer_goes_with_the_last_that_stands_on_it() {
        let mut ledger = Ledger::default();
        let one = step(&mut ledger, "one", 10, 10, 0, &[]);
        let made = ledger.entries[one].made;
        let two = ledger.add(Entry { made, thing: Thing::Records(vec![2]), ..entry("two", 0, 20, 0) });
        ledger.stand(two, 0);
        let filters = |id: &str| vec![Filter::parse(&format!("id=={id}")).expect("a filter")];
        let taken = ledger.take_by(&Rule { filters: filters("one"), ..Rule::default() });
        assert_eq!(taken, [one]);
        let taken = ledger.take_by(&Rule { filters: filters("two"), ..Rule::default() });
        assert_eq!(taken, [two, 0]);
        assert_eq!(ledger.used_bytes(), 0);
    }

    #[test]
    fn rubbish_goes_by_itself_and_what_nobody_names_on_demand() {
        let mut ledger = ledger();
        for id in ["other base", "base"] {
            let at = at(&ledger, id);
            ledger.entries[at].rubbish = true;
        }
        assert!(ledger.take_rubbish(true).is_empty(), "records stand on both");
        let make = at(&ledger, "make");
        ledger.entries[make].rubbish = true;
        assert_eq!(ids(&ledger, &ledger.clone().take_rubbish(false)), ["make"]);
        let copy = at(&ledger, "copy");
        ledger.entries[copy].rubbish = true;
        let loose = ledger.add(entry("loose", 1, 1, 0));
        let mut taken = ledger.clone().take_rubbish(false);
        taken.sort_unstable();
        assert_eq!(ids(&ledger, &taken), ["base", "copy", "make"]);
        assert!(!taken.contains(&loose));
        assert!(ledger.take_rubbish(true).contains(&loose));
    }
}
