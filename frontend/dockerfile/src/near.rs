//! "Did you mean …?" for the names of a file: stages and variables.

/// The candidate with the fewest edits to `name`, if there are at most two and fewer than letters; the first of
/// equals. Case counts as one edit at most.
pub(crate) fn near<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<String> {
    if name.is_empty() || name.len() > 64 {
        return None;
    }
    let wanted = name.to_lowercase();
    candidates
        .filter(|candidate| *candidate != name && candidate.len() <= 64)
        .map(|candidate| (edits(&wanted, &candidate.to_lowercase()), candidate))
        .filter(|(edits, _)| *edits <= 2 && *edits < wanted.chars().count())
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, candidate)| candidate.to_owned())
}

/// How many letters must be put in, taken out or exchanged.
fn edits(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in right.iter().enumerate() {
            let exchange = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = exchange.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typing_errors_are_near() {
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
