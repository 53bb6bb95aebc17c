//! A small corpus on which `parse-dockerfile`, another parser, must agree: how many stages and instructions there are,
//! where they stand, and what is in a JSON array.

use dockerfile_parser::instruction::Command;
use dockerfile_parser::{Instruction, Span, parse};
use parse_dockerfile as other;

const CORPUS: [&str; 7] = [
    "FROM alpine\nRUN echo hi\nCMD [\"a\", \"b c\"]\n",
    "ARG V=1\nFROM alpine:$V AS build\nWORKDIR /src\nCOPY --from=x a b /c/\nFROM scratch\nENTRYPOINT [\"/app\", \"\\u00e9\"]\n",
    "# escape=`\nFROM a\nRUN x `\n  y\nENV A=b\nUSER z\n",
    "FROM a\nHEALTHCHECK --interval=5s CMD curl x\nEXPOSE 80 90/udp\nVOLUME [\"/a\"]\nSTOPSIGNAL 9\nLABEL a=b\n",
    "FROM a\nRUN <<EOF\nhello\nFROM b\nEOF\nRUN after\n",
    "FROM a\nSHELL [\"sh\", \"-c\"]\nADD a /b\nONBUILD RUN x\nMAINTAINER me\n",
    "FROM a\n# comment\nRUN a && \\\n  # inside\n  b\nCMD c\n",
];

/// Keyword's place, and the strings of a JSON array.
type Seen = Vec<(Span, Option<Vec<String>>)>;

fn ours(source: &str) -> Seen {
    let file = parse(source.as_bytes()).unwrap();
    let mut seen: Seen = file.global_args.iter().map(|arg| (arg.keyword.span, None)).collect();
    for stage in &file.stages {
        seen.push((stage.from.keyword.span, None));
        for node in &stage.instructions {
            let command = match &node.value {
                Instruction::Run(run) => Some(&run.command),
                Instruction::Cmd(cmd) => Some(&cmd.command),
                Instruction::Entrypoint(entrypoint) => Some(&entrypoint.command),
                _ => None,
            };
            let strings = match command {
                Some(Command::Exec(words)) => Some(words.iter().map(|word| word.text.clone()).collect()),
                _ => None,
            };
            seen.push((node.keyword.span, strings));
        }
    }
    seen
}

fn keyword<'a>(instruction: &'a other::Instruction<'_>) -> &'a other::Keyword {
    match instruction {
        other::Instruction::Add(found) => &found.add,
        other::Instruction::Arg(found) => &found.arg,
        other::Instruction::Cmd(found) => &found.cmd,
        other::Instruction::Copy(found) => &found.copy,
        other::Instruction::Entrypoint(found) => &found.entrypoint,
        other::Instruction::Env(found) => &found.env,
        other::Instruction::Expose(found) => &found.expose,
        other::Instruction::From(found) => &found.from,
        other::Instruction::Healthcheck(found) => &found.healthcheck,
        other::Instruction::Label(found) => &found.label,
        other::Instruction::Maintainer(found) => &found.maintainer,
        other::Instruction::Onbuild(found) => &found.onbuild,
        other::Instruction::Run(found) => &found.run,
        other::Instruction::Shell(found) => &found.shell,
        other::Instruction::Stopsignal(found) => &found.stopsignal,
        other::Instruction::User(found) => &found.user,
        other::Instruction::Volume(found) => &found.volume,
        other::Instruction::Workdir(found) => &found.workdir,
        other => panic!("an instruction that there was not: {other:?}"),
    }
}

fn theirs(source: &str) -> Seen {
    let file = other::parse(source).unwrap();
    let strings = |command: &other::Command<'_>| match command {
        other::Command::Exec(exec) => {
            Some(exec.value.iter().map(|text| text.value.clone().into_owned()).collect())
        }
        _ => None,
    };
    file.instructions
        .iter()
        .map(|instruction| {
            let span = keyword(instruction).span.clone();
            let strings = match instruction {
                other::Instruction::Run(run) => strings(&run.arguments),
                other::Instruction::Cmd(cmd) => strings(&cmd.arguments),
                other::Instruction::Entrypoint(entrypoint) => strings(&entrypoint.arguments),
                _ => None,
            };
            (Span::new(span.start, span.end), strings)
        })
        .collect()
}

#[test]
fn both_see_the_same() {
    for source in CORPUS {
        assert_eq!(ours(source), theirs(source), "{source}");
    }
}
