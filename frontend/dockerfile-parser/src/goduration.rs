//! Durations as Go writes them: `1h30m`, `1.5s`, `500ms` (Go's `time.ParseDuration`).

use thiserror::Error;

/// Why a text is not a duration.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DurationError {
    /// Not a number with a unit, or several of them.
    #[error("`{text}` is not of the form `1h30m10s`")]
    Form {
        /// The text.
        text: String,
    },
    /// A number without a unit.
    #[error("`{text}` has a number without a unit")]
    NoUnit {
        /// The text.
        text: String,
    },
    /// A unit that there is not.
    #[error("there is no unit `{unit}`; there are `h`, `m`, `s`, `ms`, `us` and `ns`")]
    Unit {
        /// The unit.
        unit: String,
    },
    /// More than 2^63 nanoseconds, some 292 years.
    #[error("`{text}` is too long")]
    Overflow {
        /// The text.
        text: String,
    },
}

/// Reads a duration, in nanoseconds. It may have a sign; `0` needs no unit.
///
/// # Errors
/// [`DurationError`] says what in the text is wrong.
pub fn parse(text: &str) -> Result<i64, DurationError> {
    let form = || DurationError::Form { text: text.to_owned() };
    let overflow = || DurationError::Overflow { text: text.to_owned() };
    let (negative, mut rest) = match text.strip_prefix(['+', '-']) {
        Some(rest) => (text.starts_with('-'), rest),
        None => (false, text),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(form());
    }
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let length = rest.find(|c: char| c != '.' && !c.is_ascii_digit()).unwrap_or(rest.len());
        let (number, behind) = rest.split_at(length);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return Err(form());
        }
        let length = behind.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(behind.len());
        let (unit, behind) = behind.split_at(length);
        let nanoseconds = match unit {
            "" => return Err(DurationError::NoUnit { text: text.to_owned() }),
            "ns" => 1,
            // The micro sign, and the Greek letter.
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return Err(DurationError::Unit { unit: unit.to_owned() }),
        };
        let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| overflow())? };
        let part =
            whole.checked_mul(nanoseconds).and_then(|part| part.checked_add(below(fraction, nanoseconds)));
        total = part
            .and_then(|part| total.checked_add(part))
            .filter(|total| *total <= 1 << 63)
            .ok_or_else(overflow)?;
        rest = behind;
    }
    match (negative, i64::try_from(total)) {
        (false, Ok(total)) => Ok(total),
        (true, Ok(total)) => Ok(-total),
        (true, Err(_)) => Ok(i64::MIN),
        (false, Err(_)) => Err(overflow()),
    }
}

/// A fraction's digits times a unit, rounded down. Digits below a nanosecond of an hour change nothing.
fn below(fraction: &str, unit: u64) -> u64 {
    let digits = &fraction[..fraction.len().min(18)];
    let value = digits.bytes().fold(0_u128, |value, digit| value * 10 + u128::from(digit - b'0'));
    let scale = (0..digits.len()).fold(1_u128, |scale, _| scale * 10);
    u64::try_from(value * u128::from(unit) / scale).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let good = [
            ("0", 0),
            ("-0", 0),
            ("1s", 1_000_000_000),
            ("1.5s", 1_500_000_000),
            (".5s", 500_000_000),
            ("1.s", 1_000_000_000),
            ("1h30m10s", 5_410_000_000_000),
            ("-1ms", -1_000_000),
            ("1us2µs3μs4ns", 6_004),
            ("0.000000001s", 1),
            ("9223372036854775807ns", i64::MAX),
            ("-9223372036854775808ns", i64::MIN),
        ];
        for (text, expected) in good {
            assert_eq!(parse(text), Ok(expected), "{text}");
        }
        let code = |text: &str| match parse(text) {
            Err(DurationError::Form { .. }) => "form",
            Err(DurationError::NoUnit { .. }) => "no unit",
            Err(DurationError::Unit { .. }) => "unit",
            Err(DurationError::Overflow { .. }) => "overflow",
            Ok(_) => "ok",
        };
        let bad = [
            ("", "form"),
            ("-", "form"),
            ("s", "form"),
            (".s", "form"),
            ("1.2.3s", "form"),
            (" 1s", "form"),
            ("1", "no unit"),
            ("1s2", "no unit"),
            ("1d", "unit"),
            ("1 s", "unit"),
            ("9223372036854775808ns", "overflow"),
            ("99999999999999999999h", "overflow"),
            ("3000000h", "overflow"),
        ];
        for (text, expected) in bad {
            assert_eq!(code(text), expected, "{text}");
        }
    }
}
