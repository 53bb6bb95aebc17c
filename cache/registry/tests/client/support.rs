//! A small HTTP server that does what a test says, and small images.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use oci::{
    Descriptor, DiffId, Digest, ImageConfig, Index, Manifest, MediaType, Platform, media_type::Compression,
};
use registry::{Anonymous, Client, Credentials, Limits, Settings};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: String,
    /// With the query.
    pub path: String,
    /// Names in lower case.
    pub headers: BTreeMap<String, String>,
    pub body: String,
    /// The body as it came.
    pub bytes: Vec<u8>,
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

/// What is sent back.
#[derive(Clone, Debug, Default)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Ends the connection after so many bytes of the body.
    pub cut: Option<usize>,
    /// Sends nothing more after the bytes, and keeps the connection open.
    pub stall: bool,
    /// Sends the body in chunks, without a length.
    pub chunked: bool,
}

impl Reply {
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Reply {
        Reply { status, body: body.into(), ..Reply::default() }
    }

    pub fn with(mut self, name: &str, value: impl Into<String>) -> Reply {
        self.headers.push((name.to_owned(), value.into()));
        self
    }
}

type Handler = dyn Fn(&Seen) -> Reply + Send + Sync;

/// A server on a free port of 127.0.0.1.
pub struct Server {
    pub host: String,
    seen: Arc<Mutex<Vec<Seen>>>,
    task: JoinHandle<()>,
}

impl Server {
    pub async fn start(handler: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let host = listener.local_addr().expect("an address").to_string();
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let (handler, all): (Arc<Handler>, _) = (Arc::new(handler), seen.clone());
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, handler.clone(), all.clone()));
            }
        });
        Server { host, seen, task }
    }

    /// All requests so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().expect("no test panicked").clone()
    }

    /// `METHOD path` of all requests so far.
    pub fn lines(&self) -> Vec<String> {
        self.seen().iter().map(|seen| format!("{} {}", seen.method, seen.path)).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut stream: TcpStream, handler: Arc<Handler>, all: Arc<Mutex<Vec<Seen>>>) {
    let Some(seen) = request(&mut stream).await else { return };
    all.lock().expect("no test panicked").push(seen.clone());
    let reply = handler(&seen);
    let mut head = format!("HTTP/1.1 {} X\r\nConnection: close\r\n", reply.status);
    for (name, value) in &reply.headers {
        head += &format!("{name}: {value}\r\n");
    }
    if reply.chunked {
        head += "Transfer-Encoding: chunked\r\n";
    } else if !reply.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-length")) {
        head += &format!("Content-Length: {}\r\n", reply.body.len());
    }
    let mut bytes = format!("{head}\r\n").into_bytes();
    let body = &reply.body[..reply.cut.unwrap_or(reply.body.len()).min(reply.body.len())];
    match (seen.method.as_str(), reply.chunked) {
        ("HEAD", _) => {}
        (_, false) => bytes.extend_from_slice(body),
        (_, true) => {
            if !body.is_empty() {
                bytes.extend_from_slice(format!("{:x}\r\n", body.len()).as_bytes());
                bytes.extend_from_slice(body);
                bytes.extend_from_slice(b"\r\n");
            }
            bytes.extend_from_slice(b"0\r\n\r\n");
        }
    }
    // The client may have gone away, which some tests are about.
    let _ = stream.write_all(&bytes).await;
    if reply.stall {
        tokio::time::sleep(Duration::from_secs(60)).await;
    }
    let _ = stream.shutdown().await;
}

async fn request(stream: &mut TcpStream) -> Option<Seen> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end;
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let mut lines = head.lines();
    let mut first = lines.next()?.split(' ');
    let (method, path) = (first.next()?.to_owned(), first.next()?.to_owned());
    let headers: BTreeMap<String, String> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = bytes.split_off(end + 4);
    // A body that breaks off is handed on as far as it came.
    while body.len() < length && stream.read_buf(&mut body).await.is_ok_and(|read| read > 0) {}
    Some(Seen { method, path, headers, body: String::from_utf8_lossy(&body).into_owned(), bytes: body })
}

