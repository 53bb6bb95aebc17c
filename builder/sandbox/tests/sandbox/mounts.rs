//! Mounts: what they show, where they land, and that they leave no trace.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;

use sandbox::{Error, Mode, MountKind, SecretBytes, Writable};

use crate::support::{Step, chain};

#[test]
fn binds_are_read_only_or_not() {
    let Some(mut step) = Step::new() else { return };
    step.write("host/f", "content");
    let kernel = step.kernel;
    for mount_setattr in [kernel.mount_setattr, false] {
        step.kernel.mount_setattr = mount_setattr;
        step.bind("/ro", "host", true);
        step.bind("/rw", "host", false);
        step.bind("/file", "host/f", true);
        let script = "cat /ro/f /file; (echo x > /ro/x) 2>/dev/null || echo ' refused'; \
                      (echo x > /file) 2>/dev/null || echo refused; echo y > /rw/y";
        assert_eq!(step.output(script), "contentcontent refused\nrefused\n");
        assert!(step.at("host/y").exists() && !step.at("host/x").exists());
        step.spec.mounts.clear();
        step.renew();
    }
}

#[test]
fn a_path_of_a_bind_cannot_leave_its_root() {
    let Some(mut step) = Step::new() else { return };
    step.write("secret", "hidden");
    step.write("host/secret", "inside");
    symlink("/secret", step.at("host/absolute")).expect("it is new");
    symlink("../../../../../secret", step.at("host/relative")).expect("it is new");
    for path in ["absolute", "relative", "../secret", "/secret"] {
        let kind = MountKind::Bind { root: step.at("host"), path: path.into(), readonly: true };
        step.mount("/m", kind);
        assert_eq!(step.output("cat /m"), "inside", "{path}");
        step.spec.mounts.clear();
        step.renew();
    }
    symlink("/proc/self/root", step.at("host/magic")).expect("it is new");
    step.bind("/m", "host/magic", true);
    // From the step's folder as root the link leads into that folder, where there is no /proc.
    let error = step.script("true").start().err().expect("there is no such source");
    assert!(matches!(error, Error::MountSource { .. }), "{error:?}");
}

