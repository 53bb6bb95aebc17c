//! From bytes to logical lines: physical lines joined where they are continued, with the way back to the file.

use crate::span::Span;
use crate::text::{self, Piece};
use crate::word::{Escape, Word};
use std::ops::Range;

/// The longest line without its line end, in bytes: that of BuildKit's reader.
pub(crate) const LONGEST_LINE_BYTES: usize = 64 * 1024 - 1;

/// The physical lines of a file, one after the other.
pub(crate) struct Lines<'a> {
    source: &'a [u8],
    at: usize,
}

impl<'a> Lines<'a> {
    /// Begins at the first line, behind a byte order mark.
    pub(crate) fn new(source: &'a [u8]) -> Lines<'a> {
        Lines { source, at: if source.starts_with(b"\xEF\xBB\xBF") { 3 } else { 0 } }
    }

    /// The whole file.
    pub(crate) fn source(&self) -> &'a [u8] {
        self.source
    }

    /// The next line with its line end.
    pub(crate) fn next_line(&mut self) -> Option<Span> {
        let rest = self.source.get(self.at..).filter(|rest| !rest.is_empty())?;
        let length = rest.iter().position(|byte| *byte == b'\n').map_or(rest.len(), |newline| newline + 1);
        let line = Span::new(self.at, self.at + length);
        self.at = line.end;
        Some(line)
    }

    /// A line without its line end.
    pub(crate) fn content(&self, line: Span) -> Span {
        let bytes = &self.source[line.range()];
        let end = bytes.iter().rposition(|byte| !matches!(byte, b'\r' | b'\n')).map_or(0, |last| last + 1);
        Span::new(line.start, line.start + end)
    }

    /// A line without its line end and without white space before it.
    pub(crate) fn trimmed(&self, line: Span) -> Span {
        let content = self.content(line);
        Span::new(content.start + text::leading_white_space(&self.source[content.range()]), content.end)
    }
}

/// A logical line: what is left of continued lines, and where each part of it came from.
#[derive(Debug)]
pub(crate) struct Logical {
    text: String,
    segments: Vec<Segment>,
    /// Where everything is said to be, for a text that is in no file.
    fixed: Option<Span>,
    /// Where the file goes on behind the line.
    end: usize,
    /// Empty lines inside.
    pub(crate) empty_lines: Vec<Span>,
}

/// A part of a logical line that stands in the file in one piece.
#[derive(Debug)]
struct Segment {
    logical: usize,
    source: usize,
    /// Bytes in the file; in the logical line there are as many, or, for an escaped byte, four.
    length: usize,
}

impl Logical {
    /// Reads on from a first line that is neither blank nor a comment, as long as lines are continued.
    ///
    /// A line is continued by the escape character at its end, blanks behind it allowed, unless a second one stands
    /// before it. Comments inside are left out, and so are empty lines.
    pub(crate) fn read(lines: &mut Lines<'_>, first: Span, escape: Escape, fixed: Option<Span>) -> Logical {
        let mut logical = Logical {
            text: String::new(),
            segments: Vec::new(),
            fixed,
            end: first.end,
            empty_lines: Vec::new(),
        };
        let mut continued = logical.take(lines, lines.trimmed(first), escape);
        while continued {
            let Some(line) = lines.next_line() else { break };
            let trimmed = lines.trimmed(line);
            if lines.source[trimmed.range()].starts_with(b"#") {
                continue;
            }
            if trimmed.is_empty() {
                logical.empty_lines.push(logical.fixed.unwrap_or(line));
                continue;
            }
            continued = logical.take(lines, lines.content(line), escape);
        }
        logical
    }

