//! `--chown`, `--chmod` and the owner of a `WORKDIR`, as the graph has them.

use dockerfile_parser::{
    ParseError, Span,
    chmod::Chmod as Checked,
    owner::{Id, Owner as Named},
};
use graph::{ActionInput, Chmod, ChmodClause, ChmodOperator, Owner, OwnerName};

use crate::LowerError;

/// The owner that a text names. Names are looked up in `of`; `root` and the empty name need no looking up.
pub(crate) fn owner(text: &str, of: ActionInput) -> Owner {
    let name = |id: Id| match id {
        Id::Number(number) => OwnerName::Id(number),
        Id::Name(name) if name.is_empty() || name == "root" => OwnerName::Id(0),
        Id::Name(name) => OwnerName::Name { name, of },
    };
    let Named { user, group } = Named::parse(text);
    Owner { user: name(user), group: group.map(name) }
}

/// Whether an owner has a name to look up.
pub(crate) fn has_name(text: &str) -> bool {
    let Owner { user, group } = owner(text, ActionInput::Scratch);
    let is_name = |name: &OwnerName| matches!(name, OwnerName::Name { .. });
    is_name(&user) || group.as_ref().is_some_and(is_name)
}

/// The mode that a text names.
///
/// # Errors
/// A text that is no mode.
pub(crate) fn chmod(text: &str, span: Span) -> Result<Chmod, LowerError> {
    match Checked::parse(text).map_err(|error| ParseError::new(error, span))? {
        Checked::Octal(mode) => Ok(Chmod::Octal(mode)),
        Checked::Symbolic(_) => Ok(Chmod::Symbolic(text.split(',').flat_map(clauses).collect())),
    }
}

/// `u+x-w` is two clauses; that the text is well-formed was checked.
fn clauses(text: &str) -> Vec<ChmodClause> {
    let is_operator = |c: char| matches!(c, '+' | '-' | '=');
    let (who, mut rest) = text.split_at(text.find(is_operator).unwrap_or(text.len()));
    let mut clauses = Vec::new();
    while let Some(sign) = rest.chars().next() {
        let operator = match sign {
            '+' => ChmodOperator::Add,
            '-' => ChmodOperator::Remove,
            _ => ChmodOperator::Set,
        };
        let tail = &rest[1..];
        let (permissions, behind) = tail.split_at(tail.find(is_operator).unwrap_or(tail.len()));
        clauses.push(ChmodClause { who: who.to_owned(), operator, permissions: permissions.to_owned() });
        rest = behind;
    }
    clauses
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_are_ids_where_they_can_be() {
        let of = ActionInput::Input(0);
        let name = |name: &str| OwnerName::Name { name: name.to_owned(), of };
        for (text, user, group) in [
            ("root", OwnerName::Id(0), None),
            ("root:root", OwnerName::Id(0), Some(OwnerName::Id(0))),
            ("11:12", OwnerName::Id(11), Some(OwnerName::Id(12))),
            ("www-data:5", name("www-data"), Some(OwnerName::Id(5))),
            (":5", OwnerName::Id(0), Some(OwnerName::Id(5))),
            ("2147483648", name("2147483648"), None),
        ] {
            assert_eq!(owner(text, of), Owner { user, group }, "{text}");
        }
        assert!(has_name("a:1") && has_name("1:a") && !has_name("root:0"));
    }

    #[test]
    fn both_readings_of_a_mode_agree() {
        let modes = [
            "755",
            "u=rwX,go=rX",
            "a+x",
            "go-r,u+s",
            "o=u",
            "u+x-w",
            "+t",
            "g=",
            "ug=o",
            "-w",
            "+X",
            "a=rwxst",
        ];
        for text in modes {
            let ours = chmod(text, Span::default()).expect(text);
            let checked = Checked::parse(text).expect(text);
            for mode in (0..=0o777).chain([0o1755, 0o4711, 0o2770, 0o7777]) {
                for directory in [false, true] {
                    let (ours, theirs) = (ours.apply(mode, directory), checked.apply(mode, directory));
                    assert_eq!(
                        ours, theirs,
                        "{text} on {mode:o}, directory {directory}: {ours:o} {theirs:o}"
                    );
                }
            }
        }
        assert!(chmod("u=z", Span::default()).is_err() && chmod("17777", Span::default()).is_err());
    }
}
