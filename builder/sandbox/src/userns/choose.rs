//! Which mode is taken, and entering it.

use std::{
    fmt, fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use rustix::fs::{StatVfsMountFlags, statfs, statvfs};
use rustix::process::{getegid, geteuid};
use rustix::thread::CapabilitySet;

use super::entry;
use super::folder;
use super::inside::{Inside, NoOverlay, look};
use super::lack::Lack;
use super::maps::Maps;
use super::offers;
use super::ranges::{ENOUGH, Range, parse_map};
use crate::{Ids, Isolation, Kernel, Mode, Snapshots, Wish};

/// What a mode is chosen by.
#[derive(Clone, Debug)]
pub struct Asked {
    /// What the user asked for.
    pub wish: Wish,
    /// How owners stand in the state folder's inodes already, if it is there.
    pub recorded: Option<IdsOnDisk>,
    /// The state folder. It need not be there.
    pub root: PathBuf,
    /// The user's name, where `/etc/passwd` has none.
    pub user: Option<String>,
}

/// How owners inside an image stand in inodes, as seen from where Kiln was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdsOnDisk {
    /// As they are.
    Same,
    /// 0 is the user, 1 and up are these.
    SubIds {
        /// First user id.
        first_uid: u32,
        /// First group id.
        first_gid: u32,
        /// How many that count: 65535 at most.
        count: u32,
    },
    /// All is the user's.
    Single {
        /// The user.
        uid: u32,
        /// Its group.
        gid: u32,
    },
}

/// What was entered.
#[derive(Debug)]
pub struct Entered {
    /// The mode.
    pub mode: Mode,
    /// How owners stand on disk in it.
    pub ids: IdsOnDisk,
    /// What a person should know.
    pub notes: Vec<Note>,
}

/// Something that is less than it could be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// Layers are copied because they cannot be stacked.
    Copies {
        /// What was tried, and how it failed.
        why: String,
        /// The state folder.
        root: PathBuf,
    },
    /// Layers are copied to where no program can be run. Overlayfs, which is a file system of its own, does not mind.
    NoExec {
        /// The state folder.
        root: PathBuf,
    },
    /// Steps see the outer `/proc`.
    OuterProc,
}

impl fmt::Display for Note {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Note::Copies { why, root } => write!(
                formatter,
                "layers are copied and not stacked, which takes longer: {why} in {}; overlayfs wants a disk's own file \
                 system, such as ext4 or xfs: in a container mount a volume there, or name another folder with --root",
                root.display()
            ),
            Note::NoExec { root } => write!(
                formatter,
                "no program of a step can be run: layers are copied into {}, which is mounted noexec; name another folder \
                 with --root, or `sudo mount -o remount,exec {}`",
                root.display(),
                mount_point(root).display()
            ),
            Note::OuterProc => formatter.write_str(
                "steps see the /proc of this container, where processes have other numbers: none can be mounted while \
                 parts of it are hidden; run the container with --security-opt systempaths=unconfined, in Kubernetes \
                 with procMount: Unmasked",
            ),
        }
    }
}

const OVERLAYFS_MAGIC: i64 = 0x794c_7630;
const NFS_MAGIC: i64 = 0x6969;
/// The inode of the namespace that the machine began with (`PROC_USER_INIT_INO`).
const FIRST_USER_NAMESPACE: u64 = 0xEFFF_FFFD;

/// Chooses a mode, and enters its user namespace if it has one. To be called while there is one thread; where there are more,
/// the kernel refuses.
///
/// # Errors
/// [`Lack`]: what the mode that was asked for, or else the nearest one, cannot be had for.
pub fn enter(asked: &Asked) -> Result<Entered, Lack> {
    let mut entered = enter_mode(choose(asked)?, asked)?;
    if entered.mode.snapshots == Snapshots::Copy && is_noexec(&asked.root) {
        entered.notes.push(Note::NoExec { root: asked.root.clone() });
    }
    Ok(entered)
}

fn enter_mode(mode: Mode, asked: &Asked) -> Result<Entered, Lack> {
    if mode.ids == Ids::Host {
        folder::fits(&asked.root)?;
    }
    if mode.isolation == Isolation::Chroot {
        return Ok(Entered { mode, ids: IdsOnDisk::Same, notes: Vec::new() });
    }
    if mode.ids == Ids::Host {
        let copies = cannot_stack(&asked.root).filter(|_| mode.snapshots == Snapshots::Overlay);
        return Ok(entered(mode, IdsOnDisk::Same, copies, asked));
    }
    if mode.ids == Ids::Single {
        offers::emulation()?;
    }
    if !is_served() {
        entry::make(&Maps::of(mode.ids, asked.user.as_deref())?)?;
    }
    let Inside { kernel, no_overlay } = look(&asked.root, mode.ids != Ids::Single)?;
    let mut entered = entered(
        mode,
        ids_on_disk(mode.ids),
        no_overlay.filter(|_| mode.snapshots == Snapshots::Overlay),
        asked,
    );
    if !kernel.mounts_proc {
        entered.notes.push(Note::OuterProc);
    }
    Kernel::assume(kernel);
    Ok(entered)
}

