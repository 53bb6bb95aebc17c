//! Bytes in strings: how a file that is not UTF-8 is kept without loss.
//!
//! The language is written in characters, so this crate works on `String`; but a path, a heredoc or a command may hold
//! any bytes. A byte that is not part of valid UTF-8 becomes one character of the private range U+10FF80…U+10FFFF
//! (`0x10FF00 + byte`), and a file's own characters of that range are escaped byte by byte, so that
//! `encode(&decode(bytes)) == bytes` for every input. Whoever hands a text to the kernel, to a file or to a digest calls
//! [`encode`] first; for the rest of the world's Dockerfiles it does nothing.

use std::borrow::Cow;

const ESCAPES: std::ops::RangeInclusive<char> = '\u{10FF80}'..='\u{10FFFF}';

/// Bytes as a string, see the module.
pub fn decode(bytes: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.contains(|c| ESCAPES.contains(&c)) => Cow::Borrowed(text),
        _ => {
            let mut text = String::with_capacity(bytes.len());
            for piece in pieces(bytes) {
                match piece {
                    Piece::Text(valid) => text.push_str(valid),
                    Piece::Byte(byte) => text.push(escaped(byte)),
                }
            }
            Cow::Owned(text)
        }
    }
}

/// The bytes that [`decode`] was given.
pub fn encode(text: &str) -> Cow<'_, [u8]> {
    if !text.contains(|c| ESCAPES.contains(&c)) {
        return Cow::Borrowed(text.as_bytes());
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut buffer = [0; 4];
    for c in text.chars() {
        if ESCAPES.contains(&c) {
            // The low eight bits are the byte; the range starts at 0x80.
            bytes.push((u32::from(c) & 0xFF) as u8);
        } else {
            bytes.extend_from_slice(c.encode_utf8(&mut buffer).as_bytes());
        }
    }
    Cow::Owned(bytes)
}

/// A stretch of a file as [`decode`] sees it.
pub(crate) enum Piece<'a> {
    /// Valid UTF-8, taken as it is.
    Text(&'a str),
    /// A byte that gets escaped.
    Byte(u8),
}

/// The character that stands for a byte of 0x80 and above.
pub(crate) fn escaped(byte: u8) -> char {
    char::from_u32(0x10FF00 + u32::from(byte)).unwrap_or(char::REPLACEMENT_CHARACTER)
}

/// Splits bytes into stretches of text and bytes to escape, in order and without gaps.
pub(crate) fn pieces(bytes: &[u8]) -> Vec<Piece<'_>> {
    let mut list = Vec::new();
    for chunk in bytes.utf8_chunks() {
        let mut valid = chunk.valid();
        while let Some(at) = valid.find(|c| ESCAPES.contains(&c)) {
            let (before, rest) = valid.split_at(at);
            let (own, after) = rest.split_at(4);
            list.push(Piece::Text(before));
            list.extend(own.bytes().map(Piece::Byte));
            valid = after;
        }
        list.push(Piece::Text(valid));
        list.extend(chunk.invalid().iter().map(|byte| Piece::Byte(*byte)));
    }
    list.retain(|piece| !matches!(piece, Piece::Text("")));
    list
}

/// How many bytes of white space (Unicode's) a line begins with.
pub(crate) fn leading_white_space(bytes: &[u8]) -> usize {
    match bytes.utf8_chunks().next() {
        Some(chunk) => chunk.valid().len() - chunk.valid().trim_start().len(),
        None => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn escapes() {
        assert!(matches!(decode(b"plain \xc3\xa9"), Cow::Borrowed("plain é")));
        assert_eq!(decode(b"caf\xe9"), "caf\u{10FFE9}");
        assert_eq!(decode("\u{10FFE9}".as_bytes()), "\u{10FFF4}\u{10FF8F}\u{10FFBF}\u{10FFA9}");
        assert_eq!(leading_white_space(b" \t\xc2\xa0x"), 4);
        assert_eq!(leading_white_space(b" \xff x"), 1);
    }

    proptest! {
        #[test]
        fn nothing_is_lost(bytes: Vec<u8>) {
            let text = decode(&bytes);
            prop_assert_eq!(&encode(&text)[..], &bytes[..]);
        }

        #[test]
        fn nothing_is_lost_in_the_private_range(text in "[\u{10FF70}-\u{10FFFF}a]{0,6}") {
            let escaped = decode(text.as_bytes());
            prop_assert_eq!(&encode(&escaped)[..], text.as_bytes());
        }
    }
}
