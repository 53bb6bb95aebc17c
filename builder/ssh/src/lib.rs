//! An ssh agent in this process, and the part of an agent that a step may use.
//!
//! `--ssh id=KEY` names files with private keys. A step is given the socket of an agent, never the file, so somebody must
//! speak the agent's protocol: [`Keyring::answer`]. An agent of the user's is not handed on as it is either: a step may ask
//! which keys there are and have something signed, and may not add, remove or lock keys: [`is_harmless`].
//!
//! What would surprise a reader:
//!
//! - Nothing here opens a file or a socket: bytes of keys come in, bytes of messages go in and out.
//! - Keys are read by us and used by `aws-lc-rs`, which TLS stands on already. The usual crates for keys sign RSA with the
//!   crate `rsa`, whose timing gives keys away (RUSTSEC-2023-0071).
//! - SHA-1 signatures (`ssh-rsa` without a flag) are refused, as OpenSSH does since 8.8.
//!
//! Sources: draft-ietf-sshm-ssh-agent; OpenSSH's PROTOCOL.key; RFC 4253 section 6.6, RFC 5656, RFC 8332, RFC 8709.

mod container;
mod der;
mod key;
mod keyring;
mod messages;
mod rsa;
mod wire;

pub use key::{BadKey, Key};
pub use keyring::Keyring;
pub use messages::{FAILURE, is_harmless, read_message, write_message};