#[test]
fn a_missing_source_is_named() {
    let Some(mut step) = Step::new() else { return };
    step.bind("/m", "no/such", true);
    let text = chain(&step.script("true").start().err().expect("there is no such source"));
    assert!(
        text.contains(r#""no/such""#) && text.contains(r#"mount at "/m""#) && text.contains("No such file")
    );
}

#[test]
fn writes_to_stacked_layers_can_be_thrown_away() {
    let Some(mut step) = Step::new() else { return };
    step.write("stage/d/e/f", "below");
    step.write("stage2/d/g", "above");
    for name in ["mu", "mw"] {
        fs::create_dir(step.at(name)).expect("it is new");
    }
    let lowers = vec![step.at("stage2"), step.at("stage")];
    let writable = Some(Writable { upper: step.at("mu"), work: step.at("mw") });
    step.mount("/rw", MountKind::Overlay { lowers: lowers.clone(), writable, path: "/d".into() });
    step.mount("/ro", MountKind::Overlay { lowers, writable: None, path: "d/e".into() });
    step.mount(
        "/one",
        MountKind::Overlay { lowers: vec![step.at("stage")], writable: None, path: "".into() },
    );
    let kernel = step.kernel;
    for lowerdir_append in [kernel.lowerdir_append, false] {
        step.kernel.lowerdir_append = lowerdir_append;
        let script = "cat /rw/e/f /rw/g /ro/f /one/d/e/f; echo x > /rw/new && ls /rw; \
                      (echo x > /ro/x) 2>/dev/null || echo refused";
        assert_eq!(step.output(script), "belowabovebelowbelowe\ng\nnew\nrefused\n");
        assert!(step.at("mu/d/new").exists() && !step.at("stage/d/new").exists());
        assert_eq!(step.upper(), ["dev", "proc", "sys"]);
        step.renew();
        for name in ["mu", "mw"] {
            fs::remove_dir_all(step.at(name)).expect("nothing is mounted there");
            fs::create_dir(step.at(name)).expect("it is gone");
        }
    }
}

#[test]
fn a_tmpfs_has_its_size_and_mode() {
    let Some(mut step) = Step::new() else { return };
    step.mount("/t", MountKind::Tmpfs { size_bytes: Some(1 << 20), mode: 0o1777, readonly: false });
    let script =
        "stat -c %a /t; dd if=/dev/zero of=/t/f bs=1k count=4000 2>/dev/null || echo full; stat -c %s /t/f";
    assert_eq!(step.output(script), "1777\nfull\n1048576\n");
    assert_eq!(step.upper(), ["dev", "proc", "sys"]);
}

#[test]
fn a_tmpfs_over_a_folder_has_its_mode() {
    let Some(mut step) = Step::new() else { return };
    for (name, mode) in [("own", 0o700), ("all", 0o1777), ("group", 0o2750)] {
        fs::create_dir(step.at(&format!("base/{name}"))).expect("it is new");
        let permissions = fs::Permissions::from_mode(mode);
        fs::set_permissions(step.at(&format!("base/{name}")), permissions).expect("it is ours");
        let kind = MountKind::Tmpfs { size_bytes: None, mode: 0o1777, readonly: false };
        step.mount(&format!("/{name}"), kind);
    }
    let script = "stat -c %a /own /all /group; touch /own/x";
    assert_eq!(step.output(script), "700\n1777\n2750\n");
    assert_eq!(step.upper(), ["dev", "proc", "sys"]);
}

#[test]
fn a_tmpfs_can_be_read_only() {
    let Some(mut step) = Step::new() else { return };
    step.mount("/t", MountKind::Tmpfs { size_bytes: None, mode: 0o1777, readonly: true });
    assert_eq!(step.output("ls /t; (touch /t/x) 2>/dev/null || echo refused"), "refused\n");
}

#[test]
fn an_empty_tree_can_be_mounted() {
    let Some(mut step) = Step::new() else { return };
    for name in ["mu", "mw"] {
        fs::create_dir(step.at(name)).expect("it is new");
    }
    let writable = Some(Writable { upper: step.at("mu"), work: step.at("mw") });
    step.mount("/ro", MountKind::Overlay { lowers: Vec::new(), writable: None, path: "".into() });
    step.mount("/rw", MountKind::Overlay { lowers: Vec::new(), writable, path: "".into() });
    let script = "ls /ro /rw; (touch /ro/x) 2>/dev/null || echo refused; touch /rw/x && ls /rw";
    assert_eq!(step.output(script), "/ro:\n\n/rw:\nrefused\nx\n");
    assert_eq!(step.upper(), ["dev", "proc", "sys"]);
}

#[test]
fn mounts_upon_each_other_leave_no_trace() {
    let Some(mut step) = Step::new() else { return };
    step.write("one/a", "below");
    step.write("two/b", "above");
    step.bind("/new/point", "one", true);
    step.bind("/new/point", "two", true);
    assert_eq!(step.output("ls /new/point"), "b\n");
    assert_eq!(step.upper(), ["dev", "proc", "sys"]);
}

#[test]
fn a_secret_is_a_read_only_file_in_memory() {
    let Some(mut step) = Step::but_in(&[Mode::SINGLE], "whose a secret is, is emulated by the engine") else {
        return;
    };
    let file = |text: &str, mode| MountKind::File {
        content: SecretBytes::copy(text.as_bytes()),
        mode,
        uid: 12,
        gid: 34,
    };
    step.mount("/run/secrets/key", file("hidden", 0o400));
    step.mount("/dev/pipes/EOF", file("#!/bin/sh\necho ran\n", 0o755));
    let script = "cat /run/secrets/key; stat -c ' %a %u:%g' /run/secrets/key; \
                  (echo x > /run/secrets/key) 2>/dev/null || echo refused; /dev/pipes/EOF; \
                  awk '$5 ~ /secrets/ { print $8 }' /proc/self/mountinfo";
    assert_eq!(step.output(script), "hidden 400 12:34\nrefused\nran\nramfs\n");
    assert_eq!(step.upper(), ["dev", "proc", "sys"]);
}

#[test]
fn an_empty_secret_and_a_large_one_arrive() {
    let Some(mut step) = Step::new() else { return };
    let file = |length| MountKind::File {
        content: SecretBytes::from(vec![b'a'; length]),
        mode: 0o444,
        uid: 0,
        gid: 0,
    };
    step.mount("/empty", file(0));
    step.mount("/large", file(3_000_000));
    assert_eq!(step.output("cat /empty | wc -c; cat /large | wc -c"), "0\n3000000\n");
    assert_eq!(step.upper(), ["dev", "proc", "sys"]);
}

/// As the conformance case `run-etc-stubs`: /dev, /proc and /sys stay, /etc and what was mounted in it go.
#[test]
fn mount_points_leave_no_trace() {
    let Some(mut step) = Step::new() else { return };
    fs::remove_dir(step.at("base/etc")).expect("it is empty");
    fs::create_dir(step.at("base/opt")).expect("it is new");
    let old = fs::FileTimes::new()
        .set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_600_000_000));
    fs::File::open(step.at("base/opt")).and_then(|folder| folder.set_times(old)).expect("it is ours");
    step.write("hosts", "127.0.0.1 localhost\n");
    step.bind("/etc/hosts", "hosts", true);
    step.bind("/etc/resolv.conf", "hosts", true);
    step.bind("/opt/a/b/c", "hosts", true);
    step.bind("/opt/other", "hosts", true);
    step.bind("/srv", "work", true);
    let outcome = step.run("ls /etc; ls -a / | wc -l");
    assert_eq!(outcome.stdout, "hosts\nresolv.conf\n10\n", "{}", outcome.stderr);
    assert_eq!(step.upper(), ["dev", "opt", "proc", "sys"]);
    let times = [step.at("upper/opt"), step.at("base/opt")]
        .map(|path| path.metadata().map(|found| (found.mtime(), found.mtime_nsec())).expect("it is there"));
    assert_eq!(times[0], times[1], "the folder that held them has its time back");
    assert_eq!(outcome.report.mount_points_removed.len(), 5);
    assert_eq!(outcome.report.mount_points_left, Vec::<PathBuf>::new());
}

