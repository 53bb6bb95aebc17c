//! Places in the file: byte ranges, and the lines and columns that people count.

use std::ops::Range;

/// A range of bytes in the file, `start` included, `end` not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    /// Offset of the first byte.
    pub start: usize,
    /// Offset after the last byte; never below `start`.
    pub end: usize,
}

impl Span {
    /// The range from `start` up to, not including, `end`.
    pub fn new(start: usize, end: usize) -> Span {
        Span { start, end: end.max(start) }
    }

    /// How many bytes the range holds.
    pub fn len(self) -> usize {
        self.end - self.start
    }

    /// Whether the range holds no byte: a place between two bytes.
    pub fn is_empty(self) -> bool {
        self.start == self.end
    }

    /// The smallest range that holds both.
    pub fn to(self, other: Span) -> Span {
        Span { start: self.start.min(other.start), end: self.end.max(other.end) }
    }

    /// The same as a `std` range, to slice the file with.
    pub fn range(self) -> Range<usize> {
        self.start..self.end
    }
}

/// A line and a column, both counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The line, from 1.
    pub line: usize,
    /// The column in bytes, from 1.
    pub column: usize,
}

/// Where the lines of a file begin: turns offsets into lines and columns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LineIndex {
    /// Offset of the first byte of each line; the first is 0.
    starts: Vec<usize>,
    length: usize,
}

impl LineIndex {
    /// Finds the lines of a file: each ends with `\n`.
    pub fn new(source: &[u8]) -> LineIndex {
        let newlines = source.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
        let starts = std::iter::once(0).chain(newlines.map(|(offset, _)| offset + 1)).collect();
        LineIndex { starts, length: source.len() }
    }

    /// The line and column of a byte; an offset behind the end counts as the end.
    pub fn position(&self, offset: usize) -> Position {
        let offset = offset.min(self.length);
        let line = self.starts.partition_point(|start| *start <= offset);
        Position { line, column: offset - self.starts[line - 1] + 1 }
    }

    /// First and last line that a range touches, from 1; the range's last byte decides, so that a range which ends
    /// with a newline does not touch the next line.
    pub fn lines(&self, span: Span) -> (usize, usize) {
        let last = if span.is_empty() { span.start } else { span.end - 1 };
        (self.position(span.start).line, self.position(last).line)
    }

    /// The bytes of a line, its `\n` included; `None` where the file has no such line.
    pub fn line_span(&self, line: usize) -> Option<Span> {
        let start = *self.starts.get(line.checked_sub(1)?)?;
        Some(Span::new(start, self.starts.get(line).copied().unwrap_or(self.length)))
    }

    /// How many lines the file has; at least 1.
    pub fn line_count(&self) -> usize {
        self.starts.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions() {
        let index = LineIndex::new(b"ab\n\ncd");
        let at = |offset| (index.position(offset).line, index.position(offset).column);
        assert_eq!(
            [at(0), at(2), at(3), at(4), at(6), at(99)],
            [(1, 1), (1, 3), (2, 1), (3, 1), (3, 3), (3, 3)]
        );
        assert_eq!(index.lines(Span::new(0, 3)), (1, 1));
        assert_eq!(index.lines(Span::new(0, 4)), (1, 2));
        assert_eq!(index.line_span(1), Some(Span::new(0, 3)));
        assert_eq!(index.line_span(3), Some(Span::new(4, 6)));
        assert_eq!((index.line_span(0), index.line_span(4), index.line_count()), (None, None, 3));
    }
}
