//! `kiln`: arguments in, exit status out.
//!
//! | Status | Means |
//! |--------|-------|
//! | 0      | done |
//! | 1      | the build failed: a step, a missing file, a disk |
//! | 2      | the command line or the Dockerfile is wrong |
//! | 130    | interrupted |
//!
//! Diagnostics go to standard error, results to standard output. `kiln run` exits as its command does.

mod arguments;
mod command;
mod exhausted;
mod failure;
mod flags;
mod machine;
mod place;
mod progress;
mod registries;
mod settings;
mod signals;
mod terminal;

use std::process::ExitCode;

use crate::{
    arguments::{Alone, Arguments, ArtifactCommand, Command, Other},
    failure::{Failure, Source},
    place::Place,
};

fn main() -> ExitCode {
    sandbox::share_memory_of_threads();
    exhausted::is_told();
    let arguments = Arguments::read();
    let mut source = Source::default();
    match start(arguments, &mut source) {
        Ok(status) => ExitCode::from(status),
        Err(failure) => {
            let (colour, width) = failure::screen();
            eprintln!("{}", failure.render(&source, colour, width));
            ExitCode::from(failure.status)
        }
    }
}

/// Does what is asked. A build that is remembered needs neither threads nor an engine.
fn start(arguments: Arguments, source: &mut Source) -> Result<u8, Failure> {
    let build = match arguments.command {
        Command::Build(build) => build,
        Command::Alone(Alone::Login(login)) => {
            return within(async { command::login::login(&login).await.map(|()| 0) });
        }
        Command::Alone(Alone::Logout(logout)) => return command::login::logout(&logout).map(|()| 0),
        Command::Alone(Alone::Info(info)) => {
            return command::info::info(&info, arguments.root, arguments.sandbox).map(|()| 0);
        }
        Command::Other(other) => {
            let place = Place::of(arguments.root, arguments.sandbox, other.needs_layers())?;
            return within(run(other, place));
        }
    };
    let ready = command::build::ready(*build, (arguments.root, arguments.sandbox), source)?;
    ready.hide_memory();
    // Before a secret is read: steps see what the zygote remembers.
    let early = if ready.compares_secrets() { Some(ready.enter()?) } else { None };
    match ready.recall(source) {
        Some(told) => told,
        None => {
            // While there is one thread.
            let entered = early.map_or_else(|| ready.enter(), Ok)?;
            within(ready.run(source, entered))
        }
    }
}

/// Waits for work that needs a runtime.
fn within(work: impl Future<Output = Result<u8, Failure>>) -> Result<u8, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().max_blocking_threads(512).build();
    let runtime = runtime.map_err(|error| Failure::machine(format!("cannot start: {error}")))?;
    let done = runtime.block_on(work);
    // A thread that still waits for standard input would be waited for.
    runtime.shutdown_background();
    done
}

async fn run(command: Other, place: Place) -> Result<u8, Failure> {
    match command {
        Other::Run(run) => {
            let limits = flags::step_limits(&run.resources)?;
            command::run::run(&command::engine_with(place, None, None, limits)?, *run).await
        }
        Other::Shell(shell) => {
            let limits = flags::step_limits(&shell.resources)?;
            command::shell::shell(&command::engine_with(place, None, None, limits)?, *shell).await
        }
        Other::Images(images) => command::images::images(&command::engine(place, None)?, &images).map(|()| 0),
        Other::Inspect(inspect) => {
            command::images::inspect(&command::engine(place, None)?, &inspect).map(|()| 0)
        }
        Other::History(history) if history.tag => {
            command::rollback::tag_history(&command::engine(place, None)?, &history).map(|()| 0)
        }
        Other::Rollback(rollback) => {
            command::rollback::rollback(&command::engine(place, None)?, &rollback).await.map(|()| 0)
        }
        Other::History(history) => {
            command::images::history(&command::engine(place, None)?, &history).map(|()| 0)
        }
        Other::Tag(tag) => command::images::tag(&command::engine(place, None)?, &tag).map(|()| 0),
        Other::Save(save) => command::archive::save(&command::engine(place, None)?, &save).map(|()| 0),
        Other::Load(load) => command::archive::load(&command::engine(place, None)?, &load).map(|()| 0),
        Other::Pull(pull) => command::remote::pull(&command::engine(place, None)?, &pull).await.map(|()| 0),
        Other::Push(push) => command::remote::push(&command::engine(place, None)?, &push).await.map(|()| 0),
        Other::Copy(copy) => command::copy::copy(&command::engine(place, None)?, &copy).await.map(|()| 0),
        Other::Index(index) => command::index::run(&command::engine(place, None)?, &index).await.map(|()| 0),
        Other::Referrers(of) => {
            command::copy::referrers(&command::engine(place, None)?, &of).await.map(|()| 0)
        }
        Other::Artifact(artifact) => {
            let ArtifactCommand::Fetch(fetch) = artifact.command;
            command::copy::fetch(&command::engine(place, None)?, &fetch).await.map(|()| 0)
        }
        Other::Tags(tags) => command::remote::tags(&command::engine(place, None)?, &tags).await.map(|()| 0),
        Other::Du(du) => command::du::du(&command::engine(place, None)?, &du).map(|()| 0),
        Other::Prune(prune) => command::prune::prune(&command::engine(place, None)?, &prune).map(|()| 0),
        Other::Rmi(rmi) => command::images::rmi(&command::engine(place, None)?, &rmi).map(|()| 0),
    }
}
