//! The system calls that no safe crate wraps: the only `unsafe` of the workspace.
//!
//! Each function makes one call, is safe to call, allocates nothing and takes no lock, so that the
//! child of a program with many threads may call it. Where glibc's wrapper would do more than the call
//! (`setresuid` signals every thread, `sigprocmask` hides two signals, `fork` runs handlers), the
//! call is made directly.

mod arena;
mod board;
pub(crate) mod notify;
mod packet;
mod pages;

use std::ffi::{CStr, CString, c_char, c_int, c_long, c_void};
use std::marker::PhantomData;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::{self, NonNull};

use rustix::io::Errno;

use crate::Instruction;
use crate::board::Finished;

pub(crate) use arena::give_memory_back;
pub use arena::share_memory_of_threads;
pub(crate) use board::SharedBoard;
pub(crate) use packet::packet_socket;
pub(crate) use pages::Pages;

/// What `clone_process` returns, twice.
pub(crate) enum Cloned {
    /// In the new process.
    Child,
    /// In the caller: a descriptor of the new process.
    Parent(OwnedFd),
}

/// Of `clone3` alone (Linux 5.7): wider than what libc's type for flags holds.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Every signal, as the kernel's mask.
const ALL_SIGNALS: u64 = u64::MAX;

fn last_error() -> Errno {
    // SAFETY: the function returns a valid pointer to this thread's errno.
    Errno::from_raw_os_error(unsafe { *libc::__errno_location() })
}

/// The result of a call that fails with -1.
fn check(result: c_long) -> Result<c_long, Errno> {
    if result == -1 { Err(last_error()) } else { Ok(result) }
}

/// `clone3(flags)` without shared memory: like `fork`, with a pidfd and no exit signal, so that only a wait for this very
/// child sees it. Falls back to `clone` where a filter does not know `clone3`. Block all signals first: the child still has
/// the caller's handlers.
///
/// With a `group`, the folder of a control group of version 2, the child is made in it; there is no fallback then.
pub(crate) fn clone_process(flags: i32, group: Option<BorrowedFd<'_>>) -> Result<Cloned, Errno> {
    let mut pidfd: c_int = -1;
    let flags = flags | libc::CLONE_PIDFD;
    // SAFETY: all zero is a valid `clone_args`.
    let mut arguments: libc::clone_args = unsafe { mem::zeroed() };
    arguments.flags = flags as u64;
    if let Some(group) = group {
        arguments.flags |= CLONE_INTO_CGROUP;
        arguments.cgroup = group.as_raw_fd() as u64;
    }
    arguments.pidfd = &raw mut pidfd as u64;
    // SAFETY: without CLONE_VM the child runs on its own copy of this stack; the kernel writes the
    // descriptor to `pidfd`, which outlives the call.
    let result =
        unsafe { libc::syscall(libc::SYS_clone3, &raw mut arguments, mem::size_of::<libc::clone_args>()) };
    let result = match check(result) {
        Err(Errno::NOSYS) if group.is_none() => {
            // SAFETY: as above. The order of the last two arguments differs between machines; both are 0.
            check(unsafe { libc::syscall(libc::SYS_clone, flags as c_long, 0, &raw mut pidfd, 0, 0) })?
        }
        other => other?,
    };
    if result == 0 {
        return Ok(Cloned::Child);
    }
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(Cloned::Parent(unsafe { OwnedFd::from_raw_fd(pidfd) }))
}

/// `rt_sigprocmask(SIG_SETMASK)`: blocks the signals of the mask, and returns the mask before.
fn set_signal_mask(mask: u64) -> u64 {
    let mut before = 0_u64;
    // SAFETY: both masks are the 8 bytes that the call is told they are.
    unsafe {
        libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const mask, &raw mut before, 8_usize)
    };
    before
}

/// Signals blocked until this is dropped. For one thread; neither moved to another nor shared.
pub(crate) struct BlockedSignals {
    before: u64,
    _this_thread: PhantomData<*const ()>,
}

