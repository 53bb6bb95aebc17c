//! The seccomp filter: which system calls a step may make.
//!
//! ```text
//! list.rs (names, conditions) + numbers.txt ── table ──► number → outcome, for each ABI ── compile ──► a BPF program
//! ```
//!
//! Nothing here calls the kernel; the program is installed by [`Call::InstallFilter`](crate::Call::InstallFilter). It depends
//! on the machine and on the step's capabilities only, so it is made once for each set of them and shared by all steps.
//!
//! What would surprise a reader: the kernel runs a new filter over all numbers, and remembers those that are allowed
//! whatever the arguments are. Such calls cost nothing later. It follows only loads of the number and of the architecture,
//! comparisons with constants, `and` with a constant and jumps, so the search is made of nothing else.

mod bpf;
mod compile;
mod list;
mod notifier;
mod table;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::CapabilitySet;

pub use bpf::Instruction;
pub(crate) use notifier::{Matter, OtherAbi, native_architecture, native_number, notifier};

/// A program for the kernel that decides about every system call. A clone shares it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    instructions: Arc<[Instruction]>,
}

impl Filter {
    /// Docker's default list, for a process of this machine with this bounding set.
    ///
    /// `None` on a machine for which there are no numbers; there is an x86-64 and an arm64 one.
    pub fn docker_default(capabilities: CapabilitySet) -> Option<Filter> {
        static MADE: Mutex<BTreeMap<u64, Filter>> = Mutex::new(BTreeMap::new());
        let native = Native::of_this_machine()?;
        // The map is whole at any time, also after a panic.
        let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
        let filter = made
            .entry(capabilities.bits())
            .or_insert_with(|| compile::compile(&table::tables(native, capabilities)));
        Some(filter.clone())
    }

    /// A program that was made before, by this module.
    pub(crate) fn from_instructions(instructions: Vec<Instruction>) -> Filter {
        Filter { instructions: instructions.into() }
    }

    /// The program, first instruction first.
    pub fn instructions(&self) -> &[Instruction] {
        &self.instructions
    }
}

/// A machine, with every ABI that its kernel may serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Native {
    X86_64,
    Arm64,
}

impl Native {
    fn of_this_machine() -> Option<Native> {
        match std::env::consts::ARCH {
            "x86_64" => Some(Native::X86_64),
            "aarch64" => Some(Native::Arm64),
            _ => None,
        }
    }

    /// The machine's own ABI first.
    fn abis(self) -> &'static [Abi] {
        match self {
            Native::X86_64 => &[Abi::X86_64, Abi::X32, Abi::I386],
            Native::Arm64 => &[Abi::Arm64, Abi::Arm],
        }
    }
}

/// A way to call the kernel, with numbers of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Abi {
    X86_64,
    I386,
    X32,
    Arm64,
    Arm,
}

impl Abi {
    /// `AUDIT_ARCH_*`, which is what the kernel tells the filter. x32 is x86-64 with [`X32_BIT`] in the number.
    fn audit_architecture(self) -> u32 {
        match self {
            Abi::X86_64 | Abi::X32 => 0xc000_003e,
            Abi::I386 => 0x4000_0003,
            Abi::Arm64 => 0xc000_00b7,
            Abi::Arm => 0x4000_0028,
        }
    }

    /// Whether the upper half of an argument means something.
    fn has_wide_arguments(self) -> bool {
        matches!(self, Abi::X86_64 | Abi::Arm64)
    }
}

/// Set in the numbers of x32 (`__X32_SYSCALL_BIT`).
const X32_BIT: u32 = 1 << 30;

/// What the kernel does with a call. A further kind is a further variant and its value in [`Action::value`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Action {
    Allow,
    /// The call is not made, and fails with this number.
    Errno(u16),
    /// The whole process ends, as by SIGSYS.
    KillProcess,
}

impl Action {
    /// The return value of a filter (`SECCOMP_RET_*`).
    fn value(self) -> u32 {
        match self {
            Action::Allow => libc::SECCOMP_RET_ALLOW,
            Action::Errno(number) => libc::SECCOMP_RET_ERRNO | u32::from(number),
            Action::KillProcess => libc::SECCOMP_RET_KILL_PROCESS,
        }
    }
}
