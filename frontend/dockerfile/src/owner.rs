//! `--chown`, `--chmod` and the owner of a `WORKDIR`, as the graph has them.

use dockerfile_parser::{
    ParseError, Span,
    chmod::{Change, Chmod as Checked},
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
        Checked::Symbolic(changes) => Ok(Chmod::Symbolic(changes.into_iter().map(clause).collect())),
    }
}

fn clause(change: Change) -> ChmodClause {
    let operator = match change.operator {
        '+' => ChmodOperator::Add,
        '-' => ChmodOperator::Remove,
        _ => ChmodOperator::Set,
    };
    ChmodClause { who: change.who, operator, permissions: change.permissions }
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
    fn modes_are_checked_and_applied() {
        for (text, before, after) in
            [("755", 0o600, 0o755), ("u=rwX,go=rX", 0o600, 0o644), ("u+x-w", 0o644, 0o544)]
        {
            let mode = chmod(text, Span::default()).expect(text);
            assert_eq!(mode.apply(before, false), after, "{text}");
        }
        assert!(chmod("u=z", Span::default()).is_err() && chmod("17777", Span::default()).is_err());
    }
}
