//! Steps that a zygote clones: they are as those that are cloned directly, and it is in nobody's way.
//!
//! A program of its own, because a zygote is forked while there is one thread.

#[path = "sandbox/support.rs"]
#[allow(dead_code, reason = "the other tests need more of it")]
mod support;

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{Command, exit};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use sandbox::{Error, Mode, MountKind, SecretBytes, Status, Stdio, User, WindowSize, Zygote};

use crate::support::{Step, text};

/// Set for the process that is killed; it names the file to tell about itself in.
const HELPER: &str = "KILN_ZYGOTE_HELPER";
/// Set for the process that ends its zygote in good order.
const ENDS: &str = "KILN_ZYGOTE_ENDS";
/// What the helper's step sleeps, to be found by.
const SLEEP: &str = "98771";

/// What is tried with a step that is about to run.
type Test = fn(&Arc<Zygote>, &mut Step);

fn main() {
    let zygote = Zygote::fork().expect("there can be one more process").expect("there is one thread");
    let zygote = Arc::new(zygote);
    let Some(mut step) = Step::but_in(&[Mode::SINGLE], "files get other owners") else { return };
    step.zygote = Some(zygote.clone());
    if let Some(told) = std::env::var_os(HELPER) {
        step.script(&format!("sleep {SLEEP} & sleep {SLEEP}"));
        let _running = step.start().expect("the step starts");
        fs::write(told, zygote_id().as_raw_nonzero().to_string()).expect("the test waits for it");
        thread::sleep(Duration::from_secs(100));
        exit(0);
    }
    if std::env::var_os(ENDS).is_some() {
        for _ in 0..3 {
            assert_eq!(step.output("echo one"), "one\n");
            step.renew();
        }
        assert!(children().len() > 1, "the zygote, and a spare");
        drop((step, zygote));
        assert_eq!(children(), [""; 0]);
        exit(0);
    }
    let tests: [(&str, Test); 9] = [
        ("a_step_is_as_any_other", a_step_is_as_any_other),
        ("errors_are_told", errors_are_told),
        ("large_plans_arrive", large_plans_arrive),
        ("a_terminal_arrives", a_terminal_arrives),
        ("steps_run_side_by_side", steps_run_side_by_side),
        ("it_holds_nothing_and_hears_no_signal", it_holds_nothing_and_hears_no_signal),
        ("it_ends_with_its_caller", it_ends_with_its_caller),
        ("it_leaves_nobody", it_leaves_nobody),
        // The last: there is none after it.
        ("without_it_steps_run", without_it_steps_run),
    ];
    for (name, test) in tests {
        test(&zygote, &mut step);
        step.renew();
        println!("test {name} ... ok");
    }
    drop(step);
    let waited = Instant::now();
    drop(zygote);
    assert!(waited.elapsed() < Duration::from_secs(5), "its end is waited for, and comes");
    assert!(thread::spawn(Zygote::fork).join().expect("it does not panic").expect("no error").is_none());
}

/// The zygote of this process.
fn zygote_id() -> Pid {
    let children = fs::read_to_string("/proc/thread-self/children").expect("there is /proc");
    let is_zygote =
        |id: &&str| fs::read_to_string(format!("/proc/{id}/comm")).is_ok_and(|name| name == "kiln-zygote\n");
    // It names itself when it has begun to run.
    for _ in 0..1000 {
        if let Some(id) = children.split_whitespace().find(is_zygote) {
            return Pid::from_raw(id.parse().expect("a number")).expect("no process has the number 0");
        }
        thread::sleep(Duration::from_millis(5));
    }
    panic!("there is no zygote among {children}")
}

fn a_step_is_as_any_other(_: &Arc<Zygote>, step: &mut Step) {
    let content = SecretBytes::copy(b"hidden");
    step.mount("/run/key", MountKind::File { content, mode: 0o400, uid: 7, gid: 8 });
    step.spec.user = User { uid: 7, gid: 8, additional_gids: vec![8, 9] };
    step.spec.env.push(("GREETING".into(), "good\nday".into()));
    let script = "cat /proc/1/comm; tr '\\0' ' ' < /proc/1/cmdline | awk '{ print $1, NF }'; id -u; id -G; cat /run/key; \
                  echo; echo \"$GREETING\"; ls /proc/self/fd | wc -l; cat /proc/1/mem && exit 1; cd /proc; \
                  echo [0-9]*; head -c 20000000 /dev/zero | tail -c 20000000 > /dev/null; exit 3";
    let outcome = step.run(script);
    // `ls` has three descriptors and the folder.
    assert_eq!(
        outcome.stdout, "kiln-init\nkiln-init 1\n7\n8 9\nhidden\ngood\nday\n4\n1 2\n",
        "{}",
        outcome.stderr
    );
    assert_eq!(outcome.report.status, Status::Exited(3));
    let largest = outcome.report.largest_process_bytes;
    assert!(largest.is_some_and(|bytes| (20_000_000..80_000_000).contains(&bytes)), "of `tail`: {largest:?}");
    step.spec.mounts.clear();
    step.spec.user = User::default();
    step.renew();
    step.output("echo made > /made");
    assert_eq!(step.upper(), ["dev", "made", "proc", "sys"]);
}

