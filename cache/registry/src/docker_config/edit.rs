//! Logins on their way into the config file, or past it into the program that keeps them.

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Map, Value};

use super::{DOCKER_HUB, DockerConfig, find, first_line, normal, run};
use crate::{CredentialsError, Secret};

/// The config file's text as it is to be, and who keeps the password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edited {
    /// The new text, or `None` where nothing changes.
    pub text: Option<String>,
    /// The program that keeps the password; `None` when the text itself holds it, readable by whoever reads the file.
    pub helper: Option<String>,
}

impl DockerConfig {
    /// Keeps a login: with the helper that the file names for this host, else in the file. `text` is the file's, empty where
    /// there is none. What else is in it stays.
    ///
    /// # Errors
    /// The helper is not there or refuses; the text is no JSON object.
    pub fn log_in(
        &self,
        text: &str,
        host: &str,
        username: &str,
        password: &Secret,
    ) -> Result<Edited, CredentialsError> {
        let mut file = self.object(text)?;
        let found = self.helper_of(host).or_else(|| self.default_helper(&file));
        let helper = match found {
            Some(name) => {
                let credentials = serde_json::json!({
                    "ServerURL": server(host), "Username": username, "Secret": password.reveal(),
                });
                self.tell_helper(&name, "store", host, &credentials.to_string())?;
                if self.helper_of(host).is_none() {
                    file.insert("credsStore".to_owned(), name.clone().into());
                }
                Some(format!("docker-credential-{name}"))
            }
            None => None,
        };
        let auth = match &helper {
            Some(_) => Value::Object(Map::new()),
            None => {
                let auth = BASE64_STANDARD.encode(format!("{username}:{}", password.reveal()));
                serde_json::json!({ "auth": auth })
            }
        };
        let auths = file.entry("auths").or_insert_with(|| Value::Object(Map::new()));
        if let Value::Object(auths) = auths {
            auths.retain(|key, _| normal(key) != host);
            auths.insert(server(host).to_owned(), auth);
        }
        Ok(Edited { text: Some(written(&file)), helper })
    }

    /// Forgets the login of a host, with the helper and in the file. Whether there was one that could be seen.
    ///
    /// # Errors
    /// As [`DockerConfig::log_in`].
    pub fn log_out(&self, text: &str, host: &str) -> Result<(Edited, bool), CredentialsError> {
        let mut file = self.object(text)?;
        let mut known = false;
        let mut helper = None;
        if let Some(name) = self.helper_of(host) {
            known = self.ask_helper(&name, host)?.is_some();
            if known {
                self.tell_helper(&name, "erase", host, server(host))?;
            }
            helper = Some(format!("docker-credential-{name}"));
        }
        let mut changed = false;
        if let Some(Value::Object(auths)) = file.get_mut("auths") {
            let before = auths.len();
            auths.retain(|key, _| normal(key) != host);
            changed = auths.len() != before;
        }
        let text = changed.then(|| written(&file));
        Ok((Edited { text, helper }, known || changed))
    }

    fn helper_of(&self, host: &str) -> Option<String> {
        let own = find(&self.file.cred_helpers, host, "").map(|(_, name)| name);
        own.or(Some(&self.file.creds_store)).filter(|name| !name.is_empty()).cloned()
    }

    /// In a file that has no logins yet, the system's own store is used where its helper is installed, as Docker does it.
    fn default_helper(&self, file: &Map<String, Value>) -> Option<String> {
        let has_logins = file.get("auths").and_then(Value::as_object).is_some_and(|auths| !auths.is_empty());
        let there = |program: &str| self.program_folders.iter().any(|folder| folder.join(program).is_file());
        let name = if there("pass") { "pass" } else { "secretservice" };
        (!has_logins && there(&format!("docker-credential-{name}"))).then(|| name.to_owned())
    }

    fn tell_helper(&self, name: &str, action: &str, host: &str, input: &str) -> Result<(), CredentialsError> {
        let (program, found) = self.program(name)?;
        let failed = |why: String| CredentialsError::Helper {
            program: program.clone(),
            server: server(host).to_owned(),
            why,
        };
        let output = run(&found, action, input).map_err(|error| failed(error.to_string()))?;
        if output.status.success() {
            return Ok(());
        }
        let said = format!("{} {}", first_line(&output.stdout), first_line(&output.stderr));
        Err(failed(format!("{}: {}", output.status, said.trim())))
    }

