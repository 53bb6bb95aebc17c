//! Whole files: directives, comments, stages, spans, errors.

use dockerfile_parser::instruction::{Command, Source};
use dockerfile_parser::{
    Dockerfile, ErrorKind, Escape, Instruction, LineIndex, Node, Span, parse, parse_trigger, text,
};

fn ok(source: &[u8]) -> Dockerfile {
    parse(source).unwrap_or_else(|errors| panic!("{}: {errors:?}", String::from_utf8_lossy(source)))
}

/// The codes of a file's errors, and what each underlines.
fn errors(source: &str) -> Vec<(&'static str, &str)> {
    match parse(source.as_bytes()) {
        Ok(file) => panic!("{source} was read as {file:?}"),
        Err(errors) => errors.into_iter().map(|error| (error.code(), &source[error.span.range()])).collect(),
    }
}

fn instructions(file: &Dockerfile) -> Vec<&Node<Instruction>> {
    file.stages.iter().flat_map(|stage| &stage.instructions).collect()
}

#[test]
fn directives() {
    let source = b"\xEF\xBB\xBF# Syntax = docker/dockerfile:1\n#escape=`\n# check=skip=all;error=true\n\
                   # note\nFROM a\nRUN b `\n c\n";
    let file = ok(source);
    let found: Vec<_> = file.directives.iter().map(|found| (found.name.as_str(), &*found.value)).collect();
    assert_eq!(found, [("syntax", "docker/dockerfile:1"), ("escape", "`"), ("check", "skip=all;error=true")]);
    assert_eq!(&source[file.directives[0].value_span.range()], b"docker/dockerfile:1");
    assert_eq!(file.escape, Escape::Backtick);
    assert_eq!(instructions(&file)[0].text, "RUN b  c");
    // Behind a `#!` the escape character stays what it is, whatever the directive says.
    let file = ok(b"#!/usr/bin/env kiln\n# syntax=docker/dockerfile:1\n# escape=`\nFROM a\nRUN b \\\n c\n");
    assert_eq!((file.directives.len(), file.escape), (2, Escape::Backslash));
    assert_eq!(instructions(&file)[0].text, "RUN b  c");
}

#[test]
fn where_directives_end() {
    for before in ["\n", "# note\n", "# unknown=x\n", "FROM b\n", "#\n"] {
        let file = ok(format!("{before}# escape=`\nFROM a\n").as_bytes());
        assert_eq!(file.escape, Escape::Backslash, "{before:?}");
        assert_eq!(file.directives, [], "{before:?}");
    }
    assert_eq!(errors("# escape=`\n# escape=`\nFROM a"), [("duplicate-directive", "# escape=`")]);
    assert_eq!(errors("# syntax=a\n# Syntax=b\nFROM a"), [("duplicate-directive", "# Syntax=b")]);
    assert_eq!(errors("# escape=x\nFROM a"), [("invalid-escape-directive", "x")]);
    assert_eq!(errors("# check=skp=all\nFROM a"), [("invalid-check-directive", "skp=all")]);
}

#[test]
fn stages_and_global_arguments() {
    let source = "# V the version\nARG V=1 W\nFROM a AS One\nARG V\nRUN x\n\n# two second\nFROM --platform=$P One as two\n";
    let file = ok(source.as_bytes());
    let global = &file.global_args[0];
    assert_eq!(global.value.names[0].description.as_deref(), Some("the version"));
    assert_eq!(global.value.names[1].value, None);
    assert_eq!(file.stages.len(), 2);
    assert_eq!(file.stages[0].name(), Some("one"));
    assert_eq!(&source[file.stages[0].span.range()], "FROM a AS One\nARG V\nRUN x");
    let two = &file.stages[1];
    assert_eq!((two.description.as_deref(), two.from.value.image.text.as_str()), (Some("second"), "One"));
    let platform = two.from.value.platform.as_ref().unwrap();
    assert_eq!((&*platform.text, &source[platform.span.range()]), ("$P", "$P"));
    assert_eq!(two.from.value.name.as_ref().unwrap().keyword.text, "as");
}

