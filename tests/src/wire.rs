//! A wire to a registry, with all that wires do: it breaks, goes silent, ends early, changes a byte, or somebody on the way
//! answers instead of the registry.
//!
//! It understands HTTP as far as it must: each request is passed on by a connection of its own, and what it moves is counted.
//! *Up* are the bodies of uploads, *down* the bodies of blobs; heads and documents are not counted.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::TcpStream,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::sleep,
    time::Duration,
};

use crate::listener::Listener;

/// How long nobody may move a byte before a thread of the wire gives up.
const LONGEST: Duration = Duration::from_secs(60);

/// How long the other end has to read what came before a connection is reset.
const LEISURE: Duration = Duration::from_millis(200);

/// How long a waiting thread sleeps.
const NAP: Duration = Duration::from_millis(5);

/// A running wire; it ends when this value is dropped.
pub struct Wire {
    shared: Arc<Shared>,
    listener: Listener,
}

/// What a request is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum On {
    /// `GET` of a blob.
    Blob,
    /// Bytes of an upload: `PATCH` and `PUT`.
    Upload,
    /// A manifest, whichever way.
    Manifest,
    /// Anything else: whether a blob is there, the begin of an upload.
    Other,
}

/// What happens to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// Somebody answers this status, with these headers, and the registry hears nothing.
    Answer(u16, &'static [(&'static str, &'static str)]),
    /// The connection is reset after so many bytes of the body.
    Reset(u64),
    /// Nothing more moves after so many bytes of the body.
    Stall(u64),
    /// The body ends after so many bytes as if that were all, whatever its length was said to be.
    End(u64),
    /// The byte at this place of the body is another.
    Change(u64),
    /// The registry hears everything, and its answer is lost.
    Lose,
}

/// What is wrong with a wire.
#[derive(Clone, Debug)]
pub struct Fault {
    /// Which requests meet it.
    pub on: On,
    /// What happens to them.
    pub what: What,
    /// How many of them; the rest goes through. A body that is too short for it does not count.
    pub times: u32,
}

/// When all of a wire stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gate {
    Open,
    /// After so many bytes, up and down together, nothing moves.
    Hold(u64),
    /// As soon as so many bytes have moved, no further request is passed on; those under way end.
    HoldRequests(u64),
    /// After so many bytes all connections break, and no other is taken.
    Cut(u64),
}

struct Shared {
    target: String,
    fault: Mutex<Option<Fault>>,
    gate: Mutex<Gate>,
    up: AtomicU64,
    down: AtomicU64,
    /// Requests that are being passed on.
    busy: AtomicU64,
    /// Requests that wait at the gate.
    waiting: AtomicU64,
    log: Mutex<Vec<String>>,
    over: AtomicBool,
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Wire {
    /// A wire to `target`, `127.0.0.1:PORT`, with nothing wrong.
    ///
    /// # Errors
    /// No port is free.
    pub fn to(target: &str) -> io::Result<Wire> {
        let shared = Arc::new(Shared {
            target: target.to_owned(),
            fault: Mutex::new(None),
            gate: Mutex::new(Gate::Open),
            up: AtomicU64::new(0),
            down: AtomicU64::new(0),
            busy: AtomicU64::new(0),
            waiting: AtomicU64::new(0),
            log: Mutex::default(),
            over: AtomicBool::new(false),
        });
        let passed = shared.clone();
        let listener = Listener::start(move |client, _| passed.pass(client))?;
        Ok(Wire { listener, shared })
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> String {
        self.listener.address().to_string()
    }

    /// From now on this is wrong.
    pub fn break_it(&self, fault: Fault) {
        *held(&self.shared.fault) = Some(fault);
    }

    /// After so many bytes, counted from now, nothing moves any more.
    pub fn hold_after(&self, bytes: u64) {
        *held(&self.shared.gate) = Gate::Hold(self.shared.moved() + bytes);
    }

    /// After so many bytes, counted from now, no further request gets through.
    pub fn hold_requests_after(&self, bytes: u64) {
        *held(&self.shared.gate) = Gate::HoldRequests(self.shared.moved() + bytes);
    }

    /// After so many bytes, counted from now, there is no wire.
    pub fn cut_after(&self, bytes: u64) {
        *held(&self.shared.gate) = Gate::Cut(self.shared.moved() + bytes);
    }

    /// Everything is right again.
    pub fn mend(&self) {
        *held(&self.shared.fault) = None;
        *held(&self.shared.gate) = Gate::Open;
    }

    /// Bytes of uploads that went up.
    pub fn up(&self) -> u64 {
        self.shared.up.load(Ordering::SeqCst)
    }

    /// Bytes of blobs that came down.
    pub fn down(&self) -> u64 {
        self.shared.down.load(Ordering::SeqCst)
    }

    /// Whether nothing is being passed on, and so many requests wait at the gate.
    pub fn is_quiet_before(&self, requests: u64) -> bool {
        self.shared.busy.load(Ordering::SeqCst) == 0 && self.shared.waiting.load(Ordering::SeqCst) == requests
    }

    /// A line for each request that ended, since this was last called: method, path, status (0: none), bytes of the body up and
    /// down.
    pub fn take_log(&self) -> Vec<String> {
        std::mem::take(&mut *held(&self.shared.log))
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::SeqCst);
    }
}

/// The head of a request or of an answer.
struct Head {
    first: String,
    headers: Vec<(String, String)>,
}

impl Head {
    fn read(from: &mut impl BufRead) -> io::Result<Head> {
        let mut first = String::new();
        if from.read_line(&mut first)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut headers = Vec::new();
        loop {
            let mut line = String::new();
            from.read_line(&mut line)?;
            match line.trim_end().split_once(':') {
                Some((name, value)) => headers.push((name.to_ascii_lowercase(), value.trim().to_owned())),
                None => return Ok(Head { first: first.trim_end().to_owned(), headers }),
            }
        }
    }

