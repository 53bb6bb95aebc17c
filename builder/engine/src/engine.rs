//! The engine: a state folder, a way to registries, a clock.

use std::{
    collections::BTreeSet,
    path::PathBuf,
    sync::{Arc, Mutex, OnceLock},
    time::{Duration, UNIX_EPOCH},
};

use dockerfile::describe::{Outline, Target};
use fetch::git::Surroundings;
use sandbox::{Mode, Zygote, net::Networks};
use store::{IdMap, Options, Store};

use crate::{
    build::{
        self, BuildOutcome,
        call::{self, Checked},
        sources::Sources,
    },
    cancel::Cancel,
    client::Client,
    clock::Clock,
    effect::{
        Effects,
        bounds::StepLimits,
        context::Contexts,
        early::{Encoding, Planned},
        etc::Etc,
        git::References,
        http::Files,
        pull::{Images, Turns},
        roots::Roots,
        scene::Scenes,
    },
    error::{Cause, Error},
    limits::Limits,
    local::enter::Failed,
    memo::{self, Recorder},
    progress::{Event, SharedSink, Warning},
    request::BuildRequest,
    steps::Witness,
};

/// Where builds of all state folders agree on what they change of the host; emptied when it restarts.
pub const SHARED: &str = "/run/kiln";

/// How an engine is made.
pub struct Settings {
    /// The state folder.
    pub root: PathBuf,
    /// The time.
    pub clock: Clock,
    /// Registries.
    pub registry: registry::Client,
    /// What git needs of the machine.
    pub surroundings: Surroundings,
    /// How many steps may run at once; `None` is as many as there are.
    pub jobs: Option<usize>,
    /// What layers from elsewhere may take.
    pub limits: Limits,
    /// What clones the steps of builds; without it this process does.
    pub zygote: Option<Zygote>,
    /// What limits each step.
    pub step_limits: StepLimits,
    /// How steps are kept apart, and whose files are.
    pub mode: Mode,
    /// How owners stand in the state folder's inodes.
    pub id_map: IdMap,
}

/// Builds and runs images. Clones are one engine.
#[derive(Clone)]
pub struct Engine {
    pub(crate) store: Store,
    pub(crate) clock: Clock,
    pub(crate) registry: registry::Client,
    surroundings: Surroundings,
    jobs: Option<usize>,
    pub(crate) limits: Limits,
    zygote: Option<Arc<Zygote>>,
    step_limits: StepLimits,
    mode: Mode,
}

impl Engine {
    /// Opens the state folder.
    ///
    /// # Errors
    /// It cannot be read or written, or was made by another Kiln.
    pub fn open(settings: Settings) -> Result<Engine, Error> {
        let Settings { root, clock, registry, surroundings, jobs, limits, .. } = settings;
        let Settings { zygote, step_limits, mode, id_map, .. } = settings;
        let keep_free_bytes = limits.free_bytes;
        let options = Options { keep_free_bytes, id_map, ..Options::new(root, clock_of_store(&clock)) };
        let store = Store::open(options)?;
        let zygote = zygote.map(Arc::new);
        Ok(Engine { store, clock, registry, surroundings, jobs, limits, zygote, step_limits, mode })
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
        let keep = self.build_leaving(request, client, sink, cancel, false);
        keep.await.map_err(|failed| failed.error)
    }

    /// As [`Engine::build`]; of the step that failed, if it was a step, all is kept that it stood on and that it wrote, until
    /// what is returned is dropped.
    ///
    /// # Errors
    /// As [`Engine::build`].
    pub async fn build_to_enter(
        &self,
        request: BuildRequest,
        client: Arc<dyn Client>,
        sink: SharedSink,
        cancel: Cancel,
    ) -> Result<BuildOutcome, Failed> {
        self.build_leaving(request, client, sink, cancel, true).await
    }

