//! No bytes, however odd, make the parser panic, point outside the file, or take long.

use dockerfile_parser::instruction::{Command, Healthcheck, Source};
use dockerfile_parser::{Dockerfile, Instruction, Node, Span, Word, parse, parse_trigger};
use proptest::prelude::*;
use std::time::{Duration, Instant};

/// A file with everything in it, to be mutilated.
const EVERYTHING: &str = r##"# syntax=docker/dockerfile:1
# escape=\
# check=skip=JSONArgsRecommended;error=true
# V the version
ARG V=1 W="x y"
FROM --platform=$BUILDPLATFORM golang:${V:-1.22} AS build
SHELL ["/bin/bash", "-eo", "pipefail", "-c"]
WORKDIR /src
ENV A=1 B="two three" C=$A
ENV old style value
COPY --link --from=other --chown=1:2 --chmod=u=rwX,go=rX go.mod go.sum ./
COPY <<-'EOF' <<two.txt /conf/
	first
	EOF
second
two.txt
RUN --mount=type=cache,target=/root/.cache,sharing=locked --network=none make \
    # a comment
    build && \

    echo "done <<EOF"
RUN <<EOF
#!/usr/bin/env python3
print("hi")
EOF
# check=skip=all
FROM scratch
ADD --checksum=sha256:00 --unpack https://example.com/a.tar.gz /
LABEL a=b "c d"='e f'
EXPOSE 80 8000-8002/udp
VOLUME ["/data", "/x\u0020y"]
USER nobody:nogroup
HEALTHCHECK --interval=1m30s --retries=3 CMD ["curl", "-f", "http://localhost/"]
STOPSIGNAL SIGQUIT
ONBUILD RUN <<X
echo x
X
MAINTAINER someone <a@b.c>
ENTRYPOINT ["/app"]
CMD serve
"##;

/// Every span of a file.
fn spans(file: &Dockerfile) -> Vec<Span> {
    let mut spans = Vec::new();
    spans.extend(file.directives.iter().flat_map(|directive| [directive.span, directive.value_span]));
    for arg in &file.global_args {
        node_spans(arg, &mut spans);
    }
    for stage in &file.stages {
        spans.extend([stage.span, stage.from.value.image.span]);
        node_spans(&stage.from, &mut spans);
        for node in &stage.instructions {
            node_spans(node, &mut spans);
            instruction_spans(&node.value, &mut spans);
        }
    }
    spans
}

fn node_spans<T>(node: &Node<T>, spans: &mut Vec<Span>) {
    spans.extend([node.span, node.keyword.span]);
    spans.extend(node.comments.iter().map(|comment| comment.span));
    spans.extend(&node.empty_lines);
    for flag in &node.flags {
        spans.extend([flag.span, flag.name.span]);
        spans.extend(flag.value.iter().map(|value| value.span));
    }
}

fn word_spans(words: &[Word], spans: &mut Vec<Span>) {
    spans.extend(words.iter().map(|word| word.span));
}

fn command_spans(command: &Command, spans: &mut Vec<Span>) {
    match command {
        Command::Shell(word) => spans.push(word.span),
        Command::Exec(words) => word_spans(words, spans),
    }
}

fn instruction_spans(instruction: &Instruction, spans: &mut Vec<Span>) {
    match instruction {
        Instruction::Run(run) => command_spans(&run.command, spans),
        Instruction::Cmd(cmd) => command_spans(&cmd.command, spans),
        Instruction::Entrypoint(entrypoint) => command_spans(&entrypoint.command, spans),
        Instruction::Healthcheck(Healthcheck::Check(check)) => command_spans(&check.command, spans),
        Instruction::Expose(expose) => word_spans(&expose.ports, spans),
        Instruction::Volume(volume) => word_spans(&volume.paths, spans),
        Instruction::Shell(shell) => word_spans(&shell.shell, spans),
        Instruction::Env(env) => {
            spans.extend(env.pairs.iter().flat_map(|pair| [pair.key.span, pair.value.span]))
        }
        Instruction::Copy(copy) => {
            spans.push(copy.destination.span);
            for source in &copy.sources {
                match source {
                    Source::Path(word) => spans.push(word.span),
                    Source::Heredoc(heredoc) => spans.extend([heredoc.span, heredoc.body]),
                }
            }
        }
        Instruction::Onbuild(onbuild) => instruction_spans(&onbuild.instruction, spans),
        _ => {}
    }
}

