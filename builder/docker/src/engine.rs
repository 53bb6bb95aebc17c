//! One engine: what it has, and giving it an image.

use std::{
    collections::BTreeSet,
    io,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::BytesMut;
use futures_util::{StreamExt, TryStreamExt, stream};
use oci::{ChainId, DiffId, Reference};
use registry::deepest;
use reqwest::{Certificate, Client, Identity, Method, Response, StatusCode, Url};
use serde::de::DeserializeOwned;

use crate::{
    Address, Archive, Error, Image, Progress, Tls,
    address::read,
    answer::{Info, Inspected, Line, Listed, Refusal},
};

/// How long an engine may take to accept a connection, and to say that it is there.
const CONNECT: Duration = Duration::from_secs(10);

/// How long it may take to answer a question. Loading an image is none: an engine unpacks as long as it needs.
const ANSWER: Duration = Duration::from_secs(60);

/// The longest answer that is read, in bytes: the list of all images is some hundred bytes an image.
const ANSWER_BYTES: usize = 64 << 20;

/// The longest line of an answer that comes line by line, in bytes: they have some hundred.
const LINE_BYTES: usize = 1 << 20;

/// How many images are asked about at once.
const AT_ONCE: usize = 8;

/// Who keeps the images of an engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageStore {
    /// Docker itself, layer by layer under their chain ids: an image's id is its config's digest.
    Layers,
    /// containerd, as documents and blobs: an image's id is the digest of its manifest or index.
    Containerd,
    /// Another program that speaks Docker's API, as Podman does.
    Other,
}

/// An engine that answered.
pub struct Engine {
    client: Client,
    /// `http://host/v1.43/`.
    base: Url,
    address: String,
    store: ImageStore,
}

