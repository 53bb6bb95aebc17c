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
