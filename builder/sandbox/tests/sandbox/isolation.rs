//! What a step does not see, and cannot do.

use std::fs;

use sandbox::{CapabilitySet, Mode, MountKind, Network, RootKind, Status};

use crate::support::Step;

#[test]
fn it_sees_its_own_processes_only() {
    let Some(mut step) = Step::new() else { return };
    let processes =
        step.output("cd /proc; ls -d [0-9]*; cat 1/comm; tr '\\0' ' ' < 1/cmdline | awk '{ print $1, NF }'");
    assert_eq!(processes, "1\n2\nkiln-init\nkiln-init 1\n", "PID 1 and the shell");
    step.renew();
    // PID 1 is a copy of the caller's memory and must not be readable.
    assert_eq!(step.run("cat /proc/1/environ").stdout, "");
    step.renew();
    assert_ne!(step.run("readlink /proc/1/exe").report.status, Status::Exited(0));
}

#[test]
fn it_sees_its_own_mounts_only_and_the_host_sees_none_of_them() {
    let Some(mut step) = Step::new() else { return };
    step.mount("/t", MountKind::Tmpfs { size_bytes: None, mode: 0o1777, readonly: false });
    let before = fs::read_to_string("/proc/self/mountinfo").expect("there is /proc");
    step.script("sleep 100");
    let (running, _, _) = step.start().expect("the step starts");
    let during = fs::read_to_string("/proc/self/mountinfo").expect("there is /proc");
    running.kill().expect("it runs");
    running.wait().expect("it can be waited for");
    assert_eq!(before, during);
    step.renew();
    let mounts = step.output("awk '{ print $5 }' /proc/self/mountinfo");
    let is_mounted = |path: &&str| mounts.lines().any(|mount| mount == *path);
    assert!(["/", "/proc", "/dev", "/t"].iter().all(is_mounted), "{mounts}");
    assert!(!mounts.contains(&*step.folder.path().to_string_lossy()), "{mounts}");
}