#[test]
fn comments_and_checks_above() {
    let source = "FROM a\n# one\n\n# two\n# check=skip=StageNameCasing\n# check=no\nRUN x # three\n# four\nRUN y\\\n# five\nz\nRUN w";
    let file = ok(source.as_bytes());
    let nodes = instructions(&file);
    let comments =
        |node: &Node<Instruction>| node.comments.iter().map(|found| found.text.clone()).collect::<Vec<_>>();
    assert_eq!(comments(nodes[0]), ["two", "check=no"]);
    assert_eq!(nodes[0].checks[0].value, "skip=StageNameCasing");
    assert_eq!(nodes[0].text, "RUN x # three");
    assert_eq!(comments(nodes[1]), ["four"]);
    assert_eq!((nodes[1].text.as_str(), &source[nodes[1].span.range()]), ("RUN yz", "RUN y\\\n# five\nz"));
    assert!(nodes[2].comments.is_empty() && nodes[2].checks.is_empty());
}

#[test]
fn empty_lines_in_continuations() {
    let source = "ARG A=\\\n\n1\nFROM a\nRUN x \\\n\n  y \\\n \n# c\n  z\nRUN w\n";
    let file = ok(source.as_bytes());
    assert_eq!(file.global_args[0].empty_lines, [Span::new(8, 9)]);
    let nodes = &file.stages[0].instructions;
    let found: Vec<_> = nodes[0].empty_lines.iter().map(|line| &source[line.range()]).collect();
    assert_eq!((found, nodes[1].empty_lines.len()), (vec!["\n", " \n"], 0));
}

#[test]
fn what_a_file_must_have() {
    for source in ["", "\n\n", "# nothing\n", "# escape=`"] {
        assert_eq!(errors(source), [("no-instruction", source)], "{source:?}");
    }
    assert_eq!(errors("RUN a\nRUN b"), [("no-stage", "RUN a")]);
    assert_eq!(errors("COPY a b\nFROM c"), [("no-stage", "COPY a b")]);
    assert_eq!(errors("ARG A\nARG B"), [("no-stage", "ARG A\nARG B")]);
}

#[test]
fn several_errors_at_once() {
    let source = "FROM\nRUN --mont=x y\nCOPY a\nRUNN make\nif x\nfi\nWORKDIR\nENV a=b c\n";
    let expected = [
        ("from-arguments", "FROM"),
        ("unknown-flag", "--mont=x"),
        ("no-destination", "COPY a"),
        ("unknown-instruction", "RUNN"),
        ("no-argument", "WORKDIR"),
        ("no-value", "c"),
    ];
    assert_eq!(errors(source), expected);
    let helps: Vec<_> = parse(source.as_bytes()).unwrap_err().iter().map(|error| error.help()).collect();
    assert_eq!(helps[1].as_deref(), Some("write `--mount` instead of `--mont`"));
    assert_eq!(helps[3].as_deref(), Some("write `RUN` instead of `RUNN`"));
    assert_eq!(
        helps[5].as_deref(),
        Some("if `c` belongs to the value before it, quote the value: `name=\"… c\"`")
    );
}

#[test]
fn long_lines() {
    let line = |length: usize| format!("FROM a\nRUN {}", "x".repeat(length - 4));
    assert!(parse(line(65_535).as_bytes()).is_ok());
    assert!(parse(format!("{}\n", line(65_535)).as_bytes()).is_ok());
    let errors = parse(line(65_536).as_bytes()).unwrap_err();
    assert_eq!(errors[0].kind, ErrorKind::LineTooLong { length: 65_536 });
    let continued = format!("FROM a\nRUN {}", "x\\\n".repeat(100_000));
    assert!(parse(continued.as_bytes()).is_ok());
}

