//! `--chmod=<mode>`, after expansion: octal, or symbolic as chmod(1) takes it.

use thiserror::Error;

/// A change of permissions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Chmod {
    /// These permissions, whatever was there: 0 to 07777.
    Octal(u32),
    /// Changes, one after the other.
    Symbolic(Vec<Change>),
}

/// A step of a symbolic change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The permission bits it is about, set-id and sticky bits included where they may change.
    mask: u32,
    operator: Operator,
    what: What,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Add,
    Remove,
    Set,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    /// These bits, as far as `mask` has them; with `search`, also execution of folders and of what someone may execute.
    Bits { bits: u32, search: bool },
    /// What one class has, by how far its bits are shifted: user 6, group 3, others 0.
    CopyOf { shift: u32 },
}

/// Why a text is not a mode.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ChmodError {
    /// Neither octal nor symbolic.
    #[error("`{text}` is not a mode: octal digits like `755`, or changes like `u=rwX,go=rX`")]
    Form {
        /// The text.
        text: String,
    },
    /// An octal number above 7777.
    #[error("the mode `{text}` is above 7777")]
    TooLarge {
        /// The text.
        text: String,
    },
}

const SET_USER: u32 = 0o4000;
const SET_GROUP: u32 = 0o2000;
const STICKY: u32 = 0o1000;
const EXECUTE: u32 = 0o111;

impl Chmod {
    /// Reads a mode.
    ///
    /// # Errors
    /// [`ChmodError`]: neither octal nor symbolic, or too large.
    pub fn parse(text: &str) -> Result<Chmod, ChmodError> {
        if !text.is_empty() && text.bytes().all(|digit| matches!(digit, b'0'..=b'7')) {
            return match u32::from_str_radix(text, 8) {
                Ok(mode @ 0..=0o7777) => Ok(Chmod::Octal(mode)),
                _ => Err(ChmodError::TooLarge { text: text.to_owned() }),
            };
        }
        let form = || ChmodError::Form { text: text.to_owned() };
        let mut changes = Vec::new();
        for clause in text.split(',') {
            parse_clause(clause, &mut changes).ok_or_else(form)?;
        }
        Ok(Chmod::Symbolic(changes))
    }

    /// The permissions, 0 to 07777, of what had `mode` before. The process's umask plays no part; the file type's bits
    /// of `mode` are dropped.
    pub fn apply(&self, mode: u32, is_directory: bool) -> u32 {
        let before = mode & 0o7777;
        match self {
            Chmod::Octal(mode) => *mode,
            Chmod::Symbolic(changes) => {
                changes.iter().fold(before, |now, change| change.apply(now, before, is_directory))
            }
        }
    }
}

/// `[ugoa]*` and then, once or more, an operator and `[rwxXst]*` or one of `ugo`.
fn parse_clause(clause: &str, changes: &mut Vec<Change>) -> Option<()> {
    let operators = clause.find(['+', '-', '='])?;
    let (who, mut rest) = clause.split_at(operators);
    let mut mask = 0;
    for class in who.chars() {
        mask |= match class {
            'u' => SET_USER | 0o700,
            'g' => SET_GROUP | 0o070,
            'o' => 0o007,
            'a' => SET_USER | SET_GROUP | 0o777,
            _ => return None,
        };
    }
    // Without a class all are meant; the sticky bit belongs to none, and `o` alone has none of the special bits.
    let only_others = mask == 0o007;
    if mask == 0 {
        mask = SET_USER | SET_GROUP | 0o777;
    }
    while let Some(sign) = rest.chars().next() {
        let operator = match sign {
            '+' => Operator::Add,
            '-' => Operator::Remove,
            '=' => Operator::Set,
            _ => return None,
        };
        let end = rest[1..].find(['+', '-', '=']).map_or(rest.len(), |next| next + 1);
        let (change, behind) = rest.split_at(end);
        changes.push(parse_change(&change[1..], operator, mask, only_others)?);
        rest = behind;
    }
    Some(())
}

fn parse_change(letters: &str, operator: Operator, mask: u32, only_others: bool) -> Option<Change> {
    let shift = match letters {
        "u" => Some(6),
        "g" => Some(3),
        "o" => Some(0),
        _ => None,
    };
    if let Some(shift) = shift {
        return Some(Change { mask, operator, what: What::CopyOf { shift } });
    }
    let (mut bits, mut search, mut mask) = (0, false, mask);
    for letter in letters.chars() {
        match letter {
            'r' => bits |= 0o444,
            'w' => bits |= 0o222,
            'x' => bits |= EXECUTE,
            'X' => search = true,
            's' => bits |= SET_USER | SET_GROUP,
            't' if only_others => {}
            't' => {
                bits |= STICKY;
                mask |= STICKY;
            }
            _ => return None,
        }
    }
    Some(Change { mask, operator, what: What::Bits { bits, search } })
}

impl Change {
    /// `before` is what was there before the first change: `X` looks at that (POSIX, chmod).
    fn apply(&self, now: u32, before: u32, is_directory: bool) -> u32 {
        let bits = match self.what {
            What::Bits { bits, search } if search && (is_directory || before & EXECUTE != 0) => {
                bits | EXECUTE
            }
            What::Bits { bits, .. } => bits,
            What::CopyOf { shift } => (now >> shift & 0o7) * 0o111,
        } & self.mask;
        match self.operator {
            Operator::Add => now | bits,
            Operator::Remove => now & !bits,
            Operator::Set => now & !self.mask | bits,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn modes() {
        let cases = [
            ("755", 0o600, false, 0o755),
            ("0", 0o777, false, 0),
            ("7777", 0, true, 0o7777),
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
        ];
        for (text, mode, is_directory, expected) in cases {
            let found = Chmod::parse(text).unwrap().apply(mode, is_directory);
            assert_eq!(found, expected, "{text} of {mode:o}: {found:o}, not {expected:o}");
        }
        for text in ["", "u", "q=r", "u=q", "755,u+x", "u+rw,", "8", "-1x", "+ug"] {
            assert!(Chmod::parse(text).is_err(), "{text}");
        }
        assert_eq!(Chmod::parse("10000"), Err(ChmodError::TooLarge { text: "10000".into() }));
        assert_eq!(
            Chmod::parse("77777777777777777"),
            Err(ChmodError::TooLarge { text: "77777777777777777".into() })
        );
    }

    proptest! {
        #[test]
        fn stays_in_range(text in "[ugoa]{0,3}[-+=][rwxXst]{0,4}(,[ugo]=[ugo])?", mode: u32, is_directory: bool) {
            let chmod = Chmod::parse(&text).unwrap();
            let found = chmod.apply(mode, is_directory);
            prop_assert!(found <= 0o7777);
        }

        #[test]
        fn never_panics(text: String) {
            let _either = Chmod::parse(&text);
        }
    }
}
