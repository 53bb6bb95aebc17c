//! Addresses of repositories.

use crate::{Error, shown, without_login};

/// An address that git may be given: https, http, ssh, git, or `user@host:path`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remote {
    text: String,
    host: String,
    kind: Kind,
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
        Ok(Remote { text: text.to_owned(), host: host.to_owned(), kind })
    }

    /// As git is given it: with a password, where there is one.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// As people may see it.
    pub fn shown(&self) -> String {
        shown(&self.text)
    }

    /// As it may be kept: without a login that is not part of the name.
    pub fn kept(&self) -> String {
        without_login(&self.text)
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
        let kept = self.kept();
        let github = ["https://github.com/", "https://www.github.com/"];
        match github.iter().find(|prefix| kept.starts_with(**prefix)) {
            Some(prefix) => (*prefix).to_owned(),
            None => kept,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
