//! The engine: a state folder, a way to registries, a clock.

use std::{
    collections::BTreeSet,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::{Duration, UNIX_EPOCH},
};

use store::{Options, Store};

use crate::{
    build::{self, BuildOutcome},
    cancel::Cancel,
    client::Client,
    clock::Clock,
    effect::{Effects, context::Contexts, pull::Images},
    error::{Cause, Error},
    progress::SharedSink,
    request::BuildRequest,
};

/// How an engine is made.
pub struct Settings {
    /// The state folder.
    pub root: PathBuf,
    /// The time.
    pub clock: Clock,
    /// Registries.
    pub registry: registry::Client,
    /// How many steps may run at once; `None` is as many as there are.
    pub jobs: Option<usize>,
}

/// Builds and runs images. Clones are one engine.
#[derive(Clone)]
pub struct Engine {
    pub(crate) store: Store,
    pub(crate) clock: Clock,
    registry: registry::Client,
    jobs: Option<usize>,
}

impl Engine {
    /// Opens the state folder.
    ///
    /// # Errors
    /// It cannot be read or written, or was made by another Kiln.
    pub fn open(settings: Settings) -> Result<Engine, Error> {
        let Settings { root, clock, registry, jobs } = settings;
        let now = clock.clone();
        let clock_of_store = store::Clock::new(move || UNIX_EPOCH + Duration::from_nanos(now.now().0));
        let store = Store::open(Options::new(root, clock_of_store))?;
        Ok(Engine { store, clock, registry, jobs })
    }

    /// Builds.
    ///
    /// # Errors
    /// [`Error`], with the place in the Dockerfile where there is one. What was finished is in the cache; no output is
    /// half written.
    pub async fn build(
        &self,
        request: BuildRequest,
        client: Arc<dyn Client>,
        sink: SharedSink,
        cancel: Cancel,
    ) -> Result<BuildOutcome, Error> {
        let effects = Arc::new(self.effects(client, sink, request.explain)?);
        let built = build::build(effects, request, self.jobs, cancel).await;
        if built.is_err() {
            // What was finished is to be found again, also after a power cut. That it could not be flushed would hide
            // why the build failed.
            let store = self.store.clone();
            let _flushed = tokio::task::spawn_blocking(move || store.keep()).await;
        }
        built
    }

    /// What the effects of one build share.
    pub(crate) fn effects(
        &self,
        client: Arc<dyn Client>,
        sink: SharedSink,
        explain: bool,
    ) -> Result<Effects, Cause> {
        let lease = self.store.lease()?;
        let empty = lease.new_folder()?;
        Ok(Effects {
            store: self.store.clone(),
            lease,
            client,
            registry: self.registry.clone(),
            sink,
            clock: self.clock.clone(),
            empty,
            explain,
            contexts: Contexts::default(),
            images: Images::default(),
            contents: Mutex::default(),
            said: Mutex::new(BTreeSet::new()),
        })
    }
}
