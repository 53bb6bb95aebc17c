//! What is said where the machine has no thread or descriptor left for a library that cannot go on without.
//!
//! The runtime, the pool of threads and the standard library's scopes panic then: they have no other way to say so, and some of
//! them wait for each other after that. It is no bug of Kiln's, and the fix is a setting of the machine. What is on the disk is as
//! after `kill -9`, which the next build knows how to go on from, so the process ends at once.

use std::panic::PanicHookInfo;

use crate::{
    failure::{self, Failure, Source},
    terminal,
};

/// How the words begin that libraries panic with, and what there is none left of. `tests/tests/faults/` makes each happen.
const WORDS: [(&str, &str); 4] = [
    ("failed to spawn thread", "thread"),
    ("OS can't spawn worker thread", "thread"),
    ("The global thread pool has not been initialized", "thread"),
    ("failed to create UnixStream", "descriptor"),
];

/// Makes the end of threads and descriptors an error like any other; every other panic is as it was.
pub fn is_told() {
    let otherwise = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| match lacking(panic) {
        Some((what, words)) => {
            terminal::restore();
            let (colour, width) = failure::screen();
            let failure = failure_for(what, words);
            eprintln!("{}", failure.render(&Source::default(), colour, width));
            std::process::exit(i32::from(failure.status));
        }
        // Packets of a step may make a library panic (`builder/network-stack`): its connection ends, and nobody needs to be told.
        None if std::thread::current().name() == Some(sandbox::net::PACKETS) => {}
        None => otherwise(panic),
    }));
}

/// What there is none left of, and all the words.
fn lacking<'a>(panic: &'a PanicHookInfo<'_>) -> Option<(&'static str, &'a str)> {
    let words = panic.payload_as_str()?;
    let found = WORDS.into_iter().find(|(beginning, _)| words.starts_with(beginning))?;
    Some((found.1, words))
}

fn failure_for(what: &str, words: &str) -> Failure {
    let (setting, container) =
        if what == "thread" { ("-u", " and `pids.max` of its container") } else { ("-n", "") };
    Failure::none(
        format!("the machine has no {what} left for Kiln: {words}"),
        format!("raise what `ulimit {setting}` shows{container}, or end other programs"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_named() {
        let threads =
            failure_for("thread", "failed to spawn thread: no").render(&Source::default(), false, 80);
        assert!(threads.starts_with("error") && threads.contains("ulimit -u"), "{threads}");
        let descriptors = failure_for("descriptor", "x").render(&Source::default(), false, 80);
        assert!(descriptors.contains("ulimit -n"), "{descriptors}");
    }
}
