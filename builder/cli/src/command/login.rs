//! `kiln login`, `kiln logout`: in the files and with the helpers that Docker uses.

use std::{
    fs, io,
    io::{BufRead, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use registry::{DockerConfig, Login, Secret};

use super::images::print;
use crate::{
    arguments::{Login as LoginArguments, Logout},
    failure::Failure,
    machine, registries,
};

/// The longest password that is read from standard input, in bytes: tokens have some kilobytes.
const LONGEST: u64 = 64 << 10;

/// Checks a login with the registry and keeps it.
pub async fn login(arguments: &LoginArguments) -> Result<(), Failure> {
    let host = host(arguments.registry.as_deref())?;
    let (username, password) = who(arguments, &host)?;
    let login = Login::Password { username: username.clone(), password: password.clone() };
    registries::client()?
        .check_login(&host, &login)
        .await
        .map_err(|error| engine::Error::from(engine::Cause::from(error)))?;
    let folder = machine::docker_config();
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder);
    made.map_err(|error| Failure::machine(format!("cannot make {}: {error}", folder.display())))?;
    let _others_wait = locked();
    let (path, text) = config_file()?;
    let config = parse(&text, &path)?;
    let edited = config.log_in(&text, &host, &username, &password).map_err(failed)?;
    if let Some(text) = &edited.text {
        write(&path, text)?;
    }
    if edited.helper.is_none() {
        eprintln!(
            "warning: the password is kept unencrypted in {}; a credential helper (`credsStore`) would keep it better",
            path.display()
        );
    }
    print(&["Login Succeeded".to_owned()])
}

/// Forgets a login.
pub fn logout(arguments: &Logout) -> Result<(), Failure> {
    let host = host(arguments.registry.as_deref())?;
    let _others_wait = locked();
    let (path, text) = config_file()?;
    let (edited, known) = parse(&text, &path)?.log_out(&text, &host).map_err(failed)?;
    if let Some(text) = &edited.text {
        write(&path, text)?;
    }
    print(&[match known {
        true => format!("Removed the login for {host}"),
        false => format!("Not logged in to {host}"),
    }])?;
    // What another program wrote is that program's to remove.
    if let Ok(Some(path)) = registries::logins().holder(&host) {
        eprintln!(
            "warning: {} still has a login for {host}: `podman logout {host}` removes it",
            path.display()
        );
    }
    Ok(())
}

fn failed(error: registry::CredentialsError) -> Failure {
    Failure::machine(error.to_string())
}

/// The registry that an argument names, in any of the forms that people paste.
fn host(text: Option<&str>) -> Result<String, Failure> {
    let text = text.unwrap_or("docker.io");
    let bare = text.split_once("://").map_or(text, |(_, rest)| rest);
    let host = bare.split('/').next().unwrap_or_default();
    let host = match host {
        "index.docker.io" | "registry-1.docker.io" => "docker.io",
        other => other,
    };
    // Only where a name has a registry is the first part taken for one, so a name is made.
    let bad = || Failure::usage_with(format!("`{text}` is no registry"), "kiln login registry.example");
    match oci::Reference::parse(&format!("{host}/x")) {
        Ok(reference) if reference.registry == host => Ok(host.to_owned()),
        _ => Err(bad()),
    }
}

fn who(arguments: &LoginArguments, host: &str) -> Result<(String, Secret), Failure> {
    let terminal = console::Term::stderr();
    let asked = terminal.features().is_attended();
    let lost = |error: io::Error| Failure::machine(format!("standard input: {error}"));
    let needed = |flag: &str| {
        let example = format!("kiln login -u USER --password-stdin {host}");
        Failure::usage_with(format!("there is no terminal to ask for it: give `{flag}`"), example)
    };
    let username = match &arguments.username {
        Some(username) => username.clone(),
        None if asked && !arguments.password_stdin => {
            write!(&terminal, "Username: ").map_err(lost)?;
            let mut line = String::new();
            io::stdin().lock().read_line(&mut line).map_err(lost)?;
            line.trim().to_owned()
        }
        None => return Err(needed("--username")),
    };
    let password = match &arguments.password {
        Some(password) => {
            eprintln!("warning: a password on the command line is seen by others; use `--password-stdin`");
            password.clone()
        }
        None if arguments.password_stdin => {
            let mut text = String::new();
            io::stdin().lock().take(LONGEST).read_to_string(&mut text).map_err(lost)?;
            text.trim_end_matches(['\r', '\n']).to_owned()
        }
        None if asked => {
            write!(&terminal, "Password: ").map_err(lost)?;
            terminal.read_secure_line().map_err(lost)?
        }
        None => return Err(needed("--password-stdin")),
    };
    if username.is_empty() || password.is_empty() {
        return Err(Failure::usage("the user name or the password is empty".to_owned()));
    }
    Ok((username, Secret::new(password)))
}

/// Held while the config file is read and written, so that of two logins at once none is lost. Locked is its folder: the file
/// itself is replaced. Some file systems lock no folders; then it is as with Docker's own command, which locks nothing.
fn locked() -> Option<fs::File> {
    let folder = fs::File::open(machine::docker_config()).ok()?;
    folder.lock().ok().map(|()| folder)
}

/// The config file's path, links followed, and its text; empty where there is none.
fn config_file() -> Result<(PathBuf, String), Failure> {
    let path = machine::docker_config().join("config.json");
    let path = fs::canonicalize(&path).unwrap_or(path);
    match fs::read_to_string(&path) {
        Ok(text) => Ok((path, text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok((path, String::new())),
        Err(error) => Err(Failure::machine(format!("cannot read {}: {error}", path.display()))),
    }
}

fn parse(text: &str, path: &Path) -> Result<DockerConfig, Failure> {
    let text = if text.trim().is_empty() { "{}" } else { text };
    DockerConfig::parse(text, path, registries::programs()).map_err(|error| Failure::usage(error.to_string()))
}

/// Written aside and renamed, readable by the owner alone.
fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let put = || {
        let aside = path.with_extension(format!("kiln-{}", std::process::id()));
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&aside)?;
        let written = file.write_all(text.as_bytes()).and_then(|()| fs::rename(&aside, path));
        if written.is_err() {
            let _aside = fs::remove_file(&aside);
        }
        written
    };
    put().map_err(|error: io::Error| Failure::machine(format!("cannot write {}: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_is_written_in_many_ways() {
        for (text, name) in [
            (None, Some("docker.io")),
            (Some("https://index.docker.io/v1/"), Some("docker.io")),
            (Some("ghcr.io"), Some("ghcr.io")),
            (Some("http://localhost:5000"), Some("localhost:5000")),
            (Some("localhost:5000/v2/"), Some("localhost:5000")),
            (Some("alpine"), None),
            (Some(""), None),
            (Some("A B"), None),
        ] {
            assert_eq!(host(text).ok().as_deref(), name, "{text:?}");
        }
    }
}
