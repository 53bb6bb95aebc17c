//! A free loopback port on which a function answers, each connection in a thread of its own.

use std::{
    io,
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

/// A port that is listened on; it ends when this value is dropped.
pub(crate) struct Listener {
    address: SocketAddr,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Listener {
    /// Listens, and gives each connection to `answer`, with what tells it that all is over.
    ///
    /// # Errors
    /// No port is free.
    pub(crate) fn start(
        answer: impl Fn(TcpStream, &AtomicBool) -> io::Result<()> + Send + Sync + 'static,
    ) -> io::Result<Listener> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let over = Arc::new(AtomicBool::new(false));
        let (ended, answer) = (over.clone(), Arc::new(answer));
        let thread = thread::spawn(move || {
            for stream in listener.incoming() {
                if ended.load(Ordering::SeqCst) {
                    return;
                }
                let (answer, ended) = (answer.clone(), ended.clone());
                // A client that goes away is no failure of the server.
                thread::spawn(move || stream.and_then(|stream| answer(stream, &ended)).unwrap_or_default());
            }
        });
        Ok(Listener { address, over, thread: Some(thread) })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        // Wakes the thread, which looks before it answers.
        let _woken = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ended = thread.join();
        }
    }
}
