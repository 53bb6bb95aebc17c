//! `/proc`, `/dev`, `/sys`: what every container has, and what Docker hides of it.

use std::ffi::{CStr, CString};
use std::path::Path;

use rustix::mount::MountFlags;

use super::Planner;
use crate::{Call, Error, Ids, MountPoint, Network, NewFileSystem, Slot, Source};

/// Character devices (runtime-spec, config-linux.md § Default Devices): name, major, minor.
const DEVICES: [(&str, u32, u32); 6] =
    [("full", 1, 7), ("null", 1, 3), ("random", 1, 8), ("tty", 5, 0), ("urandom", 1, 9), ("zero", 1, 5)];

/// Symlinks in `/dev`: name, target (runtime-spec, runtime-linux.md § Dev symbolic links).
const LINKS: [(&str, &str); 6] = [
    ("core", "/proc/kcore"),
    ("fd", "/proc/self/fd"),
    ("ptmx", "pts/ptmx"),
    ("stderr", "/proc/self/fd/2"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
];

/// What Docker masks (moby, `daemon/pkg/oci/defaults.go`).
const MASKED: [&CStr; 11] = [
    c"/proc/acpi",
    c"/proc/asound",
    c"/proc/kcore",
    c"/proc/keys",
    c"/proc/latency_stats",
    c"/proc/timer_list",
    c"/proc/timer_stats",
    c"/proc/sched_debug",
    c"/proc/scsi",
    c"/sys/firmware",
    c"/sys/devices/virtual/powercap",
];

/// What Docker makes read-only (same file).
const READ_ONLY: [&CStr; 5] = [c"/proc/bus", c"/proc/fs", c"/proc/irq", c"/proc/sys", c"/proc/sysrq-trigger"];

const NOTHING_SPECIAL: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV).union(MountFlags::NOEXEC);

/// What is shown of the host's.
#[derive(Default)]
pub(super) struct Outside {
    devices: Vec<(&'static str, Slot)>,
    proc: Option<Source>,
    sys: Option<Source>,
}

impl Planner<'_> {
    /// Opens what of the host's is shown where it cannot be made anew.
    pub(super) fn open_kernel_files(&mut self) -> Result<Outside, Error> {
        let mut outside = Outside::default();
        if !self.makes_devices() {
            for (name, _, _) in DEVICES {
                let keep = self.slot();
                self.calls.push(Call::Bind {
                    root: c"/dev".into(),
                    path: known(name),
                    readonly: false,
                    keep,
                });
                outside.devices.push((name, keep));
            }
        }
        let in_user_namespace = self.spec.mode.has_user_namespace();
        if !self.kernel.mounts_proc {
            outside.proc = Some(self.open_bind(Path::new("/proc"), Path::new(""), false)?);
        } else if in_user_namespace {
            outside.proc = Some(self.make_kernel_files(c"proc", false));
        }
        // It shows the network of who mounts it, and is refused to who does not own that.
        let owns_network = !matches!(self.spec.network, Network::Host);
        let readonly = self.spec.protect_kernel_paths;
        if !self.kernel.mounts_sysfs || in_user_namespace && !owns_network {
            outside.sys = Some(self.open_bind(Path::new("/sys"), Path::new(""), readonly)?);
        } else if in_user_namespace {
            outside.sys = Some(self.make_kernel_files(c"sysfs", readonly));
        }
        Ok(outside)
    }

    fn make_kernel_files(&mut self, kind: &CStr, readonly: bool) -> Source {
        let slot = self.slot();
        self.calls.push(Call::KernelFiles { kind: kind.into(), readonly, keep: slot });
        Source::Kept { slot, remount_readonly: false }
    }

    /// Whether device nodes can be made; never in a user namespace, whatever its root seems to be allowed.
    fn makes_devices(&self) -> bool {
        self.kernel.make_devices && !self.spec.mode.has_user_namespace()
    }

    /// Mounts and fills the three folders. They stay in the layer when they had to be made.
    pub(super) fn add_kernel_files(&mut self, outside: Outside) {
        match outside.proc {
            Some(source) => self.mount_at("/proc", source, false),
            None => self.mount_stays("/proc", c"proc", c"proc", NOTHING_SPECIAL, ""),
        }
        self.add_dev(outside.devices);
        let writable = if self.spec.protect_kernel_paths { MountFlags::RDONLY } else { MountFlags::empty() };
        match outside.sys {
            Some(source) => self.mount_at("/sys", source, false),
            None => self.mount_stays("/sys", c"sysfs", c"sysfs", NOTHING_SPECIAL | writable, ""),
        }
        if self.kernel.unified_cgroup {
            let flags = NOTHING_SPECIAL | writable;
            self.mount_optional("/sys/fs/cgroup", c"cgroup2", c"cgroup", flags, "");
        }
        if matches!(self.spec.network, Network::None) {
            self.calls.push(Call::LoopbackUp);
        }
    }

