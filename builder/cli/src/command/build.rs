//! `kiln build`: from arguments to a request, and from what came of it to an exit status.

pub(super) mod agents;
mod call;
mod dockerfile;
mod enter;
mod others;
mod outputs;
mod proxies;
pub(super) mod secrets;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Write,
    path::{Path, PathBuf},
    sync::Arc,
};

use ::dockerfile::{Entitlement, NamedContext, NoCache, Request, ignore::Ignore};
use engine::{
    Asking, BuildOutcome, BuildRequest, Cancel, DockerfileFrom, Engine, Failed, Output, Remember, StepLimits,
};
use oci::{Platform, Reference};
use sandbox::{Wish, Zygote};

use self::dockerfile::Inputs;
use crate::{
    arguments::Build,
    command,
    failure::{self, Failure, Source},
    flags::{self, Call, ContextSource, OnError, Secret},
    machine::{self, Machine},
    place::{self, Place},
    progress::{Mode, Shown, bytes},
    settings::{self, Collecting},
    signals,
};

/// A build that is ready to be made: all that the command line and the files that it names say.
pub struct Ready {
    arguments: Build,
    root: PathBuf,
    wish: Wish,
    mode: Mode,
    call: Option<Call>,
    on_error: OnError,
    /// Of the command line.
    warnings: Vec<String>,
    step_limits: StepLimits,
    request: BuildRequest,
    machine: Machine,
    collecting: Collecting,
}

/// Reads what a build is to be. What a failure points into is left in `source`.
pub fn ready(
    arguments: Build,
    (root, wish): (Option<PathBuf>, Wish),
    source: &mut Source,
) -> Result<Ready, Failure> {
    let mode = Mode::asked(&arguments.progress, arguments.quiet)?;
    let call = flags::call(arguments.check, arguments.call.as_deref())?;
    let on_error = flags::on_error(&arguments.on_error)?;
    enter::check(on_error)?;
    let warnings = others::check(&arguments.others)?;
    let step_limits = step_limits(&arguments)?;
    let inputs = Inputs::find(&arguments)?;
    if let DockerfileFrom::Text { name, bytes } = &inputs.dockerfile {
        *source = Source { name: name.clone(), text: bytes.clone() };
    }
    let (outputs, idle) = outputs::outputs(&arguments)?;
    let warnings = [warnings, idle].concat();
    let (request, machine) = request(&arguments, inputs, outputs)?;
    let collecting = settings::collecting()?;
    let root = place::state_folder(root)?;
    Ok(Ready {
        arguments,
        root,
        wish,
        mode,
        call,
        on_error,
        warnings,
        request,
        machine,
        collecting,
        step_limits,
    })
}

impl Ready {
    /// Answers a build that was made before and in which nothing has changed; none where that is not known.
    pub fn recall(&self, source: &mut Source) -> Option<Result<u8, Failure>> {
        if self.call.is_some() {
            return None;
        }
        let recalled = engine::recall(&self.root, &self.request, &self.machine, &machine::clock())?;
        let display = self.mode.display();
        let shown = Shown::new(display.clone());
        let built = recalled.tell(&shown);
        display.finish();
        Some(self.tell(source, &shown, Ok(built)))
    }

    /// See [`Machine::hide_memory`].
    pub fn hide_memory(&self) {
        self.machine.hide_memory();
    }

    /// Whether secrets are read to find out if something has changed.
    pub fn compares_secrets(&self) -> bool {
        !self.request.keyed_secrets.is_empty()
    }

    /// Enters what the mode asks for, and makes what clones the steps: none where there are none, or where it cannot be had, and
    /// they are dearer. To be called once, while there is one thread.
    pub fn enter(&self) -> Result<(Place, Option<Zygote>), Failure> {
        let place = Place::enter(self.root.clone(), self.wish)?;
        let zygote = self.call.is_none().then(Zygote::fork).and_then(Result::ok).flatten();
        Ok((place, zygote))
    }

