//! Files over http: asked for once a build, downloaded where they are new, one file in a layer of their own.
//!
//! What a server said of a file is kept as a record of its own, by the address: what the file was, and its `ETag` and `Last-Modified`. The next build
//! asks with these, and takes the layer where nothing has changed. A file with a checksum is not asked for at all where it is here, from
//! the same address.
//!
//! | Given | Version in the key | Asked |
//! |---|---|---|
//! | `--checksum` | none: the checksum is in the operation | when no record has it |
//! | none | digest of the bytes, and `Last-Modified` | by each build |

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write},
    ops::ControlFlow,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, UNIX_EPOCH},
};

use fetch::{
    Error,
    http::{Answer, Body, File, Sink, Version},
};
use graph::{Http, Op, Source, VertexDigest};
use oci::{Digest, Epoch, Hasher};
use registry::Secret;
use store::{Ingredient, Origin, Partial, Record, ResultLayer, Took};
use tree::{Kind, Layer, LayerPath, Node};

use super::{Effects, Job, cache::Ran};
use crate::{
    cancel::Cancel,
    error::Cause,
    progress::{Event, Status},
    result::{VertexResult, mtime},
};

/// What this build has learned of files, by what was asked.
#[derive(Default)]
pub(crate) struct Files(Mutex<BTreeMap<Digest, Arc<Mutex<Option<Known>>>>>);

/// A file that is here, in a layer of its own.
#[derive(Clone)]
struct Known {
    digest: Digest,
    version: Version,
    layer: ResultLayer,
    /// Whether this build downloaded it.
    fresh: bool,
}

/// A file that was downloaded.
struct Downloaded {
    path: PathBuf,
    digest: Digest,
    size: u64,
    version: Version,
}

impl Files {
    fn of(&self, asked: Digest) -> Arc<Mutex<Option<Known>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(asked).or_default().clone()
    }
}

impl Effects {
    /// The version that a file has now; none where a checksum says which it is.
    pub(crate) fn http_version(&self, http: &Http) -> Result<Option<Digest>, Cause> {
        if http.checksum.is_some() {
            return Ok(None);
        }
        let known = self.know(http, &self.over)?;
        let mut hasher = Hasher::new();
        hasher.field(known.digest.raw());
        hasher.field(format!("{:?}", known.version.modified).as_bytes());
        Ok(Some(hasher.finish()))
    }

    /// When a file was last modified, if the server says so.
    pub(crate) fn http_time(&self, http: &Http) -> Result<Option<Epoch>, Cause> {
        Ok(self.know(http, &self.over)?.version.modified.map(Epoch))
    }

    /// The layer with the file.
    pub(crate) fn http(&self, http: &Http, job: &Job) -> Result<VertexResult, Cause> {
        let started = self.clock.now();
        let known = self.know(http, &job.cancel)?;
        self.keep_result(job, vec![known.layer], &Ran { started, took: Took::default() }, known.fresh)
    }

    /// The file as it is now. Asks the server once a build.
    fn know(&self, http: &Http, cancel: &Cancel) -> Result<Known, Cause> {
        let slot = self.files.of(asked(http));
        // Held while it is asked: another step that wants the same file waits for the answer.
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = &*slot {
            return Ok(known.clone());
        }
        let earlier = self.remembered(http)?;
        let known = match (earlier, http.checksum) {
            (Some(earlier), Some(checksum)) if earlier.digest == checksum => earlier,
            (earlier, _) => self.ask(http, earlier, cancel)?,
        };
        *slot = Some(known.clone());
        Ok(known)
    }

    fn ask(&self, http: &Http, earlier: Option<Known>, cancel: &Cancel) -> Result<Known, Cause> {
        let authorization = self.http_login(&http.url)?;
        let network = tokio::runtime::Handle::current();
        let file = File {
            url: &http.url,
            authorization: authorization.as_ref(),
            // What has another digest is of no use, whatever the server says of it.
            known: earlier.as_ref().filter(|_| http.checksum.is_none()).map(|known| &known.version),
            pinned: http.checksum.is_some(),
        };
        let or_cancelled = |asked: Result<Answer, Error>| asked.map_err(|error| told(error, &earlier));
        let answer = network.block_on(async {
            tokio::select! {
                answer = fetch::http::get(&self.registry, &file) => or_cancelled(answer),
                () = cancel.wait() => Err(Cause::Cancelled),
            }
        })?;
        let body = match (answer, &earlier) {
            (Answer::Unchanged, Some(earlier)) => return Ok(earlier.clone()),
            // A 304 to a request without conditions.
            (Answer::Unchanged, None) => {
                let fault =
                    registry::Fault::Broken { why: "it answered 304, which nobody asked for".to_owned() };
                let host = fetch::http::host(&http.url).to_owned();
                return Err(Error::Http {
                    url: fetch::shown(&http.url),
                    host,
                    fault: Box::new(fault),
                    known: None,
                }
                .into());
            }
            (Answer::Body(body), _) => *body,
        };
        let file = self.read_body(http, body, &earlier, cancel)?;
        let known = match earlier {
            // The same under another tag: the layer that is here.
            Some(earlier)
                if earlier.digest == file.digest && earlier.version.modified == file.version.modified =>
            {
                Known { version: file.version, ..earlier }
            }
            _ => self.keep_file(http, &file)?,
        };
        self.remember(http, &known)?;
        Ok(known)
    }

