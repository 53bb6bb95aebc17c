//! What is asked of a Dockerfile without building it: `--call`.
//!
//! Images' manifests and configs are asked for where the answer depends on them, and kept as any build keeps them; a
//! context that is no folder is fetched where the Dockerfile is in it. Nothing else is pulled or read, and nothing is run
//! or exported.

use std::sync::Arc;

use dockerfile::{
    Facts,
    describe::{Outline, Outlining, Target, outline, targets},
    lint::{Checking, check},
};
use dockerfile_parser::Dockerfile;

use super::{ROUNDS, answers, context::Make, parse, too_many_rounds};
use crate::{cancel::Cancel, effect::Effects, error::Error, request::BuildRequest};

/// What came of checking a Dockerfile.
#[derive(Debug, Default)]
pub struct Checked {
    /// The rules that it breaks, in the order of the file.
    pub warnings: Vec<dockerfile::Warning>,
    /// Why it cannot be built as far as one can tell without building it; or, where the file says so, that it breaks a
    /// rule.
    pub error: Option<Error>,
}

/// Checks all stages, or those that the request's target needs.
///
/// # Errors
/// [`Error::Cancelled`]; everything else is part of the answer.
pub(crate) async fn checked(
    effects: Arc<Effects>,
    request: BuildRequest,
    cancel: Cancel,
) -> Result<Checked, Error> {
    let make = Make { effects: &effects, jobs: None, cancel: &cancel };
    let read = match make.prepare(&request).await {
        Err(Error::Cancelled) => return Err(Error::Cancelled),
        prepared => prepared.and_then(|prepared| Ok((parse(&effects, &prepared)?, prepared.frontend))),
    };
    let (file, frontend) = match read {
        Ok(read) => read,
        Err(error) => return Ok(Checked { warnings: Vec::new(), error: Some(error) }),
    };
    tokio::select! {
        checked = rounds_of_check(&make, &request, &frontend, &file) => Ok(checked),
        () = cancel.wait() => Err(Error::Cancelled),
    }
}

async fn rounds_of_check(
    make: &Make<'_>,
    request: &BuildRequest,
    frontend: &dockerfile::Request,
    file: &Dockerfile,
) -> Checked {
    let mut known = Facts::new();
    for _ in 0..ROUNDS {
        let Checking { needs, warnings, error } = check(file, frontend, &known);
        if needs.is_empty() || error.is_some() {
            return Checked { warnings, error: error.map(|error| Error::Lower(Box::new(error))) };
        }
        match answers(make, request, needs).await {
            Ok(answers) => answers.into_iter().for_each(|(fact, answer)| known.insert(fact, answer)),
            Err(error) => return Checked { warnings, error: Some(error) },
        }
    }
    Checked { warnings: Vec::new(), error: Some(too_many_rounds()) }
}

/// Tells which stages there are.
///
/// # Errors
/// The Dockerfile cannot be read.
pub(crate) async fn listed(
    effects: Arc<Effects>,
    request: BuildRequest,
    cancel: Cancel,
) -> Result<Vec<Target>, Error> {
    let make = Make { effects: &effects, jobs: None, cancel: &cancel };
    Ok(targets(&parse(&effects, &make.prepare(&request).await?)?))
}

/// Tells what the target takes.
///
/// # Errors
/// As a build's, up to where it would begin to make something.
pub(crate) async fn outlined(
    effects: Arc<Effects>,
    request: BuildRequest,
    cancel: Cancel,
) -> Result<Outline, Error> {
    let make = Make { effects: &effects, jobs: None, cancel: &cancel };
    let prepared = make.prepare(&request).await?;
    let file = parse(&effects, &prepared)?;
    tokio::select! {
        outlined = rounds_of_outline(&make, &request, &prepared.frontend, &file) => outlined,
        () = cancel.wait() => Err(Error::Cancelled),
    }
}

async fn rounds_of_outline(
    make: &Make<'_>,
    request: &BuildRequest,
    frontend: &dockerfile::Request,
    file: &Dockerfile,
) -> Result<Outline, Error> {
    let mut known = Facts::new();
    for _ in 0..ROUNDS {
        match outline(file, frontend, &known).map_err(|error| Error::Lower(Box::new(error)))? {
            Outlining::Done(outline) => return Ok(outline),
            Outlining::Needs(needs) => {
                let answers = answers(make, request, needs).await?;
                answers.into_iter().for_each(|(fact, answer)| known.insert(fact, answer));
            }
        }
    }
    Err(too_many_rounds())
}
