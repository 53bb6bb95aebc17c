//! `kiln shell`: the steps of the last build, and a shell in one of them or in an image.

use std::{fs, path::Path, sync::Arc};

use engine::{
    BuildSteps, Came, Engine, EnterRequest, Entered, RunRequest, Step, StepError, Terminal, Took,
    progress::{Event, Sink},
    words_of,
};
use graph::Network;
use oci::Digest;

use super::{
    build::{agents, secrets},
    du::processor_time,
    images::print,
    run::status,
};
use crate::{
    arguments::Shell,
    failure::{Failure, printable},
    flags,
    machine::{self, Machine},
    progress::bytes,
    terminal::{self, OnSignal, Screen},
};

/// Lists, or opens; the exit status is the command's own.
pub async fn shell(engine: &Engine, arguments: Shell) -> Result<u8, Failure> {
    let mut builds = engine.last_builds()?;
    if let Some(file) = &arguments.file {
        let text = digest_of(file)?;
        builds.retain(|build| build.text == text);
    }
    let none =
        || Failure::from(engine::Error::from(StepError::NoBuild { of_file: arguments.file.is_some() }));
    let build = (!builds.is_empty()).then(|| builds.remove(0));
    let Some(of) = &arguments.of else {
        return list(&build.ok_or_else(none)?).map(|()| 0);
    };
    let step = match &build {
        Some(build) => build.find(of).map_err(engine::Error::from)?,
        // A number is no image that somebody would mean.
        None if arguments.file.is_some() || of.bytes().all(|b| b.is_ascii_digit()) => return Err(none()),
        None => None,
    };
    let terminal = terminal_of(&arguments)?;
    match (build, step) {
        (Some(build), Some(step)) => enter_step(engine, build, step, &arguments, terminal).await,
        _ => enter_image(engine, of, &arguments, terminal).await,
    }
}

fn digest_of(file: &Path) -> Result<Digest, Failure> {
    let bytes =
        fs::read(file).map_err(|error| Failure::usage(format!("--file {}: {error}", file.display())))?;
    Ok(Digest::of(&bytes))
}

/// A terminal of its own where somebody sits there. A shell that nobody can type into is refused.
fn terminal_of(arguments: &Shell) -> Result<Terminal, Failure> {
    if terminal::is_attended(Screen::Stdout) {
        let (rows, columns) = Screen::Stdout.size();
        return Ok(Terminal::New { rows, columns });
    }
    if arguments.command.is_empty() {
        let of = arguments.of.as_deref().unwrap_or("STEP");
        return Err(Failure::usage_with(
            "a shell needs a terminal: standard input and standard output are not both one",
            format!("kiln shell {of} COMMAND"),
        ));
    }
    Ok(Terminal::Inherit)
}

fn user(arguments: &Shell) -> Option<String> {
    if arguments.root_user { Some("0".to_owned()) } else { arguments.user.clone() }
}

async fn enter_step(
    engine: &Engine,
    build: BuildSteps,
    at: usize,
    arguments: &Shell,
    terminal: Terminal,
) -> Result<u8, Failure> {
    let mut machine = Machine { contexts: build.contexts.clone(), ..Machine::default() };
    for value in &arguments.secrets {
        let flags::Secret { id, source, .. } = flags::secret(value, machine::has_variable)?;
        secrets::check(value, &source)?;
        machine.secrets.insert(id, source);
    }
    agents::add(&mut machine, &arguments.ssh)?;
    machine.hide_memory();
    agents::read_keys(&mut machine)?;
    let step = &build.steps[at];
    let when = if arguments.after { "after" } else { "before" };
    let title = printable(&format!("{when} {}", step.name.replace('\n', " ")));
    let (ulimits, shm_size_bytes) = flags::process_limits(&arguments.limits)?;
    let request = EnterRequest {
        step: at,
        after: arguments.after,
        user: user(arguments),
        command: arguments.command.clone(),
        write_caches: arguments.write_caches,
        ulimits,
        shm_size_bytes,
        terminal,
    };
    let opened = engine.enter(build, request, Arc::new(machine), Arc::new(Waits)).await;
    let (entered, absent) = opened.map_err(Failure::of_run)?;
    for what in absent {
        eprintln!("note: {}", printable(&what));
    }
    attend(entered, arguments, terminal, &title).await
}

