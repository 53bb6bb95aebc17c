//! A live picture in a terminal.
//!
//! What has ended scrolls up as one line each; below stands what runs, with a timer, its transfers and its last lines. A
//! picture is one string and one write, at most ten a second, never higher than the screen, and inside the escape
//! for synchronised updates, so that nothing flickers. `indicatif` formats the bars' numbers; it does not draw, because
//! with more than about twenty bars its own drawing does flicker.

mod frame;
mod state;

use std::{
    io::Write,
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};

use console::Term;
use engine::{Time, progress::Event};

use super::Display;
use crate::machine;
use frame::Frame;
use state::State;

const TICK: Duration = Duration::from_millis(100);

/// Draws in the terminal of standard error.
pub struct Tty {
    shared: Arc<Shared>,
    drawer: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    inner: Mutex<Inner>,
    wake: Condvar,
}

struct Inner {
    state: State,
    /// Lines of the last picture that are not to stay.
    drawn: usize,
    over: bool,
}

impl Tty {
    /// Starts to draw.
    pub fn start() -> Tty {
        let state = State::new(machine::clock().now());
        let inner = Mutex::new(Inner { state, drawn: 0, over: false });
        let shared = Arc::new(Shared { inner, wake: Condvar::new() });
        let drawing = shared.clone();
        let drawer = thread::Builder::new().name("progress".to_owned()).spawn(move || drawing.run());
        // Without a thread there is no picture; `finish` draws the last one.
        Tty { shared, drawer: Mutex::new(drawer.ok()) }
    }
}

impl Display for Tty {
    fn event(&self, event: &Event) {
        self.shared.lock().state.take(event);
    }

    fn finish(&self) {
        self.shared.lock().over = true;
        self.shared.wake.notify_all();
        let drawer = self.drawer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(drawer) = drawer {
            // A drawer that panicked has left its message in the terminal.
            let _ended = drawer.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        let clock = machine::clock();
        let mut inner = self.lock();
        loop {
            let over = inner.over;
            inner.draw(clock.now(), over);
            if over {
                return;
            }
            inner = self.wake.wait_timeout(inner, TICK).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Inner {
    fn draw(&mut self, now: Time, last: bool) {
        let term = Term::stderr();
        let (rows, columns) = term.size();
        let colour = console::colors_enabled_stderr();
        let frame = Frame { rows: usize::from(rows), columns: usize::from(columns), colour, now };
        let (stays, live) = frame.draw(&mut self.state, last);
        let mut text = String::from("\x1b[?2026h");
        if self.drawn > 0 {
            text.push_str(&format!("\x1b[{}A", self.drawn));
        }
        text.push_str("\r\x1b[J");
        for line in stays.iter().chain(&live) {
            text.push_str(line);
            text.push_str("\r\n");
        }
        text.push_str("\x1b[?2026l");
        self.drawn = if last { 0 } else { live.len() };
        // A terminal that is gone wants no more.
        let mut out = std::io::stderr().lock();
        let _gone = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    }
}
