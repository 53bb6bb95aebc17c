//! Patterns of `${v#p}` and its kin: `*`, `?` and plain characters.
//!
//! They mean what BuildKit's translation to Go's regular expressions means: `*` is `.*` and `?` is `.`, so neither
//! matches a line end. Matching keeps a set of places in the pattern, so it takes time in proportion to the lengths of
//! value and pattern, whatever they are.

/// A pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pattern {
    tokens: Vec<Token>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    /// `*`: any characters but line ends.
    Many,
    /// `?`: one character but a line end.
    One,
    Plain(char),
}

impl Pattern {
    /// Reads a pattern. In it `\` stands before `*`, `?` and `\` to mean themselves, and before `}` and `/` because
    /// `${…}` needs it.
    ///
    /// # Errors
    /// What stands behind any other `\`: a character, or nothing.
    pub(super) fn parse(text: &str) -> Result<Pattern, Option<char>> {
        let mut tokens = Vec::new();
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            tokens.push(match c {
                '*' => Token::Many,
                '?' => Token::One,
                '\\' => match chars.next() {
                    Some(c @ ('*' | '?' | '\\' | '}' | '/')) => Token::Plain(c),
                    other => return Err(other),
                },
                c => Token::Plain(c),
            });
        }
        Ok(Pattern { tokens })
    }

    /// How long it can take to hold the pattern against a value.
    pub(super) fn steps(&self, value: &[char]) -> usize {
        (value.len() + 1).saturating_mul(self.tokens.len() + 1)
    }

    /// The pattern for a value written backwards.
    pub(super) fn reversed(&self) -> Pattern {
        Pattern { tokens: self.tokens.iter().rev().copied().collect() }
    }

    /// How many characters of the value's beginning are like the pattern, as few or as many as can be.
    pub(super) fn beginning(&self, value: &[char], longest: bool) -> Option<usize> {
        let mut threads = Threads::new(self);
        let mut found = None;
        threads.add(0, 0);
        for at in 0..=value.len() {
            if threads.accepted().is_some() {
                found = Some(at);
                if !longest {
                    break;
                }
            }
            let Some(c) = value.get(at).filter(|_| !threads.is_empty()) else { break };
            threads.step(*c);
        }
        found
    }

    /// The first part at or behind a place that is like the pattern, as long as can be.
    fn find(&self, value: &[char], from: usize) -> Option<(usize, usize)> {
        let mut threads = Threads::new(self);
        let mut found: Option<(usize, usize)> = None;
        for at in from..=value.len() {
            if found.is_none() {
                threads.add(0, at);
            }
            if let Some(start) = threads.accepted()
                && found.is_none_or(|(best, _)| start <= best)
            {
                found = Some((start, at));
                threads.keep_up_to(start);
            }
            if found.is_some() && threads.is_empty() {
                break;
            }
            let Some(c) = value.get(at) else { break };
            threads.step(*c);
        }
        found
    }

    pub(super) fn replace_first(&self, value: &[char], replacement: &str) -> String {
        match self.find(value, 0) {
            None => value.iter().collect(),
            Some((start, end)) => {
                let mut result: String = value[..start].iter().collect();
                result.push_str(replacement);
                result.extend(&value[end..]);
                result
            }
        }
    }

    /// Replaces each part, from left to right; an empty one only where no other ends. `None` where more than `most` bytes
    /// would come of it.
    pub(super) fn replace_all(&self, value: &[char], template: &str, most: usize) -> Option<String> {
        let mut result = String::new();
        let (mut copied, mut from) = (0, 0);
        while from <= value.len() {
            let Some((start, end)) = self.find(value, from) else { break };
            result.extend(&value[copied..start]);
            if end > copied || start == 0 {
                fill_in(template, &value[start..end], &mut result, most)?;
            }
            copied = end;
            from = end.max(from + 1);
        }
        result.extend(&value[copied.min(value.len())..]);
        Some(result)
    }
}

/// Go's `Regexp.Expand` for an expression without groups. `None` where `result` grows longer than `most` bytes.
fn fill_in(template: &str, part: &[char], result: &mut String, most: usize) -> Option<()> {
    let mut rest = template;
    while let Some(at) = rest.find('$') {
        result.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(behind) = rest.strip_prefix('$') {
            result.push('$');
            rest = behind;
            continue;
        }
        let braced = rest.strip_prefix('{');
        let name = braced.unwrap_or(rest);
        let length = name.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(name.len());
        let (name, behind) = name.split_at(length);
        let behind = if braced.is_some() { behind.strip_prefix('}') } else { Some(behind) };
        match behind {
            Some(behind) if !name.is_empty() => {
                if name == "0" {
                    result.extend(part);
                }
                if result.len() > most {
                    return None;
                }
                rest = behind;
            }
            _ => result.push('$'),
        }
    }
    result.push_str(rest);
    (result.len() <= most).then_some(())
}

/// The places in a pattern that some part of a value has come to; of the parts at one place, where the first begins.
struct Threads<'a> {
    tokens: &'a [Token],
    /// By place; one more than there are tokens, the last being the end.
    starts: Vec<Option<usize>>,
}

