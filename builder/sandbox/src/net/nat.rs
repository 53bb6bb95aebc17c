//! Steps behind the host's address: namespaces whose traffic the host forwards and translates.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::fstat;
use rustix::io::Errno;
use rustix::net::netlink::NETFILTER;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::PREFIX;
use super::firewall;
use super::forwarding::Forwarding;
use super::host::Host;
use super::namespace::{Failed, Namespace, Uplink, failed};
use super::netlink::Socket;
use super::nft::{self, Table};
use super::range::Range;
use super::refusal::Refusal;
use super::route::{Changes, Link, Route, forwards_all};
use super::way::Surroundings;

/// The host's side, made once for a build. Dropped, it is as if it had never been.
#[derive(Debug)]
pub(crate) struct Nat {
    host: Host,
    /// The host's namespace.
    home: OwnedFd,
    /// In the names of the host's ends, so that they differ from those of other builds.
    tag: String,
    range: Range,
    mtu: u32,
    ipv6: bool,
    /// The last byte of the address that was given last.
    last: u8,
    forwarding: Forwarding,
    _table: Table,
}

impl Nat {
    /// Sets the host up. To be called by a thread that is in the host's network namespace.
    ///
    /// # Errors
    /// Why it cannot be done, or would be of no use.
    pub fn set_up(folder: &Path) -> Result<Nat, Refusal> {
        let host = Host::look()?;
        let home = host.namespace()?;
        remove_left(&host.socket, &host.links).map_err(failed("asking nf_tables"))?;
        if let Some(obstacle) = firewall::obstacle(false).map_err(failed("asking nf_tables"))? {
            return Err(obstacle);
        }
        let pid = std::process::id();
        let range = host.free_range()?;
        let ipv6 = host.leads_everywhere(true)
            && forwards_all(&host.socket, true).map_err(failed("asking for the IPv6 settings"))?
            && firewall::obstacle(true).map_err(failed("asking nf_tables"))?.is_none();
        // Another container's process may have this number, and the host's interfaces too.
        let is_used =
            |tag: &String| host.links.iter().any(|link| link.name.starts_with(&format!("{PREFIX}{tag}-")));
        let tags = (0..0x100_u32).map(|more| format!("{:x}", pid.wrapping_add(more << 24)));
        let tag = tags.into_iter().find(|tag| !is_used(tag)).ok_or(Refusal::NoAddresses)?;
        let inode = fstat(&home).map_err(failed("fstat"))?.st_ino;
        let mut forwarding = Forwarding::hold(&host.socket, inode, folder).map_err(|source| {
            Refusal::Forwarding { folder: folder.to_owned(), reason: source.to_string() }
        })?;
        match Table::make(&tag, range, ipv6, &forwarding.guarded) {
            Ok(table) => {
                let mtu = mtu(&host.routes, &host.links);
                Ok(Nat { host, home, tag, range, mtu, ipv6, last: 0, forwarding, _table: table })
            }
            Err(errno) => {
                // The next build puts back what cannot be put back now.
                let _released = forwarding.release(&host.socket);
                Err(failed("making a table of nf_tables")(errno).into())
            }
        }
    }

    /// Makes one more namespace; this thread is in it then.
    pub fn namespace(&mut self) -> Result<Namespace, Refusal> {
        let mut found: Failed = failed("finding a free address")(Errno::ADDRINUSE);
        for _ in Range::STEPS {
            self.last = if Range::STEPS.contains(&(self.last.wrapping_add(1))) { self.last + 1 } else { 2 };
            let (namespace, inside) = Namespace::enter_new()?;
            let (range, mtu, ipv6) = (self.range, self.mtu, self.ipv6);
            let uplink = Uplink { socket: &self.host.socket, host: self.home.as_fd(), range, mtu, ipv6 };
            match uplink.connect(&inside, &format!("{PREFIX}{}-{}", self.tag, self.last), self.last) {
                Ok(()) => return Ok(namespace),
                // The one that had this address is not quite gone.
                Err(error) if error.errno == Errno::EXIST => found = error,
                Err(error) => return Err(error.into()),
            }
        }
        Err(found.into())
    }

