//! The Dockerfile parser: every place it names is in the file, in order, and what it stores can be read again.

use dockerfile_parser::{
    Dockerfile, Instruction, LineIndex, Node, ParseError, Span, parse, parse_trigger, text,
};

use crate::spans;

/// Any bytes are a Dockerfile or a list of errors; both point into the file.
pub fn parser(data: &[u8]) {
    match parse(data) {
        Ok(file) => accepted(&file, data),
        Err(errors) => refused(&errors, data),
    }
}

fn refused(errors: &[ParseError], data: &[u8]) {
    assert!(!errors.is_empty(), "refused without a reason");
    for error in errors {
        assert_inside(error.span, data);
        assert!(!error.to_string().is_empty() && !error.code().is_empty());
        assert!(error.help().is_none_or(|help| !help.is_empty()));
    }
    for pair in errors.windows(2) {
        assert!(pair[0].span.start <= pair[1].span.start, "out of order: {pair:?}");
    }
}

fn accepted(file: &Dockerfile, data: &[u8]) {
    assert!(!file.stages.is_empty(), "accepted without a stage");
    spans::all(file).into_iter().for_each(|span| assert_inside(span, data));
    let mut end = 0;
    for arg in &file.global_args {
        end = follows(arg.span, end);
        within(arg.span, &spans::inside_node(arg));
    }
    for stage in &file.stages {
        assert_eq!(stage.span.start, stage.from.span.start);
        end = follows(stage.from.span, end);
        within(stage.from.span, &spans::inside_node(&stage.from));
        for node in &stage.instructions {
            end = follows(node.span, end);
            within(node.span, &spans::inside(node));
            instruction(node, data);
        }
        assert_eq!(stage.span.end, end, "a stage ends where its last instruction does");
    }
}

/// Instructions do not overlap; gives where this one ends.
fn follows(span: Span, end: usize) -> usize {
    assert!(span.start >= end, "{span:?} begins before {end}");
    span.end
}

fn within(span: Span, parts: &[Span]) {
    for part in parts {
        assert!(span.start <= part.start && part.end <= span.end, "{part:?} is not in {span:?}");
    }
}

fn instruction(node: &Node<Instruction>, data: &[u8]) {
    match &node.value {
        Instruction::Onbuild(onbuild) => {
            let again = parse_trigger(&onbuild.trigger, Span::new(7, 9));
            let again = again.unwrap_or_else(|errors| panic!("{:?}: {errors:?}", onbuild.trigger));
            assert_eq!(kind(&again.value), kind(&onbuild.instruction), "{:?}", onbuild.trigger);
            assert!(spans::inside(&again).iter().all(|span| *span == Span::new(7, 9)));
        }
        Instruction::Run(run) => {
            for heredoc in &run.heredocs {
                assert_eq!(text::encode(&heredoc.content), &data[heredoc.body.range()]);
                assert!(heredoc.text().len() <= heredoc.content.len());
            }
        }
        _ => {}
    }
}

fn kind(instruction: &Instruction) -> std::mem::Discriminant<Instruction> {
    std::mem::discriminant(instruction)
}

/// A place is in the file, and has lines and columns, as whoever shows it needs them.
fn assert_inside(span: Span, data: &[u8]) {
    assert!(span.start <= span.end && span.end <= data.len(), "{span:?} in {} bytes", data.len());
    let index = LineIndex::new(data);
    let (first, last) = index.lines(span);
    assert!(first >= 1 && first <= last && last <= index.line_count());
    let line = index.line_span(first).expect("the line is there");
    assert!(line.start <= span.start && span.start <= line.end);
    assert!(index.position(span.start).column <= line.len() + 1);
}
