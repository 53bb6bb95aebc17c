//! This terminal, joined with that of a command that runs inside.
//!
//! In raw mode, keys reach the command as they are: Ctrl-C is its business. Whatever ends this program in order gives the
//! terminal its mode back; `kill -9` cannot.

use std::{
    fs::File,
    io::{Read, Write},
    os::fd::{AsFd, OwnedFd},
    sync::{Mutex, PoisonError},
    thread::{self, JoinHandle},
};

use engine::Container;
use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
    pipe::{PipeFlags, pipe_with},
    termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr},
};
use sandbox::{Report, WindowSize};
use tokio::signal::unix::{SignalKind, signal};

use crate::failure::Failure;

/// The mode that standard input had, while it is in raw mode.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);

/// Where the command's terminal is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Screen {
    /// On standard output.
    Stdout,
    /// On standard error: standard output may be somebody's file.
    Stderr,
}

/// What is done when a signal comes that would end this program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnSignal {
    /// The command gets it.
    Forward,
    /// The command is killed: a shell takes no notice of most.
    Kill,
}

/// Whether standard input and a screen are a terminal: somebody sits there.
pub fn is_attended(screen: Screen) -> bool {
    isatty(std::io::stdin()) && screen.is_terminal()
}

impl Screen {
    fn is_terminal(self) -> bool {
        match self {
            Screen::Stdout => isatty(std::io::stdout()),
            Screen::Stderr => isatty(std::io::stderr()),
        }
    }

    /// Lines and columns; those of the oldest terminals where it does not tell.
    pub fn size(self) -> (u16, u16) {
        let size = match self {
            Screen::Stdout => tcgetwinsize(std::io::stdout()),
            Screen::Stderr => tcgetwinsize(std::io::stderr()),
        };
        size.ok().filter(|size| size.ws_col > 0).map_or((24, 80), |size| (size.ws_row, size.ws_col))
    }

    /// Columns; none where it is no terminal.
    pub fn columns(self) -> Option<usize> {
        self.is_terminal().then(|| usize::from(self.size().1))
    }

    fn show(self, bytes: &[u8]) -> std::io::Result<()> {
        match self {
            Screen::Stdout => {
                let mut out = std::io::stdout().lock();
                out.write_all(bytes).and_then(|()| out.flush())
            }
            Screen::Stderr => std::io::stderr().lock().write_all(bytes),
        }
    }
}

/// Gives standard input its mode back, where it is in raw mode: for who ends the program without unwinding.
pub fn restore() {
    let before = BEFORE.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(before) = before {
        // A terminal that is gone needs no mode.
        let _gone = tcsetattr(std::io::stdin(), OptionalActions::Now, &before);
    }
}

/// Waits until a command ends, joined with this terminal where it has one of its own.
///
/// # Errors
/// The terminal or the signals cannot be had; the kernel will not say how the command ended.
pub async fn attend(
    container: Container,
    screen: Screen,
    interactive: bool,
    on_signal: OnSignal,
) -> Result<Report, Failure> {
    heed_signals(&container, on_signal)?;
    let joined = match container.terminal().map_err(failed)? {
        Some(terminal) => Some(Joined::new(terminal, &container, screen, interactive)?),
        None => None,
    };
    let waited = tokio::task::spawn_blocking(move || container.wait()).await;
    drop(joined);
    Ok(waited.map_err(|error| Failure::machine(error.to_string()))??)
}

fn failed(error: std::io::Error) -> Failure {
    Failure::machine(format!("the terminal: {error}"))
}

/// Signals that would end this process are the command's.
fn heed_signals(container: &Container, on_signal: OnSignal) -> Result<(), Failure> {
    for kind in [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup(), SignalKind::quit()] {
        let mut signals = signal(kind).map_err(failed)?;
        let handle = container.handle();
        tokio::spawn(async move {
            while signals.recv().await.is_some() {
                // A command that has ended cannot be signalled, and need not be.
                let _ended = match on_signal {
                    OnSignal::Forward => handle.signal(kind.as_raw_value()),
                    OnSignal::Kill => {
                        // Nothing that still has to end, such as output that nobody takes, is to keep it raw.
                        restore();
                        handle.kill()
                    }
                };
            }
        });
    }
    Ok(())
}

/// This terminal and the command's, until it is dropped.
struct Joined {
    raw: Option<Raw>,
    output: Option<JoinHandle<()>>,
    /// Its end tells who reads standard input that nobody wants more: what is typed then is for whoever comes next.
    _until: OwnedFd,
}

impl Joined {
    fn new(
        terminal: OwnedFd,
        container: &Container,
        screen: Screen,
        interactive: bool,
    ) -> Result<Joined, Failure> {
        let copy = || terminal.try_clone().map(File::from).map_err(failed);
        let (mut from, to) = (copy()?, copy()?);
        let raw = if interactive { Raw::enter()? } else { None };
        let output = thread::spawn(move || {
            let mut buffer = [0; 8192];
            // The terminal reads an error once nobody inside holds it.
            while let Ok(read @ 1..) = from.read(&mut buffer) {
                if screen.show(&buffer[..read]).is_err() {
                    return;
                }
            }
        });
        let (ended, until) = pipe_with(PipeFlags::CLOEXEC).map_err(|errno| failed(errno.into()))?;
        if interactive {
            thread::spawn(move || type_into(to, &ended));
        }
        follow_size(container, screen)?;
        Ok(Joined { raw, output: Some(output), _until: until })
    }
}

impl Drop for Joined {
    fn drop(&mut self) {
        if let Some(output) = self.output.take() {
            // It ends with the command's terminal; what it wrote is all there is.
            let _ended = output.join();
        }
        self.raw.take();
    }
}

/// Hands standard input on, until it ends or nobody wants more.
fn type_into(mut to: File, ended: &OwnedFd) {
    let stdin = std::io::stdin();
    let mut buffer = [0; 8192];
    loop {
        let mut both = [PollFd::new(&stdin, PollFlags::IN), PollFd::new(ended, PollFlags::IN)];
        match poll(&mut both, None) {
            Err(Errno::INTR) => continue,
            Err(_) => return,
            Ok(_) if !both[1].revents().is_empty() => return,
            Ok(_) => {}
        }
        match rustix::io::read(stdin.as_fd(), &mut buffer) {
            Err(Errno::INTR) => {}
            Ok(read @ 1..) if to.write_all(&buffer[..read]).is_ok() => {}
            _ => return,
        }
    }
}

/// Tells the command when the window has another size.
fn follow_size(container: &Container, screen: Screen) -> Result<(), Failure> {
    let handle = container.handle();
    let mut resized = signal(SignalKind::window_change()).map_err(failed)?;
    tokio::spawn(async move {
        while resized.recv().await.is_some() {
            let (rows, columns) = screen.size();
            // As with signals: it may have ended.
            let _ended = handle.resize(WindowSize { rows, columns });
        }
    });
    Ok(())
}

/// Standard input in raw mode, until it is dropped.
struct Raw;

impl Raw {
    /// Nothing where it is no terminal.
    fn enter() -> Result<Option<Raw>, Failure> {
        let stdin = std::io::stdin();
        if !isatty(&stdin) {
            return Ok(None);
        }
        let before = tcgetattr(&stdin).map_err(|errno| failed(errno.into()))?;
        let mut raw = before.clone();
        raw.make_raw();
        *BEFORE.lock().unwrap_or_else(PoisonError::into_inner) = Some(before);
        tcsetattr(&stdin, OptionalActions::Now, &raw).map_err(|errno| failed(errno.into()))?;
        Ok(Some(Raw))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        restore();
    }
}
