//! What can go wrong between here and a registry, as facts.

mod help;

use std::{fmt, path::PathBuf, time::Duration};

use oci::{BadDocument, Digest, Platform};

use crate::{config::BadFile, credentials::CredentialsError, retry::Retry, wire::clean};

/// A question that no host answered.
#[derive(Debug)]
pub struct Error {
    /// What was asked.
    pub asked: Box<Asked>,
    /// What the last host that was asked did.
    pub fault: Box<Fault>,
}

/// A question to registries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The image's full name.
    pub reference: String,
    /// What of it was wanted.
    pub what: What,
    /// The registry as the reference has it: the name that settings and logins go by.
    pub registry: String,
    /// The host that the fault is about, by the name that settings know it by: `registry`, or a mirror.
    pub host: String,
    /// Its address: `https://registry-1.docker.io`.
    pub address: String,
    /// Who was asked before, and what they did.
    pub tried: Vec<Tried>,
}

/// A host that was asked before another was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tried {
    /// Its address: `http://127.0.0.1:5000`.
    pub address: String,
    /// [`Fault::code`] of what it did.
    pub code: &'static str,
    /// What it did.
    pub fault: String,
}

/// What of an image was wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// Which digest the name stands for, its manifest and its config.
    Image,
    /// One blob.
    Blob(Digest),
    /// To put a manifest or an index there.
    PushedImage,
    /// To put a blob there.
    PushedBlob(Digest),
    /// The tags of its repository.
    Tags,
    /// What refers to it.
    Referrers,
    /// Whether a login is right.
    Login,
}

impl What {
    /// Whether bytes were to come from there.
    fn is_fetched(self) -> bool {
        matches!(self, What::Image | What::Blob(_))
    }

    /// What is good to know before the same is done again.
    fn goes_on(self) -> &'static str {
        match self {
            What::Blob(_) => ", it goes on where this one stopped",
            What::PushedBlob(_) => ", what the registry has is not sent again",
            _ => "",
        }
    }
}

/// What a server said about a refusal, cleaned for a terminal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// The code of the first entry of `errors` (distribution-spec v1.1, § Error Codes): `MANIFEST_UNKNOWN`.
    /// Empty when there was none.
    pub code: String,
    /// Its message, or the first line of a body of another kind.
    pub message: String,
}

