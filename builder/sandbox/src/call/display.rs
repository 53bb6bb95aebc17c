//! Calls as text, for errors and for the review of a plan.

use std::ffi::CStr;
use std::fmt::{self, Debug, Display, Formatter};

use super::{Call, MountPoint, Namespaces, NewFileSystem, OverlayCall, OverlayMethod, Slot, Source};

impl Debug for Call {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        Display::fmt(self, formatter)
    }
}

impl Display for Call {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Call::Clone { namespaces } => write!(f, "clone3({namespaces})"),
            Call::CloseForeign => write!(f, "close(all of the caller's)"),
            Call::HideMemory => write!(f, "prctl(PR_SET_DUMPABLE, 0)"),
            Call::JoinGroup { folder, unified } => {
                let version = if *unified { 2 } else { 1 };
                write!(f, "join the control group {} (version {version}), unshare(cgroup)", text(folder))
            }
            Call::EnterNetwork => write!(f, "setns(network)"),
            Call::AdoptOrphans => write!(f, "prctl(PR_SET_CHILD_SUBREAPER)"),
            Call::ChangeRoot { path } => write!(f, "chroot({}), chdir(/)", text(path)),
            Call::DieWithParent => write!(f, "prctl(PR_SET_PDEATHSIG, SIGKILL)"),
            Call::MakePrivate => write!(f, "mount(/, private, recursive)"),
            Call::MakePrivateFromChroot { through } => {
                write!(f, "mount(mount of /, private, recursive) through chroot {}", text(through))
            }
            Call::CloneRoot => write!(f, "bind / on / and chroot to it"),
            Call::Overlay(overlay) => Display::fmt(overlay, f),
            Call::Select { within, path } => write!(f, "{within} = {} in {within}", text(path)),
            Call::Bind { root, path, readonly, keep } => {
                write!(f, "{keep} = bind {} in {}{}", text(path), text(root), ro(*readonly))
            }
            Call::KernelFiles { kind, readonly, keep } => {
                let readonly = if *readonly { ",rdonly" } else { "" };
                write!(f, "{keep} = {}(nodev,noexec,nosuid{readonly})", kind.to_string_lossy())
            }
            Call::FileStore { keep } => write!(f, "{keep} = ramfs"),
            Call::File { store, name, content, mode, uid, gid, readonly, keep } => write!(
                f,
                "{keep} = file {} of {} bytes in {store}, mode {mode:04o}, owner {uid}:{gid}{}",
                text(name),
                content.len(),
                ro(*readonly)
            ),
            Call::EnterRoot { root } => write!(f, "pivot_root({root}), umount2(host)"),
            Call::Mount { at, source, optional } => {
                write!(f, "mount {source} on {at}{}", if *optional { ", optional" } else { "" })
            }
            Call::MakeDirectory { path, mode } => write!(f, "mkdir({}, {mode:04o})", text(path)),
            Call::MakeDevice { path, major, minor } => {
                write!(f, "mknod({}, c, {major}:{minor}, 0666)", text(path))
            }
            Call::MakeLink { target, path } => write!(f, "symlink({}, {})", text(target), text(path)),
            Call::Mask { path } => write!(f, "mask {}", text(path)),
            Call::MakeReadOnly { path, remount } => {
                write!(f, "read-only {}{}", text(path), by_remount(*remount))
            }
            Call::ForbidDevices { made, usable } => {
                let list = |paths: &[std::ffi::CString]| {
                    paths.iter().map(|path| text(path)).collect::<Vec<_>>().join(" ")
                };
                write!(f, "bind {} each, mount_setattr(/, nodev, recursive) but {}", list(made), list(usable))
            }
            Call::MakeRootReadOnly { remount } => write!(f, "read-only /{}", by_remount(*remount)),
            _ => self.fmt_process(f),
        }
    }
}

