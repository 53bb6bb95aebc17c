//! The process itself: status, streams, ids, capabilities, limits, how it is found.

use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use sandbox::{CapabilitySet, Error, Resource, ResourceLimit, Rootfs, Status, Stdio, User, start};

use crate::support::{Step, chain};

#[test]
fn exit_codes_and_signals_are_told() {
    let Some(mut step) = Step::new() else { return };
    for (script, expected) in [
        ("exit 0", Status::Exited(0)),
        ("exit 42", Status::Exited(42)),
        ("kill -9 $$", Status::Signaled(9)),
        ("kill -TERM $$", Status::Signaled(15)),
    ] {
        assert_eq!(step.run(script).report.status, expected, "{script}");
        step.renew();
    }
}

#[test]
fn output_goes_where_it_belongs_and_input_is_empty() {
    let Some(mut step) = Step::new() else { return };
    let outcome = step.run("echo out; echo err >&2; cat | wc -c; readlink /proc/self/fd/0");
    assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str()), ("out\n0\n/dev/null\n", "err\n"));
}

#[test]
fn the_environment_is_what_was_given() {
    let Some(mut step) = Step::new() else { return };
    step.spec.env.push(("A".into(), "b c=d".into()));
    step.spec.env.push(("EMPTY".into(), "".into()));
    step.spec.argv = vec!["env".into()];
    assert_eq!(step.finish().stdout, "PATH=/bin\nA=b c=d\nEMPTY=\n");
}

#[test]
fn the_last_of_two_search_paths_counts() {
    let Some(mut step) = Step::new() else { return };
    step.spec.env = vec![("PATH".into(), "/nowhere".into()), ("PATH".into(), "/nothing:/bin".into())];
    assert_eq!(step.output("echo found"), "found\n");
}

#[test]
fn ids_mask_host_name_and_folder_are_set() {
    let Some(mut step) = Step::new() else { return };
    fs::create_dir(step.at("base/w")).expect("it is new");
    step.spec.cwd = "/w".into();
    step.spec.user = User { uid: 1234, gid: 5678, additional_gids: vec![9, 10] };
    let script = "id -u; id -g; id -G; umask; hostname; pwd; grep NoNewPrivs /proc/self/status";
    let expected = "1234\n5678\n5678 9 10\n0022\nbuildkitsandbox\n/w\nNoNewPrivs:\t0\n";
    assert_eq!(step.output(script), expected);
}

#[test]
fn a_working_directory_that_only_root_may_enter_is_entered() {
    let Some(mut step) = Step::new() else { return };
    fs::create_dir(step.at("base/w")).expect("it is new");
    fs::set_permissions(step.at("base/w"), fs::Permissions::from_mode(0o700)).expect("it is ours");
    step.spec.cwd = "/w".into();
    step.spec.user = User { uid: 1, gid: 1, additional_gids: vec![] };
    step.output("true");
}

/// The lines are those of the conformance case `run-caps`.
#[test]
fn capabilities_are_those_of_runc() {
    let Some(mut step) = Step::new() else { return };
    let lines = |[inheritable, permitted, effective, bounding, ambient]: [u64; 5]| {
        format!(
            "CapInh:\t{inheritable:016x}\nCapPrm:\t{permitted:016x}\nCapEff:\t{effective:016x}\n\
             CapBnd:\t{bounding:016x}\nCapAmb:\t{ambient:016x}\n"
        )
    };
    const DEFAULT: u64 = 0xa804_25fb;
    let script = "grep -E 'Cap(Eff|Bnd|Prm|Inh|Amb)' /proc/self/status";
    assert_eq!(step.output(script), lines([0, DEFAULT, DEFAULT, DEFAULT, 0]));
    step.renew();
    step.spec.user = User { uid: 8, gid: 8, additional_gids: vec![] };
    assert_eq!(step.output(script), lines([0, 0, 0, DEFAULT, 0]));
    step.renew();
    step.spec.user = User::default();
    step.spec.capabilities = CapabilitySet::EMPTY;
    assert_eq!(step.output(script), lines([0, 0, 0, 0, 0]));
    step.renew();
    step.spec.capabilities = CapabilitySet::ALL;
    let ours = fs::read_to_string("/proc/self/status").expect("there is /proc");
    let bounding = ours.lines().find(|line| line.starts_with("CapBnd")).expect("the line is there");
    assert!(step.output(script).contains(bounding), "a step may not have more than the machine gives");
}

