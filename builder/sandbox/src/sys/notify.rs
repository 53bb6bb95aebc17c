//! The calls of who answers for a filter (seccomp user notification), and of who looks into another process.

use std::ffi::{c_int, c_ulong};
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::io::Errno;

use super::check;
use crate::Instruction;

/// Numbers of `ioctl` (`linux/seccomp.h`), the same on every machine.
const RECEIVE: c_ulong = 0xc050_2100;
const SEND: c_ulong = 0xc018_2101;
const IS_VALID: c_ulong = 0x4008_2102;
const ADD_DESCRIPTOR: c_ulong = 0x4018_2103;
const SET_FLAGS: c_ulong = 0x4008_2104;

/// `SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV`, of Linux 5.19.
const WAIT_KILLABLE: c_ulong = 1 << 5;
/// The flags of a filter that is listened to.
const LISTENER: c_ulong =
    libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW | WAIT_KILLABLE;

/// A call that waits for an answer (`struct seccomp_notif`).
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(crate) struct Notification {
    pub id: u64,
    /// The thread, as this process counts.
    pub thread: u32,
    flags: u32,
    pub number: i32,
    pub architecture: u32,
    instruction: u64,
    pub arguments: [u64; 6],
}

/// How a call ends (`struct seccomp_notif_resp`).
#[repr(C)]
struct Answer {
    id: u64,
    value: i64,
    error: i32,
    flags: u32,
}

/// `struct seccomp_notif_addfd`.
#[repr(C)]
struct Addition {
    id: u64,
    flags: u32,
    source: u32,
    number: u32,
    number_flags: u32,
}

/// Whether the kernel has filters that are listened to, with calls that wait killably once received (Linux 5.19).
pub(crate) fn has_listener() -> Result<(), Errno> {
    // SAFETY: there is no program at NULL, which the kernel says after it has looked at the flags.
    let tried = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            LISTENER,
            std::ptr::null::<libc::sock_fprog>(),
        )
    };
    match check(tried) {
        Ok(_) | Err(Errno::FAULT) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// `seccomp(SECCOMP_SET_MODE_FILTER)` of a filter that is listened to: by who holds what is returned.
pub(crate) fn install_listener(instructions: &[Instruction]) -> Result<OwnedFd, Errno> {
    let program = libc::sock_fprog {
        len: u16::try_from(instructions.len()).map_err(|_| Errno::INVAL)?,
        filter: instructions.as_ptr().cast_mut().cast(),
    };
    // SAFETY: the kernel reads `len` instructions, which are laid out as it wants them, see `install_filter`.
    let fd = check(unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, LISTENER, &raw const program)
    })?;
    // SAFETY: the kernel has just made this descriptor for us; it is closed on exec.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as c_int) })
}

/// Has the answerer and the process it answers change places on one processor (Linux 6.6). Without it answers take longer.
pub(crate) fn wake_on_this_processor(listener: BorrowedFd<'_>) {
    // SAFETY: the call takes a number.
    let _ = unsafe { libc::ioctl(listener.as_raw_fd(), SET_FLAGS as _, 1_u64) };
}

/// `struct sched_attr`, as it first was.
#[derive(Default)]
#[repr(C)]
struct Schedule {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

/// Lets this thread wait less for its turn: who asks for slices of 0.1 ms goes before who has longer ones (Linux 6.12; older ones
/// take no notice). Until a call is received a signal may end it with `EINTR`, against which the kernel has no flag.
pub(crate) fn take_short_turns() {
    const SIZE: u32 = mem::size_of::<Schedule>() as u32;
    let mut now = Schedule::default();
    // SAFETY: the kernel fills at most `SIZE` bytes.
    let got = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut now, SIZE, 0_u32) };
    if got != 0 || ![libc::SCHED_OTHER as u32, libc::SCHED_BATCH as u32].contains(&now.policy) {
        return;
    }
    (now.size, now.runtime) = (SIZE, 100_000);
    // SAFETY: the kernel reads `SIZE` bytes.
    let _ = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const now, 0_u32) };
}

/// `SECCOMP_IOCTL_NOTIF_RECV`: the next call; `ENOENT` where it was killed meanwhile.
pub(crate) fn receive(listener: BorrowedFd<'_>) -> Result<Notification, Errno> {
    let mut notification = Notification::default();
    // SAFETY: the kernel fills what is as large as it thinks, see the assertion below, and zeroed, as it wants it.
    check(unsafe { libc::ioctl(listener.as_raw_fd(), RECEIVE as _, &raw mut notification) }.into())?;
    Ok(notification)
}

const _: () = assert!(mem::size_of::<Notification>() == 80 && mem::size_of::<Answer>() == 24);
const _: () = assert!(mem::size_of::<Addition>() == 24 && mem::size_of::<Schedule>() == 48);

/// `SECCOMP_IOCTL_NOTIF_SEND`: the call ends with a value or, if it is not 0, an error; or is made after all. Nobody may be
/// waiting any more, which is no error worth telling.
pub(crate) fn answer(listener: BorrowedFd<'_>, id: u64, result: Result<i64, Errno>, go_on: bool) {
    let (value, error) = match result {
        Ok(value) => (value, 0),
        Err(errno) => (0, -errno.raw_os_error()),
    };
    let answer = Answer { id, value, error, flags: u32::from(go_on) };
    // SAFETY: the kernel reads as much as it thinks this is, see the assertion above.
    unsafe { libc::ioctl(listener.as_raw_fd(), SEND as _, &raw const answer) };
}

