//! BuildKit's build checks, and Kiln's own: what is likely not meant, or will hurt later.
//!
//! | File | Rules about |
//! |---|---|
//! | `rules.rs` | the catalogue |
//! | `text.rs` | the text of the whole file: casing, stage names, comments, continuations |
//! | `from.rs` | `FROM`: its arguments and its platform |
//! | `settings.rs` | instructions that change the config: secrets, ports, commands, folders |
//! | `ignored.rs` | `COPY` of what the ignore file leaves out |
//! | `broad.rs`, `installers.rs` | Kiln's own: `COPY . .` above the installation of dependencies |
//!
//! Each rule has a page in `docs/checks/`, whose examples are its tests. Rules about the text hold for every stage; the
//! others for the stages that are lowered, so that a build is told of what it builds, and [`check`] of everything.

pub(crate) mod broad;
pub(crate) mod from;
pub(crate) mod ignored;
mod installers;
mod rules;
pub(crate) mod settings;
pub(crate) mod text;

use std::collections::BTreeMap;

use dockerfile_parser::{Dockerfile, Span};

use crate::{
    Entitlement, Fact, Facts, LowerError, Request, Warning,
    lower::{Passed, Stages, pass},
    words::Words,
};

pub use rules::*;

/// What came of checking a file.
#[derive(Clone, Debug, Default)]
pub struct Checking {
    /// Facts that must be known before everything could be checked, as of [`Lowering::Needs`](crate::Lowering::Needs).
    /// Whoever can find them out does and checks again; the rest holds for what could be checked without them.
    pub needs: BTreeMap<Fact, Span>,
    /// Broken rules, in the order of the file.
    pub warnings: Vec<Warning>,
    /// Why the file cannot be built; or, where `# check=error=true`, that a rule is broken.
    pub error: Option<LowerError>,
}

/// Checks a file without building anything: all its stages, or with [`Request::target`] those that this one needs.
///
/// Pure, and in rounds like [`lower`](crate::lower()). What `RUN` may do is not asked: whoever checks allows nothing.
pub fn check(file: &Dockerfile, request: &Request, facts: &Facts) -> Checking {
    let mut request = request.clone();
    request.allow.extend([Entitlement::NetworkHost, Entitlement::SecurityInsecure]);
    let mut words = match Words::new(file, &request) {
        Ok(words) => words,
        Err(error) => return Checking { error: Some(error), ..Checking::default() },
    };
    let stages = match request.target.as_deref().unwrap_or_default() {
        "" => Stages::All,
        _ => Stages::Needed,
    };
    let passed = pass(file, &request, facts, stages, &mut words);
    let (warnings, policy) = words.warnings.finish();
    match passed {
        Ok(Passed::Needs(needs)) => Checking { needs, warnings, error: None },
        Ok(Passed::Done(_)) => {
            Checking { needs: BTreeMap::new(), error: policy.verdict(&warnings), warnings }
        }
        Err(error) => Checking { needs: BTreeMap::new(), warnings, error: Some(error) },
    }
}
