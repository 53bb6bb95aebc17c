//! How registries are reached, by all files that say something about it. This is the one place that merges them.
//!
//! Kiln's own settings are believed first, then those of containers (`registries.conf`, its `certs.d`), then
//! Docker's (`certs.d` with `hosts.toml`, `daemon.json`). Each question is answered by the first that says
//! anything about it, and the others are not asked:
//!
//! | Question | Kiln | containers | Docker |
//! |---|---|---|---|
//! | may it be asked? | | `blocked` | |
//! | who is asked first? | `mirrors` | `mirror` | `[host]`, `registry-mirrors` |
//! | where is it really? | | `location` | `server` |
//! | is the certificate checked? | `insecure` | `insecure` | `skip_verify`, `insecure-registries` |
//! | who signs certificates? | `ca` | `certs.d/HOST/*.crt` | `ca`, `certs.d/HOST/*.crt` |
//! | who are we? | `cert`, `key` | `certs.d/HOST/*.cert` | `client`, `certs.d/HOST/*.cert` |
//!
//! What other programs keep is read when a registry is first asked, and of `certs.d` only the folders of hosts
//! that are asked: a broken file of theirs stops nothing that does not need it.

mod bad_file;
mod certificates;
mod containers;
mod daemon;
mod hosts_toml;
mod rule;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use oci::Reference;

pub use bad_file::{BadFile, Problem};
pub(crate) use rule::{Rule, Site};

use crate::{
    error::Fault,
    notice::Notices,
    settings::{ClientCertificate, Files, RegistrySettings, Scheme, Settings},
};
use certificates::HostFolder;
use daemon::Daemon;

/// Everything that was written down about registries.
pub(crate) struct Configured {
    own: BTreeMap<String, RegistrySettings>,
    files: Files,
    notices: Notices,
    others: OnceLock<Result<Others, BadFile>>,
    /// What `certs.d` has for a host, of containers and of Docker.
    hosts: Mutex<BTreeMap<String, Arc<Folders>>>,
}

#[derive(Default)]
struct Others {
    containers: Vec<Rule>,
    daemon: Daemon,
}

struct Folders {
    containers: HostFolder,
    docker: HostFolder,
}

/// What a question is for: it decides who may be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To read what a name stands for.
    ReadName,
    /// To read something that has a digest.
    ReadDigest,
    /// To write, or to ask what only the registry itself knows.
    Write,
}

/// A place of a repository, and how it is spoken to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Spot {
    pub registry: String,
    pub repository: String,
    /// `None`: as the rest says.
    pub scheme: Option<Scheme>,
    /// The path of the API: `/v2`.
    pub api: String,
    pub mirror: bool,
    pub insecure: Option<bool>,
    pub authorities: Vec<PathBuf>,
    pub client: Option<ClientCertificate>,
}

impl Configured {
    pub(crate) fn new(settings: &Settings, notices: Notices) -> Configured {
        Configured {
            own: settings.registries.clone(),
            files: settings.files.clone(),
            notices,
            others: OnceLock::new(),
            hosts: Mutex::default(),
        }
    }

    /// The places where a repository is asked for: mirrors in their order, then where it really is. What is
    /// written goes to the registry and to none of its mirrors.
    ///
    /// # Errors
    /// It is blocked, or a file that has to be known cannot be read.
    pub(crate) fn spots(&self, reference: &Reference, purpose: Purpose) -> Result<Vec<Spot>, Fault> {
        let others = self.others()?;
        let folders = self.folders(&reference.registry)?;
        let rule = containers::find(&others.containers, reference);
        if let Some((rule, _)) = rule.as_ref().filter(|(rule, _)| rule.blocked) {
            return Err(Fault::Blocked { prefix: rule.prefix.to_string(), path: rule.file.clone() });
        }
        let below = format!("/{}", reference.repository);
        let mut named = Vec::new();
        if purpose != Purpose::Write {
            for (site, rest) in self.mirrors(reference, others, &folders, rule.as_ref(), &below) {
                if site.pulls.allow(reference, purpose) {
                    named.push((site.at(&rest)?, true));
                }
            }
        }
        let place = match (&rule, &folders.docker.rule) {
            // Names are rewritten for reading only, as containers do it.
            (Some((Rule { place: Some(site), .. }, rest)), _) if purpose != Purpose::Write => {
                site.at(rest)?
            }
            (_, Some(Rule { place: Some(site), .. })) => site.at(&below)?,
            _ => Site::of(&reference.registry).at(&below)?,
        };
        named.push((place, false));
        named.into_iter().map(|(named, mirror)| self.spot(named, mirror, reference, others)).collect()
    }

