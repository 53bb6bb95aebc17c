//! Every place that a parsed Dockerfile names.

use dockerfile_parser::instruction::{Command, Healthcheck, Pair, Source};
use dockerfile_parser::{Dockerfile, Flag, Heredoc, Instruction, Node, Span, Word};

/// The places of a whole file, an instruction's after those of the instruction before it.
pub(crate) fn all(file: &Dockerfile) -> Vec<Span> {
    let mut spans = Vec::new();
    spans.extend(file.directives.iter().flat_map(|directive| [directive.span, directive.value_span]));
    for arg in &file.global_args {
        around(arg, &mut spans);
        spans.extend(inside_node(arg));
    }
    for stage in &file.stages {
        spans.push(stage.span);
        around(&stage.from, &mut spans);
        spans.extend(inside_node(&stage.from));
        spans.push(stage.from.value.image.span);
        for node in &stage.instructions {
            around(node, &mut spans);
            spans.extend(inside(node));
        }
    }
    spans
}

/// The places of an instruction that lie in it.
pub(crate) fn inside(node: &Node<Instruction>) -> Vec<Span> {
    let mut spans = inside_node(node);
    instruction(&node.value, &mut spans);
    spans
}

/// Keyword and flags.
pub(crate) fn inside_node<T>(node: &Node<T>) -> Vec<Span> {
    let mut spans = vec![node.keyword.span];
    node.flags.iter().for_each(|found| flag(found, &mut spans));
    spans
}

/// The instruction as a whole, and the comments above it.
fn around<T>(node: &Node<T>, spans: &mut Vec<Span>) {
    spans.push(node.span);
    spans.extend(node.comments.iter().map(|comment| comment.span));
    spans.extend(&node.empty_lines);
    spans.extend(node.checks.iter().flat_map(|check| [check.span, check.value_span]));
}

fn flag(flag: &Flag, spans: &mut Vec<Span>) {
    spans.extend([flag.span, flag.name.span]);
    spans.extend(flag.value.iter().map(|value| value.span));
}

fn words<'a>(words: impl IntoIterator<Item = &'a Word>, spans: &mut Vec<Span>) {
    spans.extend(words.into_iter().map(|word| word.span));
}

fn command(command: &Command, spans: &mut Vec<Span>) {
    match command {
        Command::Shell(word) => spans.push(word.span),
        Command::Exec(list) => words(list, spans),
    }
}

fn pairs(pairs: &[Pair], spans: &mut Vec<Span>) {
    spans.extend(pairs.iter().flat_map(|pair| [pair.key.span, pair.value.span]));
}

fn heredoc(heredoc: &Heredoc, spans: &mut Vec<Span>) {
    spans.extend([heredoc.span, heredoc.body]);
}

fn sources(sources: &[Source], destination: &Word, spans: &mut Vec<Span>) {
    spans.push(destination.span);
    for source in sources {
        match source {
            Source::Path(word) => spans.push(word.span),
            Source::Heredoc(found) => heredoc(found, spans),
        }
    }
}

fn instruction(instruction: &Instruction, spans: &mut Vec<Span>) {
    match instruction {
        Instruction::Add(add) => {
            sources(&add.sources, &add.destination, spans);
            words([&add.chown, &add.chmod, &add.checksum].into_iter().flatten(), spans);
            words(&add.exclude, spans);
        }
        Instruction::Arg(arg) => {
            words(arg.names.iter().map(|name| &name.name), spans);
            words(arg.names.iter().filter_map(|name| name.value.as_ref()), spans);
        }
        Instruction::Cmd(cmd) => command(&cmd.command, spans),
        Instruction::Copy(copy) => {
            sources(&copy.sources, &copy.destination, spans);
            words([&copy.from, &copy.chown, &copy.chmod].into_iter().flatten(), spans);
            words(&copy.exclude, spans);
        }
        Instruction::Entrypoint(entrypoint) => command(&entrypoint.command, spans),
        Instruction::Env(env) => pairs(&env.pairs, spans),
        Instruction::Expose(expose) => words(&expose.ports, spans),
        Instruction::Healthcheck(Healthcheck::Check(check)) => command(&check.command, spans),
        Instruction::Healthcheck(Healthcheck::None) => {}
        Instruction::Label(label) => pairs(&label.pairs, spans),
        Instruction::Maintainer(maintainer) => spans.push(maintainer.author.span),
        Instruction::Onbuild(onbuild) => self::instruction(&onbuild.instruction, spans),
        Instruction::Run(run) => {
            command(&run.command, spans);
            run.heredocs.iter().for_each(|found| heredoc(found, spans));
            words(run.mounts.iter().map(|mount| &mount.text), spans);
            words(run.devices.iter().map(|device| &device.text), spans);
        }
        Instruction::Shell(shell) => words(&shell.shell, spans),
        Instruction::Stopsignal(stopsignal) => spans.push(stopsignal.signal.span),
        Instruction::User(user) => spans.push(user.user.span),
        Instruction::Volume(volume) => words(&volume.paths, spans),
        Instruction::Workdir(workdir) => spans.push(workdir.path.span),
    }
}
