//! Digests of a context's files by their inodes, so that a file is read again only when it has changed.
//!
//! One flat file for each context, read once and searched in place: 40,000 entries take a few milliseconds.
//! An entry is 40 bytes of key and 32 of digest, sorted by device and inode, numbers big-endian.
//!
//! The kernel stamps a change with a clock that stands still for up to a few milliseconds. A file that was changed
//! twice within one such grain, and read in between, would look unchanged. So a file is remembered only if its last change
//! is older, by more than a grain, than the moment this cache was loaded, which is before any of the files was read.

use std::{
    fmt, fs,
    hash::{BuildHasher, RandomState},
    io,
    path::PathBuf,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use oci::Digest;

use crate::{Error, Lease, Result, Store};

/// How long the kernel's clock for file times may stand still: a tick at 100 Hz.
const GRAIN_NS: i64 = 10_000_000;
/// The same on file systems that count whole seconds, or two of them (FAT).
const COARSE_GRAIN_NS: i64 = 2_000_000_000;
const SECOND_NS: i64 = 1_000_000_000;

const MAGIC: &[u8; 8] = b"KILNSTA1";
const KEY: usize = 40;
const ENTRY: usize = KEY + 32;
/// Device and inode, by which entries are sorted.
const INODE: usize = 16;

/// What `stat(2)` says of a file, as far as it changes whenever the file's bytes do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StatKey {
    /// Device of the file system.
    pub device: u64,
    /// Inode number.
    pub inode: u64,
    /// Length in bytes.
    pub size: u64,
    /// Last modification in nanoseconds since 1970.
    pub mtime_ns: i64,
    /// Last change of the inode in nanoseconds since 1970; no program can set it.
    pub ctime_ns: i64,
}

impl StatKey {
    fn bytes(&self) -> [u8; KEY] {
        let numbers = [
            self.device,
            self.inode,
            self.size,
            self.mtime_ns.cast_unsigned(),
            self.ctime_ns.cast_unsigned(),
        ];
        let mut bytes = [0; KEY];
        for (place, number) in bytes.chunks_exact_mut(8).zip(numbers) {
            place.copy_from_slice(&number.to_be_bytes());
        }
        bytes
    }

    /// Whether a file that was read after `loaded_ns` and had this key may since have changed and still have it.
    fn is_racy(&self, loaded_ns: i64) -> bool {
        let coarse = self.ctime_ns % SECOND_NS == 0 && self.mtime_ns % SECOND_NS == 0;
        let grain = if coarse { COARSE_GRAIN_NS } else { GRAIN_NS };
        self.ctime_ns >= loaded_ns.saturating_sub(grain)
    }
}

/// The remembered digests of one context.
pub struct HashCache {
    path: PathBuf,
    boot: String,
    loaded_ns: i64,
    /// Entries as they are in the file.
    old: Vec<u8>,
    /// One bit for each old entry: whether it was asked for.
    used: Vec<AtomicU64>,
    /// In the form of the file, in no order.
    new: Mutex<Vec<[u8; ENTRY]>>,
}

impl fmt::Debug for HashCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HashCache").field("path", &self.path).field("entries", &self.entries()).finish()
    }
}

