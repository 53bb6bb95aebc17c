//! A registry that means harm: it has what an image is made of, and answers some questions in ways of its own.
//!
//! [`image`] makes documents and blobs, honest or not; [`tar`] members that no archiver writes; [`bomb`] what is small here
//! and large when it is unpacked. [`place`] runs Kiln against it, and sees what it did.

pub mod bomb;
pub mod image;
pub mod place;
pub mod tar;

use std::{
    collections::BTreeMap,
    io::{self, BufReader, Write},
    net::TcpStream,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use crate::{listener::Listener, server::Request};

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Asked {
    /// `GET`.
    pub method: String,
    /// The path with its query.
    pub target: String,
    /// By name in lower case.
    pub headers: BTreeMap<String, String>,
}

/// What is sent behind the head.
#[derive(Clone, Debug)]
pub enum Body {
    /// These bytes, with their length told.
    Bytes(Vec<u8>),
    /// These bytes again and again, until the other side hangs up, without a length.
    Endless(Vec<u8>),
    /// These bytes one by one, so long apart, with their length told.
    Dripping(Vec<u8>, Duration),
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// As they are sent; `content-length` stands instead of that of the body.
    pub headers: Vec<(String, String)>,
    /// The body; of a HEAD only its length.
    pub body: Body,
}

impl Answer {
    /// An answer of these bytes.
    pub fn new(status: u16, bytes: impl Into<Vec<u8>>) -> Answer {
        Answer { status, headers: Vec::new(), body: Body::Bytes(bytes.into()) }
    }

    /// An answer whose body has no end.
    pub fn endless(status: u16, again: &[u8]) -> Answer {
        Answer { body: Body::Endless(again.to_vec()), ..Answer::new(status, "") }
    }

    /// With a header.
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Answer {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// With a media type.
    pub fn typed(self, media_type: &str) -> Answer {
        self.with("content-type", media_type)
    }
}

/// What answers: nothing is a 404.
pub type Answers = dyn Fn(&Asked) -> Option<Answer> + Send + Sync;

/// A server on a free loopback port; it ends when this value is dropped.
pub struct Hostile {
    listener: Listener,
    shared: Arc<Shared>,
}

struct Shared {
    answers: Mutex<Arc<Answers>>,
    seen: Mutex<Vec<Asked>>,
}

impl Hostile {
    /// Starts one that has nothing.
    ///
    /// # Errors
    /// No port is free.
    pub fn start() -> io::Result<Hostile> {
        let answers: Arc<Answers> = Arc::new(|_| None);
        let shared = Arc::new(Shared { answers: Mutex::new(answers), seen: Mutex::default() });
        let served = shared.clone();
        let listener = Listener::start(move |stream, over| served.answer(stream, over))?;
        Ok(Hostile { listener, shared })
    }

    /// `127.0.0.1:PORT`.
    pub fn host(&self) -> String {
        self.listener.address().to_string()
    }

    /// Answers so from now on.
    pub fn answer_with(&self, answers: impl Fn(&Asked) -> Option<Answer> + Send + Sync + 'static) {
        *self.shared.answers.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(answers);
    }

    /// What was asked so far.
    pub fn seen(&self) -> Vec<Asked> {
        self.shared.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Shared {
    fn answer(&self, stream: TcpStream, over: &AtomicBool) -> io::Result<()> {
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        let Request { method, target, headers, .. } =
            Request::read(&mut BufReader::new(stream.try_clone()?))?;
        let asked = Asked { method, target, headers };
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).push(asked.clone());
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let answer = answers(&asked).unwrap_or_else(|| Answer::new(404, "not here\n"));
        write(stream, &answer, asked.method == "HEAD", over)
    }
}

fn write(mut stream: TcpStream, answer: &Answer, head_only: bool, over: &AtomicBool) -> io::Result<()> {
    let mut head = format!("HTTP/1.1 {} x\r\nconnection: close\r\n", answer.status);
    for (name, value) in &answer.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if !answer.headers.iter().any(|(name, _)| name == "content-length") {
        match &answer.body {
            Body::Bytes(bytes) | Body::Dripping(bytes, _) => {
                head.push_str(&format!("content-length: {}\r\n", bytes.len()));
            }
            Body::Endless(_) => head.push_str("transfer-encoding: chunked\r\n"),
        }
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes())?;
    if head_only {
        return stream.flush();
    }
    match &answer.body {
        Body::Bytes(bytes) => stream.write_all(bytes)?,
        Body::Endless(again) => {
            let chunk = [format!("{:x}\r\n", again.len()).as_bytes(), again, b"\r\n"].concat();
            while !over.load(Ordering::SeqCst) {
                stream.write_all(&chunk)?;
            }
        }
        Body::Dripping(bytes, apart) => {
            for byte in bytes {
                if over.load(Ordering::SeqCst) {
                    break;
                }
                stream.write_all(&[*byte])?;
                thread::sleep(*apart);
            }
        }
    }
    stream.flush()
}
