//! What is collected: an ordered list of rules, as BuildKit has it.
//!
//! A rule says which entries it is for, how long they are kept after their last use, and how much may stay. Each rule is
//! carried out on what the one before it left.

use crate::filter::Filter;

/// A day, in seconds.
const DAY: u64 = 24 * 60 * 60;
/// What a rule leaves where the disk does not say how large it is.
const UNKNOWN_DISK_BYTES: u64 = 20_000_000_000;

/// The file system of a state folder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Disk {
    /// Its size in bytes.
    pub total_bytes: u64,
    /// What this user may still write to it, in bytes.
    pub free_bytes: u64,
}

/// An amount of disk space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    /// So many bytes.
    Bytes(u64),
    /// So many hundredths of the disk.
    Percent(u8),
}

impl Space {
    /// The amount in bytes.
    pub fn bytes(self, disk: &Disk) -> u64 {
        let whole = if disk.total_bytes == 0 { UNKNOWN_DISK_BYTES } else { disk.total_bytes };
        match self {
            Space::Bytes(bytes) => bytes,
            Space::Percent(percent) => {
                u64::try_from(u128::from(whole) * u128::from(percent) / 100).unwrap_or(u64::MAX)
            }
        }
    }
}

/// How much of the cache may stay. The cache is what the state folder holds without what images with a name need.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Caps {
    /// So much always stays.
    pub reserved: Option<Space>,
    /// No more than this stays.
    pub max_used: Option<Space>,
    /// So much of the disk is to be free afterwards.
    pub min_free: Option<Space>,
}

impl Caps {
    /// Sensible ones for a disk: a tenth of it but at most 10 GB always stays; at most four fifths of it and at most 100 GB
    /// are used; a fifth of it is free.
    pub fn of_disk(disk: &Disk) -> Caps {
        let least = |percent, bytes: u64| Space::Bytes(Space::Percent(percent).bytes(disk).min(bytes));
        Caps {
            reserved: Some(least(10, 10_000_000_000)),
            max_used: Some(least(80, 100_000_000_000)),
            min_free: Some(Space::Percent(20)),
        }
    }

    /// How many bytes of the cache stay; `None` where nothing is said of it, so that none need stay.
    pub(crate) fn keep_bytes(&self, used_bytes: u64, disk: &Disk) -> Option<u64> {
        if *self == Caps::default() {
            return None;
        }
        let mut keep = self.max_used.map(|space| space.bytes(disk));
        if let Some(min_free) = self.min_free {
            let lacking = min_free.bytes(disk).saturating_sub(disk.free_bytes);
            let left = used_bytes.saturating_sub(lacking);
            keep = Some(keep.map_or(left, |keep| keep.min(left)));
        }
        let reserved = self.reserved.map_or(0, |space| space.bytes(disk));
        Some(keep.unwrap_or(0).max(reserved))
    }
}

/// One rule of a policy.
#[derive(Clone, Debug, Default)]
pub struct Rule {
    /// The entries that it is for: those that one of these means; with none, all.
    pub filters: Vec<Filter>,
    /// Entries that were used within this time stay, in seconds.
    pub keep_seconds: u64,
    /// How much stays.
    pub caps: Caps,
    /// Whether it is also for entries that images with a name have a part in, and for Kiln's own.
    pub all: bool,
}

/// The rules of automatic collection where nobody wrote others.
pub fn default_policy(caps: Caps) -> Vec<Rule> {
    let reserved = Caps { reserved: caps.reserved, ..Caps::default() };
    let cheap = ["type==source.local", "type==source.git.checkout", "type==exec.cachemount"];
    let parse = |text: &str| Filter::parse(text).expect("a filter of ours");
    vec![
        // What is had again most easily, a week after its last use.
        Rule { filters: cheap.map(parse).to_vec(), keep_seconds: 7 * DAY, caps: reserved, all: false },
        Rule { keep_seconds: 60 * DAY, caps: reserved, ..Rule::default() },
        Rule { caps, ..Rule::default() },
        Rule { caps, all: true, ..Rule::default() },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caps_say_how_much_stays() {
        let disk = Disk { total_bytes: 1000, free_bytes: 100 };
        let (bytes, percent) = (|n| Some(Space::Bytes(n)), |n| Some(Space::Percent(n)));
        let caps = |reserved, max_used, min_free| Caps { reserved, max_used, min_free };
        for (caps, keep) in [
            (Caps::default(), None),
            (caps(bytes(50), None, None), Some(50)),
            (caps(bytes(0), None, None), Some(0)),
            (caps(None, bytes(300), None), Some(300)),
            (caps(None, percent(30), None), Some(300)),
            (caps(None, None, bytes(100)), Some(500)),
            (caps(None, None, bytes(150)), Some(450)),
            (caps(None, bytes(300), bytes(150)), Some(300)),
            (caps(None, bytes(480), bytes(150)), Some(450)),
            (caps(bytes(470), bytes(480), bytes(150)), Some(470)),
            (caps(None, None, percent(90)), Some(0)),
        ] {
            assert_eq!(caps.keep_bytes(500, &disk), keep, "{caps:?}");
        }
    }

    #[test]
    fn the_default_follows_the_disk() {
        let caps = |gb: u64| Caps::of_disk(&Disk { total_bytes: gb * 1_000_000_000, free_bytes: 0 });
        let space = |gb: u64| Some(Space::Bytes(gb * 1_000_000_000));
        assert_eq!((caps(50).reserved, caps(50).max_used), (space(5), space(40)));
        assert_eq!((caps(1000).reserved, caps(1000).max_used), (space(10), space(100)));
        assert!(
            default_policy(caps(50)).iter().all(|rule| rule.caps.keep_bytes(1, &Disk::default()).is_some())
        );
    }
}