/// Blocks every signal for this thread.
pub(crate) fn block_signals() -> BlockedSignals {
    BlockedSignals { before: set_signal_mask(ALL_SIGNALS), _this_thread: PhantomData }
}

impl Drop for BlockedSignals {
    fn drop(&mut self) {
        set_signal_mask(self.before);
    }
}

/// Lets every signal through.
pub(crate) fn unblock_signals() {
    set_signal_mask(0);
}

/// Gives every signal its default action, also those that were ignored.
pub(crate) fn reset_signal_actions() {
    // `struct sigaction` of every architecture fits, and all zero is SIG_DFL.
    let default = [0_u64; 16];
    for signal in 1..=64 {
        // SAFETY: the kernel reads a `struct sigaction` from `default`, which is larger. It refuses
        // SIGKILL and SIGSTOP, which is right.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                default.as_ptr(),
                ptr::null_mut::<c_void>(),
                8_usize,
            )
        };
    }
}

/// `signalfd4`: a descriptor that yields every blocked signal.
pub(crate) fn signal_descriptor() -> Result<OwnedFd, Errno> {
    let mask = ALL_SIGNALS;
    // SAFETY: the mask is the 8 bytes that the call is told it is.
    let fd = check(unsafe {
        libc::syscall(libc::SYS_signalfd4, -1, &raw const mask, 8_usize, libc::SFD_CLOEXEC)
    })?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as c_int) })
}

/// `bpf(BPF_PROG_LOAD)` of a program that is asked about devices.
pub(crate) fn load_device_program(instructions: &[u64]) -> Result<OwnedFd, Errno> {
    const BPF_PROG_LOAD: c_int = 5;
    const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
    #[repr(C)]
    struct Load {
        kind: u32,
        count: u32,
        instructions: u64,
        license: u64,
        rest: [u64; 3],
    }
    let load = Load {
        kind: BPF_PROG_TYPE_CGROUP_DEVICE,
        count: instructions.len() as u32,
        instructions: instructions.as_ptr() as u64,
        license: c"".as_ptr() as u64,
        rest: [0; 3],
    };
    // SAFETY: the kernel reads as many bytes as it is told, and through the two pointers, which outlive the call, as
    // many instructions as it is told and a string that ends.
    let fd = check(unsafe {
        libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, &raw const load, mem::size_of::<Load>())
    })?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as c_int) })
}

/// `bpf(BPF_PROG_ATTACH)`: whoever is in the control group opens devices only if the program, and those of the groups above,
/// agree.
pub(crate) fn attach_device_program(group: BorrowedFd<'_>, program: BorrowedFd<'_>) -> Result<(), Errno> {
    const BPF_PROG_ATTACH: c_int = 8;
    const BPF_CGROUP_DEVICE: u32 = 6;
    const BPF_F_ALLOW_MULTI: u32 = 2;
    let attach = [group.as_raw_fd() as u32, program.as_raw_fd() as u32, BPF_CGROUP_DEVICE, BPF_F_ALLOW_MULTI];
    // SAFETY: the kernel reads as many bytes as it is told.
    check(unsafe {
        libc::syscall(libc::SYS_bpf, BPF_PROG_ATTACH, &raw const attach, mem::size_of_val(&attach))
    })
    .map(drop)
}

/// `close_range(first, last, flags)` of descriptors that nobody in this process will use again.
pub(crate) fn close_range(first: u32, last: u32, only_on_exec: bool) -> Result<(), Errno> {
    let flags = if only_on_exec { libc::CLOSE_RANGE_CLOEXEC } else { 0 };
    // SAFETY: the call takes no pointer. It is made in a forked child, on copies of descriptors whose
    // owners are never touched or dropped there.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) }).map(drop)
}

/// Memory for the stack of the process that [`spawn`] makes.
pub(crate) struct Stack {
    start: NonNull<c_void>,
}

const STACK_BYTES: usize = 512 << 10;

