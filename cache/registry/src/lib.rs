//! A store far away: images in a registry, by the OCI distribution specification v1.1.
//!
//! A [`Client`] answers two questions. [`Client::resolve`]: which manifest and which config does this name mean
//! on this platform? [`Client::blob`]: what are the bytes of this descriptor? Both answers are checked against
//! their digest and size, whoever gave them, so that a mirror need not be trusted more than a wire.
//!
//! What would surprise a reader:
//!
//! - **Nothing is asked in advance.** There is no ping of `/v2/`; a 401 says how to log in, and only then are
//!   credentials read (a credential helper is a process).
//! - **The environment comes in as values.** `SSL_CERT_FILE`, the proxies and the folders of `PATH` stand in
//!   [`Settings`] and [`DockerConfig`]; this crate reads none of them itself. It does read `/etc/hosts`,
//!   `/etc/resolv.conf` and the system's certificates, all on the first request that needs them.
//! - **No root certificates are built in.** A list that is compiled in ages with the program; the system's
//!   is kept
//!   up to date by the system. Without one, TLS fails with a help text that names the setting.
//! - **Plain HTTP** is spoken only to loopback hosts, to a mirror written with `http://`, and to a registry
//!   whose
//!   settings say `insecure = true`.
//! - **Waits are deterministic**: 250 ms, doubled for each further try, or what `Retry-After` says.
//!
//! | Question | File |
//! |---|---|
//! | which hosts are asked, in which order, over what | `settings.rs`, `config/`, `route.rs` |
//! | what a person is told of that stops nothing | `notice.rs` |
//! | how a connection is made: names, proxies, certificates | `transport.rs`, `names.rs`, `roots.rs` |
//! | who we are | `credentials.rs`, `login_files.rs`, `docker_config.rs`, `challenge.rs`, `token.rs` |
//! | one request with its login and redirects | `wire.rs`, `session.rs` |
//! | when is a failure tried again | `retry.rs`, `route.rs` |
//! | what a manifest's bytes are | `document.rs`, `resolve.rs` |
//! | how a blob's bytes come | `blob.rs` |
//! | how a file that is no image's comes | `web.rs` |
//! | how they go, and manifests after them | `push/` |
//! | what a repository has, and what refers to it | `list.rs`, `referrers.rs` |
//! | how they go from one registry to another | `copy.rs` |

mod blob;
mod challenge;
mod client;
mod config;
mod copy;
mod credentials;
mod docker_config;
mod document;
mod error;
mod list;
mod login;
mod login_files;
mod names;
mod notice;
mod proxy;
mod push;
mod referrers;
mod resolve;
mod retry;
mod roots;
mod route;
mod session;
mod settings;
mod token;
mod transfer;
mod transport;
mod web;
mod wire;

pub use blob::Blob;
pub use client::Client;
pub use config::{BadFile, Problem};
pub use copy::{RemoteContent, Whom};
pub use credentials::{Anonymous, Credentials, CredentialsError, Login, Secret};
pub use docker_config::{DockerConfig, Edited};
pub use document::{Document, Parsed, is_image};
pub use error::{Asked, Error, Fault, Said, Tried, What};
pub use login_files::LoginFiles;
pub use notice::Notice;
pub use push::{Content, FileContent, Pieces, PushOptions, Pushed, Sessions};
pub use referrers::referrers_tag;
pub use resolve::{Held, Resolved, ResolvedIndex};
pub use settings::{
    BadMirror, ClientCertificate, Files, Limits, Mirror, Proxies, RegistrySettings, Roots, Scheme, Settings,
    SettingsError,
};
pub use transfer::BadTransfer;
pub use transport::deepest;
pub use web::{WebAnswer, WebRequest};
