//! A step with a terminal.

use std::fs::File;
use std::io::{Read, Write};

use sandbox::{Mode, Status, Stdio, User, WindowSize, start};

use crate::support::Step;

/// Reads until the text appears, or nobody holds the terminal any more.
fn read_until(master: &mut File, text: &str) -> String {
    let mut seen = String::new();
    let mut buffer = [0_u8; 1024];
    while !seen.contains(text) {
        match master.read(&mut buffer) {
            Ok(length @ 1..) => seen += &String::from_utf8_lossy(&buffer[..length]),
            _ => break,
        }
    }
    seen
}

#[test]
fn a_terminal_controls_the_step() {
    let Some(mut step) = Step::but_in(&[Mode::SINGLE], "the terminal gets another owner") else { return };
    step.spec.user = User { uid: 77, gid: 77, additional_gids: vec![] };
    step.script("trap 'echo interrupted; exit 5' INT; tty; stty size; stat -c %u /dev/console; echo hi > /dev/tty; read x; echo got $x; stty size; while :; do sleep 0.01; done");
    let running =
        start(&step.spec, Stdio::Terminal(WindowSize { rows: 24, columns: 80 })).expect("it starts");
    let master = running.terminal().expect("there is a terminal");
    let mut master = File::from(master.try_clone_to_owned().expect("there are descriptors"));
    let seen = read_until(&mut master, "hi");
    assert_eq!(seen.trim_end(), "/dev/pts/0\r\n24 80\r\n77\r\nhi", "{seen:?}");
    running.handle().resize(WindowSize { rows: 50, columns: 132 }).expect("it is a terminal");
    master.write_all(b"word\n").expect("the terminal takes it");
    let seen = read_until(&mut master, "50 132");
    assert!(seen.contains("got word\r\n50 132"), "{seen:?}");
    // Ctrl-C, which only a controlling terminal turns into a signal.
    master.write_all(b"\x03").expect("the terminal takes it");
    let seen = read_until(&mut master, "interrupted");
    assert!(seen.contains("interrupted"), "{seen:?}");
    assert_eq!(running.wait().expect("it ends").status, Status::Exited(5));
}

#[test]
fn a_terminal_ends_with_the_step() {
    let Some(mut step) = Step::new() else { return };
    step.script("echo bye");
    let running = start(&step.spec, Stdio::Terminal(WindowSize { rows: 1, columns: 1 })).expect("it starts");
    let master = running.terminal().expect("there is a terminal");
    let mut master = File::from(master.try_clone_to_owned().expect("there are descriptors"));
    assert_eq!(read_until(&mut master, "never").trim(), "bye");
    assert!(running.wait().expect("it ends").status.is_success());
}

#[test]
fn a_missing_command_is_told_with_a_terminal_too() {
    let Some(mut step) = Step::new() else { return };
    step.spec.argv = vec!["foo".into()];
    let error = start(&step.spec, Stdio::Terminal(WindowSize { rows: 1, columns: 1 })).err();
    assert_eq!(error.and_then(|error| error.exit_code()), Some(127));
}
