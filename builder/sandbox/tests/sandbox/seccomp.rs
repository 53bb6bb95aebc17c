//! Which system calls a step can make, asked of the kernel, by small programs that make them one after the other.
//!
//! They are written here byte by byte, so that they need no compiler and can call in every way that the processor has.
#![cfg(target_arch = "x86_64")]

use std::fs;
use std::io::{ErrorKind, Read, Seek};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use sandbox::{CapabilitySet, Error, Status};

use crate::support::{Step, chain};

/// Refused, or the number that came back is negative.
const EPERM: i32 = -1;
const EBADF: i32 = -9;
const EFAULT: i32 = -14;
const EINVAL: i32 = -22;
const ENOSYS: i32 = -38;

/// A call: its name, its number, its first four arguments.
type Made = (&'static str, u32, [u64; 4]);

/// How a program calls the kernel.
#[derive(Clone, Copy)]
enum Way {
    /// `syscall`, also with the numbers of x32.
    Wide,
    /// `int 0x80` in a 32-bit program.
    I386,
}

const BASE: u64 = 0x40_0000;
const RESULTS: u64 = BASE + 0x1_0000;
const X32: u32 = 1 << 30;

impl Way {
    /// Makes a call with these arguments; what it returns is in `eax`.
    fn call(self, number: u32, arguments: [u64; 4], code: &mut Vec<u8>) {
        code.push(0xb8);
        code.extend(number.to_le_bytes());
        let registers: [&[u8]; 4] = match self {
            Way::Wide => [&[0x48, 0xbf], &[0x48, 0xbe], &[0x48, 0xba], &[0x49, 0xba]],
            Way::I386 => [&[0xbb], &[0xb9], &[0xba], &[0xbe]],
        };
        for (register, value) in registers.into_iter().zip(arguments) {
            code.extend(register);
            code.extend(&value.to_le_bytes()[..self.word()]);
        }
        code.extend(match self {
            Way::Wide => [0x0f, 0x05],
            Way::I386 => [0xcd, 0x80],
        });
    }

    /// Bytes of an address.
    fn word(self) -> usize {
        match self {
            Way::Wide => 8,
            Way::I386 => 4,
        }
    }

    /// A program that makes these calls, writes what each returned, and ends.
    fn program(self, calls: &[Made]) -> Vec<u8> {
        let mut code = Vec::new();
        for ((_, number, arguments), index) in calls.iter().zip(0..) {
            self.call(*number, *arguments, &mut code);
            code.push(0xa3);
            code.extend(&(RESULTS + index * 4).to_le_bytes()[..self.word()]);
        }
        let (write, exit) = match self {
            Way::Wide => (1, 231),
            Way::I386 => (4, 252),
        };
        self.call(write, [1, RESULTS, calls.len() as u64 * 4, 0], &mut code);
        self.call(exit, [0; 4], &mut code);
        self.elf(&code)
    }

    /// A static program: a header, one segment, the code.
    fn elf(self, code: &[u8]) -> Vec<u8> {
        let wide = matches!(self, Way::Wide);
        let (header, segment) = if wide { (64_u16, 56_u16) } else { (52, 32) };
        let headers = u64::from(header + segment);
        let length = headers + code.len() as u64;
        let mut out = vec![0x7f, b'E', b'L', b'F', if wide { 2 } else { 1 }, 1, 1, 0];
        out.extend([0; 8]);
        let half = |out: &mut Vec<u8>, value: u16| out.extend(value.to_le_bytes());
        let word = |out: &mut Vec<u8>, value: u32| out.extend(value.to_le_bytes());
        let address = |out: &mut Vec<u8>, value: u64| out.extend(&value.to_le_bytes()[..self.word()]);
        half(&mut out, 2);
        half(&mut out, if wide { 62 } else { 3 });
        word(&mut out, 1);
        address(&mut out, BASE + headers);
        address(&mut out, u64::from(header));
        address(&mut out, 0);
        word(&mut out, 0);
        [header, segment, 1, 0, 0, 0].into_iter().for_each(|value| half(&mut out, value));
        word(&mut out, 1);
        if wide {
            word(&mut out, 7);
        }
        [0, BASE, BASE, length, RESULTS - BASE + 0x1000]
            .into_iter()
            .for_each(|value| address(&mut out, value));
        if !wide {
            word(&mut out, 7);
        }
        address(&mut out, 0x1000);
        out.extend(code);
        out
    }
}

fn write_program(path: &Path, program: &[u8]) {
    fs::write(path, program).expect("the folder is there");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("it is ours");
}

fn words(bytes: &[u8]) -> Vec<i32> {
    bytes.as_chunks().0.iter().copied().map(i32::from_le_bytes).collect()
}

/// What calls return in a step; `None` where the kernel does not run such programs.
fn results(step: &mut Step, way: Way, calls: &[Made]) -> Option<Vec<i32>> {
    write_program(&step.at("base/bin/calls"), &way.program(calls));
    step.spec.argv = vec!["/bin/calls".into()];
    // Another test's fork has the program open for writing until it closes what is not its own.
    let mut started = step.start();
    while matches!(started, Err(Error::Exec { errno: libc::ETXTBSY, .. })) {
        step.renew();
        started = step.start();
    }
    let (running, mut out, _) = match started {
        Err(Error::Exec { errno: libc::ENOEXEC, .. }) => {
            println!("skipped: the kernel runs no 32-bit programs");
            return None;
        }
        started => started.unwrap_or_else(|error| panic!("{}", chain(&error))),
    };
    let report = running.wait().expect("the step can be waited for");
    assert_eq!(report.status, Status::Exited(0));
    let mut bytes = Vec::new();
    out.rewind().expect("it is a file");
    out.read_to_end(&mut bytes).expect("it is a file");
    step.renew();
    Some(words(&bytes))
}

const CLONE_NEWUSER: u64 = 0x1000_0000;
const SIGCHLD: u64 = 17;

const REFUSED: [(Made, i32); 31] = [
    (("mount", 165, [0; 4]), EPERM),
    (("umount2", 166, [0; 4]), EPERM),
    (("unshare", 272, [CLONE_NEWUSER, 0, 0, 0]), EPERM),
    (("unshare of the file table", 272, [0x400, 0, 0, 0]), EPERM),
    (("clone into a user namespace", 56, [CLONE_NEWUSER | SIGCHLD, 0, 0, 0]), EPERM),
    (("clone3", 435, [0; 4]), ENOSYS),
    (("setns", 308, [0; 4]), EPERM),
    (("keyctl", 250, [0, u64::MAX - 2, 0, 0]), EPERM),
    (("add_key", 248, [0; 4]), EPERM),
    (("request_key", 249, [0; 4]), EPERM),
    (("bpf", 321, [0; 4]), EPERM),
    (("perf_event_open", 298, [0; 4]), EPERM),
    (("kexec_load", 246, [0; 4]), EPERM),
    (("kexec_file_load", 320, [0; 4]), EPERM),
    (("init_module", 175, [0; 4]), EPERM),
    (("finit_module", 313, [0; 4]), EPERM),
    (("reboot", 169, [0; 4]), EPERM),
    (("swapon", 167, [0; 4]), EPERM),
    (("acct", 163, [0; 4]), EPERM),
    (("settimeofday", 164, [0; 4]), EPERM),
    (("userfaultfd", 323, [0; 4]), EPERM),
    (("io_uring_setup", 425, [0; 4]), EPERM),
    (("open_by_handle_at", 304, [0; 4]), EPERM),
    (("process_madvise", 440, [u64::MAX, 0, 0, 0]), EPERM),
    (("pidfd_getfd", 438, [u64::MAX, 0, 0, 0]), EPERM),
    (("personality without random addresses", 135, [0x4_0000, 0, 0, 0]), EPERM),
    (("personality with an upper half", 135, [1 << 32, 0, 0, 0]), EPERM),
    (("socket of AF_VSOCK", 41, [40, 1, 0, 0]), EPERM),
    (("socket of AF_ALG", 41, [38, 5, 0, 0]), EPERM),
    (("a call of tomorrow", 467, [0; 4]), ENOSYS),
    (("no call", 1000, [0; 4]), ENOSYS),
];

#[test]
fn what_docker_refuses_is_refused_in_the_same_way() {
    let Some(mut step) = Step::new() else { return };
    let calls = REFUSED.map(|(call, _)| call);
    let found = results(&mut step, Way::Wide, &calls).expect("it is a 64-bit program");
    for ((call, expected), found) in REFUSED.iter().zip(found) {
        assert_eq!(found, *expected, "{}", call.0);
    }
}

#[test]
fn what_it_allows_reaches_the_kernel() {
    let Some(mut step) = Step::new() else { return };
    let calls: [(Made, i32); 6] = [
        (("name_to_handle_at", 303, [u64::MAX, 0, 0, 0]), EFAULT),
        (("personality, asked for", 135, [0xffff_ffff, 0, 0, 0]), 0),
        (("PER_LINUX32", 135, [8, 0, 0, 0]), 0),
        (("ptrace(PTRACE_TRACEME)", 101, [0; 4]), 0),
        (("process_vm_readv", 310, [1, 0, 0, 0]), 0),
        (("socket of AF_UNIX", 41, [1, 1, 0, 0]), 3),
    ];
    let found = results(&mut step, Way::Wide, &calls.map(|(call, _)| call)).expect("it is a 64-bit program");
    for ((call, expected), found) in calls.iter().zip(found) {
        assert_eq!(found, *expected, "{}", call.0);
    }
}

/// These fail for another reason, or not at all, where the filter is not asked.
#[test]
fn without_the_filter_the_kernel_answers() {
    let Some(mut step) = Step::new() else { return };
    step.spec.filter_calls = false;
    let calls: [(Made, i32); 4] = [
        (("clone3", 435, [0; 4]), EINVAL),
        (("add_key", 248, [0; 4]), EFAULT),
        (("process_madvise", 440, [u64::MAX, 0, 0, 0]), EBADF),
        (("personality without random addresses", 135, [0x4_0000, 0, 0, 0]), 0),
    ];
    let found = results(&mut step, Way::Wide, &calls.map(|(call, _)| call)).expect("it is a 64-bit program");
    for ((call, expected), found) in calls.iter().zip(found) {
        assert_eq!(found, *expected, "{}", call.0);
    }
}

#[test]
fn a_32_bit_program_runs_and_its_own_numbers_count() {
    let Some(mut step) = Step::new() else { return };
    // Two of these numbers are harmless calls of 64-bit programs: 21 is `access` there, 22 `pipe`.
    let calls: [(Made, i32); 9] = [
        (("getpid", 20, [0; 4]), 2),
        (("mount", 21, [0; 4]), EPERM),
        (("umount", 22, [0; 4]), EPERM),
        (("keyctl", 288, [0; 4]), EPERM),
        (("clone3", 435, [0; 4]), ENOSYS),
        (("personality without random addresses", 136, [0x4_0000, 0, 0, 0]), EPERM),
        (("socket of AF_VSOCK", 359, [40, 1, 0, 0]), EPERM),
        (("socketcall", 102, [1, 0, 0, 0]), EFAULT),
        (("a call of tomorrow", 467, [0; 4]), ENOSYS),
    ];
    let Some(found) = results(&mut step, Way::I386, &calls.map(|(call, _)| call)) else { return };
    for ((call, expected), found) in calls.iter().zip(found) {
        assert_eq!(found, *expected, "{}", call.0);
    }
}

/// Few kernels serve x32, and then such a call fails with ENOSYS; the filter refuses before that.
#[test]
fn numbers_of_x32_lead_around_nothing() {
    let Some(mut step) = Step::new() else { return };
    // What emulates owners knows none of them.
    let refused = if step.spec.emulation.is_some() { ENOSYS } else { EPERM };
    let calls: [(Made, i32); 5] = [
        (("keyctl", X32 | 250, [0; 4]), refused),
        (("mount", X32 | 165, [0; 4]), refused),
        (("socket of AF_ALG", X32 | 41, [38, 5, 0, 0]), refused),
        (("init_module", X32 | 175, [0; 4]), refused),
        (("above the last", X32 | 548, [0; 4]), ENOSYS),
    ];
    let found = results(&mut step, Way::Wide, &calls.map(|(call, _)| call)).expect("it is a 64-bit program");
    for ((call, expected), found) in calls.iter().zip(found) {
        assert_eq!(found, *expected, "{}", call.0);
    }
}

#[test]
fn a_capability_brings_its_calls() {
    let Some(mut step) = Step::new() else { return };
    let calls: [Made; 3] = [
        ("clone3", 435, [0; 4]),
        ("bpf", 321, [u64::MAX, 0, 0, 0]),
        ("keyctl", 250, [0, u64::MAX - 2, 0, 0]),
    ];
    step.spec.capabilities = CapabilitySet::ALL;
    let found = results(&mut step, Way::Wide, &calls).expect("it is a 64-bit program");
    assert_eq!(found, [EINVAL, EINVAL, EPERM], "no capability brings `keyctl`");
}

#[test]
fn every_user_has_it_and_sudo_would_work() {
    let Some(mut step) = Step::new() else { return };
    let status = "grep -E '^(NoNewPrivs|Seccomp):' /proc/self/status | tr -s '\\t\\n' ' '";
    // Owners are emulated by a filter.
    let without =
        if step.spec.emulation.is_some() { "NoNewPrivs: 0 Seccomp: 2 " } else { "NoNewPrivs: 0 Seccomp: 0 " };
    for (uid, filter, expected) in [
        (0, true, "NoNewPrivs: 0 Seccomp: 2 "),
        (1234, true, "NoNewPrivs: 0 Seccomp: 2 "),
        (0, false, without),
    ] {
        step.spec.user.uid = uid;
        step.spec.filter_calls = filter;
        assert_eq!(step.output(status), expected);
        step.renew();
    }
    step.spec.filter_calls = true;
    step.spec.user.uid = 0;
    step.spec.emulation = None;
    step.kernel.seccomp = false;
    assert_eq!(step.output(status), "NoNewPrivs: 0 Seccomp: 0 ", "there is none to be had");
}

#[test]
fn the_session_keyring_is_a_new_one() {
    let Some(mut step) = Step::new() else { return };
    let session: [Made; 1] = [("keyctl(GET_KEYRING_ID, session)", 250, [0, u64::MAX - 2, 0, 0])];
    let here = step.at("calls");
    write_program(&here, &Way::Wide.program(&session));
    let mut output = Command::new(&here).output();
    while output.as_ref().is_err_and(|error| error.kind() == ErrorKind::ExecutableFileBusy) {
        output = Command::new(&here).output();
    }
    let ours = words(&output.expect("it is a program").stdout);
    step.spec.filter_calls = false;
    let inside = results(&mut step, Way::Wide, &session).expect("it is a 64-bit program");
    assert!(inside[0] > 0 && ours != inside, "{ours:?} {inside:?}");
}
