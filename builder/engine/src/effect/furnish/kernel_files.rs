//! `/dev` and `/proc` of a step that cannot have them mounted.

use std::{fs, io, os::fd::OwnedFd, path::Path};

use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, chmodat, fchmod, makedev, mkdirat, mknodat, openat, symlinkat},
    io::{Errno, write},
};

/// Name, major and minor number (runtime-spec, config-linux.md § Default Devices).
const DEVICES: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("full", 1, 7), ("random", 1, 8), ("tty", 5, 0), ("urandom", 1, 9), ("zero", 1, 5)];

/// As every container has them. They lead nowhere, so that who opens one is told, and does not write to a file of that name.
const LINKS: [(&str, &str); 4] = [
    ("fd", "/proc/self/fd"),
    ("stderr", "/proc/self/fd/2"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
];

/// What programs read there that are the same for every process. Nothing of a process is among them: that a copy cannot show.
const OF_PROC: [&str; 16] = [
    "cpuinfo",
    "filesystems",
    "loadavg",
    "meminfo",
    "stat",
    "uptime",
    "version",
    "sys/fs/file-max",
    "sys/kernel/cap_last_cap",
    "sys/kernel/ngroups_max",
    "sys/kernel/osrelease",
    "sys/kernel/ostype",
    "sys/kernel/pid_max",
    "sys/kernel/random/boot_id",
    "sys/net/core/somaxconn",
    "sys/vm/overcommit_memory",
];

/// What a process sees mounted, as `mountinfo` has it (proc_pid_mountinfo(5)): what a container has. Who asks whether `/proc` is a
/// mount is told so, because it is what one would be: installing Java asks that.
const MOUNTS: [(&str, &str, &str, &str); 5] = [
    ("1", "0", "/", "overlay"),
    ("2", "1", "/proc", "proc"),
    ("3", "1", "/sys", "sysfs"),
    ("4", "1", "/dev", "tmpfs"),
    ("5", "4", "/dev/shm", "tmpfs"),
];

/// Fills an empty `/dev`. Says whether its devices can be used.
pub(super) fn fill_dev(dev: &OwnedFd) -> Result<bool, Errno> {
    let everybody = Mode::from_raw_mode(0o666);
    let mut usable = true;
    for (name, major, minor) in DEVICES {
        match mknodat(dev, name, FileType::CharacterDevice, everybody, makedev(major, minor)) {
            Err(Errno::PERM) => usable = false,
            made => {
                made?;
                chmodat(dev, name, everybody, AtFlags::empty())?;
            }
        }
    }
    // On a file system that is mounted `nodev` they are there all the same.
    usable &= openat(dev, "null", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()).is_ok();
    for (name, target) in LINKS {
        symlinkat(target, dev, name)?;
    }
    mkdirat(dev, "mqueue", Mode::from_raw_mode(0o755))?;
    mkdirat(dev, "shm", Mode::from_raw_mode(0o755))?;
    chmodat(dev, "shm", Mode::from_raw_mode(0o1777), AtFlags::empty())?;
    Ok(usable)
}

/// Fills an empty `/proc` with copies of what stands in the one at hand, and with what is mounted.
pub(super) fn fill_proc(proc: &OwnedFd) -> io::Result<()> {
    for name in OF_PROC {
        // What this kernel has not, the step has not.
        let Ok(text) = fs::read(Path::new("/proc").join(name)) else { continue };
        put(proc, name, &text)?;
    }
    let line = |(id, parent, at, kind): &(&str, &str, &str, &str)| {
        format!("{id} {parent} 0:{id} / {at} rw,relatime - {kind} {kind} rw\n")
    };
    let mountinfo: String = MOUNTS.iter().map(line).collect();
    put(proc, "self/mountinfo", mountinfo.as_bytes())?;
    let line = |(_, _, at, kind): &(&str, &str, &str, &str)| format!("{kind} {at} {kind} rw,relatime 0 0\n");
    let mounts: String = MOUNTS.iter().map(line).collect();
    put(proc, "self/mounts", mounts.as_bytes())?;
    Ok(symlinkat("self/mounts", proc, "mounts")?)
}

/// Makes a file that can be read, and the folders on the way to it.
fn put(below: &OwnedFd, path: &str, text: &[u8]) -> io::Result<()> {
    let mut folder = rustix::io::fcntl_dupfd_cloexec(below, 0)?;
    let (parents, last) = path.rsplit_once('/').unwrap_or(("", path));
    for name in parents.split('/').filter(|name| !name.is_empty()) {
        match mkdirat(&folder, name, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno.into()),
        }
        folder = openat(&folder, name, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let file = openat(&folder, last, flags, Mode::RUSR | Mode::WUSR)?;
    let mut left = text;
    while !left.is_empty() {
        let length = write(&file, left)?;
        left = &left[length..];
    }
    Ok(fchmod(&file, Mode::from_raw_mode(0o444))?)
}
