//! How patient a transfer is: the table `[transfer]` of the settings.
//!
//! ```toml
//! [transfer]
//! connect_seconds = 10       # how long a connection may take to be made
//! idle_seconds = 30          # how long a registry may send, or take, nothing
//! retries = 5                # how often a request is repeated after a failure that may pass
//! first_wait_seconds = 0.25  # the wait before the first of them; each further is twice as long
//! longest_wait_seconds = 60  # no wait is longer, whatever the registry asks for
//! part_mib = 32              # a blob is sent in parts of this many MiB
//! ```

use std::time::Duration;

use serde::Deserialize;

use crate::settings::Limits;

/// The longest time that can be asked for: a day.
const LONGEST_SECONDS: f64 = 86_400.0;

/// The most MiB that a part may have.
const LARGEST_MIB: u64 = 1 << 20;

/// The table as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Transfer {
    connect_seconds: Option<f64>,
    idle_seconds: Option<f64>,
    retries: Option<u32>,
    first_wait_seconds: Option<f64>,
    longest_wait_seconds: Option<f64>,
    part_mib: Option<u64>,
}

/// A value that cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key} is {wanted}")]
pub struct BadTransfer {
    /// The key.
    pub key: &'static str,
    /// What it can be.
    pub wanted: &'static str,
}

impl Transfer {
    /// The limits that it says, and for the rest the defaults.
    pub(crate) fn limits(&self) -> Result<Limits, BadTransfer> {
        let default = Limits::default();
        Ok(Limits {
            connect: seconds("connect_seconds", self.connect_seconds, default.connect)?,
            idle: seconds("idle_seconds", self.idle_seconds, default.idle)?,
            retries: self.retries.unwrap_or(default.retries),
            first_wait: seconds("first_wait_seconds", self.first_wait_seconds, default.first_wait)?,
            longest_wait: seconds("longest_wait_seconds", self.longest_wait_seconds, default.longest_wait)?,
            part_bytes: match self.part_mib {
                None => default.part_bytes,
                Some(mib @ 1..=LARGEST_MIB) => mib << 20,
                Some(_) => {
                    return Err(BadTransfer { key: "part_mib", wanted: "a number from 1 to 1048576" });
                }
            },
            ..default
        })
    }
}

fn seconds(key: &'static str, asked: Option<f64>, default: Duration) -> Result<Duration, BadTransfer> {
    match asked {
        None => Ok(default),
        Some(seconds) if seconds > 0.0 && seconds <= LONGEST_SECONDS => Ok(Duration::from_secs_f64(seconds)),
        Some(_) => Err(BadTransfer { key, wanted: "a number of seconds above 0, a day at most" }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(text: &str) -> Result<Limits, String> {
        let table: Transfer = toml::from_str(text).map_err(|error| error.to_string())?;
        table.limits().map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_said_counts_and_the_rest_is_as_it_was() {
        assert_eq!(limits(""), Ok(Limits::default()));
        let some = limits("idle_seconds = 0.5\nretries = 0\npart_mib = 5\nlongest_wait_seconds = 2");
        let wanted = Limits {
            idle: Duration::from_millis(500),
            retries: 0,
            part_bytes: 5 << 20,
            longest_wait: Duration::from_secs(2),
            ..Limits::default()
        };
        assert_eq!(some, Ok(wanted));
    }

    #[test]
    fn what_cannot_be_used_is_refused_by_its_key() {
        for (text, says) in [
            ("idle_seconds = 0", "idle_seconds is a number"),
            ("connect_seconds = -1", "connect_seconds is"),
            ("first_wait_seconds = nan", "first_wait_seconds is"),
            ("longest_wait_seconds = 1e12", "a day at most"),
            ("part_mib = 0", "part_mib is a number from 1"),
            ("part_mib = 2000000", "part_mib"),
            ("retries = -1", "retries"),
            ("idle = 1", "unknown field"),
        ] {
            let error = limits(text).expect_err(text);
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
