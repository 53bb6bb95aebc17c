//! `--chown=<user>[:<group>]`, after expansion.

/// Who owns what is copied.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Owner {
    /// The user.
    pub user: Id,
    /// The group. Without one a number stands for user and group, and a name for the user and its group.
    pub group: Option<Id>,
}

/// A user or a group.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Id {
    /// A number, from 0 to 2147483647.
    Number(u32),
    /// A name, to be looked up in the destination's `/etc/passwd` or `/etc/group`. A number that is too large, or
    /// negative, is one too, and so is the empty text.
    Name(String),
}

impl Owner {
    /// Reads an owner. Every text is one; what it names may not exist.
    pub fn parse(text: &str) -> Owner {
        match text.split_once(':') {
            None => Owner { user: Id::parse(text), group: None },
            Some((user, group)) => Owner { user: Id::parse(user), group: Some(Id::parse(group)) },
        }
    }
}

impl Id {
    /// Reads a user or a group.
    pub fn parse(text: &str) -> Id {
        match text.parse::<i32>() {
            Ok(number) => u32::try_from(number).map_or_else(|_| Id::Name(text.to_owned()), Id::Number),
            Err(_) => Id::Name(text.to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners() {
        let name = |name: &str| Id::Name(name.to_owned());
        let cases = [
            ("0", Id::Number(0), None),
            ("bin:1", name("bin"), Some(Id::Number(1))),
            ("2147483647:a:b", Id::Number(2_147_483_647), Some(name("a:b"))),
            ("2147483648", name("2147483648"), None),
            ("-1", name("-1"), None),
            (":5", name(""), Some(Id::Number(5))),
            ("5:", Id::Number(5), Some(name(""))),
        ];
        for (text, user, group) in cases {
            assert_eq!(Owner::parse(text), Owner { user, group }, "{text}");
        }
    }
}
