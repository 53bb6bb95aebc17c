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
mod failure;
mod flags;
mod machine;
mod progress;
mod registries;
mod settings;
mod signals;

use std::process::ExitCode;

use clap::Parser;

use crate::{
    arguments::{Arguments, ArtifactCommand, Command},
    failure::{Failure, Source},
};

fn main() -> ExitCode {
    // clap exits with 2 on a bad command line, and with 0 after --help.
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().max_blocking_threads(512).build();
    let mut source = Source::default();
    let done = match runtime {
        Ok(runtime) => {
            let done = runtime.block_on(run(arguments, &mut source));
            // A thread that still waits for standard input would be waited for.
            runtime.shutdown_background();
            done
        }
        Err(error) => Err(Failure::machine(format!("cannot start: {error}"))),
    };
    match done {
        Ok(status) => ExitCode::from(status),
        Err(failure) => {
            let (colour, width) = failure::screen();
            eprintln!("{}", failure.render(&source, colour, width));
            ExitCode::from(failure.status)
        }
    }
}

async fn run(arguments: Arguments, source: &mut Source) -> Result<u8, Failure> {
    let root = arguments.root;
    match arguments.command {
        Command::Build(build) => command::build::run(*build, root, source).await,
        Command::Run(run) => command::run::run(&command::engine(root, None)?, *run).await,
        Command::Images(images) => {
            command::images::images(&command::engine(root, None)?, &images).map(|()| 0)
        }
        Command::Inspect(inspect) => {
            command::images::inspect(&command::engine(root, None)?, &inspect).map(|()| 0)
        }
        Command::History(history) if history.tag => {
            command::rollback::tag_history(&command::engine(root, None)?, &history).map(|()| 0)
        }
        Command::Rollback(rollback) => {
            command::rollback::rollback(&command::engine(root, None)?, &rollback).await.map(|()| 0)
        }
        Command::History(history) => {
            command::images::history(&command::engine(root, None)?, &history).map(|()| 0)
        }
        Command::Tag(tag) => command::images::tag(&command::engine(root, None)?, &tag).map(|()| 0),
        Command::Save(save) => command::archive::save(&command::engine(root, None)?, &save).map(|()| 0),
        Command::Load(load) => command::archive::load(&command::engine(root, None)?, &load).map(|()| 0),
        Command::Login(login) => command::login::login(&login).await.map(|()| 0),
        Command::Logout(logout) => command::login::logout(&logout).map(|()| 0),
        Command::Pull(pull) => command::remote::pull(&command::engine(root, None)?, &pull).await.map(|()| 0),
        Command::Push(push) => command::remote::push(&command::engine(root, None)?, &push).await.map(|()| 0),
        Command::Copy(copy) => command::copy::copy(&command::engine(root, None)?, &copy).await.map(|()| 0),
        Command::Index(index) => command::index::run(&command::engine(root, None)?, &index).await.map(|()| 0),
        Command::Referrers(of) => {
            command::copy::referrers(&command::engine(root, None)?, &of).await.map(|()| 0)
        }
        Command::Artifact(artifact) => {
            let ArtifactCommand::Fetch(fetch) = artifact.command;
            command::copy::fetch(&command::engine(root, None)?, &fetch).await.map(|()| 0)
        }
        Command::Tags(tags) => command::remote::tags(&command::engine(root, None)?, &tags).await.map(|()| 0),
        Command::Du(du) => command::du::du(&command::engine(root, None)?, &du).map(|()| 0),
        Command::Prune(prune) => command::prune::prune(&command::engine(root, None)?, &prune).map(|()| 0),
        Command::Rmi(rmi) => command::images::rmi(&command::engine(root, None)?, &rmi).map(|()| 0),
    }
}
