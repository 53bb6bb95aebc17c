//! A server on this machine's loopback: files of a folder over http, as well behaved as a test wants them, and git repositories by
//! git's own `http-backend`.
//!
//! `GET /a/b` gives the file `a/b` with an `ETag`, a `Last-Modified`, and ranges. What is to be different stands in the query:
//!
//! | Query | Then |
//! |---|---|
//! | `status=503` | this status, for all requests, or with `times=2` for the first two |
//! | `to=/other` | a redirect to there |
//! | `etag=none`, `etag=weak` | no `ETag`; a weak one |
//! | `modified=none`, `modified=now` | no `Last-Modified`; the time of the request |
//! | `cut=1000` | the connection ends after so many bytes, in answers that begin at the first byte |
//! | `hang=1000` | nothing more comes after so many bytes, in answers that begin at the first byte |
//! | `encoding=gzip` | `Content-Encoding: gzip`, with the bytes of the file as they are |
//!
//! A folder with a file `authorization` wants that text as `Authorization` for all below it. Everything below a name that ends with `.git`
//! is a repository. As somebody's proxy it is all hosts of the world. The log has a line a request: method, path with query, status, and the
//! range that was asked for.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use oci::Digest;

use crate::listener::Listener;

/// When every file was last modified.
const MODIFIED: &str = "Tue, 14 Nov 2023 22:13:20 GMT";

/// When every answer was made.
const NOW: &str = "Wed, 15 Nov 2023 08:00:00 GMT";

/// A running server; it ends when this value is dropped.
pub struct Server {
    listener: Listener,
    shared: Arc<Shared>,
}

struct Shared {
    folder: PathBuf,
    log: Mutex<Vec<String>>,
    /// How often a path was asked for.
    asked: Mutex<BTreeMap<String, u32>>,
}

impl Server {
    /// Serves a folder on a free port.
    ///
    /// # Errors
    /// No port is free.
    pub fn start(folder: &Path) -> io::Result<Server> {
        let shared =
            Arc::new(Shared { folder: folder.to_owned(), log: Mutex::default(), asked: Mutex::default() });
        let served = shared.clone();
        let listener = Listener::start(move |stream, over| served.answer(stream, over))?;
        Ok(Server { listener, shared })
    }

