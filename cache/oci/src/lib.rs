//! Names and shapes of the OCI specifications: digests, references, platforms, and the three JSON documents.
//!
//! Pure: nothing here reads a file, a socket, the clock or the environment. `oci-spec` gives the media
//! types and standard names; the documents are our own, because that crate's image config loses Docker's fields and its maps
//! serialise in random order (decision 0004).

mod canonical;
pub mod config;
pub mod digest;
pub mod document;
pub mod media_type;
pub mod platform;
pub mod reference;

pub use config::{Config, Healthcheck, History, ImageConfig, RootFs};
pub use digest::{BadDigest, BlobDigest, ChainId, DiffId, Digest, Hasher};
pub use document::{BadDocument, Descriptor, Index, Manifest};
pub use media_type::MediaType;
pub use platform::{BadPlatform, Platform};
pub use reference::{BadReference, PinnedImage, Reference, Version};

/// Seconds since 1970-01-01 UTC. Comes in with the request; no crate but `cli` may ask the clock.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, serde::Serialize, serde::Deserialize,
)]
#[serde(transparent)]
pub struct Epoch(pub u64);

/// A text that is no [`Epoch`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no number of seconds from 1970 to the year 9999")]
pub struct BadEpoch(pub String);

impl std::str::FromStr for Epoch {
    type Err = BadEpoch;

    /// A count of seconds. RFC 3339, in which images tell their times, ends with the year 9999.
    fn from_str(text: &str) -> Result<Epoch, BadEpoch> {
        let seconds = text.parse().ok().filter(|seconds| *seconds <= Epoch::LAST.0);
        seconds.map(Epoch).ok_or_else(|| BadEpoch(text.to_owned()))
    }
}

impl Epoch {
    /// The last second of the year 9999.
    const LAST: Epoch = Epoch(253_402_300_799);

    /// RFC 3339 in UTC with whole seconds, the form of `created` in an image config: `2026-11-22T01:02:03Z`.
    pub fn rfc3339(self) -> String {
        let (days, rest) = (self.0 / 86_400, self.0 % 86_400);
        let (year, month, day) = civil_from_days(days);
        format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", rest / 3600, rest / 60 % 60, rest % 60)
    }
}

/// Year, month and day of a count of days since 1970-01-01, in the proleptic Gregorian calendar.
fn civil_from_days(days: u64) -> (u64, u64, u64) {
    // Years are counted from 1 March of year 0, so that a leap day is the last day of its year.
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::Epoch;

    #[test]
    fn epochs_are_written_as_rfc3339() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_700_000_000, "2023-11-14T22:13:20Z"),
            (4_102_444_800, "2100-01-01T00:00:00Z"),
        ] {
            assert_eq!(Epoch(seconds).rfc3339(), text);
        }
    }

    #[test]
    fn epochs_are_read_as_far_as_they_can_be_written() {
        assert_eq!("0".parse(), Ok(Epoch(0)));
        assert_eq!("253402300799".parse(), Ok(Epoch::LAST));
        assert_eq!(Epoch::LAST.rfc3339(), "9999-12-31T23:59:59Z");
        for bad in ["", "-1", "1.5", "now", "253402300800", "18446744073709551615", "99999999999999999999"] {
            assert!(bad.parse::<Epoch>().is_err(), "{bad}");
        }
    }
}
