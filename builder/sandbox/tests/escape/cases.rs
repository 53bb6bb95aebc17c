//! What is tried, and what stands in its way.

use sandbox::Namespaces;

/// A way out.
pub struct Case {
    /// Of the attempt in `attempts.c`.
    pub name: &'static str,
    /// What somebody would gain.
    pub what: &'static str,
    /// Each of these alone is enough to refuse it; without all of them it succeeds.
    pub guards: &'static [Guard],
}

/// What refuses an attempt, and can be taken away.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Guard {
    /// The list of system calls.
    Filter,
    /// That the step does not have this capability.
    Capability(&'static str),
    /// A namespace of the step's own.
    Namespace(Namespaces),
    /// A path of the kernel is hidden.
    Mask(&'static str),
    /// A path of the kernel is read-only.
    ReadOnly(&'static str),
    /// `/sys` is mounted read-only.
    ReadOnlySys,
    /// Devices cannot be opened (here: mounts are `nodev`; by the zygote's filter, see `main.rs`).
    Devices,
    /// What the caller has open is closed before the first call.
    CloseForeign,
    /// What is open is closed when the program begins.
    CloseOthers,
    /// A session keyring of the step's own.
    SessionKeyring,
    /// A session of the step's own, so that it has no terminal but its own.
    Session,
}

const fn case(name: &'static str, what: &'static str, guards: &'static [Guard]) -> Case {
    Case { name, what, guards }
}

use Guard::{
    Capability, CloseForeign, CloseOthers, Devices, Filter, Mask, Namespace, ReadOnly, ReadOnlySys, Session,
    SessionKeyring,
};

const ADMIN: Guard = Capability("SYS_ADMIN");
const PROCESSES: Guard = Namespace(Namespaces::PID);

/// All of them. Without a guard in its line, an attempt fails by how Linux is made, and is tried all the same.
pub const CASES: &[Case] = &[
    case("core-pattern", "a program of the step's run by the kernel as root", &[ReadOnly("/proc/sys")]),
    case(
        "last-pid",
        "process ids that can be chosen",
        &[ReadOnly("/proc/sys"), Capability("CHECKPOINT_RESTORE")],
    ),
    case("sysrq-trigger", "the machine rebooted", &[ReadOnly("/proc/sysrq-trigger")]),
    case("irq", "interrupts moved", &[ReadOnly("/proc/irq")]),
    case("sys-write", "settings of the kernel changed", &[ReadOnlySys]),
    case("uevent-helper", "a program run by the kernel at each event of a device", &[ReadOnlySys]),
    case("kcore", "the kernel's memory read", &[Mask("/proc/kcore"), Capability("SYS_RAWIO")]),
    case("keys", "others' keys listed", &[Mask("/proc/keys")]),
    case("timer-list", "the kernel's addresses read", &[Mask("/proc/timer_list")]),
    case("firmware", "tables of the firmware read", &[Mask("/sys/firmware")]),
    case("release-agent", "a program run by the kernel when a group is empty", &[Filter, ADMIN]),
    case("user-namespace", "all capabilities, over less (CVE-2022-0492)", &[Filter]),
    case("clone-namespace", "the same, with a process", &[Filter]),
    case("clone3-namespace", "the same, past the test of flags", &[Filter]),
    case("new-proc", "a second /proc, without masks", &[Filter, ADMIN]),
    case("remount", "/proc/sys writable again", &[Filter, ADMIN]),
    case("unmask", "a mask taken off", &[Filter, ADMIN]),
    case("move-mount", "mounts moved over each other", &[Filter, ADMIN]),
    case("new-mount-api", "mounts past those who know mount(2) only", &[Filter, ADMIN]),
    case("pivot-root", "another root", &[Filter, ADMIN]),
    case("disk", "the machine's disk read, by a node made in each folder or come with the image", &[Devices]),
    case("kernel-log-device", "lines in the kernel's log", &[Devices]),
    case("fuse-device", "a file system of one's own", &[Devices]),
    case("ptrace", "a process outside taken over", &[PROCESSES, Capability("SYS_PTRACE")]),
    case("signal", "a process outside ended", &[PROCESSES]),
    case("root-of-process", "the host's files, by /proc/PID/root", &[PROCESSES, Capability("SYS_PTRACE")]),
    case("setns", "the host's mounts", &[Filter, PROCESSES, ADMIN, Capability("SYS_PTRACE")]),
    case("environment", "variables of a process outside", &[PROCESSES, Capability("SYS_PTRACE")]),
    case(
        "control-group",
        "a group of one's own, beside those with limits",
        &[PROCESSES, Capability("SYS_PTRACE")],
    ),
    case(
        "release-agent-file",
        "a program run by the kernel, where the groups are mounted",
        &[PROCESSES, Capability("SYS_PTRACE")],
    ),
    case("shared-file", "the host's /dev/shm", &[PROCESSES, Capability("SYS_PTRACE")]),
    case("terminal", "lines typed for whoever builds (TIOCSTI)", &[Session]),
    case("environment-of-init", "the builder's variables", &[Capability("SYS_PTRACE")]),
    case("memory-of-init", "the builder's memory", &[Capability("SYS_PTRACE")]),
    case("program-of-init", "the builder's program overwritten (CVE-2019-5736)", &[Capability("SYS_PTRACE")]),
    case("descriptors", "what the builder has open", &[CloseForeign, CloseOthers]),
    case("working-directory", "a folder that the builder has open (CVE-2024-21626)", &[CloseForeign]),
    case(
        "file-handle",
        "any file of a mounted file system (shocker)",
        &[Filter, Capability("DAC_READ_SEARCH")],
    ),
    case("double-chroot", "the host's files, by a working directory outside of the root", &[]),
    case("keyring-of-user", "root's keys", &[Filter]),
    case("keyring-of-session", "the builder's keys", &[Filter, SessionKeyring]),
    case("shared-memory", "shared memory of the host", &[Namespace(Namespaces::IPC)]),
    case("semaphores", "semaphores of the host", &[Namespace(Namespaces::IPC)]),
    case("sysv-queue", "a queue of the host, by its number", &[Namespace(Namespaces::IPC)]),
    case("message-queue", "a queue of the host, by its name", &[Namespace(Namespaces::IPC)]),
    case("abstract-socket", "a service of the host without a path", &[Namespace(Namespaces::NETWORK)]),
    case("network-device", "the host's packets", &[Namespace(Namespaces::NETWORK)]),
    case("host-name", "the machine renamed", &[Filter, ADMIN, Namespace(Namespaces::UTS)]),
    case("bpf", "a program in the kernel", &[Filter, ADMIN]),
    case("perf-events", "what other processes do", &[Filter, ADMIN]),
    case("userfaultfd", "races in the kernel won", &[Filter]),
    case("io-uring", "calls that no filter sees", &[Filter]),
    case("kernel-module", "a module loaded", &[Filter, Capability("SYS_MODULE")]),
    case("kexec", "another kernel", &[Filter, Capability("SYS_BOOT")]),
    case("reboot", "the machine rebooted", &[Filter, Capability("SYS_BOOT")]),
    case("swapon", "memory written to a file", &[Filter, ADMIN]),
    case("quota", "quotas changed", &[Filter]),
    case("accounting", "a log of all processes", &[Filter, Capability("SYS_PACCT")]),
    case("kernel-log", "the console's level set", &[Filter, Capability("SYSLOG")]),
    case("clock", "the clock set", &[Filter, Capability("SYS_TIME")]),
    case("io-ports", "the hardware's ports", &[Filter, Capability("SYS_RAWIO")]),
    case("vsock", "the machine's own host", &[Filter]),
    case("kernel-crypto", "the kernel's cryptography", &[Filter]),
    case("no-randomization", "addresses that can be guessed", &[Filter]),
    case("priority", "the other processes starved", &[Capability("SYS_NICE")]),
    case("less-killable", "somebody else killed when memory ends", &[Capability("SYS_RESOURCE")]),
    case("limit", "more than the limit", &[Capability("SYS_RESOURCE")]),
];

impl std::fmt::Display for Guard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Filter => write!(f, "seccomp"),
            Capability(name) => write!(f, "no CAP_{name}"),
            Namespace(which) => write!(f, "{which} namespace"),
            Mask(_) => write!(f, "mask"),
            ReadOnly(_) | ReadOnlySys => write!(f, "read-only"),
            Devices => write!(f, "devices"),
            CloseForeign => write!(f, "closed at the start"),
            CloseOthers => write!(f, "closed on exec"),
            SessionKeyring => write!(f, "session keyring"),
            Session => write!(f, "session"),
        }
    }
}
