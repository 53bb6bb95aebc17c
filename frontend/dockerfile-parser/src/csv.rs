//! One line of comma-separated values, as `--mount` and `--device` hold their options (RFC 4180; Go's `encoding/csv`).

use std::ops::Range;

/// One value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Field {
    /// The value without its quotes.
    pub(crate) text: String,
    /// Where it stands in the line, quotes included.
    pub(crate) range: Range<usize>,
}

/// Why a line is not comma-separated values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CsvError {
    /// A quote inside a value that does not begin with one.
    #[error("there is a `\"` inside a value that does not begin with one")]
    StrayQuote,
    /// Something between a closing quote and the next comma.
    #[error("there is text between a closing `\"` and the next comma")]
    TrailingText,
    /// A quote that is never closed.
    #[error("a `\"` is not closed")]
    Unclosed,
}

/// Splits a line at its commas. A value that begins with `"` ends at the next one; `""` inside stands for `"`.
pub(crate) fn fields(line: &str) -> Result<Vec<Field>, CsvError> {
    let mut list = Vec::new();
    let mut start = 0;
    loop {
        let rest = &line[start..];
        let (text, length) = match rest.strip_prefix('"') {
            Some(quoted) => {
                let (text, length) = quoted_value(quoted)?;
                (text, length + 1)
            }
            None => {
                let length = rest.find(',').unwrap_or(rest.len());
                if rest[..length].contains('"') {
                    return Err(CsvError::StrayQuote);
                }
                (rest[..length].to_owned(), length)
            }
        };
        let end = start + length;
        list.push(Field { text, range: start..end });
        match line[end..].chars().next() {
            None => return Ok(list),
            Some(',') => start = end + 1,
            Some(_) => return Err(CsvError::TrailingText),
        }
    }
}

/// The value behind an opening quote, and how many bytes it takes with its closing quote.
fn quoted_value(quoted: &str) -> Result<(String, usize), CsvError> {
    let mut text = String::new();
    let mut at = 0;
    loop {
        let Some(length) = quoted[at..].find('"') else { return Err(CsvError::Unclosed) };
        text.push_str(&quoted[at..at + length]);
        at += length + 1;
        if !quoted[at..].starts_with('"') {
            return Ok((text, at));
        }
        text.push('"');
        at += 1;
    }
}

/// A truth value as Go's `strconv.ParseBool` reads it.
pub(crate) fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let texts =
            |line| fields(line).map(|list| list.into_iter().map(|field| field.text).collect::<Vec<_>>());
        let good: [(&str, &[&str]); 6] = [
            ("", &[""]),
            ("a,b=c", &["a", "b=c"]),
            ("a,,", &["a", "", ""]),
            (r#""a,b",c"#, &["a,b", "c"]),
            (r#""a""b""#, &[r#"a"b"#]),
            (" a ,b", &[" a ", "b"]),
        ];
        for (line, expected) in good {
            assert_eq!(texts(line).as_deref(), Ok(expected.map_owned().as_slice()), "{line}");
        }
        assert_eq!(texts(r#"a"b"#), Err(CsvError::StrayQuote));
        assert_eq!(texts(r#""a"b"#), Err(CsvError::TrailingText));
        assert_eq!(texts(r#""a"#), Err(CsvError::Unclosed));
        let ranges: Vec<_> = fields(r#"a,"b,",c"#).unwrap().into_iter().map(|field| field.range).collect();
        assert_eq!(ranges, [0..1, 2..6, 7..8]);
    }

    trait MapOwned {
        fn map_owned(&self) -> Vec<String>;
    }

    impl MapOwned for &[&str] {
        fn map_owned(&self) -> Vec<String> {
            self.iter().map(|text| (*text).to_owned()).collect()
        }
    }

    #[test]
    fn booleans() {
        assert_eq!(
            [boolean("true"), boolean("F"), boolean("yes"), boolean("")],
            [Some(true), Some(false), None, None]
        );
    }
}
