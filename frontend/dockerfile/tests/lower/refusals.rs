//! What cannot be lowered: codes, places and help; and what is warned of.

use dockerfile::{Entitlement, Facts, Request};

use crate::support::{amd64, lowered, refused};

#[test]
fn errors_say_where_and_what_to_do() {
    for (text, code, place, help) in [
        ("ARG X\nFROM $X\n", "empty-from", "$X", "give the variable a default above the first `FROM`"),
        ("FROM Build\n", "invalid-image-name", "Build", ""),
        (
            "FROM a AS build\nFROM Build\n",
            "invalid-image-name",
            "Build",
            "write `FROM build` for the stage of that name",
        ),
        ("FROM --platform=lin/ux/a/b a\n", "invalid-platform", "lin/ux/a/b", ""),
        ("ARG P\nFROM --platform=$P a\n", "invalid-platform", "$P", ""),
        ("FROM a AS b\nCOPY --from=b /x /x\n", "copy-from-own-stage", "b", ""),
        ("FROM a\nCOPY --from=0 /x /x\n", "copy-from-own-stage", "0", ""),
        ("FROM a\nCOPY --from=1 /x /x\n", "unknown-stage-number", "1", ""),
        (
            "FROM a AS d\nCOPY --from=c /x /x\nFROM b AS c\nFROM d\n",
            "copy-from-later-stage",
            "c",
            "move the stage `c` above this one",
        ),
        (
            "FROM a AS d\nRUN --mount=from=c,target=/x y\nFROM b AS c\nFROM d\n",
            "copy-from-later-stage",
            "from=c,target=/x",
            "move",
        ),
        ("FROM a\nENV x=${y:?needed}\n", "required-variable", "${y:?needed}", ""),
        ("FROM a\nCOPY https://x/y /\n", "copy-from-url", "https://x/y", "write `ADD` instead of `COPY`"),
        ("FROM a\nCOPY git@h:x.git /\n", "copy-from-url", "git@h:x.git", "write `ADD`"),
        ("FROM a\nADD https://h/x.git?what=1 /\n", "invalid-git-address", "https://h/x.git?what=1", ""),
        (
            "FROM a\nADD --keep-git-dir=false https://h/x.git?keep-git-dir=true /\n",
            "invalid-git-address",
            "https://h/x.git?keep-git-dir=true",
            "",
        ),
        ("FROM a\nADD --checksum=sha256:00 x /\n", "invalid-checksum", "sha256:00", ""),
        ("FROM a\nADD --checksum=sha256:00 https://x/y /\n", "invalid-checksum", "sha256:00", ""),
        ("FROM a\nADD --checksum=sha256:00 https://x/y https://x/z /\n", "invalid-checksum", "sha256:00", ""),
        ("FROM a\nCOPY --chmod=9 x /\n", "invalid-chmod", "9", ""),
        ("FROM a\nEXPOSE 99999\n", "invalid-port", "99999", ""),
        ("FROM a\nSTOPSIGNAL SIGWHAT\n", "invalid-signal", "SIGWHAT", ""),
        ("FROM a\nVOLUME $X\n", "empty-volume", "$X", ""),
        ("FROM a\nRUN []\n", "no-command", "RUN []", ""),
        ("FROM a\nRUN --mount=type=bind,source=f true\n", "invalid-mount", "type=bind,source=f", ""),
        ("FROM a\nRUN --device=vendor/x=y true\n", "not-supported-yet", "vendor/x=y", ""),
        (
            "FROM a\nRUN --network=host true\n",
            "not-allowed",
            "RUN --network=host true",
            "build with `--allow network.host`",
        ),
        (
            "FROM a\nRUN --security=insecure true\n",
            "not-allowed",
            "RUN --security=insecure true",
            "build with `--allow security.insecure`",
        ),
        (
            "# syntax=example.com/other:1\nFROM a\n",
            "unsupported-frontend",
            "example.com/other:1",
            "docker/dockerfile:1",
        ),
        ("FROM a\nCOPY <<a/b /x\nEOF\na/b\n", "invalid-heredoc-name", "<<a/b", ""),
        ("# check=error=true\nFROM a\nLABEL x=$Y\n", "checks-failed", "$Y", ""),
    ] {
        let error = refused(text, &Request::new(amd64()));
        assert_eq!(error.code(), code, "{text}{error}");
        let span = error.span.expect("it has a place");
        assert_eq!(&text[span.range()], place, "{text}");
        assert!(error.help().unwrap_or_default().contains(help), "{text}{:?}", error.help());
    }
}

#[test]
fn the_requests_faults_have_no_place() {
    let mut request = Request::new(amd64());
    let text = "FROM a AS build\nFROM b AS test\n";
    for (target, help) in [("biuld", "build with `--target build`"), ("0", "the stages are build, test")] {
        request.target = Some(target.to_owned());
        let error = refused(text, &request);
        assert_eq!((error.code(), error.span), ("unknown-target", None));
        assert_eq!(error.help().as_deref(), Some(help));
    }
    request.target = None;
    // No image can tell a year of five digits.
    for value in ["yesterday", "253402300800"] {
        request.build_args.insert("SOURCE_DATE_EPOCH".to_owned(), value.to_owned());
        assert_eq!(refused(text, &request).code(), "invalid-source-date-epoch", "{value}");
    }
    let mut file = dockerfile_parser::parse(text.as_bytes()).expect("the text can be read");
    file.stages.clear();
    let error =
        dockerfile::lower(&file, &Request::new(amd64()), &Facts::new()).expect_err("there is no stage");
    assert_eq!(error.code(), "no-stage");
}

#[test]
fn what_is_allowed_runs() {
    let mut request = Request::new(amd64());
    request.allow.extend([Entitlement::NetworkHost, Entitlement::SecurityInsecure]);
    let text = "# syntax=mirror.local/docker/dockerfile:1.7-labs\nFROM a\nRUN --network=host --security=insecure x\n";
    let printed = dockerfile::print::graph(&lowered(text, &request).graph);
    assert!(printed.contains("network host") && printed.contains("security insecure"), "{printed}");
}

#[test]
fn warnings_are_told_once_and_can_be_silenced() {
    let text = "ARG VERSION=1\nFROM arm$VERSIN AS x\nARG NAME\nLABEL a=$NAM b=$NAME c=$NAM\n\
                # check=skip=UndefinedVar\nLABEL d=$OTHER\n";
    let mut request = Request::new(amd64());
    let codes = |request: &Request| {
        let lowered = lowered(text, request);
        lowered
            .warnings
            .iter()
            .map(|warning| (warning.rule.name, warning.message.clone()))
            .collect::<Vec<_>>()
    };
    let expected = [
        ("InvalidBaseImagePlatform", "was pulled with platform \"linux/arm64\", expected \"linux/amd64\""),
        ("UndefinedArgInFrom", "FROM argument 'VERSIN' is not declared (did you mean VERSION?)"),
        ("UndefinedVar", "Usage of undefined variable '$NAM'"),
        ("UndefinedVar", "Usage of undefined variable '$NAM'"),
    ];
    let found = codes(&request);
    assert_eq!(found.len(), expected.len(), "{found:?}");
    for ((code, message), (expected_code, part)) in found.iter().zip(expected) {
        assert!(*code == expected_code && message.contains(part), "{code} {message}");
    }
    request.build_args.insert("BUILDKIT_DOCKERFILE_CHECK".to_owned(), "skip=all".to_owned());
    assert_eq!(codes(&request), []);
}
