//! Why steps cannot have networks of their own.

use std::path::PathBuf;

use super::namespace::Failed;
use super::way::Way;

/// Why one way to give them networks is closed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The kernel refuses, or lacks something.
    #[error("{what}: {reason}")]
    Kernel {
        /// What was asked of it.
        what: &'static str,
        /// Its answer.
        reason: String,
    },
    /// The host's firewall drops what is forwarded, as far as can be told, and Kiln cannot make it let steps through.
    #[error("the host's firewall ({chain}) may drop the packets that it forwards")]
    Firewall {
        /// Where it does so.
        chain: String,
        /// Whether it does so only with what none of its rules decided on.
        by_policy: bool,
    },
    /// The host cannot be made to forward.
    #[error("the host cannot be made to forward packets ({folder:?}: {reason})")]
    Forwarding {
        /// Where is noted what was switched on.
        folder: PathBuf,
        /// Why.
        reason: String,
    },
    /// The host has routes to all private addresses.
    #[error("the host has a route to every private address")]
    NoAddresses,
    /// No such program is on the `PATH`.
    #[error("pasta is not installed")]
    NotInstalled,
    /// What the program needs cannot be opened.
    #[error("{path}: {reason}")]
    NoTunnels {
        /// The device.
        path: &'static str,
        /// Why.
        reason: String,
    },
    /// The host has no way out that the program could use.
    #[error("the host has no route to everywhere")]
    NoRoute,
    /// The program was not ready in time, or ended.
    #[error("{program:?}: {reason}")]
    Program {
        /// Where it is.
        program: PathBuf,
        /// What it said.
        reason: String,
    },
}

impl From<Failed> for Refusal {
    fn from(failed: Failed) -> Refusal {
        Refusal::Kernel { what: failed.what, reason: std::io::Error::from(failed.errno).to_string() }
    }
}

/// Why steps cannot have networks of their own: the ways that were tried, in that order.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", listed(.refusals))]
pub struct Unavailable {
    /// Each of them, and why it is closed.
    pub refusals: Vec<(Way, Refusal)>,
    /// Whether steps of this build had some before. A step that lacks one then cannot have the host's instead: another step may
    /// have brought that about.
    pub is_late: bool,
}

impl Unavailable {
    /// No step of this build had any.
    pub(super) fn at_first(refusals: Vec<(Way, Refusal)>) -> Unavailable {
        Unavailable { refusals, is_late: false }
    }
}

fn listed(refusals: &[(Way, Refusal)]) -> String {
    let texts: Vec<String> = refusals.iter().map(|(_, refusal)| refusal.to_string()).collect();
    texts.join("; ")
}
