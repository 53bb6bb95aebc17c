//! `ONBUILD <instruction>`

use super::{Instruction, unknown};
use crate::error::{ErrorKind, ParseError};
use crate::statement::Statement;
use std::fmt::Write;

/// `ONBUILD`: an instruction for builds on top of this image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Onbuild {
    /// What the image config stores: the instruction's line, continuations joined, blanks at its end included, and its
    /// heredocs behind it.
    /// [`parse_trigger`](crate::parse_trigger) reads it back.
    pub trigger: String,
    /// The instruction, read now so that an error shows here and not in someone else's build.
    pub instruction: Box<Instruction>,
}

impl Onbuild {
    pub(crate) fn parse(statement: &Statement<'_>) -> Result<Onbuild, ParseError> {
        statement.read_flags(&[])?;
        let Some(inner) = statement.inner() else { return Err(statement.needs_one_argument()) };
        let instruction = match inner.name() {
            "" => return Err(unknown(&inner)),
            name @ ("FROM" | "MAINTAINER" | "ONBUILD") => {
                return Err(ParseError::new(ErrorKind::OnbuildTrigger { name }, inner.keyword().span));
            }
            _ => Box::new(Instruction::parse(&inner)?),
        };
        let mut trigger = statement.rest_of_line().to_owned();
        for (_, heredoc) in statement.heredocs() {
            let _infallible = write!(trigger, "\n{}{}", heredoc.content, heredoc.name);
        }
        Ok(Onbuild { trigger, instruction })
    }
}
