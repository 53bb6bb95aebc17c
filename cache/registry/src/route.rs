//! Who is asked, in which order, and when the next one is.

use std::{collections::BTreeSet, net::IpAddr};

use oci::Reference;
use reqwest::Url;

use crate::{
    error::{Asked, Error, Fault, Tried, What},
    retry::{Retry, wait},
    settings::{Limits, Scheme, Settings},
    transport::Trust,
    wire::host_of,
};

/// Docker Hub's name in references and the host that serves its API.
const DOCKER_HUB: (&str, &str) = ("docker.io", "registry-1.docker.io");

/// One place where a repository is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// The name that settings and logins go by.
    pub registry: String,
    /// The repository as this host has it.
    pub repository: String,
    /// `https://host/v2/repository/`.
    pub base: Url,
    pub trust: Trust,
    /// For a mirror: the registry that it stands for, told as `ns` so that it can stand for several
    /// (distribution-spec, § Registry Proxying).
    pub namespace: Option<String>,
}

impl Endpoint {
    /// The address of something below the repository: `manifests/latest`.
    pub(crate) fn url(&self, path: &str) -> Url {
        let mut url = self.base.clone();
        url.set_path(&format!("{}{path}", self.base.path()));
        if let Some(namespace) = &self.namespace {
            url.query_pairs_mut().append_pair("ns", namespace);
        }
        url
    }
}

/// The places of a repository: the mirrors in their order, then the registry. A host that may speak either
/// stands there twice, with TLS first. `plain` are those that are known to speak no TLS.
///
/// # Errors
/// [`Fault::Setup`] when a host is none, for instance `[::zz]`.
pub(crate) fn endpoints(
    reference: &Reference,
    settings: &Settings,
    plain: &BTreeSet<String>,
) -> Result<Vec<Endpoint>, Fault> {
    let mut all = Vec::new();
    for mirror in settings.of(&reference.registry).mirrors {
        let repository = format!("{}{}", mirror.prefix, reference.repository);
        let ways = match mirror.scheme {
            Some(Scheme::Http) => vec![(Scheme::Http, Trust::Plain)],
            Some(Scheme::Https) => {
                ways(&mirror.registry, settings, plain).into_iter().filter(is_tls).collect()
            }
            None => ways(&mirror.registry, settings, plain),
        };
        // A loopback host that is written with `https://` speaks it.
        let tls = || vec![(Scheme::Https, Trust::System)];
        let ways = if ways.is_empty() { tls() } else { ways };
        add(&mut all, ways, &mirror.registry, &repository, Some(&reference.registry))?;
    }
    let own = ways(&reference.registry, settings, plain);
    add(&mut all, own, &reference.registry, &reference.repository, None)?;
    Ok(all)
}

fn add(
    all: &mut Vec<Endpoint>,
    ways: Vec<(Scheme, Trust)>,
    registry: &str,
    repository: &str,
    namespace: Option<&str>,
) -> Result<(), Fault> {
    for (scheme, trust) in ways {
        all.push(Endpoint {
            registry: registry.to_owned(),
            repository: repository.to_owned(),
            base: base(scheme, registry, repository)?,
            trust,
            namespace: namespace.map(str::to_owned),
        });
    }
    Ok(())
}

fn is_tls(way: &(Scheme, Trust)) -> bool {
    way.0 == Scheme::Https
}

/// How a host is spoken to.
fn ways(registry: &str, settings: &Settings, plain: &BTreeSet<String>) -> Vec<(Scheme, Trust)> {
    let settings = settings.of(registry);
    match (settings.insecure, settings.ca) {
        (Some(true), _) if plain.contains(registry) => vec![(Scheme::Http, Trust::Plain)],
        (Some(true), _) => vec![(Scheme::Https, Trust::Anyone), (Scheme::Http, Trust::Plain)],
        (_, Some(ca)) => vec![(Scheme::Https, Trust::And(ca))],
        (None, None) if is_loopback(registry) && !registry.ends_with(":443") => {
            vec![(Scheme::Http, Trust::Plain)]
        }
        _ => vec![(Scheme::Https, Trust::System)],
    }
}

fn base(scheme: Scheme, registry: &str, repository: &str) -> Result<Url, Fault> {
    let scheme = match scheme {
        Scheme::Http => "http",
        Scheme::Https => "https",
    };
    let host = if registry == DOCKER_HUB.0 { DOCKER_HUB.1 } else { registry };
    let bad = |_| Fault::Setup { why: format!("`{registry}` is no host") };
    Url::parse(&format!("{scheme}://{host}/v2/{repository}/")).map_err(bad)
}

/// Whether a host, with or without a port, is this machine: `localhost`, 127.0.0.0/8 or ::1.
pub(crate) fn is_loopback(registry: &str) -> bool {
    let host = match registry.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, _)) => host,
        None => registry.rsplit_once(':').map_or(registry, |(host, _)| host),
    };
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Where a question stands: whom it is put to now, and what the others did.
pub(crate) struct Route {
    limits: Limits,
    endpoints: Vec<Endpoint>,
    at: usize,
    failures: u32,
    asked: Asked,
}

impl Route {
    /// The route of a question. `endpoints` has at least one, as [`endpoints`] gives it.
    pub(crate) fn new(reference: &Reference, what: What, endpoints: Vec<Endpoint>, limits: &Limits) -> Route {
        let asked = asked(reference, what);
        Route { limits: limits.clone(), endpoints, at: 0, failures: 0, asked }
    }