impl Engine {
    /// Asks the engine there what it is.
    ///
    /// # Errors
    /// [`Error::NotThere`] where nothing answers; [`Error::File`] for certificates.
    pub async fn connect(address: &Address) -> Result<Engine, Error> {
        let shown = address.to_string();
        let builder = Client::builder()
            .user_agent(concat!("kiln/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT)
            .no_proxy();
        let (builder, root) = match address {
            Address::Socket(path) => {
                // A socket that is not there is told by the system, not as a connection that failed.
                let there = path.clone();
                let found = std::os::unix::net::UnixStream::connect(there).map(drop);
                found.map_err(|error| not_there(&shown, &error))?;
                (builder.unix_socket(path.as_path()).tls_certs_only([]), "http://docker/".to_owned())
            }
            Address::Tcp { host, tls: None } => (builder.tls_certs_only([]), format!("http://{host}/")),
            Address::Tcp { host, tls: Some(tls) } => (certified(builder, tls)?, format!("https://{host}/")),
        };
        let bad = |why: String| Error::NotThere { address: shown.clone(), why, forbidden: false };
        let client = builder.build().map_err(|error| bad(deepest(&error)))?;
        let base: Url = root.parse().map_err(|_| bad("its host name is none".to_owned()))?;
        let asked = client.get(join(&base, &["_ping"])).timeout(CONNECT).send();
        let pong = asked.await.map_err(|error| bad(deepest(&error)))?;
        let header =
            |name: &str| pong.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let version =
            header("api-version").filter(|version| version.bytes().all(|b| b.is_ascii_digit() || b == b'.'));
        let version = version.ok_or_else(|| bad("what answers there is no Docker Engine".to_owned()))?;
        let other = header("libpod-api-version").is_some();
        let base = join(&base, &[&format!("v{version}"), ""]);
        let mut engine = Engine { client, base, address: shown, store: ImageStore::Other };
        if !other {
            let info: Info = engine.get(&["info"], "say what it is").await?;
            engine.store = if info.is_containerd() { ImageStore::Containerd } else { ImageStore::Layers };
        }
        Ok(engine)
    }

    /// Who keeps its images.
    pub fn store(&self) -> ImageStore {
        self.store
    }

    /// Where it is.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The image of this id or name; `None` where it has none.
    ///
    /// # Errors
    /// The engine refuses or the connection breaks.
    pub async fn image(&self, id: &str) -> Result<Option<Image>, Error> {
        let what = "show an image";
        let answer = self.send(Method::GET, join(&self.base, &["images", id, "json"]), None, what).await?;
        if answer.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let inspected: Inspected = self.read(answer, what).await?;
        Ok(Some(inspected.into()))
    }

    /// Which of these layers, bottom first, the engine lacks: an archive that it is given may leave the others away. All, when
    /// its store is none of layers.
    ///
    /// # Errors
    /// The engine refuses or the connection breaks.
    pub async fn lacks(&self, layers: &[DiffId]) -> Result<BTreeSet<DiffId>, Error> {
        let all: BTreeSet<DiffId> = layers.iter().copied().collect();
        if self.store != ImageStore::Layers {
            return Ok(all);
        }
        let listed: Vec<Listed> = self.get(&["images", "json"], "list its images").await?;
        let ids: BTreeSet<String> = listed.into_iter().map(|image| image.id).collect();
        let ask = |id: String| async move { self.image(&id).await };
        let images = stream::iter(ids.into_iter().map(ask)).buffer_unordered(AT_ONCE);
        let known = images.try_fold(BTreeSet::new(), |mut known, image| async move {
            known.extend(image.iter().flat_map(|image| chain(&image.diff_ids)));
            Ok(known)
        });
        let known = known.await?;
        // A layer that stands twice in the image may be there over one base and not over another: it is sent.
        let lacked = layers.iter().zip(chain(layers)).filter(|(_, id)| !known.contains(id));
        Ok(lacked.map(|(layer, _)| *layer).collect())
    }

    /// Gives an image that it has another name, which another image then loses.
    ///
    /// # Errors
    /// The engine refuses or the connection breaks.
    pub async fn tag(&self, id: &str, name: &Reference) -> Result<(), Error> {
        let mut url = join(&self.base, &["images", id, "tag"]);
        let repository = Reference { tag: None, digest: None, ..name.clone() }.familiar();
        let tag = name.tag.as_deref().unwrap_or("latest");
        url.query_pairs_mut().append_pair("repo", &repository).append_pair("tag", tag);
        let what = "name an image";
        let answer = self.send(Method::POST, url, None, what).await?;
        self.accepted(answer, what).await.map(drop)
    }

    /// Gives it the images of an archive.
    ///
    /// # Errors
    /// The engine refuses, the archive cannot be read, or the connection breaks.
    pub async fn load(
        &self,
        archive: Archive,
        progress: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<(), Error> {
        let what = "load an image";
        let unread: Arc<Mutex<Option<String>>> = Arc::default();
        let note = unread.clone();
        let archive = archive.inspect_err(move |error| {
            *note.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.to_string());
        });
        let mut url = join(&self.base, &["images", "load"]);
        url.query_pairs_mut().append_pair("quiet", "0");
        let sent = self.send(Method::POST, url, Some(reqwest::Body::wrap_stream(archive)), what).await;
        // What could not be read is the cause; that the connection ended is what came of it.
        if let Some(why) = unread.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return Err(Error::Broken { address: self.address.clone(), what, why });
        }
        let answer = self.accepted(sent?, what).await?;
        let mut lines = answer.bytes_stream();
        let mut rest = BytesMut::new();
        while let Some(bytes) = lines.next().await {
            rest.extend_from_slice(&bytes.map_err(|error| self.broken(what, &error))?);
            while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                self.line(&rest.split_to(end + 1), progress)?;
            }
            if rest.len() > LINE_BYTES {
                return Err(self.no_answer(what, "a line without an end".to_owned()));
            }
        }
        self.line(&rest, progress)
    }

    /// A line of the answer to a load.
    fn line(&self, line: &[u8], progress: &(dyn Fn(Progress) + Send + Sync)) -> Result<(), Error> {
        if line.trim_ascii().is_empty() {
            return Ok(());
        }
        let what = "load an image";
        let line: Line =
            serde_json::from_slice(line).map_err(|error| self.no_answer(what, error.to_string()))?;
        if let Some(said) = line.error {
            return Err(Error::Refused { address: self.address.clone(), what, said });
        }
        if let Some(step) = line.progress() {
            progress(step);
        }
        Ok(())
    }

