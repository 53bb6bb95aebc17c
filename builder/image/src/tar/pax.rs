//! PAX extended header records: `LENGTH KEYWORD=VALUE\n`.
//!
//! The length counts the whole record, so values may hold newlines and NULs; cutting at newlines instead is how
//! readers come to disagree.

use std::collections::BTreeMap;

use tree::Mtime;

/// The records of one extended header that mean something to us.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Records {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u64>,
    pub(super) gid: Option<u64>,
    pub(super) mtime: Option<Mtime>,
    pub(super) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(super) sparse: Sparse,
}

/// `GNU.sparse.*` records.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Sparse {
    pub(super) major: Option<u64>,
    pub(super) minor: Option<u64>,
    pub(super) name: Option<Vec<u8>>,
    /// `GNU.sparse.size` or `GNU.sparse.realsize`.
    pub(super) real_size: Option<u64>,
    /// `GNU.sparse.map`: offset, length, offset, length, ….
    pub(super) map: Option<Vec<u64>>,
    /// `GNU.sparse.offset` and `GNU.sparse.numbytes`, repeated and in turns.
    pub(super) pairs: Vec<u64>,
    /// Whether any such record was seen.
    pub(super) any: bool,
}

/// A keyword and its value.
type Record<'a> = (&'a [u8], &'a [u8]);

/// Cuts a header's contents into its records.
pub(super) fn records(mut bytes: &[u8]) -> Result<Vec<Record<'_>>, String> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let shown = || bytes[..bytes.len().min(40)].escape_ascii().to_string();
        let blank = bytes.iter().position(|b| *b == b' ').filter(|at| *at <= 20);
        let blank = blank.ok_or_else(|| format!("no length before `{}`", shown()))?;
        let length = decimal(&bytes[..blank]).and_then(|length| usize::try_from(length).ok());
        let length = length.filter(|length| (blank + 2..=bytes.len()).contains(length));
        let length = length.ok_or_else(|| format!("the length of `{}` does not fit", shown()))?;
        let (record, rest) = bytes.split_at(length);
        let Some((b'\n', text)) = record[blank + 1..].split_last() else {
            return Err(format!("`{}` does not end in a newline", shown()));
        };
        let equals = text.iter().position(|b| *b == b'=');
        let equals = equals.filter(|at| *at > 0).ok_or_else(|| format!("no keyword in `{}`", shown()))?;
        found.push((&text[..equals], &text[equals + 1..]));
        bytes = rest;
    }
    Ok(found)
}

/// Reads the records of an extended header that applies to one member. Of a keyword that stands twice the last counts
/// (POSIX); an empty value takes an earlier one back.
pub(super) fn parse(bytes: &[u8]) -> Result<Records, String> {
    let mut parsed = Records::default();
    for (key, value) in records(bytes)? {
        let bad = || {
            let shown = &value[..value.len().min(40)];
            format!("`{}` cannot be `{}`", key.escape_ascii(), shown.escape_ascii())
        };
        match key {
            b"path" => parsed.path = name(value).ok_or_else(bad)?,
            b"linkpath" => parsed.link = name(value).ok_or_else(bad)?,
            b"size" => parsed.size = number(value).ok_or_else(bad)?,
            b"uid" => parsed.uid = number(value).ok_or_else(bad)?,
            b"gid" => parsed.gid = number(value).ok_or_else(bad)?,
            b"mtime" if value.is_empty() => parsed.mtime = None,
            b"mtime" => parsed.mtime = Some(time(value).ok_or_else(bad)?),
            // star's own way to store holes, which no archive at hand uses: the contents would be misread.
            b"SCHILY.realsize" => return Err("star's sparse members are not supported".to_owned()),
            _ => {
                if let Some(attribute) = key.strip_prefix(b"SCHILY.xattr.") {
                    if attribute.is_empty() || attribute.contains(&0) {
                        return Err(bad());
                    }
                    parsed.xattrs.insert(attribute.to_vec(), value.to_vec());
                } else if let Some(key) = key.strip_prefix(b"GNU.sparse.") {
                    sparse(&mut parsed.sparse, key, value).ok_or_else(bad)?;
                }
            }
        }
    }
    Ok(parsed)
}

fn sparse(parsed: &mut Sparse, key: &[u8], value: &[u8]) -> Option<()> {
    parsed.any = true;
    match key {
        b"major" => parsed.major = Some(decimal(value)?),
        b"minor" => parsed.minor = Some(decimal(value)?),
        b"name" => parsed.name = Some(name(value)??),
        b"size" | b"realsize" => parsed.real_size = Some(decimal(value)?),
        b"map" if value.is_empty() => parsed.map = Some(Vec::new()),
        b"map" => parsed.map = Some(value.split(|b| *b == b',').map(decimal).collect::<Option<_>>()?),
        b"offset" if parsed.pairs.len().is_multiple_of(2) => parsed.pairs.push(decimal(value)?),
        b"numbytes" if !parsed.pairs.len().is_multiple_of(2) => parsed.pairs.push(decimal(value)?),
        b"numblocks" => drop(decimal(value)?),
        _ => return None,
    }
    Some(())
}

