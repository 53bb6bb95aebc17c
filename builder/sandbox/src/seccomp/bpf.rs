//! Classic BPF, as seccomp takes it, and an assembler that writes it from the end.
//!
//! A jump only leads forwards, and a conditional one at most 255 instructions far. Written from the end, the target of a jump is
//! always known; where it is too far away, what stands there is put once more within reach, or a long jump to it.

use std::collections::BTreeMap;

/// `struct sock_filter`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(C)]
pub struct Instruction {
    /// Operation, its size and mode.
    pub code: u16,
    /// How many instructions to skip if the comparison is true.
    pub jt: u8,
    /// How many otherwise.
    pub jf: u8,
    /// The constant.
    pub k: u32,
}

/// Load a word of `struct seccomp_data` at the offset `k`.
pub(super) const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
/// Keep the bits of `k`.
pub(super) const AND: u16 = (libc::BPF_ALU | libc::BPF_AND | libc::BPF_K) as u16;
/// End with `k`.
pub(super) const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
/// Skip `k` instructions.
pub(super) const JUMP: u16 = (libc::BPF_JMP | libc::BPF_JA) as u16;
/// Is it `k`?
pub(super) const EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
/// Is it `k` or more?
pub(super) const AT_LEAST: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;
/// Is any bit of `k` set?
pub(super) const ANY_BIT: u16 = (libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K) as u16;

/// How far a conditional jump reaches.
const REACH: usize = 255;

/// An instruction's distance from the end of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Label(usize);

/// A program that grows at its beginning. Equal pieces are written once.
#[derive(Default)]
pub(super) struct Assembler {
    /// Last instruction first.
    reversed: Vec<Instruction>,
    known: BTreeMap<(u16, u32, Option<[Label; 2]>), Label>,
    /// The nearest instruction that does the same as one that was too far.
    nearer: BTreeMap<Label, Label>,
}

impl Assembler {
    /// The program, which begins with what was added last.
    pub fn finish(mut self) -> Vec<Instruction> {
        self.reversed.reverse();
        self.reversed
    }

    /// Ends with a value.
    pub fn end(&mut self, value: u32) -> Label {
        self.once((RETURN, value, None), |this| this.push(RETURN, value, 0, 0))
    }

    /// Compares, and goes on at one of two places.
    pub fn branch(&mut self, test: u16, constant: u32, yes: Label, no: Label) -> Label {
        if yes == no {
            return yes;
        }
        self.once((test, constant, Some([yes, no])), |this| {
            let (yes, no) = (this.within_reach(yes), this.within_reach(no));
            let (yes, no) = (this.skipped(yes), this.skipped(no));
            // `within_reach` has left room for both.
            this.push(test, constant, yes as u8, no as u8)
        })
    }

    /// Makes one operation without a jump ([`LOAD`], [`AND`]), and goes on.
    pub fn step(&mut self, code: u16, constant: u32, then: Label) -> Label {
        self.once((code, constant, Some([then, then])), |this| {
            let distance = this.skipped(then);
            if distance > 0 {
                this.push(JUMP, distance as u32, 0, 0);
            }
            this.push(code, constant, 0, 0)
        })
    }

    /// Writes what was not written before.
    fn once(
        &mut self,
        what: (u16, u32, Option<[Label; 2]>),
        write: impl FnOnce(&mut Assembler) -> Label,
    ) -> Label {
        if let Some(label) = self.known.get(&what) {
            return *label;
        }
        let label = write(self);
        self.known.insert(what, label);
        label
    }

    fn push(&mut self, code: u16, k: u32, jt: u8, jf: u8) -> Label {
        self.reversed.push(Instruction { code, jt, jf, k });
        Label(self.reversed.len() - 1)
    }

    /// How many instructions are between the next one and this.
    fn skipped(&self, label: Label) -> usize {
        self.reversed.len() - 1 - label.0
    }

    /// A place that does the same, and which a conditional jump reaches even if one more instruction comes between.
    fn within_reach(&mut self, label: Label) -> Label {
        let nearest = *self.nearer.get(&label).unwrap_or(&label);
        let distance = self.skipped(nearest);
        if distance < REACH {
            return nearest;
        }
        let copy = match self.reversed[nearest.0] {
            Instruction { code: RETURN, k, .. } => self.push(RETURN, k, 0, 0),
            _ => self.push(JUMP, distance as u32, 0, 0),
        };
        self.nearer.insert(label, copy);
        copy
    }
}
