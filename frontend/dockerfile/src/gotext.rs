//! Texts as Go's `fmt` writes them: the history of an image is compared with BuildKit's, byte by byte.

use dockerfile_parser::text;

/// `%q` of a string: in double quotes, with Go's escapes.
pub(crate) fn quoted(value: &str) -> String {
    let bytes = text::encode(value);
    let mut out = String::with_capacity(value.len() + 2);
    out.push('"');
    for chunk in bytes.utf8_chunks() {
        chunk.valid().chars().for_each(|c| push_escaped(&mut out, c));
        chunk.invalid().iter().for_each(|byte| out.push_str(&format!("\\x{byte:02x}")));
    }
    out.push('"');
    out
}

fn push_escaped(out: &mut String, c: char) {
    match c {
        '"' => out.push_str("\\\""),
        '\\' => out.push_str("\\\\"),
        '\u{7}' => out.push_str("\\a"),
        '\u{8}' => out.push_str("\\b"),
        '\u{c}' => out.push_str("\\f"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        '\u{b}' => out.push_str("\\v"),
        c if printable(c) => out.push(c),
        c if c.is_ascii() => out.push_str(&format!("\\x{:02x}", u32::from(c))),
        c if u32::from(c) <= 0xFFFF => out.push_str(&format!("\\u{:04x}", u32::from(c))),
        c => out.push_str(&format!("\\U{:08x}", u32::from(c))),
    }
}

/// Go's `unicode.IsPrint`, without the unassigned characters, which no Dockerfile has.
fn printable(c: char) -> bool {
    let invisible = matches!(u32::from(c),
        0xAD | 0x200B..=0x200F | 0x202A..=0x202E | 0x2060..=0x206F | 0xFEFF | 0xFFF9..=0xFFFB
        | 0xE000..=0xF8FF | 0xF0000..=0x10FFFF);
    c == ' ' || !(c.is_control() || c.is_whitespace() || invisible)
}

/// `%q` of a list: `["a" "b"]`.
pub(crate) fn quoted_list(values: &[String]) -> String {
    let values: Vec<String> = values.iter().map(|value| quoted(value)).collect();
    format!("[{}]", values.join(" "))
}

/// `%v` of a list: `[a b]`.
pub(crate) fn list(values: &[String]) -> String {
    format!("[{}]", values.join(" "))
}

/// `%v` of a `time.Duration`: `1h30m0s`, `1.5s`, `20ms`.
pub(crate) fn duration(nanoseconds: i64) -> String {
    let sign = if nanoseconds < 0 { "-" } else { "" };
    let total = nanoseconds.unsigned_abs();
    if total == 0 {
        return "0s".to_owned();
    }
    for (unit, size) in [("ns", 1), ("µs", 1_000), ("ms", 1_000_000)] {
        if total < size * 1_000 {
            return format!("{sign}{}{unit}", decimal(total, size));
        }
    }
    let (minutes, seconds) = (total / 60_000_000_000, decimal(total % 60_000_000_000, 1_000_000_000));
    match (minutes / 60, minutes % 60) {
        (0, 0) => format!("{sign}{seconds}s"),
        (0, minutes) => format!("{sign}{minutes}m{seconds}s"),
        (hours, minutes) => format!("{sign}{hours}h{minutes}m{seconds}s"),
    }
}

/// `value / size` without trailing zeros.
fn decimal(value: u64, size: u64) -> String {
    let (whole, rest) = (value / size, value % size);
    if rest == 0 {
        return whole.to_string();
    }
    let digits = size.ilog10() as usize;
    format!("{whole}.{}", format!("{rest:0digits$}").trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_are_gos() {
        for (value, expected) in [
            ("a\tb", r#""a\tb""#),
            (r#"["a", 'b']"#, r#""[\"a\", 'b']""#),
            ("é\u{a0}\u{7f}\u{1}", r#""é\u00a0\x7f\x01""#),
            ("\u{200b}\u{1F600}\u{F0000}", "\"\\u200b\u{1F600}\\U000f0000\""),
            (&text::decode(b"caf\xe9"), r#""caf\xe9""#),
        ] {
            assert_eq!(quoted(value), expected);
        }
        assert_eq!(quoted_list(&["".to_owned(), "two".to_owned()]), r#"["" "two"]"#);
        assert_eq!(list(&["/a".to_owned(), "/b".to_owned()]), "[/a /b]");
    }

    #[test]
    fn durations_are_gos() {
        for (nanoseconds, expected) in [
            (0, "0s"),
            (1, "1ns"),
            (1_500, "1.5µs"),
            (20_000_000, "20ms"),
            (1_500_000_000, "1.5s"),
            (60_000_000_000, "1m0s"),
            (5_400_000_000_000, "1h30m0s"),
            (-30_000_000_000, "-30s"),
        ] {
            assert_eq!(duration(nanoseconds), expected);
        }
    }
}
