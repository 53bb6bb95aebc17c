//! Starts a step: plans, clones, and hears whether the command runs.

use std::ffi::{CString, OsStr};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketFlags, SocketType, recvmsg,
    socketpair,
};
use rustix::pipe::{PipeFlags, pipe_with};

use crate::board::Board;
use crate::call::{Call, MountPoint, OverlayCall, Source};
use crate::child::{Child, EXISTS, LINKS, SOURCE, STARTED, UPPER, WORK, ranges_between};
use crate::devices::{DeviceFilter, forbid_in};
use crate::emulate::Emulated;
use crate::fault::{Fault, Syscall};
use crate::forget::Confided;
use crate::plan::names_in;
use crate::stdio::{Streams, raise};
use crate::sys::{self, Cloned, SharedBoard, Stack, Strings};
use crate::{
    Error, Isolation, Kernel, Namespaces, Network, Running, Slot, Spec, Stdio, Zygote, emulate, plan, procfs,
};

/// Starts the process of `spec`, and returns once its program runs (`execve` succeeded).
///
/// Blocks for the few milliseconds that takes. The step lives until its process ends, [`Running`] is
/// dropped or told to kill it, or this process ends in any way.
///
/// # Errors
/// [`Error::Exec`] if there is no such program in the root or it cannot be executed; otherwise what
/// could not be done on the way, with its arguments. Nothing is left running or mounted then.
pub fn start(spec: &Spec, stdio: Stdio) -> Result<Running, Error> {
    start_on(spec, stdio, Kernel::get())
}

/// As [`start`], on a kernel of which these facts are known: a test takes features away.
///
/// # Errors
/// As [`start`].
pub fn start_on(spec: &Spec, stdio: Stdio, kernel: &Kernel) -> Result<Running, Error> {
    start_by(spec, stdio, kernel, None)
}

/// As [`start_on`]; the process is cloned by the zygote, if there is one that answers.
pub(crate) fn start_by(
    spec: &Spec,
    stdio: Stdio,
    kernel: &Kernel,
    zygote: Option<&Zygote>,
) -> Result<Running, Error> {
    let window = stdio.window();
    // What may use every device is not cloned by a process that is kept from them.
    let zygote = zygote.filter(|_| spec.protect_kernel_paths);
    // Nor is one kept from them that leaves the group which does that for its own.
    let mut own = spec.groups.iter().filter(|group| group.unified).peekable();
    let in_own = own.peek().is_some();
    let by_own = spec.protect_kernel_paths && in_own && own.all(|group| forbid_in(&group.folder));
    let has_mounts = spec.mode.isolation == Isolation::Namespaces && !spec.mode.has_user_namespace();
    let filters_devices = by_own || has_mounts && !in_own && zygote.is_some_and(Zygote::filters_devices);
    let kernel = Kernel { filters_devices, ..*kernel };
    let answers = Answers::of(spec)?;
    let has_listener = answers.is_some();
    let planned = |kernel: &Kernel| {
        let mut calls = plan(spec, window, kernel)?;
        if !has_listener {
            // See `procfs` whom it is not for.
            calls.retain(|call| !matches!(call, Call::InstallListener { .. }));
        }
        Ok(calls)
    };
    let calls = planned(&kernel)?;
    let unfiltered = || planned(&Kernel { filters_devices: by_own, ..kernel });
    start_calls(calls, stdio, &spec.network, zygote, answers, unfiltered)
}

/// Starts a prepared plan as it is, by a clone of this process: a test takes a guard out of a plan, and sees what it was for.
/// The plan may not enter a network namespace.
///
/// # Errors
/// As [`start`].
pub fn start_plan(calls: Vec<Call>, stdio: Stdio) -> Result<Running, Error> {
    let again = calls.clone();
    start_calls(calls, stdio, &Network::Host, None, None, || Ok(again))
}

