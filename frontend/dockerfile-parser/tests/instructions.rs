//! Each instruction as tables.

use dockerfile_parser::instruction::{Command, Healthcheck, Network, Script, Security, Source};
use dockerfile_parser::{Instruction, Node, Word, parse};

fn node(line: &str) -> Node<Instruction> {
    let source = format!("FROM a\n{line}");
    let mut file = parse(source.as_bytes()).unwrap_or_else(|errors| panic!("{line}: {errors:?}"));
    assert_eq!(file.stages[0].instructions.len(), 1, "{line}");
    file.stages[0].instructions.remove(0)
}

fn read(line: &str) -> Instruction {
    node(line).value
}

/// The code of the one error in a line, and what it underlines.
fn error(line: &str) -> (&'static str, String) {
    let source = format!("FROM a\n{line}");
    let errors = parse(source.as_bytes()).err().unwrap_or_else(|| panic!("{line} was read"));
    assert_eq!(errors.len(), 1, "{line}: {errors:?}");
    (errors[0].code(), source[errors[0].span.range()].to_owned())
}

fn texts(words: &[Word]) -> Vec<&str> {
    words.iter().map(|word| &*word.text).collect()
}

fn text(word: &Option<Word>) -> Option<&str> {
    word.as_ref().map(|word| &*word.text)
}

#[test]
fn from() {
    let codes = [
        ("FROM a b", "from-arguments"),
        ("FROM a AS", "from-arguments"),
        ("FROM a IS b", "from-arguments"),
        ("FROM a AS b c", "from-arguments"),
        ("FROM a AS 1b", "invalid-stage-name"),
        ("FROM a AS b/c", "invalid-stage-name"),
        ("FROM --platfrom=x a", "unknown-flag"),
        ("FROM --platform a", "flag-without-value"),
        ("FROM --platform=a --platform=b c", "duplicate-flag"),
    ];
    for (line, code) in codes {
        assert_eq!(parse(line.as_bytes()).unwrap_err()[0].code(), code, "{line}");
    }
    for (line, image, name) in [
        ("FROM scratch", "scratch", None),
        ("from a:1@sha256:0 aS B.c_d-9", "a:1@sha256:0", Some("b.c_d-9")),
        ("FROM --platform=\"linux/amd64\" ${X:-a}", "${X:-a}", None),
        ("FROM a AS scratch", "a", Some("scratch")),
    ] {
        let file = parse(line.as_bytes()).unwrap();
        assert_eq!((&*file.stages[0].from.value.image.text, file.stages[0].name()), (image, name), "{line}");
    }
}

#[test]
fn commands() {
    let forms: [(&str, &[&str]); 9] = [
        ("[\"a\", \"b c\"]", &["a", "b c"]),
        ("[]", &[]),
        ("[ \"\\u00e9\" ]", &["é"]),
        ("[\"a\", 'b']", &["[\"a\", 'b']"]),
        ("[ -f x ] && y", &["[ -f x ] && y"]),
        ("[\"a\"] x", &["[\"a\"] x"]),
        ("a  'b'  $c", &["a  'b'  $c"]),
        ("", &[""]),
        ("-- -x", &["-x"]),
    ];
    for (form, expected) in forms {
        for keyword in ["RUN", "CMD", "ENTRYPOINT"] {
            let line = format!("{keyword} {form}");
            let command = match read(&line) {
                Instruction::Run(run) => run.command,
                Instruction::Cmd(cmd) => cmd.command,
                Instruction::Entrypoint(entrypoint) => entrypoint.command,
                other => panic!("{other:?}"),
            };
            assert_eq!(command.texts(), expected, "{line}");
        }
    }
    assert_eq!(error("CMD [1, 2]"), ("json-not-strings", "1".into()));
    assert_eq!(error("RUN [\"a\", [\"b\"]]"), ("json-not-strings", "[\"b\"]".into()));
    assert_eq!(error("CMD --x y"), ("unknown-flag", "--x".into()));
    let Instruction::Cmd(cmd) = read("CMD [\"a\", \\\n  \"b\"]") else { panic!() };
    assert!(matches!(&cmd.command, Command::Exec(words) if texts(words) == ["a", "b"]));
}

