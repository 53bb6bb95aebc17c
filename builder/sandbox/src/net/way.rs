//! The ways for steps to have networks of their own, and which of them this machine has.
//!
//! The kernel carries packets better than a program does, so NAT is tried first. It needs root, and a firewall that lets
//! forwarded packets through; `pasta` needs neither, but a device that not every user may open. Kiln's own stack needs what
//! everybody has who may make namespaces, and carries less: no pieces of packets, no headers of IPv6's besides the first. Whether a way is open is known when it has made a namespace: kernels
//! lack interfaces, programs do not start. That one is the first step's.

use std::ffi::OsStr;
use std::net::IpAddr;
use std::path::Path;

use super::namespace::Namespace;
use super::nat::Nat;
use super::pasta::Pasta;
use super::refusal::{Refusal, Unavailable};
use super::stack::Stacks;

/// A way for a step to have a network of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// The host forwards its packets and translates its address.
    Nat,
    /// The program `pasta` does with sockets of the host what its packets ask for.
    Pasta,
    /// Kiln itself does that.
    Stack,
}

/// What a step is told of its network, and whom it reaches by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Surroundings {
    /// The address at which it reaches the host.
    pub host: IpAddr,
    /// Whether it reaches the world by IPv6 as well.
    pub has_ipv6: bool,
    /// Where it may ask the name server that the host asks, even one on the host's loopback.
    pub name_server: Option<IpAddr>,
}

/// A way that is open.
#[derive(Debug)]
pub(crate) enum Open {
    Nat(Nat),
    Pasta(Pasta),
    Stack(Stacks),
}

impl Open {
    /// Finds a way, and makes the first namespace by it. To be called by a thread that is in the host's network namespace,
    /// and that lives as long as what is returned. The program is looked for in `programs`, which is a `PATH`.
    ///
    /// # Errors
    /// Why there is none.
    pub fn find(folder: &Path, programs: &OsStr) -> Result<(Open, Namespace), Unavailable> {
        let mut refusals = Vec::new();
        let ways = [Way::Nat, Way::Pasta, Way::Stack];
        for way in ways {
            let found = match way {
                Way::Nat => nat(folder),
                Way::Pasta => pasta(programs),
                Way::Stack => stack(),
            };
            match found {
                Ok(found) => return Ok(found),
                Err(refusal) => refusals.push((way, refusal)),
            }
        }
        Err(Unavailable::at_first(refusals))
    }

    /// Makes one more namespace.
    ///
    /// # Errors
    /// Why this way is not open any more.
    pub fn namespace(&mut self) -> Result<Namespace, Unavailable> {
        let (way, made) = match self {
            Open::Nat(nat) => (Way::Nat, nat.namespace()),
            Open::Pasta(pasta) => (Way::Pasta, pasta.namespace()),
            Open::Stack(stacks) => (Way::Stack, stacks.namespace()),
        };
        made.map_err(|refusal| Unavailable { refusals: vec![(way, refusal)], is_late: true })
    }

    /// What all steps are told.
    pub fn surroundings(&self) -> Surroundings {
        match self {
            Open::Nat(nat) => nat.surroundings(),
            Open::Pasta(pasta) => pasta.surroundings(),
            Open::Stack(stacks) => stacks.surroundings(),
        }
    }
}

fn nat(folder: &Path) -> Result<(Open, Namespace), Refusal> {
    let mut nat = Nat::set_up(folder)?;
    match nat.namespace() {
        Ok(first) => Ok((Open::Nat(nat), first)),
        Err(refusal) => {
            // It left this thread in a namespace that is of no use.
            nat.leave()?;
            Err(refusal)
        }
    }
}

fn pasta(programs: &OsStr) -> Result<(Open, Namespace), Refusal> {
    let mut pasta = Pasta::set_up(programs)?;
    let first = pasta.namespace()?;
    Ok((Open::Pasta(pasta), first))
}

fn stack() -> Result<(Open, Namespace), Refusal> {
    let mut stacks = Stacks::set_up()?;
    let first = stacks.namespace()?;
    Ok((Open::Stack(stacks), first))
}