impl Call {
    /// The calls that are not about mounts.
    fn fmt_process(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Call::LoopbackUp => write!(f, "ioctl(lo, up)"),
            Call::SetHostName { name } => write!(f, "sethostname({name})"),
            Call::JoinSessionKeyring => write!(f, "keyctl(JOIN_SESSION_KEYRING)"),
            Call::Limit(limit) => {
                let amount = |value: u64| match value {
                    u64::MAX => "unlimited".to_owned(),
                    number => number.to_string(),
                };
                write!(f, "prlimit({}, {}:{})", limit.resource.name(), amount(limit.soft), amount(limit.hard))
            }
            Call::OpenTerminal { size, uid } => {
                write!(f, "open(/dev/pts/ptmx) of {}x{} for {uid}", size.columns, size.rows)
            }
            Call::OwnStreams { uid } => write!(f, "fchown(pipes, {uid})"),
            Call::Spawn => write!(f, "clone(vfork)"),
            Call::NewSession { terminal } => {
                write!(f, "setsid(){}", if *terminal { ", ioctl(TIOCSCTTY)" } else { "" })
            }
            Call::PlaceStreams => write!(f, "dup2(0, 1, 2)"),
            Call::EnterWorkingDirectory { path } => write!(f, "chdir({})", text(path)),
            Call::BoundCapabilities { keep } => write!(f, "prctl(PR_CAPBSET_DROP, all but {keep})"),
            Call::SetGroups { gids } => write!(f, "setgroups({gids:?})"),
            Call::InstallFilter { filter: _ } => write!(f, "seccomp(filter)"),
            Call::InstallListener { filter: _, optional: _ } => write!(f, "seccomp(filter with a listener)"),
            Call::SetIds { uid, gid } => write!(f, "setresgid({gid}), setresuid({uid})"),
            Call::SetCapabilities { keep } => write!(f, "capset({keep})"),
            Call::SetMask { mask } => write!(f, "umask({mask:04o})"),
            Call::CloseOthers => write!(f, "close_range(3, all, CLOEXEC), sigprocmask(none)"),
            Call::Exec { candidates, argv, env } => {
                let list = |items: &[std::ffi::CString]| {
                    items.iter().map(|item| text(item)).collect::<Vec<_>>().join(" ")
                };
                write!(f, "execve({}) of {} with {} variables", list(candidates), list(argv), env.len())
            }
            _ => write!(f, "a mount"),
        }
    }
}

impl Display for OverlayCall {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} = overlay of {} layers", self.keep, self.lowers.len())?;
        if let Some(top) = self.lowers.first() {
            write!(f, ", top {}", text(top))?;
        }
        match &self.writable {
            Some((upper, work)) => write!(f, ", upper {}, work {}", text(upper), text(work))?,
            None => write!(f, ", read-only")?,
        }
        if self.user_marks {
            write!(f, ", with userxattr")?;
        }
        match &self.method {
            OverlayMethod::Append => Ok(()),
            OverlayMethod::Options { directory, options, .. } => {
                write!(f, ", by mount(2) in {} with {} bytes", text(directory), options.as_bytes().len())
            }
        }
    }
}

impl Debug for Namespaces {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        Display::fmt(self, formatter)
    }
}

impl Display for Namespaces {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let names = Namespaces::NAMES.into_iter().filter(|(one, _)| self.contains(*one));
        let names: Vec<&str> = names.map(|(_, name)| name).collect();
        write!(f, "{}", names.join(", "))
    }
}

impl Display for Source {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Source::Kept { slot, remount_readonly } => {
                write!(f, "{slot}{}", if *remount_readonly { ", remounted read-only," } else { "" })
            }
            Source::New(NewFileSystem { kind, flags, options, .. }) => {
                write!(f, "{}", text(kind))?;
                let names: Vec<String> =
                    flags.iter_names().map(|(name, _)| name.to_ascii_lowercase()).collect();
                let options = text(options);
                let all: Vec<&str> = names.iter().map(String::as_str).chain([options.as_str()]).collect();
                write!(f, "({})", all.join(",").trim_end_matches(','))
            }
        }
    }
}

impl Display for MountPoint {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", text(&self.path), if self.stays { " (stays)" } else { "" })
    }
}

impl Display for Slot {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

fn text(bytes: &CStr) -> String {
    String::from_utf8_lossy(bytes.to_bytes()).into_owned()
}

fn ro(readonly: bool) -> &'static str {
    if readonly { ", read-only" } else { "" }
}

fn by_remount(remount: bool) -> &'static str {
    if remount { ", by remounting" } else { "" }
}
