//! Answers as text, laid out as buildx does.

use dockerfile::describe::{Needed, Outline, Target};

use super::json::Described;
use crate::failure::printable;

/// Broken rules, each as it is shown beside a build.
pub fn check(warnings: &[String], failed: bool) -> String {
    let mut text = match warnings.len() {
        0 if failed => String::new(),
        0 => "Check complete, no warnings found.\n".to_owned(),
        1 => "Check complete, 1 warning has been found!\n".to_owned(),
        count => format!("Check complete, {count} warnings have been found!\n"),
    };
    for warning in warnings {
        text.push_str(&format!("\n{warning}\n"));
    }
    text
}

/// What a target takes: a table for each kind of thing, an empty line below each.
pub fn outline(outline: &Outline) -> String {
    let mut text = String::new();
    let mut add = |rows: &[Vec<&str>], padding, from| {
        if rows.len() > from {
            text.push_str(&table(rows, padding));
            text.push('\n');
        }
    };
    if outline.name.is_some() || outline.description.is_some() {
        let mut rows = vec![vec!["TARGET:", outline.name.as_deref().unwrap_or("(default)")]];
        rows.extend(outline.description.as_deref().map(|text| vec!["DESCRIPTION:", text]));
        add(&rows, 1, 0);
    }
    let mut rows = vec![vec!["BUILD ARG", "VALUE", "DESCRIPTION"]];
    rows.extend(outline.arguments.iter().map(|used| {
        let (value, description) = (used.value.as_deref(), used.description.as_deref());
        vec![used.name.as_str(), value.unwrap_or_default(), description.unwrap_or_default()]
    }));
    add(&rows, 3, 1);
    for (title, list) in [("SECRET", &outline.secrets), ("SSH", &outline.ssh)] {
        let mut rows = vec![vec![title, "REQUIRED"]];
        let row = |needed: &'_ Needed| (needed.id.clone(), if needed.required { "true" } else { "" });
        let needed: Vec<_> = list.iter().map(row).collect();
        rows.extend(needed.iter().map(|(id, required)| vec![id.as_str(), required]));
        add(&rows, 3, 1);
    }
    text
}

/// The stages of a file.
pub fn targets(targets: &[Target]) -> String {
    let named: Vec<_> = targets
        .iter()
        .map(|target| match (target.name.as_deref(), target.default) {
            (Some(name), true) => format!("{name} (default)"),
            (None, true) => "(default)".to_owned(),
            (name, false) => name.unwrap_or_default().to_owned(),
        })
        .collect();
    let mut rows = vec![vec!["TARGET", "DESCRIPTION"]];
    let described = targets.iter().map(|target| target.description.as_deref().unwrap_or_default());
    rows.extend(named.iter().zip(described).map(|(name, text)| vec![name.as_str(), text]));
    table(&rows, 1)
}

/// What can be called.
pub fn calls(calls: &[Described]) -> String {
    let mut rows = vec![vec!["NAME", "VERSION", "DESCRIPTION"]];
    let short = |name: &'static str| name.trim_start_matches("frontend.");
    rows.extend(calls.iter().map(|call| vec![short(call.name), call.version, call.description]));
    table(&rows, 1)
}

/// Columns as wide as their widest cell and `padding` blanks; nothing is added to the last.
fn table(rows: &[Vec<&str>], padding: usize) -> String {
    let rows: Vec<Vec<String>> =
        rows.iter().map(|row| row.iter().map(|cell| printable(cell)).collect()).collect();
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns.saturating_sub(1)).map(|column| width(column) + padding).collect();
    let mut text = String::new();
    for row in &rows {
        for (column, cell) in row.iter().enumerate() {
            match widths.get(column) {
                Some(width) => text.push_str(&format!("{cell:width$}")),
                None => text.push_str(cell),
            }
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let rows = [vec!["A", "BB", "C"], vec!["äöü", "", "d\u{1b}[31m"], vec!["", "x", ""]];
        assert_eq!(table(&rows, 2), "A    BB  C\näöü      d\n     x   \n");
        assert_eq!(table(&[], 1), "");
    }

    #[test]
    fn warnings_are_counted() {
        let one = vec!["w".to_owned()];
        assert_eq!(check(&[], false), "Check complete, no warnings found.\n");
        assert_eq!(check(&[], true), "");
        assert_eq!(check(&one, true), "Check complete, 1 warning has been found!\n\nw\n");
        assert!(
            check(&[one.clone(), one].concat(), false)
                .starts_with("Check complete, 2 warnings have been found!\n")
        );
    }
}