    /// `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.listener.address())
    }

    /// What was asked since this was last called.
    pub fn take_log(&self) -> Vec<String> {
        std::mem::take(&mut *self.shared.log.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// One request, taken apart.
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) target: String,
    path: String,
    query: BTreeMap<String, String>,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

/// An answer without its body.
struct Head {
    status: u16,
    headers: Vec<(&'static str, String)>,
}

impl Shared {
    fn answer(&self, stream: TcpStream, over: &AtomicBool) -> io::Result<()> {
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        let request = Request::read(&mut BufReader::new(stream.try_clone()?))?;
        let range = request.headers.get("range").map(|range| format!(" {range}")).unwrap_or_default();
        let tell = |status: u16| {
            let line = format!("{} {} {status}{range}", request.method, request.target);
            self.log.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        };
        if !self.may(&request) {
            tell(401);
            let headers = vec![("www-authenticate", "Basic realm=\"x\"".to_owned())];
            return write(stream, &Head { status: 401, headers }, b"a login is wanted\n");
        }
        if request.path.contains(".git/") {
            let answer = self.git(&request)?;
            tell(answer.0.status);
            return write(stream, &answer.0, &answer.1);
        }
        let (head, body) = self.file(&request);
        tell(head.status);
        let limit = |name: &str| request.query.get(name).and_then(|bytes| bytes.parse::<usize>().ok());
        match (limit("cut"), limit("hang")) {
            (Some(bytes), _) if head.status == 200 => write_part(stream, &head, &body, bytes),
            (_, Some(bytes)) if head.status == 200 => {
                write_part(stream.try_clone()?, &head, &body, bytes)?;
                while !over.load(Ordering::SeqCst) {
                    thread::sleep(Duration::from_millis(20));
                }
                Ok(())
            }
            _ => write(stream, &head, &body),
        }
    }

    /// Whether the login that the nearest folder wants was given.
    fn may(&self, request: &Request) -> bool {
        let path = self.folder.join(request.path.trim_start_matches('/'));
        let wanted = path.ancestors().skip(1).take_while(|folder| folder.starts_with(&self.folder));
        let wanted = wanted.filter_map(|folder| fs::read_to_string(folder.join("authorization")).ok()).next();
        wanted.is_none_or(|wanted| request.headers.get("authorization").is_some_and(|is| is == wanted.trim()))
    }

    fn file(&self, request: &Request) -> (Head, Vec<u8>) {
        let asked = {
            let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
            let count = asked.entry(request.path.clone()).or_default();
            *count += 1;
            *count
        };
        let query = |name: &str| request.query.get(name).map(String::as_str);
        let times = query("times").and_then(|times| times.parse().ok()).unwrap_or(u32::MAX);
        if let (Some(status), true) = (query("status"), asked <= times) {
            let status = status.parse().unwrap_or(500);
            return (
                Head { status, headers: vec![("retry-after", "0".to_owned())] },
                b"as it was asked\n".to_vec(),
            );
        }
        if let Some(to) = query("to") {
            return (Head { status: 302, headers: vec![("location", to.to_owned())] }, Vec::new());
        }
        let Ok(bytes) = fs::read(self.folder.join(request.path.trim_start_matches('/'))) else {
            return (Head { status: 404, headers: Vec::new() }, b"no such file\n".to_vec());
        };
        let mut headers = vec![("date", NOW.to_owned())];
        let tag = match query("etag") {
            Some("none") => None,
            Some("weak") => Some(format!("W/\"{}\"", Digest::of(&bytes).short())),
            _ => Some(format!("\"{}\"", Digest::of(&bytes).short())),
        };
        headers.extend(tag.clone().map(|tag| ("etag", tag)));
        let modified = match query("modified") {
            Some("none") => None,
            Some("now") => Some(NOW),
            _ => Some(MODIFIED),
        };
        headers.extend(modified.map(|date| ("last-modified", date.to_owned())));
        headers.extend(query("encoding").map(|encoding| ("content-encoding", encoding.to_owned())));
        let given = |name: &str| request.headers.get(name).map(String::as_str);
        let same_tag = given("if-none-match").is_some() && given("if-none-match") == tag.as_deref();
        let same_date =
            tag.is_none() && given("if-modified-since").is_some() && given("if-modified-since") == modified;
        if same_tag || same_date {
            return (Head { status: 304, headers }, Vec::new());
        }
        let joins = given("if-range").is_none_or(|range| Some(range) == tag.as_deref());
        let from = given("range")
            .and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
        match from.filter(|_| joins) {
            Some(from) if from >= bytes.len() => {
                headers.push(("content-range", format!("bytes */{}", bytes.len())));
                (Head { status: 416, headers }, Vec::new())
            }
            Some(from) => {
                headers.push(("content-range", format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len())));
                (Head { status: 206, headers }, bytes[from..].to_vec())
            }
            None => (Head { status: 200, headers }, bytes),
        }
    }

    fn git(&self, request: &Request) -> io::Result<(Head, Vec<u8>)> {
        let mut command = Command::new("git");
        command.arg("http-backend").env("GIT_PROJECT_ROOT", &self.folder).env("GIT_HTTP_EXPORT_ALL", "1");
        command
            .env("GIT_CONFIG_COUNT", "1")
            .env("GIT_CONFIG_KEY_0", "safe.directory")
            .env("GIT_CONFIG_VALUE_0", "*");
        let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
        command.env("PATH_INFO", path).env("QUERY_STRING", query).env("REQUEST_METHOD", &request.method);
        for (variable, header) in [
            ("CONTENT_TYPE", "content-type"),
            ("GIT_PROTOCOL", "git-protocol"),
            ("HTTP_CONTENT_ENCODING", "content-encoding"),
        ] {
            if let Some(value) = request.headers.get(header) {
                command.env(variable, value);
            }
        }
        command.env("CONTENT_LENGTH", request.body.len().to_string());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let mut stdin = child.stdin.take().expect("it was asked for");
        let body = request.body.clone();
        // Beside, so that neither waits for the other.
        let writer = thread::spawn(move || stdin.write_all(&body));
        let output = child.wait_with_output()?.stdout;
        let _gone = writer.join();
        let end = output.windows(4).position(|four| four == b"\r\n\r\n").unwrap_or(output.len());
        let mut head = Head { status: 200, headers: Vec::new() };
        for line in String::from_utf8_lossy(&output[..end]).lines() {
            match line.split_once(": ") {
                Some(("Status", status)) => {
                    head.status = status.split(' ').next().and_then(|code| code.parse().ok()).unwrap_or(500);
                }
                Some(("Content-Type", value)) => head.headers.push(("content-type", value.to_owned())),
                _ => {}
            }
        }
        Ok((head, output.get(end + 4..).unwrap_or_default().to_vec()))
    }
}

impl Request {
    pub(crate) fn read(from: &mut impl BufRead) -> io::Result<Request> {
        let mut line = String::new();
        from.read_line(&mut line)?;
        let mut words = line.split_whitespace().map(str::to_owned);
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        // A client that takes this for its proxy says the whole address.
        let target = match target.split_once("://").map(|(_, rest)| rest) {
            Some(rest) => rest.find('/').map_or("/", |at| &rest[at..]).to_owned(),
            None => target,
        };
        let mut headers = BTreeMap::new();
        loop {
            let mut line = String::new();
            from.read_line(&mut line)?;
            match line.trim_end().split_once(": ") {
                Some((name, value)) => headers.insert(name.to_ascii_lowercase(), value.to_owned()),
                None => break,
            };
        }
        let mut body = Vec::new();
        if headers.get("transfer-encoding").is_some_and(|how| how == "chunked") {
            read_chunks(from, &mut body)?;
        } else {
            let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
            from.take(length).read_to_end(&mut body)?;
        }
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        let query = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Ok(Request { method, path: path.to_owned(), query, headers, body, target })
    }
}

fn read_chunks(from: &mut impl BufRead, body: &mut Vec<u8>) -> io::Result<()> {
    loop {
        let mut line = String::new();
        from.read_line(&mut line)?;
        let length = u64::from_str_radix(line.trim(), 16).map_err(io::Error::other)?;
        from.take(length).read_to_end(body)?;
        from.read_line(&mut line)?;
        if length == 0 {
            return Ok(());
        }
    }
}

fn write(stream: TcpStream, head: &Head, body: &[u8]) -> io::Result<()> {
    write_part(stream, head, body, body.len())
}

/// Writes the head for all of a body, and only a part of it.
fn write_part(mut stream: TcpStream, head: &Head, body: &[u8], part: usize) -> io::Result<()> {
    let mut text = format!("HTTP/1.1 {} x\r\nconnection: close\r\n", head.status);
    for (name, value) in &head.headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    if head.status != 304 {
        text.push_str(&format!("content-length: {}\r\n", body.len()));
    }
    stream.write_all(text.as_bytes())?;
    stream.write_all(b"\r\n")?;
    stream.write_all(&body[..part.min(body.len())])?;
    stream.flush()
}