fn errors_are_told(_: &Arc<Zygote>, step: &mut Step) {
    step.spec.argv = vec!["no-such-program".into()];
    assert!(matches!(step.start(), Err(Error::Exec { exists: false, .. })));
    step.renew();
    let lowers = step.lowers().clone();
    step.lowers().push(PathBuf::from("/no/such/layer"));
    assert!(
        matches!(step.start(), Err(Error::Overlay { layer: Some(layer), .. }) if layer.ends_with("layer"))
    );
    *step.lowers() = lowers;
    step.renew();
    step.script("sleep 98772");
    let (running, _, _) = step.start().expect("the step starts");
    running.kill().expect("it runs");
    assert_eq!(running.wait().expect("it ends").status, Status::Signaled(9));
}

/// More than a socket takes at once.
fn large_plans_arrive(_: &Arc<Zygote>, step: &mut Step) {
    let env = step.spec.env.clone();
    for number in 0..12 {
        step.spec.env.push((format!("LARGE{number}").into(), "x".repeat(120_000).into()));
    }
    assert_eq!(step.output("echo ${#LARGE0} ${#LARGE11}"), "120000 120000\n");
    step.spec.env = env;
}

fn a_terminal_arrives(zygote: &Arc<Zygote>, step: &mut Step) {
    step.script("tty; stty size");
    let stdio = Stdio::Terminal(WindowSize { rows: 24, columns: 80 });
    let running = zygote.start(&step.spec, stdio).expect("it starts");
    let master = running.terminal().expect("there is a terminal");
    let mut master = File::from(master.as_fd().try_clone_to_owned().expect("there are descriptors"));
    let mut seen = [0_u8; 256];
    let mut length = 0;
    while let Ok(read @ 1..) = master.read(&mut seen[length..]) {
        length += read;
    }
    assert_eq!(String::from_utf8_lossy(&seen[..length]), "/dev/pts/0\r\n24 80\r\n");
    assert!(running.wait().expect("it ends").status.is_success());
}

fn steps_run_side_by_side(zygote: &Arc<Zygote>, _: &mut Step) {
    let threads: Vec<_> = (0..6)
        .map(|number| {
            let zygote = zygote.clone();
            thread::spawn(move || {
                for round in 0..8 {
                    let mut step = Step::new().expect("it was possible before");
                    step.zygote = Some(zygote.clone());
                    let expected = format!("{number} {round}\n");
                    assert_eq!(step.output(&format!("echo {number} {round}")), expected);
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().expect("the steps succeed");
    }
}

fn it_holds_nothing_and_hears_no_signal(_: &Arc<Zygote>, step: &mut Step) {
    let id = zygote_id();
    step.script("sleep 0.2");
    let (running, _, _) = step.start().expect("the step starts");
    let held = fs::read_dir(format!("/proc/{}/fd", id.as_raw_nonzero())).expect("it lives").count();
    assert!(
        held <= 6,
        "its socket, the folders of two control groups, the mounts, and a spare with its socket: {held}"
    );
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        kill_process(id, signal).expect("it lives");
    }
    assert!(running.wait().expect("it ends").status.is_success());
    step.renew();
    assert_eq!(step.output("echo still"), "still\n");
    assert_eq!(zygote_id(), id);
}

fn it_ends_with_its_caller(_: &Arc<Zygote>, step: &mut Step) {
    let told = step.at("told");
    let mut helper = Command::new(std::env::current_exe().expect("there is /proc"))
        .env(HELPER, &told)
        .env("TMPDIR", step.folder.path())
        .spawn()
        .expect("this test can be started again");
    wait_until("the helper's step runs", || told.exists() && sleeps());
    let id = fs::read_to_string(&told).expect("it is there");
    helper.kill().expect("it runs");
    helper.wait().expect("it ends");
    wait_until("nothing is left of it", || !sleeps() && !PathBuf::from(format!("/proc/{id}")).exists());
}

fn it_leaves_nobody(_: &Arc<Zygote>, step: &mut Step) {
    let mut helper = Command::new(std::env::current_exe().expect("there is /proc"));
    let status = helper.env(ENDS, "1").env("TMPDIR", step.folder.path()).status();
    assert!(status.expect("this test can be started again").success());
}

/// The children of this thread, dead ones included.
fn children() -> Vec<String> {
    let children = fs::read_to_string("/proc/thread-self/children").expect("there is /proc");
    children.split_whitespace().map(str::to_owned).collect()
}

/// Whether the helper's step runs.
fn sleeps() -> bool {
    let processes = fs::read_dir("/proc").expect("there is /proc").flatten();
    let mut lines = processes.filter_map(|process| fs::read(process.path().join("cmdline")).ok());
    lines.any(|line| String::from_utf8_lossy(&line).contains(SLEEP))
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(10), "waited in vain until {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

fn without_it_steps_run(_: &Arc<Zygote>, step: &mut Step) {
    step.script("echo before; sleep 0.3; echo after");
    let (running, out, _) = step.start().expect("the step starts");
    kill_process(zygote_id(), Signal::KILL).expect("it lives");
    assert!(running.wait().expect("it ends").status.is_success());
    assert_eq!(text(out), "before\nafter\n", "who is cloned already goes on");
    step.renew();
    assert_eq!(step.output("echo without"), "without\n");
}