impl Store {
    /// Loads what is remembered of a context, named by any text, such as its path. A damaged file counts as empty.
    ///
    /// # Errors
    /// The file is there and cannot be read.
    pub fn hash_cache(&self, context: &[u8]) -> Result<HashCache> {
        let path = self.layout().stats().join(Digest::of(context).hex());
        let loaded_ns = self.clock().nanoseconds();
        let boot = self.boot().as_str().to_owned();
        let file = match fs::read(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
            file => file.map_err(|e| Error::io("read", &path, e))?,
        };
        let old = entries(file, &boot).unwrap_or_default();
        let used = (0..(old.len() / ENTRY).div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        Ok(HashCache { path, boot, loaded_ns, old, used, new: Mutex::default() })
    }
}

/// The entries of a file: behind the magic, the name of the boot that wrote it with its length, and the digest of the rest.
fn entries(mut file: Vec<u8>, boot: &str) -> Option<Vec<u8>> {
    let rest = file.strip_prefix(MAGIC)?;
    let (length, rest) = rest.split_first()?;
    let (written_in, rest) = rest.split_at_checked(usize::from(*length))?;
    let (digest, entries) = rest.split_at_checked(32)?;
    if entries.len() % ENTRY != 0 {
        return None;
    }
    // In the boot that wrote it the file is what was written; only a power cut can have left half of it.
    if written_in != boot.as_bytes() && Digest::of(entries).raw() != digest {
        return None;
    }
    let start = file.len() - entries.len();
    file.drain(..start);
    Some(file)
}

impl HashCache {
    /// The digest of a file's bytes, if a file with this key was read by an earlier build.
    pub fn get(&self, key: &StatKey) -> Option<Digest> {
        let wanted = key.bytes();
        let index = self.find(&wanted)?;
        let entry = self.entry(index);
        if entry[..KEY] != wanted {
            return None;
        }
        self.used[index / 64].fetch_or(1 << (index % 64), Ordering::Relaxed);
        let raw: [u8; 32] = entry[KEY..].try_into().expect("an entry is a key and 32 bytes");
        Some(Digest::from_raw(raw))
    }

    /// Remembers the digest of a file that was read while it had this key, unless it was changed so lately that it could have
    /// been changed again unseen.
    pub fn put(&self, key: StatKey, digest: Digest) {
        if !key.is_racy(self.loaded_ns) {
            let mut entry = [0; ENTRY];
            entry[..KEY].copy_from_slice(&key.bytes());
            entry[KEY..].copy_from_slice(digest.raw());
            self.new.lock().unwrap_or_else(PoisonError::into_inner).push(entry);
        }
    }

    /// Writes what is new, if there is a lease to do it in, together with what was asked for; what was not asked for stays up
    /// to as many entries again. Writes nothing when nothing is new. Of what is remembered then, what tells a file that did not
    /// change.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn into_known(self, lease: Option<&Lease>) -> Result<KnownFiles> {
        let merged = lease.map(|lease| self.save(lease)).transpose()?.flatten();
        let (file, start) = merged.unwrap_or((self.old, 0));
        Ok(KnownFiles::of(&file[start..]))
    }

    /// Writes what is new, and gives the file that was written, with where its entries begin.
    fn save(&self, lease: &Lease) -> Result<Option<(Vec<u8>, usize)>> {
        let mut new = self.new.lock().unwrap_or_else(PoisonError::into_inner);
        if new.is_empty() {
            return Ok(None);
        }
        new.sort_unstable();
        new.dedup_by(|a, b| a[..INODE] == b[..INODE]);
        let boot = &self.boot.as_bytes()[..self.boot.len().min(255)];
        let length = [u8::try_from(boot.len()).expect("cut to 255 bytes")];
        let head = [&MAGIC[..], &length, boot].concat();
        // One buffer: of a million files it is large enough.
        let mut file = [&head[..], &[0; 32]].concat();
        self.merge(&new, &mut file);
        *new = Vec::new();
        let (digest, entries) = file[head.len()..].split_at_mut(32);
        digest.copy_from_slice(Digest::of(entries).raw());
        lease.write_whole(&self.path, &file)?;
        Ok(Some((file, head.len() + 32)))
    }

    /// Appends the new entries and the old ones that stay, in order; of one device and inode the new one.
    fn merge(&self, new: &[[u8; ENTRY]], merged: &mut Vec<u8>) {
        let is_used = |index: usize| self.used[index / 64].load(Ordering::Relaxed) >> (index % 64) & 1 == 1;
        let used = (0..self.entries()).filter(|index| is_used(*index)).count();
        let mut spare = (used + new.len()).max(10_000);
        merged.reserve_exact(ENTRY * (new.len() + used + spare.min(self.entries() - used)));
        let mut new = new.iter().peekable();
        for index in 0..self.entries() {
            let old = self.entry(index);
            while let Some(before) = new.next_if(|entry| entry[..INODE] < old[..INODE]) {
                merged.extend_from_slice(before);
            }
            let replaced = new.peek().is_some_and(|entry| entry[..INODE] == old[..INODE]);
            let stays = is_used(index) || spare > 0;
            spare -= usize::from(!is_used(index) && spare > 0);
            if stays && !replaced {
                merged.extend_from_slice(old);
            }
        }
        new.for_each(|entry| merged.extend_from_slice(entry));
    }

