//! What the last builds did, for those who look at their steps afterwards: one small file for each of the last few builds
//! that differ in what was asked.
//!
//! A file is not flushed: after a power cut it may be half there, and whoever reads it knows what it must hold. It names
//! layers and keeps none of them from being collected.

use std::{fs, io, path::Path, time::SystemTime};

use oci::Digest;

use crate::{Error, Lease, Result, Store, lease::list, remove};

/// How many builds are told apart.
const BUILDS: usize = 16;

impl Store {
    /// Keeps what a build did in place of what the one of the same name did before.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn keep_built(&self, lease: &Lease, name: &Digest, bytes: &[u8]) -> Result<()> {
        let folder = self.layout().built();
        // A state folder of an earlier version has none.
        fs::create_dir_all(&folder).map_err(|e| Error::io("create", &folder, e))?;
        lease.write_whole(&folder.join(name.hex()), bytes)?;
        let mut names = list(&folder)?;
        if names.len() > BUILDS {
            let age = |name: &String| {
                let modified = fs::metadata(folder.join(name)).and_then(|found| found.modified());
                modified.unwrap_or(SystemTime::UNIX_EPOCH)
            };
            names.sort_by_cached_key(age);
            for old in &names[..names.len() - BUILDS] {
                let path = folder.join(old);
                remove::file(&path).map_err(|e| Error::io("remove", path, e))?;
            }
        }
        Ok(())
    }

    /// What the build of a name did, and whether it was the last that was kept; none where none was.
    ///
    /// # Errors
    /// The files cannot be read.
    pub fn built_as(&self, name: &Digest) -> Result<Option<(Vec<u8>, bool)>> {
        let folder = self.layout().built();
        let path = folder.join(name.hex());
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Error::io("read", path, e)),
        };
        let written = |path: &Path| fs::metadata(path).and_then(|found| found.modified()).ok();
        let own = written(&path);
        let is_newest = list(&folder)?.iter().all(|name| written(&folder.join(name)) <= own);
        Ok(Some((bytes, is_newest)))
    }

    /// What the last builds did, in no order.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn built(&self) -> Result<Vec<Vec<u8>>> {
        let folder = self.layout().built();
        let mut all = Vec::new();
        for name in list(&folder)? {
            let path = folder.join(name);
            match fs::read(&path) {
                Ok(bytes) => all.push(bytes),
                // Another build has removed it meanwhile.
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(Error::io("read", path, e)),
            }
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::{Clock, Options};

    #[test]
    fn the_last_builds_are_kept_and_no_more() {
        let folder = tempfile::tempdir().expect("a folder");
        let options = Options::new(folder.path().join("root"), Clock::new(|| UNIX_EPOCH));
        let store = Store::open(options).expect("opened");
        let lease = store.lease().expect("a lease");
        assert_eq!(store.built().expect("read"), Vec::<Vec<u8>>::new());
        for build in 0..20_u8 {
            store.keep_built(&lease, &Digest::of(&[build]), &[build]).expect("kept");
            // The kernel's clock goes on in steps of some milliseconds.
            std::thread::sleep(std::time::Duration::from_millis(12));
        }
        store.keep_built(&lease, &Digest::of(&[19]), b"again").expect("kept");
        let newest = |build: u8| store.built_as(&Digest::of(&[build])).expect("read");
        assert_eq!(newest(19), Some((b"again".to_vec(), true)));
        assert_eq!(newest(18), Some((vec![18], false)));
        assert_eq!(newest(0), None);
        let mut built = store.built().expect("read");
        built.sort();
        let mut expected: Vec<Vec<u8>> = (4..19).map(|build| vec![build]).collect();
        expected.push(b"again".to_vec());
        assert_eq!(built, expected);
    }
}
