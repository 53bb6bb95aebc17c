//! The key of this machine, under which contents are given names that say nothing anywhere else.

use std::{
    fmt, fs,
    io::{self, Read, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::Path,
};

use crate::{Error, Memos, Result, Store, layout::Layout, unique};

/// How many bytes it has.
const BYTES: usize = 32;

/// A random number that this state folder has and no other. It leaves the folder in no form: what is made with it cannot
/// be made, or guessed at, without the folder.
#[derive(Clone)]
pub struct SecretKey([u8; BYTES]);

impl SecretKey {
    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey")
    }
}

impl Store {
    /// The key of this state folder, made when it is first asked for. One that was cut short, or that others could read, is made anew.
    ///
    /// # Errors
    /// It cannot be read or written, or the kernel has no random numbers.
    pub fn secret_key(&self) -> Result<SecretKey> {
        let path = self.layout().secret_key();
        match read(self.layout())? {
            Some(key) => return Ok(key),
            None => make(&path, &self.layout().tmp().join(unique::token()))?,
        }
        // Of two processes that made one, both take the one that is there.
        read(self.layout())?.ok_or_else(|| {
            let why = "it was just made, and is cut short or not for this user alone";
            Error::io("read", path, io::Error::other(why))
        })
    }
}

impl Memos {
    /// The key of the state folder; none where none was made yet.
    pub fn secret_key(&self) -> Option<SecretKey> {
        read(self.layout()).ok().flatten()
    }
}

fn read(layout: &Layout) -> Result<Option<SecretKey>> {
    let path = layout.secret_key();
    match whole(&path) {
        Ok(key) => Ok(key.map(SecretKey)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::io("read", path, e)),
    }
}

/// The bytes of a key; none where it is cut short, or where others could have read or written it: whoever knows it can try
/// guesses.
fn whole(path: &Path) -> io::Result<Option<[u8; BYTES]>> {
    let mut file = fs::File::open(path)?;
    let found = file.metadata()?;
    let is_ours = found.uid() == rustix::process::geteuid().as_raw() && found.mode() & 0o077 == 0;
    if !found.is_file() || !is_ours || found.len() != BYTES as u64 {
        return Ok(None);
    }
    let mut key = [0_u8; BYTES];
    file.read_exact(&mut key)?;
    Ok(Some(key))
}

fn make(path: &Path, aside: &Path) -> Result<()> {
    let mut key = [0_u8; BYTES];
    getrandom::fill(&mut key).map_err(|e| Error::io("make a random number for", path, e.into()))?;
    let written = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(aside).and_then(
        |mut file: fs::File| {
            file.write_all(&key)?;
            // Once in the life of a state folder: after a power cut the old names are still to be had.
            file.sync_all()
        },
    );
    written.map_err(|e| Error::io("write", aside, e))?;
    // One that is whole stays; all else goes.
    let placed = match fs::hard_link(aside, path) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists && !is_whole(path) => fs::rename(aside, path),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    };
    let _gone_or_renamed = fs::remove_file(aside);
    placed.map_err(|e| Error::io("create", path, e))
}

fn is_whole(path: &Path) -> bool {
    whole(path).is_ok_and(|key| key.is_some())
}
