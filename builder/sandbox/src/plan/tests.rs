use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::plan;
use crate::emulate::Emulation;
use crate::{
    Call, CapabilitySet, Error, Kernel, Membership, Mode, Mount, MountKind, Network, Resource, ResourceLimit,
    RootKind, Rootfs, SecretBytes, Spec, User, WindowSize, Writable,
};

fn new_kernel() -> Kernel {
    Kernel {
        new_mount_api: true,
        lowerdir_append: true,
        mount_setattr: true,
        make_devices: true,
        filters_devices: true,
        seccomp: true,
        unified_cgroup: true,
        mounts_proc: true,
        mounts_sysfs: true,
        root: RootKind::Mount,
    }
}

fn old_kernel() -> Kernel {
    Kernel {
        lowerdir_append: false,
        mount_setattr: false,
        make_devices: false,
        unified_cgroup: false,
        ..new_kernel()
    }
}

fn spec() -> Spec {
    Spec {
        mode: Mode::ROOT,
        rootfs: Rootfs::Overlay {
            lowers: vec!["/s/top".into(), "/s/base".into()],
            writable: Writable { upper: "/s/upper".into(), work: "/s/work".into() },
        },
        empty: "/s/empty".into(),
        readonly_root: false,
        mounts: vec![],
        argv: vec!["sh".into(), "-c".into(), "true".into()],
        env: vec![("PATH".into(), "/bin".into())],
        secret_env: Vec::new(),
        cwd: "/".into(),
        user: User::default(),
        hostname: "host".into(),
        network: Network::Host,
        capabilities: CapabilitySet::docker_default(),
        protect_kernel_paths: true,
        filter_calls: true,
        shm_size_bytes: Spec::DEFAULT_SHM_SIZE_BYTES,
        limits: vec![],
        groups: vec![],
        emulation: None,
    }
}

fn bind(target: &str, readonly: bool) -> Mount {
    Mount {
        target: target.into(),
        kind: MountKind::Bind { root: "/host".into(), path: "sub".into(), readonly },
    }
}

fn text(spec: &Spec, kernel: &Kernel) -> Vec<String> {
    plan(spec, None, kernel).expect("the plan is possible").iter().map(Call::to_string).collect()
}

/// The index of the only call that begins so.
fn position(calls: &[String], beginning: &str) -> usize {
    let found: Vec<usize> = (0..calls.len()).filter(|index| calls[*index].starts_with(beginning)).collect();
    assert_eq!(found.len(), 1, "{beginning} in {calls:#?}");
    found[0]
}

