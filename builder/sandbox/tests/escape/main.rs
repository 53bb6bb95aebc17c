//! Ways out of a step that have been used against containers, each tried by a real process (`attempts.c`): it is refused. With
//! all that guards it taken out of the plan it succeeds, and with any one of the guards put back it is refused again, so each is
//! proven, alone.
//!
//! A program of its own, because a zygote is forked while there is one thread. With `KILN_ESCAPES` a table of what came of it is
//! written to that file; `tests/escapes.sh` asks for it, and runs the same attempts in runc.
//!
//! Then the same is tried as a user, in each mode of a user's: `users.rs`.

mod cases;
#[path = "../sandbox/support.rs"]
#[allow(dead_code, reason = "the other tests need more of it")]
mod support;
mod users;

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio as Pipe};
use std::sync::Arc;

use rustix::fd::AsRawFd;
use rustix::fs::{CWD, FileType, Mode, OFlags, major, makedev, minor, mknodat, open};
use rustix::io::ioctl_fionread;
use rustix::process::{ioctl_tiocsctty, setsid};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use sandbox::{
    Call, Capability, Kernel, Membership, MountKind, Network, NewFileSystem, Resource, ResourceLimit,
    Running, Source, Stdio, WindowSize, Zygote, plan, start_plan,
};

use crate::cases::{CASES, Case, Guard};
use crate::support::{Outcome, Step, chain, text};

/// Set for the process that is in namespaces of its own.
const INSIDE: &str = "KILN_ESCAPES_INSIDE";

fn main() {
    if std::env::var_os(INSIDE).is_none() {
        let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
        if !rustix::process::geteuid().is_root() || !map.split_whitespace().eq(["0", "0", "4294967295"]) {
            println!("SKIP escapes: needs root: its guards are taken away, and then it becomes a user");
            return;
        }
        std::process::exit(in_a_machine_of_its_own().max(users::in_machines_of_their_own()));
    }
    if let Some(mode) = users::Mode::asked() {
        std::process::exit(users::main(mode));
    }
    let Ok(_terminal) = sit_at_a_terminal() else {
        println!("SKIP escapes: there is no terminal to be had");
        return;
    };
    let zygote = Zygote::fork().expect("there can be one more process").expect("there is one thread");
    let Some(mut step) = Step::new() else { return };
    let Some(place) = Place::new(&mut step) else { return };
    let (mut table, mut failed) = (String::new(), 0);
    for case in CASES {
        match place.prove(case, &mut step) {
            Ok(row) => table.push_str(&row),
            Err(why) => {
                println!("test {} ... FAILED\n    {why}", case.name);
                failed += 1;
            }
        }
    }
    failed += place.devices_by_filter(&mut step, zygote);
    failed += place.terminal_of_its_own(&mut step);
    // It tidies up, which the end of this process, the first of its namespace, would not let it do.
    drop(place);
    if let Some(file) = std::env::var_os("KILN_ESCAPES") {
        fs::write(file, table).expect("the table can be written");
    }
    let result = if failed == 0 { "ok" } else { "FAILED" };
    println!("test result: {result}. {} passed; {failed} failed", CASES.len() + 2 - failed);
    std::process::exit(i32::from(failed > 0));
}

/// Runs this program in namespaces that stand for the machine: where a guard is taken away, what a step can reach must not
/// be the machine itself.
fn in_a_machine_of_its_own() -> i32 {
    let program = std::env::current_exe().expect("there is /proc");
    let status = Command::new("unshare")
        .args(["--pid", "--fork", "--mount-proc", "--ipc", "--uts"])
        .arg(program)
        .env(INSIDE, "1")
        .status();
    match status {
        Ok(status) => status.code().unwrap_or(1),
        Err(error) => {
            println!("SKIP escapes: needs the program unshare: {error}");
            0
        }
    }
}

/// Gives this process a terminal, as whoever builds has one. Its other end.
fn sit_at_a_terminal() -> Result<rustix::fd::OwnedFd, rustix::io::Errno> {
    // Where it leads a session already, it has no terminal in that either.
    let _session = setsid();
    let theirs = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY)?;
    unlockpt(&theirs)?;
    let ours = ioctl_tiocgptpeer(&theirs, OpenptFlags::RDWR | OpenptFlags::NOCTTY)?;
    ioctl_tiocsctty(&ours)?;
    Ok(theirs)
}

/// What is outside of the step, and what the step is told of it.
struct Place {
    facts: Vec<String>,
    /// Has things open that are to be found; ends when its input is closed.
    outside: Child,
    _socket: UnixListener,
    /// A folder that is not closed on exec.
    leaked: rustix::fd::OwnedFd,
}

