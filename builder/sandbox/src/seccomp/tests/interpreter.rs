//! Classic BPF as the kernel reads it: `seccomp_check_filter` and `bpf_check_classic`, then a run.

use super::super::Instruction;
use super::super::bpf::{AND, ANY_BIT, AT_LEAST, EQUAL, JUMP, LOAD, RETURN};

/// `struct seccomp_data`, without the instruction pointer, which no filter here asks for.
pub struct Data {
    pub number: u32,
    pub architecture: u32,
    pub arguments: [u64; 6],
}

/// What came out of a run.
pub struct Verdict {
    pub value: u32,
    /// How many instructions it took.
    pub steps: usize,
    /// Whether the value depends on more than the number and the architecture.
    pub read_arguments: bool,
}

impl Data {
    fn word(&self, offset: u32) -> u32 {
        match offset {
            0 => self.number,
            4 => self.architecture,
            _ => {
                let argument = self.arguments[(offset as usize - 16) / 8];
                if offset.is_multiple_of(8) { argument as u32 } else { (argument >> 32) as u32 }
            }
        }
    }
}

/// Fails where the kernel would answer EINVAL.
pub fn check(program: &[Instruction]) {
    assert_eq!(program.last().map(|last| last.code), Some(RETURN), "the end is not the end");
    for (index, instruction) in program.iter().enumerate() {
        let rest = program.len() - index - 1;
        let skip = match instruction.code {
            LOAD => {
                let argument = (16..64).contains(&instruction.k);
                assert!(
                    instruction.k.is_multiple_of(4) && (argument || instruction.k < 8),
                    "load at {index}"
                );
                0
            }
            AND => 0,
            JUMP => instruction.k as usize,
            EQUAL | AT_LEAST | ANY_BIT => usize::from(instruction.jt.max(instruction.jf)),
            RETURN => continue,
            code => panic!("operation {code:#x} at {index}"),
        };
        assert!(skip < rest, "jump out at {index}");
    }
}

pub fn run(program: &[Instruction], data: &Data) -> Verdict {
    let mut accumulator = 0;
    let mut at = 0;
    let mut steps = 0;
    let mut read_arguments = false;
    loop {
        let Instruction { code, jt, jf, k } = program[at];
        at += 1;
        steps += 1;
        let taken = match code {
            LOAD => {
                read_arguments |= k >= 8;
                accumulator = data.word(k);
                continue;
            }
            AND => {
                accumulator &= k;
                continue;
            }
            JUMP => {
                at += k as usize;
                continue;
            }
            RETURN => return Verdict { value: k, steps, read_arguments },
            EQUAL => accumulator == k,
            AT_LEAST => accumulator >= k,
            _ => accumulator & k != 0,
        };
        at += usize::from(if taken { jt } else { jf });
    }
}