impl Stack {
    /// Reserves a stack; pages are taken as they are used.
    pub fn new() -> Result<Stack, Errno> {
        map(STACK_BYTES, libc::MAP_PRIVATE | libc::MAP_STACK, None).map(|start| Stack { start })
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: it was mapped with this length, and nothing points into it.
        unsafe { libc::munmap(self.start.as_ptr(), STACK_BYTES) };
    }
}

/// New memory: of its own, or that of a file of at least that length.
fn map(bytes: usize, flags: c_int, file: Option<BorrowedFd<'_>>) -> Result<NonNull<c_void>, Errno> {
    let flags = flags | if file.is_none() { libc::MAP_ANONYMOUS } else { 0 };
    // SAFETY: a new mapping touches no existing memory.
    let start = unsafe {
        libc::mmap(
            ptr::null_mut(),
            bytes,
            libc::PROT_READ | libc::PROT_WRITE,
            flags,
            file.map_or(-1, |file| file.as_raw_fd()),
            0,
        )
    };
    if start == libc::MAP_FAILED {
        return Err(last_error());
    }
    NonNull::new(start).ok_or(Errno::NOMEM)
}

/// What `enter` finds on the new stack.
struct Entry<'a, T> {
    body: fn(&T) -> !,
    argument: &'a T,
}

extern "C" fn enter<T>(entry: *mut c_void) -> c_int {
    // SAFETY: `spawn` passes an `Entry<T>` that lives until the new process has called execve or ended,
    // because the caller is stopped until then.
    let entry = unsafe { &*entry.cast::<Entry<'_, T>>() };
    (entry.body)(entry.argument)
}

/// `clone(CLONE_VM|CLONE_VFORK)`: runs `body` in a new process on `stack`, which shares this one's memory, and
/// returns its id once it has called `execve` or ended. No page table is copied. `body` must change nothing
/// but atomics and its own stack.
pub(crate) fn spawn<T>(stack: &Stack, body: fn(&T) -> !, argument: &T) -> Result<i32, Errno> {
    let entry = Entry { body, argument };
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    // SAFETY: the top of the stack is inside the mapping's end and aligned; `entry` outlives the child's
    // use of it, see `enter`. CLONE_VFORK keeps this thread, the only one, from running meanwhile.
    let pid = unsafe {
        let top = stack.start.as_ptr().byte_add(STACK_BYTES);
        libc::clone(enter::<T>, top, flags, (&raw const entry).cast_mut().cast())
    };
    check(c_long::from(pid)).map(|pid| pid as i32)
}

/// Arguments or environment in the form of `execve`.
pub(crate) struct Strings<'a> {
    pointers: Vec<*const c_char>,
    _owner: PhantomData<&'a CString>,
}

