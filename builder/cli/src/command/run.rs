//! `kiln run`: a command in an image, with this terminal.

use std::{path::PathBuf, sync::Arc};

use engine::{Engine, RunRequest, Terminal, Volume};
use sandbox::Report;

use crate::{
    arguments::Run,
    failure::Failure,
    flags,
    machine::{self, Machine},
    terminal::{self, OnSignal, Screen},
};

/// Runs; the exit status is the command's own.
pub async fn run(engine: &Engine, arguments: Run) -> Result<u8, Failure> {
    let request = request(&arguments)?;
    let container = engine.start(request, Arc::new(Machine::default())).await.map_err(Failure::of_run)?;
    let attended = terminal::attend(container, Screen::Stdout, arguments.interactive, OnSignal::Forward);
    Ok(status(&attended.await?))
}

/// What a command came to: what it did without is told, and its exit status is this program's.
pub fn status(report: &Report) -> u8 {
    for warning in &report.warnings {
        eprintln!("warning: {warning}");
    }
    u8::try_from(report.status.code()).unwrap_or(u8::MAX)
}

fn request(arguments: &Run) -> Result<RunRequest, Failure> {
    let env = flags::pairs_from("--env", &arguments.env, machine::variable)?;
    let terminal = match (arguments.tty, arguments.interactive) {
        (true, _) => {
            let (rows, columns) = Screen::Stdout.size();
            Terminal::New { rows, columns }
        }
        (false, true) => Terminal::Inherit,
        (false, false) => Terminal::Output,
    };
    let (ulimits, shm_size_bytes) = flags::process_limits(&arguments.limits)?;
    Ok(RunRequest {
        image: arguments.image.clone(),
        command: arguments.command.clone(),
        entrypoint: arguments.entrypoint.clone(),
        env: env.into_iter().collect(),
        workdir: arguments.workdir.clone(),
        user: arguments.user.clone(),
        network: flags::network(&arguments.network)?,
        hostname: arguments.hostname.clone(),
        ulimits,
        shm_size_bytes,
        volumes: arguments.volumes.iter().map(|text| volume(text)).collect::<Result<_, _>>()?,
        terminal,
    })
}

fn volume(text: &str) -> Result<Volume, Failure> {
    let bad = |why: &str| Failure::usage_with(format!("--volume {text}: {why}"), "-v /source:/target[:ro]");
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, readonly) = match parts[..] {
        [source, target] => (source, target, false),
        [source, target, "ro"] => (source, target, true),
        [source, target, "rw"] => (source, target, false),
        _ => return Err(bad("expected SOURCE:TARGET[:ro]")),
    };
    let source = std::path::absolute(source).map_err(|error| bad(&error.to_string()))?;
    if !source.exists() {
        return Err(bad("the source does not exist"));
    }
    if !target.starts_with('/') {
        return Err(bad("the target is no absolute path"));
    }
    Ok(Volume { source, target: PathBuf::from(target), readonly })
}
