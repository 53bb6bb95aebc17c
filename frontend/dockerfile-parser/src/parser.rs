//! From bytes to a [`Dockerfile`]: line by line, errors gathered on the way.

use crate::directive::{CheckOptions, Directive, DirectiveName};
use crate::dockerfile::{Comment, Dockerfile, Node, Stage};
use crate::error::{ErrorKind, ParseError};
use crate::heredoc::{self, Heredoc, Opening, Placed};
use crate::instruction::{Arg, From, Instruction};
use crate::logical::{LONGEST_LINE_BYTES, Lines, Logical};
use crate::span::Span;
use crate::statement::Statement;
use crate::text;
use crate::word::Escape;

/// Reads a Dockerfile. Takes time and memory in proportion to its length.
///
/// # Errors
/// What is wrong, in the order of the file, at least one. Reading goes on behind an instruction that is wrong, and ends
/// at a line that is too long, a directive that is wrong and a heredoc that is not closed.
///
/// # Source
/// docs.docker.com/reference/dockerfile; BuildKit's `frontend/dockerfile/parser` and `instructions`.
pub fn parse(source: &[u8]) -> Result<Dockerfile, Vec<ParseError>> {
    let mut parser = Parser::new(source, None);
    parser.read_file();
    if parser.errors.is_empty() && parser.file.stages.is_empty() {
        let kind = if parser.seen_instruction { ErrorKind::NoFrom } else { ErrorKind::NoInstruction };
        parser.errors.push(ParseError::new(kind, Span::new(0, source.len())));
    }
    if parser.errors.is_empty() { Ok(parser.file) } else { Err(parser.errors) }
}

/// Reads the text of an `ONBUILD` as an image config holds it: one instruction, with its heredocs.
///
/// The text is in no file, so every place in it is said to be `span`, that of the `FROM` whose image has it.
///
/// # Errors
/// What is wrong, at least one: also more or less than one instruction, and `FROM`, `MAINTAINER` and `ONBUILD`.
pub fn parse_trigger(trigger: &str, span: Span) -> Result<Node<Instruction>, Vec<ParseError>> {
    let source = text::encode(trigger);
    let mut parser = Parser::new(&source, Some(span));
    parser.in_directives = false;
    parser.trigger = true;
    parser.read_file();
    if !parser.errors.is_empty() {
        return Err(parser.errors);
    }
    let mut nodes = parser.triggers.into_iter();
    match (nodes.next(), nodes.next()) {
        (Some(node), None) => Ok(node),
        _ => Err(vec![ParseError::new(ErrorKind::TriggerNotOne { trigger: trigger.to_owned() }, span)]),
    }
}

struct Parser<'a> {
    lines: Lines<'a>,
    /// Where everything is said to be, for a trigger.
    fixed: Option<Span>,
    /// Whether this is a trigger; then instructions go to `triggers`, not to stages.
    trigger: bool,
    triggers: Vec<Node<Instruction>>,
    file: Dockerfile,
    in_directives: bool,
    /// Whether the first line is a `#!`, behind which BuildKit reads every directive but `escape`.
    behind_shebang: bool,
    comments: Vec<Comment>,
    checks: Vec<Directive>,
    seen_instruction: bool,
    /// Whether the last instruction's keyword was unknown: then more of them are its consequence, most often the
    /// lines behind a continuation that was forgotten.
    after_unknown: bool,
    /// Whether an instruction above the first `FROM` was reported, or a `FROM` that could not be read.
    no_stage_reported: bool,
    errors: Vec<ParseError>,
}

/// Nothing behind this can be read.
struct Stop;

