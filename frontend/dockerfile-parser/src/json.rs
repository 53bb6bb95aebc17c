//! The exec form: a JSON array of strings. And the member of an object that names a language.
//!
//! As Go's `encoding/json` reads it, because that decides between exec and shell form: what is not JSON to the last
//! byte is a text for the shell; what is JSON but holds anything else than strings is an error.

use std::ops::Range;

/// A string of the array.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Element {
    /// The string, decoded.
    pub(crate) text: String,
    /// Where it stands, quotes included.
    pub(crate) range: Range<usize>,
}

/// What a text is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Array {
    /// An array of strings.
    Strings(Vec<Element>),
    /// An array with something else in it, the first of which is here.
    Mixed(Range<usize>),
    /// Not a JSON array.
    None,
}

/// Arrays in arrays deeper than this are not JSON (Go's limit).
const DEEPEST: usize = 10_000;

/// Reads a text that may be a JSON array.
pub(crate) fn array(text: &str) -> Array {
    let mut reader = Reader { text, at: 0 };
    reader.array().unwrap_or(Array::None)
}

/// The last string of this name in a text that is one JSON object, as Go's `encoding/json` finds it.
pub(crate) fn member(text: &str, name: &str) -> Option<Element> {
    Reader { text, at: 0 }.member(name)
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl Reader<'_> {
    fn array(&mut self) -> Option<Array> {
        let mut strings = Vec::new();
        let mut other = None;
        self.blanks();
        self.expect(b'[')?;
        self.blanks();
        if self.peek()? == b']' {
            self.at += 1;
        } else {
            loop {
                self.blanks();
                let start = self.at;
                if self.peek()? == b'"' {
                    let text = self.string()?;
                    strings.push(Element { text, range: start..self.at });
                } else {
                    self.skip_value()?;
                    other.get_or_insert(start..self.at);
                }
                self.blanks();
                match self.next()? {
                    b',' => {}
                    b']' => break,
                    _ => return None,
                }
            }
        }
        self.blanks();
        if self.at < self.text.len() {
            return None;
        }
        Some(match other {
            None => Array::Strings(strings),
            Some(range) => Array::Mixed(range),
        })
    }

    fn member(&mut self, name: &str) -> Option<Element> {
        let mut found = None;
        self.blanks();
        self.expect(b'{')?;
        self.blanks();
        if self.peek()? == b'}' {
            return None;
        }
        loop {
            self.blanks();
            let wanted = self.string()? == name;
            self.blanks();
            self.expect(b':')?;
            self.blanks();
            let start = self.at;
            let text = match self.peek()? {
                b'"' => Some(self.string()?),
                _ => {
                    self.skip_value()?;
                    None
                }
            };
            if wanted {
                found = text.map(|text| Element { text, range: start..self.at });
            }
            self.blanks();
            match self.next()? {
                b',' => {}
                b'}' => break,
                _ => return None,
            }
        }
        self.blanks();
        found.filter(|_| self.at == self.text.len())
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        (self.next()? == byte).then_some(())
    }

    fn blanks(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    /// Steps over any value. The arrays and objects around it are on a list, not on the stack.
    fn skip_value(&mut self) -> Option<()> {
        let mut around: Vec<u8> = Vec::new();
        loop {
            self.blanks();
            match self.peek()? {
                open @ (b'[' | b'{') => {
                    self.at += 1;
                    self.blanks();
                    if self.peek()? == closing(open) {
                        self.at += 1;
                    } else {
                        if open == b'{' {
                            self.key()?;
                        }
                        around.push(open);
                        if around.len() >= DEEPEST {
                            return None;
                        }
                        continue;
                    }
                }
                b'"' => drop(self.string()?),
                b't' => self.literal("true")?,
                b'f' => self.literal("false")?,
                b'n' => self.literal("null")?,
                _ => self.number()?,
            }
            loop {
                let Some(open) = around.last().copied() else { return Some(()) };
                self.blanks();
                match self.next()? {
                    b',' => {
                        if open == b'{' {
                            self.key()?;
                        }
                        break;
                    }
                    close if close == closing(open) => drop(around.pop()),
                    _ => return None,
                }
            }
        }
    }

    fn key(&mut self) -> Option<()> {
        self.blanks();
        self.string()?;
        self.blanks();
        self.expect(b':')
    }

    fn literal(&mut self, word: &str) -> Option<()> {
        self.text[self.at..].starts_with(word).then(|| self.at += word.len())
    }

    fn number(&mut self) -> Option<()> {
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        if self.peek()? == b'0' {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        Some(())
    }

    fn digits(&mut self) -> Option<()> {
        let start = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        (self.at > start).then_some(())
    }

    fn string(&mut self) -> Option<String> {
        self.expect(b'"')?;
        let mut decoded = String::new();
        loop {
            let rest = &self.text[self.at..];
            let plain = rest.find(|c: char| c == '"' || c == '\\' || c < ' ')?;
            decoded.push_str(&rest[..plain]);
            self.at += plain;
            match self.next()? {
                b'"' => return Some(decoded),
                b'\\' => decoded.push(self.escape()?),
                _ => return None,
            }
        }
    }

    fn escape(&mut self) -> Option<char> {
        Some(match self.next()? {
            quoted @ (b'"' | b'\\' | b'/') => char::from(quoted),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let unit = self.four_digits()?;
                let pair = match unit {
                    0xD800..0xDC00 => self.low_surrogate().map(|low| 0x10000 + ((unit - 0xD800) << 10) + low),
                    _ => Some(unit),
                };
                // Half of a pair alone is the replacement character, as in Go.
                pair.and_then(char::from_u32).unwrap_or(char::REPLACEMENT_CHARACTER)
            }
            _ => return None,
        })
    }

    /// The ten bits of a second half, if one is next; else nothing is read.
    fn low_surrogate(&mut self) -> Option<u32> {
        let start = self.at;
        if self.text[start..].starts_with("\\u") {
            self.at += 2;
            if let Some(low @ 0xDC00..0xE000) = self.four_digits() {
                return Some(low - 0xDC00);
            }
        }
        self.at = start;
        None
    }

    fn four_digits(&mut self) -> Option<u32> {
        let digits = self.text.get(self.at..self.at + 4)?;
        if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        self.at += 4;
        u32::from_str_radix(digits, 16).ok()
    }
}

fn closing(open: u8) -> u8 {
    if open == b'[' { b']' } else { b'}' }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn texts(text: &str) -> Option<Vec<String>> {
        match array(text) {
            Array::Strings(list) => Some(list.into_iter().map(|element| element.text).collect()),
            _ => None,
        }
    }

    #[test]
    fn arrays_of_strings() {
        let cases: [(&str, &[&str]); 7] = [
            ("[]", &[]),
            (r#" [ "a" , "b c" ] "#, &["a", "b c"]),
            (r#"["\u00e9\n\"\/"]"#, &["é\n\"/"]),
            (r#"["\ud83d\ude00"]"#, &["😀"]),
            (r#"["\ud83d\u0041\ude00"]"#, &["\u{FFFD}A\u{FFFD}"]),
            (r#"["\ud83d"]"#, &["\u{FFFD}"]),
            ("[\"\u{7f}é\"]", &["\u{7f}é"]),
        ];
        for (text, expected) in cases {
            assert_eq!(texts(text).unwrap(), expected, "{text}");
        }
        let Array::Strings(list) = array(r#"["a", "b"]"#) else { panic!("not an array") };
        assert_eq!((list[0].range.clone(), list[1].range.clone()), (1..4, 6..9));
    }

    #[test]
    fn arrays_of_other_things() {
        for (text, range) in [
            ("[1, 2]", 1..2),
            (r#"["a", null]"#, 6..10),
            (r#"[["a"]]"#, 1..6),
            (r#"["a", {"b": [1.5e-3, {}], "c": true}, "d"]"#, 6..36),
        ] {
            assert_eq!(array(text), Array::Mixed(range), "{text}");
        }
    }

    #[test]
    fn not_json() {
        let texts = [
            "",
            "[",
            "[a]",
            "['a']",
            r#"["a",]"#,
            r#"["a"] x"#,
            r#"["a" "b"]"#,
            r#"["\x"]"#,
            r#"["\u12"]"#,
            "[\"a\tb\"]",
            "[01]",
            "[1.]",
            "[-]",
            "[{]",
            r#"[{"a"}]"#,
            "[tru]",
            r#"["\u12é4"]"#,
        ];
        for text in texts {
            assert_eq!(array(text), Array::None, "{text}");
        }
        assert_eq!(array(&"[".repeat(1 << 20)), Array::None);
    }

    proptest! {
        #[test]
        fn never_panics(text: String) {
            array(&text);
            array(&format!("[\"{text}\"]"));
        }
    }
}