#[test]
fn heredocs_of_copy() {
    let source =
        "FROM a\nCOPY --chmod=755 <<a.sh <<'b c' plain << D /dst/\n$x\na.sh\ny\r\nb c\nD\nRUN after\n";
    let file = ok(source.as_bytes());
    let nodes = instructions(&file);
    let Instruction::Copy(copy) = &nodes[0].value else { panic!("{nodes:?}") };
    let found: Vec<_> = copy
        .sources
        .iter()
        .map(|source| match source {
            Source::Path(word) => (word.text.clone(), "path".to_owned(), true),
            Source::Heredoc(heredoc) => (heredoc.name.clone(), heredoc.content.clone(), heredoc.expand),
        })
        .collect();
    let expected =
        [("a.sh", "$x\n", true), ("b c", "y\r\n", false), ("plain", "path", true), ("D", "", true)];
    assert_eq!(found, expected.map(|(name, content, expand)| (name.into(), content.into(), expand)));
    assert_eq!(copy.destination.text, "/dst/");
    let Source::Heredoc(first) = &copy.sources[0] else { panic!() };
    assert_eq!((&source[first.span.range()], &source[first.body.range()]), ("<<a.sh", "$x\n"));
    assert_eq!(&source[nodes[0].span.range()], &source[7..source.find("\nRUN").unwrap()]);
    assert_eq!(nodes[1].text, "RUN after");
}

#[test]
fn heredocs_in_other_places() {
    let file = ok(b"FROM a\nRUN [\"<<EOF\"]\nRUN \"<<EOF\"\nUSER <<X\nRUN <<-A cat && \\\n  3<<B\n\tx\n\tA\n\ty\nB\nRUN z");
    let nodes = instructions(&file);
    assert_eq!(nodes.len(), 5);
    let Instruction::Run(run) = &nodes[3].value else { panic!() };
    let texts: Vec<_> = run.heredocs.iter().map(|heredoc| (heredoc.descriptor, heredoc.text())).collect();
    assert_eq!(texts, [(0, "x\n".to_owned()), (3, "\ty\n".to_owned())]);
}

#[test]
fn heredocs_that_are_not_closed() {
    assert_eq!(errors("FROM a\nRUN <<A <<B\nx\nA\ny\n B\n"), [("unterminated-heredoc", "<<B")]);
    assert_eq!(errors("FROM a\nCOPY <<A /\nA \nB\n"), [("unterminated-heredoc", "<<A")]);
    assert_eq!(errors("FROM a\nCOPY a <<A\nA\n"), [("heredoc-destination", "<<A")]);
}

#[test]
fn an_instruction_that_is_wrong_takes_its_heredoc_along() {
    assert_eq!(
        errors("FROM a\nCOPY --nope <<A /b\nnot an instruction\nA\nRUN x\n"),
        [("unknown-flag", "--nope")]
    );
}

