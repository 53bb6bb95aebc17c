//! Pulling over real sockets: from a server that does what a test says, and from Docker's registry where it
//! is installed.

mod blobs;
mod copy;
mod docker_registry;
mod list;
mod login;
mod mirrors;
mod process;
mod push;
mod push_breaks;
mod referrers;
mod resolve;
mod support;
mod tag;