    async fn get<T: DeserializeOwned>(&self, path: &[&str], what: &'static str) -> Result<T, Error> {
        let answer = self.send(Method::GET, join(&self.base, path), None, what).await?;
        self.read(answer, what).await
    }

    async fn send(
        &self,
        method: Method,
        url: Url,
        body: Option<reqwest::Body>,
        what: &'static str,
    ) -> Result<Response, Error> {
        let request = self.client.request(method, url);
        let request = match body {
            Some(body) => request.header("content-type", "application/x-tar").body(body),
            None => request.timeout(ANSWER),
        };
        request.send().await.map_err(|error| self.broken(what, &error))
    }

    /// The answer, if it is one of success.
    async fn accepted(&self, answer: Response, what: &'static str) -> Result<Response, Error> {
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let bytes = self.bytes(answer, what).await?;
        let said = match serde_json::from_slice::<Refusal>(&bytes) {
            Ok(refusal) => refusal.message,
            Err(_) => format!("{status}"),
        };
        Err(Error::Refused { address: self.address.clone(), what, said })
    }

    async fn read<T: DeserializeOwned>(&self, answer: Response, what: &'static str) -> Result<T, Error> {
        let answer = self.accepted(answer, what).await?;
        let bytes = self.bytes(answer, what).await?;
        serde_json::from_slice(&bytes).map_err(|error| self.no_answer(what, error.to_string()))
    }

    async fn bytes(&self, answer: Response, what: &'static str) -> Result<BytesMut, Error> {
        let mut all = BytesMut::new();
        let mut pieces = answer.bytes_stream();
        while let Some(bytes) = pieces.next().await {
            all.extend_from_slice(&bytes.map_err(|error| self.broken(what, &error))?);
            if all.len() > ANSWER_BYTES {
                return Err(self.no_answer(what, format!("more than {ANSWER_BYTES} bytes")));
            }
        }
        Ok(all)
    }

    fn broken(&self, what: &'static str, error: &reqwest::Error) -> Error {
        Error::Broken { address: self.address.clone(), what, why: deepest(error) }
    }

    fn no_answer(&self, what: &'static str, why: String) -> Error {
        Error::Answer { address: self.address.clone(), what, why }
    }
}

/// The chain ids of layers, bottom first.
fn chain(layers: &[DiffId]) -> impl Iterator<Item = ChainId> {
    layers.iter().scan(None, |below: &mut Option<ChainId>, layer| {
        let id = below.map_or_else(|| ChainId::base(*layer), |below| below.then(*layer));
        *below = Some(id);
        Some(id)
    })
}

/// The address of something below another, each part escaped.
fn join(base: &Url, parts: &[&str]) -> Url {
    let mut url = base.clone();
    if let Ok(mut path) = url.path_segments_mut() {
        path.pop_if_empty().extend(parts);
    }
    url
}

fn certified(builder: reqwest::ClientBuilder, tls: &Tls) -> Result<reqwest::ClientBuilder, Error> {
    let file = |name: &str| -> (PathBuf, Result<Option<Vec<u8>>, Error>) {
        let path = tls.folder.join(name);
        let bytes = read(&path);
        (path, bytes)
    };
    let bad = |path: PathBuf| {
        move |error: reqwest::Error| Error::File { path, source: io::Error::other(deepest(&error)) }
    };
    let (path, authorities) = file("ca.pem");
    let builder = match authorities? {
        Some(pem) => builder.tls_certs_only(Certificate::from_pem_bundle(&pem).map_err(bad(path))?),
        None => builder,
    };
    let ((path, certificate), (_, key)) = (file("cert.pem"), file("key.pem"));
    let builder = match (certificate?, key?) {
        (Some(certificate), Some(key)) => {
            let both = [key, b"\n".to_vec(), certificate].concat();
            builder.identity(Identity::from_pem(&both).map_err(bad(path))?)
        }
        _ => builder,
    };
    Ok(builder.tls_danger_accept_invalid_certs(!tls.checked))
}

fn not_there(address: &str, error: &io::Error) -> Error {
    let forbidden = error.kind() == io::ErrorKind::PermissionDenied;
    Error::NotThere { address: address.to_owned(), why: error.to_string(), forbidden }
}