#[test]
fn run_flags() {
    let line = "RUN --mount=type=cache,target=/c --network=none --mount=target=\"/x y\" --security=insecure \
                --device=vendor.com/class=name,required \\\n --network-is-text";
    assert_eq!(error(line), ("unknown-flag", "--network-is-text".into()));
    let Instruction::Run(run) = read(&line.replace("--network-is-text", "make --x")) else { panic!() };
    let mounts: Vec<_> = run.mounts.iter().map(|mount| &*mount.text.text).collect();
    assert_eq!(mounts, ["type=cache,target=/c", "target=/x y"]);
    assert_eq!((run.network, run.security), (Network::None, Security::Insecure));
    assert_eq!(
        (&*run.devices[0].device.name, run.devices[0].device.required),
        ("vendor.com/class=name", true)
    );
    assert!(matches!(&run.command, Command::Shell(word) if word.text == "make --x"));
    for (line, code, place) in [
        ("RUN --network=nope x", "invalid-flag-value", "nope"),
        ("RUN --network=none --network=host x", "duplicate-flag", "host"),
        ("RUN --security=Sandbox x", "invalid-flag-value", "Sandbox"),
        ("RUN --mount=from=$X,target=/a x", "variable-in-from", "from=$X"),
        ("RUN --mount=a\\\"b x", "invalid-option", "a\\\"b"),
        ("RUN --mount x", "flag-without-value", "--mount"),
        ("RUN --device=a,colour=red x", "invalid-option", "a,colour=red"),
    ] {
        assert_eq!(error(line), (code, place.to_owned()), "{line}");
    }
}

#[test]
fn run_scripts() {
    let script = |line: &str| match read(line) {
        Instruction::Run(run) => run.script(),
        other => panic!("{other:?}"),
    };
    let shell = |text: &str| Script::Shell(text.into());
    assert_eq!(script("RUN [\"a\", \"b\"]"), Script::Exec(vec!["a".into(), "b".into()]));
    assert_eq!(script("RUN a b"), shell("a b"));
    assert_eq!(script("RUN <<E\nx\ny\nE"), shell("x\ny\n"));
    assert_eq!(script("RUN --mount=type=tmpfs,target=/t <<-'E'\n\tx\n\t\ty\n\tE"), shell("x\ny\n"));
    assert_eq!(
        script("RUN <<E\n#!/bin/awk -f\n1\nE"),
        Script::File { name: "E".into(), content: "#!/bin/awk -f\n1\n".into() }
    );
    // Tabs that are taken off do not hide it.
    assert_eq!(
        script("RUN <<-E\n\t\t#!/bin/awk -f\n\t1\n\tE"),
        Script::File { name: "E".into(), content: "#!/bin/awk -f\n1\n".into() }
    );
    assert_eq!(script("RUN <<E sh -s\n#!x\nE"), shell("<<E sh -s\n#!x\nE"));
    assert_eq!(script("RUN <<A cat && cat <<-B\n1\nA\n\t2\n\tB"), shell("<<A cat && cat <<-B\n1\nA\n\t2\nB"));
}

#[test]
fn copy_and_add() {
    let Instruction::Copy(copy) = read(
        "COPY --from=s --chown=$U:g --chmod=u=rwX --link --parents=false --exclude=a --exclude=$b x  y\t/d/",
    ) else {
        panic!()
    };
    assert_eq!(text(&copy.from), Some("s"));
    assert_eq!((text(&copy.chown), text(&copy.chmod)), (Some("$U:g"), Some("u=rwX")));
    assert_eq!((copy.link, copy.parents, texts(&copy.exclude)), (true, false, vec!["a", "$b"]));
    let paths = |sources: &[Source]| {
        let path = |source: &Source| match source {
            Source::Path(word) => word.text.clone(),
            Source::Heredoc(heredoc) => panic!("{heredoc:?}"),
        };
        sources.iter().map(path).collect::<Vec<_>>()
    };
    assert_eq!((paths(&copy.sources), &*copy.destination.text), (vec!["x".into(), "y".into()], "/d/"));
    // Quotes and escapes hold no words together here.
    let Instruction::Copy(copy) = read("COPY \"a b\" c\\ d /e") else { panic!() };
    assert_eq!(paths(&copy.sources), ["\"a", "b\"", "c\\", "d"]);
    let Instruction::Copy(copy) = read("COPY [\"a b\", \"<<E\", \"/d e\"]") else { panic!() };
    assert_eq!((paths(&copy.sources), &*copy.destination.text), (vec!["a b".into(), "<<E".into()], "/d e"));
    let Instruction::Add(add) =
        read("ADD --checksum=sha256:$S --keep-git-dir --unpack=FALSE --exclude=*.md https://a/b /c")
    else {
        panic!()
    };
    assert_eq!(text(&add.checksum), Some("sha256:$S"));
    assert_eq!((add.keep_git_dir, add.unpack, add.link), (Some(true), Some(false), false));
    for (line, code, place) in [
        ("COPY", "no-destination", "COPY"),
        ("COPY a", "no-destination", "COPY a"),
        ("COPY [\"a\"]", "no-destination", "COPY [\"a\"]"),
        ("COPY [\"a\", 1]", "json-not-strings", "1"),
        ("COPY --from=$X a b", "variable-in-from", "$X"),
        ("COPY --checksum=x a b", "unknown-flag", "--checksum=x"),
        ("COPY --link=maybe a b", "invalid-flag-value", "maybe"),
        ("COPY --link= a b", "flag-without-value", "--link="),
        ("COPY --link --link a b", "duplicate-flag", "--link"),
        ("COPY --chown a b", "flag-without-value", "--chown"),
        ("ADD --from=x a b", "unknown-flag", "--from=x"),
        ("ADD --parents a b", "unknown-flag", "--parents"),
    ] {
        assert_eq!(error(line), (code, place.to_owned()), "{line}");
    }
}

