//! The time and the boot, as values.

use std::{
    fmt, fs,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use oci::Epoch;

use crate::unique;

/// A clock to stamp and expire with. Whoever opens a store brings it.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> SystemTime + Send + Sync>);

impl Clock {
    /// A clock that asks `now` each time.
    pub fn new(now: impl Fn() -> SystemTime + Send + Sync + 'static) -> Clock {
        Clock(Arc::new(now))
    }

    /// The time in whole seconds; 0 before 1970.
    pub fn epoch(&self) -> Epoch {
        Epoch((self.0)().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()))
    }

    /// The time in nanoseconds since 1970; 0 before it, saturated after the year 2262.
    pub fn nanoseconds(&self) -> i64 {
        let since = (self.0)().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Clock({})", self.epoch().0)
    }
}

/// One run of the kernel, from its start to its stop.
///
/// What was written and not flushed is there for as long as the kernel runs, whoever is killed, and may be lost
/// or half there after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootId(String);

impl BootId {
    /// The run of the kernel that this process is in (`random(4)`, `/proc/sys/kernel/random/boot_id`).
    ///
    /// Where that cannot be read, [`BootId::of_process`]: then only this process trusts what it has not yet kept.
    pub fn of_kernel() -> BootId {
        match fs::read_to_string("/proc/sys/kernel/random/boot_id") {
            Ok(text) if !text.trim().is_empty() => BootId(text.trim().to_owned()),
            _ => BootId::of_process(),
        }
    }

    /// A run that no other process can be in.
    pub fn of_process() -> BootId {
        BootId(format!("process-{}", unique::token()))
    }

    /// A run by its name. White space in it becomes `-`.
    pub fn named(name: &str) -> BootId {
        BootId(name.replace(char::is_whitespace, "-"))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