#[test]
fn kernel_paths_are_masked_or_read_only() {
    let Some(mut step) = Step::new() else { return };
    let script = "\
for path in /proc/acpi /proc/scsi /sys/firmware /sys/devices/virtual/powercap; do
  [ ! -e $path ] || [ -z \"$(ls -A $path)\" ] || echo \"$path has content\"
done
for path in /proc/kcore /proc/keys /proc/timer_list /proc/sched_debug; do
  [ ! -e $path ] || [ \"$(head -c 1 $path | wc -c)\" = 0 ] || echo \"$path has content\"
done
for path in /proc/sysrq-trigger /proc/sys/kernel/domainname /proc/sys/vm/drop_caches /sys/kernel/profiling; do
  [ ! -e $path ] || ! (echo > $path) 2>/dev/null || echo \"$path can be written\"
done
[ -e /sys/firmware ] && [ -e /proc/sys ] && echo done";
    let kernel = step.kernel;
    for mount_setattr in [kernel.mount_setattr, false] {
        step.kernel.mount_setattr = mount_setattr;
        assert_eq!(step.output(script), "done\n");
        step.renew();
    }
}

#[test]
fn dev_is_small() {
    let Some(mut step) = Step::new() else { return };
    let list =
        "core\nfd\nfull\nmqueue\nnull\nptmx\npts\nrandom\nshm\nstderr\nstdin\nstdout\ntty\nurandom\nzero\n";
    let kernel = step.kernel;
    for make_devices in [true, false] {
        step.kernel.make_devices = make_devices;
        assert_eq!(step.output("ls /dev"), list);
        step.renew();
        let use_them = "head -c 4 /dev/zero | wc -c; head -c 4 /dev/urandom | wc -c; echo x > /dev/null; \
                        stat -c '%a %t:%T' /dev/null; (echo x > /dev/full) 2>/dev/null || echo full";
        assert_eq!(step.output(use_them), "4\n4\n666 1:3\nfull\n");
        step.renew();
    }
    step.kernel = kernel;
    step.spec.shm_size_bytes = 1 << 20;
    let fills = "dd if=/dev/zero of=/dev/shm/f bs=1k count=2000 2>/dev/null; stat -c %s /dev/shm/f";
    assert_eq!(step.output(fills), "1048576\n");
}

#[test]
fn without_a_network_there_is_lo_and_it_is_up() {
    let Some(mut step) = Step::new() else { return };
    step.spec.network = Network::None;
    let links = step.output("ip -o link | awk '{ print $2, $3 }'; ip -o addr show lo | grep -c 127.0.0.1");
    assert!(links.starts_with("lo:") && links.contains("LOOPBACK,UP") && links.ends_with("1\n"), "{links}");
    let names = links.lines().filter(|line| line.contains(": <")).count();
    let others = links.lines().filter(|line| line.contains("UP") && !line.starts_with("lo:")).count();
    assert_eq!(others, 0, "{names} links: {links}");
}

#[test]
fn it_cannot_mount_or_trace_by_default() {
    let Some(mut step) = Step::new() else { return };
    assert_ne!(step.run("mount -t tmpfs x /tmp").report.status, Status::Exited(0));
    step.renew();
    step.spec.capabilities = CapabilitySet::ALL;
    step.spec.protect_kernel_paths = false;
    step.output("mount -t tmpfs x /tmp && touch /tmp/x && [ -w /sys/kernel ]");
}

#[test]
fn a_chroot_inside_does_not_lead_out() {
    let Some(mut step) = Step::new() else { return };
    step.write("secret", "hidden");
    // The classic way out of a chroot, with CAP_SYS_CHROOT, which Docker's default set has.
    let script =
        "mkdir -p /j/bin; ls ../../../../../../../../../; ls /proc/self/root /proc/1/root 2>/dev/null; true";
    let seen = step.output(script);
    assert!(!seen.contains("secret") && !seen.contains("root\n"), "{seen}");
}

/// Runs another test of this file's program in a folder which holds nothing but it and busybox.
#[test]
fn an_empty_chroot_is_enough() {
    let why = "that this is a user namespace cannot be seen where there is no /proc";
    let Some(step) = Step::but_in(&[Mode::SUBIDS, Mode::SINGLE], why) else { return };
    fs::create_dir_all(step.at("root/bin")).expect("it is new");
    fs::create_dir(step.at("root/tmp")).expect("it is new");
    fs::copy("/bin/busybox", step.at("root/bin/busybox")).expect("busybox can be read");
    let program = std::env::current_exe().expect("there is /proc");
    fs::copy(program, step.at("root/program")).expect("it can be read");
    let tests = ["process::exit_codes_and_signals_are_told", "mounts::mount_points_leave_no_trace"];
    let output = std::process::Command::new("/bin/busybox")
        .arg("chroot")
        .arg(step.at("root"))
        .args(["/program", "--exact", "--nocapture"])
        .args(tests)
        .env_remove("TMPDIR")
        .output()
        .expect("busybox can be run");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        text.contains("2 passed") && !text.contains("SKIP"),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Works through every way that the machine's kernel allows; the older ones are asked for by taking
/// facts away.
#[test]
fn other_kernels_get_the_same_result() {
    let Some(mut step) = Step::new() else { return };
    let kernel = step.kernel;
    for (lowerdir_append, root) in [
        (false, RootKind::Mount),
        (true, RootKind::Initramfs),
        (true, RootKind::Chroot),
        (false, RootKind::Chroot),
    ] {
        step.kernel = sandbox::Kernel { lowerdir_append, root, ..kernel };
        let found = step.output("echo x > /f; cat /f; awk '{ print $5 }' /proc/self/mountinfo | head -1");
        assert_eq!(found, "x\n/\n", "{lowerdir_append} {root:?}");
        step.renew();
    }
}
