//! Which devices a step may open: those of `/dev`, wherever their nodes are, and no other.
//!
//! A step has CAP_MKNOD, as in Docker, because images hold device nodes. So a node of a disk can be made or come with an
//! image, and somebody must say no when it is opened. Mounts that are `nodev` would say no to `/dev/null` in a folder that is
//! about to be a root as well, which is what `apk --root` and `debootstrap` make and use. Therefore a program in the kernel is
//! asked at each opening, as runc does it: it is attached to a control group, into which the zygote clones all steps. That
//! costs a build a quarter of a millisecond. Only a step that has limits in the same hierarchy is in a group of its own, which
//! then gets the program.
//!
//! What would surprise a reader: no control group has to be mounted. Where the hierarchy is not, it is entered by a mount that
//! is nowhere. The group is below the one in which Kiln is, so limits set for Kiln go on to hold.

use std::cell::Cell;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::{Errno, write};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

use crate::cgroup::{Hierarchies, locked, remove, sweep};
use crate::sys;

/// A control group for all that this process clones.
pub(crate) struct DeviceFilter {
    above: OwnedFd,
    path: PathBuf,
    /// Its folder, locked as long as this process lives: what one that was killed has left, the next one removes.
    folder: File,
    /// Whether this process is in it, because it cannot clone into it.
    is_in_it: Cell<bool>,
}

/// How often the group is tried to be removed. Steps that were killed take a moment to be gone.
const TRIES: u32 = 100;
const PAUSE: Duration = Duration::from_millis(5);

impl DeviceFilter {
    /// Makes the group; `None` where that cannot be. Nothing is left behind then.
    pub fn make() -> Option<DeviceFilter> {
        let above = own_group().ok()?;
        // It may be mounted nowhere, but a descriptor is a path too.
        let base = PathBuf::from(format!("/proc/self/fd/{}", above.as_raw_fd()));
        sweep(&base);
        let (path, folder) = locked(&base).ok()?;
        let filter = DeviceFilter { above, path, folder, is_in_it: Cell::new(false) };
        let attached = sys::load_device_program(&program())
            .and_then(|program| sys::attach_device_program(filter.folder.as_fd(), program.as_fd()));
        match attached {
            Ok(()) => Some(filter),
            Err(_) => {
                filter.remove();
                None
            }
        }
    }

    /// The group, to clone into. None where this process is in it itself.
    pub fn group(&self) -> Option<BorrowedFd<'_>> {
        (!self.is_in_it.get()).then(|| self.folder.as_fd())
    }

    /// Goes there itself, which takes the kernel several milliseconds, here and on the way back.
    pub fn enter(&self) -> Result<(), Errno> {
        move_to(&self.folder)?;
        self.is_in_it.set(true);
        Ok(())
    }

    /// Removes the group, once nothing of a step is in it any more.
    pub fn remove(self) {
        if self.is_in_it.get() {
            // Where this fails, the group is not left and cannot be removed either.
            let _left = move_to(&self.above);
        }
        for _ in 0..TRIES {
            remove(&self.path);
            if !self.path.exists() {
                return;
            }
            std::thread::sleep(PAUSE);
        }
    }
}

/// Keeps whoever will be in a group of version 2 from devices; whether that could be done.
pub(crate) fn forbid_in(group: &Path) -> bool {
    static PROGRAM: OnceLock<Option<OwnedFd>> = OnceLock::new();
    let Some(program) = PROGRAM.get_or_init(|| sys::load_device_program(&program()).ok()) else {
        return false;
    };
    File::open(group).is_ok_and(|group| sys::attach_device_program(group.as_fd(), program.as_fd()).is_ok())
}

