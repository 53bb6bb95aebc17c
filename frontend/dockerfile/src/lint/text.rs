//! Rules about the text of the whole file, whichever stages are built.

use std::collections::BTreeSet;

use dockerfile_parser::{Comment, Dockerfile, Instruction, Node, Span, Stage};

use super::{
    CONSISTENT_INSTRUCTION_CASING, DUPLICATE_STAGE_NAME, FROM_AS_CASING, INVALID_DEFINITION_DESCRIPTION,
    MAINTAINER_DEPRECATED, NO_EMPTY_CONTINUATION, RESERVED_STAGE_NAME, STAGE_NAME_CASING,
};
use crate::{gotext::quoted, warning::Warnings};

/// Names that `FROM` and `--from` take for something else.
const RESERVED: [&str; 2] = ["context", "scratch"];

/// Checks everything that the text alone decides.
pub(crate) fn whole_file(file: &Dockerfile, warnings: &mut Warnings) {
    for node in &file.global_args {
        let names = node.value.names.iter().map(|name| &*name.name.text);
        node_rules(node, warnings);
        description("ARG", &names.collect::<Vec<_>>(), &node.comments, node.span, warnings);
    }
    for stage in &file.stages {
        stage_rules(stage, warnings);
        for node in &stage.instructions {
            node_rules(node, warnings);
            match &node.value {
                Instruction::Maintainer(_) => {
                    let message = "Maintainer instruction is deprecated in favor of using label".to_owned();
                    warnings.add(&MAINTAINER_DEPRECATED, message, node.keyword.span);
                }
                Instruction::Arg(arg) => {
                    let names: Vec<_> = arg.names.iter().map(|name| &*name.name.text).collect();
                    description("ARG", &names, &node.comments, node.span, warnings);
                }
                _ => {}
            }
        }
    }
    names(&file.stages, warnings);
    casing(&file.stages, warnings);
}

fn node_rules<T>(node: &Node<T>, warnings: &mut Warnings) {
    if let (Some(first), Some(last)) = (node.empty_lines.first(), node.empty_lines.last()) {
        let message = "Empty continuation line".to_owned();
        warnings.add(&NO_EMPTY_CONTINUATION, message, first.to(*last));
    }
}

fn stage_rules(stage: &Stage, warnings: &mut Warnings) {
    let from = &stage.from;
    node_rules(from, warnings);
    let Some(name) = &from.value.name else { return };
    if name.written.text != name.name {
        let message = format!("Stage name '{}' should be lowercase", name.written.text);
        warnings.add(&STAGE_NAME_CASING, message, name.written.span);
    }
    let (keyword, between) = (&from.keyword.text, &name.keyword.text);
    let same = match Casing::of(keyword) {
        Some(casing) => casing.fits(between),
        // The other rule speaks of a keyword that is neither.
        None => true,
    };
    if !same {
        let message = format!("'{between}' and '{keyword}' keywords' casing do not match");
        warnings.add(&FROM_AS_CASING, message, name.keyword.span);
    }
    description("FROM", &[&name.name], &from.comments, from.span, warnings);
}

/// The comment next to a definition should say what is defined.
fn description(instruction: &str, names: &[&str], comments: &[Comment], span: Span, warnings: &mut Warnings) {
    let Some(comment) = comments.last() else { return };
    let first = comment.text.split(' ').next().unwrap_or_default();
    let example = match names {
        [] => return,
        names if names.contains(&first) => return,
        [only] => only,
        _ => "<arg_key>",
    };
    let message = format!("Comment for {instruction} should follow the format: `# {example} <description>`");
    warnings.add_by(&INVALID_DEFINITION_DESCRIPTION, message, comment.span, span);
}

fn names(stages: &[Stage], warnings: &mut Warnings) {
    let mut seen = BTreeSet::new();
    for name in stages.iter().filter_map(|stage| stage.from.value.name.as_ref()) {
        let shown = quoted(&name.name);
        if RESERVED.contains(&&*name.name) {
            let message = format!("Stage name should not use the same name as reserved stage {shown}");
            warnings.add(&RESERVED_STAGE_NAME, message, name.written.span);
        }
        if !seen.insert(&name.name) {
            let message = format!("Duplicate stage name {shown}, stage names should be unique");
            warnings.add(&DUPLICATE_STAGE_NAME, message, name.written.span);
        }
    }
}

/// How a keyword is written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Casing {
    Lower,
    Upper,
}

impl Casing {
    /// `None` of one that is neither.
    fn of(keyword: &str) -> Option<Casing> {
        [Casing::Lower, Casing::Upper].into_iter().find(|casing| casing.fits(keyword))
    }

    fn fits(self, keyword: &str) -> bool {
        match self {
            Casing::Lower => keyword == keyword.to_lowercase(),
            Casing::Upper => keyword == keyword.to_uppercase(),
        }
    }
}

/// All keywords should be written as most of them are; of two halves, in upper case.
fn casing(stages: &[Stage], warnings: &mut Warnings) {
    let keywords: Vec<_> = stages
        .iter()
        .flat_map(|stage| {
            let nodes = stage.instructions.iter().map(|node| &node.keyword);
            std::iter::once(&stage.from.keyword).chain(nodes)
        })
        .collect();
    let count = |casing| keywords.iter().filter(|word| Casing::of(&word.text) == Some(casing)).count();
    let (most, name) = match count(Casing::Lower) > count(Casing::Upper) {
        true => (Casing::Lower, "lowercase"),
        false => (Casing::Upper, "uppercase"),
    };
    for word in keywords.into_iter().filter(|word| !most.fits(&word.text)) {
        let message =
            format!("Command '{}' should match the case of the command majority ({name})", word.text);
        warnings.add(&CONSISTENT_INSTRUCTION_CASING, message, word.span);
    }
}
