//! `kiln du`: what the state folder holds, and how it is written.

use std::fmt::Write as _;

use engine::{DiskUsage, Engine, Took, Usage, words_of};
use serde_json::json;

use super::images::print;
use crate::{
    arguments::Du,
    failure::{Failure, printable},
    flags::{self, Entries},
    machine,
    progress::bytes,
};

/// How entries are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Table,
    Pretty,
    Json,
}

/// Shows what the state folder holds.
pub fn du(engine: &Engine, arguments: &Du) -> Result<(), Failure> {
    let form = form(arguments)?;
    let wanted = flags::entries(&arguments.filters)?;
    let now = machine::clock().now().epoch().0;
    let mut usage = engine.disk_usage()?;
    usage.entries.retain(|entry| is_meant(&wanted, entry, now));
    let mut lines: Vec<String> = match form {
        Form::Table => table(&usage.entries, now),
        Form::Pretty => usage.entries.iter().map(|entry| pretty(entry, now)).collect(),
        Form::Json => usage.entries.iter().map(json_line).collect(),
    };
    if form != Form::Json {
        lines.extend(summary(&usage));
    }
    print(&lines)
}

fn form(arguments: &Du) -> Result<Form, Failure> {
    match (arguments.format.as_deref(), arguments.verbose) {
        (None | Some("table"), false) => Ok(Form::Table),
        (None | Some("pretty"), _) => Ok(Form::Pretty),
        (Some("json"), false) => Ok(Form::Json),
        (Some(other), true) => {
            let message = format!("--verbose and --format {other} do not go together");
            Err(Failure::usage_with(message, "--verbose alone, or --format json, which tells everything"))
        }
        (Some(other), false) => {
            let message = format!("--format {other}: there is no such format");
            Err(Failure::usage_with(message, "--format table, --format pretty or --format json"))
        }
    }
}

fn ago(seconds: u64) -> String {
    format!("{} ago", words_of(seconds))
}

fn is_meant(wanted: &Entries, entry: &Usage, now: u64) -> bool {
    let idle = entry.last_used.map(|used| now.saturating_sub(used.0));
    wanted.filter.as_ref().is_none_or(|filter| filter.matches(entry))
        && idle.is_none_or(|idle| idle >= wanted.unused_seconds)
}

/// A header, and a line for each entry.
pub fn table(entries: &[Usage], now: u64) -> Vec<String> {
    let line = |entry: &Usage| {
        let id = format!("{}{}", short(&entry.id), if entry.mutable { "*" } else { "" });
        let size = format!("{}{}", bytes(entry.size_bytes), if entry.shared { "*" } else { "" });
        let used = entry.last_used.map_or(String::new(), |used| ago(now.saturating_sub(used.0)));
        let description = one_line(&entry.description);
        let description = console::truncate_str(&description, 60, "…");
        let reclaimable = entry.reclaimable_bytes > 0;
        row(&id, &reclaimable.to_string(), &size, &used, &description)
    };
    let header = row("ID", "RECLAIMABLE", "SIZE", "LAST ACCESSED", "DESCRIPTION");
    if entries.is_empty() {
        Vec::new()
    } else {
        std::iter::once(header).chain(entries.iter().map(line)).collect()
    }
}

fn row(id: &str, reclaimable: &str, size: &str, used: &str, description: &str) -> String {
    format!("{id:<14} {reclaimable:<12} {size:<10} {used:<16} {description}").trim_end().to_owned()
}

/// What a Dockerfile says, on one line and without orders to the terminal.
fn one_line(text: &str) -> String {
    printable(&text.trim().replace(['\n', '\t'], " "))
}

/// The beginning of a digest; a word as it is.
fn short(id: &str) -> &str {
    id.get(..12).filter(|_| id.len() == 64).unwrap_or(id)
}

/// All that is known of an entry, a line each, and an empty one.
pub fn pretty(entry: &Usage, now: u64) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        writeln!(text, "{:<16}{value}", format!("{name}:")).expect("a string takes all");
    };
    line("ID", &entry.id);
    if !entry.parents.is_empty() {
        line("Parent", &entry.parents.join(","));
    }
    if let Some(created) = entry.created {
        line("Created at", &created.rfc3339());
    }
    line("Mutable", &entry.mutable.to_string());
    line("Reclaimable", &(entry.reclaimable_bytes > 0).to_string());
    line("In use", &entry.in_use.to_string());
    line("Shared", &entry.shared.to_string());
    line("Size", &bytes(entry.size_bytes));
    if entry.reclaimable_bytes != entry.size_bytes {
        line("Reclaims", &bytes(entry.reclaimable_bytes));
    }
    if !entry.description.is_empty() {
        line("Description", &one_line(&entry.description));
    }
    if let Some(took) = &entry.took {
        line("Processor time", &processor_time(took));
        if let Some(memory) = took.memory_bytes() {
            line("Memory", &bytes(memory));
        }
    }
    if let Some(used) = entry.last_used {
        line("Last used", &ago(now.saturating_sub(used.0)));
    }
    line("Type", entry.kind.as_str());
    text
}

/// The processor time of a step, in user and kernel mode together.
pub fn processor_time(took: &Took) -> String {
    let milliseconds = took.user_microseconds.saturating_add(took.system_microseconds) / 1000;
    match milliseconds {
        0..1000 => format!("{milliseconds} ms"),
        _ => format!("{}.{} s", milliseconds / 1000, milliseconds / 100 % 10),
    }
}

/// As `docker buildx du --format json` has it, with what Kiln knows besides.
fn json_line(entry: &Usage) -> String {
    let line = json!({
        "ID": entry.id,
        "Type": entry.kind.as_str(),
        "Description": entry.description,
        "Parents": entry.parents,
        "CreatedAt": entry.created.map(oci::Epoch::rfc3339),
        "LastUsedAt": entry.last_used.map(oci::Epoch::rfc3339),
        "Mutable": entry.mutable,
        "InUse": entry.in_use,
        "Shared": entry.shared,
        "Reclaimable": entry.reclaimable_bytes > 0,
        "Size": entry.size_bytes,
        "ReclaimableSize": entry.reclaimable_bytes,
        "CostMilliseconds": entry.cost_ms,
        "UserMicroseconds": entry.took.map(|took| took.user_microseconds),
        "SystemMicroseconds": entry.took.map(|took| took.system_microseconds),
        "LargestProcessBytes": entry.took.and_then(|took| took.largest_process_bytes),
        "PeakMemoryBytes": entry.took.and_then(|took| took.peak_memory_bytes),
    });
    line.to_string()
}

fn summary(usage: &DiskUsage) -> Vec<String> {
    let line = |name: &str, count: u64| format!("{name:<16}{}", bytes(count));
    let (shared, total) = (usage.shared_bytes(), usage.total_bytes());
    vec![
        line("Shared:", shared),
        line("Private:", total.saturating_sub(shared)),
        line("Reclaimable:", usage.reclaimable_bytes()),
        line("Total:", total),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description_is_one_line_and_no_order() {
        for (text, shown) in [
            ("RUN make\n", "RUN make"),
            ("RUN <<E\n\tmake\nE", "RUN <<E  make E"),
            ("cache mount \u{1b}[2Jred\u{202e}", "cache mount red"),
        ] {
            assert_eq!(one_line(text), shown, "{text:?}");
        }
    }
}
