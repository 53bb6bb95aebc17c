//! The second filter of a step whose owners are emulated, or which has no `/proc`: which calls somebody else answers.
//!
//! Everything else is allowed, for the first filter has spoken; of two answers the kernel takes the stricter one.

use super::bpf::{ANY_BIT, Assembler, EQUAL, LOAD, Label};
use super::compile::{ARCHITECTURE, ARGUMENT, NUMBER, Runs, search};
use super::table::ROWS;
use super::{Abi, Action, Filter, Native, X32_BIT};

/// Which of its calls count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Matter {
    /// All.
    Always,
    /// Those with any of these bits in the lower half of this argument.
    Bits(u8, u32),
    /// Those with none of these bits in the lower half of this argument.
    NotBits(u8, u32),
    /// Those with one of these values in the lower half of this argument.
    Is(u8, &'static [u32]),
    /// Those with these two arguments.
    Are([(u8, u32); 2]),
}

/// A call's number in the machine's own ABI.
pub(crate) fn native_number(name: &str) -> Option<u32> {
    let abi = own(Native::of_this_machine()?);
    let found = ROWS.binary_search_by(|row| row.name.cmp(name)).ok()?;
    ROWS.get(found)?.number(abi)
}

/// The machine's own architecture, as notifications name it.
pub(crate) fn native_architecture() -> Option<u32> {
    Native::of_this_machine().map(|native| own(native).audit_architecture())
}

fn own(native: Native) -> Abi {
    match native {
        Native::X86_64 => Abi::X86_64,
        Native::Arm64 => Abi::Arm64,
    }
}

/// What becomes of calls of another ABI than the machine's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OtherAbi {
    /// The kernel makes them.
    Allowed,
    /// There are none: `ENOSYS`.
    Missing,
}

/// A program that asks about these numbers.
pub(crate) fn notifier(mut calls: Vec<(u32, Matter)>, other: OtherAbi) -> Option<Filter> {
    let architecture = native_architecture()?;
    calls.sort_by_key(|(number, _)| *number);
    let mut code = Assembler::default();
    let allow = code.end(Action::Allow.value());
    let ask = code.end(libc::SECCOMP_RET_USER_NOTIF);
    let mut runs = Runs::default();
    let mut next = 0;
    for (number, matter) in calls {
        if number > next || next == 0 {
            runs.add(next, allow);
        }
        let outcome = outcome(&mut code, matter, ask, allow);
        runs.add(number, outcome);
        next = number + 1;
    }
    runs.add(next, allow);
    let other = match other {
        OtherAbi::Allowed => allow,
        OtherAbi::Missing => {
            let missing = code.end(Action::Errno(libc::ENOSYS as u16).value());
            // A number that no call has, -1, is what a debugger puts in the place of one.
            runs.add(X32_BIT, missing);
            runs.add(X32_BIT << 1, allow);
            missing
        }
    };
    let search = search(&mut code, &runs.whole());
    let search = code.step(LOAD, NUMBER, search);
    let native = code.branch(EQUAL, architecture, search, other);
    code.step(LOAD, ARCHITECTURE, native);
    Some(Filter::from_instructions(code.finish()))
}

fn outcome(code: &mut Assembler, matter: Matter, ask: Label, allow: Label) -> Label {
    let load =
        |code: &mut Assembler, argument: u8, then| code.step(LOAD, ARGUMENT + 8 * u32::from(argument), then);
    match matter {
        Matter::Always => ask,
        Matter::Bits(argument, bits) => {
            let test = code.branch(ANY_BIT, bits, ask, allow);
            load(code, argument, test)
        }
        Matter::NotBits(argument, bits) => {
            let test = code.branch(ANY_BIT, bits, allow, ask);
            load(code, argument, test)
        }
        Matter::Is(argument, values) => {
            let test = values.iter().fold(allow, |rest, value| code.branch(EQUAL, *value, ask, rest));
            load(code, argument, test)
        }
        Matter::Are([(first, one), (second, other)]) => {
            let test = code.branch(EQUAL, other, ask, allow);
            let test = load(code, second, test);
            let test = code.branch(EQUAL, one, test, allow);
            load(code, first, test)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::interpreter::{Data, check, run};
    use super::*;

    #[test]
    fn it_asks_about_what_counts_and_nothing_else() {
        let Some(own) = native_architecture() else { return };
        let matters = vec![
            (7, Matter::Bits(1, 0x41)),
            (3, Matter::Always),
            (8, Matter::NotBits(2, 0x1000)),
            (4, Matter::Is(0, &[8, 9])),
            (0, Matter::Are([(1, 1), (2, 17)])),
        ];
        let filter = notifier(matters.clone(), OtherAbi::Allowed).expect("this machine has numbers");
        check(filter.instructions());
        let strict = notifier(matters, OtherAbi::Missing).expect("this machine has numbers");
        check(strict.instructions());
        let missing = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;
        let table = [
            (3, [0; 3], true),
            (4, [8, 0, 0], true),
            (4, [9, 0, 0], true),
            (4, [10, 8, 8], false),
            (8, [0x1000, 0x1000, 0xefff], true),
            (8, [0, 0, 0x1100], false),
            (7, [0xff, 0x40, 0], true),
            (7, [0, 0x3e, 0], false),
            (0, [0, 1, 17], true),
            (0, [0, 1, 16], false),
            (0, [0, 2, 17], false),
            (1, [0; 3], false),
            (5, [8, 0x41, 17], false),
            (u32::MAX, [0; 3], false),
            (1 << 30 | 3, [0; 3], false),
        ];
        for (number, [a, b, c], asks) in table {
            let expected = if asks { libc::SECCOMP_RET_USER_NOTIF } else { libc::SECCOMP_RET_ALLOW };
            let data = |architecture| Data { number, architecture, arguments: [a, b, c, 0, 0, 0] };
            assert_eq!(run(filter.instructions(), &data(own)).value, expected, "{number:#x}");
            let other = run(filter.instructions(), &data(0x4000_0003)).value;
            assert_eq!(other, libc::SECCOMP_RET_ALLOW, "another ABI");
            let is_x32 = number & X32_BIT != 0 && number >> 31 == 0;
            let expected = if is_x32 { missing } else { expected };
            assert_eq!(run(strict.instructions(), &data(own)).value, expected, "{number:#x}");
            assert_eq!(run(strict.instructions(), &data(0x4000_0003)).value, missing, "{number:#x}");
        }
    }
}
