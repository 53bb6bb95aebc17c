//! `kiln build`: from arguments to a request, and from what came of it to an exit status.

mod dockerfile;
mod others;
mod proxies;

use std::{collections::BTreeMap, fs, io::Write, path::Path, sync::Arc};

use ::dockerfile::{Entitlement, NamedContext, NoCache, Request, ignore::Ignore};
use engine::{BuildOutcome, BuildRequest, Cancel, ImageForm, Output};
use oci::{Epoch, Platform, Reference};

use self::dockerfile::DockerfileText;
use crate::{
    arguments::Build,
    command,
    failure::{Failure, Source},
    flags::{self, ContextSource},
    machine::{self, Machine},
    progress::{Mode, Shown},
    signals,
};

/// Builds, and shows what happens. What a failure points into is left in `source`.
pub async fn run(
    arguments: Build,
    root: Option<std::path::PathBuf>,
    source: &mut Source,
) -> Result<(), Failure> {
    let terminal = console::Term::stderr().features().is_attended()
        && machine::variable("TERM").as_deref() != Some("dumb");
    let mode = Mode::parse(&arguments.progress, arguments.quiet, terminal)?;
    let warnings = others::check(&arguments.others)?;
    let text = DockerfileText::read(&arguments)?;
    *source = Source { name: text.shown.clone(), text: text.bytes.clone() };
    let (request, machine) = request(&arguments, text)?;
    let to_stdout = request.outputs.iter().any(writes_stdout);
    let engine = command::engine(root, arguments.jobs)?;
    let cancel = Cancel::new();
    signals::cancel_on_interrupt(&cancel)?;
    let display = mode.display();
    let built = engine.build(request, Arc::new(machine), Arc::new(Shown(display.clone())), cancel).await;
    display.finish();
    for warning in warnings {
        eprintln!("warning: {warning}");
    }
    report(&arguments, &built?, to_stdout)
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

fn write_file(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
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
        Output::Oci { to: Stdout, .. } | Output::Docker { to: Stdout, .. } | Output::Tar { to: Stdout }
    )
}

fn request(arguments: &Build, text: DockerfileText) -> Result<(BuildRequest, Machine), Failure> {
    let mut machine = Machine::default();
    let mut frontend = Request::new(Platform::host());
    let mut layouts = BTreeMap::new();
    frontend.build_args = flags::pairs_from("--build-arg", &arguments.build_args, machine::variable)?;
    proxies::add(&mut frontend.build_args);
    frontend.target = arguments.target.clone();
    for platform in arguments.platform.iter().filter(|text| !text.is_empty()) {
        frontend
            .platforms
            .push(platform.parse().map_err(|error| Failure::usage(format!("--platform: {error}")))?);
    }
    frontend.labels = flags::pairs("--label", &arguments.labels)?;
    frontend.ignore = text.ignore;
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
    frontend.ulimits = arguments.ulimits.iter().map(|text| flags::ulimit(text)).collect::<Result<_, _>>()?;
    frontend.shm_size_bytes =
        arguments.shm_size.as_deref().map(|text| flags::size_bytes("--shm-size", text)).transpose()?;
    frontend.source_date_epoch = epoch()?;
    machine.contexts.extend(text.context.map(|context| ("context".to_owned(), context)));
    for value in &arguments.build_contexts {
        let (name, named) = named_context(value, &mut machine, &mut layouts)?;
        frontend.named_contexts.insert(name, named);
    }
    for value in &arguments.secrets {
        let (id, secret) = flags::secret(value, |name| machine::variable(name).is_some())?;
        machine.secrets.insert(id, secret);
    }
    let agent = machine::variable("SSH_AUTH_SOCK");
    for value in &arguments.ssh {
        let (id, socket) = flags::ssh(value, agent.as_deref())?;
        machine.agents.insert(id, socket);
    }
    let request = BuildRequest {
        dockerfile_name: text.shown,
        dockerfile: text.bytes,
        frontend,
        layouts,
        tags: tags(&arguments.tags)?,
        outputs: outputs(arguments)?,
        explain: arguments.explain,
        pull: arguments.pull,
    };
    Ok((request, machine))
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

fn outputs(arguments: &Build) -> Result<Vec<Output>, Failure> {
    let annotations = flags::pairs("--annotation", &arguments.annotations)?;
    let mut outputs: Vec<Output> =
        arguments.outputs.iter().map(|text| flags::output(text)).collect::<Result<_, _>>()?;
    let annotate = |form: &mut ImageForm| form.annotations.extend(annotations.clone());
    for output in &mut outputs {
        match output {
            Output::Oci { form, .. } | Output::Docker { form, .. } => annotate(form),
            _ => {}
        }
    }
    if !annotations.is_empty() && outputs.is_empty() {
        return Err(Failure::usage_with(
            "annotations need an output of type oci or docker",
            "-o type=oci,dest=image.tar",
        ));
    }
    Ok(outputs)
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

fn epoch() -> Result<Option<Epoch>, Failure> {
    let Some(text) = machine::variable("SOURCE_DATE_EPOCH") else { return Ok(None) };
    let bad = |_| Failure::usage(format!("SOURCE_DATE_EPOCH=`{text}` is no number of seconds"));
    text.parse().map(|seconds| Some(Epoch(seconds))).map_err(bad)
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
            // A name may be given for one platform (`name::os/arch`); the folder is found by the name.
            let bare = name.split("::").next().unwrap_or(&name).to_owned();
            machine.contexts.insert(bare, path);
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
