//! Why a step of an earlier build cannot be entered.

/// Why a step of an earlier build cannot be entered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StepError {
    /// Nothing was built.
    #[error("no build is known that could be looked at{}", if *of_file { ": none was of this Dockerfile as it is now" } else { "" })]
    NoBuild {
        /// Whether one of a certain Dockerfile was asked for.
        of_file: bool,
    },
    /// There is no such step.
    #[error("the last build has no step {asked}")]
    NoStep {
        /// What was asked for.
        asked: String,
    },
    /// Several steps are meant.
    #[error("{asked} is more than one step of the last build: {}", numbers(steps))]
    Several {
        /// What was asked for.
        asked: String,
        /// Their numbers.
        steps: Vec<usize>,
    },
    /// Nothing is before a step.
    #[error("there is nothing before {step}")]
    NothingBefore {
        /// The step.
        step: String,
        /// Its number.
        number: Option<usize>,
    },
    /// A step has no result, or not any more.
    #[error("there is no result of {step}: {}", if *failed { "it failed" } else { "it is not in the cache any more" })]
    NoResult {
        /// The step.
        step: String,
        /// Whether it never had one.
        failed: bool,
    },
    /// What a step began with is gone.
    #[error("what {step} began with is not in the cache any more")]
    Gone {
        /// The step.
        step: String,
    },
}

fn numbers(steps: &[usize]) -> String {
    steps.iter().map(usize::to_string).collect::<Vec<_>>().join(", ")
}

impl StepError {
    /// A stable name, under which `docs/errors/` explains it.
    pub fn code(&self) -> &'static str {
        match self {
            StepError::NoBuild { .. } => "no-build",
            StepError::NoStep { .. } | StepError::Several { .. } => "no-step",
            StepError::NothingBefore { .. } | StepError::NoResult { .. } | StepError::Gone { .. } => {
                "step-gone"
            }
        }
    }

    /// A command that mends it.
    pub fn help(&self) -> String {
        match self {
            StepError::NoBuild { .. } => "kiln build .".to_owned(),
            StepError::NoStep { .. } => "kiln shell, alone, lists the steps".to_owned(),
            StepError::Several { steps, .. } => {
                format!("kiln shell {}", steps.first().copied().unwrap_or_default())
            }
            StepError::NothingBefore { number: Some(number), .. } => format!("kiln shell --after {number}"),
            StepError::NothingBefore { number: None, .. } => "kiln shell --after STEP".to_owned(),
            StepError::NoResult { failed: true, .. } => {
                "leave --after away: the shell then opens before it; or, in what it left, kiln build --on-error=shell"
                    .to_owned()
            }
            StepError::NoResult { failed: false, .. } | StepError::Gone { .. } => {
                "build it again: kiln build makes what is gone".to_owned()
            }
        }
    }
}
