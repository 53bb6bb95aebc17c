//! The list: which system calls a container may make unless somebody says otherwise.
//!
//! The facts are those of `seccomp/default_linux.go` in moby/profiles, at commit 02e898b137ae (after v0.2.3), the list that
//! Docker and BuildKit use. To bring this up to date, compare group by group; the order inside a group is the alphabet's.
//!
//! What is not here, and why:
//! - `ptrace` and `process_vm_*` want Linux 4.8 there. Kiln starts nothing on a kernel before 5.2.
//! - Names of s390, PowerPC, MIPS and RISC-V: `riscv_hwprobe`, `s390_pci_mmio_read`, `swapcontext` and the like, and the
//!   other order of `clone`'s arguments.

use super::{Action, Native};

/// Some calls, under one condition, with one outcome.
pub(super) struct Entry {
    /// The kernel's names, with blanks between. A name that an ABI does not have means nothing there.
    pub names: &'static str,
    /// When this holds.
    pub when: When,
    /// What happens then.
    pub then: Then,
}

/// A condition on the step, known before it starts.
pub(super) enum When {
    Always,
    /// The bounding set has this capability.
    With(&'static str),
    /// It does not.
    Without(&'static str),
    /// The machine is one of this kind, whichever of its ABIs is used.
    On(Native),
}

/// What happens to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    Do(Action),
    /// Allowed if the first argument passes, otherwise refused as if it were not in the list.
    AllowIf(&'static Test),
}

/// A condition on a call's first argument.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Test {
    /// It is in one of these ranges, ends included, in ascending order. Where arguments have 64 bits, the upper 32 are 0.
    In(&'static [(u32, u32)]),
    /// None of these bits is set.
    Without(u32),
}

/// What happens to a number that is not in the list, up to the greatest that is.
pub(super) const OTHERWISE: Action = Action::Errno(libc::EPERM as u16);

/// What happens to numbers above: the calls of a newer kernel, for which programs have a way to do without.
pub(super) const NEWER: Action = Action::Errno(libc::ENOSYS as u16);

const ALLOW: Then = Then::Do(Action::Allow);

pub(super) const LIST: &[Entry] = &[
    Entry { names: ALWAYS, when: When::Always, then: ALLOW },
    Entry { names: "process_vm_readv process_vm_writev ptrace", when: When::Always, then: ALLOW },
    Entry { names: "socket", when: When::Always, then: Then::AllowIf(&SOCKET_FAMILIES) },
    Entry { names: "personality", when: When::Always, then: Then::AllowIf(&PERSONALITIES) },
    Entry {
        names: "arm_fadvise64_64 arm_sync_file_range breakpoint cacheflush set_tls sync_file_range2",
        when: When::On(Native::Arm64),
        then: ALLOW,
    },
    Entry { names: "arch_prctl modify_ldt", when: When::On(Native::X86_64), then: ALLOW },
    Entry { names: "open_by_handle_at", when: When::With("DAC_READ_SEARCH"), then: ALLOW },
    Entry { names: ADMIN, when: When::With("SYS_ADMIN"), then: ALLOW },
    Entry { names: "clone", when: When::Without("SYS_ADMIN"), then: Then::AllowIf(&NO_NEW_NAMESPACE) },
    // Its flags are behind a pointer. The C library uses `clone` where there is no `clone3`.
    Entry {
        names: "clone3",
        when: When::Without("SYS_ADMIN"),
        then: Then::Do(Action::Errno(libc::ENOSYS as u16)),
    },
    Entry { names: "reboot", when: When::With("SYS_BOOT"), then: ALLOW },
    Entry { names: "chroot", when: When::With("SYS_CHROOT"), then: ALLOW },
    Entry { names: "delete_module finit_module init_module", when: When::With("SYS_MODULE"), then: ALLOW },
    Entry { names: "acct", when: When::With("SYS_PACCT"), then: ALLOW },
    Entry { names: "kcmp pidfd_getfd process_madvise", when: When::With("SYS_PTRACE"), then: ALLOW },
    Entry { names: "ioperm iopl", when: When::With("SYS_RAWIO"), then: ALLOW },
    Entry {
        names: "clock_settime clock_settime64 settimeofday stime",
        when: When::With("SYS_TIME"),
        then: ALLOW,
    },
    Entry { names: "vhangup", when: When::With("SYS_TTY_CONFIG"), then: ALLOW },
    Entry {
        names: "get_mempolicy mbind set_mempolicy set_mempolicy_home_node",
        when: When::With("SYS_NICE"),
        then: ALLOW,
    },
    Entry { names: "syslog", when: When::With("SYSLOG"), then: ALLOW },
    Entry { names: "bpf", when: When::With("BPF"), then: ALLOW },
    Entry { names: "perf_event_open", when: When::With("PERFMON"), then: ALLOW },
];

/// The families that a kernel still has, but for AF_ALG (38, the kernel's cryptography, for which no step has a use and
/// attackers had one) and AF_VSOCK (40, which reaches the machine's host). `socketcall`, the way of 32-bit programs,
/// keeps its arguments behind a pointer and is not tested.
const SOCKET_FAMILIES: Test = Test::In(&[
    (0, 11),  // UNIX to ROSE
    (13, 18), // NETBEUI, SECURITY, KEY, NETLINK, PACKET, ASH
    (21, 22), // RDS, SNA
    (24, 24), // PPPOX
    (26, 33), // LLC, IB, MPLS, CAN, TIPC, BLUETOOTH, IUCV, RXRPC
    (35, 36), // PHONET, IEEE802154
    (39, 39), // NFC
    (41, 45), // KCM, QIPCRTR, SMC, XDP, MCTP
]);

/// PER_LINUX and PER_LINUX32, each also with UNAME26, and the question for the present one. ADDR_NO_RANDOMIZE and
/// READ_IMPLIES_EXEC are what must not pass.
const PERSONALITIES: Test =
    Test::In(&[(0, 0), (0x8, 0x8), (0x2_0000, 0x2_0000), (0x2_0008, 0x2_0008), (0xffff_ffff, 0xffff_ffff)]);

/// CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID and NEWNET.
const NO_NEW_NAMESPACE: Test = Test::Without(0x7e02_0000);

const ADMIN: &str = "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie lsm_get_self_attr \
    lsm_list_modules lsm_set_self_attr mount mount_setattr move_mount open_tree perf_event_open quotactl quotactl_fd \
    setdomainname sethostname setns syslog umount umount2 unshare";

const ALWAYS: &str = "\
    _llseek _newselect accept accept4 access adjtimex alarm bind brk cachestat capget capset chdir chmod chown chown32 \
    clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64 clock_nanosleep \
    clock_nanosleep_time64 close close_range connect copy_file_range creat dup dup2 dup3 epoll_create epoll_create1 \
    epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2 execve execveat exit \
    exit_group faccessat faccessat2 fadvise64 fadvise64_64 fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2 \
    fchown fchown32 fchownat fcntl fcntl64 fdatasync fgetxattr flistxattr flock fork fremovexattr fsetxattr fstat \
    fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate ftruncate64 futex futex_requeue futex_time64 futex_wait \
    futex_waitv futex_wake futimesat get_robust_list get_thread_area getcpu getcwd getdents getdents64 getegid \
    getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 getitimer getpeername getpgid getpgrp getpid \
    getppid getpriority getrandom getresgid getresgid32 getresuid getresuid32 getrlimit getrusage getsid getsockname \
    getsockopt gettid gettimeofday getuid getuid32 getxattr getxattrat inotify_add_watch inotify_init inotify_init1 \
    inotify_rm_watch io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit ioctl \
    ioprio_get ioprio_set ipc kill landlock_add_rule landlock_create_ruleset landlock_restrict_self lchown lchown32 \
    lgetxattr link linkat listen listmount listxattr listxattrat llistxattr lremovexattr lseek lsetxattr lstat lstat64 \
    madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mkdir mkdirat mknod mknodat mlock mlock2 \
    mlockall mmap mmap2 mprotect mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend \
    mq_timedsend_time64 mq_unlink mremap mseal msgctl msgget msgrcv msgsnd msync munlock munlockall munmap \
    name_to_handle_at nanosleep newfstatat open openat openat2 pause pidfd_open pidfd_send_signal pipe pipe2 \
    pkey_alloc pkey_free pkey_mprotect poll ppoll ppoll_time64 prctl pread64 preadv preadv2 prlimit64 \
    process_mrelease pselect6 pselect6_time64 pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv recv \
    recvfrom recvmmsg recvmmsg_time64 recvmsg remap_file_pages removexattr removexattrat rename renameat renameat2 \
    restart_syscall rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend \
    rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo sched_get_priority_max sched_get_priority_min \
    sched_getaffinity sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval \
    sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield seccomp \
    select semctl semget semop semtimedop semtimedop_time64 send sendfile sendfile64 sendmmsg sendmsg sendto \
    set_robust_list set_thread_area set_tid_address setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups \
    setgroups32 setitimer setpgid setpriority setregid setregid32 setresgid setresgid32 setresuid setresuid32 setreuid \
    setreuid32 setrlimit setsid setsockopt setuid setuid32 setxattr setxattrat shmat shmctl shmdt shmget shutdown \
    sigaltstack signalfd signalfd4 sigprocmask sigreturn socketcall socketpair splice stat stat64 statfs statfs64 \
    statmount statx symlink symlinkat sync sync_file_range syncfs sysinfo tee tgkill time timer_create timer_delete \
    timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64 timerfd_create timerfd_gettime \
    timerfd_gettime64 timerfd_settime timerfd_settime64 times tkill truncate truncate64 ugetrlimit umask uname unlink \
    unlinkat uretprobe utime utimensat utimensat_time64 utimes vfork vmsplice wait4 waitid waitpid write writev";
