//! The program against the list, number by number, with an interpreter of its own.

pub(super) mod interpreter;
mod numbers;

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::list::{Entry, LIST, NEWER, OTHERWISE, Test, Then, When};
use super::table::{ROWS, holds, tables};
use super::{Abi, Action, Filter, Native, X32_BIT, compile};
use crate::{Capability, CapabilitySet};
use interpreter::{Data, check, run};

const NATIVES: [Native; 2] = [Native::X86_64, Native::Arm64];

/// The kernel takes no longer program (`BPF_MAXINSNS`).
const LONGEST: usize = 4096;

fn filter(native: Native, capabilities: CapabilitySet) -> Filter {
    compile::compile(&tables(native, capabilities))
}

fn sets() -> Vec<CapabilitySet> {
    let default = CapabilitySet::docker_default();
    let admin = Capability::from_name("SYS_ADMIN").expect("it is a capability");
    vec![default, CapabilitySet::EMPTY, CapabilitySet::ALL, default.with(admin)]
}

/// What the list says, entry by entry.
struct Listed {
    wide: bool,
    /// The numbers of each entry that holds.
    entries: Vec<(Vec<u32>, Then)>,
}

impl Listed {
    fn new(native: Native, abi: Abi, capabilities: CapabilitySet) -> Listed {
        let number_of = |name: &str| ROWS.iter().find(|row| row.name == name).and_then(|row| row.number(abi));
        let holding = LIST.iter().filter(|entry| holds(&entry.when, native, capabilities));
        let entry = |entry: &Entry| (entry.names.split(' ').filter_map(number_of).collect(), entry.then);
        Listed { wide: abi.has_wide_arguments(), entries: holding.map(entry).collect() }
    }

    fn says(&self, number: u32, argument: u64) -> Action {
        let argument = if self.wide { argument } else { argument & 0xffff_ffff };
        let mut found = None;
        for (_, then) in self.entries.iter().filter(|(numbers, _)| numbers.contains(&number)) {
            let outcome = match then {
                Then::Do(action) => Some(*action),
                Then::AllowIf(Test::Without(bits)) => {
                    (argument & u64::from(*bits) == 0).then_some(Action::Allow)
                }
                Then::AllowIf(Test::In(ranges)) => ranges
                    .iter()
                    .any(|(first, last)| (u64::from(*first)..=u64::from(*last)).contains(&argument))
                    .then_some(Action::Allow),
            };
            found = if found == Some(Action::Allow) { found } else { outcome.or(found) };
        }
        let greatest = self.entries.iter().flat_map(|(numbers, _)| numbers).max();
        found.unwrap_or(if Some(&number) > greatest { NEWER } else { OTHERWISE })
    }

    /// Whether the argument counts.
    fn tests(&self, number: u32) -> bool {
        let tests = |(numbers, then): &(Vec<u32>, Then)| {
            numbers.contains(&number) && matches!(then, Then::AllowIf(_))
        };
        self.entries.iter().any(tests)
    }
}

fn data(abi: Abi, number: u32, argument: u64) -> Data {
    let number = if abi == Abi::X32 { number | X32_BIT } else { number };
    Data { number, architecture: abi.audit_architecture(), arguments: [argument, u64::MAX, 3, 4, 5, 6] }
}

/// Values at which a test of an argument can change its mind.
fn telling_arguments() -> Vec<u64> {
    let mut values = BTreeSet::from([0, 1, u64::MAX, 1 << 32, 1 << 63]);
    for entry in LIST {
        match entry.then {
            Then::Do(_) => {}
            Then::AllowIf(Test::Without(bits)) => {
                values.extend((0..64).map(|bit| 1 << bit));
                values.extend([u64::from(*bits), u64::from(!*bits)]);
            }
            Then::AllowIf(Test::In(ranges)) => {
                for end in ranges.iter().flat_map(|(first, last)| [*first, *last]).map(u64::from) {
                    values.extend([end, end + 1, end.saturating_sub(1), end | 1 << 32]);
                }
            }
        }
    }
    values.into_iter().collect()
}

#[test]
fn the_program_says_what_the_list_says() {
    let all = telling_arguments();
    let far = [0xf_0000, 0xf_0001, 0xf_0005, 0xf_0006, 1 << 29, u32::MAX >> 2];
    for (native, capabilities) in
        NATIVES.into_iter().flat_map(|native| sets().into_iter().map(move |set| (native, set)))
    {
        let filter = filter(native, capabilities);
        for abi in native.abis() {
            let listed = Listed::new(native, *abi, capabilities);
            for number in (0..700).chain(far) {
                let tested = listed.tests(number);
                for argument in if tested { &all[..] } else { &[0] } {
                    let found = run(filter.instructions(), &data(*abi, number, *argument));
                    let what = format!("{abi:?} {number} ({argument:#x}) with {capabilities}");
                    assert_eq!(found.value, listed.says(number, *argument).value(), "{what}");
                    // Otherwise the kernel could not remember that the call is allowed.
                    assert!(tested || !found.read_arguments, "{what}");
                }
            }
        }
    }
}