#[test]
fn flags() {
    let Instruction::Copy(copy) = read("COPY --chown=\"a b\":'c' --exclude='x'\\ y -- --z /d") else {
        panic!()
    };
    assert_eq!((text(&copy.chown), texts(&copy.exclude)), (Some("a b:c"), vec!["x y"]));
    assert!(matches!(&copy.sources[0], Source::Path(word) if word.text == "--z"));
    let node = node("COPY --from=s \\\n  --link a b");
    let flags: Vec<_> = node.flags.iter().map(|flag| (&*flag.name.text, text(&flag.value))).collect();
    assert_eq!(flags, [("from", Some("s")), ("link", None)]);
}

#[test]
fn pairs() {
    let pairs = |line: &str| {
        let (pairs, legacy) = match read(line) {
            Instruction::Env(env) => (env.pairs, env.legacy),
            Instruction::Label(label) => (label.pairs, label.legacy),
            other => panic!("{other:?}"),
        };
        let pairs = pairs.into_iter().map(|pair| format!("{}|{}", pair.key.text, pair.value.text));
        (pairs.collect::<Vec<_>>(), legacy)
    };
    let cases: [(&str, &[&str], bool); 11] = [
        ("a=b", &["a|b"], false),
        (
            "a=1 b=$a c=\"${a} $b\" d='$a' e=\\$a f=a\\ b",
            &["a|1", "b|$a", "c|\"${a} $b\"", "d|'$a'", "e|\\$a", "f|a\\ b"],
            false,
        ),
        (
            "empty= quoted=\"\" x=\"a\\\"b\" y='it''s'",
            &["empty|", "quoted|\"\"", "x|\"a\\\"b\"", "y|'it''s'"],
            false,
        ),
        ("a==b", &["a|=b"], false),
        ("\"a b\"=c", &["\"a b\"|c"], false),
        ("one two three   four", &["one|two three   four"], true),
        ("q \"a b\" c", &["q|\"a b\" c"], true),
        ("p a=b", &["p|a=b"], true),
        ("a=b \\\n # c\n d=e", &["a|b", "d|e"], false),
        ("a='b \\' c=d", &["a|'b \\'", "c|d"], false),
        ("a=b\\", &["a|b"], false),
    ];
    for (rest, expected, legacy) in cases {
        for keyword in ["ENV", "LABEL"] {
            let (found, found_legacy) = pairs(&format!("{keyword} {rest}"));
            assert_eq!(
                (found.iter().map(|pair| &**pair).collect::<Vec<_>>(), found_legacy),
                (expected.to_vec(), legacy),
                "{rest}"
            );
        }
    }
    for (line, code, place) in [
        ("ENV", "no-argument", "ENV"),
        ("ENV a", "no-value", "a"),
        ("ENV a=b c", "no-value", "c"),
        ("ENV =b", "blank-name", "=b"),
        ("LABEL a=b =c", "blank-name", "=c"),
    ] {
        assert_eq!(error(line), (code, place.to_owned()), "{line}");
    }
}

#[test]
fn arg() {
    let Instruction::Arg(arg) = read("ARG A B= C=\"x y\" D=a=b") else { panic!() };
    let names: Vec<_> = arg.names.iter().map(|name| (&*name.name.text, text(&name.value))).collect();
    assert_eq!(names, [("A", None), ("B", Some("")), ("C", Some("\"x y\"")), ("D", Some("a=b"))]);
    assert_eq!(error("ARG"), ("no-argument", "ARG".into()));
    assert_eq!(error("ARG =x"), ("blank-name", "=x".into()));
}

#[test]
fn instructions_of_one_argument() {
    for (line, expected) in [
        ("USER  a b ", "a b"),
        ("WORKDIR /a b", "/a b"),
        ("STOPSIGNAL $S", "$S"),
        ("MAINTAINER A <a@b.c>", "A <a@b.c>"),
    ] {
        let word = match read(line) {
            Instruction::User(user) => user.user,
            Instruction::Workdir(workdir) => workdir.path,
            Instruction::Stopsignal(stopsignal) => stopsignal.signal,
            Instruction::Maintainer(maintainer) => maintainer.author,
            other => panic!("{other:?}"),
        };
        assert_eq!(word.text, expected, "{line}");
    }
    for keyword in
        ["USER", "WORKDIR", "STOPSIGNAL", "MAINTAINER", "EXPOSE", "VOLUME", "SHELL", "HEALTHCHECK", "ONBUILD"]
    {
        assert_eq!(error(keyword), ("no-argument", keyword.to_owned()), "{keyword}");
    }
}

