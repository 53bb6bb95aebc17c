//! Lets the host forward packets while a build needs it, and no longer.
//!
//! Forwarding is a switch of each interface for what comes in by it. Those that have it off get it switched on, and a rule
//! of the table ([`super::nft`]) keeps the host from becoming a router for others. The switch of the whole host,
//! `net.ipv4.ip_forward`, is left alone: if that is on at the end, somebody else wants to forward, and what was
//! switched on stays.
//!
//! Of all builds on a host, with whatever state folders, the last one switches off what the first one switched on. So a
//! file in `/run`, which is emptied at a restart as the switches are, names the interfaces. Who uses it holds a shared lock on
//! it, which the kernel releases however the process ends. What a build that was killed left switched on, the next
//! one switches off at its end.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::PREFIX;
use super::netlink::Socket;
use super::route::{Changes, LOOPBACK, Link, forwards_all, links};

/// Interfaces that forward as long as this is there.
#[derive(Debug)]
pub(crate) struct Forwarding {
    /// The file, locked shared, and its path; none where all interfaces forward without Kiln.
    held: Option<(File, PathBuf)>,
    /// Interfaces that forward for Kiln alone.
    pub guarded: Vec<String>,
}

impl Forwarding {
    /// Switches on what is off, in the network namespace of `socket`, whose inode is `host`.
    ///
    /// # Errors
    /// The folder cannot be written, or the kernel refuses.
    pub fn hold(socket: &Socket, host: u64, folder: &Path) -> io::Result<Forwarding> {
        let users = folder.join(format!("forwarding-{host}"));
        // Before and after: who switches one on writes the file before, and removes it when it is off again.
        let was_used = users.exists();
        if !was_used && off(socket)?.is_empty() && !users.exists() {
            return Ok(Forwarding { held: None, guarded: Vec::new() });
        }
        fs::create_dir_all(folder)?;
        let _alone = lock(&users)?;
        let mut file = open(&users)?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
            // Nobody else forwards. What is written there was left by one who was killed.
            switch_off(socket, &mut file)?;
        }
        flock(&file, FlockOperation::LockShared)?;
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        let mut guarded: Vec<String> = text.lines().map(str::to_owned).collect();
        let mut changes = Changes::default();
        for link in off(socket)? {
            writeln!(file, "{}", link.name)?;
            changes.forward(link.index, true);
            guarded.push(link.name);
        }
        make(&changes, socket)?;
        Ok(Forwarding { held: Some((file, users)), guarded })
    }

    /// Switches off what is to be off, if no other build needs it any more.
    pub fn release(&mut self, socket: &Socket) -> io::Result<()> {
        let Some((held, users)) = self.held.take() else { return Ok(()) };
        let _alone = lock(&users)?;
        drop(held);
        let mut file = open(&users)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {
                switch_off(socket, &mut file)?;
                // Whoever wants it next waits for the lock, and makes another.
                fs::remove_file(&users)
            }
            Err(_) => Ok(()),
        }
    }
}

/// The interfaces that do not forward, but for Kiln's and that which nothing is forwarded from.
fn off(socket: &Socket) -> Result<Vec<Link>, Errno> {
    let is_off = |link: &Link| !link.forwards && link.index != LOOPBACK && !link.name.starts_with(PREFIX);
    Ok(links(socket)?.into_iter().filter(is_off).collect())
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)
}

/// Of those who look at the file or write it, one at a time.
fn lock(users: &Path) -> io::Result<File> {
    let file = open(&users.with_extension("lock"))?;
    flock(&file, FlockOperation::LockExclusive)?;
    Ok(file)
}

/// Switches off the interfaces that a file names, and empties it.
fn switch_off(socket: &Socket, file: &mut File) -> io::Result<()> {
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    if text.is_empty() {
        return Ok(());
    }
    if !forwards_all(socket, false)? {
        let mut changes = Changes::default();
        let there: Vec<Link> = links(socket)?;
        for link in there.iter().filter(|link| text.lines().any(|name| name == link.name)) {
            changes.forward(link.index, false);
        }
        make(&changes, socket)?;
    }
    file.set_len(0)
}

/// Makes changes of interfaces, of which one may be gone meanwhile.
fn make(changes: &Changes, socket: &Socket) -> Result<(), Errno> {
    match changes.make(socket) {
        Err(Errno::NODEV) => Ok(()),
        other => other,
    }
}