impl Drop for Place {
    fn drop(&mut self) {
        drop(self.outside.stdin.take());
        // It is gone either way.
        let _ended = self.outside.wait();
    }
}

impl Place {
    /// Compiles the attempts into the step's layer. `None`, after printing why, where there is no compiler.
    fn new(step: &mut Step) -> Option<Place> {
        let program = step.at("base/attempts");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/escape/attempts.c");
        let built = match std::env::var_os("KILN_ESCAPES_PROGRAM") {
            Some(made) => fs::copy(made, &program).is_ok(),
            None => Command::new("gcc")
                .args(["-O1", "-static", "-o"])
                .args([program.as_path(), &source])
                .status()
                .is_ok_and(|status| status.success()),
        };
        if !built {
            println!("SKIP escapes: needs gcc and a static C library");
            return None;
        }
        let mut outside = Command::new(&program)
            .arg("outside")
            .stdin(Pipe::piped())
            .stdout(Pipe::piped())
            .spawn()
            .expect("it was built");
        let mut told = String::new();
        let output = outside.stdout.as_mut().expect("it is piped");
        BufReader::new(output).read_line(&mut told).expect("it says what it has");
        let mut facts: Vec<String> = told.split_whitespace().map(str::to_owned).collect();

        let name = format!("kiln-escape-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("a short name");
        let socket = UnixListener::bind_addr(&address).expect("nobody has this name");
        step.write("outside/secret", "hidden");
        let leaked = open(step.at("outside"), OFlags::DIRECTORY, Mode::empty()).expect("it was made");
        let (major, minor) = a_disk().unwrap_or((7, 0));
        let node = step.at("base/node-of-image");
        let made = mknodat(CWD, &node, FileType::BlockDevice, Mode::RUSR, makedev(major, minor));
        assert!(made.is_ok() || step.spec.mode.has_user_namespace(), "root makes nodes");
        facts.extend([
            format!("abstract={name}"),
            format!("major={major}"),
            format!("minor={minor}"),
            format!("secret={}", step.at("outside/secret").display()),
            "marker=secret".to_owned(),
            format!("device={}", a_device().unwrap_or_default()),
        ]);
        for name in ["base/dev", "base/tmp", "base/bind", "base/memory", "bind"] {
            fs::create_dir_all(step.at(name)).expect("the folder is ours");
        }
        step.bind("/bind", "bind", false);
        step.mount("/memory", MountKind::Tmpfs { size_bytes: Some(1 << 20), mode: 0o755, readonly: false });
        step.spec.network = Network::None;
        step.spec.limits = vec![ResourceLimit { resource: Resource::Nofile, soft: 512, hard: 512 }];
        Some(Place { facts, outside, _socket: socket, leaked })
    }

    /// Tries it with all guards, with none, and with each one alone; the table's row.
    fn prove(&self, case: &Case, step: &mut Step) -> Result<String, String> {
        let kernel = Kernel { filters_devices: false, ..step.kernel };
        let guarded = self.attempt(case, &[], step, &kernel)?;
        if guarded.starts_with("escaped") {
            return Err(format!("with all guards: {guarded}"));
        }
        let without = match case.guards {
            [] => "fails by how Linux is made".to_owned(),
            guards => self.attempt(case, guards, step, &kernel)?,
        };
        let absent = without.starts_with("absent")
            || without.ends_with("Function not implemented")
            || case.guards.iter().any(|guard| !is_ours(*guard));
        if !case.guards.is_empty() && !absent && !without.starts_with("escaped") {
            return Err(format!("without any guard: {without}"));
        }
        if !absent && case.guards.len() > 1 {
            for alone in case.guards {
                let others: Vec<Guard> = case.guards.iter().copied().filter(|other| other != alone).collect();
                let said = self.attempt(case, &others, step, &kernel)?;
                if !said.starts_with("refused") {
                    return Err(format!("with {alone} alone: {said}"));
                }
            }
        }
        let proven = if absent { "not to be had on this machine" } else { "ok" };
        println!("test {} ... {proven}", case.name);
        let guards: Vec<String> = case.guards.iter().map(Guard::to_string).collect();
        let (name, what) = (case.name, case.what);
        let mut row = String::new();
        writeln!(row, "| {name} | {what} | {} | {guarded} | {without} |", guards.join("; "))
            .expect("a string");
        Ok(row)
    }

    /// What an attempt says without some guards.
    fn attempt(
        &self,
        case: &Case,
        without: &[Guard],
        step: &mut Step,
        kernel: &Kernel,
    ) -> Result<String, String> {
        self.set_up(case, step);
        let mut calls = plan(&step.spec, None, kernel).map_err(|error| chain(&error))?;
        for guard in without {
            assert!(take_out(*guard, &mut calls), "{guard} is not in the plan");
        }
        said(|stdio| start_plan(calls, stdio))
    }

    /// Makes a step of the attempt.
    fn set_up(&self, case: &Case, step: &mut Step) {
        step.renew();
        self.command(case.name, step);
        step.spec.cwd = match case.name {
            "working-directory" => format!("/proc/self/fd/{}", self.leaked.as_raw_fd()).into(),
            _ => "/".into(),
        };
    }

    fn command(&self, name: &str, step: &mut Step) {
        let command = ["/attempts", name].into_iter().chain(self.facts.iter().map(String::as_str));
        step.spec.argv = command.map(Into::into).collect();
    }

    /// The filter in the kernel that there is instead of `nodev`, the zygote's own and that of a step's own group: the same nodes
    /// cannot be opened, the usual ones can, wherever they are made.
    fn devices_by_filter(&self, step: &mut Step, zygote: Zygote) -> usize {
        step.spec.cwd = PathBuf::from("/");
        step.zygote = Some(Arc::new(zygote));
        let mut failed = self.devices(step, "the zygote's filter", false);
        if unified_groups().is_some() {
            failed += self.devices(step, "the filter of a group", true);
            step.zygote = None;
            failed += self.devices(step, "the filter of a group without a zygote", true);
        } else {
            println!("test devices by the filter of a group ... not to be had on this machine");
        }
        step.zygote = None;
        failed
    }

    /// A step with a terminal of its own, as `--on-error=shell` opens, types for itself alone.
    fn terminal_of_its_own(&self, step: &mut Step) -> usize {
        step.renew();
        self.command("terminal", step);
        let mine = File::open("/dev/tty").expect("this process sits at one");
        let waiting = || ioctl_fionread(&mine).expect("a terminal tells");
        // From the attempt without its guard.
        let typed = waiting();
        let stdio = Stdio::Terminal(WindowSize { rows: 24, columns: 80 });
        let running = sandbox::start(&step.spec, stdio).expect("the step starts");
        let master =
            running.terminal().expect("it was asked for").try_clone_to_owned().expect("a descriptor");
        let mut said = Vec::new();
        // It ends with an error: nobody holds the other end any more.
        let _hung_up = File::from(master).read_to_end(&mut said);
        running.wait().expect("it ends");
        let said = String::from_utf8_lossy(&said);
        // Where the kernel has given up TIOCSTI, nobody types for anybody.
        let setting = fs::read_to_string("/proc/sys/dev/tty/legacy_tiocsti").unwrap_or_default();
        let (bytes, reached) = match setting.trim() {
            "0" => (0, "escaped: /dev/tty, but not TIOCSTI"),
            _ => (2, "escaped: /dev/tty, TIOCSTI"),
        };
        if typed == bytes && waiting() == bytes && said.contains(reached) {
            println!("test terminal of its own ... ok");
            return 0;
        }
        println!("test terminal of its own ... FAILED\n    {typed} then {} bytes, {said}", waiting());
        1
    }

    fn devices(&self, step: &mut Step, by: &str, in_group: bool) -> usize {
        let mut failed = 0;
        for name in ["disk", "kernel-log-device", "fuse-device"] {
            self.command(name, step);
            let said = finish(step, in_group).stdout;
            if !said.starts_with("refused") {
                println!("test {name} by {by} ... FAILED\n    {said}");
                failed = 1;
            }
        }
        step.script("mknod /n c 1 3 && echo x > /n && mknod /r c 1 9 && head -c 2 /r | wc -c; rm /dev/random && ln -s urandom /dev/random && head -c 3 /dev/random | wc -c");
        let usable = finish(step, in_group);
        if usable.stdout != "2\n3\n" {
            println!("test usual devices by {by} ... FAILED\n    {}{}", usable.stdout, usable.stderr);
            failed = 1;
        }
        if failed == 0 {
            println!("test devices by {by} ... ok");
        }
        failed
    }
}

/// What an attempt says that is started so.
fn said(start: impl FnOnce(Stdio) -> Result<Running, sandbox::Error>) -> Result<String, String> {
    let out = tempfile::tempfile().map_err(|error| error.to_string())?;
    let stdout = out.try_clone().map_err(|error| error.to_string())?.into();
    match start(Stdio::Streams { stdin: None, stdout, stderr: null() }) {
        Ok(running) => {
            running.wait().map_err(|error| chain(&error))?;
            Ok(text(out).trim().to_owned())
        }
        Err(error @ sandbox::Error::WorkingDirectory { .. }) => {
            let told = chain(&error);
            let source = told.rsplit(": ").next().unwrap_or_default();
            Ok(format!("refused: chdir: {}", source.split(" (").next().unwrap_or_default()))
        }
        Err(error) => Err(chain(&error)),
    }
}

/// Runs a step, in a control group of its own if that is asked for.
fn finish(step: &mut Step, in_group: bool) -> Outcome {
    step.renew();
    let name = step.at("").file_name().map(|name| format!("escape{}", name.display()));
    let group = unified_groups().zip(name).map(|(groups, name)| groups.join(name)).filter(|_| in_group);
    if let Some(folder) = &group {
        fs::create_dir(folder).expect("root makes groups");
        step.spec.groups = vec![Membership { folder: folder.clone(), unified: true }];
    }
    let outcome = step.finish();
    step.spec.groups.clear();
    if let Some(folder) = group {
        fs::remove_dir(folder).expect("nobody is in it any more");
    }
    outcome
}

/// Where the control groups of version 2 are mounted.
fn unified_groups() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let line = mounts.lines().find(|line| line.contains(" - cgroup2 "))?;
    line.split(' ').nth(4).map(PathBuf::from)
}

