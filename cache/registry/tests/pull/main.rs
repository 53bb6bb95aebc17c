//! Pulling over real sockets: from a server that does what a test says, and from Docker's registry where it
//! is installed.

mod blobs;
mod docker_registry;
mod login;
mod resolve;
mod support;
