//! When a failed request is tried again.
//!
//! The waits are the same in every run. Many clients that fail together are told apart by the registry's
//! `Retry-After`; a builder that behaves differently each time is told apart by nobody.

use std::time::Duration;

use reqwest::header::{DATE, HeaderMap, RETRY_AFTER};

use crate::settings::Limits;

/// Whether a failure may pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Retry {
    /// It will be the same next time.
    Never,
    /// It may pass, though mostly it is a wrong name or port: two tries.
    Briefly,
    /// It may pass.
    Later,
    /// The server said when.
    After(Duration),
}

/// How long to wait before the next try, after `failures` tries that failed; `None` to give up.
pub(crate) fn wait(limits: &Limits, retry: Retry, failures: u32) -> Option<Duration> {
    let tries = match retry {
        Retry::Never => 0,
        Retry::Briefly => limits.retries.min(2),
        Retry::Later | Retry::After(_) => limits.retries,
    };
    if failures >= tries {
        return None;
    }
    let doubled = limits.first_wait.saturating_mul(2u32.saturating_pow(failures)).min(limits.longest_wait);
    match retry {
        Retry::After(told) => (told <= limits.longest_wait).then(|| told.max(doubled)),
        _ => Some(doubled),
    }
}

/// The wait that a response asks for (RFC 9110, § 10.2.3): seconds, or a date. A date is compared with the
/// response's own `Date`, so that no clock is needed and the server's may be wrong.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name| headers.get(name)?.to_str().ok().map(str::trim);
    let after = text(RETRY_AFTER)?;
    if let Ok(seconds) = after.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let (then, now) = (http_date(after)?, http_date(text(DATE)?)?);
    Some(Duration::from_secs(then.saturating_sub(now)))
}

/// Seconds since 1970 of `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110, § 5.6.7; only the form that servers may
/// still write).
pub(crate) fn http_date(text: &str) -> Option<u64> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let words: Vec<&str> = text.split_ascii_whitespace().collect();
    let [_, day, month, year, time, "GMT"] = words[..] else { return None };
    let month = MONTHS.iter().position(|name| *name == month)? as u64 + 1;
    let (day, year): (u64, u64) = (day.parse().ok()?, year.parse().ok()?);
    let clock: Vec<u64> = time.split(':').map(|part| part.parse().ok()).collect::<Option<_>>()?;
    let [hour, minute, second] = clock[..] else { return None };
    if !(1970..=9999).contains(&year) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    // Years are counted from March, so that a leap day is the last of its year.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1;
    Some((days - 719_468) * 86_400 + hour * 3600 + minute * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (name.parse().expect("a name"), value.parse().expect("a value")))
            .collect()
    }

    #[test]
    fn dates_are_read() {
        for (text, seconds) in [
            ("Thu, 01 Jan 1970 00:00:00 GMT", Some(0)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(784_111_777)),
            ("Thu, 29 Feb 2024 12:00:00 GMT", Some(1_709_208_000)),
            ("Sunday, 06-Nov-94 08:49:37 GMT", None),
            ("Sun, 06 Nov 1994 08:49 GMT", None),
            ("Sun, 99 Nov 1994 08:49:37 GMT", None),
            ("", None),
        ] {
            assert_eq!(http_date(text), seconds, "{text}");
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        for (pairs, seconds) in [
            (vec![("retry-after", "7")], Some(7)),
            (
                vec![
                    ("retry-after", "Sun, 06 Nov 1994 08:49:47 GMT"),
                    ("date", "Sun, 06 Nov 1994 08:49:37 GMT"),
                ],
                Some(10),
            ),
            (vec![("retry-after", "Sun, 06 Nov 1994 08:49:47 GMT")], None),
            (vec![("retry-after", "soon")], None),
            (vec![], None),
        ] {
            assert_eq!(retry_after(&headers(&pairs)), seconds.map(Duration::from_secs), "{pairs:?}");
        }
    }

    #[test]
    fn waits_double_and_end() {
        let limits = Limits::default();
        let waits: Vec<Option<u128>> = (0..6)
            .map(|failures| wait(&limits, Retry::Later, failures).map(|wait| wait.as_millis()))
            .collect();
        assert_eq!(waits, [Some(250), Some(500), Some(1000), Some(2000), Some(4000), None]);
        assert_eq!(wait(&limits, Retry::Never, 0), None);
        assert_eq!(wait(&limits, Retry::Briefly, 2), None);
        assert_eq!(wait(&limits, Retry::After(Duration::from_secs(9)), 0), Some(Duration::from_secs(9)));
        assert_eq!(wait(&limits, Retry::After(Duration::from_secs(3600)), 0), None);
    }
}
