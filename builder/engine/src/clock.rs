//! Time comes in as a value.

use std::sync::Arc;

use oci::Epoch;

/// Nanoseconds since 1970-01-01 UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(pub u64);

impl Time {
    /// Whole seconds.
    pub fn epoch(self) -> Epoch {
        Epoch(self.0 / 1_000_000_000)
    }

    /// Milliseconds from `earlier` to this; 0 where the clock went backwards.
    pub fn milliseconds_since(self, earlier: Time) -> u64 {
        self.0.saturating_sub(earlier.0) / 1_000_000
    }

    /// RFC 3339 with nanoseconds, as BuildKit's JSON progress has it.
    pub fn rfc3339(self) -> String {
        let seconds = self.epoch().rfc3339();
        format!("{}.{:09}Z", seconds.trim_end_matches('Z'), self.0 % 1_000_000_000)
    }
}

/// How long that is, in words for people: `3 hours`.
pub fn words_of(seconds: u64) -> String {
    let (count, unit) = match seconds {
        0..60 => (seconds, "second"),
        60..3600 => (seconds / 60, "minute"),
        3600..86_400 => (seconds / 3600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}

/// Tells the time. `cli` makes it; what is hashed never sees it.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Time + Send + Sync>);

impl Clock {
    /// A clock that asks this function.
    pub fn new(now: impl Fn() -> Time + Send + Sync + 'static) -> Clock {
        Clock(Arc::new(now))
    }

    /// The time now.
    pub fn now(&self) -> Time {
        (self.0)()
    }
}

impl std::fmt::Debug for Clock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Clock")
    }
}