#[test]
fn a_limit_is_set_and_a_refused_one_is_a_warning() {
    let Some(mut step) = Step::new() else { return };
    step.spec.limits = vec![ResourceLimit { resource: Resource::Nofile, soft: 100, hard: 200 }];
    let outcome = step.run("ulimit -Sn; ulimit -Hn");
    assert_eq!((outcome.stdout.as_str(), outcome.report.warnings.len()), ("100\n200\n", 0));
    step.renew();
    let before = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let hard = before.maximum.expect("a limit of descriptors is never infinite");
    step.spec.limits = vec![ResourceLimit { resource: Resource::Nofile, soft: 64, hard: hard + 1 }];
    let outcome = step.run("ulimit -Sn; ulimit -Hn");
    if outcome.stdout == format!("64\n{}\n", hard + 1) {
        println!("skipped: this machine lets the limit be raised");
    } else {
        assert_eq!(outcome.stdout, format!("64\n{hard}\n"));
        assert!(outcome.report.warnings[0].contains("nofile"), "{:?}", outcome.report.warnings);
    }
}

#[test]
fn only_three_descriptors_reach_the_step() {
    let Some(mut step) = Step::new() else { return };
    let _leak = fs::File::open("/").expect("there is a root");
    let leaked = rustix::io::dup(&_leak).expect("there are descriptors");
    rustix::io::fcntl_setfd(&leaked, rustix::io::FdFlags::empty()).expect("it is open");
    // `ls` opens the folder itself, under the first free number.
    assert_eq!(step.output("ls /proc/self/fd"), "0\n1\n2\n3\n");
    step.renew();
    // PID 1 goes on when the command's execve has succeeded, so it may still be closing what the command got.
    let script = "n=0; until [ $(ls /proc/1/fd | wc -l) = 3 ] || [ $n = 500 ]; do n=$((n + 1)); sleep 0.01; done; \
                  ls /proc/1/fd | wc -l";
    assert_eq!(step.output(script).trim(), "3", "PID 1 holds its life line, its signals and its end");
}

#[test]
fn a_user_can_open_a_pipe_as_dev_stdout() {
    let Some(mut step) = Step::new() else { return };
    step.spec.user = User { uid: 1234, gid: 1234, additional_gids: vec![] };
    step.script("echo one > /dev/stdout; echo two > /dev/stderr");
    let (mut reader, writer) = std::io::pipe().expect("there are descriptors");
    let second = writer.try_clone().expect("there are descriptors");
    let stdio = Stdio::Streams { stdin: None, stdout: writer.into(), stderr: second.into() };
    let running = start(&step.spec, stdio).expect("the step starts");
    let mut text = String::new();
    reader.read_to_string(&mut text).expect("it is UTF-8");
    assert_eq!(text, "one\ntwo\n");
    assert!(running.wait().expect("it can be waited for").status.is_success());
}

#[test]
fn input_can_be_given() {
    let Some(mut step) = Step::new() else { return };
    step.script("cat");
    let (input, mut into) = std::io::pipe().expect("there are descriptors");
    let (mut from, output) = std::io::pipe().expect("there are descriptors");
    let errors = output.try_clone().expect("there are descriptors");
    let stdio = Stdio::Streams { stdin: Some(input.into()), stdout: output.into(), stderr: errors.into() };
    let running = start(&step.spec, stdio).expect("the step starts");
    std::io::Write::write_all(&mut into, b"hello").expect("the pipe takes it");
    drop(into);
    let mut text = String::new();
    from.read_to_string(&mut text).expect("it is UTF-8");
    assert_eq!((text.as_str(), running.wait().expect("it ends").status), ("hello", Status::Exited(0)));
}

