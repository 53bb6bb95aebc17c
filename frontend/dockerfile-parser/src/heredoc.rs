//! `<<EOF`: text inside the file.
//!
//! A heredoc opens where one of the line's shell words is `[fd]<<[-]delimiter`. Shell words, because a quoted `"<<EOF"`
//! opens none, and `cat <<EOF > f` does. The words are those of BuildKit's lexer: `<<` takes the blanks behind it into
//! its word, and a line that the lexer refuses (an open quote, a `${…}` it does not know) opens none at all.

use crate::expand;
use crate::span::Span;
use std::ops::Range;

/// A heredoc of `RUN`, `COPY` or `ADD`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heredoc {
    /// The delimiter without its quotes; for `COPY` and `ADD` the file's name.
    pub name: String,
    /// The file descriptor before `<<`, 0 where there is none.
    pub descriptor: u32,
    /// Whether variables in it are expanded (by [`expand::heredoc`] in `COPY` and `ADD`, by the shell in `RUN`): no
    /// part of the delimiter is quoted.
    pub expand: bool,
    /// `<<-`: whether leading tabs are taken off each line. `content` still has them; [`Heredoc::text`] has not.
    pub chomp: bool,
    /// The lines as they stand in the file, line ends included, without the delimiter's.
    pub content: String,
    /// The word that opens it: `<<EOF`.
    pub span: Span,
    /// The lines of `content` in the file.
    pub body: Span,
}

impl Heredoc {
    /// The content, for `<<-` without leading tabs. Not expanded.
    pub fn text(&self) -> String {
        if !self.chomp {
            return self.content.clone();
        }
        self.content.split_inclusive('\n').map(|line| line.trim_start_matches('\t')).collect()
    }
}

/// A heredoc, and where the word that opens it stands in the logical line.
pub(crate) type Placed = (Range<usize>, Heredoc);

/// The word that opens a heredoc.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Opening {
    pub(crate) name: String,
    pub(crate) descriptor: u32,
    pub(crate) expand: bool,
    pub(crate) chomp: bool,
    /// Where the word stands in the logical line.
    pub(crate) range: Range<usize>,
}

impl Opening {
    /// Whether a line, without its line end, is the delimiter.
    pub(crate) fn is_closed_by(&self, line: &str) -> bool {
        self.name == if self.chomp { line.trim_start_matches('\t') } else { line }
    }
}

/// The heredocs that a logical line opens, in order.
pub(crate) fn openings(line: &str) -> Vec<Opening> {
    if !line.contains("<<") {
        return Vec::new();
    }
    let words = expand::raw_words(line).unwrap_or_default();
    words.into_iter().filter_map(|(word, range)| opening(&word, range)).collect()
}

/// Whether a command is nothing but one heredoc's word.
pub(crate) fn is_all_of(command: &str) -> bool {
    opening(command, 0..command.len()).is_some()
}

/// Reads a word as `[fd]<<[-]delimiter`.
fn opening(word: &str, range: Range<usize>) -> Option<Opening> {
    let digits = word.len() - word.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let rest = word[digits..].strip_prefix("<<")?;
    let (chomp, rest) = match rest.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, rest),
    };
    let delimiter = rest.trim_start();
    if delimiter.contains('<') {
        return None;
    }
    let name = expand::delimiter(delimiter, false)?;
    let quoted = expand::delimiter(delimiter, true)?;
    let quotes = |text: &str| text.matches(['\'', '"']).count();
    Some(Opening {
        expand: quotes(&name) == quotes(&quoted),
        descriptor: word[..digits].parse().unwrap_or(0),
        name,
        chomp,
        range,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_opens() {
        let cases: [(&str, &[&str]); 29] = [
            ("RUN <<EOF", &["EOF"]),
            ("RUN <<-EOF", &["EOF"]),
            ("RUN 3<<EOF", &["EOF"]),
            ("RUN <<'EOF'", &["EOF"]),
            ("RUN <<\"E F\"", &["E F"]),
            ("RUN <<E'O'F", &["EOF"]),
            ("RUN <<eo\\'f", &["eo'f"]),
            ("RUN <<$EOF", &["$EOF"]),
            ("RUN <<  EOF", &["EOF"]),
            ("RUN <<  EOF  > foo", &["EOF"]),
            ("RUN << -EOF", &["-EOF"]),
            ("RUN <<- EOF", &[]),
            ("COPY <<a.txt <<b.txt /", &["a.txt", "b.txt"]),
            ("RUN cat <<A > f && sh <<B", &["A", "B"]),
            ("RUN <<EOF;", &["EOF;"]),
            ("RUN x<<EOF", &[]),
            ("RUN <<<EOF", &[]),
            ("RUN <<< EOF", &[]),
            ("RUN <<", &[]),
            ("RUN <<-", &[]),
            ("RUN <<''", &[]),
            ("RUN '<<EOF'", &[]),
            ("RUN \"<<EOF\"", &[]),
            ("RUN echo $((1<<2)) <<EOF", &["EOF"]),
            ("RUN echo $((1 << 2))", &["2))"]),
            ("RUN echo it's <<EOF", &[]),
            ("RUN echo ${x^^} <<EOF", &[]),
            ("RUN echo ${x:0:3} ${y:-'z'} <<EOF", &["EOF"]),
            ("RUN echo \\<<EOF", &[]),
        ];
        for (line, expected) in cases {
            let names: Vec<_> = openings(line).into_iter().map(|opening| opening.name).collect();
            assert_eq!(names, expected, "{line}");
        }
    }

    #[test]
    fn what_an_opening_says() {
        let found = openings("RUN cat 4<<-'A B' 1>x");
        let expected =
            Opening { name: "A B".into(), descriptor: 4, expand: false, chomp: true, range: 8..17 };
        assert_eq!(found, [expected]);
        assert!(
            found[0].is_closed_by("\t\tA B")
                && !found[0].is_closed_by(" A B")
                && !found[0].is_closed_by("A B ")
        );
        assert!(openings("RUN <<eo\\'f")[0].expand && !openings("RUN <<'e'o\\'f")[0].expand);
        assert!(is_all_of("<< 'A B'") && !is_all_of("<<A sh") && !is_all_of("cat <<A"));
    }
}
