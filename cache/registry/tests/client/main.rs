//! Pulling over real sockets: from a server that does what a test says, and from Docker's registry where it
//! is installed.

mod blobs;
mod docker_registry;
mod list;
mod login;
mod process;
mod push;
mod push_breaks;
mod resolve;
mod support;
