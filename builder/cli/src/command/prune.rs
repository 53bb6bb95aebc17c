//! `kiln prune`: removes what the flags say, after asking.

use std::io::{BufRead, Write};

use engine::{Caps, Engine, Rule};

use super::{du, images::print};
use crate::{arguments::Prune, failure::Failure, flags, machine, progress::bytes};

/// Removes.
pub fn prune(engine: &Engine, arguments: &Prune) -> Result<(), Failure> {
    let rule = rule(arguments)?;
    if !arguments.force && !is_wanted(arguments)? {
        return Ok(());
    }
    let freed = engine.prune(vec![rule])?;
    let now = machine::clock().now().epoch().0;
    let mut lines: Vec<String> = match arguments.verbose {
        true => freed.entries.iter().map(|entry| du::pretty(entry, now)).collect(),
        false => du::table(&freed.entries, now),
    };
    lines.push(format!("{:<16}{}", "Total:", bytes(freed.disk_bytes())));
    print(&lines)
}

fn rule(arguments: &Prune) -> Result<Rule, Failure> {
    let wanted = flags::entries(&arguments.filters)?;
    let space =
        |flag, text: &Option<String>| text.as_deref().map(|text| flags::space(flag, text)).transpose();
    let caps = Caps {
        reserved: space("--reserved-space", &arguments.reserved_space)?,
        max_used: space("--max-used-space", &arguments.max_used_space)?,
        min_free: space("--min-free-space", &arguments.min_free_space)?,
    };
    let filters = wanted.filter.into_iter().collect();
    Ok(Rule { filters, keep_seconds: wanted.unused_seconds, caps, all: arguments.all })
}

/// Asks, where somebody can answer.
fn is_wanted(arguments: &Prune) -> Result<bool, Failure> {
    if !rustix::termios::isatty(std::io::stdin()) {
        return Err(Failure::usage_with(
            "this asks before it removes anything, and standard input is no terminal",
            "kiln prune --force",
        ));
    }
    let what = match arguments.all {
        true => "all of the build cache, also what images with a name have a part in",
        false => "the build cache but what images with a name have a part in, and images without a name",
    };
    let narrowed = !arguments.filters.is_empty()
        || [&arguments.reserved_space, &arguments.max_used_space, &arguments.min_free_space]
            .iter()
            .any(|space| space.is_some());
    let within = if narrowed { ", as far as the flags say" } else { "" };
    let ask = || -> std::io::Result<String> {
        let mut out = std::io::stderr().lock();
        write!(out, "WARNING! This removes {what}{within}.\nGo on? [y/N] ")?;
        out.flush()?;
        let mut answer = String::new();
        std::io::stdin().lock().read_line(&mut answer)?;
        Ok(answer)
    };
    let answer = ask().map_err(|error| Failure::machine(format!("cannot ask: {error}")))?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
