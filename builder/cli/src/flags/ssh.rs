//! `--ssh default|ID[=SOCKET|=KEY[,KEY…]][,raw=true]`.

use std::path::PathBuf;

use super::BadFlag;

/// An agent as it is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ssh {
    /// By what steps ask for it.
    pub id: String,
    /// A socket, or files with private keys; which of the two, their files say.
    pub paths: Vec<PathBuf>,
    /// Whether what a step says to the agent is passed on whatever it is.
    pub raw: bool,
}

/// An agent. `default_agent` is `SSH_AUTH_SOCK`.
pub fn ssh(text: &str, default_agent: Option<&str>) -> Result<Ssh, BadFlag> {
    let bad = |why: &str, help: &str| BadFlag::new("--ssh", text, why, help);
    let (id, rest) = text.split_once('=').unwrap_or((text, ""));
    if id.is_empty() || id.contains(',') {
        return Err(bad("the id is empty or has a comma", "--ssh default"));
    }
    let (mut paths, mut raw) = (Vec::new(), false);
    for part in rest.split(',').filter(|part| !part.is_empty()) {
        match part.strip_prefix("raw=") {
            None => paths.push(PathBuf::from(part)),
            Some("true" | "1") => raw = true,
            Some("false" | "0") => raw = false,
            Some(_) => return Err(bad("`raw` is neither true nor false", "--ssh default=SOCKET,raw=true")),
        }
    }
    if paths.is_empty() {
        let none = || bad("there is no agent: SSH_AUTH_SOCK is not set", "eval $(ssh-agent); ssh-add");
        paths.push(PathBuf::from(default_agent.ok_or_else(none)?));
    }
    Ok(Ssh { id: id.to_owned(), paths, raw })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_is_a_socket_or_keys() {
        for (text, id, paths, raw) in [
            ("default", "default", &["/a"][..], false),
            ("default=", "default", &["/a"], false),
            ("k=/b", "k", &["/b"], false),
            ("k=/b,/c", "k", &["/b", "/c"], false),
            ("k=/b,raw=true", "k", &["/b"], true),
            ("k=raw=1", "k", &["/a"], true),
        ] {
            let paths = paths.iter().map(PathBuf::from).collect();
            assert_eq!(ssh(text, Some("/a")), Ok(Ssh { id: id.to_owned(), paths, raw }), "{text}");
        }
        for text in ["", "=x", "a,b", "a=b,raw=x"] {
            assert!(ssh(text, Some("/a")).is_err(), "{text}");
        }
        assert!(ssh("default", None).is_err());
    }
}