    async fn build_leaving(
        &self,
        request: BuildRequest,
        client: Arc<dyn Client>,
        sink: SharedSink,
        cancel: Cancel,
        to_enter: bool,
    ) -> Result<BuildOutcome, Failed> {
        let witness = Arc::new(Witness::new(sink, request.frontend.target.clone()));
        let sink: SharedSink = witness.clone();
        let recorder = Recorder::of(&request, &*client, &sink, &self.store);
        let sink = recorder.clone().map_or(sink, |recorder| recorder as SharedSink);
        let again = recorder.as_ref().map(|_| request.clone());
        let scenes = to_enter.then(Scenes::default);
        let effects = self.effects(client, sink, request.explain).map_err(Error::from)?;
        let keyed_secrets = request.keyed_secrets.clone();
        let effects =
            Arc::new(Effects { recorder, witness: Some(witness), scenes, keyed_secrets, ..effects });
        let over = effects.over.clone();
        let stopped = cancel.on_set({
            let over = over.clone();
            move || over.set()
        });
        let built = build::build(effects.clone(), request, self.jobs, cancel.clone()).await;
        if let (Ok(outcome), Some(request)) = (&built, again) {
            memo::keep(&effects, request, outcome, self.jobs, cancel).await;
        }
        effects.wait_for_ends(|_| true);
        effects.keep_steps();
        let built = built.map_err(|error| Failed::of(error, &effects));
        drop(effects);
        drop(stopped);
        over.set();
        if built.is_err() {
            // What was finished is to be found again, also after a power cut. That it could not be flushed would hide
            // why the build failed.
            let store = self.store.clone();
            let _flushed = tokio::task::spawn_blocking(move || store.keep()).await;
        }
        built
    }

    /// Checks a Dockerfile: `--check`.
    ///
    /// # Errors
    /// [`Error::Cancelled`]; everything else is part of the answer.
    pub async fn check(
        &self,
        request: BuildRequest,
        client: Arc<dyn Client>,
        sink: SharedSink,
        cancel: Cancel,
    ) -> Result<Checked, Error> {
        let effects = Arc::new(self.effects(client, sink, false)?);
        let over = effects.over.clone();
        let _stopped = cancel.on_set(move || over.set());
        call::checked(effects, request, cancel).await
    }

    /// Tells which stages a Dockerfile has: `--call=targets`.
    ///
    /// # Errors
    /// The Dockerfile cannot be read.
    pub async fn targets(
        &self,
        request: BuildRequest,
        client: Arc<dyn Client>,
        sink: SharedSink,
        cancel: Cancel,
    ) -> Result<Vec<Target>, Error> {
        let effects = Arc::new(self.effects(client, sink, false)?);
        let over = effects.over.clone();
        let _stopped = cancel.on_set(move || over.set());
        call::listed(effects, request, cancel).await
    }

    /// Tells what the target of a Dockerfile takes: `--call=outline`.
    ///
    /// # Errors
    /// As [`Engine::build`], up to where that would begin to make something.
    pub async fn outline(
        &self,
        request: BuildRequest,
        client: Arc<dyn Client>,
        sink: SharedSink,
        cancel: Cancel,
    ) -> Result<Outline, Error> {
        let effects = Arc::new(self.effects(client, sink, false)?);
        let over = effects.over.clone();
        let _stopped = cancel.on_set(move || over.set());
        call::outlined(effects, request, cancel).await
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
            registry: self.registry.hearing(heard_by(&sink)),
            sink,
            recorder: None,
            keyed_secrets: BTreeSet::new(),
            clock: self.clock.clone(),
            empty,
            explain,
            contexts: Contexts::default(),
            images: Images::default(),
            sources: Sources::default(),
            turns: Turns::default(),
            files: Files::default(),
            references: References::default(),
            etc: Etc::default(),
            networks: Networks::new(PathBuf::from(SHARED), self.surroundings.path.clone()),
            surroundings: self.surroundings.clone(),
            limits: self.limits,
            zygote: self.zygote.clone(),
            step_limits: self.step_limits.clone(),
            mode: self.mode,
            cgroups: Mutex::default(),
            roots: Roots::default(),
            marks: OnceLock::new(),
            spare: Mutex::default(),
            ending: Mutex::default(),
            over: Cancel::new(),
            contents: Mutex::default(),
            exported: OnceLock::new(),
            planned: Planned::default(),
            encoding: Encoding::new(),
            writing: Arc::default(),
            unwritten: Mutex::default(),
            said: Mutex::new(BTreeSet::new()),
            witness: None,
            scenes: None,
            checks: OnceLock::new(),
        })
    }
}

/// The clock as the store has it.
pub(crate) fn clock_of_store(clock: &Clock) -> store::Clock {
    let now = clock.clone();
    store::Clock::new(move || UNIX_EPOCH + Duration::from_nanos(now.now().0))
}

/// What a person should know of registries, as warnings of this operation.
fn heard_by(sink: &SharedSink) -> impl Fn(&registry::Notice) + Send + Sync + 'static {
    let sink = sink.clone();
    move |notice| {
        let (code, message) = ("registry".to_owned(), notice.to_string());
        sink.event(Event::Warning(Warning { vertex: None, code, message, source: None }));
    }
}