    fn entries(&self) -> usize {
        self.old.len() / ENTRY
    }

    fn entry(&self, index: usize) -> &[u8] {
        &self.old[index * ENTRY..][..ENTRY]
    }

    /// The place of the entry that has this device and inode.
    fn find(&self, key: &[u8; KEY]) -> Option<usize> {
        // As one number, in the order of its bytes: for each of many files a dozen of entries are looked at.
        let inode = |entry: &[u8]| entry.first_chunk().map_or(0, |inode| u128::from_be_bytes(*inode));
        let wanted = inode(key);
        let (mut low, mut high) = (0, self.entries());
        while low < high {
            let middle = low + (high - low) / 2;
            match inode(self.entry(middle)).cmp(&wanted) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
                std::cmp::Ordering::Equal => return Some(middle),
            }
        }
        None
    }
}

/// The files of a context whose digests are known, so that one that has not changed since is told: a fifth of what it takes to
/// know the digests.
#[derive(Debug)]
pub struct KnownFiles {
    /// Nobody who has files made knows what a mark of this process will be, so nobody can make two with the same one.
    marking: RandomState,
    /// Inodes, sorted, each with the mark of its key and its digest.
    marks: Vec<(u64, u64)>,
}

impl KnownFiles {
    fn of(entries: &[u8]) -> KnownFiles {
        let marking = RandomState::new();
        let mark = |entry: &[u8]| {
            let inode = entry[8..INODE].first_chunk().map_or(0, |inode| u64::from_be_bytes(*inode));
            (inode, marking.hash_one(entry))
        };
        let mut marks: Vec<(u64, u64)> = entries.chunks_exact(ENTRY).map(mark).collect();
        // They are, where all are on one device.
        marks.sort_unstable();
        KnownFiles { marking, marks }
    }

    /// Whether a file with this key is known to have this digest.
    pub fn is(&self, key: &StatKey, digest: &Digest) -> bool {
        let mut entry = [0; ENTRY];
        entry[..KEY].copy_from_slice(&key.bytes());
        entry[KEY..].copy_from_slice(digest.raw());
        self.marks.binary_search(&(key.inode, self.marking.hash_one(&entry[..]))).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_changed_within_the_clocks_grain_is_racy() {
        let loaded = 5_000 * SECOND_NS + 7;
        let key = |ctime_ns| StatKey { device: 1, inode: 2, size: 3, mtime_ns: 4, ctime_ns };
        for (ctime_ns, racy) in [
            (loaded - 3 * SECOND_NS, false),
            (loaded - GRAIN_NS - 1, false),
            (loaded - GRAIN_NS, true),
            (loaded, true),
            (loaded + SECOND_NS, true),
        ] {
            assert_eq!(key(ctime_ns).is_racy(loaded), racy, "{ctime_ns}");
        }
        let coarse = StatKey { mtime_ns: 0, ctime_ns: 4_999 * SECOND_NS, ..key(0) };
        assert!(coarse.is_racy(loaded), "whole seconds: the grain is two of them");
    }

    #[test]
    fn a_damaged_file_counts_as_empty() {
        let digest = Digest::of(b"");
        let good = |boot: &str, entries: &[u8], digest: &Digest| {
            [&MAGIC[..], &[u8::try_from(boot.len()).expect("short")], boot.as_bytes(), digest.raw(), entries]
                .concat()
        };
        let one = [7; ENTRY];
        assert_eq!(entries(good("a", &one, &Digest::of(&one)), "b"), Some(one.to_vec()));
        assert_eq!(entries(good("a", &one, &digest), "b"), None, "another boot's, and not what was written");
        assert_eq!(entries(good("a", &one[1..], &digest), "a"), None, "no whole entry");
        for cut in 0..40 {
            assert_eq!(entries(good("a", b"", &digest)[..cut].to_vec(), "a"), None, "{cut}");
        }
    }
}