/// `SECCOMP_IOCTL_NOTIF_ID_VALID`: whether the call still waits, and what was read of its thread was of it.
pub(crate) fn still_waits(listener: BorrowedFd<'_>, id: u64) -> bool {
    // SAFETY: the kernel reads 8 bytes.
    unsafe { libc::ioctl(listener.as_raw_fd(), IS_VALID as _, &raw const id) == 0 }
}

/// `SECCOMP_IOCTL_NOTIF_ADDFD`: the call ends with a descriptor of its process's, for a file of ours.
pub(crate) fn answer_with_file(
    listener: BorrowedFd<'_>,
    id: u64,
    file: BorrowedFd<'_>,
    close_on_exec: bool,
) -> Result<(), Errno> {
    /// `SECCOMP_ADDFD_FLAG_SEND` (Linux 5.14).
    const END: u32 = 2;
    let number_flags = if close_on_exec { libc::O_CLOEXEC as u32 } else { 0 };
    let addition = Addition { id, flags: END, source: file.as_raw_fd() as u32, number: 0, number_flags };
    // SAFETY: the kernel reads as much as it thinks this is, see the assertion above.
    check(unsafe { libc::ioctl(listener.as_raw_fd(), ADD_DESCRIPTOR as _, &raw const addition) }.into())
        .map(drop)
}

/// `process_vm_readv`: as much of another process's memory as there is, up to the length of the buffer.
pub(crate) fn read_memory(thread: u32, address: u64, buffer: &mut [u8]) -> Result<usize, Errno> {
    const PAGE: u64 = 4096;
    let length = buffer.len();
    let local = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: length };
    // Two pieces, as what cannot be read is left out by the piece.
    let first = ((PAGE - address % PAGE) as usize).min(length);
    let piece = |from: u64, length| libc::iovec { iov_base: from as *mut _, iov_len: length };
    let remote = [piece(address, first), piece(address.wrapping_add(first as u64), length - first)];
    // SAFETY: the kernel writes at most `length` bytes to `buffer`; addresses of the other process are its own to check.
    let read =
        check(
            unsafe { libc::process_vm_readv(thread as i32, &raw const local, 1, remote.as_ptr(), 2, 0) } as _
        )?;
    Ok(read as usize)
}

/// `process_vm_writev`: all of the bytes, or `EFAULT`.
pub(crate) fn write_memory(thread: u32, address: u64, bytes: &[u8]) -> Result<(), Errno> {
    if bytes.is_empty() {
        return Ok(());
    }
    let local = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let remote = libc::iovec { iov_base: address as *mut _, iov_len: bytes.len() };
    // SAFETY: the kernel reads the bytes; addresses of the other process are its own to check.
    let written =
        unsafe { libc::process_vm_writev(thread as i32, &raw const local, 1, &raw const remote, 1, 0) };
    if check(written as _)? as usize == bytes.len() { Ok(()) } else { Err(Errno::FAULT) }
}

/// `prlimit` of another process: both values of a limit.
pub(crate) fn limit_of(thread: u32, resource: u32) -> Result<(u64, u64), Errno> {
    let mut old = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel fills one `rlimit64`; no new value is given.
    check(unsafe {
        libc::syscall(libc::SYS_prlimit64, thread, resource, std::ptr::null::<libc::rlimit64>(), &raw mut old)
    })?;
    Ok((old.rlim_cur, old.rlim_max))
}

/// `prlimit` of another process: sets both values of a limit.
pub(crate) fn set_limit_of(thread: u32, resource: u32, soft: u64, hard: u64) -> Result<(), Errno> {
    let new = libc::rlimit64 { rlim_cur: soft, rlim_max: hard };
    // SAFETY: the kernel reads one `rlimit64`; the old value is not asked for.
    check(unsafe {
        libc::syscall(
            libc::SYS_prlimit64,
            thread,
            resource,
            &raw const new,
            std::ptr::null_mut::<libc::rlimit64>(),
        )
    })
    .map(drop)
}

/// `unshare(CLONE_FS)`: root, working directory and mask of this thread are its own from now on.
pub(crate) fn unshare_folders() -> Result<(), Errno> {
    // SAFETY: the call takes no pointer, and no descriptor of this process changes its meaning.
    check(unsafe { libc::unshare(libc::CLONE_FS) }.into()).map(drop)
}

/// `statx` of an open file, as the kernel lays it out.
pub(crate) fn statx_bytes(file: BorrowedFd<'_>, flags: u32, mask: u32) -> Result<[u8; 256], Errno> {
    let mut bytes = [0_u8; 256];
    let flags = flags as c_int | libc::AT_EMPTY_PATH;
    // SAFETY: the kernel fills a `struct statx`, which has 256 bytes.
    check(unsafe {
        libc::syscall(libc::SYS_statx, file.as_raw_fd(), c"".as_ptr(), flags, mask, bytes.as_mut_ptr())
    })?;
    Ok(bytes)
}