#[test]
fn onbuild() {
    let file = ok(b"FROM a\nonbuild  COPY <<E \\\n  /x\nb\nE\nONBUILD RUN --mount=type=ssh c  \n");
    let nodes = instructions(&file);
    let triggers: Vec<_> = nodes
        .iter()
        .map(|node| match &node.value {
            Instruction::Onbuild(onbuild) => &*onbuild.trigger,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(triggers, ["COPY <<E   /x\nb\nE", "RUN --mount=type=ssh c  "]);
    let from = Span::new(3, 7);
    let node = parse_trigger(triggers[0], from).unwrap();
    let Instruction::Copy(copy) = &node.value else { panic!("{node:?}") };
    let Source::Heredoc(heredoc) = &copy.sources[0] else { panic!("{copy:?}") };
    assert_eq!(
        (&*heredoc.content, heredoc.body, copy.destination.span, node.span),
        ("b\n", from, from, from)
    );
    for (source, code) in [
        ("ONBUILD", "no-argument"),
        ("ONBUILD FROM b", "invalid-onbuild"),
        ("ONBUILD maintainer b", "invalid-onbuild"),
        ("ONBUILD ONBUILD RUN x", "invalid-onbuild"),
        ("ONBUILD RUNN x", "unknown-instruction"),
        ("ONBUILD COPY x", "no-destination"),
        ("ONBUILD --x RUN y", "unknown-flag"),
    ] {
        assert_eq!(errors(&format!("FROM a\n{source}"))[0].0, code, "{source}");
    }
    for trigger in ["", "RUN a\nRUN b", "FROM x", "ONBUILD RUN x", "RUNN", "COPY <<A /\n"] {
        let errors = parse_trigger(trigger, from).unwrap_err();
        assert_eq!((errors.len(), errors[0].span), (1, from), "{trigger} {errors:?}");
    }
}

#[test]
fn bytes_that_are_not_utf_8() {
    let source = b"FROM a\nCOPY caf\xE9 /d\xFF\nRUN echo \xE9 \\\n  x\nCOPY <<'E' /f\n\xFF\nE\n";
    let file = ok(source);
    let nodes = instructions(&file);
    let Instruction::Copy(copy) = &nodes[0].value else { panic!() };
    let Source::Path(path) = &copy.sources[0] else { panic!() };
    assert_eq!(&text::encode(&path.text)[..], b"caf\xE9");
    assert_eq!(&source[path.span.range()], b"caf\xE9");
    assert_eq!(&source[copy.destination.span.range()], b"/d\xFF");
    let Instruction::Run(run) = &nodes[1].value else { panic!() };
    let Command::Shell(command) = &run.command else { panic!() };
    assert_eq!(&text::encode(&command.text)[..], b"echo \xE9   x");
    assert_eq!(&source[command.span.range()], b"echo \xE9 \\\n  x");
    let Instruction::Copy(copy) = &nodes[2].value else { panic!() };
    let Source::Heredoc(heredoc) = &copy.sources[0] else { panic!() };
    assert_eq!(&text::encode(&heredoc.content)[..], b"\xFF\n");
}

#[test]
fn carriage_returns() {
    let source = b"FROM busybox\r\nENV A=1 \\\r\n  B=2\r\nCOPY <<EOF /h\r\nline1\r\nEOF\r\nLABEL x=y\r\n";
    let file = ok(source);
    let nodes = instructions(&file);
    assert_eq!(file.stages[0].from.value.image.text, "busybox");
    let Instruction::Env(env) = &nodes[0].value else { panic!() };
    assert_eq!((env.pairs.len(), &*env.pairs[1].value.text), (2, "2"));
    let Instruction::Copy(copy) = &nodes[1].value else { panic!() };
    assert!(matches!(&copy.sources[0], Source::Heredoc(heredoc) if heredoc.content == "line1\r\n"));
    assert_eq!(nodes[2].text, "LABEL x=y");
}

#[test]
fn lines_of_instructions() {
    let source = b"FROM a\n\nRUN <<E\nx\nE\nRUN a \\\n b\n";
    let index = LineIndex::new(source);
    let file = ok(source);
    let lines: Vec<_> = instructions(&file).iter().map(|node| index.lines(node.span)).collect();
    assert_eq!(lines, [(3, 5), (6, 7)]);
}

#[test]
fn odd_beginnings_and_ends() {
    assert_eq!(ok(b"\\\nFROM a").stages[0].from.text, "FROM a");
    assert_eq!(instructions(&ok(b"FROM a\nRUN b \\")).len(), 1);
    assert_eq!(instructions(&ok(b"FROM a\n\\\n\\")).len(), 0);
    assert_eq!(instructions(&ok(b"FROM a\n  \t run\tb"))[0].keyword.text, "run");
    assert_eq!(ok(b"from\ta\x0bas\x0cb").stages[0].name(), Some("b"));
}