    /// Who is asked now.
    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.endpoints[self.at]
    }

    /// Says that much came, so that earlier failures do not count any more.
    pub(crate) fn progressed(&mut self) {
        self.failures = 0;
    }

    /// Decides what follows a fault: waits and lets the same be asked again, or goes on to the next.
    ///
    /// # Errors
    /// The fault, when nobody is left to ask.
    pub(crate) async fn after(&mut self, fault: Fault) -> Result<(), Error> {
        let next = self.next(&fault);
        let wait = match next {
            None => wait(&self.limits, fault.retry(), self.failures),
            // Where there is someone else to ask, a connection that broke is tried once more; nobody is
            // waited for.
            Some(_) if fault.retry() == Retry::Later && self.failures == 0 => Some(self.limits.first_wait),
            Some(_) => None,
        };
        if let Some(wait) = wait {
            self.failures += 1;
            tokio::time::sleep(wait).await;
            return Ok(());
        }
        let Some(next) = next else { return Err(self.fail(fault)) };
        let (address, code) = (host_of(&self.endpoint().base), fault.code());
        self.asked.tried.push(Tried { address, code, fault: fault.to_string() });
        self.at = next;
        self.failures = 0;
        Ok(())
    }

    /// The place that comes after this one. Plain HTTP is an answer to a failure of TLS only, not to a refusal.
    fn next(&self, fault: &Fault) -> Option<usize> {
        let current = self.endpoint();
        let other = |endpoint: &Endpoint| {
            endpoint.registry != current.registry || endpoint.repository != current.repository
        };
        let later = self.endpoints.iter().enumerate().skip(self.at + 1);
        let mut fitting = later.filter(|(_, endpoint)| fault.is_unreachable() || other(endpoint));
        fitting.next().map(|(at, _)| at)
    }

    /// The error of this question, with all that was tried.
    pub(crate) fn fail(&self, fault: Fault) -> Error {
        let endpoint = self.endpoint();
        let asked =
            Asked { host: endpoint.registry.clone(), address: host_of(&endpoint.base), ..self.asked.clone() };
        Error { asked: Box::new(asked), fault: Box::new(fault) }
    }

    /// When plain HTTP answered where TLS did not: the registry, to be asked that way from now on.
    pub(crate) fn found_plain(&self) -> Option<&str> {
        let current = self.endpoint();
        let before = self.at.checked_sub(1).map(|at| &self.endpoints[at])?;
        (current.trust == Trust::Plain
            && before.trust == Trust::Anyone
            && before.registry == current.registry)
            .then_some(current.registry.as_str())
    }
}

/// A question that was put to nobody yet.
pub(crate) fn asked(reference: &Reference, what: What) -> Asked {
    let registry = reference.registry.clone();
    let (host, address) = (registry.clone(), registry.clone());
    Asked { reference: reference.to_string(), what, registry, host, address, tried: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bases(reference: &str, settings: &str) -> Vec<String> {
        let reference = reference.parse().expect(reference);
        let settings = Settings::parse(settings).expect(settings);
        let endpoints = endpoints(&reference, &settings, &BTreeSet::new()).expect("hosts");
        endpoints.iter().map(|endpoint| endpoint.base.to_string()).collect()
    }

    #[test]
    fn hosts_are_asked_in_order() {
        for (reference, settings, expected) in [
            ("alpine", "", vec!["https://registry-1.docker.io/v2/library/alpine/"]),
            ("localhost:5000/a", "", vec!["http://localhost:5000/v2/a/"]),
            ("127.1.2.3:5000/a", "", vec!["http://127.1.2.3:5000/v2/a/"]),
            ("[::1]:5000/a", "", vec!["http://[::1]:5000/v2/a/"]),
            ("localhost:443/a", "", vec!["https://localhost/v2/a/"]),
            ("10.0.0.1:5000/a", "", vec!["https://10.0.0.1:5000/v2/a/"]),
            (
                "localhost:5000/a",
                "[registry.'localhost:5000']\ninsecure = false",
                vec!["https://localhost:5000/v2/a/"],
            ),
            (
                "lab:5000/a",
                "[registry.'lab:5000']\ninsecure = true",
                vec!["https://lab:5000/v2/a/", "http://lab:5000/v2/a/"],
            ),
            (
                "alpine",
                "[registry.'docker.io']\nmirrors = ['http://10.0.0.1:5000', 'harbor.lab/hub', 'https://localhost:1']",
                vec![
                    "http://10.0.0.1:5000/v2/library/alpine/",
                    "https://harbor.lab/v2/hub/library/alpine/",
                    "https://localhost:1/v2/library/alpine/",
                    "https://registry-1.docker.io/v2/library/alpine/",
                ],
            ),
        ] {
            assert_eq!(bases(reference, settings), expected, "{reference}");
        }
    }

    #[test]
    fn a_mirror_is_told_whom_it_stands_for() {
        let settings = Settings::parse("[registry.'docker.io']\nmirrors = ['http://m.lab']").expect("valid");
        let all = endpoints(&"alpine".parse().expect("a name"), &settings, &BTreeSet::new()).expect("hosts");
        let urls: Vec<String> = all.iter().map(|one| one.url("manifests/latest").to_string()).collect();
        assert_eq!(
            urls,
            [
                "http://m.lab/v2/library/alpine/manifests/latest?ns=docker.io",
                "https://registry-1.docker.io/v2/library/alpine/manifests/latest"
            ]
        );
    }

    #[test]
    fn a_host_that_is_none_is_an_error() {
        let reference: Reference = "localhost/a".parse().expect("a name");
        let reference = Reference { registry: "[::zz]:1".into(), ..reference };
        assert!(endpoints(&reference, &Settings::default(), &BTreeSet::new()).is_err());
    }
}