/// Carries a plan out; `without_zygote` is the plan where this process has to clone.
fn start_calls(
    calls: Vec<Call>,
    stdio: Stdio,
    network: &Network,
    zygote: Option<&Zygote>,
    answers: Option<Answers>,
    without_zygote: impl FnOnce() -> Result<Vec<Call>, Error>,
) -> Result<Running, Error> {
    let mut calls = Confided::new(calls);
    let window = stdio.window();
    let (ended, step_alive) = pipe_with(PipeFlags::CLOEXEC).map_err(host("pipe2"))?;
    let (life, alive) = pipe_with(PipeFlags::CLOEXEC).map_err(host("pipe2"))?;
    let (console, consoles) = pair(window.is_some())?;
    let (listener, listeners) = pair(answers.is_some())?;
    let network = match network {
        Network::Namespace(namespace) => Some(namespace.try_clone().map_err(dup)?),
        Network::Host | Network::None => None,
    };
    let streams = stdio.into_streams();
    let gear = Gear { streams, alive: step_alive, life, console: consoles, network, listener: listeners };
    let (process, board) = match zygote.and_then(|zygote| zygote.clone_step(&calls, &gear)) {
        Some(Ok(cloned)) => {
            drop(gear);
            cloned
        }
        Some(Err(error)) => {
            // It may be that it was cloned and nobody can say so: it ends with these. What it has sent to be answered lies
            // unread in a socket, and it would wait for the answer.
            drop((gear, alive, listener, console));
            while has_started(ended.as_fd())? {}
            return Err(error);
        }
        None => {
            calls = Confided::new(without_zygote()?);
            let board = SharedBoard::new().map_err(host("mmap"))?;
            let stack = Stack::new().map_err(host("mmap"))?;
            let child = child(&calls, &board, gear, &stack, command_line())?;
            (clone(child, 0, None).map_err(|errno| no_namespaces(&calls, errno))?, board)
        }
    };
    let mut running = Running::new(process, alive, ended, board);
    if calls.contains(&Call::AdoptOrphans) {
        running = running.without_namespace();
    }
    // Before the command runs, which is a call that is answered. A child that has ended has told why.
    if let (Some(listener), Some(answers)) = (listener, answers) {
        match (receive(&listener), answers) {
            (Ok([listener, root]), Answers::Owners(opening)) => {
                running.set_supervisor(opening.answer(listener, root, candidates(&calls))?);
            }
            (Ok([listener, root]), Answers::Devices(opening)) => {
                running.set_supervisor(opening.answer(listener, root)?);
            }
            (Ok([listener, root]), Answers::Proc(opening)) => {
                running.set_supervisor(opening.answer(listener, root)?);
            }
            // The kernel has one listener for a process, and another program's was there before.
            (Err(_), Answers::Proc(opening))
                if opening.is_needed() && running.board().failure().is_none() =>
            {
                return Err(Error::NotInChroot { what: "a secret as a file" });
            }
            (Err(_), _) => {}
        }
    }
    if !has_started(running.ended())? {
        running.reap();
        return Err(match running.board().failure() {
            Some((index, fault)) => explain(&calls, index, fault, running.board()),
            None => Error::Died,
        });
    }
    if let Some(console) = console {
        let [terminal] = receive(&console)?;
        running.set_terminal(terminal);
    }
    running.set_calls(calls.told());
    Ok(running)
}

/// Who answers the calls of a step's that the kernel asks about.
enum Answers {
    Owners(Box<emulate::Opening>),
    Devices(emulate::devices::Opening),
    Proc(procfs::Opening),
}

impl Answers {
    fn of(spec: &Spec) -> Result<Option<Answers>, Error> {
        match spec.mode.isolation {
            Isolation::Chroot if procfs::serves(spec) => Ok(procfs::Opening::of(spec)?.map(Answers::Proc)),
            Isolation::Chroot => Ok(None),
            Isolation::Namespaces => match spec.emulates() {
                Some(Emulated::Devices) => Ok(emulate::devices::Opening::of(spec)?.map(Answers::Devices)),
                Some(Emulated::Owners) => {
                    Ok(emulate::Opening::of(spec)?.map(|opening| Answers::Owners(Box::new(opening))))
                }
                None => Ok(None),
            },
        }
    }
}

/// What a step has of its caller: descriptors.
pub(crate) struct Gear {
    pub streams: Streams,
    /// See [`Child::alive`].
    pub alive: OwnedFd,
    pub life: OwnedFd,
    pub console: Option<OwnedFd>,
    /// The network namespace that it enters.
    pub network: Option<OwnedFd>,
    /// See [`Child::listener`].
    pub listener: Option<OwnedFd>,
}

