//! What all questions share: settings, connections, passes.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};

use oci::Reference;

use crate::{
    Credentials, Settings,
    error::{Error, Fault, What},
    route::{Route, asked, endpoints},
    settings::Limits,
    token::Passes,
    transport::Transports,
};

/// Asks registries. Clones are cheap and share connections and logins.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

struct Shared {
    settings: Settings,
    credentials: Arc<dyn Credentials>,
    transports: Transports,
    passes: Passes,
    /// Registries that were found to speak plain HTTP only.
    plain: Mutex<BTreeSet<String>>,
}

impl Client {
    /// A client. Does nothing yet: files are read and connections made by the first question that needs them.
    pub fn new(settings: Settings, credentials: Arc<dyn Credentials>) -> Client {
        let (transports, passes) = (Transports::new(&settings), Passes::default());
        Client {
            shared: Arc::new(Shared { settings, credentials, transports, passes, plain: Mutex::default() }),
        }
    }

    /// How it was set up: for programs that make connections of their own.
    pub fn settings(&self) -> &Settings {
        &self.shared.settings
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
        let plain = self.shared.plain.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let endpoints = endpoints(reference, &self.shared.settings, &plain);
        let endpoints = endpoints.map_err(|fault| error(reference, what, fault))?;
        Ok(Route::new(reference, what, endpoints, self.limits()))
    }

    /// The route of a question that is for the registry itself and for none of its mirrors.
    pub(crate) fn push_route(&self, reference: &Reference, what: What) -> Result<Route, Error> {
        let plain = self.shared.plain.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let endpoints = endpoints(reference, &self.shared.settings, &plain);
        let mut endpoints = endpoints.map_err(|fault| error(reference, what, fault))?;
        endpoints.retain(|endpoint| endpoint.namespace.is_none());
        Ok(Route::new(reference, what, endpoints, self.limits()))
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