/// An image with one layer that says its platform.
#[derive(Clone)]
pub struct Image {
    pub layer: Vec<u8>,
    pub config: Vec<u8>,
    pub manifest: Vec<u8>,
    pub descriptor: Descriptor,
}

pub fn image(platform: &str) -> Image {
    let platform: Platform = platform.parse().expect("a platform");
    let layer = format!("the layer of {platform}").into_bytes();
    let mut config = ImageConfig {
        os: platform.os.clone(),
        architecture: platform.architecture.clone(),
        variant: platform.variant.clone(),
        ..ImageConfig::default()
    };
    config.rootfs.diff_ids.push(DiffId::of_tar(Digest::of(&layer)));
    let config = config.bytes();
    let layers = vec![Descriptor::of(MediaType::layer(Compression::Uncompressed), &layer)];
    let manifest = Manifest::new(Descriptor::of(MediaType::config(), &config), layers).bytes();
    let mut descriptor = Descriptor::of(MediaType::manifest(), &manifest);
    descriptor.platform = Some(platform);
    Image { layer, config, manifest, descriptor }
}

impl Image {
    pub fn layer_descriptor(&self) -> Descriptor {
        Descriptor::of(MediaType::layer(Compression::Uncompressed), &self.layer)
    }
}

/// What a well-behaved registry answers for one repository, `app`.
#[derive(Clone, Default)]
pub struct Content {
    manifests: BTreeMap<String, (String, Vec<u8>)>,
    blobs: BTreeMap<String, Vec<u8>>,
}

impl Content {
    pub fn with_blob(mut self, bytes: &[u8]) -> Content {
        self.blobs.insert(Digest::of(bytes).to_string(), bytes.to_vec());
        self
    }

    /// Adds a document under its digest and a tag.
    pub fn with_manifest(mut self, tag: &str, media_type: &str, bytes: &[u8]) -> Content {
        for name in [tag.to_owned(), Digest::of(bytes).to_string()] {
            self.manifests.insert(name, (media_type.to_owned(), bytes.to_vec()));
        }
        self
    }

    pub fn with_image(self, tag: &str, image: &Image) -> Content {
        let media_type = image.descriptor.media_type.as_str();
        self.with_manifest(tag, media_type, &image.manifest).with_blob(&image.config).with_blob(&image.layer)
    }

    pub fn with_index(self, tag: &str, images: &[Image]) -> Content {
        let index = Index::new(images.iter().map(|image| image.descriptor.clone()).collect()).bytes();
        let content = images.iter().fold(self, |content, image| content.with_image("", image));
        content.with_manifest(tag, MediaType::index().as_str(), &index)
    }

    pub fn answer(&self, seen: &Seen) -> Reply {
        let path = seen.path.split('?').next().unwrap_or_default();
        if let Some((media_type, bytes)) =
            path.strip_prefix("/v2/app/manifests/").and_then(|name| self.manifests.get(name))
        {
            return Reply::new(200, bytes.as_slice())
                .with("Content-Type", media_type)
                .with("Docker-Content-Digest", Digest::of(bytes).to_string());
        }
        match path.strip_prefix("/v2/app/blobs/").and_then(|name| self.blobs.get(name)) {
            Some(bytes) => Reply::new(200, bytes.as_slice()),
            None => {
                Reply::new(404, r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#)
            }
        }
    }
}

/// Limits under which a failing test does not take long.
pub fn quick() -> Limits {
    Limits {
        connect: Duration::from_secs(1),
        idle: Duration::from_millis(400),
        first_wait: Duration::from_millis(5),
        part_bytes: 1 << 20,
        ..Limits::default()
    }
}

pub fn client(settings: &str) -> Client {
    client_as(settings, Arc::new(Anonymous))
}

pub fn client_as(settings: &str, credentials: Arc<dyn Credentials>) -> Client {
    let settings = Settings { limits: quick(), ..Settings::parse(settings).expect("valid settings") };
    Client::new(settings, credentials)
}

pub fn amd64() -> Platform {
    "linux/amd64".parse().expect("a platform")
}
