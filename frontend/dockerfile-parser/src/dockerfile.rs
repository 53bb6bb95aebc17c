//! The whole file: global arguments, then stages.

use crate::directive::Directive;
use crate::flag::Flag;
use crate::instruction::{Arg, From, Instruction};
use crate::span::Span;
use crate::word::{Escape, Word};

/// A Dockerfile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dockerfile {
    /// The directives at the top, in order: `# syntax=`, `# escape=`, `# check=`.
    pub directives: Vec<Directive>,
    /// The character that `# escape=` sets; words are expanded with it, heredocs with `\`.
    pub escape: Escape,
    /// `ARG`s above the first `FROM`, visible to `FROM` lines only.
    pub global_args: Vec<Node<Arg>>,
    /// The stages in order; at least one in a file that [`parse`](crate::parse) accepts.
    pub stages: Vec<Stage>,
}

/// A `FROM` and the instructions up to the next one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stage {
    /// The `FROM`; its name is `from.value.name`.
    pub from: Node<From>,
    /// What a comment above says about the stage: `# name text` gives `text`.
    pub description: Option<String>,
    /// The instructions in order.
    pub instructions: Vec<Node<Instruction>>,
    /// From the `FROM` to the end of the last instruction.
    pub span: Span,
}

impl Stage {
    /// The name behind `AS`, in lower case.
    pub fn name(&self) -> Option<&str> {
        self.from.value.name.as_ref().map(|name| &*name.name)
    }
}

/// An instruction as it stands in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node<T> {
    /// What it says.
    pub value: T,
    /// The keyword as written, in any case.
    pub keyword: Word,
    /// The flags as written, in order.
    pub flags: Vec<Flag>,
    /// All of it as one line: continuations joined, comments inside taken out, trimmed, without heredoc bodies. This
    /// is what progress output and the image history show.
    pub text: String,
    /// From the keyword to the end of its last line, heredocs included.
    pub span: Span,
    /// The comments directly above, without directives.
    pub comments: Vec<Comment>,
    /// `# check=` comments directly above, which hold for this instruction only.
    pub checks: Vec<Directive>,
    /// Empty lines inside, which a continuation steps over.
    pub empty_lines: Vec<Span>,
}

impl<T> Node<T> {
    /// The same place in the file with another value.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Node<U> {
        let Node { value, keyword, flags, text, span, comments, checks, empty_lines } = self;
        Node { value: change(value), keyword, flags, text, span, comments, checks, empty_lines }
    }
}

/// A comment above an instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Comment {
    /// What it says, without `#`, trimmed.
    pub text: String,
    /// From `#` to the end of the line.
    pub span: Span,
}
