//! Connections: one pool for each set of trusted certificates, made when it is first needed.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use reqwest::{Certificate, Client, ClientBuilder, Url};
use tokio::sync::{Mutex, OnceCell};

use crate::{
    error::Fault,
    names, roots,
    settings::{ClientCertificate, Limits, Proxies, Roots, Settings},
};

/// Whose certificates are believed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Trust {
    /// Those of the system.
    System,
    /// As the settings of a host say.
    Given(Tls),
    /// Nobody's: plain HTTP. A builder that only talks to loopback never reads a certificate.
    Plain,
}

/// What the settings of a host say of TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Tls {
    /// Files of authorities that are trusted beside the system's.
    pub authorities: Vec<PathBuf>,
    /// Who we are.
    pub client: Option<ClientCertificate>,
    /// Everybody's certificate is believed.
    pub unchecked: bool,
}

impl Trust {
    /// Whether anybody could be listening.
    pub(crate) fn is_unprotected(&self) -> bool {
        matches!(self, Trust::Plain | Trust::Given(Tls { unchecked: true, .. }))
    }
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

    /// Who is asked to reach an address, where it is not asked itself.
    pub(crate) fn proxy_of(&self, url: &Url) -> Option<String> {
        self.proxies.of(url)
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
        let builder =
            self.proxies.configured()?.into_iter().fold(builder, |builder, proxy| builder.proxy(proxy));
        let builder = names::configure(builder);
        let builder = match trust {
            Trust::Plain => builder.tls_certs_only([]),
            Trust::System => builder.tls_certs_only(self.system().await?),
            Trust::Given(tls) => self.given(tls, builder).await?,
        };
        builder.build().map_err(|error| Fault::Setup { why: deepest(&error) })
    }

    async fn given(&self, tls: &Tls, builder: ClientBuilder) -> Result<ClientBuilder, Fault> {
        let (paths, client) = (tls.authorities.clone(), tls.client.clone());
        let (named, identity) = blocking(move || {
            let named: Vec<Vec<Certificate>> =
                paths.iter().map(|path| roots::named(path)).collect::<Result<_, _>>()?;
            Ok((named.concat(), client.as_ref().map(roots::identity).transpose()?))
        })
        .await?;
        let builder = match tls.unchecked {
            true => builder.tls_certs_only([]).tls_danger_accept_invalid_certs(true),
            false => builder.tls_certs_only(self.system().await?.into_iter().chain(named)),
        };
        Ok(match identity {
            Some(identity) => builder.identity(identity),
            None => builder,
        })
    }

    async fn system(&self) -> Result<Vec<Certificate>, Fault> {
        let roots = self.roots.clone();
        let load = || blocking(move || roots::load(&roots));
        self.system.get_or_try_init(load).await.cloned()
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
pub fn deepest(error: &(dyn std::error::Error + 'static)) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