    /// Makes a layer of a file.
    fn keep_file(&self, http: &Http, file: &Downloaded) -> Result<Known, Cause> {
        let folder = self.lease.new_folder()?;
        let layer = file_layer(&folder, http, file)?;
        let op = asked(&unpinned(http));
        let now = self.clock.now().epoch();
        let kept = match self.store.intern(&self.lease, &op, &layer.content_digest())? {
            Some(earlier) => ResultLayer { layer: earlier.layer, created: Some(earlier.created) },
            None => {
                let origin = Origin { op, created: now };
                let layer = self.store.commit_layer(&self.lease, &layer, Some(&folder), Some(origin))?;
                ResultLayer { layer, created: Some(now) }
            }
        };
        Ok(Known { digest: file.digest, version: file.version.clone(), layer: kept, fresh: true })
    }

    /// Reads a body to its end, behind what an interrupted download of the same version left.
    fn read_body(
        &self,
        http: &Http,
        mut body: Body,
        earlier: &Option<Known>,
        cancel: &Cancel,
    ) -> Result<Downloaded, Cause> {
        let network = tokio::runtime::Handle::current();
        loop {
            let mut file = self.partial(http, &body, cancel)?;
            let mut progress = self.progress(http, body.length());
            progress(file.length(), false);
            let mut part = |bytes| progress(bytes, false);
            network.block_on(async {
                tokio::select! {
                    read = body.read(&mut file, &mut part) => {
                        read.map_err(|error| told(error, earlier))
                    }
                    () = cancel.wait() => Err(Cause::Cancelled),
                }
            })?;
            let size = file.length();
            progress(size, true);
            let (path, digest) = file.0.finish()?;
            match http.checksum {
                Some(expected) if expected != digest => {
                    if body.was_joined() {
                        // What was there may have been of another version: once more, from the start.
                        continue;
                    }
                    let url = fetch::shown(&http.url);
                    return Err(Error::FileChecksum { url, expected, actual: digest }.into());
                }
                _ => {}
            }
            return Ok(Downloaded { path, digest, size, version: body.version().clone() });
        }
    }

    /// Where a body is written to.
    fn partial(&self, http: &Http, body: &Body, cancel: &Cancel) -> Result<Written, Cause> {
        let version = match (http.checksum, body.strong_tag()) {
            (Some(checksum), _) => checksum.to_string(),
            (None, Some(tag)) => tag.to_owned(),
            (None, None) => String::new(),
        };
        let mut hasher = Hasher::new();
        for part in ["http", &http.url, &version] {
            hasher.field(part.as_bytes());
        }
        let partial = self.store.partial(&self.lease, &hasher.finish(), &mut |_| match cancel.is_set() {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        })?;
        let mut file = Written(partial.ok_or(Cause::Cancelled)?);
        if version.is_empty() {
            file.0.restart()?;
        }
        Ok(file)
    }

    /// Tells how far a download is: at its begin, after each part of a megabyte, at its end.
    fn progress(&self, http: &Http, total: Option<u64>) -> impl FnMut(u64, bool) {
        let vertex = VertexDigest::of(&Op::Source(Source::Http(http.clone())), &[]).digest();
        let (started, mut told) = (self.clock.now(), None);
        let id = format!("downloading {}", http.file_name);
        move |current, done| {
            let next = told.is_none_or(|told| current > told + 256 * 1024);
            if next || done {
                told = Some(current);
                let (id, completed) = (id.clone(), done.then(|| self.clock.now()));
                let total = total.unwrap_or(0).max(if done { current } else { 0 });
                self.sink.event(Event::Status(Status { vertex, id, current, total, started, completed }));
            }
        }
    }

    /// `Authorization`, from the secrets of the address's host: a header as it is, else a token.
    fn http_login(&self, url: &str) -> Result<Option<Secret>, Cause> {
        let host = fetch::http::host(url);
        // As BuildKit, which asks for both and keeps the last: a token wins.
        if let Some(token) = self.login_secret(&format!("HTTP_AUTH_TOKEN_{host}"))? {
            return Ok(Some(Secret::new(format!("Bearer {}", token.reveal()))));
        }
        self.login_secret(&format!("HTTP_AUTH_HEADER_{host}"))
    }