    /// Builds, and shows what happens; or asks what `--call` says. Gives the exit status.
    pub async fn run(
        mut self,
        source: &mut Source,
        (place, zygote): (Place, Option<Zygote>),
    ) -> Result<u8, Failure> {
        self.warnings.extend(place.notes.iter().map(ToString::to_string));
        agents::read_keys(&mut self.machine)?;
        let engine = command::engine_with(place, self.arguments.jobs, zygote, self.step_limits.clone())?;
        let cancel = Cancel::new();
        signals::cancel_on_interrupt(&cancel)?;
        if let Some(call) = self.call {
            let metadata = self.arguments.metadata_file.as_deref();
            return call::run(
                call,
                &engine,
                (self.request, self.machine),
                source,
                self.mode,
                metadata,
                cancel,
            )
            .await;
        }
        let display = self.mode.display();
        let shown = Arc::new(Shown::new(display.clone()));
        let (request, machine) = (self.request.clone(), Arc::new(self.machine.clone()));
        let built = match self.on_error {
            OnError::Fail => {
                let built = engine.build(request, machine, shown.clone(), cancel.clone());
                built.await.map_err(Failed::from)
            }
            OnError::Shell => engine.build_to_enter(request, machine, shown.clone(), cancel.clone()).await,
        };
        display.finish();
        let (built, step) = match built {
            Ok(built) => (Ok(built), None),
            Err(Failed { error, step }) => (Err(Failure::from(error)), step),
        };
        let mut told = self.tell(source, &shown, built);
        if let (Err(failure), Some(step)) = (&told, step) {
            told = enter::enter(failure, source, step).await;
        }
        tidy(&engine, self.collecting, self.mode, &cancel).await;
        told
    }

    /// Says what a build came to, when the display is done.
    fn tell(
        &self,
        source: &mut Source,
        shown: &Shown,
        built: Result<BuildOutcome, Failure>,
    ) -> Result<u8, Failure> {
        shown.tell_source(source);
        if matches!(self.mode, Mode::Tty | Mode::Plain) {
            let (colour, width) = failure::screen();
            for warning in shown.warnings() {
                eprintln!("{}", failure::warning(source, &warning, colour, width));
            }
        }
        for warning in &self.warnings {
            eprintln!("warning: {warning}");
        }
        let to_stdout = self.request.outputs.iter().any(writes_stdout);
        built.and_then(|built| report(&self.arguments, &built, to_stdout)).map(|()| 0)
    }
}

/// Collects what the policy says, where that is due. All that was asked for is done and told by now: an interrupt ends this,
/// and it fails no build.
async fn tidy(engine: &Engine, collecting: Collecting, mode: Mode, cancel: &Cancel) {
    if cancel.is_set() {
        return;
    }
    let tidied = tokio::select! {
        tidied = engine.tidy(collecting.rules(&engine.disk())) => tidied,
        () = cancel.wait() => return,
    };
    match tidied {
        Ok(Some(freed)) if freed.disk_bytes() > 0 && matches!(mode, Mode::Tty | Mode::Plain) => {
            let (count, size) = (freed.entries.len(), bytes(freed.disk_bytes()));
            let entries = if count == 1 { "entry" } else { "entries" };
            eprintln!("collected {count} {entries} of the build cache, {size}");
        }
        Ok(_) => {}
        Err(error) => {
            let (colour, width) = failure::screen();
            let why = Failure::from(error).render(&Source::default(), colour, width);
            eprintln!("warning: the build cache was not collected:\n{why}");
        }
    }
}

/// What limits the steps.
fn step_limits(arguments: &Build) -> Result<StepLimits, Failure> {
    let mut limits = flags::step_limits(&arguments.resources)?;
    if let Some(timeout) = &arguments.timeout {
        // No time at all is no limit, as with every other program that has such a flag.
        limits.timeout_seconds = Some(flags::seconds("--timeout", timeout)?).filter(|seconds| *seconds > 0);
    }
    Ok(limits)
}