fn check(source: &[u8]) -> Result<(), TestCaseError> {
    let inside = |span: Span| span.start <= span.end && span.end <= source.len();
    match parse(source) {
        Ok(file) => {
            for span in spans(&file) {
                prop_assert!(inside(span), "{span:?} in {} bytes", source.len());
            }
        }
        Err(errors) => {
            prop_assert!(!errors.is_empty());
            for error in errors {
                prop_assert!(inside(error.span), "{error:?}");
                prop_assert!(!error.to_string().is_empty() && !error.code().is_empty());
                let _help = error.help();
            }
        }
    }
    Ok(())
}

#[test]
fn everything_is_read() {
    let file = parse(EVERYTHING.as_bytes()).unwrap();
    assert_eq!(file.stages.iter().map(|stage| stage.instructions.len()).collect::<Vec<_>>(), [8, 11]);
    check(EVERYTHING.as_bytes()).unwrap();
}

proptest! {
    #[test]
    fn any_bytes(bytes: Vec<u8>) {
        check(&bytes)?;
    }

    #[test]
    fn any_lines(
        lines in proptest::collection::vec("(FROM|RUN|COPY|ENV|ONBUILD|HEALTHCHECK|ARG|#|) ?\\PC{0,30}\\\\?", 0..12),
    ) {
        check(lines.join("\n").as_bytes())?;
    }

    #[test]
    fn a_file_with_pieces_cut_out_doubled_and_exchanged(
        edits in proptest::collection::vec(
            (any::<prop::sample::Index>(), 0_usize..12, any::<u8>(), 0_u8..4),
            1..12,
        ),
    ) {
        let mut bytes = EVERYTHING.as_bytes().to_vec();
        for (place, length, byte, what) in edits {
            let start = place.index(bytes.len() + 1);
            let end = (start + length).min(bytes.len());
            match what {
                0 => drop(bytes.drain(start..end)),
                1 => {
                    let piece = bytes[start..end].to_vec();
                    drop(bytes.splice(start..start, piece));
                }
                2 => bytes.insert(start, byte),
                _ => bytes.insert(start, b"\\\n\"'$<#[ "[usize::from(byte) % 9]),
            }
        }
        check(&bytes)?;
    }

    #[test]
    fn a_file_cut_off(length in 0..EVERYTHING.len()) {
        check(&EVERYTHING.as_bytes()[..length])?;
    }

    #[test]
    fn any_trigger(trigger: String) {
        let span = Span::new(1, 2);
        if let Err(errors) = parse_trigger(&trigger, span) {
            prop_assert!(errors.iter().all(|error| error.span == span));
        }
    }
}

/// A limit that only a method slower than linear misses, on the slowest machine.
const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn large_files_take_time_in_proportion() {
    let files = [
        "FROM a\n".to_owned() + &"RUN echo hello\n".repeat(30_000),
        "FROM a\nRUN x".to_owned() + &" \\\n  y".repeat(100_000),
        "FROM a\nENV ".to_owned() + &"a=\"b c\" \\\n".repeat(30_000),
        "FROM a\nCOPY ".to_owned() + &"a <<A \\\n".repeat(20_000) + "/b\n" + &"A\n".repeat(20_000),
        "FROM a\nRUN [".to_owned() + &"[\\\n".repeat(100_000),
        "FROM a\nRUN ".to_owned() + &"--mount=a \\\n".repeat(30_000) + "x",
        "nonsense\n".repeat(60_000),
        "RUNN\nFROM a\n".repeat(5_000),
        "# comment\n".repeat(60_000) + "FROM a",
        "FROM a\nRUN <<E\n".to_owned() + &"x\n".repeat(200_000) + "E",
        "FROM a\nRUN ".to_owned() + &"${a:-\\\n".repeat(60_000) + "<<E\nE",
    ];
    for file in files {
        let begin = Instant::now();
        let _either = parse(file.as_bytes());
        println!("{:?} for {} bytes of {:?}…", begin.elapsed(), file.len(), &file[..30]);
        assert!(begin.elapsed() < PATIENCE, "{:?} for {}…", begin.elapsed(), &file[..30]);
    }
}
