//! `--ssh default|ID=SOCKET`.

use std::path::PathBuf;

use super::BadFlag;

/// The id and the agent's socket. `default_agent` is `SSH_AUTH_SOCK`.
pub fn ssh(text: &str, default_agent: Option<&str>) -> Result<(String, PathBuf), BadFlag> {
    let (id, socket) = text.split_once('=').map_or((text, None), |(id, socket)| (id, Some(socket)));
    let bad = |why: &str, help: &str| Err(BadFlag::new("--ssh", text, why, help));
    match (id, socket.or(default_agent)) {
        ("", _) => bad("the id is empty", "--ssh default"),
        (_, Some(socket)) if socket.contains(',') => {
            bad("several keys are not supported yet", "start an agent: eval $(ssh-agent); ssh-add KEY…")
        }
        (id, Some(socket)) => Ok((id.to_owned(), PathBuf::from(socket))),
        (_, None) => bad("there is no agent: SSH_AUTH_SOCK is not set", "eval $(ssh-agent); ssh-add"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_without_a_socket_is_the_agent_of_the_environment() {
        assert_eq!(ssh("default", Some("/a")), Ok(("default".to_owned(), "/a".into())));
        assert_eq!(ssh("k=/b", Some("/a")), Ok(("k".to_owned(), "/b".into())));
        assert!(ssh("default", None).is_err());
        assert!(ssh("=x", None).is_err());
    }
}
