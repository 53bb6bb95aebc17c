//! Sizes as Docker writes them: `64m`, `1.5g`, `4096`.

use super::BadFlag;

/// The size in bytes. Units are powers of 1024.
pub fn size_bytes(flag: &'static str, text: &str) -> Result<u64, BadFlag> {
    let bad = || BadFlag::new(flag, text, "expected a size such as 64m, 1g or 4096", format!("{flag} 64m"));
    let lower = text.trim().to_lowercase();
    let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let exponent = match lower[digits.len()..].trim_end_matches('b').trim_end_matches('i') {
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        _ => return Err(bad()),
    };
    let number: f64 = digits.parse().map_err(|_| bad())?;
    let bytes = number * 1024f64.powi(exponent);
    if bytes.is_finite() && (0.0..1e18).contains(&bytes) { Ok(bytes as u64) } else { Err(bad()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        for (text, bytes) in [("1", 1), ("64m", 64 << 20), ("1GiB", 1 << 30), ("1.5k", 1536), ("2kb", 2048)] {
            assert_eq!(size_bytes("--shm-size", text), Ok(bytes), "{text}");
        }
        for text in ["", "m", "-1", "1x", "inf", "1e400"] {
            assert!(size_bytes("--shm-size", text).is_err(), "{text}");
        }
    }
}
