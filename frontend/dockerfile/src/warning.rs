//! What a build goes on in spite of: rules that were broken, without those that the file does not want.

use std::collections::BTreeSet;

use dockerfile_parser::{CheckOptions, Directive, DirectiveName, Dockerfile, ParseError, Span};

use crate::{ErrorKind, LowerError, Request, lint::Rule};

/// The build argument that stands for the file's `# check=`.
const OVERRIDE: &str = "BUILDKIT_DOCKERFILE_CHECK";

/// A broken rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Warning {
    /// The place to underline.
    pub span: Span,
    /// The instruction that it is in, whole: the lines that BuildKit names.
    pub instruction: Span,
    /// The rule.
    pub rule: &'static Rule,
    /// What is wrong here, in a sentence.
    pub message: String,
}

/// Which rules a file wants, where, and whether a broken one fails the build: `# check=` at the top, the build argument
/// that stands for it, and `# check=` above an instruction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    of_file: CheckOptions,
    /// Instructions in order, each with what its own comments say.
    instructions: Vec<(Span, Vec<CheckOptions>)>,
}

impl Policy {
    /// Reads what a file says, and the build argument.
    ///
    /// # Errors
    /// A build argument that cannot be read. What stands in the file was checked by the parser.
    pub(crate) fn new(file: &Dockerfile, request: &Request) -> Result<Policy, LowerError> {
        let read = |check: &Directive| CheckOptions::parse(&check.value).unwrap_or_default();
        let of_file = match request.build_args.get(OVERRIDE) {
            Some(value) => CheckOptions::parse(value).map_err(bad_argument)?,
            None => {
                let mut checks = file.directives.iter().filter(|line| line.name == DirectiveName::Check);
                checks.next().map(read).unwrap_or_default()
            }
        };
        let arguments = file.global_args.iter().map(|node| (node.span, &node.checks));
        let stages = file.stages.iter().flat_map(|stage| {
            let nodes = stage.instructions.iter().map(|node| (node.span, &node.checks));
            std::iter::once((stage.from.span, &stage.from.checks)).chain(nodes)
        });
        let instructions = arguments.chain(stages);
        let instructions = instructions.map(|(span, checks)| (span, checks.iter().map(read).collect()));
        Ok(Policy { of_file, instructions: instructions.collect() })
    }

    /// Whether a rule is to be checked at a place.
    pub fn wants(&self, rule: &Rule, place: Span) -> bool {
        let own = self.around(place).map(|(_, options)| &**options).unwrap_or_default();
        let mut options = std::iter::once(&self.of_file).chain(own);
        match rule.experimental {
            true => options.any(|options| options.experimental.contains(rule.name)),
            false => !options.any(|options| options.skip.contains(rule.name)),
        }
    }

    /// Whether a broken rule fails the build: `# check=error=true`.
    pub fn fails(&self) -> bool {
        self.of_file.error
    }

    /// The error that warnings are where the file says so: [`Policy::fails`].
    pub fn verdict(&self, warnings: &[Warning]) -> Option<LowerError> {
        let first = warnings.first().filter(|_| self.fails())?.span;
        let rules: BTreeSet<&str> = warnings.iter().map(|warning| warning.rule.name).collect();
        let rules = rules.into_iter().map(str::to_owned).collect();
        Some(LowerError::new(ErrorKind::Checks { rules }, Some(first)))
    }

    /// The instruction that a place is in; the place itself where it is in none.
    fn instruction(&self, place: Span) -> Span {
        self.around(place).map_or(place, |(span, _)| *span)
    }

    fn around(&self, place: Span) -> Option<&(Span, Vec<CheckOptions>)> {
        let behind = self.instructions.partition_point(|(span, _)| span.start <= place.start);
        let around = self.instructions.get(behind.checked_sub(1)?)?;
        (place.end <= around.0.end).then_some(around)
    }
}

fn bad_argument(reason: dockerfile_parser::CheckError) -> LowerError {
    let kind = dockerfile_parser::ErrorKind::CheckDirective { reason };
    LowerError::new(ErrorKind::Word(ParseError::new(kind, Span::default())), None)
}

/// Warnings on their way.
#[derive(Default)]
pub(crate) struct Warnings {
    found: BTreeSet<Warning>,
    policy: Policy,
}

impl Warnings {
    pub(crate) fn new(policy: Policy) -> Warnings {
        Warnings { found: BTreeSet::new(), policy }
    }

    /// Adds a warning, once, unless the file or the instruction around it does not want the rule.
    pub(crate) fn add(&mut self, rule: &'static Rule, message: String, span: Span) {
        self.add_by(rule, message, span, span);
    }

    /// As [`Warnings::add`], where the place is another than that of the instruction that broke the rule: the comments
    /// of both are obeyed.
    pub(crate) fn add_by(&mut self, rule: &'static Rule, message: String, span: Span, by: Span) {
        if self.policy.wants(rule, span) && self.policy.wants(rule, by) {
            let instruction = self.policy.instruction(span);
            self.found.insert(Warning { span, instruction, rule, message });
        }
    }

    /// The warnings in the order of the file, and what the file wants to come of them.
    pub(crate) fn finish(self) -> (Vec<Warning>, Policy) {
        (self.found.into_iter().collect(), self.policy)
    }
}
