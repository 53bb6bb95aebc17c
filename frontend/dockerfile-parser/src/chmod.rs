//! `--chmod=<mode>`, after expansion: octal, or symbolic as chmod(1) takes it. What a mode makes of another is the graph's to say.

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
    /// The classes before the operator, of `u`, `g`, `o` and `a`; empty for all.
    pub who: String,
    /// `+`, `-` or `=`.
    pub operator: char,
    /// Letters of `r`, `w`, `x`, `X`, `s` and `t`, or one of `u`, `g` and `o`.
    pub permissions: String,
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
}

/// `[ugoa]*` and then, once or more, an operator and `[rwxXst]*` or one of `ugo`.
fn parse_clause(clause: &str, changes: &mut Vec<Change>) -> Option<()> {
    let is_operator = |c: char| matches!(c, '+' | '-' | '=');
    let (who, mut rest) = clause.split_at(clause.find(is_operator)?);
    if !who.chars().all(|class| "ugoa".contains(class)) {
        return None;
    }
    while let Some(operator) = rest.chars().next() {
        let letters = &rest[1..];
        let (permissions, behind) = letters.split_at(letters.find(is_operator).unwrap_or(letters.len()));
        let is_copy = matches!(permissions, "u" | "g" | "o");
        if !is_copy && !permissions.chars().all(|letter| "rwxXst".contains(letter)) {
            return None;
        }
        changes.push(Change { who: who.to_owned(), operator, permissions: permissions.to_owned() });
        rest = behind;
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn modes() {
        let change = |who: &str, operator, permissions: &str| {
            let (who, permissions) = (who.to_owned(), permissions.to_owned());
            Change { who, operator, permissions }
        };
        for (text, expected) in [
            ("755", Chmod::Octal(0o755)),
            ("7777", Chmod::Octal(0o7777)),
            ("u=rwX,go=rX", Chmod::Symbolic(vec![change("u", '=', "rwX"), change("go", '=', "rX")])),
            ("u+w-x", Chmod::Symbolic(vec![change("u", '+', "w"), change("u", '-', "x")])),
            ("=", Chmod::Symbolic(vec![change("", '=', "")])),
            ("o=u", Chmod::Symbolic(vec![change("o", '=', "u")])),
        ] {
            assert_eq!(Chmod::parse(text), Ok(expected), "{text}");
        }
        for text in ["", "u", "q=r", "u=q", "755,u+x", "u+rw,", "8", "-1x", "+ug"] {
            assert!(Chmod::parse(text).is_err(), "{text}");
        }
        for text in ["10000", "77777777777777777"] {
            assert_eq!(Chmod::parse(text), Err(ChmodError::TooLarge { text: text.into() }));
        }
    }

    proptest! {
        #[test]
        fn never_panics(text: String) {
            let _either = Chmod::parse(&text);
        }
    }
}
