//! Kiln started by a user who is not root: a user who exists for the test alone ([`kiln_tests::mode`]), on a machine that is
//! changed for the command alone.

mod commands;
mod ends;
mod info;
mod place;
mod programs;
mod surroundings;

use kiln_tests::mode::TestMode;

/// The modes of a user's.
const MODES: [TestMode; 2] = [TestMode::Subids, TestMode::Single];

/// Says why a test cannot run here, and whether.
fn cannot(test: &str) -> bool {
    let needs = [
        "root: it becomes users, and changes the machine for them",
        "busybox",
        "program:unshare",
        "program:setpriv",
        "program:newuidmap",
        "program:python3",
    ];
    kiln_tests::machine::cannot(&format!("rootless::{test}"), needs)
}
