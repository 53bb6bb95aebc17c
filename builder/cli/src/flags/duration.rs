//! Durations in whole seconds: `10m`, `1h30m`, `0`.

use super::BadFlag;

/// The seconds of a duration: numbers with units, largest first or not.
pub fn seconds(flag: &'static str, text: &str) -> Result<u64, BadFlag> {
    let bad =
        || BadFlag::new(flag, text, "expected a duration such as 10m, 1h30m or 0", format!("{flag} 10m"));
    if text == "0" {
        return Ok(0);
    }
    let mut rest = text;
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number: u64 = rest[..digits].parse().map_err(|_| bad())?;
        let unit = match rest[digits..].chars().next() {
            Some('s') => 1,
            Some('m') => 60,
            Some('h') => 3600,
            Some('d') => 86_400,
            _ => return Err(bad()),
        };
        total = number.checked_mul(unit).and_then(|part| total.checked_add(part)).ok_or_else(bad)?;
        rest = &rest[digits + 1..];
    }
    if text.is_empty() { Err(bad()) } else { Ok(total) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        for (text, expected) in
            [("0", 0), ("0s", 0), ("90s", 90), ("10m", 600), ("1h30m", 5400), ("2d", 172_800)]
        {
            assert_eq!(seconds("--resolve-ttl", text), Ok(expected), "{text}");
        }
        for text in ["", "10", "m", "-1m", "1x", "1h ", "99999999999999999999s", "9999999999999999999d", "1é"]
        {
            assert!(seconds("--resolve-ttl", text).is_err(), "{text}");
        }
    }
}