fn entered(mode: Mode, ids: IdsOnDisk, no_overlay: Option<NoOverlay>, asked: &Asked) -> Entered {
    let Some(NoOverlay { call, errno }) = no_overlay else {
        return Entered { mode, ids, notes: Vec::new() };
    };
    let why = format!("{call} fails with {}", io::Error::from_raw_os_error(errno));
    Entered { mode: mode.copying(), ids, notes: vec![Note::Copies { why, root: asked.root.clone() }] }
}

/// The mode that is asked for, or the best that there is.
fn choose(asked: &Asked) -> Result<Mode, Lack> {
    let copied = |mode: Mode| if asked.wish.copy { mode.copying() } else { mode };
    let uid = geteuid().as_raw();
    match asked.wish.mode {
        Some(mode) if mode.ids == Ids::Host && uid != 0 => Err(Lack::NotRoot { uid }),
        Some(mode) if mode.isolation == Isolation::Chroot => offers::chroot().map(|()| mode),
        Some(mode) if mode.ids == Ids::Host => offers::namespaces().map(|()| mode),
        Some(mode) => Ok(mode),
        // A namespace that is there already has its ids.
        None if is_served() => Ok(copied(if has_one_id() { Mode::SINGLE } else { Mode::SUBIDS })),
        None if uid == 0 => Ok(copied(of_root(asked))),
        None => Ok(copied(of_user(asked))),
    }
}

/// Of root: what it has the rights for.
fn of_root(asked: &Asked) -> Mode {
    if offers::namespaces().is_ok() {
        return Mode::ROOT;
    }
    // A container's root. Entering cannot be undone, so somebody else tries.
    match offers::try_in_child(Mode::SUBIDS, &asked.root, None) {
        Ok(_) => Mode::SUBIDS,
        Err(_) => Mode::CHROOT,
    }
}

/// Of a user: as the state folder is, else sub-ids where there are some.
fn of_user(asked: &Asked) -> Mode {
    match asked.recorded {
        Some(IdsOnDisk::Single { .. }) => Mode::SINGLE,
        Some(IdsOnDisk::SubIds { .. }) => Mode::SUBIDS,
        Some(IdsOnDisk::Same) | None => {
            let given = Maps::of(Ids::Mapped, asked.user.as_deref());
            if given.is_ok() { Mode::SUBIDS } else { Mode::SINGLE }
        }
    }
}

/// Whether this process is root of a user namespace that somebody made for it: a container's, or `unshare -r`.
pub(super) fn is_served() -> bool {
    geteuid().is_root()
        && fs::metadata("/proc/self/ns/user").is_ok_and(|found| found.ino() != FIRST_USER_NAMESPACE)
        && effective().contains(CapabilitySet::SYS_ADMIN)
}

fn own_map() -> Vec<Range> {
    parse_map(&fs::read_to_string("/proc/self/uid_map").unwrap_or_default())
}

fn has_one_id() -> bool {
    own_map().iter().all(|range| range.count == 1)
}

/// What the maps of this process's namespace make of owners.
fn ids_on_disk(ids: Ids) -> IdsOnDisk {
    let groups = parse_map(&fs::read_to_string("/proc/self/gid_map").unwrap_or_default());
    match (ids, own_map().as_slice(), groups.as_slice()) {
        (Ids::Single, [first, ..], [group, ..]) => {
            IdsOnDisk::Single { uid: first.outside, gid: group.outside }
        }
        (Ids::Single, ..) => IdsOnDisk::Single { uid: geteuid().as_raw(), gid: getegid().as_raw() },
        (_, [_, second, ..], [_, group, ..]) if second.inside != second.outside => sub_ids(second, group),
        (_, [only], [group]) if only.inside != only.outside => {
            // A container's map in one piece: root is the first of them.
            sub_ids(only, group)
        }
        _ => IdsOnDisk::Same,
    }
}

/// Of more ids than are put on disk, the rest is no difference.
fn sub_ids(uids: &Range, gids: &Range) -> IdsOnDisk {
    let count = uids.count.min(gids.count).min(ENOUGH);
    IdsOnDisk::SubIds { first_uid: uids.outside, first_gid: gids.outside, count }
}

/// Why layers cannot be stacked in this folder, or in that which will hold it; asked of the file system's type alone.
fn cannot_stack(root: &Path) -> Option<NoOverlay> {
    let found = root.ancestors().find_map(|folder| statfs(folder).ok())?;
    #[allow(clippy::unnecessary_cast, reason = "f_type has another width on other architectures")]
    let call = match found.f_type as i64 {
        OVERLAYFS_MAGIC => "mounting an overlay on an overlay",
        NFS_MAGIC => "mounting an overlay on NFS",
        _ => return None,
    };
    Some(NoOverlay { call, errno: libc::EINVAL })
}

fn is_noexec(root: &Path) -> bool {
    let found = root.ancestors().find_map(|folder| statvfs(folder).ok());
    found.is_some_and(|found| found.f_flag.contains(StatVfsMountFlags::NOEXEC))
}

/// Where the file system is mounted that a folder is on, or will be.
fn mount_point(root: &Path) -> &Path {
    let there = root.ancestors().filter_map(|folder| Some((folder, fs::metadata(folder).ok()?.dev())));
    let mut there = there.peekable();
    let device = there.peek().map(|(_, device)| *device);
    there.take_while(|(_, found)| Some(*found) == device).last().map_or(root, |(folder, _)| folder)
}

/// The effective capabilities of this process.
pub(super) fn effective() -> CapabilitySet {
    rustix::thread::capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.effective)
}
