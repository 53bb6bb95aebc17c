//! Files that are there whole or not at all.

use std::{
    fs::{self, File, Metadata, OpenOptions},
    io::{self, BufWriter, Write},
    os::{
        fd::AsRawFd,
        unix::fs::{MetadataExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use rustix::{
    fs::{AtFlags, CWD, OFlags, linkat},
    io::Errno,
    time::{ClockId, clock_gettime},
};
use store::{Growing, StatKey};

use crate::error::Cause;

const SECOND_NS: i64 = 1_000_000_000;

/// What is as long as this, in bytes, goes to the file without being copied once more: blobs come in larger pieces.
const DIRECT: usize = 64 << 10;

/// As many links as the kernel follows.
const MOST_LINKS: usize = 40;

/// The kernel's clock for files goes on at least this often, in milliseconds: a tick at 100 Hz, and some patience.
const LONGEST_TICK_MS: u32 = 30;

/// Writes a file and gives it its name once all is written. What is not a file (a pipe, `/dev/null`) is written to as it is.
///
/// Says by what the file is known as long as nobody else has written to it: a write that came after the file had its name
/// shows in `mtime_ns`, because the clock that the kernel stamps files with has gone on between the last write here and the
/// naming. None where that cannot be had.
pub(crate) fn write(
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> Result<(), Cause>,
) -> Result<Option<StatKey>, Cause> {
    let path = &led_to(path).map_err(Cause::io("write", path))?;
    let failed = |doing| Cause::io(doing, path);
    if path.metadata().is_ok_and(|found| !found.is_file()) {
        if path.is_dir() {
            return Err(failed("write")(io::ErrorKind::IsADirectory.into()));
        }
        let mut out = OpenOptions::new().write(true).open(path).map_err(failed("open"))?;
        return write(&mut out).map(|()| None);
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(Cause::io("make the folder", folder))?;
    let aside = Aside::create(folder).map_err(failed("write"))?;
    let growing = Growing::new(aside.file().try_clone().map_err(failed("write"))?, 0);
    let mut out = BufWriter::with_capacity(DIRECT, growing);
    write(&mut out)?;
    let mut growing = out.into_inner().map_err(|error| failed("write")(error.into_error()))?;
    growing.end().map_err(failed("write"))?;
    let own = settle(aside.file());
    aside.name(path).map_err(failed("rename"))?;
    Ok(own.and_then(|own| look(path).filter(|now| StatKey { ctime_ns: now.ctime_ns, ..own } == *now)))
}

/// What is written when a path is: of a link, what it leads to, which need not be there yet.
fn led_to(path: &Path) -> io::Result<PathBuf> {
    let mut path = path.to_owned();
    for _ in 0..MOST_LINKS {
        if let Ok(there) = fs::canonicalize(&path) {
            return Ok(there);
        }
        let Ok(target) = fs::read_link(&path) else { return Ok(path) };
        path = path.parent().unwrap_or(Path::new("")).join(target);
    }
    Err(Errno::LOOP.into())
}

/// What is known of a file without reading it; none of what is no file.
pub(crate) fn look(path: &Path) -> Option<StatKey> {
    path.metadata().ok().filter(|found| found.is_file()).map(|found| key(&found))
}

fn key(found: &Metadata) -> StatKey {
    let time = |seconds: i64, rest: i64| seconds.saturating_mul(SECOND_NS).saturating_add(rest);
    StatKey {
        device: found.dev(),
        inode: found.ino(),
        size: found.size(),
        mtime_ns: time(found.mtime(), found.mtime_nsec()),
        ctime_ns: time(found.ctime(), found.ctime_nsec()),
    }
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

    fn file(&self) -> &File {
        match self {
            Aside::Nameless(file) => file,
            Aside::Named(file) => file.as_file(),
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

/// What a file is known by, when the clock that the kernel stamps files with has gone on since the last write. None on
/// file systems that count whole seconds, and where the clock stands still.
fn settle(file: &File) -> Option<StatKey> {
    let own = key(&file.metadata().ok()?);
    let tries = if own.mtime_ns % SECOND_NS == 0 { 0 } else { LONGEST_TICK_MS };
    for _ in 0..tries {
        let now = clock_gettime(ClockId::RealtimeCoarse);
        if now.tv_sec.saturating_mul(SECOND_NS).saturating_add(now.tv_nsec) > own.mtime_ns {
            return Some(own);
        }
        thread::sleep(Duration::from_millis(1));
    }
    None
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
    fn who_writes_after_the_naming_leaves_a_later_time() {
        let folder = tempfile::tempdir().expect("a folder");
        for round in 0..20 {
            let path = folder.path().join(round.to_string());
            let own = write(&path, |out| out.write_all(b"ours").map_err(Cause::io("write", "out")));
            let Some(own) = own.expect("written") else { continue };
            assert_eq!(look(&path), Some(own));
            let mut file = OpenOptions::new().write(true).open(&path).expect("there");
            file.write_all(b"them").expect("written");
            let now = look(&path).expect("there");
            assert!(now.mtime_ns > own.mtime_ns && now.size == own.size, "{own:?} {now:?}");
        }
    }

    #[test]
    fn of_a_link_what_it_leads_to_is_written_there_or_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let (link, first) = (folder.path().join("link"), folder.path().join("first"));
        std::os::unix::fs::symlink("first", &link).expect("made");
        std::os::unix::fs::symlink("deep/out", &first).expect("made");
        for text in ["one", "two"] {
            write(&link, |out| out.write_all(text.as_bytes()).map_err(Cause::io("write", "out")))
                .expect("written");
            assert!(link.is_symlink() && first.is_symlink());
            assert_eq!(fs::read_to_string(folder.path().join("deep/out")).expect("there"), text);
        }
        let around = folder.path().join("around");
        std::os::unix::fs::symlink("around", &around).expect("made");
        assert!(write(&around, |_| Ok(())).is_err());
    }

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