impl<'a> Strings<'a> {
    /// Pointers to these strings, and the NULL at the end.
    pub fn new(strings: &'a [CString]) -> Strings<'a> {
        let pointers = strings.iter().map(|text| text.as_ptr()).chain([ptr::null()]).collect();
        Strings { pointers, _owner: PhantomData }
    }
}

/// `execve`. Returns only when it failed.
pub(crate) fn execve(path: &CStr, argv: &Strings<'_>, env: &Strings<'_>) -> Errno {
    // SAFETY: both lists end with NULL, and the strings they point to outlive them.
    unsafe { libc::execve(path.as_ptr(), argv.pointers.as_ptr(), env.pointers.as_ptr()) };
    last_error()
}

unsafe extern "C" {
    /// glibc's and musl's name for `argv[0]`, where the kernel put it.
    static program_invocation_name: *mut c_char;
    /// The variables of the environment, each `NAME=value`, NULL at the end.
    static environ: *const *mut c_char;
}

/// Overwrites this process's copy of the caller's command line, which `/proc/PID/cmdline` shows to everybody,
/// by a name. `arguments` are what must be there, each with its NUL; otherwise nothing is written.
pub(crate) fn hide_arguments(arguments: &[u8], name: &[u8]) {
    // SAFETY: the variable is set before `main` and only read here.
    let start = unsafe { program_invocation_name }.cast::<u8>();
    if start.is_null() {
        return;
    }
    for (index, byte) in arguments.iter().enumerate() {
        // SAFETY: all bytes before this one are the arguments' bytes, so this one is still in, or right
        // behind, the strings that the kernel put on the stack, behind which the environment follows.
        if unsafe { start.add(index).read() } != *byte {
            return;
        }
    }
    for (index, byte) in (0..arguments.len()).zip(name.iter().copied().chain(std::iter::repeat(0))) {
        // SAFETY: the loop above has read every one of these bytes. They are this process's own copy, and
        // std has copied the arguments long before.
        unsafe { start.add(index).write(byte) };
    }
}

/// `unshare(CLONE_NEWCGROUP)`: the groups that this process is in now are the first ones that it sees.
pub(crate) fn new_cgroup_namespace() -> Result<(), Errno> {
    // SAFETY: the call takes no pointer, and no descriptor or memory changes hands by it.
    check(unsafe { libc::unshare(libc::CLONE_NEWCGROUP) }.into()).map(drop)
}

/// Overwrites this process's copy of the caller's environment, which `/proc/PID/environ` shows to whoever may trace it. Nothing
/// of this process asks for a variable after that.
pub(crate) fn hide_environment() {
    // SAFETY: the list is set before `main`, ends with NULL, and nobody of this process's one thread changes it.
    let mut next = unsafe { environ };
    if next.is_null() {
        return;
    }
    loop {
        // SAFETY: not behind the NULL at the end.
        let variable = unsafe { next.read() };
        if variable.is_null() {
            return;
        }
        // SAFETY: a text that ends with NUL, in this process's own writable memory: the stack that the kernel made, or what
        // `setenv` allocated. No reference into it lives on: std copies what it is asked for.
        unsafe { variable.write_bytes(0, libc::strlen(variable)) };
        // SAFETY: there is a NULL behind what is not NULL.
        next = unsafe { next.add(1) };
    }
}

/// `unshare(CLONE_NEWUSER)`: this process, which has one thread, is in a new user namespace, and nobody in it yet.
pub(crate) fn unshare_user() -> Result<(), Errno> {
    // SAFETY: the call takes no pointer, and no descriptor or memory changes hands by it.
    check(unsafe { libc::unshare(libc::CLONE_NEWUSER) }.into()).map(drop)
}

/// `_exit`: no destructor, no handler.
pub(crate) fn exit(status: i32) -> ! {
    // SAFETY: the call takes no pointer and does not return.
    unsafe { libc::_exit(status) }
}

/// `wait4(-1)`: a child that ended, by id, and how; `None` if none has ended yet (`block` is false).
pub(crate) fn wait_for_child(block: bool) -> Result<Option<(i32, Finished)>, Errno> {
    let mut wait_status = 0;
    // SAFETY: all zero is a valid `rusage`.
    let mut usage: libc::rusage = unsafe { mem::zeroed() };
    let options = if block { 0 } else { libc::WNOHANG };
    // SAFETY: both pointers are to locals that the kernel fills.
    let pid = check(unsafe { libc::wait4(-1, &raw mut wait_status, options, &raw mut usage) }.into())?;
    let microseconds = |time: libc::timeval| time.tv_sec as u64 * 1_000_000 + time.tv_usec as u64;
    let finished = Finished {
        wait_status,
        user_microseconds: microseconds(usage.ru_utime),
        system_microseconds: microseconds(usage.ru_stime),
        peak_kibibytes: usage.ru_maxrss as u64,
    };
    Ok((pid != 0).then_some((pid as i32, finished)))
}

/// Largest resident set so far of this process, in KiB.
pub(crate) fn peak_kibibytes() -> u64 {
    // SAFETY: all zero is a valid `rusage`.
    let mut usage: libc::rusage = unsafe { mem::zeroed() };
    // SAFETY: the pointer is to a local that the kernel fills.
    unsafe { libc::getrusage(libc::RUSAGE_SELF, &raw mut usage) };
    usage.ru_maxrss as u64
}

/// `kill`. A process that has ended is no error worth telling.
pub(crate) fn kill(pid: i32, signal: i32) {
    // SAFETY: the call takes no pointer.
    unsafe { libc::kill(pid, signal) };
}

/// `pidfd_send_signal` of any signal number.
pub(crate) fn send_signal(process: BorrowedFd<'_>, signal: i32) -> Result<(), Errno> {
    // SAFETY: no information is passed with the signal, and the descriptor is open.
    check(unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, process.as_raw_fd(), signal, ptr::null::<c_void>(), 0)
    })
    .map(drop)
}

