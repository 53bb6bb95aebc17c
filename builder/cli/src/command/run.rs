//! `kiln run`: a command in an image, with this terminal.

use std::{
    io::{Read, Write},
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
    sync::Arc,
    thread,
};

use engine::{Container, Engine, RunRequest, Terminal, Volume};
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    arguments::Run,
    failure::Failure,
    flags,
    machine::{self, Machine},
};

/// Runs; the exit status is the command's own.
pub async fn run(engine: &Engine, arguments: Run) -> Result<u8, Failure> {
    let request = request(&arguments)?;
    let container = engine.start(request, Arc::new(Machine::default())).await.map_err(Failure::of_run)?;
    forward_signals(&container)?;
    let raw = match container.terminal().map_err(machine_failure)? {
        Some(terminal) => Some(attach(terminal, &container, arguments.interactive)?),
        None => None,
    };
    let waited = tokio::task::spawn_blocking(move || container.wait()).await;
    drop(raw);
    let report = waited.map_err(|error| Failure::machine(error.to_string()))??;
    for warning in &report.warnings {
        eprintln!("warning: {warning}");
    }
    Ok(u8::try_from(report.status.code()).unwrap_or(u8::MAX))
}

fn machine_failure(error: std::io::Error) -> Failure {
    Failure::machine(format!("the terminal: {error}"))
}

fn request(arguments: &Run) -> Result<RunRequest, Failure> {
    let env = flags::pairs_from("--env", &arguments.env, machine::variable)?;
    let terminal = match (arguments.tty, arguments.interactive) {
        (true, _) => {
            let size = tcgetwinsize(std::io::stdout()).ok();
            let (rows, columns) = size.map_or((24, 80), |size| (size.ws_row, size.ws_col));
            Terminal::New { rows, columns }
        }
        (false, true) => Terminal::Inherit,
        (false, false) => Terminal::Output,
    };
    Ok(RunRequest {
        image: arguments.image.clone(),
        command: arguments.command.clone(),
        entrypoint: arguments.entrypoint.clone(),
        env: env.into_iter().collect(),
        workdir: arguments.workdir.clone(),
        user: arguments.user.clone(),
        network: flags::network(&arguments.network)?,
        hostname: arguments.hostname.clone(),
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

/// Signals that end this process end the command instead.
fn forward_signals(container: &Container) -> Result<(), Failure> {
    for kind in [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup(), SignalKind::quit()] {
        let mut signals = signal(kind).map_err(machine_failure)?;
        let handle = container.handle();
        tokio::spawn(async move {
            while signals.recv().await.is_some() {
                // A command that has ended cannot be signalled, and need not be.
                let _ended = handle.signal(kind.as_raw_value());
            }
        });
    }
    Ok(())
}

/// Joins this terminal with the command's until that ends.
fn attach(terminal: OwnedFd, container: &Container, interactive: bool) -> Result<Raw, Failure> {
    let copy = || terminal.try_clone().map(std::fs::File::from).map_err(machine_failure);
    let (mut from, mut to) = (copy()?, copy()?);
    let mut raw = if interactive { Raw::enter()? } else { Raw { before: None, output: None } };
    let output = thread::spawn(move || {
        let mut buffer = [0; 8192];
        // The terminal reads an error once nobody inside holds it.
        while let Ok(read @ 1..) = from.read(&mut buffer) {
            let mut out = std::io::stdout().lock();
            if out.write_all(&buffer[..read]).and_then(|()| out.flush()).is_err() {
                return;
            }
        }
    });
    if interactive {
        thread::spawn(move || std::io::copy(&mut std::io::stdin().lock(), &mut to));
    }
    let handle = container.handle();
    let mut resized = signal(SignalKind::window_change()).map_err(machine_failure)?;
    tokio::spawn(async move {
        while resized.recv().await.is_some() {
            if let Ok(size) = tcgetwinsize(std::io::stdout()) {
                let size = sandbox::WindowSize { rows: size.ws_row, columns: size.ws_col };
                // As with signals: it may have ended.
                let _ended = handle.resize(size);
            }
        }
    });
    raw.output = Some(output);
    Ok(raw)
}

/// This terminal in raw mode, until it is dropped.
struct Raw {
    before: Option<Termios>,
    output: Option<thread::JoinHandle<()>>,
}

impl Raw {
    fn enter() -> Result<Raw, Failure> {
        let stdin = std::io::stdin();
        if !isatty(stdin.as_fd()) {
            return Ok(Raw { before: None, output: None });
        }
        let before = tcgetattr(stdin.as_fd()).map_err(|errno| machine_failure(errno.into()))?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(stdin.as_fd(), OptionalActions::Now, &raw)
            .map_err(|errno| machine_failure(errno.into()))?;
        Ok(Raw { before: Some(before), output: None })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Some(output) = self.output.take() {
            // It ends with the command's terminal; what it wrote is all there is.
            let _ended = output.join();
        }
        if let Some(before) = &self.before {
            // A terminal that is gone needs no mode.
            let _gone = tcsetattr(std::io::stdin().as_fd(), OptionalActions::Now, before);
        }
    }
}
