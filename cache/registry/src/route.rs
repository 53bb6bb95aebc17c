//! Who is asked, in which order, and when the next one is.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use oci::Reference;
use reqwest::Url;

use crate::{
    config::Spot,
    error::{Asked, Error, Fault, Tried, What},
    notice::{Listener, Notice, Notices},
    retry::{Retry, wait},
    settings::{Limits, Scheme},
    transport::{Tls, Trust},
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
    /// `https://host/v2/`.
    pub api: Url,
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

/// The places of a repository, as addresses. A host that may speak either stands there twice, with TLS first.
/// `plain` are those that are known to speak no TLS.
///
/// # Errors
/// [`Fault::Setup`] when a host is none, for instance `[::zz]`.
pub(crate) fn endpoints(
    reference: &Reference,
    spots: Vec<Spot>,
    plain: &BTreeSet<String>,
) -> Result<Vec<Endpoint>, Fault> {
    let mut all = Vec::new();
    for spot in spots {
        for (scheme, trust) in ways(&spot, plain) {
            let namespace = spot.mirror.then(|| reference.registry.clone());
            let (api, base) = addresses(scheme, &spot)?;
            let Spot { registry, repository, .. } = spot.clone();
            all.push(Endpoint { registry, repository, api, base, trust, namespace });
        }
    }
    Ok(all)
}

/// How a host is spoken to.
fn ways(spot: &Spot, plain: &BTreeSet<String>) -> Vec<(Scheme, Trust)> {
    let unchecked = spot.insecure == Some(true);
    let tls = Tls { authorities: spot.authorities.clone(), client: spot.client.clone(), unchecked };
    let given = tls != Tls::default();
    let trust = if given { Trust::Given(tls) } else { Trust::System };
    let (https, http) = ((Scheme::Https, trust), (Scheme::Http, Trust::Plain));
    match spot.scheme {
        Some(Scheme::Http) => vec![http],
        Some(Scheme::Https) => vec![https],
        None if unchecked && plain.contains(&spot.registry) => vec![http],
        None if unchecked => vec![https, http],
        None if given || spot.insecure == Some(false) => vec![https],
        None if is_loopback(&spot.registry) && !spot.registry.ends_with(":443") => vec![http],
        None => vec![https],
    }
}

/// The addresses of a host's API and of a repository there.
fn addresses(scheme: Scheme, spot: &Spot) -> Result<(Url, Url), Fault> {
    let scheme = match scheme {
        Scheme::Http => "http",
        Scheme::Https => "https",
    };
    let Spot { registry, repository, api, .. } = spot;
    let host = if registry == DOCKER_HUB.0 { DOCKER_HUB.1 } else { registry };
    let bad = |_| Fault::Setup { why: format!("`{registry}` is no host") };
    let url = |path: String| Url::parse(&format!("{scheme}://{host}{path}")).map_err(bad);
    Ok((url(format!("{api}/"))?, url(format!("{api}/{repository}/"))?))
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
    hearing: Hearing,
}

/// Who hears of mirrors that are passed over.
#[derive(Clone, Default)]
pub(crate) struct Hearing {
    pub notices: Notices,
    pub listener: Option<Listener>,
    /// Where they are kept, so that the next question is not put to them.
    pub gone: Arc<Gone>,
}

/// Mirrors that are not asked any more, by their addresses, and what they did.
pub(crate) type Gone = Mutex<BTreeMap<String, Tried>>;

impl Route {
    /// The route of a question. `endpoints` has at least one, as [`endpoints`] gives it.
    /// Those that are gone are not asked.
    pub(crate) fn new(
        mut asked: Asked,
        mut endpoints: Vec<Endpoint>,
        limits: &Limits,
        hearing: Hearing,
        gone: &BTreeMap<String, Tried>,
    ) -> Route {
        endpoints.retain(|endpoint| {
            let known = endpoint.namespace.as_ref().and_then(|_| gone.get(&host_of(&endpoint.base)));
            asked.tried.extend(known.cloned());
            known.is_none()
        });
        Route { limits: limits.clone(), endpoints, at: 0, failures: 0, asked, hearing }
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
            // waited for, and who was silent is not listened to again.
            Some(_) if fault.retry() == Retry::Later && self.failures == 0 && !fault.is_silence() => {
                Some(self.limits.first_wait)
            }
            Some(_) => None,
        };
        if let Some(wait) = wait {
            self.failures += 1;
            tokio::time::sleep(wait).await;
            return Ok(());
        }
        let Some(next) = next else { return Err(self.fail(fault)) };
        self.pass_over(next, &fault);
        let (address, code) = (host_of(&self.endpoint().base), fault.code());
        self.asked.tried.push(Tried { address, code, fault: fault.to_string() });
        self.at = next;
        self.failures = 0;
        Ok(())
    }

    /// Tells of a mirror that is no help, and keeps it from being asked again. That it does not have something is
    /// no news: a mirror may be partial.
    fn pass_over(&self, next: usize, fault: &Fault) {
        let (current, next) = (self.endpoint(), &self.endpoints[next]);
        let Some(registry) = &current.namespace else { return };
        // Plain HTTP is still to be tried.
        if current.registry == next.registry
            && next.namespace.is_some()
            && current.base.path() == next.base.path()
        {
            return;
        }
        if matches!(fault, Fault::NotFound { .. }) {
            return;
        }
        self.tell_of(current, registry, fault);
    }

    /// Passes over every mirror that may have sent a part of what came. Whether there was one.
    pub(crate) fn pass_over_all(&self, fault: &Fault) -> bool {
        let asked = self.endpoints.iter().take(self.at + 1);
        let mirrors: Vec<_> =
            asked.filter_map(|endpoint| Some((endpoint, endpoint.namespace.as_ref()?))).collect();
        mirrors.iter().for_each(|(endpoint, registry)| self.tell_of(endpoint, registry, fault));
        !mirrors.is_empty()
    }

    fn tell_of(&self, mirror: &Endpoint, registry: &str, fault: &Fault) {
        let address = host_of(&mirror.base);
        let (code, registry) = (fault.code(), registry.to_owned());
        let gone = fault.is_of_the_host();
        let fault = fault.to_string();
        if gone {
            let tried = Tried { address: address.clone(), code, fault: fault.clone() };
            let mut gone = self.hearing.gone.lock().unwrap_or_else(PoisonError::into_inner);
            gone.entry(address.clone()).or_insert(tried);
        }
        self.hearing.notices.tell(&Notice::Mirror { address, registry, fault });
        self.hearing.notices.hand_to(self.hearing.listener.as_ref());
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
            && before.trust.is_unprotected()
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
    use crate::{
        config::{Configured, Purpose},
        settings::Settings,
    };

    fn of(reference: &Reference, settings: &str) -> Result<Vec<Endpoint>, Fault> {
        let settings = Settings::parse(settings).expect(settings);
        let configured = Configured::new(&settings, Notices::default());
        let spots = configured.spots(reference, Purpose::ReadName)?;
        endpoints(reference, spots, &BTreeSet::new())
    }

    fn bases(reference: &str, settings: &str) -> Vec<String> {
        let endpoints = of(&reference.parse().expect(reference), settings).expect("hosts");
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
        let mirror = "[registry.'docker.io']\nmirrors = ['http://m.lab']";
        let all = of(&"alpine".parse().expect("a name"), mirror).expect("hosts");
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
        assert!(of(&reference, "").is_err());
    }
}