impl<'a> Threads<'a> {
    fn new(pattern: &'a Pattern) -> Threads<'a> {
        Threads { tokens: &pattern.tokens, starts: vec![None; pattern.tokens.len() + 1] }
    }

    /// Comes to a place; behind a `*` the next place is come to as well.
    fn add(&mut self, place: usize, start: usize) {
        let mut place = place;
        loop {
            if self.starts[place].is_some_and(|known| known <= start) {
                return;
            }
            self.starts[place] = Some(start);
            if self.tokens.get(place) != Some(&Token::Many) {
                return;
            }
            place += 1;
        }
    }

    fn step(&mut self, c: char) {
        let line_end = c == '\n';
        let before = std::mem::replace(&mut self.starts, vec![None; self.tokens.len() + 1]);
        for (place, start) in before.into_iter().enumerate() {
            let (Some(start), Some(token)) = (start, self.tokens.get(place)) else { continue };
            match token {
                Token::Many if !line_end => self.add(place, start),
                Token::One if !line_end => self.add(place + 1, start),
                Token::Plain(plain) if *plain == c => self.add(place + 1, start),
                _ => {}
            }
        }
    }

    fn accepted(&self) -> Option<usize> {
        self.starts[self.tokens.len()]
    }

    fn is_empty(&self) -> bool {
        self.starts.iter().all(Option::is_none)
    }

    /// Forgets the parts that begin behind a place.
    fn keep_up_to(&mut self, last: usize) {
        for start in &mut self.starts {
            *start = start.filter(|start| *start <= last);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn chars(text: &str) -> Vec<char> {
        text.chars().collect()
    }

    #[test]
    fn beginnings() {
        let cases = [
            ("*/", "a/b/c", Some(2), Some(4)),
            ("*", "abc", Some(0), Some(3)),
            ("?b", "abc", Some(2), Some(2)),
            ("x", "abc", None, None),
            ("", "abc", Some(0), Some(0)),
            ("*b", "a\nb", None, None),
            ("\\*", "*a", Some(1), Some(1)),
            ("*a*b", "xaybzb", Some(4), Some(6)),
            ("[a]", "a", None, None),
        ];
        for (pattern, value, shortest, longest) in cases {
            let (pattern, value) = (Pattern::parse(pattern).unwrap(), chars(value));
            assert_eq!(pattern.beginning(&value, false), shortest, "{pattern:?}");
            assert_eq!(pattern.beginning(&value, true), longest, "{pattern:?}");
        }
        assert_eq!(Pattern::parse("a\\x"), Err(Some('x')));
        assert_eq!(Pattern::parse("a\\"), Err(None));
    }

    #[test]
    fn replacements() {
        let cases = [
            ("b", "abcb", "X", "aXcb", "aXcX"),
            ("b*", "abcb", "X", "aX", "aX"),
            ("?", "a\nb", "X", "X\nb", "X\nX"),
            ("", "ab", "X", "Xab", "XaXbX"),
            ("*", "ab\ncd", "X", "X\ncd", "X\nX"),
            ("b", "abc", "$0$$", "a$0$$c", "ab$c"),
            ("b", "abc", "<$x${0}${y}$", "a<$x${0}${y}$c", "a<b$c"),
            ("b", "abc", "${0", "a${0c", "a${0c"),
            ("z", "abc", "X", "abc", "abc"),
            ("aab", "aaab", "X", "aX", "aX"),
        ];
        for (pattern, value, replacement, first, all) in cases {
            let (pattern, value) = (Pattern::parse(pattern).unwrap(), chars(value));
            assert_eq!(pattern.replace_first(&value, replacement), first, "{pattern:?}");
            assert_eq!(pattern.replace_all(&value, replacement, 99).as_deref(), Some(all), "{pattern:?}");
        }
    }

    /// The same by trying everything.
    fn matches(tokens: &[Token], value: &[char]) -> bool {
        match (tokens.split_first(), value.split_first()) {
            (None, None) => true,
            (Some((Token::Many, rest)), _) if matches(rest, value) => true,
            (Some((Token::Many, _)), Some((c, behind))) => *c != '\n' && matches(tokens, behind),
            (Some((Token::One, rest)), Some((c, behind))) => *c != '\n' && matches(rest, behind),
            (Some((Token::Plain(plain), rest)), Some((c, behind))) => plain == c && matches(rest, behind),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn as_trying_everything_says(pattern in "[ab*?]{0,5}", value in "[ab\n]{0,7}") {
            let (pattern, value) = (Pattern::parse(&pattern).unwrap(), chars(&value));
            let ends = |start: usize| -> Vec<usize> {
                (start..=value.len()).filter(|end| matches(&pattern.tokens, &value[start..*end])).collect()
            };
            let lengths = ends(0);
            prop_assert_eq!(pattern.beginning(&value, false), lengths.first().copied());
            prop_assert_eq!(pattern.beginning(&value, true), lengths.last().copied());
            let first = (0..=value.len()).find_map(|start| {
                Some((start, *ends(start).last()?))
            });
            prop_assert_eq!(pattern.find(&value, 0), first);
        }
    }
}