/// All that the child needs, so that it need not allocate.
pub(crate) fn child<'a>(
    calls: &'a [Call],
    board: &'a Board,
    gear: Gear,
    stack: &'a Stack,
    command_line: Vec<u8>,
) -> Result<Child<'a>, Error> {
    let mut child = Child {
        calls,
        board,
        kept: (0..slots(calls)).map(|_| None).collect(),
        created: Vec::with_capacity(mount_points(calls)),
        root: None,
        terminal: None,
        streams: gear.streams.raised()?,
        alive: Some(raise(gear.alive)?),
        life: raise(gear.life)?,
        console: gear.console.map(raise).transpose()?,
        network: gear.network.map(raise).transpose()?,
        listener: gear.listener.map(raise).transpose()?,
        foreign: Vec::new(),
        arguments: arguments(calls),
        stack,
        is_in_group: false,
        command_line,
    };
    child.foreign = ranges_between(&mut child.descriptors());
    Ok(child)
}

/// This program's arguments, each with its NUL.
pub(crate) fn command_line() -> Vec<u8> {
    std::env::args_os().flat_map(|argument| [argument.as_bytes(), b"\0"].concat()).collect()
}

/// Clones the child, which never returns from here, with flags beside those of its namespaces; closes the caller's copies of
/// what it got.
pub(crate) fn clone(
    mut child: Child<'_>,
    more: i32,
    filter: Option<&DeviceFilter>,
) -> Result<OwnedFd, Errno> {
    let flags = match child.calls.first() {
        Some(Call::Clone { namespaces }) => namespaces.bits() as i32,
        _ => Namespaces::of_a_step(true).bits() as i32,
    };
    // Until the child has reset them, it has this program's signal handlers, which would write to pipes
    // that it shares with this program.
    let _blocked = sys::block_signals();
    let own = unified_group(child.calls);
    child.is_in_group = own.is_some();
    let group = own.as_ref().map(AsFd::as_fd).or_else(|| filter?.group());
    let cloned = match sys::clone_process(flags | more, group) {
        // The kernel, or a filter, does not know how: the child goes to its own group itself, and is born in the other.
        Err(Errno::NOSYS | Errno::INVAL | Errno::TOOBIG) if group.is_some() => {
            child.is_in_group = false;
            if let (None, Some(filter)) = (&own, filter) {
                filter.enter()?;
            }
            sys::clone_process(flags | more, None)?
        }
        other => other?,
    };
    match cloned {
        Cloned::Child => child.run(),
        Cloned::Parent(process) => Ok(process),
    }
}

/// The control group of version 2 that the process is to be made in. One that cannot be opened is the child's to complain of.
fn unified_group(calls: &[Call]) -> Option<OwnedFd> {
    let folder = calls.iter().find_map(|call| match call {
        Call::JoinGroup { folder, unified: true } => Some(folder),
        _ => None,
    })?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(CWD, folder.as_c_str(), flags, Mode::empty()).ok()
}

/// The namespaces cannot be had.
pub(crate) fn no_namespaces(calls: &[Call], errno: Errno) -> Error {
    let call = calls.first().map(Call::to_string).unwrap_or_default();
    Error::Namespaces { call, source: errno.into() }
}

/// Places for kept descriptors that the plan uses.
fn slots(calls: &[Call]) -> usize {
    let used = |call: &Call| match call {
        Call::Overlay(OverlayCall { keep: Slot(slot), .. })
        | Call::Bind { keep: Slot(slot), .. }
        | Call::FileStore { keep: Slot(slot) }
        | Call::KernelFiles { keep: Slot(slot), .. }
        | Call::File { keep: Slot(slot), .. } => slot + 1,
        _ => 0,
    };
    calls.iter().map(used).max().unwrap_or(0)
}

/// How many files and folders may be made for mount points and have to go again. A symlink adds as many
/// names as it likes; what finds no place here is not removed.
fn mount_points(calls: &[Call]) -> usize {
    let names = |call: &Call| match call {
        Call::Mount { at: MountPoint { path, stays: false }, .. } => names_in(path) + LINKS,
        _ => 0,
    };
    calls.iter().map(names).sum()
}

fn arguments(calls: &[Call]) -> (Strings<'_>, Strings<'_>) {
    match calls.last() {
        Some(Call::Exec { argv, env, .. }) => (Strings::new(argv), Strings::new(env)),
        _ => (Strings::new(&[]), Strings::new(&[])),
    }
}