/// Says what was built, in the files and on the output that were asked for.
fn report(arguments: &Build, outcome: &BuildOutcome, to_stdout: bool) -> Result<(), Failure> {
    let digest = outcome.image.as_ref().map(|image| image.digest.to_string()).unwrap_or_default();
    if let Some(path) = &arguments.iidfile {
        write_file(path, digest.as_bytes())?;
    }
    if let Some(path) = &arguments.metadata_file {
        let text = serde_json::to_vec_pretty(&outcome.metadata).expect("JSON can be written");
        write_file(path, &text)?;
    }
    if arguments.quiet && !to_stdout && !digest.is_empty() {
        let mut out = std::io::stdout().lock();
        writeln!(out, "{digest}")
            .map_err(|error| Failure::machine(format!("cannot write to standard output: {error}")))?;
    }
    Ok(())
}

/// Writes a file at once or not at all.
pub fn write_file(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let failed =
        |error: std::io::Error| Failure::machine(format!("cannot write {}: {error}", path.display()));
    if path.metadata().is_ok_and(|found| !found.is_file()) {
        return fs::write(path, bytes).map_err(failed);
    }
    let aside = path.with_extension(format!("kiln-{}", std::process::id()));
    fs::write(&aside, bytes).and_then(|()| fs::rename(&aside, path)).map_err(failed)
}

fn writes_stdout(output: &Output) -> bool {
    use engine::Destination::Stdout;
    matches!(
        output,
        Output::Oci { to: Stdout, .. } | Output::Docker { to: Stdout, .. } | Output::Tar { to: Stdout, .. }
    )
}

fn request(
    arguments: &Build,
    inputs: Inputs,
    outputs: Vec<Output>,
) -> Result<(BuildRequest, Machine), Failure> {
    let mut machine = Machine::default();
    let mut frontend = Request::new(Platform::host());
    let (mut layouts, mut keyed_secrets) = (BTreeMap::new(), BTreeSet::new());
    frontend.build_args = flags::pairs_from("--build-arg", &arguments.build_args, machine::variable)?;
    proxies::add(&mut frontend.build_args);
    if let Some(time) = machine::variable("SOURCE_DATE_EPOCH") {
        frontend.build_args.entry("SOURCE_DATE_EPOCH".to_owned()).or_insert(time);
    }
    frontend.target = arguments.target.clone();
    for platform in arguments.platform.iter().filter(|text| !text.is_empty()) {
        frontend.platforms.push(flags::platform(platform)?);
    }
    frontend.labels = flags::pairs("--label", &arguments.labels)?;
    frontend.ignore = inputs.ignore;
    frontend.no_cache = match (arguments.no_cache, arguments.no_cache_filter.is_empty()) {
        (true, _) => NoCache::All,
        (false, true) => NoCache::None,
        (false, false) => NoCache::Stages(arguments.no_cache_filter.clone()),
    };
    frontend.network = flags::network(&arguments.network)?;
    for allowed in &arguments.allow {
        frontend.allow.insert(entitlement(allowed)?);
    }
    frontend.extra_hosts =
        arguments.add_hosts.iter().map(|text| flags::extra_host(text)).collect::<Result<_, _>>()?;
    (frontend.ulimits, frontend.shm_size_bytes) = flags::process_limits(&arguments.limits)?;
    machine.contexts.extend(inputs.folder.map(|folder| ("context".to_owned(), folder)));
    machine.archive = inputs.archive;
    for value in &arguments.build_contexts {
        let (name, named) = named_context(value, &mut machine, &mut layouts)?;
        frontend.named_contexts.insert(name, named);
    }
    for value in &arguments.secrets {
        let Secret { id, source, in_keys } = flags::secret(value, machine::has_variable)?;
        secrets::check(value, &source)?;
        if in_keys {
            keyed_secrets.insert(id.clone());
        } else {
            keyed_secrets.remove(&id);
        }
        machine.secrets.insert(id, source);
    }
    agents::add(&mut machine, &arguments.ssh)?;
    let asking = Asking {
        pull: flags::pull(&arguments.pull)?,
        fresh_seconds: flags::seconds("--resolve-ttl", &arguments.resolve_ttl)?,
    };
    let request = BuildRequest {
        dockerfile: inputs.dockerfile,
        context: inputs.context,
        frontend,
        layouts,
        tags: tags(&arguments.tags)?,
        outputs,
        keyed_secrets,
        explain: arguments.explain,
        asking,
        remember: remember()?,
    };
    Ok((request, machine))
}

