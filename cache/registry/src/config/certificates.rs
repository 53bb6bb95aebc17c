//! `certs.d`: a folder for each host, with whom it is trusted by and who we are to it
//! (containers-certs.d(5); Docker, "Verify repository client with certificates"; containerd, hosts.md).
//!
//! `*.crt` are certificate authorities, `NAME.cert` and `NAME.key` a client certificate. A `hosts.toml` beside
//! them says more.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{
    bad_file::{BadFile, Problem},
    hosts_toml,
    rule::Rule,
};
use crate::{
    notice::{Notice, Notices},
    settings::ClientCertificate,
};

/// What the folder of one host holds.
#[derive(Debug, Default)]
pub(crate) struct HostFolder {
    pub authorities: Vec<PathBuf>,
    pub client: Option<ClientCertificate>,
    pub rule: Option<Rule>,
}

/// The folder of a host in the first of the roots that has one.
///
/// # Errors
/// It is there and something in it cannot be used.
pub(crate) fn find(roots: &[PathBuf], registry: &str, notices: &Notices) -> Result<HostFolder, BadFile> {
    let mut names = vec![registry.to_owned()];
    if registry == "docker.io" {
        names.push("registry-1.docker.io".to_owned());
    }
    if let Some((host, port)) = registry.rsplit_once(':') {
        names.insert(0, format!("{host}_{port}_"));
    }
    for root in roots {
        for name in &names {
            let folder = root.join(name);
            if folder.is_dir() {
                return read(&folder, registry, notices);
            }
        }
    }
    // containerd's words for all hosts that have no folder.
    let all =
        roots.iter().map(|root| root.join("_default")).find(|folder| folder.join("hosts.toml").is_file());
    match all {
        Some(folder) => Ok(HostFolder { rule: rule(&folder, registry, notices)?, ..HostFolder::default() }),
        None => Ok(HostFolder::default()),
    }
}

fn read(folder: &Path, registry: &str, notices: &Notices) -> Result<HostFolder, BadFile> {
    let entries = fs::read_dir(folder).map_err(|error| BadFile::unreadable(folder, &error))?;
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    let ending = |end: &str| {
        let end = end.to_owned();
        paths.iter().filter(move |path| path.extension().is_some_and(|found| *found == *end))
    };
    let half = |path: &Path, needs: &Path| {
        let needs = needs.file_name().unwrap_or_default().to_string_lossy().into_owned();
        BadFile::new(path, Problem::Half { needs })
    };
    let mut client = None;
    for certificate in ending("cert") {
        let key = certificate.with_extension("key");
        if !paths.contains(&key) {
            return Err(half(certificate, &key));
        }
        if client.is_some() {
            let what = "a second client certificate".to_owned();
            notices.tell(&Notice::Unused { path: certificate.clone(), what });
            continue;
        }
        client = Some(ClientCertificate { certificate: certificate.clone(), key });
    }
    if let Some(key) = ending("key").find(|key| !paths.contains(&key.with_extension("cert"))) {
        return Err(half(key, &key.with_extension("cert")));
    }
    let rule = rule(folder, registry, notices)?;
    Ok(HostFolder { authorities: ending("crt").cloned().collect(), client, rule })
}

fn rule(folder: &Path, registry: &str, notices: &Notices) -> Result<Option<Rule>, BadFile> {
    let path = folder.join("hosts.toml");
    match fs::read_to_string(&path) {
        Ok(text) => hosts_toml::parse(&text, &path, registry, notices).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(BadFile::unreadable(&path, &error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        for file in files {
            let path = folder.path().join(file);
            fs::create_dir_all(path.parent().expect("below")).expect("made");
            fs::write(path, "").expect("written");
        }
        folder
    }

    fn of(root: &tempfile::TempDir, registry: &str) -> Result<HostFolder, BadFile> {
        find(&[root.path().to_owned()], registry, &Notices::default())
    }

    #[test]
    fn files_are_told_by_their_ends() {
        let root =
            folder(&["r.lab:5000/b.crt", "r.lab:5000/a.crt", "r.lab:5000/me.cert", "r.lab:5000/me.key"]);
        let found = of(&root, "r.lab:5000").expect("read");
        let below = |name: &str| root.path().join("r.lab:5000").join(name);
        assert_eq!(found.authorities, [below("a.crt"), below("b.crt")]);
        let client = ClientCertificate { certificate: below("me.cert"), key: below("me.key") };
        assert_eq!(found.client, Some(client));
        assert!(of(&root, "r.lab").expect("another host").authorities.is_empty());
    }

    #[test]
    fn a_half_certificate_is_an_error_for_its_host() {
        let root = folder(&["a.lab/x.cert", "b.lab/x.key"]);
        for (registry, says) in [("a.lab", "x.cert: it needs x.key"), ("b.lab", "x.key: it needs x.cert")] {
            let error = of(&root, registry).expect_err(registry).to_string();
            assert!(error.contains(says), "{error}");
        }
        assert!(of(&root, "c.lab").is_ok());
    }

    #[test]
    fn a_host_has_several_names() {
        let root = folder(&["registry-1.docker.io/a.crt", "p.lab_5000_/a.crt", "_default/hosts.toml"]);
        assert_eq!(of(&root, "docker.io").expect("read").authorities.len(), 1);
        assert_eq!(of(&root, "p.lab:5000").expect("read").authorities.len(), 1);
        assert!(of(&root, "other.lab").expect("read").rule.is_some());
        assert!(of(&root, "docker.io").expect("read").rule.is_none());
    }
}