    fn add_dev(&mut self, devices: Vec<(&'static str, Slot)>) {
        let flags = MountFlags::NOSUID | MountFlags::STRICTATIME;
        self.mount_stays("/dev", c"tmpfs", c"tmpfs", flags, "mode=0755,size=65536k");
        for name in ["pts", "shm", "mqueue"] {
            self.calls.push(Call::MakeDirectory { path: known(&format!("/dev/{name}")), mode: 0o755 });
        }
        let no_exec = MountFlags::NOSUID | MountFlags::NOEXEC;
        // `tty`, where there is such a group.
        let group = if self.spec.mode.ids == Ids::Single { "" } else { ",gid=5" };
        let options = format!("newinstance,ptmxmode=0666,mode=0620{group}");
        self.mount_stays("/dev/pts", c"devpts", c"devpts", no_exec, &options);
        let options = format!("mode=1777,size={}", self.spec.shm_size_bytes);
        self.mount_stays("/dev/shm", c"tmpfs", c"shm", NOTHING_SPECIAL, &options);
        self.mount_optional("/dev/mqueue", c"mqueue", c"mqueue", NOTHING_SPECIAL, "");
        if devices.is_empty() {
            for (name, major, minor) in DEVICES {
                self.calls.push(Call::MakeDevice { path: known(&format!("/dev/{name}")), major, minor });
            }
        }
        for (name, slot) in devices {
            self.mount_kept(&format!("/dev/{name}"), slot);
        }
        for (name, target) in LINKS {
            self.calls.push(Call::MakeLink { target: known(target), path: known(&format!("/dev/{name}")) });
        }
        if let Some(size) = self.terminal {
            let uid = self.on_disk(self.spec.user.uid);
            self.calls.push(Call::OpenTerminal { size, uid });
            // The first terminal of a new instance has the number 0.
            let keep = self.slot();
            let path = c"dev/pts/0".into();
            self.calls.push(Call::Bind { root: c"/".into(), path, readonly: false, keep });
            self.mount_kept("/dev/console", keep);
        }
    }

    /// Makes `nodev` what was mounted, where no filter is asked about each opening of a device. Then a step cannot use
    /// the devices that it makes, not even those which it has in `/dev`.
    pub(super) fn forbid_devices(&mut self) {
        let kernel = self.kernel;
        // Nor can any be opened on what was mounted in a user namespace.
        let is_forbidden = kernel.filters_devices || self.spec.mode.has_user_namespace();
        if !self.spec.protect_kernel_paths || is_forbidden || !kernel.mount_setattr {
            return;
        }
        let devices: Vec<CString> =
            DEVICES.iter().map(|(name, _, _)| known(&format!("/dev/{name}"))).collect();
        let mut usable = devices.clone();
        usable.push(known("/dev/pts"));
        if self.terminal.is_some() {
            usable.push(known("/dev/console"));
        }
        let made = if self.makes_devices() { devices } else { Vec::new() };
        self.calls.push(Call::ForbidDevices { made, usable });
    }

    /// Hides and write-protects what Docker does.
    pub(super) fn protect_kernel_paths(&mut self) {
        let remount = !self.kernel.mount_setattr;
        if self.spec.protect_kernel_paths {
            for path in MASKED {
                self.calls.push(Call::Mask { path: path.into() });
            }
            for path in READ_ONLY {
                self.calls.push(Call::MakeReadOnly { path: path.into(), remount });
            }
        }
        if self.spec.readonly_root {
            self.calls.push(Call::MakeRootReadOnly { remount });
        }
    }

    fn mount_stays(&mut self, path: &str, kind: &CStr, name: &CStr, flags: MountFlags, options: &str) {
        self.mount_new(
            path,
            NewFileSystem { kind: kind.into(), name: name.into(), flags, options: known(options) },
            false,
        );
    }

    fn mount_optional(&mut self, path: &str, kind: &CStr, name: &CStr, flags: MountFlags, options: &str) {
        self.mount_new(
            path,
            NewFileSystem { kind: kind.into(), name: name.into(), flags, options: known(options) },
            true,
        );
    }

    fn mount_new(&mut self, path: &str, made: NewFileSystem, optional: bool) {
        self.mount_at(path, Source::New(made), optional);
    }

    fn mount_at(&mut self, path: &str, source: Source, optional: bool) {
        let at = MountPoint { path: known(path), stays: true };
        self.calls.push(Call::Mount { at, source, optional });
    }

    fn mount_kept(&mut self, path: &str, slot: Slot) {
        self.mount_at(path, Source::Kept { slot, remount_readonly: false }, false);
    }
}

/// A text of this file.
fn known(text: &str) -> CString {
    CString::new(text).expect("the names in this file hold no NUL")
}