async fn enter_image(
    engine: &Engine,
    image: &str,
    arguments: &Shell,
    terminal: Terminal,
) -> Result<u8, Failure> {
    if arguments.after || arguments.write_caches || !arguments.secrets.is_empty() || !arguments.ssh.is_empty()
    {
        return Err(Failure::usage_with(
            format!(
                "{image} is no step of the last build, but --after, --write-caches, --secret and --ssh are for steps"
            ),
            "kiln shell, alone, lists the steps",
        ));
    }
    let (ulimits, shm_size_bytes) = flags::process_limits(&arguments.limits)?;
    let request = RunRequest {
        image: image.to_owned(),
        command: arguments.command.clone(),
        entrypoint: None,
        env: Vec::new(),
        workdir: None,
        user: user(arguments),
        network: Network::Default,
        hostname: None,
        ulimits,
        shm_size_bytes,
        volumes: Vec::new(),
        terminal,
    };
    let entered = engine.enter_image(request, Arc::new(Machine::default())).await.map_err(Failure::of_run)?;
    attend(entered, arguments, terminal, &printable(image)).await
}

/// Joins the shell with this terminal until it ends.
async fn attend(entered: Entered, arguments: &Shell, terminal: Terminal, title: &str) -> Result<u8, Failure> {
    let is_shell = arguments.command.is_empty();
    if is_shell {
        eprintln!("{} {title}; what is written here is thrown away", printable(&entered.shell));
    }
    let on_signal = if is_shell { OnSignal::Kill } else { OnSignal::Forward };
    let interactive = matches!(terminal, Terminal::New { .. });
    Ok(status(&terminal::attend(entered.container, Screen::Stdout, interactive, on_signal).await?))
}

/// Shows what is waited for.
struct Waits;

impl Sink for Waits {
    fn event(&self, event: Event) {
        if let Event::Log(log) = event {
            eprint!("{}", String::from_utf8_lossy(&log.bytes));
        }
    }
}

/// Lists the steps of a build, in the order of its output.
fn list(build: &BuildSteps) -> Result<(), Failure> {
    let ago = machine::clock().now().milliseconds_since(engine::Time(build.at)) / 1000;
    let target = build.target.as_ref().map(|target| format!(", target {target}")).unwrap_or_default();
    let when = if ago == 0 { "just now".to_owned() } else { format!("{} ago", words_of(ago)) };
    let mut lines = vec![printable(&format!("{}{target}, built {when}", build.dockerfile))];
    let place = |step: &Step| {
        let line = step.lines.map_or(String::new(), |(first, _)| first.to_string());
        printable(&format!("{}:{line}", build.dockerfile))
    };
    let mut steps: Vec<&Step> = build.steps.iter().filter(|step| step.is_listed()).collect();
    steps.sort_by_key(|step| step.number);
    let wide = steps.iter().map(|step| place(step).chars().count()).max().unwrap_or(0).max(5);
    let line = |[step, place, came, time, processor, memory, name]: [&str; 7]| {
        format!("{step:>4}  {place:<wide$}  {came:<8}  {time:>9}  {processor:>8}  {memory:>8}  {name}")
    };
    lines.push(line(["STEP", "PLACE", "CAME", "TIME", "CPU", "MEMORY", "INSTRUCTION"]));
    for step in steps {
        let number = step.number.unwrap_or_default().to_string();
        let (came, time) = came(&step.came);
        let processor = step.took.as_ref().map(processor_time).unwrap_or_default();
        let memory = step.took.as_ref().and_then(Took::memory_bytes).map(bytes).unwrap_or_default();
        let name = printable(&step.name.replace(['\n', '\t'], " "));
        lines.push(line([&number, &place(step), came, &time, &processor, &memory, &name]));
    }
    if let Some(columns) = Screen::Stdout.columns() {
        for line in &mut lines {
            *line = console::truncate_str(line, columns, "…").into_owned();
        }
    }
    print(&lines)
}

fn came(came: &Came) -> (&'static str, String) {
    let took = |milliseconds: &u64| format!("{milliseconds} ms");
    match came {
        Came::Nothing => ("not run", String::new()),
        Came::Cached => ("cached", String::new()),
        Came::Ran { milliseconds } => ("ran", took(milliseconds)),
        Came::Failed { milliseconds } => ("failed", took(milliseconds)),
        Came::Canceled => ("canceled", String::new()),
    }
}
