//! Connections: one pool for each set of trusted certificates, made when it is first needed.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use reqwest::{Certificate, Client, NoProxy, Proxy, Url};
use tokio::sync::{Mutex, OnceCell};

use crate::{
    credentials::Secret,
    error::Fault,
    names, roots,
    settings::{Limits, Proxies, Roots, Settings},
};

/// Whose certificates are believed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Trust {
    /// Those of the system.
    System,
    /// Those of the system and of this file.
    And(PathBuf),
    /// Everybody's.
    Anyone,
    /// Nobody's: plain HTTP. A builder that only talks to loopback never reads a certificate.
    Plain,
}

/// The connection pools.
pub(crate) struct Transports {
    roots: Roots,
    proxies: Proxies,
    limits: Limits,
    system: OnceCell<Vec<Certificate>>,
    clients: Mutex<BTreeMap<Trust, Client>>,
}

impl Transports {
    pub(crate) fn new(settings: &Settings) -> Transports {
        Transports {
            roots: settings.roots.clone(),
            proxies: settings.proxies.clone(),
            limits: settings.limits.clone(),
            system: OnceCell::new(),
            clients: Mutex::default(),
        }
    }

    /// How long a connection may take to be made.
    pub(crate) fn connect_limit(&self) -> Duration {
        self.limits.connect
    }

    /// The pool for an address, which may be that of a redirect: its scheme may differ from the endpoint's.
    pub(crate) async fn client(&self, url: &Url, trust: &Trust) -> Result<Client, Fault> {
        let trust = match (url.scheme(), trust) {
            ("http", _) => &Trust::Plain,
            (_, Trust::Plain) => &Trust::System,
            (_, trust) => trust,
        };
        let mut clients = self.clients.lock().await;
        if let Some(client) = clients.get(trust) {
            return Ok(client.clone());
        }
        let client = self.build(trust).await?;
        clients.insert(trust.clone(), client.clone());
        Ok(client)
    }

    async fn build(&self, trust: &Trust) -> Result<Client, Fault> {
        let builder = Client::builder()
            .user_agent(concat!("kiln/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(self.limits.connect)
            .no_proxy();
        let builder = self.proxies()?.into_iter().fold(builder, |builder, proxy| builder.proxy(proxy));
        let builder = names::configure(builder);
        let builder = match trust {
            Trust::Plain => builder.tls_certs_only([]),
            Trust::Anyone => builder.tls_certs_only([]).tls_danger_accept_invalid_certs(true),
            Trust::System => builder.tls_certs_only(self.system().await?),
            Trust::And(path) => {
                let path = path.clone();
                let named = blocking(move || roots::named(&path)).await?;
                builder.tls_certs_only(self.system().await?.into_iter().chain(named))
            }
        };
        builder.build().map_err(|error| Fault::Setup { why: deepest(&error) })
    }

    async fn system(&self) -> Result<Vec<Certificate>, Fault> {
        let roots = self.roots.clone();
        let load = || blocking(move || roots::load(&roots));
        self.system.get_or_try_init(load).await.cloned()
    }

    fn proxies(&self) -> Result<Vec<Proxy>, Fault> {
        let except = self.proxies.except.as_deref().unwrap_or_default();
        // A proxy would look for its own loopback, not for ours.
        let except = NoProxy::from_string(&format!("localhost,127.0.0.0/8,::1,{except}"));
        let make = |text: &Option<Secret>, proxy: fn(&str) -> reqwest::Result<Proxy>| {
            let text = text.as_ref().map(Secret::reveal).filter(|text| !text.is_empty());
            let made = text.map(|text| {
                // The address may hold a password, so it is not told.
                proxy(text).map_err(|_| Fault::Setup { why: "a proxy's address is not a URL".to_owned() })
            });
            made.transpose()
        };
        let made =
            [make(&self.proxies.http, |p| Proxy::http(p))?, make(&self.proxies.https, |p| Proxy::https(p))?];
        Ok(made.into_iter().flatten().map(|proxy| proxy.no_proxy(except.clone())).collect())
    }
}

/// Runs what may wait for a disk or a process beside the tasks that wait for the network.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Fault> + Send + 'static,
) -> Result<T, Fault> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Fault::Setup { why: error.to_string() }),
    }
}

/// The innermost cause of an error: `Connection refused`, without the layers that only say that something
/// failed.
pub(crate) fn deepest(error: &(dyn std::error::Error + 'static)) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
