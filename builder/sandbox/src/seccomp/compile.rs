//! From tables to a program: the architecture, then the ABI, then a search for the number, then its argument.
//!
//! Neighbours with the same outcome are one run, and the search is over runs. A single number in a run of something else is
//! one comparison (`is it this one?`), not two; the rest is halved until a few runs are left. Numbers of x32 are very large
//! numbers of x86-64, so asking for them costs the others nothing.

use super::bpf::{AND, ANY_BIT, AT_LEAST, Assembler, EQUAL, LOAD, Label};
use super::list::{NEWER, OTHERWISE, Test, Then};
use super::table::Table;
use super::{Abi, Action, Filter, X32_BIT};

/// Offsets in `struct seccomp_data`; arguments are little-endian words of 64 bits.
pub(super) const NUMBER: u32 = 0;
pub(super) const ARCHITECTURE: u32 = 4;
pub(super) const ARGUMENT: u32 = 16;
const ARGUMENT_UPPER: u32 = 20;

/// The kernel has fewer calls than this, so larger numbers need not be found fast.
const NUMBERS: u32 = 512;

/// Exceptions that are compared with one by one at the end of a search.
const EXCEPTIONS: usize = 2;

/// A program for these tables. A call of any other architecture ends the process: it has numbers that nobody has looked at.
pub(super) fn compile(tables: &[Table]) -> Filter {
    let mut code = Assembler::default();
    let mut architecture = code.end(Action::KillProcess.value());
    let mut x32 = None;
    // The machine's own is tested first, so it is written last.
    for table in tables.iter().rev() {
        let search = match table.abi {
            Abi::X32 => {
                let search = number(&mut code, table, None);
                x32 = Some(code.step(AND, !X32_BIT, search));
                continue;
            }
            Abi::X86_64 => number(&mut code, table, x32),
            _ => number(&mut code, table, None),
        };
        let search = code.step(LOAD, NUMBER, search);
        architecture = code.branch(EQUAL, table.abi.audit_architecture(), search, architecture);
    }
    code.step(LOAD, ARCHITECTURE, architecture);
    Filter::from_instructions(code.finish())
}

/// Goes on by the number, which is loaded; numbers of x32 go on there.
fn number(code: &mut Assembler, table: &Table, x32: Option<Label>) -> Label {
    let otherwise = code.end(OTHERWISE.value());
    let allow = code.end(Action::Allow.value());
    let mut runs = Runs::default();
    let mut next = 0;
    for (number, then) in &table.calls {
        if *number > next {
            runs.add(next, otherwise);
        }
        let outcome = match then {
            Then::Do(Action::Allow) => allow,
            Then::Do(action) => code.end(action.value()),
            Then::AllowIf(test) => argument(code, table.abi, test, otherwise),
        };
        runs.add(*number, outcome);
        next = number + 1;
    }
    let newer = code.end(NEWER.value());
    runs.add(next, newer);
    if let Some(x32) = x32 {
        runs.add(X32_BIT, x32);
        runs.add(X32_BIT << 1, newer);
    }
    search(code, &runs.0)
}

/// Goes on by the first argument, which is not loaded.
fn argument(code: &mut Assembler, abi: Abi, test: &Test, otherwise: Label) -> Label {
    let allow = code.end(Action::Allow.value());
    match test {
        Test::Without(bits) => {
            let compare = code.branch(ANY_BIT, *bits, otherwise, allow);
            code.step(LOAD, ARGUMENT, compare)
        }
        Test::In(ranges) => {
            let mut runs = Runs::default();
            let mut next = 0_u64;
            for (first, last) in *ranges {
                if u64::from(*first) > next {
                    runs.add(next as u32, otherwise);
                }
                runs.add(*first, allow);
                next = u64::from(*last) + 1;
            }
            if let Ok(next) = u32::try_from(next) {
                runs.add(next, otherwise);
            }
            let compare = search(code, &runs.0);
            let lower = code.step(LOAD, ARGUMENT, compare);
            if !abi.has_wide_arguments() {
                return lower;
            }
            let upper = code.branch(EQUAL, 0, lower, otherwise);
            code.step(LOAD, ARGUMENT_UPPER, upper)
        }
    }
}

/// All values of a word, by the first of each run of values with the same outcome.
#[derive(Default)]
pub(super) struct Runs(Vec<(u32, Label)>);

impl Runs {
    /// All of them.
    pub(super) fn whole(self) -> Vec<(u32, Label)> {
        self.0
    }

    /// From here on it is this.
    pub(super) fn add(&mut self, first: u32, outcome: Label) {
        if self.0.last().is_none_or(|(_, last)| *last != outcome) {
            self.0.push((first, outcome));
        }
    }
}

/// Goes on by the run that the loaded word is in. The first run holds whatever is smaller than the second.
pub(super) fn search(code: &mut Assembler, runs: &[(u32, Label)]) -> Label {
    let groups = groups(runs);
    let end = runs.last().map_or(0, |(last, _)| last.saturating_add(1).min(NUMBERS));
    halve(code, runs, &groups, end)
}

/// Cuts runs into groups that [`one_group`] tells apart by equality: how many runs each has.
fn groups(runs: &[(u32, Label)]) -> Vec<usize> {
    let mut groups = Vec::new();
    let mut rest = runs;
    while !rest.is_empty() {
        let mut length = 1;
        while length < 2 * EXCEPTIONS && is_exception(rest, length) {
            length += 2;
        }
        groups.push(length);
        rest = &rest[length..];
    }
    groups
}

/// Whether the run at this index is one value, and what follows is what came before.
fn is_exception(runs: &[(u32, Label)], index: usize) -> bool {
    match runs.get(index - 1..=index + 1) {
        Some([(_, before), (value, _), (after_it, after)]) => before == after && after_it - value == 1,
        _ => false,
    }
}

/// Cuts where about half of the values below `end` are on each side: the kernel asks for every number once, so long runs
/// have to be found first.
fn halve(code: &mut Assembler, runs: &[(u32, Label)], groups: &[usize], end: u32) -> Label {
    if let [_] = groups {
        return one_group(code, runs);
    }
    let middle = runs[0].0 + end.saturating_sub(runs[0].0) / 2;
    let cuts = (1..groups.len()).scan(0, |before, group| {
        *before += groups[group - 1];
        Some((group, *before))
    });
    let (group, cut) = cuts.min_by_key(|(_, run)| runs[*run].0.abs_diff(middle)).unwrap_or((1, groups[0]));
    let (below, above) = runs.split_at(cut);
    let yes = halve(code, above, &groups[group..], end);
    let no = halve(code, below, &groups[..group], above[0].0);
    code.branch(AT_LEAST, above[0].0, yes, no)
}

/// One outcome, but for single values.
fn one_group(code: &mut Assembler, runs: &[(u32, Label)]) -> Label {
    let exceptions = runs.iter().skip(1).step_by(2);
    exceptions.fold(runs[0].1, |rest, (value, outcome)| code.branch(EQUAL, *value, *outcome, rest))
}