#[test]
fn the_whole_plan_of_a_plain_step() {
    let expected = "\
clone3(mount, pid, ipc, uts, cgroup)
close(all of the caller's)
prctl(PR_SET_DUMPABLE, 0)
mount(/, private, recursive)
#0 = overlay of 2 layers, top /s/top, upper /s/upper, work /s/work
pivot_root(#0), umount2(host)
mount proc(nodev,noexec,nosuid) on /proc (stays)
mount tmpfs(nosuid,strictatime,mode=0755,size=65536k) on /dev (stays)
mkdir(/dev/pts, 0755)
mkdir(/dev/shm, 0755)
mkdir(/dev/mqueue, 0755)
mount devpts(noexec,nosuid,newinstance,ptmxmode=0666,mode=0620,gid=5) on /dev/pts (stays)
mount tmpfs(nodev,noexec,nosuid,mode=1777,size=67108864) on /dev/shm (stays)
mount mqueue(nodev,noexec,nosuid) on /dev/mqueue (stays), optional
mknod(/dev/full, c, 1:7, 0666)
mknod(/dev/null, c, 1:3, 0666)
mknod(/dev/random, c, 1:8, 0666)
mknod(/dev/tty, c, 5:0, 0666)
mknod(/dev/urandom, c, 1:9, 0666)
mknod(/dev/zero, c, 1:5, 0666)
symlink(/proc/kcore, /dev/core)
symlink(/proc/self/fd, /dev/fd)
symlink(pts/ptmx, /dev/ptmx)
symlink(/proc/self/fd/2, /dev/stderr)
symlink(/proc/self/fd/0, /dev/stdin)
symlink(/proc/self/fd/1, /dev/stdout)
mount sysfs(nodev,noexec,nosuid,rdonly) on /sys (stays)
mount cgroup2(nodev,noexec,nosuid,rdonly) on /sys/fs/cgroup (stays), optional
mask /proc/acpi
mask /proc/asound
mask /proc/kcore
mask /proc/keys
mask /proc/latency_stats
mask /proc/timer_list
mask /proc/timer_stats
mask /proc/sched_debug
mask /proc/scsi
mask /sys/firmware
mask /sys/devices/virtual/powercap
read-only /proc/bus
read-only /proc/fs
read-only /proc/irq
read-only /proc/sys
read-only /proc/sysrq-trigger
sethostname(host)
keyctl(JOIN_SESSION_KEYRING)
clone(vfork)
setsid()
dup2(0, 1, 2)
chdir(/)
prctl(PR_CAPBSET_DROP, all but 00000000a80425fb)
setgroups([])
seccomp(filter)
setresgid(0), setresuid(0)
capset(00000000a80425fb)
umask(0022)
close_range(3, all, CLOEXEC), sigprocmask(none)
execve(/bin/sh) of sh -c true with 1 variables";
    assert_eq!(text(&spec(), &new_kernel()).join("\n"), expected);
}

#[test]
fn sources_are_opened_before_the_pivot_and_attached_after_it() {
    let mut spec = spec();
    spec.mounts = vec![
        bind("/a/b", true),
        Mount {
            target: "/a".into(),
            kind: MountKind::Overlay { lowers: vec!["/s/stage".into()], writable: None, path: "/d".into() },
        },
        Mount {
            target: "/t".into(),
            kind: MountKind::Tmpfs { size_bytes: Some(4096), mode: 0o1777, readonly: false },
        },
        Mount {
            target: "/run/secrets/k".into(),
            kind: MountKind::File { content: SecretBytes::copy(b"hidden"), mode: 0o400, uid: 1, gid: 2 },
        },
    ];
    let calls = text(&spec, &new_kernel());
    let pivot = position(&calls, "pivot_root");
    assert_eq!(
        calls[5..pivot],
        [
            "#1 = ramfs",
            "#2 = overlay of 2 layers, top /s/stage, read-only",
            "#2 = /d in #2",
            "#3 = bind sub in /host, read-only",
            "#4 = file 4 of 6 bytes in #1, mode 0400, owner 1:2, read-only",
        ]
    );
    let attached: Vec<&String> =
        calls[pivot..].iter().filter(|call| call.starts_with("mount") && !call.contains("(stays)")).collect();
    assert_eq!(
        attached,
        [
            "mount #2 on /a",
            "mount tmpfs(nosuid,mode=1777,size=4096) on /t",
            "mount #3 on /a/b",
            "mount #4 on /run/secrets/k",
        ]
    );
}

#[test]
fn the_root_is_left_before_capabilities_are_dropped_and_masks_come_last() {
    let mut spec = spec();
    spec.mounts = vec![bind("/sys/x", true), bind("/etc/hosts", true)];
    spec.readonly_root = true;
    spec.user = User { uid: 5, gid: 6, additional_gids: vec![7] };
    let calls = text(&spec, &new_kernel());
    let at = |beginning| position(&calls, beginning);
    let order = [
        at("mount(/, private"),
        at("#0 = overlay"),
        at("pivot_root"),
        at("mount proc"),
        at("mount tmpfs(nosuid,strictatime"),
        at("mount sysfs("),
        at("mount #1 on /sys/x"),
        at("mask /proc/acpi"),
        at("mask /sys/firmware"),
        at("read-only /proc/bus"),
        at("read-only /proc/sysrq-trigger"),
        calls.iter().position(|call| call == "read-only /").expect("the root becomes read-only"),
        at("fchown(pipes, 5)"),
        at("clone(vfork)"),
        at("setsid"),
        at("chdir"),
        at("prctl(PR_CAPBSET_DROP"),
        at("setgroups([7])"),
        at("seccomp(filter)"),
        at("setresgid(6), setresuid(5)"),
        at("umask"),
        at("close_range"),
        at("execve"),
    ];
    assert!(order.is_sorted(), "{calls:#?}");
    assert!(!calls.iter().any(|call| call.starts_with("capset")), "a user has no capabilities to set");
}

#[test]
fn an_insecure_step_sees_the_kernel_as_it_is() {
    let mut spec = spec();
    spec.protect_kernel_paths = false;
    spec.filter_calls = false;
    spec.capabilities = CapabilitySet::ALL;
    let calls = text(&spec, &new_kernel());
    assert!(!calls.iter().any(|call| call.starts_with("seccomp")));
    assert!(!calls.iter().any(|call| call.starts_with("mask") || call.starts_with("read-only")));
    position(&calls, "mount sysfs(nodev,noexec,nosuid) on /sys");
}

#[test]
fn an_old_kernel_is_told_in_one_string_and_remounts() {
    let mut spec = spec();
    spec.mounts = vec![bind("/m", true), bind("/n", false)];
    let calls = text(&spec, &old_kernel());
    position(&calls, "#0 = overlay of 2 layers, top /s/top, upper /s/upper, work /s/work, by mount(2) in /s");
    position(&calls, "#1 = bind sub in /host");
    position(&calls, "mount #1, remounted read-only, on /m");
    position(&calls, "mount #2 on /n");
    position(&calls, "#3 = bind full in /dev");
    position(&calls, "mount #3 on /dev/full");
    position(&calls, "read-only /proc/sys, by remounting");
    assert!(!calls.iter().any(|call| call.starts_with("mknod") || call.contains("cgroup2")));
}

#[test]
fn a_chroot_and_an_initramfs_are_left_by_other_ways() {
    let chroot = text(&spec(), &Kernel { root: RootKind::Chroot, ..new_kernel() });
    assert_eq!(
        chroot[3..5],
        ["mount(mount of /, private, recursive) through chroot /s/empty", "bind / on / and chroot to it"]
    );
    let initramfs = text(&spec(), &Kernel { root: RootKind::Initramfs, ..new_kernel() });
    assert_eq!(initramfs[3..5], ["mount(/, private, recursive)", "bind / on / and chroot to it"]);
}

#[test]
fn without_a_filter_devices_are_forbidden_mount_by_mount() {
    let kernel = Kernel { filters_devices: false, ..new_kernel() };
    let calls = text(&spec(), &kernel);
    let forbidden = position(
        &calls,
        "bind /dev/full /dev/null /dev/random /dev/tty /dev/urandom /dev/zero each, mount_setattr(/, nodev, recursive) but \
         /dev/full /dev/null /dev/random /dev/tty /dev/urandom /dev/zero /dev/pts",
    );
    assert!(position(&calls, "mount sysfs") < forbidden && forbidden < position(&calls, "mask /proc/acpi"));
    let bound = text(&spec(), &Kernel { make_devices: false, ..kernel });
    position(&bound, "bind  each, mount_setattr(/, nodev, recursive) but /dev/full");
    let mut insecure = spec();
    insecure.protect_kernel_paths = false;
    assert!(!text(&insecure, &kernel).iter().any(|call| call.contains("nodev, recursive")));
}

#[test]
fn stacks_are_filled_up_with_the_empty_folder() {
    let mut spec = spec();
    spec.rootfs = Rootfs::Overlay {
        lowers: vec![],
        writable: Writable { upper: "/s/upper".into(), work: "/s/work".into() },
    };
    let one = Mount {
        target: "/m".into(),
        kind: MountKind::Overlay { lowers: vec!["/s/a".into()], writable: None, path: PathBuf::new() },
    };
    spec.mounts = vec![one];
    let calls = text(&spec, &new_kernel());
    position(&calls, "#0 = overlay of 1 layers, top /s/empty, upper");
    position(&calls, "#1 = overlay of 2 layers, top /s/a, read-only");
}

#[test]
fn a_network_that_is_there_is_entered_before_anything_shows_one() {
    let mut spec = spec();
    let namespace = std::fs::File::open("/proc/self/ns/net").expect("there is /proc");
    spec.network = Network::Namespace(std::sync::Arc::new(namespace.into()));
    let calls: Vec<String> =
        plan(&spec, None, &new_kernel()).expect("the plan is possible").iter().map(Call::to_string).collect();
    assert_eq!(calls[0], "clone3(mount, pid, ipc, uts, cgroup)");
    let order = [
        position(&calls, "close(all of the caller's)"),
        position(&calls, "setns(network)"),
        position(&calls, "mount proc("),
        position(&calls, "mount sysfs("),
    ];
    assert!(order.is_sorted(), "{calls:#?}");
    assert!(!calls.contains(&"ioctl(lo, up)".to_owned()), "{calls:#?}");
}

#[test]
fn a_network_of_its_own_has_lo_and_a_terminal_is_opened_inside() {
    let mut spec = spec();
    spec.network = Network::None;
    spec.limits = vec![ResourceLimit { resource: Resource::Nofile, soft: 1024, hard: u64::MAX }];
    let size = WindowSize { rows: 24, columns: 80 };
    let calls: Vec<String> = plan(&spec, Some(size), &new_kernel())
        .expect("the plan is possible")
        .iter()
        .map(Call::to_string)
        .collect();
    assert_eq!(calls[0], "clone3(mount, pid, ipc, uts, cgroup, network)");
    let order = [
        position(&calls, "mount devpts"),
        position(&calls, "open(/dev/pts/ptmx) of 80x24 for 0"),
        position(&calls, "#1 = bind dev/pts/0 in /"),
        position(&calls, "mount #1 on /dev/console"),
        position(&calls, "ioctl(lo, up)"),
        position(&calls, "setsid(), ioctl(TIOCSCTTY)"),
        position(&calls, "prlimit(nofile, 1024:unlimited)"),
        position(&calls, "prctl(PR_CAPBSET_DROP"),
    ];
    assert!(order.is_sorted(), "{calls:#?}");
}

#[test]
fn what_cannot_be_planned_is_refused() {
    let refused = |change: &dyn Fn(&mut Spec)| {
        let mut spec = spec();
        change(&mut spec);
        plan(&spec, None, &new_kernel()).expect_err("it cannot be planned")
    };
    assert!(matches!(refused(&|spec| spec.argv.clear()), Error::NoCommand));
    assert!(matches!(refused(&|spec| spec.cwd = "here".into()), Error::NotAbsolute { .. }));
    assert!(matches!(refused(&|spec| spec.argv.push("a\0b".into())), Error::Nul { .. }));
    for target in ["/", "/.", "//"] {
        assert!(matches!(refused(&|spec| spec.mounts = vec![bind(target, true)]), Error::MountOnRoot));
    }
    let secret = refused(&|spec| spec.env.push(("KEY".into(), "hid\0den".into()))).to_string();
    assert!(secret.contains("KEY") && !secret.contains("hid"), "{secret}");
    let layers = |count: usize| {
        move |spec: &mut Spec| {
            let Rootfs::Overlay { lowers, .. } = &mut spec.rootfs else { return };
            *lowers = vec!["/s/a".into(); count];
        }
    };
    assert!(matches!(refused(&layers(501)), Error::TooManyLayers { count: 501, limit: 500 }));
    let no_api = Kernel { new_mount_api: false, ..new_kernel() };
    assert!(matches!(plan(&spec(), None, &no_api), Err(Error::Unsupported { .. })));
}

#[test]
fn neither_secrets_nor_the_environment_are_printed() {
    let mut spec = spec();
    spec.env.push(("TOKEN".into(), "hidden".into()));
    spec.mounts = vec![Mount {
        target: "/k".into(),
        kind: MountKind::File { content: SecretBytes::copy(b"hidden"), mode: 0o400, uid: 0, gid: 0 },
    }];
    let calls = plan(&spec, None, &new_kernel()).expect("the plan is possible");
    let printed = format!("{calls:?} {spec:?}");
    assert!(!printed.contains("hidden") && printed.contains("TOKEN"), "{printed}");
}

#[test]
fn control_groups_are_entered_before_anything_is_mounted() {
    let mut limited = spec();
    limited.groups = vec![
        Membership { folder: "/sys/fs/cgroup/memory/kiln.1.0/0".into(), unified: false },
        Membership { folder: "/sys/fs/cgroup/unified/kiln.1.0/0".into(), unified: true },
    ];
    let calls = text(&limited, &new_kernel());
    let first = position(&calls, "join the control group /sys/fs/cgroup/memory");
    assert_eq!(
        calls[first..first + 2],
        [
            "join the control group /sys/fs/cgroup/memory/kiln.1.0/0 (version 1), unshare(cgroup)",
            "join the control group /sys/fs/cgroup/unified/kiln.1.0/0 (version 2), unshare(cgroup)",
        ]
    );
    assert!(first + 1 < position(&calls, "mount(/, private"));
    limited.groups = vec![Membership { folder: "relative".into(), unified: true }];
    assert!(matches!(plan(&limited, None, &new_kernel()), Err(Error::NotAbsolute { .. })));
}

fn in_chroot() -> Spec {
    Spec { mode: Mode::CHROOT, rootfs: Rootfs::Directory { path: "/s/root".into() }, ..spec() }
}

#[test]
fn the_whole_plan_of_a_step_in_a_chroot() {
    let expected = "\
clone3()
close(all of the caller's)
prctl(PR_SET_DUMPABLE, 0)
prctl(PR_SET_CHILD_SUBREAPER)
keyctl(JOIN_SESSION_KEYRING)
clone(vfork)
setsid()
dup2(0, 1, 2)
chroot(/s/root), chdir(/)
chdir(/)
prctl(PR_CAPBSET_DROP, all but 00000000a80025fb)
setgroups([])
seccomp(filter with a listener)
seccomp(filter)
setresgid(0), setresuid(0)
capset(00000000a80025fb)
prctl(PR_SET_PDEATHSIG, SIGKILL)
umask(0022)
close_range(3, all, CLOEXEC), sigprocmask(none)
execve(/bin/sh) of sh -c true with 1 variables";
    assert_eq!(text(&in_chroot(), &new_kernel()).join("\n"), expected);
}

#[test]
fn what_takes_a_namespace_is_refused_in_a_chroot() {
    let alone = in_chroot();
    let table = [
        (Spec { network: Network::None, ..alone.clone() }, "a step without a network"),
        (Spec { mounts: vec![bind("/b", true)], ..alone.clone() }, "a mount"),
        (Spec { readonly_root: true, ..alone.clone() }, "a read-only root"),
        (Spec { rootfs: spec().rootfs, ..alone.clone() }, "a root of stacked layers"),
    ];
    for (spec, expected) in table {
        let refused = plan(&spec, None, &new_kernel());
        assert!(matches!(refused, Err(Error::NotInChroot { what }) if what == expected), "{refused:?}");
    }
}

#[test]
fn in_a_user_namespace_the_kernels_files_are_made_while_the_hosts_are_in_sight() {
    let mut inside = spec();
    inside.mode = Mode::SUBIDS;
    inside.network = Network::None;
    // Its root seems to be allowed to make devices.
    let kernel = Kernel { filters_devices: false, ..new_kernel() };
    let calls = text(&inside, &kernel);
    let order = [
        position(
            &calls,
            "#0 = overlay of 2 layers, top /s/top, upper /s/upper, work /s/work, with userxattr",
        ),
        position(&calls, "#1 = bind full in /dev"),
        position(&calls, "#7 = proc(nodev,noexec,nosuid)"),
        position(&calls, "#8 = sysfs(nodev,noexec,nosuid,rdonly)"),
        position(&calls, "pivot_root"),
        position(&calls, "mount #7 on /proc (stays)"),
        position(&calls, "mount devpts(noexec,nosuid,newinstance,ptmxmode=0666,mode=0620,gid=5)"),
        position(&calls, "mount #1 on /dev/full (stays)"),
        position(&calls, "mount #8 on /sys (stays)"),
        position(&calls, "setgroups([])"),
    ];
    assert!(order.is_sorted(), "{calls:#?}");
    assert!(!calls.iter().any(|call| call.contains("mknod") || call.contains("nodev, recursive")));

    // The host's network is not its own, so that its /sys may not be mounted.
    inside.network = Network::Host;
    let calls = text(&inside, &kernel);
    position(&calls, "#8 = bind  in /sys, read-only");

    let hidden = Kernel { mounts_proc: false, mounts_sysfs: false, ..kernel };
    inside.network = Network::None;
    let calls = text(&inside, &hidden);
    position(&calls, "#7 = bind  in /proc");
    position(&calls, "#8 = bind  in /sys, read-only");
}

#[test]
fn with_one_id_there_is_no_other_and_no_group() {
    let mut inside = spec();
    inside.mode = Mode::SINGLE;
    inside.user = User { uid: 1000, gid: 1000, additional_gids: vec![1000, 7] };
    inside.mounts = vec![Mount {
        target: "/k".into(),
        kind: MountKind::File { content: SecretBytes::copy(b"x"), mode: 0o400, uid: 1000, gid: 1000 },
    }];
    let calls = text(&inside, &new_kernel());
    position(&calls, "setresgid(0), setresuid(0)");
    position(&calls, "capset(0000000000000000)");
    position(&calls, "mount devpts(noexec,nosuid,newinstance,ptmxmode=0666,mode=0620)");
    assert!(calls.iter().any(|call| call.contains("mode 0400, owner 0:0")), "{calls:#?}");
    assert!(!calls.iter().any(|call| call.starts_with("setgroups") || call.starts_with("fchown")));
}

#[test]
fn who_has_sub_ids_is_asked_about_devices_and_does_without_where_another_listens() {
    let emulation = || Emulation { owners: Arc::new(()), records: Arc::default(), mounts: BTreeMap::new() };
    let listens = |spec: &Spec| {
        let calls = plan(spec, None, &new_kernel()).expect("a good spec");
        let place = |wanted: fn(&Call) -> bool| calls.iter().position(wanted);
        let ids = place(|call| matches!(call, Call::SetIds { .. }));
        let listener = place(|call| matches!(call, Call::InstallListener { .. }));
        let optional = listener.map(|at| matches!(calls[at], Call::InstallListener { optional: true, .. }));
        (optional, ids.map(|ids| listener.is_some_and(|listener| listener < ids)))
    };
    let mode = |mode, emulation| Spec { mode, emulation, ..spec() };
    assert_eq!(listens(&mode(Mode::SUBIDS, Some(emulation()))), (Some(true), Some(true)));
    assert_eq!(listens(&mode(Mode::SUBIDS, None)), (None, Some(false)));
    assert_eq!(listens(&mode(Mode::SINGLE, Some(emulation()))), (Some(false), None));
}