/// Whether the kernel has `mount_setattr`.
pub(crate) fn has_mount_setattr() -> bool {
    // SAFETY: the size 0 is refused before the pointer is used.
    let result = unsafe {
        libc::syscall(libc::SYS_mount_setattr, -1, c"".as_ptr(), 0, ptr::null::<libc::mount_attr>(), 0_usize)
    };
    check(result) != Err(Errno::NOSYS)
}

/// `mount_setattr(mount, "", AT_EMPTY_PATH)`: sets and clears `MOUNT_ATTR_*`, also below if `recursive`.
pub(crate) fn mount_setattr(
    mount: BorrowedFd<'_>,
    set: u64,
    clear: u64,
    recursive: bool,
) -> Result<(), Errno> {
    // SAFETY: all zero is a valid `mount_attr`.
    let mut attributes: libc::mount_attr = unsafe { mem::zeroed() };
    attributes.attr_set = set;
    attributes.attr_clr = clear;
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the pointer is to a local of the size that is passed.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attributes,
            mem::size_of::<libc::mount_attr>(),
        )
    })
    .map(drop)
}

/// `prctl(PR_CAPBSET_DROP)`; `EINVAL` for a capability that the kernel does not know.
pub(crate) fn drop_from_bounding_set(capability: u32) -> Result<(), Errno> {
    // SAFETY: the call takes no pointer.
    check(unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability as libc::c_ulong, 0, 0, 0) }.into())
        .map(drop)
}

// The kernel reads instructions as `struct sock_filter`.
const _: () = assert!(
    mem::size_of::<Instruction>() == mem::size_of::<libc::sock_filter>()
        && mem::align_of::<Instruction>() == mem::align_of::<libc::sock_filter>()
);

/// Whether the kernel takes filters: `seccomp(SECCOMP_GET_ACTION_AVAIL)`.
pub(crate) fn has_seccomp() -> bool {
    let action = libc::SECCOMP_RET_ERRNO;
    // SAFETY: the kernel reads the 4 bytes of `action`.
    check(unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_GET_ACTION_AVAIL, 0, &raw const action) })
        .is_ok()
}

/// `seccomp(SECCOMP_SET_MODE_FILTER)`, for this thread and what it starts. The flag is what runc sets: without
/// it Linux before 5.16 takes speculative store bypass from the process, which makes all of it slower.
pub(crate) fn install_filter(instructions: &[Instruction]) -> Result<(), Errno> {
    let program = libc::sock_fprog {
        len: u16::try_from(instructions.len()).map_err(|_| Errno::INVAL)?,
        filter: instructions.as_ptr().cast_mut().cast(),
    };
    // SAFETY: the kernel reads `len` instructions, which are laid out as it wants them, see above, and writes none.
    check(unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW,
            &raw const program,
        )
    })
    .map(drop)
}

/// `setgroups`, for this thread.
pub(crate) fn set_groups(gids: &[u32]) -> Result<(), Errno> {
    // SAFETY: the kernel reads `gids.len()` ids from the pointer.
    check(unsafe { libc::syscall(libc::SYS_setgroups, gids.len(), gids.as_ptr()) }).map(drop)
}

/// `setresgid`, for this thread.
pub(crate) fn set_gid(gid: u32) -> Result<(), Errno> {
    // SAFETY: the call takes no pointer.
    check(unsafe { libc::syscall(libc::SYS_setresgid, gid, gid, gid) }).map(drop)
}

