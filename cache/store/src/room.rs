//! Room on the disk: what comes from elsewhere never takes the last of it.
//!
//! A registry may send more than there is room for, and a small blob may unpack to any length. A disk that is filled by
//! that fails everything else on the machine, so that writing ends while there is still something left.

use std::io::{self, Read};

use crate::{Error, Result, Store};

/// After how many bytes the disk is asked again, which takes a hundredth of the time that writing them does.
const BETWEEN: u64 = 1 << 20;

/// The part of a file system that is kept free at most: on a small one, what is right for a large one would be all of it.
const PART: u64 = 50;

/// One of so many inodes must be left.
const INODES: u64 = 500;

/// Counts what is written, and asks the disk now and then.
#[derive(Clone, Debug)]
pub(crate) struct Room {
    store: Store,
    since: u64,
}

impl Room {
    pub(crate) fn new(store: &Store) -> Room {
        // The first bytes ask.
        Room { store: store.clone(), since: BETWEEN }
    }

    /// So many bytes were written, or are about to be.
    pub(crate) fn take(&mut self, bytes: usize) -> io::Result<()> {
        self.since = self.since.saturating_add(bytes as u64);
        if self.since < BETWEEN {
            return Ok(());
        }
        self.since = 0;
        self.store.check_room().map_err(io::Error::other)
    }
}

/// A stream that is written to the state folder while it is read: it fails when the disk is nearly full.
#[derive(Debug)]
pub struct Watched<R> {
    reader: R,
    room: Room,
}

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(buffer)?;
        self.room.take(read)?;
        Ok(read)
    }
}

impl Store {
    /// Fails where less is left on the state folder's file system than is to be kept free: what
    /// [`Options::keep_free_bytes`](crate::Options::keep_free_bytes) says, and a fiftieth of the file system at most.
    ///
    /// # Errors
    /// [`Error::NearlyFull`]. A file system that does not tell is taken for one with room.
    pub fn check_room(&self) -> Result<()> {
        let Ok(found) = rustix::fs::statvfs(self.root()) else { return Ok(()) };
        let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
        let (free_bytes, wanted) = (bytes(found.f_bavail), self.keep_free_bytes());
        let keep_bytes = kept_free(bytes(found.f_blocks), wanted);
        let few_inodes = wanted > 0 && found.f_favail < found.f_files / INODES;
        match free_bytes < keep_bytes || few_inodes {
            true => Err(Error::NearlyFull { root: self.root().to_owned(), free_bytes, keep_bytes }),
            false => Ok(()),
        }
    }

    /// A stream that is written to the state folder while it is read, which fails as [`Store::check_room`] does.
    pub fn watched<R: Read>(&self, reader: R) -> Watched<R> {
        Watched { reader, room: Room::new(self) }
    }
}

/// How much of a file system of `total` bytes is left alone.
fn kept_free(total: u64, wanted: u64) -> u64 {
    wanted.min(total / PART)
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::{Clock, Options};

    #[test]
    fn a_small_disk_keeps_a_part() {
        let (mib, gib) = (1 << 20, 1 << 30);
        for (total, wanted, kept) in [
            (500 * gib, gib, gib),
            (10 * gib, gib, 10 * gib / 50),
            (50 * mib, gib, mib),
            (gib, 0, 0),
            (0, gib, 0),
        ] {
            assert_eq!(kept_free(total, wanted), kept, "{wanted} of {total}");
        }
    }

    #[test]
    fn a_stream_ends_where_the_disk_does() {
        let folder = tempfile::tempdir().expect("a folder");
        let options = Options::new(folder.path().join("root"), Clock::new(|| UNIX_EPOCH));
        let store = Store::open(options).expect("opened");
        let mut taken = Vec::new();
        store.watched(&b"bytes"[..]).read_to_end(&mut taken).expect("nothing is kept free");
        assert_eq!(taken, b"bytes");
        let mut room = Room::new(&store);
        assert_eq!(room.since, BETWEEN, "the first bytes ask");
        room.take(1).expect("there is room");
        room.take(BETWEEN as usize - 1).expect("not asked");
        assert_eq!(room.since, BETWEEN - 1);
        room.take(1).expect("asked");
        assert_eq!(room.since, 0);
    }
}