/// The capabilities that the list asks for.
fn asked_for() -> Vec<Capability> {
    let names = LIST.iter().filter_map(|entry| match entry.when {
        When::With(name) | When::Without(name) => Capability::from_name(name),
        When::Always | When::On(_) => None,
    });
    names.collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn it_does_so_for_any_number_argument_and_set(
        calls in prop::collection::vec(
            (
                prop_oneof![0_u32..600, 0xf_0000_u32..0xf_0010, 0_u32..X32_BIT],
                prop_oneof![any::<u64>(), 0_u64..64],
            ),
            50,
        ),
        has in any::<u32>(),
    ) {
        let capabilities: CapabilitySet =
            (0..).zip(asked_for()).filter(|(bit, _)| has & 1 << bit != 0).map(|(_, one)| one).collect();
        for native in NATIVES {
            let filter = filter(native, capabilities);
            for abi in native.abis() {
                let listed = Listed::new(native, *abi, capabilities);
                for (number, argument) in &calls {
                    let found = run(filter.instructions(), &data(*abi, *number, *argument));
                    prop_assert_eq!(found.value, listed.says(*number, *argument).value());
                }
            }
        }
    }
}

#[test]
fn the_kernel_would_take_it() {
    for native in NATIVES {
        for capabilities in sets() {
            let filter = filter(native, capabilities);
            assert!(filter.instructions().len() <= LONGEST);
            check(filter.instructions());
        }
    }
}

/// A filter is turned into machine code and run over all numbers whenever a step starts.
#[test]
fn it_is_short_and_shallow() {
    let table = [(Native::X86_64, 223, 15), (Native::Arm64, 177, 16)];
    for (native, length, depth) in table {
        let filter = filter(native, CapabilitySet::docker_default());
        let own = native.abis()[0];
        let deepest = (0..470).map(|number| run(filter.instructions(), &data(own, number, 0)).steps).max();
        assert_eq!((filter.instructions().len(), deepest), (length, Some(depth)), "{native:?}");
    }
}

#[test]
fn unknown_architectures_and_numbers() {
    let filter = filter(Native::X86_64, CapabilitySet::docker_default());
    let value = |architecture, number| {
        run(filter.instructions(), &Data { number, architecture, arguments: [0; 6] }).value
    };
    let own = Abi::X86_64.audit_architecture();
    assert_eq!(value(Abi::Arm.audit_architecture(), 0), libc::SECCOMP_RET_KILL_PROCESS);
    assert_eq!(value(0, 0), libc::SECCOMP_RET_KILL_PROCESS);
    for number in [467, 1000, 1 << 29, 1 << 31, u32::MAX, X32_BIT | 600] {
        assert_eq!(value(own, number), NEWER.value(), "{number:#x}");
    }
}

#[test]
fn the_same_every_time_and_made_once() {
    let default = CapabilitySet::docker_default();
    assert_eq!(filter(Native::X86_64, default), filter(Native::X86_64, default));
    if let Some(first) = Filter::docker_default(default) {
        let second = Filter::docker_default(default).expect("it was there before");
        assert!(std::ptr::eq(first.instructions(), second.instructions()));
    }
}

#[test]
fn every_name_of_the_list_is_a_call_and_every_call_is_in_the_list() {
    let listed: BTreeSet<&str> = LIST.iter().flat_map(|entry| entry.names.split(' ')).collect();
    assert_eq!(listed, ROWS.iter().map(|row| row.name).collect());
    for Entry { names, when, then } in LIST {
        let names: Vec<&str> = names.split(' ').collect();
        assert!(names.is_sorted_by(|one, next| one < next), "{names:?}");
        if let When::With(name) | When::Without(name) = when {
            assert!(Capability::from_name(name).is_some(), "{name}");
        }
        if let Then::AllowIf(Test::In(ranges)) = then {
            let ends: Vec<u32> = ranges.iter().flat_map(|(first, last)| [*first, *last]).collect();
            assert!(ends.is_sorted(), "{names:?}");
        }
    }
    // What `table` relies on: of two outcomes, one is that the call is allowed.
    for name in &listed {
        let others = LIST.iter().filter(|entry| entry.names.split(' ').any(|one| one == *name));
        let others = others.filter(|entry| entry.then != Then::Do(Action::Allow));
        assert!(others.count() <= 1, "{name}");
    }
}
