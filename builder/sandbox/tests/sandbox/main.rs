//! Steps that really run, as root, with a static busybox: what they see, and what they leave behind.
//!
//! A test that cannot run on the machine prints why and passes.

mod cgroups;
mod chroot;
mod isolation;
mod lifetime;
mod mounts;
mod owners;
mod process;
mod seccomp;
mod support;
mod terminal;