fn move_to(group: impl AsFd) -> Result<(), Errno> {
    let processes = openat(group, "cgroup.procs", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    write(&processes, b"0").map(drop)
}

/// The group of this process in the unified hierarchy: where that is mounted, or else in a mount that is nowhere.
///
/// A mount from the first cgroup namespace sets the options of the hierarchy for the whole machine (`nsdelegate`,
/// `memory_recursiveprot`). So one is made only where there is none whose options it would take away.
fn own_group() -> Result<OwnedFd, Errno> {
    let read = |file: &str| std::fs::read_to_string(file).map_err(|_| Errno::NOENT);
    let (groups, mounts) = (read("/proc/self/cgroup")?, read("/proc/self/mountinfo")?);
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
    if let Some(hierarchy) = Hierarchies::parse(&groups, &mounts).unified {
        return openat(CWD, &hierarchy.own, flags, Mode::empty());
    }
    if read("/proc/1/mountinfo")?.contains(" - cgroup2 ") {
        return Err(Errno::NOENT);
    }
    let own = groups.lines().find_map(|line| line.strip_prefix("0::/")).ok_or(Errno::NOENT)?;
    let context = fsopen("cgroup2", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(&context)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let top = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    let own = if own.is_empty() { "." } else { own };
    openat(&top, own, flags, Mode::empty())
}

/// What the program may return.
const REFUSE: i32 = 0;
const ALLOW: i32 = 1;

/// The devices of `/dev`, and terminals: major number, minor number or all (runtime-spec, config-linux.md § Default Devices).
const OPENED: [(i32, Option<i32>); 8] = [
    (1, Some(3)),
    (1, Some(5)),
    (1, Some(7)),
    (1, Some(8)),
    (1, Some(9)),
    (5, Some(0)),
    (5, Some(2)),
    (136, None),
];

/// `struct bpf_cgroup_dev_ctx`: where the fields are, and what is in the first.
const ACCESS_AND_KIND: i16 = 0;
const MAJOR: i16 = 4;
const MINOR: i16 = 8;
const KIND: i32 = 0xffff;
const CHARACTER: i32 = 2;
const READ_OR_WRITE: i32 = 0b110 << 16;

/// An instruction of eBPF (instruction-set.rst in the kernel's documentation).
fn instruction(code: u8, to: u8, from: u8, offset: i16, constant: i32) -> u64 {
    u64::from(code)
        | u64::from(to) << 8
        | u64::from(from) << 12
        | u64::from(offset as u16) << 16
        | u64::from(constant as u32) << 32
}

/// The program: nodes of any device may be made, character devices of the list opened.
fn program() -> Vec<u64> {
    const LOAD: u8 = 0x61;
    const COPY: u8 = 0xbf;
    const SET: u8 = 0xb7;
    const AND: u8 = 0x57;
    const UNLESS_EQUAL: u8 = 0x55;
    const IF_ANY_BIT: u8 = 0x45;
    const EXIT: u8 = 0x95;
    let answer = |code: i32| [instruction(SET, 0, 0, 0, code), instruction(EXIT, 0, 0, 0, 0)];
    let mut program =
        vec![instruction(LOAD, 2, 1, ACCESS_AND_KIND, 0), instruction(IF_ANY_BIT, 2, 0, 2, READ_OR_WRITE)];
    program.extend(answer(ALLOW));
    program.push(instruction(COPY, 3, 2, 0, 0));
    program.push(instruction(AND, 3, 0, 0, KIND));
    program.push(instruction(UNLESS_EQUAL, 3, 0, (2 + 4 * OPENED.len()) as i16, CHARACTER));
    program.push(instruction(LOAD, 4, 1, MAJOR, 0));
    program.push(instruction(LOAD, 5, 1, MINOR, 0));
    for (major, minor) in OPENED {
        let (register, number) = minor.map_or((4, major), |minor| (5, minor));
        program.push(instruction(UNLESS_EQUAL, 4, 0, 3, major));
        program.push(instruction(UNLESS_EQUAL, register, 0, 2, number));
        program.extend(answer(ALLOW));
    }
    program.extend(answer(REFUSE));
    program
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the program says of (access, kind, major, minor), by the few instructions that it is made of.
    fn ask(access: u32, kind: u32, major: u32, minor: u32) -> i32 {
        let context = [access << 16 | kind, major, minor];
        let (mut registers, program) = ([0_u32; 11], program());
        let mut at = 0_usize;
        loop {
            let one = program[at];
            let (to, from) = ((one >> 8 & 15) as usize, (one >> 12 & 15) as usize);
            let (offset, constant) = ((one >> 16) as u16 as i16, (one >> 32) as u32);
            at += 1;
            match one as u8 {
                0x61 => registers[to] = context[offset as usize / 4],
                0xbf => registers[to] = registers[from],
                0xb7 => registers[to] = constant,
                0x57 => registers[to] &= constant,
                0x55 if registers[to] != constant => at += offset as usize,
                0x45 if registers[to] & constant != 0 => at += offset as usize,
                0x55 | 0x45 => {}
                0x95 => return registers[0] as i32,
                other => panic!("{other:#x} is no instruction of the program"),
            }
        }
    }

    #[test]
    fn nodes_can_be_made_and_a_few_devices_opened() {
        const MAKE: u32 = 1;
        const BLOCK: u32 = 1;
        const CHARACTER: u32 = 2;
        for major in 0..300 {
            for minor in 0..20 {
                let opened = major == 136 || OPENED.contains(&(major as i32, Some(minor as i32)));
                for access in [2, 4, 6, 7] {
                    assert_eq!(ask(access, BLOCK, major, minor), REFUSE, "b {major}:{minor} {access}");
                    let character = ask(access, CHARACTER, major, minor);
                    assert_eq!(character == ALLOW, opened, "c {major}:{minor} {access}");
                }
                assert_eq!(ask(MAKE, BLOCK, major, minor), ALLOW);
                assert_eq!(ask(MAKE, CHARACTER, major, minor), ALLOW);
            }
        }
    }
}