    /// Appends a line, without the character that continues it; says whether there was one.
    fn take(&mut self, lines: &Lines<'_>, line: Span, escape: Escape) -> bool {
        let bytes = &lines.source[line.range()];
        let length = before_continuation(bytes, escape);
        self.end = line.end;
        let mut source = line.start;
        for piece in text::pieces(&bytes[..length.unwrap_or(bytes.len())]) {
            let start = Segment { logical: self.text.len(), source, length: 1 };
            match piece {
                Piece::Text(valid) => {
                    self.segments.push(Segment { length: valid.len(), ..start });
                    self.text.push_str(valid);
                    source += valid.len();
                }
                Piece::Byte(byte) => {
                    self.segments.push(start);
                    self.text.push(text::escaped(byte));
                    source += 1;
                }
            }
        }
        length.is_some()
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Where a part of the line stands in the file, from its first byte to its last.
    pub(crate) fn span(&self, range: Range<usize>) -> Span {
        if let Some(fixed) = self.fixed {
            return fixed;
        }
        let start = self.source(range.start);
        let end = if range.is_empty() { start } else { self.source_behind(range.end - 1) };
        Span::new(start, end)
    }

    /// A part of the line as a word.
    pub(crate) fn word(&self, range: Range<usize>) -> Word {
        Word { text: self.text[range.clone()].to_owned(), span: self.span(range) }
    }

    fn segment(&self, at: usize) -> Option<&Segment> {
        let behind = self.segments.partition_point(|segment| segment.logical <= at);
        self.segments.get(behind.checked_sub(1)?)
    }

    /// The byte of the file that a byte of the line comes from; at the end of the line, where the file goes on.
    fn source(&self, at: usize) -> usize {
        match self.segment(at) {
            Some(segment) if at < self.text.len() => {
                segment.source + (at - segment.logical).min(segment.length)
            }
            _ => self.end,
        }
    }

    /// The byte of the file behind the one that a byte of the line comes from.
    fn source_behind(&self, at: usize) -> usize {
        self.segment(at)
            .map_or(self.end, |segment| segment.source + (at - segment.logical + 1).min(segment.length))
    }
}

/// How many bytes of a line are left where it is continued; `None` where it is not.
fn before_continuation(line: &[u8], escape: Escape) -> Option<usize> {
    // Both escape characters are ASCII.
    let escape = u8::try_from(escape.char()).ok()?;
    let last = line.iter().rposition(|byte| !matches!(byte, b' ' | b'\t'))?;
    let doubled = last > 0 && line[last - 1] == escape;
    (line[last] == escape && !doubled).then_some(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(source: &[u8]) -> Logical {
        let mut lines = Lines::new(source);
        let first = lines.next_line().unwrap();
        Logical::read(&mut lines, first, Escape::Backslash, None)
    }

    #[test]
    fn continuations() {
        let cases: [(&[u8], &str); 10] = [
            (b"RUN a\nRUN b", "RUN a"),
            (b"  RUN a \\\n  b", "RUN a   b"),
            (b"RUN a \\  \t\nb", "RUN a b"),
            (b"RUN a \\\\\nb", "RUN a \\\\"),
            (b"RUN a \\\r\nb\r\n", "RUN a b"),
            (b"RUN a \\\n# no\n  # no\nb", "RUN a b"),
            (b"RUN a \\\n\n \nb", "RUN a b"),
            (b"RUN a \\", "RUN a "),
            (b"RUN \\\n\\\nb", "RUN b"),
            (b"RUN a \\\nb # c \\\nd", "RUN a b # c d"),
        ];
        for (source, expected) in cases {
            assert_eq!(read(source).text(), expected, "{}", String::from_utf8_lossy(source));
        }
        assert_eq!(read(b"RUN a \\\n\n \nb").empty_lines, [Span::new(8, 9), Span::new(9, 11)]);
    }

    #[test]
    fn the_way_back() {
        let source = b"RUN a\xE9b \\\n# c\n  d";
        let line = read(source);
        let at = |text: &str| {
            let start = line.text().find(text).unwrap();
            &source[line.span(start..start + text.len()).range()]
        };
        assert_eq!(at("RUN"), b"RUN");
        assert_eq!(at("a\u{10FFE9}b"), b"a\xE9b");
        assert_eq!(at("\u{10FFE9}"), b"\xE9");
        assert_eq!(at("d"), b"d");
        assert_eq!(at("b   d"), b"b \\\n# c\n  d");
        let end = line.text().len();
        assert_eq!(line.span(end..end), Span::new(source.len(), source.len()));
    }
}