impl<'a> Parser<'a> {
    fn new(source: &'a [u8], fixed: Option<Span>) -> Parser<'a> {
        Parser {
            lines: Lines::new(source),
            fixed,
            trigger: false,
            triggers: Vec::new(),
            file: Dockerfile {
                directives: Vec::new(),
                escape: Escape::default(),
                global_args: Vec::new(),
                stages: Vec::new(),
            },
            in_directives: true,
            behind_shebang: false,
            comments: Vec::new(),
            checks: Vec::new(),
            seen_instruction: false,
            after_unknown: false,
            no_stage_reported: false,
            errors: Vec::new(),
        }
    }

    fn read_file(&mut self) {
        if self.has_long_line().is_some() {
            return;
        }
        while let Some(line) = self.lines.next_line() {
            let trimmed = self.lines.trimmed(line);
            let bytes = &self.lines.source()[trimmed.range()];
            let step = if bytes.is_empty() {
                self.in_directives = false;
                self.forget_comments();
                Ok(())
            } else if bytes.starts_with(b"#") {
                self.comment(trimmed)
            } else {
                self.in_directives = false;
                self.instruction(line)
            };
            if let Err(Stop) = step {
                return;
            }
        }
    }

    fn fail(&mut self, kind: ErrorKind, span: Span) -> Stop {
        self.errors.push(ParseError::new(kind, self.fixed.unwrap_or(span)));
        Stop
    }

    /// Reports the first line that is longer than a line may be.
    fn has_long_line(&mut self) -> Option<Stop> {
        let mut lines = Lines::new(self.lines.source());
        while let Some(line) = lines.next_line() {
            let newline = usize::from(lines.source()[line.range()].ends_with(b"\n"));
            let length = line.len() - newline;
            if length > LONGEST_LINE_BYTES {
                return Some(self.fail(ErrorKind::LineTooLong { length }, line));
            }
        }
        None
    }

    fn forget_comments(&mut self) {
        self.comments.clear();
        self.checks.clear();
    }

    fn comment(&mut self, span: Span) -> Result<(), Stop> {
        let written = text::decode(&self.lines.source()[span.range()]).into_owned();
        let directive = Directive::parse(&written, span);
        if self.in_directives {
            match directive {
                Some(directive) => return self.directive(directive),
                // `#!/usr/bin/env …` on the first line.
                None if written.starts_with("#!") && self.is_first_line(span) => {
                    self.behind_shebang = true;
                    return Ok(());
                }
                None => self.in_directives = false,
            }
        } else if let Some(check) = directive.filter(|directive| directive.name == DirectiveName::Check)
            && CheckOptions::parse(&check.value).is_ok()
        {
            self.checks.push(check);
            return Ok(());
        }
        let comment = written.trim_start_matches('#').trim();
        if comment.is_empty() {
            self.comments.clear();
        } else {
            self.comments.push(Comment { text: comment.to_owned(), span: self.fixed.unwrap_or(span) });
        }
        Ok(())
    }

    fn is_first_line(&self, span: Span) -> bool {
        !self.lines.source()[..span.start].contains(&b'\n')
    }

    fn directive(&mut self, directive: Directive) -> Result<(), Stop> {
        if let Some(first) = self.file.directives.iter().find(|earlier| earlier.name == directive.name) {
            let kind = ErrorKind::DuplicateDirective { name: directive.name.as_str(), first: first.span };
            return Err(self.fail(kind, directive.span));
        }
        match directive.name {
            DirectiveName::Syntax => {}
            DirectiveName::Escape if self.behind_shebang => {}
            DirectiveName::Escape => match &*directive.value {
                "\\" => self.file.escape = Escape::Backslash,
                "`" => self.file.escape = Escape::Backtick,
                value => {
                    let kind = ErrorKind::EscapeDirective { value: value.to_owned() };
                    return Err(self.fail(kind, directive.value_span));
                }
            },
            DirectiveName::Check => {
                if let Err(reason) = CheckOptions::parse(&directive.value) {
                    return Err(self.fail(ErrorKind::CheckDirective { reason }, directive.value_span));
                }
            }
        }
        self.file.directives.push(directive);
        Ok(())
    }

    /// Reads the instruction that begins with this line.
    fn instruction(&mut self, first: Span) -> Result<(), Stop> {
        let line = Logical::read(&mut self.lines, first, self.file.escape, self.fixed);
        let statement = Statement::new(&line, self.file.escape);
        if statement.all().is_empty() {
            return Ok(());
        }
        let openings = match statement.may_open_heredocs() {
            true => heredoc::openings(line.text()),
            false => Vec::new(),
        };
        if self.after_unknown && statement.name().is_empty() {
            return Ok(());
        }
        let (heredocs, end) = self.read_heredocs(&line, openings)?;
        let statement = statement.with_heredocs(&heredocs);
        let mut span = line.span(statement.all());
        if let Some(end) = end.filter(|_| self.fixed.is_none()) {
            span.end = end;
        }
        self.seen_instruction = true;
        let checks = std::mem::take(&mut self.checks);
        let comments = std::mem::take(&mut self.comments);
        let node = Node {
            value: (),
            keyword: statement.keyword(),
            flags: statement.flags().to_vec(),
            text: line.text().trim().to_owned(),
            span,
            comments,
            checks,
            empty_lines: line.empty_lines.clone(),
        };
        match self.place(&statement, node) {
            Ok(()) => self.after_unknown = false,
            Err(error) => {
                self.after_unknown = matches!(error.kind, ErrorKind::UnknownInstruction { .. });
                self.errors.push(error);
            }
        }
        Ok(())
    }

    /// Reads the bodies of heredocs, one after the other. Returns them with their place in the logical line, and where
    /// the last one ends in the file.
    fn read_heredocs(
        &mut self,
        line: &Logical,
        openings: Vec<Opening>,
    ) -> Result<(Vec<Placed>, Option<usize>), Stop> {
        let mut heredocs = Vec::with_capacity(openings.len());
        let mut end = None;
        for opening in openings {
            let span = line.span(opening.range.clone());
            let Some((body, behind)) = self.read_body(&opening) else {
                return Err(self.fail(ErrorKind::UnterminatedHeredoc { name: opening.name }, span));
            };
            end = Some(behind);
            let content = text::decode(&self.lines.source()[body.range()]).into_owned();
            let Opening { name, descriptor, expand, chomp, range } = opening;
            let body = self.fixed.unwrap_or(body);
            heredocs.push((range, Heredoc { name, descriptor, expand, chomp, content, span, body }));
        }
        Ok((heredocs, end))
    }

    /// The lines up to the delimiter, and where that one's text ends; `None` where there is no delimiter.
    fn read_body(&mut self, opening: &Opening) -> Option<(Span, usize)> {
        let mut body: Option<Span> = None;
        loop {
            let line = self.lines.next_line()?;
            let content = self.lines.content(line);
            let start = body.map_or(line.start, |body| body.start);
            if opening.is_closed_by(&text::decode(&self.lines.source()[content.range()])) {
                return Some((Span::new(start, line.start), content.end));
            }
            body = Some(Span::new(start, line.end));
        }
    }

    /// Reads what an instruction says and puts it where it belongs.
    fn place(&mut self, statement: &Statement<'_>, node: Node<()>) -> Result<(), ParseError> {
        let name = statement.name();
        if self.trigger {
            if matches!(name, "FROM" | "MAINTAINER" | "ONBUILD") {
                return Err(ParseError::new(ErrorKind::OnbuildTrigger { name }, node.span));
            }
            let instruction = Instruction::parse(statement)?;
            self.triggers.push(node.map(|()| instruction));
            return Ok(());
        }
        match name {
            "FROM" => {
                let from = From::parse(statement).inspect_err(|_| self.no_stage_reported = true)?;
                self.stage(node.map(|()| from));
            }
            "ARG" if self.file.stages.is_empty() => {
                let arg = described(Arg::parse(statement)?, &node.comments);
                self.file.global_args.push(node.map(|()| arg));
            }
            _ => {
                let mut instruction = Instruction::parse(statement)?;
                if let Instruction::Arg(arg) = instruction {
                    instruction = Instruction::Arg(described(arg, &node.comments));
                }
                let Some(stage) = self.file.stages.last_mut() else {
                    return if std::mem::replace(&mut self.no_stage_reported, true) {
                        Ok(())
                    } else {
                        Err(ParseError::new(ErrorKind::NoStage { instruction: name }, node.span))
                    };
                };
                stage.span = stage.span.to(node.span);
                stage.instructions.push(node.map(|()| instruction));
            }
        }
        Ok(())
    }

    fn stage(&mut self, from: Node<From>) {
        let name = from.value.name.as_ref().map(|name| &*name.name);
        let description = name.and_then(|name| description(&from.comments, name));
        let span = from.span;
        self.file.stages.push(Stage { from, description, instructions: Vec::new(), span });
    }
}

/// What the comments say about a name: the first that begins with it and a blank.
fn description(comments: &[Comment], name: &str) -> Option<String> {
    comments
        .iter()
        .find_map(|comment| Some(comment.text.strip_prefix(name)?.strip_prefix(' ')?.trim().to_owned()))
}

fn described(mut arg: Arg, comments: &[Comment]) -> Arg {
    for name in &mut arg.names {
        name.description = description(comments, &name.name.text);
    }
    arg
}