/// A name: `None` inside where the record takes the name back; nothing where it holds a NUL.
fn name(value: &[u8]) -> Option<Option<Vec<u8>>> {
    (!value.contains(&0)).then(|| (!value.is_empty()).then(|| value.to_vec()))
}

fn number(value: &[u8]) -> Option<Option<u64>> {
    if value.is_empty() { Some(None) } else { decimal(value).map(Some) }
}

/// Digits only, up to `i64::MAX`: what every reader takes for the same number.
pub(super) fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    let value = text.iter().try_fold(0u64, |value, digit| {
        let digit = digit.checked_sub(b'0').filter(|d| *d < 10)?;
        value.checked_mul(10)?.checked_add(u64::from(digit))
    })?;
    (value <= i64::MAX as u64).then_some(value)
}

/// `[-]seconds[.fraction]`; digits past the ninth are dropped.
pub(super) fn time(text: &[u8]) -> Option<Mtime> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (whole, fraction) = match text.iter().position(|b| *b == b'.') {
        Some(dot) => (&text[..dot], &text[dot + 1..]),
        None => (text, &b""[..]),
    };
    let seconds = i64::try_from(decimal(whole)?).ok()?;
    let mut nanoseconds = 0;
    for at in 0..9 {
        let digit = fraction.get(at).map_or(Some(0), |d| d.checked_sub(b'0').filter(|d| *d < 10))?;
        nanoseconds = nanoseconds * 10 + u32::from(digit);
    }
    if !fraction.iter().skip(9).all(u8::is_ascii_digit) {
        return None;
    }
    Some(match (negative, nanoseconds) {
        (false, _) => Mtime { seconds, nanoseconds },
        (true, 0) => Mtime { seconds: -seconds, nanoseconds: 0 },
        (true, _) => Mtime { seconds: -seconds - 1, nanoseconds: 1_000_000_000 - nanoseconds },
    })
}

/// Writes records in the order of their keywords.
pub(super) fn encode(records: &BTreeMap<Vec<u8>, Vec<u8>>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (key, value) in records {
        // " ", "=" and "\n", and the digits of a length that counts its own digits.
        let rest = key.len() + value.len() + 3;
        let mut length = rest + 1;
        while length != rest + length.to_string().len() {
            length = rest + length.to_string().len();
        }
        bytes.extend_from_slice(length.to_string().as_bytes());
        bytes.push(b' ');
        bytes.extend_from_slice(key);
        bytes.push(b'=');
        bytes.extend_from_slice(value);
        bytes.push(b'\n');
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_count_themselves() {
        for length in [1, 5, 90, 95, 980, 990, 9985] {
            let records = BTreeMap::from([(b"path".to_vec(), vec![b'\n'; length])]);
            let bytes = encode(&records);
            assert_eq!(parse(&bytes).expect("valid").path, Some(vec![b'\n'; length]));
        }
    }

    #[test]
    fn times_have_fractions_and_signs() {
        for (text, seconds, nanoseconds) in [
            ("1", 1, 0),
            ("1.5", 1, 500_000_000),
            ("-1", -1, 0),
            ("-1.25", -2, 750_000_000),
            ("0.1234567899", 0, 123_456_789),
        ] {
            assert_eq!(time(text.as_bytes()), Some(Mtime { seconds, nanoseconds }), "{text}");
        }
        for text in ["", "-", ".", "1.x", "1.000000000x", "+1", "1e3", " 1"] {
            assert_eq!(time(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn malformed_records_are_refused() {
        for text in [
            "x",
            "5 a=b",
            "6 a=b\n6",
            "99 a=b\n",
            "3 a\n",
            "6 =ab\n",
            "7 a=b\n",
            "+6 a=b\n",
            "2 ",
            "12 size=-1\n\n",
            "10 size=x\n",
            "99999999999999999999999 a=b\n",
        ] {
            assert!(parse(text.as_bytes()).is_err(), "{text}");
        }
        assert!(parse(b"10 path=\0\n").is_err(), "a NUL in a name");
    }

    #[test]
    fn the_last_of_two_counts_and_an_empty_one_takes_back() {
        let parsed = parse(b"9 size=1\n9 size=2\n9 path=a\n8 path=\n").expect("valid");
        assert_eq!((parsed.size, parsed.path), (Some(2), None));
    }
}
