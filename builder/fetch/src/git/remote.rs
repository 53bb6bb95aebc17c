//! Addresses of repositories.

use registry::Secret;

use crate::{
    Error,
    shown::{self, shown},
};

/// An address that git may be given: https, http, ssh, git, or `user@host:path`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remote {
    text: String,
    login: Option<Login>,
    host: String,
    kind: Kind,
}

/// A user and a password that stand in an http address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Login {
    /// The user's name.
    pub user: String,
    /// The password.
    pub password: Secret,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Web,
    Ssh,
    Git,
}

impl Remote {
    /// Reads an address without fragment and query.
    ///
    /// # Errors
    /// [`Error::BadRemote`]: another protocol, or a part that a program would take for a flag.
    pub fn parse(text: &str) -> Result<Remote, Error> {
        let bad = |why| Error::BadRemote { remote: shown(text), why };
        if text.chars().any(|c| c.is_control() || c == ' ') {
            return Err(bad("it holds a space or a control character"));
        }
        let (kind, authority) = match text.split_once("://") {
            Some((scheme, rest)) => {
                let kind = match &*scheme.to_ascii_lowercase() {
                    "https" | "http" => Kind::Web,
                    "ssh" => Kind::Ssh,
                    "git" => Kind::Git,
                    _ => return Err(bad("only https, http, ssh and git are fetched")),
                };
                (kind, rest.split('/').next().unwrap_or_default())
            }
            None => match text.split_once(':') {
                Some((authority, path)) if authority.contains('@') && !path.is_empty() => {
                    if path.starts_with(':') {
                        return Err(bad("only https, http, ssh and git are fetched"));
                    }
                    (Kind::Ssh, authority)
                }
                _ => return Err(bad("it names no host")),
            },
        };
        let (login, host) = authority.rsplit_once('@').unwrap_or(("", authority));
        if host.is_empty() {
            return Err(bad("it names no host"));
        }
        // What begins with a dash is a flag to `ssh` (CVE-2017-1000117).
        if host.starts_with('-') || login.starts_with('-') || text.starts_with('-') {
            return Err(bad("a name in it begins with `-`"));
        }
        let kept = if kind == Kind::Web { shown(text) } else { text.to_owned() };
        Ok(Remote {
            text: kept,
            login: shown::login(text).and_then(Login::read),
            host: host.to_owned(),
            kind,
        })
    }

    /// As git is given it, in arguments that others can read: an http address without its login.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// The login that was in the address.
    pub(crate) fn login(&self) -> Option<&Login> {
        self.login.as_ref()
    }

    /// As people may see it, and as it may be kept.
    pub fn shown(&self) -> String {
        shown(&self.text)
    }

    /// The host's own address, over http or https.
    pub(crate) fn site(&self) -> String {
        let scheme = self.text.split_once("://").map_or("https", |(scheme, _)| scheme);
        format!("{scheme}://{}", self.host)
    }

    /// Host and port: the name that its secrets go by.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Whether it is reached over http or https, where a header may log in.
    pub fn is_web(&self) -> bool {
        self.kind == Kind::Web
    }

    /// Whether it is reached by `ssh`, where an agent logs in.
    pub fn is_ssh(&self) -> bool {
        self.kind == Kind::Ssh
    }

    /// The addresses that a login is sent to. One for GitHub holds for all of GitHub, so that private submodules work;
    /// BuildKit and GitHub's own checkout have the same.
    pub(crate) fn login_scope(&self) -> String {
        let kept = self.shown();
        let github = ["https://github.com/", "https://www.github.com/"];
        match github.iter().find(|prefix| kept.starts_with(**prefix)) {
            Some(prefix) => (*prefix).to_owned(),
            None => kept,
        }
    }
}

impl Login {
    /// Reads what stands before the `@`. A name alone is none: git would ask for a password, and nobody is there to answer. Nor is what
    /// git's credential protocol, lines of text, cannot carry.
    fn read(text: &str) -> Option<Login> {
        let (user, password) = text.split_once(':')?;
        let (user, password) = (percent_decoded(user)?, percent_decoded(password)?);
        let fits = |part: &str| !part.contains(['\n', '\r', '\0']);
        (fits(&user) && fits(&password)).then(|| Login { user, password: Secret::new(password) })
    }
}

/// Text with `%41` for `A`; what is no such number stays as it is, as in git.
fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        let digits =
            behind.get(..2).filter(|digits| *first == b'%' && digits.iter().all(u8::is_ascii_hexdigit));
        let byte = digits.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        bytes.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &behind[2..] } else { behind };
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logins_in_addresses() {
        let read = |text: &str| {
            let remote = Remote::parse(text).expect(text);
            let login = remote.login().map(|login| (login.user.clone(), login.password.reveal().to_owned()));
            (remote.text().to_owned(), login)
        };
        let kept = || "https://h:1/x.git".to_owned();
        let login = |user: &str, password: &str| Some((user.to_owned(), password.to_owned()));
        assert_eq!(read("https://u:p@h:1/x.git"), (kept(), login("u", "p")));
        assert_eq!(read("https://u%40d:a%3Ab%zz:c@h:1/x.git"), (kept(), login("u@d", "a:b%zz:c")));
        assert_eq!(read("https://token@h:1/x.git"), (kept(), None));
        assert_eq!(read("https://u:a%0Ab@h:1/x.git"), (kept(), None));
        assert_eq!(read("ssh://git@h/x").0, "ssh://git@h/x");
    }

    #[test]
    fn addresses() {
        for (text, host, ssh, scope) in [
            ("https://u:p@h:8443/x.git", "h:8443", false, "https://h:8443/x.git"),
            ("https://github.com/a/b.git", "github.com", false, "https://github.com/"),
            ("HTTP://h/x.git", "h", false, "HTTP://h/x.git"),
            ("ssh://git@h/x", "h", true, "ssh://git@h/x"),
            ("git@h:x/y", "h", true, "git@h:x/y"),
            ("git://h/x", "h", false, "git://h/x"),
        ] {
            let remote = Remote::parse(text).expect(text);
            assert_eq!((remote.host(), remote.is_ssh()), (host, ssh), "{text}");
            assert_eq!(remote.login_scope(), scope, "{text}");
        }
    }

    #[test]
    fn what_is_not_fetched() {
        for text in [
            "file:///etc",
            "ext::sh -c id",
            "ext::sh",
            "a@ext::sh",
            "/etc",
            "h:path",
            "-u@h:x",
            "--upload-pack=x",
            "ssh://-oProxyCommand=x/y",
            "u@-h:x",
            "https:///x.git",
            "git@h:",
            "https://h/a b.git",
            "ftp://h/x.git",
        ] {
            assert!(matches!(Remote::parse(text), Err(Error::BadRemote { .. })), "{text}");
        }
    }
}