    fn header(&self, wanted: &str) -> Option<&str> {
        self.headers.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str())
    }

    fn length(&self) -> Option<u64> {
        self.header("content-length")?.parse().ok()
    }

    /// Written so that the connection ends with this request.
    fn write(&self, to: &mut impl Write) -> io::Result<()> {
        let mut text = format!("{}\r\nconnection: close\r\n", self.first);
        for (name, value) in self.headers.iter().filter(|(name, _)| name != "connection") {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str("\r\n");
        to.write_all(text.as_bytes())
    }
}

fn about(method: &str, path: &str) -> On {
    match method {
        _ if path.contains("/manifests/") => On::Manifest,
        "GET" if path.contains("/blobs/sha256:") => On::Blob,
        "PATCH" | "PUT" if path.contains("/blobs/uploads/") => On::Upload,
        _ => On::Other,
    }
}

/// How a body was passed on.
enum Passed {
    /// To its end.
    Whole,
    /// To where nobody wants to hear more.
    Short,
}

impl Shared {
    /// One request and its answer.
    fn pass(&self, client: TcpStream) -> io::Result<()> {
        client.set_read_timeout(Some(LONGEST))?;
        let mut from = BufReader::new(client.try_clone()?);
        let head = Head::read(&mut from)?;
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let open = self.wait_for_gate(&client);
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        open?;
        self.busy.fetch_add(1, Ordering::SeqCst);
        let mut moved = Moved::default();
        let passed = self.exchange(&client, &mut from, &head, &mut moved);
        let line = head.first.trim_end_matches(" HTTP/1.1");
        let Moved { status, up, down } = moved;
        held(&self.log).push(format!("{line} {status} {up} {down}"));
        self.busy.fetch_sub(1, Ordering::SeqCst);
        passed
    }

    fn exchange(
        &self,
        mut client: &TcpStream,
        from: &mut BufReader<TcpStream>,
        head: &Head,
        moved: &mut Moved,
    ) -> io::Result<()> {
        let mut words = head.first.split(' ');
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let on = about(method, path);
        let length = head.length().unwrap_or(0);
        if let Some(What::Answer(status, headers)) = self.meets(on, |what| matches!(what, What::Answer(..))) {
            // All of it is taken: a client that is interrupted may not see the answer.
            io::copy(&mut from.take(length), &mut io::sink())?;
            moved.status = status;
            let mut text = format!("HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: 0\r\n");
            headers.iter().for_each(|(name, value)| text.push_str(&format!("{name}: {value}\r\n")));
            return client.write_all(format!("{text}\r\n").as_bytes());
        }
        let upload = on == On::Upload && length > 0;
        let mut server = TcpStream::connect(&self.target)?;
        server.set_read_timeout(Some(LONGEST))?;
        head.write(&mut server)?;
        let counted = Counted { total: &self.up, here: &mut moved.up, on, counts: upload };
        match self.body(&mut from.take(length), &mut &server, length, counted) {
            // A server that has heard enough closes, and has answered before.
            Ok(Passed::Whole) | Err(Trouble::Write) => {}
            Ok(Passed::Short) => return server.shutdown(std::net::Shutdown::Both),
            Err(trouble) => return self.end(trouble, client),
        }
        if upload && self.meets(on, |what| *what == What::Lose).is_some() {
            // The server is listened to, so that what it heard counts.
            let _answer = io::copy(&mut &server, &mut io::sink());
            return reset(client);
        }
        let mut from = BufReader::new(server);
        let answer = Head::read(&mut from)?;
        moved.status = answer.first.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        answer.write(&mut client)?;
        if method == "HEAD" {
            return Ok(());
        }
        let length = answer.length().unwrap_or(u64::MAX);
        let down = on == On::Blob;
        let counted = Counted { total: &self.down, here: &mut moved.down, on, counts: down };
        match self.body(&mut from.take(length), &mut client, length, counted) {
            Ok(_) | Err(Trouble::Write) => Ok(()),
            Err(trouble) => self.end(trouble, client),
        }
    }

