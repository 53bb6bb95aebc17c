//! The stages that `--target` can name.

use dockerfile_parser::{Dockerfile, Span};

use crate::words::plain;

/// A stage, as it stands in the file: nothing is replaced or looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The name behind `AS`, in lower case.
    pub name: Option<String>,
    /// Whether it is what a build without `--target` makes.
    pub default: bool,
    /// What the comment above says of it.
    pub description: Option<String>,
    /// What is behind `FROM`.
    pub base: String,
    /// `--platform`.
    pub platform: Option<String>,
    /// The `FROM`.
    pub span: Span,
}

/// The stages of a file, in order.
pub fn targets(file: &Dockerfile) -> Vec<Target> {
    let last = file.stages.len().saturating_sub(1);
    let stages = file.stages.iter().enumerate();
    let target = |(index, stage): (usize, &dockerfile_parser::Stage)| {
        let from = &stage.from.value;
        Target {
            name: stage.name().map(str::to_owned),
            default: index == last,
            description: stage.description.as_deref().map(plain),
            base: plain(&from.image.text),
            platform: from.platform.as_ref().map(|word| plain(&word.text)),
            span: stage.from.span,
        }
    };
    stages.map(target).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_as_they_are_written() {
        let text =
            b"ARG V=3\n# base what others stand on\nFROM --platform=$BUILDPLATFORM alpine:$V AS Base\n\n\
                     # no description\nFROM scratch\n# app the program\nFROM base AS app\nRUN make\n";
        let file = dockerfile_parser::parse(text).expect("a Dockerfile");
        let found = targets(&file);
        let shown: Vec<_> = found
            .iter()
            .map(|t| {
                (
                    t.name.as_deref(),
                    t.default,
                    t.description.as_deref(),
                    &*t.base,
                    t.platform.as_deref(),
                    &text[t.span.range()],
                )
            })
            .collect();
        assert_eq!(
            shown,
            [
                (
                    Some("base"),
                    false,
                    Some("what others stand on"),
                    "alpine:$V",
                    Some("$BUILDPLATFORM"),
                    &b"FROM --platform=$BUILDPLATFORM alpine:$V AS Base"[..],
                ),
                (None, false, None, "scratch", None, b"FROM scratch"),
                (Some("app"), true, Some("the program"), "base", None, b"FROM base AS app"),
            ]
        );
    }
}
