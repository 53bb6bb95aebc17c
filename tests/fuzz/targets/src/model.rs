//! moby's pattern matcher once more, slowly: as its documentation tells it, by trying everything. What is fast must
//! say the same.

/// A pattern of an ignore file.
pub(crate) struct Model {
    negated: bool,
    /// Where `**` begins the pattern and nothing else in it is special: what a path must end with.
    ending: Option<Vec<char>>,
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq)]
enum Part {
    Literal(char),
    /// `?`: a character but `/`.
    One,
    /// `*`: characters but `/`.
    Some,
    /// `**` with more behind it: nothing, or anything that ends in `/`.
    Folders,
    /// `**` at the end: anything.
    Rest,
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
}

impl Model {
    /// Reads a pattern that is clean and known to be valid, `!` in front where it takes back in.
    pub(crate) fn new(pattern: &str) -> Model {
        let (negated, pattern) = match pattern.strip_prefix('!') {
            Some(rest) => (true, rest),
            None => (false, pattern),
        };
        let chars: Vec<char> = pattern.chars().collect();
        let parts = read(&chars);
        let plain = |part: &Part| matches!(part, Part::Literal(_));
        let special = chars.iter().any(|c| matches!(c, '\\' | ']')) || !parts.iter().skip(1).all(plain);
        let ending = (chars.starts_with(&['*', '*']) && !special).then(|| chars[2..].to_vec());
        Model { negated, ending, parts }
    }

    fn matches(&self, path: &[char]) -> bool {
        match &self.ending {
            Some(ending) => path.ends_with(ending) || ending.split_first() == Some((&'/', path)),
            None => matches(&self.parts, path),
        }
    }
}

fn read(chars: &[char]) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut at = 0;
    while let Some(c) = chars.get(at) {
        at += 1;
        parts.push(match c {
            '*' if chars.get(at) == Some(&'*') => {
                at += 1;
                at += usize::from(chars.get(at) == Some(&'/'));
                if at == chars.len() { Part::Rest } else { Part::Folders }
            }
            '*' => Part::Some,
            '?' => Part::One,
            '\\' => {
                at += 1;
                Part::Literal(chars[at - 1])
            }
            '[' => class(chars, &mut at),
            c => Part::Literal(*c),
        });
    }
    parts
}

fn class(chars: &[char], at: &mut usize) -> Part {
    let negated = chars[*at] == '^';
    *at += usize::from(negated);
    let member = |at: &mut usize| {
        *at += usize::from(chars[*at] == '\\');
        *at += 1;
        chars[*at - 1]
    };
    let mut ranges = Vec::new();
    while ranges.is_empty() || chars[*at] != ']' {
        let low = member(at);
        let mut high = low;
        if chars[*at] == '-' {
            *at += 1;
            high = member(at);
        }
        ranges.push((low, high));
    }
    *at += 1;
    Part::Class { negated, ranges }
}

fn matches(parts: &[Part], path: &[char]) -> bool {
    // Row by row, which lengths of the path the parts so far can match.
    let mut reached: Vec<bool> = (0..=path.len()).map(|length| length == 0).collect();
    for part in parts {
        let from = |start: usize, end: usize| part.takes(&path[start..end]);
        reached = (0..=path.len()).map(|end| (0..=end).any(|at| reached[at] && from(at, end))).collect();
    }
    reached[path.len()]
}

impl Part {
    /// Whether these characters are what the part may match.
    fn takes(&self, chars: &[char]) -> bool {
        match (self, chars) {
            (Part::Literal(literal), [c]) => literal == c,
            (Part::One, [c]) => *c != '/',
            (Part::Some, chars) => !chars.contains(&'/'),
            // The expression's dot is not a line end.
            (Part::Folders, chars) => chars.is_empty() || (chars.ends_with(&['/']) && !chars.contains(&'\n')),
            (Part::Rest, chars) => !chars.contains(&'\n'),
            (Part::Class { negated, ranges }, [c]) => {
                ranges.iter().any(|(low, high)| low <= c && c <= high) != *negated
            }
            _ => false,
        }
    }
}

/// Whether patterns leave a path out: folder by folder, the last pattern that matches deciding, a pattern asked only
/// where its answer could change something, and a folder's matches handed down.
pub(crate) fn excludes(patterns: &[Model], path: &str) -> bool {
    let path: Vec<char> = path.chars().collect();
    let mut above = vec![false; patterns.len()];
    let ends = path.iter().enumerate().filter(|(_, c)| **c == '/').map(|(at, _)| at).chain([path.len()]);
    let mut excluded = false;
    for end in ends {
        excluded = false;
        for (pattern, above) in patterns.iter().zip(&mut above) {
            *above = *above || (pattern.negated == excluded && pattern.matches(&path[..end]));
            if *above {
                excluded = !pattern.negated;
            }
        }
    }
    excluded
}
