//! Turns a [`Spec`] into the list of calls. Decides everything, does nothing.
//!
//! The order, and why:
//!
//! 1. Mounts become private, before anything is mounted.
//! 2. Everything that comes from the host (layers, sources of binds) is opened and kept.
//! 3. `pivot_root`: the host is gone, and paths can no longer lead to it.
//! 4. `/proc`, `/dev`, `/sys`, then the step's own mounts, parents first.
//! 5. No device can be opened but those of `/dev`, unless a filter of the kernel sees to that.
//! 6. Masks and read-only paths, last, so that no mount lies over them.
//! 7. The process: capabilities are dropped after the last call that needs them.

mod chroot;
mod kernel_files;
mod mounts;
mod process;
mod roots;

use std::ffi::{CString, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::{Call, Error, Ids, Isolation, Kernel, Namespaces, Network, RootKind, Slot, Spec, WindowSize};

pub(crate) use mounts::names_in;
use process::MASK;

/// Lists, in order, every call that builds the root and starts the process. Makes none of them.
///
/// `terminal` asks for a controlling terminal of that size. The first call, [`Call::Clone`], is the
/// caller's; what follows is made by the new process, and what follows [`Call::Spawn`] by its child.
///
/// # Errors
/// A path that is not absolute, a NUL byte, an empty command, more layers than the kernel takes, or a
/// kernel without the new mount API.
pub fn plan(spec: &Spec, terminal: Option<WindowSize>, kernel: &Kernel) -> Result<Vec<Call>, Error> {
    let mut planner = Planner { spec, kernel, terminal, calls: Vec::new(), slots: 0 };
    if spec.mode.isolation == Isolation::Chroot {
        return planner.plan_chroot();
    }
    if !kernel.new_mount_api {
        return Err(Error::Unsupported { what: "open_tree and move_mount", since: "5.2" });
    }
    let namespaces = Namespaces::of_a_step(matches!(spec.network, Network::None));
    planner.calls.extend([Call::Clone { namespaces }, Call::CloseForeign, Call::HideMemory]);
    if let Network::Namespace(_) = spec.network {
        // Before `/sys` is mounted, which shows the interfaces of who mounts it.
        planner.calls.push(Call::EnterNetwork);
    }
    planner.join_groups()?;
    planner.leave_the_host_alone()?;
    let root = planner.open_root()?;
    let sources = planner.open_sources()?;
    let outside = planner.open_kernel_files()?;
    planner.calls.push(Call::EnterRoot { root });
    planner.add_kernel_files(outside);
    planner.attach(sources)?;
    planner.forbid_devices();
    planner.protect_kernel_paths();
    planner.add_process()?;
    Ok(planner.calls)
}

/// The list so far.
struct Planner<'a> {
    spec: &'a Spec,
    kernel: &'a Kernel,
    terminal: Option<WindowSize>,
    calls: Vec<Call>,
    slots: usize,
}

impl Planner<'_> {
    /// A place that no call has used.
    fn slot(&mut self) -> Slot {
        let slot = Slot(self.slots);
        self.slots += 1;
        slot
    }

    /// An id as inodes have it: with one id there is no other.
    fn on_disk(&self, id: u32) -> u32 {
        if self.spec.mode.ids == Ids::Single { 0 } else { id }
    }

    /// Before anything else, so that all of it counts.
    fn join_groups(&mut self) -> Result<(), Error> {
        for group in &self.spec.groups {
            let folder = absolute("the control group", &group.folder)?;
            self.calls.push(Call::JoinGroup { folder, unified: group.unified });
        }
        Ok(())
    }

    fn leave_the_host_alone(&mut self) -> Result<(), Error> {
        match self.kernel.root {
            RootKind::Mount => self.calls.push(Call::MakePrivate),
            RootKind::Initramfs => self.calls.extend([Call::MakePrivate, Call::CloneRoot]),
            RootKind::Chroot => {
                let through = absolute("the empty folder", &self.spec.empty)?;
                self.calls.extend([Call::MakePrivateFromChroot { through }, Call::CloneRoot]);
            }
        }
        Ok(())
    }
}

/// Bytes for the kernel.
fn c_string(what: &'static str, text: impl AsRef<OsStr>) -> Result<CString, Error> {
    let text = text.as_ref();
    CString::new(text.as_bytes()).map_err(|_| Error::Nul { what, value: format!("{text:?}") })
}

/// An absolute path for the kernel.
fn absolute(what: &'static str, path: &Path) -> Result<CString, Error> {
    if !path.is_absolute() {
        return Err(Error::NotAbsolute { what, path: path.to_path_buf() });
    }
    c_string(what, path)
}

#[cfg(test)]
mod tests;
