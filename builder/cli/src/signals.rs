//! Ctrl-C and `kill`: the first ends the build in order, the second at once.

use engine::Cancel;
use tokio::signal::unix::{SignalKind, signal};

use crate::{failure::Failure, terminal};

/// Exit status of an interrupted command.
pub const INTERRUPTED: u8 = 130;

/// Sets `cancel` at the first SIGINT, SIGTERM or SIGHUP; a second SIGINT ends the process, and with it every step.
pub fn cancel_on_interrupt(cancel: &Cancel) -> Result<(), Failure> {
    let listen =
        |kind| signal(kind).map_err(|error| Failure::machine(format!("cannot listen for signals: {error}")));
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut terminate = listen(SignalKind::terminate())?;
    let mut hangup = listen(SignalKind::hangup())?;
    let cancel = cancel.clone();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = hangup.recv() => {}
            }
            if cancel.is_set() {
                terminal::restore();
                std::process::exit(i32::from(INTERRUPTED));
            }
            cancel.set();
        }
    });
    Ok(())
}
