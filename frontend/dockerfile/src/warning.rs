//! What a build goes on in spite of: BuildKit's build checks, as far as lowering sees them.

use std::collections::BTreeSet;

use dockerfile_parser::{CheckOptions, DirectiveName, Dockerfile, Span};

/// A broken rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Warning {
    /// The place to underline.
    pub span: Span,
    /// The rule's name, as in `# check=skip=…`.
    pub code: &'static str,
    /// What is wrong here, in a sentence.
    pub message: String,
}

/// Warnings on their way, without those that the file does not want.
#[derive(Default)]
pub(crate) struct Warnings {
    found: BTreeSet<Warning>,
    options: CheckOptions,
    /// Instructions that turn rules off for themselves.
    exceptions: Vec<(Span, CheckOptions)>,
}

impl Warnings {
    /// Starts with what the reader of the file noticed.
    /// `override_options` (`BUILDKIT_DOCKERFILE_CHECK`) stands for the file's `# check=`.
    pub(crate) fn new(file: &Dockerfile, override_options: Option<&String>) -> Warnings {
        let options = |value: &str| CheckOptions::parse(value).unwrap_or_default();
        let directive = file.directives.iter().find(|directive| directive.name == DirectiveName::Check);
        let of_file = override_options.or(directive.map(|directive| &directive.value));
        let nodes = file.stages.iter().flat_map(|stage| {
            let nodes = stage.instructions.iter().map(|node| (node.span, &node.checks));
            std::iter::once((stage.from.span, &stage.from.checks)).chain(nodes)
        });
        let exceptions =
            nodes.flat_map(|(span, checks)| checks.iter().map(move |check| (span, options(&check.value))));
        let mut warnings = Warnings {
            found: BTreeSet::new(),
            options: of_file.map(|value| options(value)).unwrap_or_default(),
            exceptions: exceptions.collect(),
        };
        for warning in &file.warnings {
            warnings.add(warning.rule.name(), warning.message.clone(), warning.span);
        }
        warnings
    }

    /// Adds a warning, once, unless the file or the instruction around it skips the rule.
    pub(crate) fn add(&mut self, code: &'static str, message: String, span: Span) {
        let within = |outer: &Span| outer.start <= span.start && span.end <= outer.end;
        let mut exceptions = self.exceptions.iter().filter(|(outer, _)| within(outer));
        if self.options.skip.contains(code) || exceptions.any(|(_, options)| options.skip.contains(code)) {
            return;
        }
        self.found.insert(Warning { span, code, message });
    }

    /// The warnings in the order of the file, and the rules that make them an error, each once.
    pub(crate) fn finish(self) -> (Vec<Warning>, BTreeSet<String>) {
        let rules = self.found.iter().map(|warning| warning.code.to_owned());
        let rules = if self.options.error { rules.collect() } else { BTreeSet::new() };
        (self.found.into_iter().collect(), rules)
    }
}