#[test]
fn what_the_step_does_beside_a_mount_point_stays() {
    let Some(mut step) = Step::new() else { return };
    step.write("hosts", "x\n");
    step.bind("/new/deep/hosts", "hosts", true);
    step.bind("/etc/hosts", "hosts", true);
    let outcome = step.run("echo x > /new/kept; echo x > /etc/kept");
    assert_eq!(step.upper(), ["dev", "etc", "etc/kept", "new", "new/kept", "proc", "sys"]);
    assert_eq!(outcome.report.mount_points_left, [PathBuf::from("/new/deep/hosts")]);
    let folder = step.at("upper/etc").metadata().expect("it is there").mtime();
    let file = step.at("upper/etc/kept").metadata().expect("it is there").mtime();
    assert!(folder >= file, "the folder has the time of the step's own change");
}

#[test]
fn mount_points_go_also_when_the_command_is_missing() {
    let Some(mut step) = Step::new() else { return };
    step.write("hosts", "x\n");
    step.bind("/etc/hosts", "hosts", true);
    step.spec.argv = vec!["/no/such".into()];
    assert!(step.start().is_err());
    assert_eq!(step.upper(), ["dev", "etc", "proc", "sys"]);
}

#[test]
fn an_existing_mount_point_is_left_alone() {
    let Some(mut step) = Step::new() else { return };
    step.write("base/etc/hosts", "image's\n");
    step.write("hosts", "host's\n");
    step.bind("/etc/hosts", "hosts", true);
    let outcome = step.run("cat /etc/hosts");
    assert_eq!(outcome.stdout, "host's\n");
    assert_eq!(step.upper(), ["dev", "proc", "sys"]);
    assert!(outcome.report.mount_points_removed.is_empty());
}

#[test]
fn symlinks_in_a_target_stay_inside() {
    let Some(mut step) = Step::new() else { return };
    step.write("f", "mounted");
    let outside = step.at("outside");
    fs::create_dir(&outside).expect("it is new");
    symlink(format!("../../../../../../../../..{}", outside.display()), step.at("base/relative"))
        .expect("new");
    symlink(&outside, step.at("base/absolute")).expect("it is new");
    symlink("../run/systemd/stub.conf", step.at("base/etc/resolv.conf")).expect("it is new");
    symlink("loop", step.at("base/loop")).expect("it is new");
    step.bind("/relative/f", "f", true);
    step.bind("/absolute/g", "f", true);
    step.bind("/etc/resolv.conf", "f", true);
    step.bind("/../../up", "f", true);
    let inside = outside.display();
    let script = format!("cat {inside}/f {inside}/g /run/systemd/stub.conf /etc/resolv.conf /up");
    assert_eq!(step.output(&script), "mounted".repeat(5));
    assert_eq!(fs::read_dir(&outside).expect("it is there").count(), 0, "nothing was made outside");
    // The folder on the way to what a link led to was copied up; nothing in it is left.
    let way = outside.components().nth(1).expect("it is absolute").as_os_str().to_string_lossy();
    let left: BTreeSet<&str> = ["dev", "proc", "sys", &way].into();
    assert!(step.upper().iter().all(|path| left.contains(path.as_str())), "{:?}", step.upper());
    step.renew();
    step.bind("/loop/x", "f", true);
    let error = step.script("true").start().err().expect("the link leads to itself");
    assert!(matches!(&error, Error::MountTarget { target, .. } if target == &PathBuf::from("/loop/x")));
    assert!(chain(&error).contains("Too many levels of symbolic links"), "{}", chain(&error));
}

