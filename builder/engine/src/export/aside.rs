//! Files that are there whole or not at all.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufWriter, Write},
    os::{fd::AsRawFd, unix::fs::OpenOptionsExt},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, CWD, OFlags, linkat},
    io::Errno,
};

use crate::error::Cause;

/// Writes a file and gives it its name once all is written. What is not a file (a pipe, `/dev/null`) is written to as it is.
pub(crate) fn write(
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> Result<(), Cause>,
) -> Result<(), Cause> {
    // Of a link, what it leads to is replaced.
    let path = &fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let failed = |doing| Cause::io(doing, path);
    if path.metadata().is_ok_and(|found| !found.is_file()) {
        if path.is_dir() {
            return Err(failed("write")(io::ErrorKind::IsADirectory.into()));
        }
        let mut out = OpenOptions::new().write(true).open(path).map_err(failed("open"))?;
        return write(&mut out);
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(Cause::io("make the folder", folder))?;
    let aside = Aside::create(folder).map_err(failed("write"))?;
    let mut out = BufWriter::with_capacity(1 << 20, aside);
    write(&mut out)?;
    let aside = out.into_inner().map_err(|error| failed("write")(error.into_error()))?;
    aside.name(path).map_err(failed("rename"))
}

/// A file on its way.
enum Aside {
    /// It has no name yet: when the process is killed, the kernel takes it away.
    Nameless(File),
    /// The file system has no nameless files. Removed when dropped.
    Named(tempfile::NamedTempFile),
}

impl Aside {
    fn create(folder: &Path) -> io::Result<Aside> {
        let flags = OFlags::TMPFILE.bits() as i32;
        let nameless = OpenOptions::new().read(true).write(true).custom_flags(flags).mode(0o644).open(folder);
        match nameless {
            Ok(file) => Ok(Aside::Nameless(file)),
            Err(error) if unsupported(&error) => {
                let file = tempfile::Builder::new().prefix(".kiln-").tempfile_in(folder)?;
                // A temporary file is its owner's alone; an output is everybody's to read.
                file.as_file().set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
                Ok(Aside::Named(file))
            }
            Err(error) => Err(error),
        }
    }

    /// Gives the file its name, in place of what has it now.
    fn name(self, path: &Path) -> io::Result<()> {
        let file = match self {
            Aside::Named(file) => return file.persist(path).map(|_| ()).map_err(|error| error.error),
            Aside::Nameless(file) => file,
        };
        match link(&file, path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            linked => return linked,
        }
        // `rename` alone replaces a file, and needs a name to start from.
        let beside = beside(path);
        link(&file, &beside)?;
        fs::rename(&beside, path).inspect_err(|_| {
            // The error to tell is the first one.
            let _gone = fs::remove_file(&beside);
        })
    }
}

impl Write for Aside {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Aside::Nameless(file) => file.write(bytes),
            Aside::Named(file) => file.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn unsupported(error: &io::Error) -> bool {
    let code = Errno::from_io_error(error);
    matches!(code, Some(Errno::OPNOTSUPP | Errno::ISDIR | Errno::NOENT | Errno::INVAL))
}

fn link(file: &File, path: &Path) -> io::Result<()> {
    match linkat(file, "", CWD, path, AtFlags::EMPTY_PATH) {
        // Without the right to search everywhere, before Linux 6.10.
        Err(Errno::NOENT) => {
            let own = format!("/proc/self/fd/{}", file.as_raw_fd());
            Ok(linkat(CWD, own, CWD, path, AtFlags::SYMLINK_FOLLOW)?)
        }
        linked => Ok(linked?),
    }
}

fn beside(path: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".kiln-");
    name.push(std::process::id().to_string());
    name.push("-");
    name.push(path.file_name().unwrap_or_default());
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_a_failure_leaves_the_old_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("deep/out");
        for text in ["one", "two"] {
            write(&path, |out| out.write_all(text.as_bytes()).map_err(Cause::io("write", "out")))
                .expect("written");
            assert_eq!(fs::read_to_string(&path).expect("there"), text);
        }
        let failed = write(&path, |out| {
            out.write_all(b"half").map_err(Cause::io("write", "out"))?;
            Err(Cause::Cancelled)
        });
        assert!(failed.is_err());
        assert_eq!(fs::read_to_string(&path).expect("there"), "two");
        assert_eq!(fs::read_dir(path.parent().expect("a folder")).expect("readable").count(), 1);
    }
}
