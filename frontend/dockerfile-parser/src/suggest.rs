//! "Did you mean …?": keywords of the language by [`nearest`], names that people chose by [`near`].

/// Longer names than this are not typing errors.
const LONGEST: usize = 32;

/// The candidate that a name is closest to, the first of equals, and at most one edit away from, for long names two.
/// Case does not count. `None` also where the name *is* a candidate, but for case.
pub fn nearest<'a>(name: &str, candidates: &[&'a str]) -> Option<&'a str> {
    if name.is_empty() || name.len() > LONGEST {
        return None;
    }
    let name = name.to_ascii_lowercase();
    let most = if name.len() < 6 { 1 } else { 2 };
    let near = candidates.iter().filter(|candidate| candidate.len().abs_diff(name.len()) <= most);
    let distances = near.map(|candidate| (distance(&name, &candidate.to_ascii_lowercase()), *candidate));
    let (edits, found) = distances.min_by_key(|(edits, _)| *edits)?;
    // An edit of every letter says nothing.
    (edits > 0 && edits <= most && edits < name.len()).then_some(found)
}

/// The candidate with the fewest edits to a name that somebody chose, if there are at most two and fewer than letters; the
/// first of equals. Another case is near as well.
pub fn near<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<String> {
    if name.is_empty() || name.len() > 64 {
        return None;
    }
    let wanted = name.to_lowercase();
    candidates
        .filter(|candidate| *candidate != name && candidate.len() <= 64)
        .map(|candidate| (distance(&wanted, &candidate.to_lowercase()), candidate))
        .filter(|(edits, _)| *edits <= 2 && *edits < wanted.chars().count())
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, candidate)| candidate.to_owned())
}

/// The candidate that BuildKit takes a variable's name for: less than three letters put in, taken out or exchanged away,
/// the first of equals; case counts, and nothing protects a short name. What build checks say is compared with it.
pub fn variable<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<String> {
    let near = candidates.filter_map(|candidate| Some((few_edits(name, candidate)?, candidate)));
    near.min_by_key(|(edits, _)| *edits).filter(|(edits, _)| *edits > 0).map(|(_, found)| found.to_owned())
}

/// How many letters are to be put in, taken out or exchanged, if less than three.
fn few_edits(from: &str, to: &str) -> Option<usize> {
    if from.len().abs_diff(to.len()) > 8 || to.len() > 256 {
        return None;
    }
    let letters: Vec<char> = to.chars().collect();
    // One row of the table at a time, as long as there is hope.
    let mut row: Vec<usize> = (0..=letters.len()).collect();
    for (i, letter) in from.chars().enumerate() {
        let mut above_left = std::mem::replace(&mut row[0], i + 1);
        for j in 1..row.len() {
            let exchange = above_left + usize::from(letters[j - 1] != letter);
            above_left = row[j];
            row[j] = exchange.min(above_left + 1).min(row[j - 1] + 1);
        }
        if row.iter().all(|edits| *edits > 2) {
            return None;
        }
    }
    row.pop().filter(|edits| *edits < 3)
}

/// The least number of letters to put in, take out, exchange or swap with a neighbour (optimal string alignment).
fn distance(left: &str, right: &str) -> usize {
    let (left, right): (Vec<char>, Vec<char>) = (left.chars().collect(), right.chars().collect());
    let mut rows = vec![vec![0; right.len() + 1]; left.len() + 1];
    rows[0] = (0..=right.len()).collect();
    for i in 1..=left.len() {
        rows[i][0] = i;
        for j in 1..=right.len() {
            let exchange = rows[i - 1][j - 1] + usize::from(left[i - 1] != right[j - 1]);
            let mut best = exchange.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && left[i - 1] == right[j - 2] && left[i - 2] == right[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[left.len()][right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instruction::KEYWORDS;

    #[test]
    fn typing_errors() {
        let cases = [
            ("RUNN", Some("RUN")),
            ("form", Some("FROM")),
            ("ENTRYPONT", Some("ENTRYPOINT")),
            ("CPOY", Some("COPY")),
            ("RUN", None),
            ("hello", None),
            ("if", None),
            ("", None),
        ];
        for (name, expected) in cases {
            assert_eq!(nearest(name, &KEYWORDS), expected, "{name}");
        }
    }

    #[test]
    fn variables_as_buildkit_takes_them() {
        for (name, names, expected) in [
            ("fooo", &["bar", "foo"][..], Some("foo")),
            ("foo", &["bar"], None),
            ("x", &["A", "B"], Some("A")),
            ("path", &["PATH"], None),
            ("abcd", &["badc"], None),
            ("abc", &["acb", "abd"], Some("abd")),
            ("abc", &["abd", "abc"], None),
            ("", &["ab", "abc"], Some("ab")),
            ("abcdef", &["a"], None),
        ] {
            assert_eq!(variable(name, names.iter().copied()).as_deref(), expected, "{name}");
        }
    }

    #[test]
    fn names_with_typing_errors() {
        let stages = ["build", "test", "release"];
        for (name, expected) in [
            ("biuld", Some("build")),
            ("Build", Some("build")),
            ("tst", Some("test")),
            ("x", None),
            ("zzz", None),
        ] {
            assert_eq!(near(name, stages.into_iter()).as_deref(), expected, "{name}");
        }
    }
}
