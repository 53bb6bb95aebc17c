//! Steps served by the program `pasta` (of the package `passt`): it reads their packets from a tunnel, and does with sockets
//! of the host what they ask for.
//!
//! It needs no rule on the host and no forwarding, and nobody's leave but that of the namespace's owner. So it serves where
//! NAT cannot: behind a firewall that drops what is forwarded, and where Kiln is not root.
//!
//! Each namespace has a `pasta` of its own, so that steps do not see each other. It is given the namespace as its standard
//! input, the only descriptor besides 1 and 2 that every version leaves open; a path below `/proc` would need the right to
//! look into Kiln. What it is run as is [`Program`]'s.

use std::ffi::{CString, OsStr};
use std::fs::{File, Metadata, OpenOptions};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::{Access, access, major, minor};
use rustix::io::Errno;
use rustix::thread::CapabilitySet;

use super::helper::{Helper, Identity};
use super::host::Host;
use super::namespace::{INSIDE, Namespace, failed};
use super::netlink::Socket;
use super::range::{BITS, Range};
use super::refusal::Refusal;
use super::route::routes;
use super::way::Surroundings;

const TUNNELS: &str = "/dev/net/tun";
const TUNNELS_NUMBER: (u32, u32) = (10, 200);

/// How long it may take until it is ready. It takes some ten milliseconds; a machine that is so busy that it takes seconds gets
/// its steps built all the same.
const DEADLINE: Duration = Duration::from_secs(5);
/// How often is looked whether it is ready.
const PAUSE: Duration = Duration::from_millis(2);

/// How long the way out for IPv6 may take when that for IPv4 is there. They are made one after the other.
const SECOND_HALF: Duration = Duration::from_millis(500);

/// An option that came in August 2024. Debian 12's is older: a connection through it stalls when one side has said all, and
/// packets that a step makes up reach the host's loopback.
const OF_A_NEW_ONE: &str = "--map-host-loopback";

/// The last byte of the one step's address.
const STEP: u8 = 2;

/// The program, and what it will be told. Made once for a build.
#[derive(Debug)]
pub(crate) struct Pasta {
    program: Program,
    range: Range,
    surroundings: Surroundings,
}

/// How far it is.
#[derive(Clone, Copy, Debug)]
enum Ready {
    Not,
    /// For IPv4.
    Half,
    Whole,
}

impl Pasta {
    /// Finds the program, and what it will need.
    ///
    /// # Errors
    /// What is missing.
    pub fn set_up(programs: &OsStr) -> Result<Pasta, Refusal> {
        let program = Program::find(programs)?;
        program.check_age()?;
        let host = Host::look()?;
        let own = host.own_address().ok_or(Refusal::NoRoute)?;
        let range = host.free_range()?;
        let surroundings = Surroundings {
            host: own.into(),
            has_ipv6: host.leads_everywhere(true),
            name_server: Some(range.gateway(false)),
        };
        Ok(Pasta { program, range, surroundings })
    }

    /// Makes one more namespace, and waits until it is served; this thread is in the host's.
    ///
    /// # Errors
    /// What failed.
    pub fn namespace(&mut self) -> Result<Namespace, Refusal> {
        if let Some(namespace) = self.served()? {
            return Ok(namespace);
        }
        // A way out for IPv6 that leads through a tunnel of the host's, for one, is none to it.
        self.surroundings.has_ipv6 = false;
        self.served()?.ok_or_else(|| self.program.refusal("it made no way out".to_owned()))
    }

    /// A namespace that is served, or none where it is for IPv4 alone and was to be for both.
    fn served(&self) -> Result<Option<Namespace>, Refusal> {
        let (namespace, inside) = Namespace::make_beside()?;
        let helper = self.program.start(&self.arguments(), &namespace.descriptor)?;
        let started = Instant::now();
        let mut half_ready = None;
        loop {
            match self.ready(&inside).map_err(failed("listing the routes"))? {
                Ready::Not => {}
                Ready::Half if half_ready.get_or_insert_with(Instant::now).elapsed() > SECOND_HALF => {
                    return Ok(None);
                }
                Ready::Half => {}
                Ready::Whole => break,
            }
            if helper.has_ended(PAUSE) {
                return Err(self.program.refusal(last_words(&helper.said())));
            }
            if started.elapsed() > DEADLINE {
                let seconds = DEADLINE.as_secs();
                return Err(self.program.refusal(format!("it was not ready after {seconds} seconds")));
            }
        }
        // The sockets that are there from now on are not of a step.
        drop(inside);
        Ok(Some(namespace.served_by(helper)))
    }

    /// What all steps are told.
    pub fn surroundings(&self) -> Surroundings {
        self.surroundings
    }

    /// Whether the way out is there: a route is the last thing that it makes, first that for IPv4.
    fn ready(&self, inside: &Socket) -> Result<Ready, Errno> {
        let routes = routes(inside)?;
        let is_there = |ipv6: bool| routes.iter().any(|route| route.leads_everywhere(ipv6));
        Ok(match (is_there(false), !self.surroundings.has_ipv6 || is_there(true)) {
            (true, true) => Ready::Whole,
            (true, false) => Ready::Half,
            (false, _) => Ready::Not,
        })
    }