    /// The first that names mirrors of a repository names all of them.
    fn mirrors(
        &self,
        reference: &Reference,
        others: &Others,
        folders: &Folders,
        rule: Option<&(&Rule, String)>,
        below: &str,
    ) -> Vec<(Site, String)> {
        let all = |sites: &[Site], rest: &str| {
            sites.iter().map(|site| (site.clone(), rest.to_owned())).collect::<Vec<_>>()
        };
        if let Some(own) = self.own.get(&reference.registry).filter(|own| !own.mirrors.is_empty()) {
            let sites: Vec<Site> = own.mirrors.iter().map(Site::of_mirror).collect();
            return all(&sites, below);
        }
        if let Some((rule, rest)) = rule.filter(|(rule, _)| !rule.mirrors.is_empty()) {
            return all(&rule.mirrors, rest);
        }
        if let Some(rule) = folders.docker.rule.as_ref().filter(|rule| !rule.mirrors.is_empty()) {
            return all(&rule.mirrors, below);
        }
        let hub = reference.registry == "docker.io";
        if hub { all(&others.daemon.mirrors, below) } else { Vec::new() }
    }

    /// A place with what all files say about its host.
    fn spot(
        &self,
        named: rule::Named,
        mirror: bool,
        reference: &Reference,
        others: &Others,
    ) -> Result<Spot, Fault> {
        let rule::Named { site, registry, repository } = named;
        let folders = self.folders(&registry)?;
        let own = self.own.get(&registry).cloned().unwrap_or_default();
        let host = || {
            let name =
                Reference { registry: registry.clone(), repository: repository.clone(), ..reference.clone() };
            containers::find(&others.containers, &name).and_then(|(rule, _)| rule.insecure)
        };
        let insecure = own.insecure.or(site.insecure).or_else(host);
        let insecure = insecure.or_else(|| others.daemon.insecure(&registry).then_some(true));
        let first = |lists: [&[PathBuf]; 4]| {
            lists.into_iter().find(|list| !list.is_empty()).unwrap_or_default().to_vec()
        };
        let authorities = first([
            own.ca.as_slice(),
            &site.authorities,
            &folders.containers.authorities,
            &folders.docker.authorities,
        ]);
        let clients =
            [own.client, site.client, folders.containers.client.clone(), folders.docker.client.clone()];
        let client = clients.into_iter().flatten().next();
        let (scheme, api) = (site.scheme, site.api);
        Ok(Spot { registry, repository, scheme, api, mirror, insecure, authorities, client })
    }

    fn others(&self) -> Result<&Others, BadFile> {
        let read = || {
            let containers = containers::read(&self.files, &self.notices)?;
            let daemon = self.files.docker_daemon.as_deref().map(daemon::read).transpose()?;
            Ok(Others { containers, daemon: daemon.unwrap_or_default() })
        };
        self.others.get_or_init(read).as_ref().map_err(Clone::clone)
    }

    fn folders(&self, registry: &str) -> Result<Arc<Folders>, BadFile> {
        if let Some(known) = self.hosts.lock().unwrap_or_else(PoisonError::into_inner).get(registry) {
            return Ok(known.clone());
        }
        let find = |roots: &[PathBuf]| certificates::find(roots, registry, &self.notices);
        let folders = Arc::new(Folders {
            containers: find(&self.files.containers_certificates)?,
            docker: find(&self.files.docker_certificates)?,
        });
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(hosts.entry(registry.to_owned()).or_insert(folders).clone())
    }
}

#[cfg(test)]
mod tests;