#[test]
fn a_missing_command_is_told_like_runc_does() {
    let Some(mut step) = Step::new() else { return };
    step.write("base/noexec", "#!/bin/sh\n");
    step.write("base/nointerpreter", "#!/no/such\n");
    step.write("base/noformat", "text\n");
    step.write("base/etc/dir/file", "");
    for name in ["nointerpreter", "noformat"] {
        let mode = fs::Permissions::from_mode(0o755);
        fs::set_permissions(step.at("base").join(name), mode).expect("it is ours");
    }
    for (command, code, message) in [
        ("foo", 127, r#"exec: "foo": executable file not found in $PATH"#),
        ("/foo", 127, r#"exec: "/foo": stat /foo: no such file or directory"#),
        ("/noexec", 126, r#"exec: "/noexec": permission denied"#),
        ("/etc", 126, r#"exec: "/etc": permission denied"#),
        ("/noformat", 126, "exec /noformat: exec format error"),
        (
            "/nointerpreter",
            127,
            "exec /nointerpreter: no such file or directory (its interpreter is missing in the image)",
        ),
    ] {
        step.spec.argv = vec![command.into()];
        let error = step.start().err().expect("it cannot be executed");
        assert!(matches!(error, Error::Exec { .. }), "{error:?}");
        assert_eq!((error.exit_code(), error.to_string().as_str()), (Some(code), message));
        step.renew();
    }
}

#[test]
fn a_missing_working_directory_is_named() {
    let Some(mut step) = Step::new() else { return };
    step.spec.cwd = "/no/such".into();
    let error = step.script("true").start().err().expect("it cannot be entered");
    assert!(matches!(error, Error::WorkingDirectory { .. }));
    let expected =
        r#"the working directory "/no/such" cannot be entered: No such file or directory (os error 2)"#;
    assert_eq!(chain(&error), expected);
}

#[test]
fn time_and_memory_are_measured() {
    let Some(mut step) = Step::new() else { return };
    let outcome = step.run("dd if=/dev/zero of=/dev/null bs=200000000 count=1");
    assert!(outcome.report.user_time + outcome.report.system_time > Duration::ZERO);
    let peak = outcome.report.largest_process_bytes.expect("dd holds more than this test");
    assert!(peak > 190_000_000, "{peak}");
}

#[test]
fn scratch_needs_no_layer() {
    let Some(mut step) = Step::new() else { return };
    fs::copy(step.at("base/bin/busybox"), step.at("busybox")).expect("busybox can be read");
    step.lowers().clear();
    step.bind("/busybox", "busybox", true);
    step.spec.argv = ["/busybox", "sh", "-c", "echo x > /f; /busybox ls /"].map(Into::into).into();
    assert_eq!(step.finish().stdout, "busybox\ndev\nf\nproc\nsys\n");
    assert_eq!(step.upper(), ["dev", "f", "proc", "sys"]);
}

#[test]
fn a_folder_can_be_the_root_and_be_read_only() {
    let Some(mut step) = Step::new() else { return };
    step.spec.rootfs = Rootfs::Directory { path: step.at("base") };
    assert_eq!(step.output("echo x > /f; cat /f"), "x\n");
    assert!(step.at("base/f").exists() && step.at("base/proc").exists());
    step.spec.readonly_root = true;
    let kernel = step.kernel;
    for mount_setattr in [kernel.mount_setattr, false] {
        step.kernel.mount_setattr = mount_setattr;
        step.bind("/new/point", "work", false);
        let outcome =
            step.run("(echo y > /f) 2>/dev/null || echo refused; echo z > /new/point/z; echo > /dev/null");
        assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str()), ("refused\n", ""));
        assert_eq!(outcome.report.mount_points_left, Vec::<std::path::PathBuf>::new());
        assert!(step.at("work/z").exists() && !step.at("base/new").exists());
        step.spec.mounts.clear();
    }
}