    fn arguments(&self) -> Vec<String> {
        let mut words = Vec::new();
        let mut say = |option: &str, value: String| words.extend([option.to_owned(), value]);
        say("--ns-ifname", INSIDE.to_owned());
        // Ports of neither side are handed to the other.
        for ports in ["--tcp-ports", "--udp-ports", "--tcp-ns", "--udp-ns"] {
            say(ports, "none".to_owned());
        }
        // Not the host's own address, at which the step would reach only itself.
        for ipv6 in [false].into_iter().chain(self.surroundings.has_ipv6.then_some(true)) {
            say("--address", self.range.step(STEP, ipv6).address.to_string());
            say("--gateway", self.range.gateway(ipv6).to_string());
        }
        say("--netmask", BITS.to_string());
        say("--dns-forward", self.range.gateway(false).to_string());
        if !self.surroundings.has_ipv6 {
            words.push("--ipv4-only".to_owned());
        }
        words.push("--no-map-gw".to_owned());
        words
    }
}

/// The program and as whom it runs.
///
/// It enters the namespace and makes an interface there, which needs `CAP_SYS_ADMIN` and `CAP_NET_ADMIN` over the namespace.
/// Where Kiln is the machine's root, those are rights over the machine; it is nobody then, and has no others, gives
/// up all but the first when it is ready, has no file system in sight and a filter of system calls.
#[derive(Debug)]
struct Program {
    path: PathBuf,
    name: CString,
    identity: Identity,
}

impl Program {
    fn find(programs: &OsStr) -> Result<Program, Refusal> {
        let is_program =
            |path: &PathBuf| path.is_absolute() && path.is_file() && access(path, Access::EXEC_OK).is_ok();
        let mut places = std::env::split_paths(programs).map(|folder| folder.join("pasta"));
        let path = places.find(is_program).ok_or(Refusal::NotInstalled)?;
        let name = CString::new(path.as_os_str().as_bytes()).map_err(|_| Refusal::NotInstalled)?;
        let closed = |reason: String| Refusal::NoTunnels { path: TUNNELS, reason };
        // One who may not open it hangs, in some versions.
        let device = OpenOptions::new().read(true).write(true).open(TUNNELS);
        let device =
            device.and_then(|device| device.metadata()).map_err(|error| closed(error.to_string()))?;
        if !is_tunnels(&device) {
            return Err(closed("it is not the device for tunnels".to_owned()));
        }
        let everybody = 0o006;
        let rights = CapabilitySet::SYS_ADMIN | CapabilitySet::NET_ADMIN;
        let identity = match device.mode() & everybody == everybody && is_roots_namespace() {
            true => Identity::Nobody(rights),
            // It sets its ids to those that it has.
            false => Identity::Kept(rights | CapabilitySet::SETUID | CapabilitySet::SETGID),
        };
        Ok(Program { path, name, identity })
    }

    /// That it is not one of those that are worse than none. It is asked what it understands; versions have no order here.
    fn check_age(&self) -> Result<(), Refusal> {
        let null = File::open("/dev/null").map_err(|error| self.refusal(format!("/dev/null: {error}")))?;
        let help = Helper::start(&[self.name.clone(), c"--help".to_owned()], null.as_fd(), self.identity)?;
        if !help.has_ended(DEADLINE) {
            let seconds = DEADLINE.as_secs();
            return Err(self.refusal(format!("--help did not end within {seconds} seconds")));
        }
        let said = help.said();
        match (said.contains("--netns"), said.contains(OF_A_NEW_ONE)) {
            (true, true) => Ok(()),
            (true, false) => Err(self.refusal("it is older than August 2024, and would stall".to_owned())),
            (false, _) => Err(self.refusal(last_words(&said))),
        }
    }

    fn start(&self, arguments: &[String], namespace: &Arc<OwnedFd>) -> Result<Helper, Refusal> {
        // In the foreground it stays the process that was started. The namespace has no name that could be removed.
        let fixed = "--foreground --quiet --config-net --no-netns-quit --netns-only --netns /proc/self/fd/0";
        let as_root = if matches!(self.identity, Identity::Kept(_)) { "--runas 0" } else { "" };
        let words =
            fixed.split(' ').chain(as_root.split_whitespace()).chain(arguments.iter().map(String::as_str));
        let words = words.map(|word| CString::new(word).unwrap_or_default());
        let command: Vec<CString> = [self.name.clone()].into_iter().chain(words).collect();
        Ok(Helper::start(&command, namespace.as_fd(), self.identity)?)
    }

    fn refusal(&self, reason: String) -> Refusal {
        Refusal::Program { program: self.path.clone(), reason }
    }
}

fn is_tunnels(device: &Metadata) -> bool {
    let number = device.rdev();
    device.file_type().is_char_device() && (major(number), minor(number)) == TUNNELS_NUMBER
}

/// Whether this process's ids are the machine's.
fn is_roots_namespace() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    map.split_whitespace().eq(["0", "0", "4294967295"])
}

/// The last line of what a program said that is about its failure.
fn last_words(said: &str) -> String {
    // Of one that finds no system logger.
    let is_noise = |line: &&str| line.trim().is_empty() || line.starts_with("Failed to send ");
    let last = said.lines().rev().find(|line| !is_noise(line));
    last.map_or_else(|| "it ended without a word".to_owned(), |line| line.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_is_the_last_line_that_is_one() {
        for (said, expected) in [
            ("Failed to send 9 bytes to syslog\nNo route\n\nFailed to send 3 bytes to syslog\n", "No route"),
            ("one\n two \n", "two"),
            ("Failed to send 9 bytes to syslog\n", "it ended without a word"),
            ("", "it ended without a word"),
        ] {
            assert_eq!(last_words(said), expected, "{said:?}");
        }
    }

    #[test]
    fn a_program_that_is_nowhere_is_not_installed() {
        for path in ["", "/nonexistent:relative", "relative"] {
            assert_eq!(Program::find(OsStr::new(path)).err(), Some(Refusal::NotInstalled), "{path}");
        }
    }
}
