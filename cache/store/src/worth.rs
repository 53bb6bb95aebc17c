//! What an entry is worth: which one goes first.
//!
//! ```text
//! worth = cost / size · 2^(-idle / 7 days)
//! ```
//!
//! The cost is the time, in milliseconds, to have it again; the size what removing it frees, in MiB, at least one, and of an
//! image what its layers take too; idle the time since the last use. So of two results of the same size that with the longer step stays, of two equal steps the
//! smaller one, and a week without use halves all. The least worth goes first; where two are equal, the one that was used
//! longer ago.
//!
//! | Entry | Cost |
//! |---|---|
//! | a step's layer | the time that the step took, as its record has it, and 10 ms |
//! | an image's layer, a blob, a download | half a second, and its blob at 20 MB/s |
//! | a cache mount, a git repository | a second, and its bytes at 10 MB/s |
//! | an image without a name | a second: somebody may want to go back to it |
//! | what is remembered of a context | a millisecond for a KiB |

use std::cmp::Ordering;

/// Without use for so long, in seconds, an entry is worth half.
const HALF_LIFE_SECONDS: f64 = 7.0 * 24.0 * 60.0 * 60.0;
const MIB: f64 = 1024.0 * 1024.0;

/// The cost of an image's documents, in milliseconds.
pub(crate) const IMAGE_COST_MS: u64 = 1000;

/// The cost of a step that took so long, in milliseconds.
pub(crate) fn step_cost_ms(duration_ms: u64) -> u64 {
    duration_ms.saturating_add(10)
}

/// The cost of a download of so many bytes, in milliseconds.
pub(crate) fn download_cost_ms(bytes: u64) -> u64 {
    500 + bytes / 20_000
}

/// The cost of filling a cache mount or a repository with so many bytes again, in milliseconds.
pub(crate) fn filling_cost_ms(bytes: u64) -> u64 {
    1000 + bytes / 10_000
}

/// The cost of hashing a context again, of which so many bytes are remembered, in milliseconds.
pub(crate) fn context_cost_ms(bytes: u64) -> u64 {
    bytes / 1024
}

/// What an entry is worth. Greater is worth more.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Worth {
    value: f64,
    idle_seconds: u64,
}

impl Worth {
    pub(crate) fn new(cost_ms: u64, bytes: u64, idle_seconds: u64) -> Worth {
        let size = (bytes as f64 / MIB).max(1.0);
        Worth {
            value: cost_ms as f64 / size * (-(idle_seconds as f64) / HALF_LIFE_SECONDS).exp2(),
            idle_seconds,
        }
    }
}

impl PartialEq for Worth {
    fn eq(&self, other: &Worth) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Worth {}

impl PartialOrd for Worth {
    fn partial_cmp(&self, other: &Worth) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Worth {
    fn cmp(&self, other: &Worth) -> Ordering {
        self.value.total_cmp(&other.value).then(other.idle_seconds.cmp(&self.idle_seconds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_each_pair_goes_first() {
        let (mib, day) = (1 << 20, 24 * 60 * 60);
        for (what, less, more) in [
            ("a shorter step", Worth::new(100, mib, 0), Worth::new(200, mib, 0)),
            ("a larger result", Worth::new(100, 2 * mib, 0), Worth::new(100, mib, 0)),
            ("one that was used longer ago", Worth::new(100, mib, 2 * day), Worth::new(100, mib, day)),
            ("a week halves", Worth::new(199, mib, 7 * day), Worth::new(100, mib, 0)),
            ("and no more", Worth::new(100, mib, 0), Worth::new(201, mib, 7 * day)),
            ("of nothing the older", Worth::new(0, mib, 2), Worth::new(0, mib, 1)),
            ("small ones count as a MiB", Worth::new(10, 1, 0), Worth::new(11, mib, 0)),
            (
                "a compiler before a copy",
                Worth::new(step_cost_ms(30), 50 * mib, 0),
                Worth::new(step_cost_ms(60_000), 50 * mib, day),
            ),
            (
                "a base before a cache of its size",
                Worth::new(download_cost_ms(100 * mib), 300 * mib, 0),
                Worth::new(filling_cost_ms(300 * mib), 300 * mib, 0),
            ),
            (
                "an old cache before a base",
                Worth::new(filling_cost_ms(300 * mib), 300 * mib, 30 * day),
                Worth::new(download_cost_ms(100 * mib), 300 * mib, 0),
            ),
            (
                "remembered hashes before a step",
                Worth::new(context_cost_ms(70_000), 70_000, 0),
                Worth::new(step_cost_ms(500), mib, 0),
            ),
        ] {
            assert!(less < more, "{what}: {less:?} {more:?}");
        }
    }

    #[test]
    fn extremes_have_an_order() {
        let worths =
            [Worth::new(0, 0, u64::MAX), Worth::new(u64::MAX, 0, 0), Worth::new(u64::MAX, u64::MAX, 1)];
        assert!(worths[0] < worths[2] && worths[2] < worths[1]);
    }
}