/// `setresuid`, for this thread.
pub(crate) fn set_uid(uid: u32) -> Result<(), Errno> {
    // SAFETY: the call takes no pointer.
    check(unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) }).map(drop)
}

/// `prlimit` of this process: sets a soft and a hard limit.
pub(crate) fn set_limit(resource: u32, soft: u64, hard: u64) -> Result<(), Errno> {
    let new = libc::rlimit64 { rlim_cur: soft, rlim_max: hard };
    // SAFETY: the kernel reads one `rlimit64`; the old value is not asked for.
    check(unsafe {
        libc::syscall(libc::SYS_prlimit64, 0, resource, &raw const new, ptr::null_mut::<libc::rlimit64>())
    })
    .map(drop)
}

/// `prlimit` of this process: the hard limit.
pub(crate) fn hard_limit(resource: u32) -> Result<u64, Errno> {
    let mut old = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel fills one `rlimit64`; no new value is given.
    check(unsafe {
        libc::syscall(libc::SYS_prlimit64, 0, resource, ptr::null::<libc::rlimit64>(), &raw mut old)
    })?;
    Ok(old.rlim_max)
}

/// `keyctl(KEYCTL_JOIN_SESSION_KEYRING, NULL)`. A kernel without keyrings has none to share.
pub(crate) fn join_session_keyring() {
    // SAFETY: NULL asks for an anonymous keyring.
    unsafe { libc::syscall(libc::SYS_keyctl, libc::KEYCTL_JOIN_SESSION_KEYRING, ptr::null::<c_char>()) };
}

/// `ioctl(SIOCSIFFLAGS)`: brings the interface `lo` up.
pub(crate) fn loopback_up(socket: BorrowedFd<'_>) -> Result<(), Errno> {
    // SAFETY: all zero is a valid `ifreq`.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    for (slot, byte) in request.ifr_name.iter_mut().zip(b"lo") {
        *slot = *byte as c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as i16;
    // SAFETY: the kernel reads one `ifreq` from the pointer.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) }.into()).map(drop)
}

/// `getsockopt`: fills `value`, which says what is asked where the option wants that.
pub(crate) fn get_option(
    socket: BorrowedFd<'_>,
    level: c_int,
    name: c_int,
    value: &mut [u8],
) -> Result<(), Errno> {
    let mut length = libc::socklen_t::try_from(value.len()).map_err(|_| Errno::INVAL)?;
    // SAFETY: the kernel reads and writes `length` bytes at most, which `value` has.
    let result = unsafe {
        libc::getsockopt(socket.as_raw_fd(), level, name, value.as_mut_ptr().cast(), &raw mut length)
    };
    check(result.into()).map(drop)
}

/// `unshare(CLONE_NEWNET)`: moves this thread into a new network namespace.
pub(crate) fn unshare_network() -> Result<(), Errno> {
    // SAFETY: the call takes no pointer, and no descriptor of this process changes its meaning.
    check(unsafe { libc::unshare(libc::CLONE_NEWNET) }.into()).map(drop)
}

/// The number of `SIOCGSKNS`, of the type that the C library at hand has for it (`linux/sockios.h`).
const SIOCGSKNS: libc::Ioctl = 0x894c;

/// `ioctl(SIOCGSKNS)`: the network namespace that a socket is of.
pub(crate) fn network_of(socket: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    // SAFETY: the call takes no third argument.
    let fd = check(unsafe { libc::ioctl(socket.as_raw_fd(), SIOCGSKNS) }.into())?;
    // SAFETY: the kernel has just made this descriptor for us; it is closed on exec.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as c_int) })
}

/// `dup2(from, to)` onto one of 0, 1 and 2 in a child that is about to call `execve`.
pub(crate) fn place(from: BorrowedFd<'_>, to: c_int) -> Result<(), Errno> {
    // SAFETY: the call takes no pointer; nobody in this process owns 0, 1 and 2.
    check(unsafe { libc::dup2(from.as_raw_fd(), to) }.into()).map(drop)
}