/// Blocks until the child tells that the command runs, or has ended without that.
fn has_started(pipe: BorrowedFd<'_>) -> Result<bool, Error> {
    let mut told = [0_u8; 1];
    loop {
        match rustix::io::read(pipe, &mut told) {
            Ok(length) => return Ok(length > 0 && told == [STARTED]),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(host("read")(errno)),
        }
    }
}

/// A socket's two ends, the second one the child's, where they are wanted.
fn pair(wanted: bool) -> Result<(Option<OwnedFd>, Option<OwnedFd>), Error> {
    if !wanted {
        return Ok((None, None));
    }
    let both = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None);
    both.map(|(ours, theirs)| (Some(ours), Some(theirs))).map_err(host("socketpair"))
}

/// Takes descriptors from the child. There is none if the child was killed.
fn receive<const COUNT: usize>(socket: &OwnedFd) -> Result<[OwnedFd; COUNT], Error> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0_u8];
    let mut data = [std::io::IoSliceMut::new(&mut byte)];
    recvmsg(socket, &mut data, &mut control, RecvFlags::CMSG_CLOEXEC).map_err(host("recvmsg"))?;
    let messages = control.drain();
    let descriptors = messages.filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    descriptors.flatten().collect::<Vec<_>>().try_into().map_err(|_| Error::Died)
}

/// Where the program may be, in the order in which it is looked for.
fn candidates(calls: &[Call]) -> Vec<Vec<u8>> {
    let folder = calls.iter().find_map(|call| match call {
        Call::EnterWorkingDirectory { path } => Some(path.as_bytes()),
        _ => None,
    });
    let absolute = |path: &CString| match path.as_bytes() {
        path if path.starts_with(b"/") => path.to_vec(),
        path => [folder.unwrap_or_default(), b"/", path].concat(),
    };
    match calls.last() {
        Some(Call::Exec { candidates, .. }) => candidates.iter().map(absolute).collect(),
        _ => Vec::new(),
    }
}

fn dup(source: std::io::Error) -> Error {
    Error::Host { call: "fcntl(F_DUPFD_CLOEXEC)", source }
}

pub(crate) fn host(call: &'static str) -> impl Fn(Errno) -> Error {
    move |errno| Error::Host { call, source: errno.into() }
}

/// What the caller wants to know about a fault in the child.
fn explain(calls: &[Call], index: usize, fault: Fault, board: &Board) -> Error {
    let source = std::io::Error::from_raw_os_error(fault.errno);
    let syscall = fault.syscall.name();
    match calls.get(index) {
        Some(Call::Overlay(overlay)) => {
            let layer = match fault.detail {
                0 => None,
                UPPER => overlay.writable.as_ref().map(|(upper, _)| path(upper)),
                WORK => overlay.writable.as_ref().map(|(_, work)| path(work)),
                number => overlay.lowers.get(number as usize - 1).map(path),
            };
            Error::Overlay { syscall, layer, kernel: board.message(), source }
        }
        Some(call @ Call::Mount { at, .. }) => {
            Error::MountTarget { target: path(&at.path), syscall, call: call.to_string(), source }
        }
        Some(Call::Bind { root, path: inside, keep, .. }) if fault.detail == SOURCE => {
            let target = target_of(calls, *keep);
            Error::MountSource { target, root: path(root), path: path(inside), source }
        }
        Some(Call::Select { within, path: inside }) if fault.detail == SOURCE => {
            let target = target_of(calls, *within);
            Error::MountSource { target, root: PathBuf::from("/"), path: path(inside), source }
        }
        Some(Call::EnterWorkingDirectory { path: directory }) => {
            Error::WorkingDirectory { path: path(directory), source }
        }
        Some(Call::Exec { argv, .. }) if fault.syscall == Syscall::Execve => Error::Exec {
            argv0: argv.first().map(|argv0| argv0.to_string_lossy().into_owned()).unwrap_or_default(),
            errno: fault.errno,
            exists: fault.detail == EXISTS,
        },
        call => Error::Call { call: call.map(Call::to_string).unwrap_or_default(), syscall, source },
    }
}

/// Where what is kept was to be mounted; `/` is the root itself.
fn target_of(calls: &[Call], kept: Slot) -> PathBuf {
    let target = calls.iter().find_map(|call| match call {
        Call::Mount { at, source: Source::Kept { slot, .. }, .. } if *slot == kept => Some(path(&at.path)),
        _ => None,
    });
    target.unwrap_or_else(|| PathBuf::from("/"))
}

fn path(text: &CString) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(text.as_bytes()))
}