#[test]
fn lists() {
    let Instruction::Expose(expose) = read("EXPOSE 80/tcp  $P 8000-8002/udp") else { panic!() };
    assert_eq!(texts(&expose.ports), ["80/tcp", "$P", "8000-8002/udp"]);
    let Instruction::Volume(volume) = read("VOLUME /a /b") else { panic!() };
    assert_eq!(texts(&volume.paths), ["/a", "/b"]);
    let Instruction::Volume(volume) = read("VOLUME [\" /a b \", \"/c\"]") else { panic!() };
    assert_eq!(texts(&volume.paths), ["/a b", "/c"]);
    assert_eq!(error("VOLUME [\"/a\", \" \"]"), ("empty-volume", "\" \"".into()));
    assert_eq!(error("VOLUME []").0, "no-argument");
    let Instruction::Shell(shell) = read("SHELL [\"/bin/sh\", \"-ec\"]") else { panic!() };
    assert_eq!(texts(&shell.shell), ["/bin/sh", "-ec"]);
    assert_eq!(error("SHELL []").0, "no-argument");
    assert_eq!(error("SHELL /bin/sh -c"), ("shell-not-json", "/bin/sh -c".into()));
    let errors = parse(b"FROM a\nSHELL sh \"-c\"").unwrap_err();
    assert_eq!(errors[0].help().as_deref(), Some(r#"write `SHELL ["sh", "\"-c\""]`"#));
}

#[test]
fn healthcheck() {
    assert_eq!(read("HEALTHCHECK none"), Instruction::Healthcheck(Healthcheck::None));
    let line = "HEALTHCHECK --interval=1m30s --timeout=1ms --start-period=0s --start-interval=.5s --retries=3 CMD curl x";
    let Instruction::Healthcheck(Healthcheck::Check(check)) = read(line) else { panic!() };
    assert_eq!((check.interval_nanoseconds, check.timeout_nanoseconds), (90_000_000_000, 1_000_000));
    assert_eq!((check.start_period_nanoseconds, check.start_interval_nanoseconds), (0, 500_000_000));
    assert_eq!((check.retries, check.command.texts()), (3, vec!["curl x"]));
    let Instruction::Healthcheck(Healthcheck::Check(check)) = read("HEALTHCHECK cmd [\"a\", \"\"]") else {
        panic!()
    };
    assert!(matches!(check.command, Command::Exec(words) if texts(&words) == ["a", ""]));
    for (line, code, place) in [
        ("HEALTHCHECK NONE x", "invalid-healthcheck", "x"),
        ("HEALTHCHECK CMD", "invalid-healthcheck", "CMD"),
        ("HEALTHCHECK CMD []", "invalid-healthcheck", "CMD"),
        ("HEALTHCHECK curl x", "invalid-healthcheck", "curl"),
        ("HEALTHCHECK --interval=1us CMD x", "invalid-duration", "1us"),
        ("HEALTHCHECK --interval=-1s CMD x", "invalid-duration", "-1s"),
        ("HEALTHCHECK --timeout=5 CMD x", "invalid-duration", "5"),
        ("HEALTHCHECK --retries=-1 CMD x", "invalid-healthcheck", "-1"),
        ("HEALTHCHECK --retries=a CMD x", "invalid-healthcheck", "a"),
        ("HEALTHCHECK --retry=1 CMD x", "unknown-flag", "--retry=1"),
        ("HEALTHCHECK CMD [\"a\", 1]", "json-not-strings", "1"),
    ] {
        assert_eq!(error(line), (code, place.to_owned()), "{line}");
    }
}

#[test]
fn the_other_escape_character() {
    let source = "# escape=`\nFROM busybox\nENV P=C:\\dir\\x Q=`$P R=\"a`\"b\" S=a` b\nRUN echo a `\n  b > /1\nRUN dir \\\n";
    let file = parse(source.as_bytes()).unwrap();
    let nodes = &file.stages[0].instructions;
    let Instruction::Env(env) = &nodes[0].value else { panic!() };
    let values: Vec<_> = env.pairs.iter().map(|pair| &*pair.value.text).collect();
    assert_eq!(values, ["C:\\dir\\x", "`$P", "\"a`\"b\"", "a` b"]);
    assert_eq!((&*nodes[1].text, &*nodes[2].text), ("RUN echo a   b > /1", "RUN dir \\"));
}
