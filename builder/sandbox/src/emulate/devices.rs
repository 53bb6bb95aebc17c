//! Devices in steps with sub-ids.
//!
//! Owners are real there, and devices are not: nobody may make one in a user namespace. Of a step's `mknod` of one, and of no
//! other call, the kernel asks Kiln, which makes an empty file and writes down what it stands for, as where owners are emulated.
//! The record goes where the file goes, and the layer has the device. The step sees the file. A device of the layers below is
//! such a file, too.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::thread::JoinHandle;

use rustix::fs::{CWD, Gid, Mode, OFlags, fchown, fsetxattr, openat};
use rustix::io::Errno;

use super::answer::names::device;
use super::credentials::MKNOD;
use super::record::{ATTRIBUTE, Device, Owner, Records};
use super::supervisor::{int, long, next, word};
use super::view::{File, View};
use crate::seccomp::{Matter, OtherAbi, native_architecture, native_number, notifier};
use crate::sys::notify::{self, Notification};
use crate::{Error, Filter, Spec};

/// Of the kinds of files those that are devices, block and character ones, have this bit in their mode.
const IS_DEVICE: u32 = 0o020000;

/// The filter of a step; none on a machine without numbers.
pub(crate) fn filter() -> Option<Filter> {
    let calls = [("mknod", 1), ("mknodat", 2)];
    let number = |(name, mode)| Some((native_number(name)?, Matter::Bits(mode, IS_DEVICE)));
    notifier(calls.into_iter().filter_map(number).collect(), OtherAbi::Allowed)
}

/// What is known before the step's first call.
pub(crate) struct Opening {
    proc: OwnedFd,
    records: Arc<Records>,
}

struct Answerer {
    listener: OwnedFd,
    records: Arc<Records>,
    view: View,
    /// `mknodat`; the other one has another number, or none.
    with_folder: Option<i32>,
}

impl Opening {
    /// Of a step with sub-ids; none where the kernel cannot ask.
    pub fn of(spec: &Spec) -> Result<Option<Opening>, Error> {
        static CAN: LazyLock<bool> = LazyLock::new(|| notify::has_listener().is_ok() && filter().is_some());
        let Some(emulation) = spec.emulation.as_ref().filter(|_| *CAN) else { return Ok(None) };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let proc = openat(CWD, Path::new("/proc"), flags, Mode::empty());
        let proc = proc.map_err(|errno| Error::Host { call: "openat", source: errno.into() })?;
        Ok(Some(Opening { proc, records: emulation.records.clone() }))
    }

    /// Answers on a thread of its own, until nobody of the step is left. The step has this root.
    pub fn answer(self, listener: OwnedFd, root: OwnedFd) -> Result<JoinHandle<()>, Error> {
        let work = move || {
            notify::take_short_turns();
            let Some(mut call) = next(&listener) else { return };
            let with_folder = native_number("mknodat").map(|number| number as i32);
            let view = match View::enter(self.proc, root) {
                Ok(view) => view,
                // Nobody else answers: who ended here would fail every call that is asked about.
                Err(_) => return leave_to_kernel(&listener, call),
            };
            let answerer = Answerer { listener, records: self.records, view, with_folder };
            loop {
                let answer = answerer.decide(&call);
                let listener = answerer.listener.as_fd();
                match answer {
                    None => notify::answer(listener, call.id, Ok(0), true),
                    Some(result) => notify::answer(listener, call.id, result.map(|()| 0), false),
                }
                match next(&answerer.listener) {
                    Some(another) => call = another,
                    None => return,
                }
            }
        };
        let thread = std::thread::Builder::new().name("kiln-devices".into()).spawn(work);
        thread.map_err(|source| Error::Host { call: "clone3", source })
    }
}

fn leave_to_kernel(listener: &OwnedFd, first: Notification) {
    let mut call = Some(first);
    while let Some(waiting) = call {
        notify::answer(listener.as_fd(), waiting.id, Ok(0), true);
        call = next(listener);
    }
}

impl Answerer {
    /// None is the kernel's, which refuses.
    fn decide(&self, call: &Notification) -> Option<Result<(), Errno>> {
        if native_architecture() != Some(call.architecture) {
            return None;
        }
        let at = usize::from(self.with_folder == Some(call.number));
        let folder = if at == 1 { int(call, 0) } else { libc::AT_FDCWD };
        let mode = word(call, at + 1);
        let device = device(mode, word(call, at + 2)).filter(|device| !is_whiteout(device))?;
        let status = self.view.whole_status(call.thread)?;
        let of = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t"));
        let capabilities = u64::from_str_radix(of("CapEff")?, 16).ok()?;
        // The last one is that for files.
        let id = |name| of(name)?.split_whitespace().last()?.parse::<u32>().ok();
        let (uid, gid) = (id("Uid")?, id("Gid")?);
        if capabilities & MKNOD == 0 || uid != 0 {
            return None;
        }
        let mask = of("Umask").and_then(|mask| u32::from_str_radix(mask, 8).ok()).unwrap_or(0o022);
        let text = self.view.text(call.thread, long(call, at))?;
        let (above, name) = self.view.parent(call.thread, folder, &text)?;
        if !notify::still_waits(self.listener.as_fd(), call.id) {
            return Some(Ok(()));
        }
        let owner = Owner { uid, gid, device: Some(device) };
        Some(self.make((&above, &name), mode & 0o7777 & !mask, owner))
    }

    fn make(&self, (above, name): (&File, &[u8]), mode: u32, owner: Owner) -> Result<(), Errno> {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(&above.fd, name, flags, Mode::from_raw_mode(mode))?;
        if owner.gid != 0 && above.mode() & libc::S_ISGID == 0 {
            fchown(&file, None, Some(Gid::from_raw(owner.gid)))?;
        }
        self.records.set_devices();
        match fsetxattr(&file, ATTRIBUTE, owner.encode().as_bytes(), rustix::fs::XattrFlags::empty()) {
            // In a root that is one folder the inode is that which is found in the end; in a mount nothing is kept.
            Err(Errno::OPNOTSUPP | Errno::PERM) => {
                self.records.set_other(&File::of(file)?.found, owner);
                Ok(())
            }
            other => other,
        }
    }
}

/// What overlayfs has for a file that is gone, and refuses.
pub(super) fn is_whiteout(device: &Device) -> bool {
    *device == Device { block: false, major: 0, minor: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bit_tells_devices() {
        let table = [
            (libc::S_IFBLK, true),
            (libc::S_IFCHR, true),
            (libc::S_IFREG, false),
            (libc::S_IFIFO, false),
            (libc::S_IFSOCK, false),
            (libc::S_IFDIR, false),
            (0, false),
        ];
        for (kind, is_device) in table {
            assert_eq!(kind & IS_DEVICE != 0, is_device, "{kind:o}");
            assert_eq!(device(kind | 0o644, 0x103).is_some(), is_device, "{kind:o}");
        }
    }
}
