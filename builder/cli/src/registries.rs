//! How registries are reached: where Kiln's own settings are, those of containers and of Docker, the logins of
//! both, and the system's certificates. What they say is merged in `cache/registry`.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use registry::{Client, Files, LoginFiles, Proxies, Secret, Settings};

use crate::{failure::Failure, machine};

/// A way to registries, with settings from `KILN_REGISTRIES`, else the user's, else the system's file.
pub fn client() -> Result<Client, Failure> {
    let mut settings = Settings::default();
    if let Some(path) = machine::settings("KILN_REGISTRIES", "registries.toml") {
        let text = fs::read_to_string(&path)
            .map_err(|error| Failure::usage(format!("cannot read {}: {error}", path.display())))?;
        settings =
            Settings::parse(&text).map_err(|error| Failure::usage(format!("{}: {error}", path.display())))?;
    }
    settings.roots.file = machine::variable("SSL_CERT_FILE").map(PathBuf::from);
    let folders = machine::variable("SSL_CERT_DIR").unwrap_or_default();
    settings.roots.folders =
        std::env::split_paths(&folders).filter(|path| !path.as_os_str().is_empty()).collect();
    settings.proxies = proxies();
    settings.files = files();
    let client = Client::new(settings, Arc::new(logins()));
    Ok(client.hearing(|notice| eprintln!("warning: {notice}")))
}

/// Where logins are looked for: Docker's file, then those of containers (containers-auth.json(5)).
pub fn logins() -> LoginFiles {
    let docker = machine::docker_config().join("config.json");
    let others = match machine::variable("REGISTRY_AUTH_FILE") {
        Some(named) => vec![PathBuf::from(named)],
        None => {
            let user = rustix::process::geteuid();
            let running = machine::variable("XDG_RUNTIME_DIR").map_or_else(
                || PathBuf::from(format!("/run/containers/{user}")),
                |dir| Path::new(&dir).join("containers"),
            );
            vec![running.join("auth.json"), machine::config().join("containers/auth.json")]
        }
    };
    LoginFiles::new(std::iter::once(docker).chain(others), programs())
}

/// The files of other programs. `registries.conf` as containers look for it: the user's replaces the system's, and then
/// the system's further files are not read either.
fn files() -> Files {
    let (system, user) = (machine::etc().join("containers"), machine::config().join("containers"));
    let there = |path: PathBuf| Some(path).filter(|path| path.exists());
    let own = there(user.join("registries.conf"));
    let named = machine::variable("CONTAINERS_REGISTRIES_CONF").map(PathBuf::from);
    let mut folders = vec![user.join("registries.conf.d")];
    if named.is_some() || own.is_none() {
        folders.insert(0, system.join("registries.conf.d"));
    }
    Files {
        registries_conf: named.or(own).or_else(|| there(system.join("registries.conf"))),
        registries_conf_folders: folders,
        containers_certificates: vec![user.join("certs.d"), system.join("certs.d")],
        docker_certificates: vec![
            machine::etc().join("docker/certs.d"),
            machine::etc().join("containerd/certs.d"),
        ],
        docker_daemon: there(machine::etc().join("docker/daemon.json")),
    }
}

fn proxies() -> Proxies {
    let either = |name: &str| machine::variable(&name.to_lowercase()).or_else(|| machine::variable(name));
    // A proxy's address may hold a password.
    let secret = |name: &str| either(name).map(Secret::new);
    Proxies { http: secret("HTTP_PROXY"), https: secret("HTTPS_PROXY"), except: either("NO_PROXY") }
}

/// The folders in which credential helpers are looked for.
pub fn programs() -> Vec<PathBuf> {
    std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect()).unwrap_or_default()
}