    /// The fault, if requests of this kind meet one of this kind; one time less is left of it then.
    fn meets(&self, on: On, fits: impl FnOnce(&What) -> bool) -> Option<What> {
        let mut fault = held(&self.fault);
        let fault = fault.as_mut().filter(|fault| fault.on == on && fault.times > 0 && fits(&fault.what))?;
        fault.times -= 1;
        Some(fault.what.clone())
    }

    fn body(
        &self,
        from: &mut impl Read,
        to: &mut impl Write,
        length: u64,
        counted: Counted<'_>,
    ) -> Result<Passed, Trouble> {
        let happens = |what: &What| match what {
            What::Reset(at) | What::Stall(at) | What::End(at) | What::Change(at) => length > *at,
            What::Answer(..) | What::Lose => false,
        };
        let fault = if counted.counts { self.meets(counted.on, happens) } else { None };
        let mut buffer = vec![0; 64 << 10];
        let mut at = 0;
        loop {
            let most = match fault {
                Some(What::Reset(end) | What::Stall(end) | What::End(end)) => end - at,
                _ => u64::MAX,
            };
            if most == 0 {
                return match fault {
                    Some(What::Reset(_)) => {
                        // A reset throws away what the other end has not read yet.
                        sleep(LEISURE);
                        Err(Trouble::Reset)
                    }
                    Some(What::Stall(_)) => Err(Trouble::Stall),
                    _ => Ok(Passed::Short),
                };
            }
            let most = usize::try_from(most).unwrap_or(usize::MAX).min(buffer.len());
            let read = from.read(&mut buffer[..most]).map_err(|_| Trouble::Reset)?;
            if read == 0 {
                return if at < length && length != u64::MAX {
                    Err(Trouble::Reset)
                } else {
                    Ok(Passed::Whole)
                };
            }
            if let Some(What::Change(place)) = fault
                && (at..at + read as u64).contains(&place)
            {
                buffer[usize::try_from(place - at).unwrap_or(0)] ^= 1;
            }
            let mut sent = 0;
            while sent < read {
                let next = if counted.counts { self.may_move(read - sent)? } else { read - sent };
                to.write_all(&buffer[sent..sent + next]).map_err(|_| Trouble::Write)?;
                sent += next;
                *counted.here += next as u64;
                if counted.counts {
                    counted.total.fetch_add(next as u64, Ordering::SeqCst);
                }
            }
            at += read as u64;
        }
    }

    /// How many of so many bytes the gate lets through now. What was once held is not let through later: whoever sent it
    /// may be gone.
    fn may_move(&self, wanted: usize) -> Result<usize, Trouble> {
        let mut waited = false;
        loop {
            let gate = *held(&self.gate);
            let left = |end: u64| {
                usize::try_from(end.saturating_sub(self.moved())).unwrap_or(usize::MAX).min(wanted)
            };
            match gate {
                Gate::Hold(end) if left(end) == 0 && !self.over.load(Ordering::SeqCst) => sleep(NAP),
                Gate::Cut(end) | Gate::Hold(end) if left(end) == 0 => return Err(Trouble::Reset),
                _ if waited => return Err(Trouble::Reset),
                Gate::Hold(end) | Gate::Cut(end) => return Ok(left(end)),
                Gate::Open | Gate::HoldRequests(_) => return Ok(wanted),
            }
            waited = true;
        }
    }

    /// Waits until a request may be passed on. As with bytes, one that had to wait never is.
    fn wait_for_gate(&self, client: &TcpStream) -> io::Result<()> {
        let mut waited = false;
        loop {
            match *held(&self.gate) {
                Gate::Cut(end) if self.moved() >= end => return reset(client),
                Gate::HoldRequests(end) if self.moved() >= end && !self.over.load(Ordering::SeqCst) => {}
                _ if waited => return reset(client),
                Gate::Open | Gate::Hold(_) | Gate::HoldRequests(_) | Gate::Cut(_) => return Ok(()),
            }
            waited = true;
            sleep(NAP);
        }
    }

    fn moved(&self) -> u64 {
        self.up.load(Ordering::SeqCst) + self.down.load(Ordering::SeqCst)
    }

    fn end(&self, trouble: Trouble, client: &TcpStream) -> io::Result<()> {
        if let Trouble::Stall = trouble {
            while !self.over.load(Ordering::SeqCst) && held(&self.fault).is_some() {
                sleep(NAP);
            }
        }
        reset(client)
    }
}

/// What a request moved.
#[derive(Default)]
struct Moved {
    status: u16,
    up: u64,
    down: u64,
}

/// Where the bytes of a body are counted.
struct Counted<'a> {
    total: &'a AtomicU64,
    here: &'a mut u64,
    on: On,
    counts: bool,
}

/// Why a body was not passed on.
enum Trouble {
    Reset,
    Stall,
    Write,
}

/// Ends a connection as a machine does that knows nothing of it. Always an error, for whoever would go on.
fn reset(client: &TcpStream) -> io::Result<()> {
    rustix::net::sockopt::set_socket_linger(client, Some(Duration::ZERO))?;
    Err(io::ErrorKind::ConnectionReset.into())
}