    fn object(&self, text: &str) -> Result<Map<String, Value>, CredentialsError> {
        let bad = |line, column| CredentialsError::Config {
            path: self.path.clone(),
            line,
            column,
            problem: "bad JSON",
        };
        match serde_json::from_str(if text.trim().is_empty() { "{}" } else { text }) {
            Ok(Value::Object(object)) => Ok(object),
            Ok(_) => Err(bad(1, 1)),
            Err(error) => Err(bad(error.line(), error.column())),
        }
    }
}

/// A host as this file and helpers know it.
fn server(host: &str) -> &str {
    if host == "docker.io" { DOCKER_HUB } else { host }
}

fn written(file: &Map<String, Value>) -> String {
    let text = serde_json::to_string_pretty(file).expect("an object of JSON values is JSON");
    format!("{text}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Credentials, Login};

    fn parse(text: &str) -> DockerConfig {
        DockerConfig::parse(text, "/h/config.json", Vec::new()).expect(text)
    }

    #[test]
    fn a_login_is_kept_and_forgotten_and_the_rest_stays() {
        let text = r#"{"auths":{"r.example":{"auth":"YTpi"}},"psFormat":"x"}"#;
        for host in ["docker.io", "r.example", "localhost:5000"] {
            let edited = parse(text).log_in(text, host, "ada", &Secret::new("p:q")).expect("kept");
            assert_eq!(edited.helper, None);
            let text = edited.text.expect("changed");
            assert!(text.contains("psFormat"), "{text}");
            assert!(!text.contains("p:q"), "{text}");
            let login = Login::Password { username: "ada".into(), password: Secret::new("p:q") };
            assert_eq!(parse(&text).for_registry(host, "x"), Ok(Some(login)));
            let (edited, known) = parse(&text).log_out(&text, host).expect("forgotten");
            assert!(known);
            assert_eq!(parse(&edited.text.expect("changed")).for_registry(host, "x"), Ok(None));
        }
        let (edited, known) = parse(text).log_out(text, "other.example").expect("nothing");
        assert_eq!((edited.text, known), (None, false));
        assert!(parse("{}").log_in("[]", "r", "a", &Secret::new("b")).is_err());
    }

    #[test]
    fn an_empty_file_gets_a_login() {
        let edited = parse("{}").log_in("", "r.example", "a", &Secret::new("b")).expect("kept");
        assert_eq!(
            edited.text.expect("text").replace([' ', '\n'], ""),
            r#"{"auths":{"r.example":{"auth":"YTpi"}}}"#
        );
    }

    #[cfg(unix)]
    #[test]
    fn a_helper_keeps_what_it_is_given() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().expect("a folder");
        let program = folder.path().join("docker-credential-test");
        let script = "#!/bin/sh\ncd \"$(dirname \"$0\")\" || exit 1\ncase $1 in\n\
                      store) cat > kept ;;\nerase) rm kept ;;\n\
                      get) [ -e kept ] && cat kept || { echo credentials not found; exit 1; } ;;\nesac\n";
        std::fs::write(&program, script).expect("written");
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).expect("set");
        let text = r#"{"credsStore":"test"}"#;
        let config = |text: &str| {
            DockerConfig::parse(text, "/h/config.json", vec![folder.path().to_owned()]).expect(text)
        };
        let edited = config(text).log_in(text, "r.example", "ada", &Secret::new("secret")).expect("kept");
        assert_eq!(edited.helper.as_deref(), Some("docker-credential-test"));
        let text = edited.text.expect("changed");
        assert!(!text.contains("secret") && !text.contains("auth\""), "{text}");
        let login = Login::Password { username: "ada".into(), password: Secret::new("secret") };
        assert_eq!(config(&text).for_registry("r.example", "x"), Ok(Some(login)));
        let (_, known) = config(&text).log_out(&text, "r.example").expect("forgotten");
        assert!(known);
        assert_eq!(config(&text).for_registry("r.example", "x"), Ok(None));
    }
}