/// What else the build depends on.
fn remember() -> Result<Option<Remember>, Failure> {
    // A mistake in it is told whether it matters to this build or not.
    let limits = machine::variable("KILN_LIMITS").unwrap_or_default();
    flags::limits(&limits)?;
    let Ok(folder) = std::env::current_dir() else { return Ok(None) };
    Ok(Some(Remember { program: machine::program(), folder, limits }))
}

/// The first of a list of platforms, as `DOCKER_DEFAULT_PLATFORM` may hold one.
pub fn first_platform(text: Option<&str>) -> Result<Option<Platform>, Failure> {
    let first = text.and_then(|text| text.split(',').find(|one| !one.is_empty()));
    let parsed =
        first.map(|text| text.parse().map_err(|error| Failure::usage(format!("--platform: {error}"))));
    parsed.transpose()
}

fn tags(texts: &[String]) -> Result<Vec<Reference>, Failure> {
    let tag = |text: &String| match Reference::parse(text) {
        Ok(reference) if reference.digest.is_none() => Ok(reference),
        Ok(_) => {
            Err(Failure::usage_with(format!("--tag {text}: a tag cannot name a digest"), "--tag NAME:TAG"))
        }
        Err(error) => Err(Failure::usage(format!("--tag: {error}"))),
    };
    texts.iter().map(tag).collect()
}

fn entitlement(text: &str) -> Result<Entitlement, Failure> {
    let all = [Entitlement::NetworkHost, Entitlement::SecurityInsecure];
    all.into_iter().find(|entitlement| entitlement.name() == text).ok_or_else(|| {
        Failure::usage_with(
            format!("--allow {text}: there is no such entitlement"),
            "--allow network.host or --allow security.insecure",
        )
    })
}

fn named_context(
    value: &str,
    machine: &mut Machine,
    layouts: &mut BTreeMap<String, std::path::PathBuf>,
) -> Result<(String, NamedContext), Failure> {
    let (name, source) = flags::context(value)?;
    let named = match source {
        ContextSource::Folder(path) => {
            if !machine::is_folder(&path) {
                return Err(Failure::usage(format!(
                    "--build-context {value}: {} is no folder",
                    path.display()
                )));
            }
            let ignore = match fs::read(path.join(".dockerignore")) {
                Ok(bytes) => ignore_patterns(&bytes, &path.join(".dockerignore"))?,
                Err(_) => Vec::new(),
            };
            // Under its whole name: one may be given for each platform (`name::os/arch`).
            machine.contexts.insert(name.clone(), path);
            NamedContext::Local { ignore }
        }
        ContextSource::Scratch => NamedContext::Scratch,
        ContextSource::Image(reference) => NamedContext::Image(reference),
        ContextSource::Layout { path, version } => {
            let store = path.display().to_string();
            layouts.insert(store.clone(), path);
            NamedContext::OciLayout { store, version }
        }
        ContextSource::Git(address) => NamedContext::Git(address),
        ContextSource::Http(url) => NamedContext::Http(url),
    };
    Ok((name, named))
}

/// The patterns of an ignore file, checked.
fn ignore_patterns(bytes: &[u8], path: &Path) -> Result<Vec<String>, Failure> {
    let ignore =
        Ignore::parse(bytes).map_err(|error| Failure::usage(format!("{}: {error}", path.display())))?;
    Ok(ignore.patterns())
}