#[test]
fn a_magic_link_in_a_target_is_refused() {
    let Some(mut step) = Step::new() else { return };
    step.write("f", "mounted");
    step.bind("/proc/self/fd/0/f", "f", true);
    step.bind("/proc/1/cwd/x", "f", true);
    let error = step.script("true").start().err().expect("the link leads out of what can be checked");
    assert!(matches!(error, Error::MountTarget { .. }), "{error:?}");
}

#[test]
fn a_file_over_a_folder_is_an_error_with_its_name() {
    let Some(mut step) = Step::new() else { return };
    step.write("f", "mounted");
    step.bind("/etc", "f", true);
    let error = chain(&step.script("true").start().err().expect("a folder is no file"));
    assert!(
        error.contains(r#"mounting at "/etc" failed in move_mount"#) && error.contains("Is a directory"),
        "{error}"
    );
}

#[test]
fn nested_targets_are_mounted_parents_first() {
    let Some(mut step) = Step::new() else { return };
    step.write("outer/o", "");
    step.write("inner/i", "");
    step.bind("/m/deep", "inner", true);
    step.bind("/m", "outer", false);
    assert_eq!(step.output("ls /m /m/deep"), "/m:\ndeep\no\n\n/m/deep:\ni\n");
    assert_eq!(step.upper(), ["dev", "proc", "sys"]);
    assert!(step.at("outer/deep").exists(), "a mount may be shared, so what was made in it stays");
}

#[test]
fn many_layers_are_stacked_top_first() {
    let Some(mut step) = Step::new() else { return };
    let base = step.at("base");
    let mut lowers = Vec::new();
    for number in 0..300 {
        step.write(&format!("l/{number}/which"), &number.to_string());
        step.write(&format!("l/{number}/n{number}"), "");
        lowers.push(step.at(&format!("l/{number}")));
    }
    lowers.push(base);
    *step.lowers() = lowers;
    assert_eq!(step.output("cat /which; ls -d /n* | wc -l"), "0300\n");
    step.renew();
    step.kernel.lowerdir_append = false;
    // Short names relative to a common folder: 300 of them fit into a page.
    assert_eq!(step.output("cat /which; ls -d /n* | wc -l"), "0300\n");
}

#[test]
fn odd_layer_names_work_in_both_ways() {
    let Some(mut step) = Step::new() else { return };
    let long = "x".repeat(200);
    let names =
        [format!("{long}/{long}"), "co:lon,comma".into(), "back\\slash".into(), "plain\\:both,\\".into()];
    for name in &names {
        step.write(&format!("{name}/{}", name.len()), "found\n");
    }
    let base = step.at("base");
    *step.lowers() = names.iter().map(|name| step.folder.path().join(name)).chain([base]).collect();
    let kernel = step.kernel;
    for lowerdir_append in [kernel.lowerdir_append, false] {
        step.kernel.lowerdir_append = lowerdir_append;
        let files: Vec<String> = names.iter().map(|name| format!("/{}", name.len())).collect();
        assert_eq!(step.output(&format!("cat {}", files.join(" "))), "found\n".repeat(4));
        step.renew();
    }
}

#[test]
fn a_missing_layer_is_named() {
    let Some(mut step) = Step::new() else { return };
    let missing = step.at("missing");
    step.lowers().insert(0, missing.clone());
    let error = step.script("true").start().err().expect("there is no such layer");
    assert!(matches!(&error, Error::Overlay { layer: Some(layer), .. } if *layer == missing), "{error:?}");
}