/// What a host did instead of answering.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// No connection.
    #[error("no connection{}: {why}", proxy.as_ref().map_or_else(String::new, |proxy| format!(" through the proxy {proxy}")))]
    Unreachable {
        /// Host and port of the proxy that it would be reached through.
        proxy: Option<String>,
        /// The system's words.
        why: String,
        /// Whether it looks like a wrong name, host or port rather than a passing failure.
        firm: bool,
    },
    /// A connection without a TLS session on it.
    #[error("no TLS session: {why}")]
    Tls {
        /// The TLS library's words.
        why: String,
    },
    /// A certificate file that the settings name cannot be used.
    #[error("the certificates of {}: {why}", path.display())]
    Ca {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The certificate that we would show cannot be used.
    #[error("the client certificate {} with the key {}: {why}", certificate.display(), key.display())]
    Client {
        /// The file of the certificate.
        certificate: PathBuf,
        /// The file of its key.
        key: PathBuf,
        /// What is wrong with them.
        why: String,
    },
    /// A file that says how registries are reached cannot be used.
    #[error("{0}")]
    File(BadFile),
    /// It may not be asked.
    #[error("`{prefix}` is blocked in {}", path.display())]
    Blocked {
        /// What is blocked: the beginning of the names.
        prefix: String,
        /// The file that says so.
        path: PathBuf,
    },
    /// The client could not be set up.
    #[error("the HTTP client could not be set up: {why}")]
    Setup {
        /// What is wrong.
        why: String,
    },
    /// Nothing came for too long.
    #[error("it sent nothing for {} s", after.as_secs_f64())]
    Stalled {
        /// How long was waited.
        after: Duration,
    },
    /// Bytes came, and so few that they would never have an end.
    #[error("it sent only {bytes} bytes in {} s", after.as_secs())]
    Slow {
        /// How many came.
        bytes: u64,
        /// In which time.
        after: Duration,
    },
    /// The connection ended in the middle.
    #[error("the connection broke: {why}")]
    Broken {
        /// The system's words.
        why: String,
    },
    /// 401, after the logins that there are were tried.
    #[error("{}{said}", if *.login { "it refused the login" } else { "it wants a login" })]
    Unauthorized {
        /// Whether a login was found and sent.
        login: bool,
        /// The server's words.
        said: Said,
    },
    /// 403.
    #[error("it denies access{said}")]
    Denied {
        /// Whether a login was found and sent.
        login: bool,
        /// The server's words.
        said: Said,
    },
    /// 404.
    #[error("not found{said}")]
    NotFound {
        /// The server's words.
        said: Said,
    },
    /// 429, until our patience ended.
    #[error("it limits requests{said}")]
    TooManyRequests {
        /// What `Retry-After` said.
        after: Option<Duration>,
        /// The server's words.
        said: Said,
    },
    /// Another status that is no success.
    #[error("it answered {status}{said}")]
    Status {
        /// The status.
        status: u16,
        /// What `Retry-After` said.
        after: Option<Duration>,
        /// The server's words.
        said: Said,
    },
    /// A 401 whose challenge we cannot answer.
    #[error("it wants a login in a way that is not supported: `{challenge}`")]
    Challenge {
        /// The `WWW-Authenticate` header.
        challenge: String,
    },
    /// A 401 that would have a login sent where it does not belong.
    #[error("it wants the login sent to `{realm}`, {why}")]
    Realm {
        /// The address.
        realm: String,
        /// Why that is not done.
        why: &'static str,
    },
    /// The token server did not give a token.
    #[error("its token server {server}: {fault}")]
    Token {
        /// The token server's host.
        server: String,
        /// What it did.
        fault: Box<Fault>,
    },
    /// The token server's answer holds no token.
    #[error("its token server {server} answered without a token: {why}")]
    NoToken {
        /// The token server's host.
        server: String,
        /// What is wrong with the answer.
        why: &'static str,
    },
    /// It wants a login, and ours could not be read.
    #[error("it wants a login: {0}")]
    Credentials(#[from] CredentialsError),
    /// A redirect that is not followed.
    #[error("it redirects to {to}, {why}")]
    Redirect {
        /// The target's host, or the `Location` header where it is no address.
        to: String,
        /// Why it is not followed.
        why: &'static str,
    },
    /// The bytes are not those that were asked for.
    #[error("its bytes have the digest {found}; asked for was {wanted}")]
    Digest {
        /// The digest that was asked for.
        wanted: Digest,
        /// The digest of what came.
        found: Digest,
    },
    /// Fewer or more bytes than the descriptor says.
    #[error("its {found} bytes are {}; the descriptor says {wanted}", if found < wanted { "too few" } else { "too many" })]
    Size {
        /// What the descriptor says.
        wanted: u64,
        /// What came, or was announced; where there were too many, what came until it was given up.
        found: u64,
    },
    /// A document that is larger than any honest one.
    #[error("the document is larger than {limit} bytes")]
    TooLarge {
        /// The limit.
        limit: u64,
    },
    /// A list without an end.
    #[error("its list goes on behind {limit} pages")]
    Pages {
        /// How many pages are read.
        limit: usize,
    },
    /// It sent another part of a blob than was asked for.
    #[error("asked to go on at byte {wanted}, it answered with `{answered}`")]
    Range {
        /// The first byte that was asked for.
        wanted: u64,
        /// Its `Content-Range`.
        answered: String,
    },
    /// An image in the format of before 2016.
    #[error("the image is in Docker's schema 1 format, which is not supported")]
    SchemaOne,
    /// A manifest of something that is no container image.
    #[error("it is no container image but `{}`", clean(media_type, 200))]
    NotAnImage {
        /// Media type of the document or of its config.
        media_type: String,
    },
    /// Header and document say different things about the document (CVE-2021-41190).
    #[error("the document is announced as `{announced}` and says it is `{}`", clean(document, 200))]
    MediaType {
        /// What the header or the descriptor says.
        announced: String,
        /// What the document says.
        document: String,
    },
    /// A document that could be read as an index and as a manifest (CVE-2021-41190).
    #[error("the document has both `manifests` and `layers`")]
    Ambiguous,
    /// A document that cannot be read.
    #[error("{0}")]
    Document(#[from] BadDocument),
    /// Manifest and config do not agree on how many layers there are.
    #[error("the manifest has {layers} layers, the config {diff_ids} diff ids")]
    Layers {
        /// Layers of the manifest.
        layers: usize,
        /// `rootfs.diff_ids` of the config.
        diff_ids: usize,
    },
    /// The image is not there for this platform.
    #[error("the image has no {wanted}; it has {}", list(.available))]
    Platform {
        /// What was wanted.
        wanted: Box<Platform>,
        /// What there is, in the index's order.
        available: Vec<Platform>,
    },
    /// Indexes in indexes.
    #[error("the index leads to a further index more than {limit} times")]
    Nesting {
        /// How deep we look.
        limit: u32,
    },
    /// What the bytes were written to failed.
    #[error("the bytes could not be written: {0}")]
    Sink(#[source] std::io::Error),
    /// Where the bytes are read from failed.
    #[error("the bytes to send could not be read: {why}")]
    Source {
        /// The system's words.
        why: String,
    },
}

fn list(platforms: &[Platform]) -> String {
    if platforms.is_empty() {
        return "none that is named".to_owned();
    }
    let shown = platforms.iter().take(SHOWN).map(Platform::to_string).collect::<Vec<_>>().join(", ");
    match platforms.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// How many platforms of an image a message names.
const SHOWN: usize = 16;

impl From<BadFile> for Fault {
    fn from(bad: BadFile) -> Fault {
        Fault::File(bad)
    }
}

impl Fault {
    /// A stable name of the kind of fault, the same in all versions.
    pub fn code(&self) -> &'static str {
        match self {
            Fault::Unreachable { .. } => "registry-unreachable",
            Fault::Tls { .. } => "registry-tls",
            Fault::Ca { .. } | Fault::Client { .. } | Fault::File(_) | Fault::Setup { .. } => {
                "registry-settings"
            }
            Fault::Blocked { .. } => "registry-blocked",
            Fault::Stalled { .. } | Fault::Slow { .. } => "registry-stalled",
            Fault::Broken { .. } => "registry-broken-connection",
            Fault::Unauthorized { .. } | Fault::Challenge { .. } | Fault::Realm { .. } => "registry-login",
            Fault::NoToken { .. } | Fault::Token { .. } => "registry-token",
            Fault::Denied { .. } => "registry-denied",
            Fault::Credentials(_) => "registry-credentials",
            Fault::NotFound { .. } => "image-not-found",
            Fault::TooManyRequests { .. } => "registry-rate-limit",
            Fault::Status { .. } | Fault::Redirect { .. } | Fault::Range { .. } => "registry-answer",
            Fault::Digest { .. } | Fault::Size { .. } => "registry-wrong-bytes",
            Fault::TooLarge { .. } | Fault::Nesting { .. } | Fault::Pages { .. } => "image-too-large",
            Fault::SchemaOne | Fault::NotAnImage { .. } => "image-format",
            Fault::MediaType { .. } | Fault::Ambiguous | Fault::Document(_) | Fault::Layers { .. } => {
                "image-invalid"
            }
            Fault::Platform { .. } => "image-platform",
            Fault::Sink(_) => "blob-write",
            Fault::Source { .. } => "blob-read",
        }
    }

    /// Whether the same request may succeed later.
    pub(crate) fn retry(&self) -> Retry {
        match self {
            Fault::Unreachable { firm: true, .. } => Retry::Briefly,
            Fault::Unreachable { firm: false, .. } | Fault::Broken { .. } => Retry::Later,
            Fault::Stalled { .. } | Fault::Slow { .. } => Retry::Later,
            Fault::TooManyRequests { after, .. } => after.map_or(Retry::Later, Retry::After),
            Fault::Status { status: 408 | 500 | 502..=504 | 506..=599, after, .. } => {
                after.map_or(Retry::Later, Retry::After)
            }
            Fault::Token { fault, .. } => fault.retry(),
            _ => Retry::Never,
        }
    }

    /// Whether the host was not even spoken to, as when plain HTTP meets TLS.
    pub(crate) fn is_unreachable(&self) -> bool {
        matches!(self, Fault::Unreachable { .. } | Fault::Tls { .. })
    }

    /// Whether a time limit was waited for in vain, or may have been.
    pub(crate) fn is_silence(&self) -> bool {
        match self {
            Fault::Token { fault, .. } => fault.is_silence(),
            Fault::Stalled { .. } => true,
            other => other.is_unreachable(),
        }
    }

    /// Whether the next question to the same host would be a waste: it is about the host and not about what was
    /// asked for.
    pub(crate) fn is_of_the_host(&self) -> bool {
        match self {
            Fault::Token { fault, .. } => fault.is_of_the_host(),
            Fault::Stalled { .. } | Fault::Slow { .. } | Fault::Digest { .. } => true,
            Fault::Ca { .. } | Fault::Client { .. } => true,
            Fault::TooManyRequests { .. } | Fault::Status { status: 500..=599, .. } => true,
            Fault::Redirect { .. } | Fault::Challenge { .. } | Fault::Realm { .. } => true,
            other => other.is_unreachable(),
        }
    }
}

impl Error {
    /// A stable name of the kind of error, the same in all versions.
    pub fn code(&self) -> &'static str {
        self.fault.code()
    }

    /// Whether the same question may be answered later: no connection, silence, a server in trouble or one that limits
    /// requests. Not a refusal, and not an answer that cannot be used.
    pub fn may_pass(&self) -> bool {
        self.fault.retry() != Retry::Never
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Asked { reference, what, address, tried, .. } = &*self.asked;
        match what {
            What::Image => write!(f, "cannot pull {reference} from {address}: {}", self.fault)?,
            What::Blob(digest) => {
                write!(f, "cannot pull {digest} of {reference} from {address}: {}", self.fault)?
            }
            What::PushedImage => write!(f, "cannot push {reference} to {address}: {}", self.fault)?,
            What::PushedBlob(digest) => {
                write!(f, "cannot push {digest} of {reference} to {address}: {}", self.fault)?
            }
            What::Login => write!(f, "cannot log in at {address}: {}", self.fault)?,
            What::Referrers => {
                write!(f, "cannot list what refers to {reference} at {address}: {}", self.fault)?
            }
            What::Tags => write!(f, "cannot list the tags of {reference} at {address}: {}", self.fault)?,
        }
        tried.iter().try_for_each(|tried| write!(f, "; before, {}: {}", tried.address, tried.fault))
    }
}

// The fault is told by `Display`, so it is not the source as well.
impl std::error::Error for Error {}

/// ` (CODE: message)`, or nothing.
impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.code.as_str(), self.message.as_str()) {
            ("", "") => Ok(()),
            ("", text) | (text, "") => write!(f, " ({text})"),
            (code, message) => write!(f, " ({code}: {message})"),
        }
    }
}