    /// Moves this thread back into the host's namespace.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn leave(&self) -> Result<(), Failed> {
        let to = Some(LinkNameSpaceType::Network);
        move_into_link_name_space(self.home.as_fd(), to).map_err(failed("setns(CLONE_NEWNET)"))
    }

    /// What all steps are told.
    pub fn surroundings(&self) -> Surroundings {
        Surroundings { host: self.range.gateway(false), has_ipv6: self.ipv6, name_server: None }
    }
}

impl Drop for Nat {
    fn drop(&mut self) {
        // The next build puts back what cannot be put back now.
        let _released = self.forwarding.release(&self.host.socket);
    }
}

/// The least that the interfaces on the way out can take: then no packet has to be sent twice.
fn mtu(routes: &[Route], links: &[Link]) -> u32 {
    let out = routes
        .iter()
        .filter(|route| [false, true].into_iter().any(|ipv6| route.leads_everywhere(ipv6)))
        .filter_map(|route| route.by);
    let mtus = out.filter_map(|index| links.iter().find(|link| link.index == index)).map(|link| link.mtu);
    mtus.filter(|mtu| (1280..=1500).contains(mtu)).min().unwrap_or(1500)
}

/// Removes what builds left that were killed: tables without an interface, on a kernel without owners, and interfaces
/// without a table, whose namespace the kernel keeps while a connection of theirs waits for its end.
fn remove_left(rtnetlink: &Socket, links: &[Link]) -> Result<(), Errno> {
    let tables = nft::tables(&Socket::open(Some(NETFILTER))?)?;
    for table in &tables {
        let tag = table.trim_start_matches(PREFIX).trim_start_matches('-');
        if !links.iter().any(|link| tag_of(&link.name) == Some(tag)) {
            // One that has an owner refuses: its build is about to make its first interface.
            let _removed = nft::remove(&Socket::open(Some(NETFILTER))?, table);
        }
    }
    for link in links {
        let Some(tag) = tag_of(&link.name) else { continue };
        if !tables.contains(&format!("{PREFIX}-{tag}")) {
            match Changes::default().remove(link.index).make(rtnetlink) {
                Err(Errno::NODEV) => {}
                other => other?,
            }
        }
    }
    Ok(())
}

/// The tag in the name of one of Kiln's interfaces.
fn tag_of(link: &str) -> Option<&str> {
    let (tag, number) = link.strip_prefix(PREFIX)?.split_once('-')?;
    (u32::from_str_radix(tag, 16).is_ok() && number.parse::<u8>().is_ok()).then_some(tag)
}

#[cfg(test)]
mod tests {
    use super::super::range::Prefix;
    use super::*;

    #[test]
    fn names_of_interfaces_are_known() {
        for (name, tag) in [
            ("kiln1a2f-2", Some("1a2f")),
            ("kiln9-254", Some("9")),
            ("kiln-2", None),
            ("kilnoven-2", None),
            ("kiln1a2f", None),
            ("eth0", None),
        ] {
            assert_eq!(tag_of(name), tag, "{name}");
        }
    }

    #[test]
    fn the_way_out_decides_how_large_packets_are() {
        let link = |index, mtu| Link { index, name: format!("eth{index}"), mtu, forwards: true };
        let links = [link(2, 1400), link(3, 9000), link(4, 1300)];
        let to = |address: &str, bits, by| Route {
            to: Prefix { address: address.parse().expect("an address"), bits },
            by: Some(by),
            is_local: false,
        };
        for (routes, expected) in [
            (vec![to("0.0.0.0", 0, 2), to("10.0.0.0", 8, 4)], 1400),
            (vec![to("0.0.0.0", 0, 3)], 1500),
            (vec![], 1500),
        ] {
            assert_eq!(mtu(&routes, &links), expected, "{routes:?}");
        }
    }
}
