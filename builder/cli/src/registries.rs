//! How registries are reached: Kiln's own settings, Docker's credentials, the system's certificates.

use std::{fs, io, path::PathBuf, sync::Arc};

use registry::{Anonymous, Client, Credentials, DockerConfig, Proxies, Secret, Settings};

use crate::{failure::Failure, machine};

/// A way to registries, with settings from `KILN_REGISTRIES`, else the user's, else the system's file.
pub fn client() -> Result<Client, Failure> {
    let mut settings = Settings::default();
    if let Some(path) = settings_file() {
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
    Ok(Client::new(settings, credentials()?))
}

fn proxies() -> Proxies {
    let either = |name: &str| machine::variable(&name.to_lowercase()).or_else(|| machine::variable(name));
    // A proxy's address may hold a password.
    let secret = |name: &str| either(name).map(Secret::new);
    Proxies { http: secret("HTTP_PROXY"), https: secret("HTTPS_PROXY"), except: either("NO_PROXY") }
}

fn credentials() -> Result<Arc<dyn Credentials>, Failure> {
    let path = machine::docker_config().join("config.json");
    let text = match fs::read_to_string(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Arc::new(Anonymous)),
        read => read.map_err(|error| Failure::usage(format!("cannot read {}: {error}", path.display())))?,
    };
    let config =
        DockerConfig::parse(&text, path, programs()).map_err(|error| Failure::usage(error.to_string()))?;
    Ok(Arc::new(config))
}

/// The folders in which credential helpers are looked for.
pub fn programs() -> Vec<PathBuf> {
    std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect()).unwrap_or_default()
}

fn settings_file() -> Option<PathBuf> {
    if let Some(named) = machine::variable("KILN_REGISTRIES") {
        return Some(PathBuf::from(named));
    }
    let config =
        machine::variable("XDG_CONFIG_HOME").map_or_else(|| machine::home().join(".config"), PathBuf::from);
    let files = [config.join("kiln/registries.toml"), PathBuf::from("/etc/kiln/registries.toml")];
    files.into_iter().find(|file| file.exists())
}
