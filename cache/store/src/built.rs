//! What the last builds did, for those who look at their steps afterwards: one small file for each of the last few builds
//! that differ in what was asked.
//!
//! A file is not flushed: after a power cut it may be half there, and whoever reads it knows what it must hold. It names
//! layers and keeps none of them from being collected. The folder is for this user alone: commands and contexts are in it.

use std::{
    fs,
    io::{self, Read},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::Path,
    time::SystemTime,
};

use oci::Digest;
use rustix::fs::OFlags;

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
        make_private(&folder).map_err(|e| Error::io("create", &folder, e))?;
        lease.write_whole(&folder.join(name.hex()), bytes)?;
        let mut names = list(&folder)?;
        if names.len() > BUILDS {
            let age = |name: &String| {
                let modified = fs::symlink_metadata(folder.join(name)).and_then(|found| found.modified());
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
        let Some(bytes) = read(&path).map_err(|e| Error::io("read", &path, e))? else { return Ok(None) };
        let written = |path: &Path| fs::symlink_metadata(path).and_then(|found| found.modified()).ok();
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
            // Where there is none, another build has removed it meanwhile.
            all.extend(read(&path).map_err(|e| Error::io("read", path, e))?);
        }
        Ok(all)
    }
}

/// Makes the folder, which a state folder of an earlier version lacks, or has for everybody to look into.
fn make_private(folder: &Path) -> io::Result<()> {
    match fs::DirBuilder::new().mode(0o700).create(folder) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
        other => return other,
    }
    let permissions = fs::metadata(folder)?.permissions();
    if permissions.mode() & 0o077 != 0 {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
    }
    Ok(())
}

/// The bytes of a file; none where there is none, or something else than a file: a pipe would be waited for.
fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = fs::OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path);
    let mut file = match file {
        Ok(file) => file,
        Err(_) if fs::symlink_metadata(path).is_ok_and(|found| !found.is_file()) => return Ok(None),
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    if !file.metadata()?.is_file() {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(Some(bytes))
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

    #[test]
    fn what_is_no_file_is_no_build_and_nobody_else_looks_in() {
        let folder = tempfile::tempdir().expect("a folder");
        let options = Options::new(folder.path().join("root"), Clock::new(|| UNIX_EPOCH));
        let store = Store::open(options).expect("opened");
        let lease = store.lease().expect("a lease");
        let built = store.layout().built();
        fs::create_dir_all(&built).expect("the state folder is there");
        fs::set_permissions(&built, fs::Permissions::from_mode(0o755)).expect("it is ours");
        let names = ["pipe", "link", "folder", "socket"].map(|name| Digest::of(name.as_bytes()));
        let at = |name: &Digest| built.join(name.hex());
        rustix::fs::mkfifoat(rustix::fs::CWD, at(&names[0]), rustix::fs::Mode::RUSR).expect("a pipe");
        std::os::unix::fs::symlink("/dev/zero", at(&names[1])).expect("a link");
        fs::create_dir(at(&names[2])).expect("a folder");
        std::os::unix::net::UnixListener::bind(at(&names[3])).expect("a socket");
        assert_eq!(store.built().expect("read"), Vec::<Vec<u8>>::new());
        for name in &names {
            assert_eq!(store.built_as(name).expect("read"), None);
        }
        store.keep_built(&lease, &names[0], b"told").expect("kept");
        assert_eq!(store.built_as(&names[0]).expect("read"), Some((b"told".to_vec(), true)));
        assert_eq!(fs::metadata(&built).expect("it is there").permissions().mode() & 0o777, 0o700);
    }
}