fn null() -> rustix::fd::OwnedFd {
    File::options().write(true).open("/dev/null").expect("there is /dev/null").into()
}

/// Whether the builder has the capability itself: what it has not it cannot leave to a step.
fn is_ours(guard: Guard) -> bool {
    let Guard::Capability(name) = guard else { return true };
    let capability = Capability::from_name(name).expect("it is one");
    rustix::thread::capabilities(None).is_ok_and(|sets| sets.permitted.bits() & 1 << capability.number() != 0)
}

/// A block device that can be read.
fn a_disk() -> Option<(u32, u32)> {
    let disks = fs::read_dir("/sys/block").ok()?.flatten();
    let readable =
        disks.map(|disk| Path::new("/dev").join(disk.file_name())).find(|disk| File::open(disk).is_ok())?;
    let device = fs::metadata(readable).ok()?.rdev();
    Some((major(device), minor(device)))
}

/// A network device of the host that is not `lo`.
fn a_device() -> Option<String> {
    let devices = fs::read_dir("/sys/class/net").ok()?.flatten();
    devices.map(|device| device.file_name().to_string_lossy().into_owned()).find(|name| name != "lo")
}

/// Takes a guard out of a plan. Whether it was there.
fn take_out(guard: Guard, calls: &mut Vec<Call>) -> bool {
    let before = calls.clone();
    match guard {
        Guard::Filter => calls.retain(|call| !matches!(call, Call::InstallFilter { .. })),
        Guard::Devices => calls.retain(|call| !matches!(call, Call::ForbidDevices { .. })),
        Guard::CloseForeign => calls.retain(|call| *call != Call::CloseForeign),
        Guard::CloseOthers => calls.retain(|call| *call != Call::CloseOthers),
        Guard::Session => calls.retain(|call| !matches!(call, Call::NewSession { .. })),
        Guard::SessionKeyring => calls.retain(|call| *call != Call::JoinSessionKeyring),
        Guard::Mask(hidden) => {
            calls.retain(|call| !matches!(call, Call::Mask { path } if path.to_bytes() == hidden.as_bytes()));
        }
        Guard::ReadOnly(kept) => calls.retain(
            |call| !matches!(call, Call::MakeReadOnly { path, .. } if path.to_bytes() == kept.as_bytes()),
        ),
        Guard::ReadOnlySys => {
            for call in calls.iter_mut() {
                if let Call::Mount { source: Source::New(NewFileSystem { kind, flags, .. }), .. } = call
                    && kind.to_bytes() == b"sysfs"
                {
                    flags.remove(rustix::mount::MountFlags::RDONLY);
                }
            }
        }
        Guard::Capability(name) => {
            let capability = Capability::from_name(name).expect("it is one");
            for call in calls.iter_mut() {
                if let Call::BoundCapabilities { keep } | Call::SetCapabilities { keep } = call {
                    *keep = keep.with(capability);
                }
            }
        }
        Guard::Namespace(which) => {
            for call in calls.iter_mut() {
                if let Call::Clone { namespaces } = call {
                    *namespaces = namespaces.without(which);
                }
            }
            if which == sandbox::Namespaces::NETWORK {
                calls.retain(|call| *call != Call::LoopbackUp);
            }
            if which == sandbox::Namespaces::UTS {
                calls.retain(|call| !matches!(call, Call::SetHostName { .. }));
            }
        }
    }
    *calls != before
}