    /// A secret that is text, without the end of its line.
    pub(crate) fn login_secret(&self, id: &str) -> Result<Option<Secret>, Cause> {
        let bytes = self.client.secret(id).map_err(Cause::io("read the secret", id))?;
        let Some(bytes) = bytes else { return Ok(None) };
        let bad = |_| io::Error::new(io::ErrorKind::InvalidData, "it is no text");
        let text =
            String::from_utf8(bytes.to_vec()).map_err(bad).map_err(Cause::io("read the secret", id))?;
        Ok(Some(Secret::new(text.trim_end())))
    }

    /// What is known of an address from earlier builds, if the layer is still here.
    fn remembered(&self, http: &Http) -> Result<Option<Known>, Cause> {
        let record = self.store.by_definition_key(&self.lease, &asked(&unpinned(http)))?;
        Ok(record.and_then(|record| {
            let value = |name: &str| {
                record.ingredients.iter().find(|part| part.name == name).map(|part| part.value.clone())
            };
            let version = Version {
                etag: value("etag"),
                unchanged_since: value("unchanged since"),
                modified: value("modified").and_then(|seconds| seconds.parse().ok()),
            };
            let digest = value("digest")?.parse().ok()?;
            let layer = *record.result.first()?;
            Some(Known { digest, version, layer, fresh: false })
        }))
    }

    fn remember(&self, http: &Http, known: &Known) -> Result<(), Cause> {
        let key = asked(&unpinned(http));
        let now = self.clock.now();
        let part = |name: &str, value: String| Ingredient { name: name.to_owned(), value };
        let mut ingredients = vec![part("digest", known.digest.to_string())];
        ingredients.extend(known.version.etag.clone().map(|tag| part("etag", tag)));
        ingredients.extend(known.version.unchanged_since.clone().map(|date| part("unchanged since", date)));
        ingredients.extend(known.version.modified.map(|at| part("modified", at.to_string())));
        let record = Record {
            definition_key: key,
            content_key: None,
            op: key,
            ingredients,
            result: vec![known.layer],
            created: now.epoch(),
            duration_ms: 0,
            took: Took::default(),
            stage: String::new(),
            // No instruction has this text, so none is explained by this record.
            instruction: "what a server said".to_owned(),
            stays_here: false,
        };
        Ok(self.store.put_record(&self.lease, &record)?)
    }
}

/// A partial download as a place to write to.
struct Written(Partial);

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl Sink for Written {
    fn length(&self) -> u64 {
        self.0.size_bytes()
    }

    fn restart(&mut self) -> io::Result<()> {
        self.0.restart().map_err(io::Error::other)
    }
}

/// Names what is asked of a server.
fn asked(http: &Http) -> Digest {
    let Http { url, checksum, file_name } = http;
    let mut hasher = Hasher::new();
    for part in
        ["http answer", url, file_name, &checksum.map(|digest| digest.to_string()).unwrap_or_default()]
    {
        hasher.field(part.as_bytes());
    }
    hasher.finish()
}

fn unpinned(http: &Http) -> Http {
    Http { checksum: None, ..http.clone() }
}

/// An error, with the digest of what the address gave before.
fn told(error: Error, earlier: &Option<Known>) -> Cause {
    let digest = earlier.as_ref().map(|known| known.digest);
    match error {
        Error::Http { url, host, fault, known } => {
            Error::Http { url, host, fault, known: known.or(digest) }.into()
        }
        other => other.into(),
    }
}

/// Moves the file into a layer's folder. Only root may read it; its time is the server's, or 1970 (BuildKit's choice, too).
fn file_layer(folder: &Path, http: &Http, file: &Downloaded) -> Result<Layer, Cause> {
    let Downloaded { path, digest, size, version } = file;
    let name = LayerPath::clamp(http.file_name.as_bytes())
        .map_err(|error| Cause::Task(format!("the name `{}`: {error}", http.file_name)))?;
    let to = folder.join(&http.file_name);
    let seconds = version.modified.unwrap_or(0);
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(Cause::io("chmod", path))?;
    let opened = fs::OpenOptions::new().write(true).open(path);
    let dated = opened.and_then(|opened| opened.set_modified(UNIX_EPOCH + Duration::from_secs(seconds)));
    dated.map_err(Cause::io("change the time of", path))?;
    fs::rename(path, &to).map_err(Cause::io("rename", path))?;
    let opened = fs::File::open(folder).and_then(|opened| opened.set_modified(UNIX_EPOCH));
    opened.map_err(Cause::io("change the time of", folder))?;
    let mut node = Node::new(Kind::File { size: *size, content: *digest }, 0o600);
    node.mtime = mtime(Epoch(seconds));
    let mut layer = Layer::default();
    layer.entries.insert(LayerPath::root(), Node::directory(0o755));
    layer.entries.insert(name, node);
    Ok(layer)
}
