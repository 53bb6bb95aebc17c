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
mod progress;
mod registries;
mod settings;
mod signals;
mod terminal;

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;

use crate::{
    arguments::{Arguments, ArtifactCommand, Command, Other},
    failure::{Failure, Source},
};

fn main() -> ExitCode {
    exhausted::is_told();
    // clap exits with 2 on a bad command line, and with 0 after --help.
    let arguments = Arguments::parse();
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
        Command::Other(other) => return within(run(other, arguments.root)),
    };
    let ready = command::build::ready(*build, arguments.root, source)?;
    ready.hide_memory();
    // Before a secret is read: steps see what the zygote remembers.
    let early = if ready.compares_secrets() { ready.zygote() } else { None };
    match ready.recall(source) {
        Some(told) => told,
        None => {
            // While there is one thread.
            let zygote = early.or_else(|| ready.zygote());
            within(ready.run(source, zygote))
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

async fn run(command: Other, root: Option<PathBuf>) -> Result<u8, Failure> {
    match command {
        Other::Run(run) => {
            let limits = flags::step_limits(&run.resources)?;
            command::run::run(&command::engine_with(root, None, None, limits)?, *run).await
        }
        Other::Shell(shell) => command::shell::shell(&command::engine(root, None)?, *shell).await,
        Other::Images(images) => command::images::images(&command::engine(root, None)?, &images).map(|()| 0),
        Other::Inspect(inspect) => {
            command::images::inspect(&command::engine(root, None)?, &inspect).map(|()| 0)
        }
        Other::History(history) if history.tag => {
            command::rollback::tag_history(&command::engine(root, None)?, &history).map(|()| 0)
        }
        Other::Rollback(rollback) => {
            command::rollback::rollback(&command::engine(root, None)?, &rollback).await.map(|()| 0)
        }
        Other::History(history) => {
            command::images::history(&command::engine(root, None)?, &history).map(|()| 0)
        }
        Other::Tag(tag) => command::images::tag(&command::engine(root, None)?, &tag).map(|()| 0),
        Other::Save(save) => command::archive::save(&command::engine(root, None)?, &save).map(|()| 0),
        Other::Load(load) => command::archive::load(&command::engine(root, None)?, &load).map(|()| 0),
        Other::Login(login) => command::login::login(&login).await.map(|()| 0),
        Other::Logout(logout) => command::login::logout(&logout).map(|()| 0),
        Other::Pull(pull) => command::remote::pull(&command::engine(root, None)?, &pull).await.map(|()| 0),
        Other::Push(push) => command::remote::push(&command::engine(root, None)?, &push).await.map(|()| 0),
        Other::Copy(copy) => command::copy::copy(&command::engine(root, None)?, &copy).await.map(|()| 0),
        Other::Index(index) => command::index::run(&command::engine(root, None)?, &index).await.map(|()| 0),
        Other::Referrers(of) => {
            command::copy::referrers(&command::engine(root, None)?, &of).await.map(|()| 0)
        }
        Other::Artifact(artifact) => {
            let ArtifactCommand::Fetch(fetch) = artifact.command;
            command::copy::fetch(&command::engine(root, None)?, &fetch).await.map(|()| 0)
        }
        Other::Tags(tags) => command::remote::tags(&command::engine(root, None)?, &tags).await.map(|()| 0),
        Other::Du(du) => command::du::du(&command::engine(root, None)?, &du).map(|()| 0),
        Other::Prune(prune) => command::prune::prune(&command::engine(root, None)?, &prune).map(|()| 0),
        Other::Rmi(rmi) => command::images::rmi(&command::engine(root, None)?, &rmi).map(|()| 0),
    }
}
