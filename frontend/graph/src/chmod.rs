//! `--chmod`: what a mode makes of another.
//!
//! Symbolic modes follow BSD's `setmode(3)`, as BuildKit's library does; where GNU's chmod(1) differs (the sticky bit
//! under `a=`), BuildKit is right here.

/// A mode as `chmod(1)` takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Chmod {
    /// 0 to 0o7777.
    Octal(u32),
    /// `u=rwX,go=rX`; the umask counts as 0.
    Symbolic(Vec<ChmodClause>),
}

/// One clause of a symbolic mode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChmodClause {
    /// The letters before the operator, of `u`, `g`, `o`, `a`; empty is `a`.
    pub who: String,
    /// The operator.
    pub operator: ChmodOperator,
    /// Letters of `r`, `w`, `x`, `X`, `s`, `t`, or one of `u`, `g`, `o`.
    pub permissions: String,
}

/// What a clause does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChmodOperator {
    /// `+`
    Add,
    /// `-`
    Remove,
    /// `=`
    Set,
}

const SET_USER: u32 = 0o4000;
const SET_GROUP: u32 = 0o2000;
const STICKY: u32 = 0o1000;
const EXECUTE: u32 = 0o111;

impl Chmod {
    /// The mode (0 to 0o7777) of a file or folder that had `mode`.
    pub fn apply(&self, mode: u32, is_directory: bool) -> u32 {
        let before = mode & 0o7777;
        match self {
            Chmod::Octal(mode) => *mode & 0o7777,
            Chmod::Symbolic(clauses) => {
                clauses.iter().fold(before, |now, clause| clause.apply(now, before, is_directory))
            }
        }
    }
}

impl ChmodClause {
    /// `before` is what was there before the first clause: `X` looks at that (POSIX, chmod).
    fn apply(&self, now: u32, before: u32, is_directory: bool) -> u32 {
        let class = |mask: u32, class: char| match class {
            'u' => mask | SET_USER | 0o700,
            'g' => mask | SET_GROUP | 0o070,
            'o' => mask | 0o007,
            _ => mask | SET_USER | SET_GROUP | 0o777,
        };
        let mut mask = self.who.chars().fold(0, class);
        // The sticky bit belongs to no class, and `o` alone has none of the special bits.
        let only_others = mask == 0o007;
        if mask == 0 {
            mask = class(0, 'a');
        }
        let copied = |shift: u32| (now >> shift & 7) * EXECUTE;
        let mut bits = 0;
        match self.permissions.as_str() {
            "u" => bits = copied(6),
            "g" => bits = copied(3),
            "o" => bits = copied(0),
            letters => {
                for letter in letters.chars() {
                    bits |= match letter {
                        'r' => 0o444,
                        'w' => 0o222,
                        'x' => EXECUTE,
                        'X' if is_directory || before & EXECUTE != 0 => EXECUTE,
                        's' => SET_USER | SET_GROUP,
                        't' if !only_others => STICKY,
                        _ => 0,
                    };
                }
                mask |= bits & STICKY;
            }
        }
        match self.operator {
            ChmodOperator::Add => now | bits & mask,
            ChmodOperator::Remove => now & !(bits & mask),
            ChmodOperator::Set => now & !mask | bits & mask,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn symbolic(text: &str) -> Chmod {
        let operator = |c: char| match c {
            '+' => Some(ChmodOperator::Add),
            '-' => Some(ChmodOperator::Remove),
            '=' => Some(ChmodOperator::Set),
            _ => None,
        };
        let mut clauses: Vec<ChmodClause> = Vec::new();
        for clause in text.split(',') {
            let who: String = clause.chars().take_while(|c| operator(*c).is_none()).collect();
            for c in clause.chars().skip(who.len()) {
                match (operator(c), clauses.last_mut()) {
                    (Some(operator), _) => {
                        clauses.push(ChmodClause { who: who.clone(), operator, permissions: String::new() });
                    }
                    (None, Some(last)) => last.permissions.push(c),
                    (None, None) => unreachable!("an operator comes first"),
                }
            }
        }
        Chmod::Symbolic(clauses)
    }

    #[test]
    fn symbolic_modes_are_applied_clause_by_clause() {
        for (text, before, is_directory, after) in [
            ("u=rwX,go=rX", 0o600, false, 0o644),
            ("u=rwX,go=rX", 0o700, false, 0o755),
            ("u=rwX,go=rX", 0o600, true, 0o755),
            ("a+x", 0o640, false, 0o751),
            ("+x", 0o640, false, 0o751),
            ("go-r,u+s", 0o640, false, 0o4600),
            ("o=u", 0o640, false, 0o646),
            ("g=o,u=g", 0o705, false, 0o555),
            ("u+w-x", 0o500, false, 0o600),
            ("=", 0o4777, false, 0),
            ("a=rx", 0o1777, true, 0o1555),
            ("+t", 0o755, true, 0o1755),
            ("o+t", 0o755, true, 0o755),
            ("-t", 0o1755, true, 0o755),
            ("g+s", 0o755, false, 0o2755),
            ("o+s", 0o755, false, 0o755),
            ("u=", 0o4755, false, 0o055),
            ("a-x,a+X", 0o711, false, 0o711),
            ("ug=rw,o=", 0o100777, false, 0o660),
        ] {
            let found = symbolic(text).apply(before, is_directory);
            assert_eq!(found, after, "{text} of {before:o}: {found:o}, not {after:o}");
        }
    }
}
