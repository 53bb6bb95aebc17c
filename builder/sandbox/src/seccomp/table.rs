//! From names and conditions to an outcome for each number of an ABI.

use super::list::{Entry, LIST, Then, When};
use super::{Abi, Action, Native};
use crate::{Capability, CapabilitySet};

/// The numbers, a call a line: its name, then a column for each ABI.
const NUMBERS: &[u8] = include_bytes!("numbers.txt");

/// The same, in order of the names, read by the compiler: what is wrong with the file does not compile.
pub(super) static ROWS: [Row; count_rows()] = read_rows();

/// What happens to the calls of one ABI.
pub(super) struct Table {
    pub abi: Abi,
    /// By number, each once. What is not here is refused.
    pub calls: Vec<(u32, Then)>,
}

/// The tables of all ABIs of a machine, its own first.
pub(super) fn tables(native: Native, capabilities: CapabilitySet) -> Vec<Table> {
    let mut tables: Vec<Table> =
        native.abis().iter().map(|abi| Table { abi: *abi, calls: Vec::with_capacity(ROWS.len()) }).collect();
    for Entry { names, when, then } in LIST {
        if !holds(when, native, capabilities) {
            continue;
        }
        for name in names.split(' ') {
            let Ok(found) = ROWS.binary_search_by(|row| row.name.cmp(name)) else { continue };
            for Table { abi, calls } in &mut tables {
                calls.extend(ROWS[found].number(*abi).map(|number| (number, *then)));
            }
        }
    }
    for Table { calls, .. } in &mut tables {
        calls.sort_by_key(|(number, _)| *number);
        // Of two outcomes for one call, one is always that it is allowed, and that one counts.
        calls.dedup_by(|(number, then), (before, outcome)| {
            let same = number == before;
            if same && *then == Then::Do(Action::Allow) {
                *outcome = *then;
            }
            same
        });
    }
    tables
}

pub(super) fn holds(when: &When, native: Native, capabilities: CapabilitySet) -> bool {
    let has = |name: &str| {
        Capability::from_name(name).is_some_and(|one| capabilities.bits() & (1 << one.number()) != 0)
    };
    match when {
        When::Always => true,
        When::With(name) => has(name),
        When::Without(name) => !has(name),
        When::On(machine) => *machine == native,
    }
}

/// A line of [`NUMBERS`].
#[derive(Clone, Copy)]
pub(super) struct Row {
    pub name: &'static str,
    numbers: [Option<u32>; 5],
}

impl Row {
    /// The call's number, where that ABI has the call.
    pub fn number(&self, abi: Abi) -> Option<u32> {
        let column = match abi {
            Abi::X86_64 => 0,
            Abi::I386 => 1,
            Abi::X32 => 2,
            Abi::Arm64 => 3,
            Abi::Arm => 4,
        };
        self.numbers[column]
    }
}

const fn count_rows() -> usize {
    let (mut at, mut rows) = (0, 0);
    while at < NUMBERS.len() {
        if NUMBERS[at] != b'#' {
            rows += 1;
        }
        at = after_line(at);
    }
    rows
}

const fn read_rows<const ROWS: usize>() -> [Row; ROWS] {
    let mut rows = [Row { name: "", numbers: [None; 5] }; ROWS];
    let (mut at, mut row) = (0, 0);
    while at < NUMBERS.len() {
        if NUMBERS[at] != b'#' {
            let (name, mut end) = word(at);
            rows[row].name = match str::from_utf8(name) {
                Ok(name) => name,
                Err(_) => panic!("a name is not ASCII"),
            };
            let mut column = 0;
            while column < 5 {
                let text;
                (text, end) = word(end);
                rows[row].numbers[column] = number(text);
                column += 1;
            }
            assert!(NUMBERS[end] == b'\n', "a line does not have six words");
            row += 1;
        }
        at = after_line(at);
    }
    rows
}

const fn after_line(mut at: usize) -> usize {
    while NUMBERS[at] != b'\n' {
        at += 1;
    }
    at + 1
}

/// The next word, and where it ends.
const fn word(mut start: usize) -> (&'static [u8], usize) {
    while NUMBERS[start] == b' ' {
        start += 1;
    }
    let mut end = start;
    while !NUMBERS[end].is_ascii_whitespace() {
        end += 1;
    }
    (NUMBERS.split_at(start).1.split_at(end - start).0, end)
}

const fn number(text: &[u8]) -> Option<u32> {
    if let [b'-'] = text {
        return None;
    }
    let (mut at, mut number) = (0, 0);
    assert!(!text.is_empty(), "a line does not have six words");
    while at < text.len() {
        assert!(text[at].is_ascii_digit(), "a number has something else in it");
        number = number * 10 + (text[at] - b'0') as u32;
        at += 1;
    }
    Some(number)
}
