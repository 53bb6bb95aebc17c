//! What all questions share: settings, connections, passes.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};

use oci::Reference;

use crate::{
    Credentials, Settings,
    config::{Configured, Purpose},
    error::{Error, Fault, What},
    notice::{Listener, Notice, Notices},
    route::{Gone, Hearing, Route, asked, endpoints},
    settings::Limits,
    token::Passes,
    transport::Transports,
};

/// Asks registries. Clones are cheap and share connections and logins.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
    /// Who is told what a person should know.
    listener: Option<Listener>,
}

struct Shared {
    settings: Settings,
    configured: Configured,
    notices: Notices,
    credentials: Arc<dyn Credentials>,
    transports: Transports,
    passes: Passes,
    /// Registries that were found to speak plain HTTP only.
    plain: Mutex<BTreeSet<String>>,
    /// Mirrors that are not asked any more.
    gone: Arc<Gone>,
}

impl Client {
    /// A client. Does nothing yet: files are read and connections made by the first question that needs them.
    pub fn new(settings: Settings, credentials: Arc<dyn Credentials>) -> Client {
        let (transports, passes, notices) =
            (Transports::new(&settings), Passes::default(), Notices::default());
        let configured = Configured::new(&settings, notices.clone());
        let (plain, gone) = (Mutex::default(), Arc::default());
        Client {
            shared: Arc::new(Shared {
                settings,
                configured,
                notices,
                credentials,
                transports,
                passes,
                plain,
                gone,
            }),
            listener: None,
        }
    }

    /// The same, but what a person should know is told to `listener`: a mirror that is passed over, a setting that
    /// is not used. Each is told once, to whoever listens first.
    pub fn hearing(&self, listener: impl Fn(&Notice) + Send + Sync + 'static) -> Client {
        Client { listener: Some(Arc::new(listener)), ..self.clone() }
    }

    /// How it was set up: for programs that make connections of their own.
    pub fn settings(&self) -> &Settings {
        &self.shared.settings
    }

    /// The same, but these registries may speak plain HTTP, or have a certificate that nobody knows: as
    /// `insecure = true` of the settings says it. Shares logins' credentials, but no connections.
    pub fn insecure<'a>(&self, registries: impl Iterator<Item = &'a str>) -> Client {
        let mut settings = self.shared.settings.clone();
        for registry in registries {
            let registry = settings.registries.entry(registry.to_owned()).or_default();
            (registry.insecure, registry.ca) = (Some(true), None);
        }
        Client { listener: self.listener.clone(), ..Client::new(settings, self.shared.credentials.clone()) }
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.shared.settings.limits
    }

    pub(crate) fn transports(&self) -> &Transports {
        &self.shared.transports
    }

    pub(crate) fn passes(&self) -> &Passes {
        &self.shared.passes
    }

    pub(crate) fn credentials(&self) -> Arc<dyn Credentials> {
        self.shared.credentials.clone()
    }

    /// The route of a question about an image.
    pub(crate) fn route(&self, reference: &Reference, what: What) -> Result<Route, Error> {
        let by_digest = reference.digest.is_some() || matches!(what, What::Blob(_));
        self.route_for(reference, what, if by_digest { Purpose::ReadDigest } else { Purpose::ReadName })
    }

    /// The route of a question that is for the registry itself and for none of its mirrors.
    pub(crate) fn push_route(&self, reference: &Reference, what: What) -> Result<Route, Error> {
        self.route_for(reference, what, Purpose::Write)
    }

    /// Whether others than the registry itself are asked what a name stands for, who may be behind.
    pub fn is_mirrored(&self, name: &Reference) -> bool {
        let spots = |purpose| self.shared.configured.spots(name, purpose).ok();
        spots(Purpose::ReadName) != spots(Purpose::Write)
    }

    fn route_for(&self, reference: &Reference, what: What, purpose: Purpose) -> Result<Route, Error> {
        let spots = self.shared.configured.spots(reference, purpose);
        self.shared.notices.hand_to(self.listener.as_ref());
        let plain = self.shared.plain.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let gone = self.shared.gone.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let endpoints = spots.and_then(|spots| endpoints(reference, spots, &plain));
        let endpoints = endpoints.map_err(|fault| error(reference, what, fault))?;
        let hearing = Hearing {
            notices: self.shared.notices.clone(),
            listener: self.listener.clone(),
            gone: self.shared.gone.clone(),
        };
        Ok(Route::new(asked(reference, what), endpoints, self.limits(), hearing, &gone))
    }

    /// Keeps in mind what a route that was answered has shown.
    pub(crate) fn learn(&self, route: &Route) {
        if let Some(registry) = route.found_plain() {
            self.shared.plain.lock().unwrap_or_else(PoisonError::into_inner).insert(registry.to_owned());
        }
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("settings", &self.shared.settings).finish_non_exhaustive()
    }
}

/// An error about an image rather than about a host.
pub(crate) fn error(reference: &Reference, what: What, fault: Fault) -> Error {
    Error { asked: Box::new(asked(reference, what)), fault: Box::new(fault) }
}
