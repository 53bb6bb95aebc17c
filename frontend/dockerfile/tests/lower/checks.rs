//! When the build checks speak and what they say, what silences them, and what `check` looks at.

use dockerfile::{Facts, Request, lint};
use dockerfile_parser::LineIndex;

use crate::support::{amd64, checked, lower_rounds, lowered};

/// The rules that a text breaks, each with the line of its place.
fn broken(text: &str, request: &Request) -> Vec<(&'static str, usize)> {
    let lines = LineIndex::new(text.as_bytes());
    let checked = checked(text, request);
    checked
        .warnings
        .iter()
        .map(|warning| (warning.rule.name, lines.position(warning.span.start).line))
        .collect()
}

/// Texts, and the rules that they break, in order.
const CASES: &[(&str, &[(&str, usize)])] = &[
    // The text of the file.
    ("FROM a AS Bad\nFROM Bad AS x", &[("StageNameCasing", 1), ("InvalidDefaultArgInFrom", 2)]),
    ("FROM a as b", &[("FromAsCasing", 1)]),
    ("from a AS b", &[("FromAsCasing", 1)]),
    ("from a as b\ncopy x y", &[]),
    // Of a keyword in mixed case only the one rule speaks.
    ("From a as b\nCOPY x y", &[("ConsistentInstructionCasing", 1)]),
    ("FROM a\nrun x", &[("ConsistentInstructionCasing", 2)]),
    ("FROM a\nrun x\nrun y", &[("ConsistentInstructionCasing", 1)]),
    ("arg A=a\nFROM $A\nRUN x", &[]),
    (
        "ARG A=a \\\n\n  B=b\nFROM a\nRUN x \\\n \n# c\n\ny",
        &[("NoEmptyContinuation", 2), ("NoEmptyContinuation", 6)],
    ),
    ("FROM a AS b\nFROM a AS B", &[("DuplicateStageName", 2), ("StageNameCasing", 2)]),
    (
        "FROM a AS context\nFROM b AS Scratch",
        &[("ReservedStageName", 1), ("ReservedStageName", 2), ("StageNameCasing", 2)],
    ),
    ("FROM a\nMAINTAINER x", &[("MaintainerDeprecated", 2)]),
    // `FROM`.
    ("FROM a$X", &[("UndefinedArgInFrom", 1)]),
    ("ARG X\nFROM a$X", &[]),
    ("ARG X\nFROM a:$X", &[("InvalidDefaultArgInFrom", 2)]),
    ("FROM a${X:-b}", &[]),
    ("FROM --platform=$BUILDPLATFORM a", &[]),
    ("FROM --platform=${TARGETPLATFORM} a", &[("RedundantTargetPlatform", 1)]),
    ("FROM --platform=${TARGETPLATFORM:-linux/amd64} a", &[("RedundantTargetPlatform", 1)]),
    ("FROM --platform=$TARGETOS/$TARGETARCH a", &[]),
    ("FROM --platform=linux/arm64 a AS b", &[("FromPlatformFlagConstDisallowed", 1)]),
    ("FROM --platform=linux/arm64 a AS b-arm64", &[]),
    ("FROM --platform=linux/arm64 a AS b-linux", &[]),
    ("FROM arm\nFROM empty", &[("InvalidBaseImagePlatform", 1)]),
    // Settings.
    ("FROM a\nWORKDIR x\nWORKDIR y", &[("WorkdirRelativePath", 2)]),
    ("FROM a AS b\nWORKDIR /x\nFROM b\nWORKDIR y", &[]),
    ("FROM a AS b\nFROM b\nWORKDIR y", &[("WorkdirRelativePath", 3)]),
    ("FROM a\nCMD x\nENTRYPOINT y", &[("JSONArgsRecommended", 2), ("JSONArgsRecommended", 3)]),
    ("FROM a\nSHELL [\"x\"]\nCMD x", &[]),
    ("FROM a\nHEALTHCHECK CMD x", &[]),
    (
        "FROM a\nCMD [\"x\"]\nCMD [\"y\"]\nCMD [\"z\"]",
        &[("MultipleInstructionsDisallowed", 2), ("MultipleInstructionsDisallowed", 3)],
    ),
    ("FROM a\nHEALTHCHECK NONE\nHEALTHCHECK CMD x", &[("MultipleInstructionsDisallowed", 2)]),
    ("FROM a AS b\nCMD [\"x\"]\nFROM b\nCMD [\"y\"]", &[]),
    ("FROM a\nENV k v\nLABEL k v w\nENV k=v", &[("LegacyKeyValueFormat", 2), ("LegacyKeyValueFormat", 3)]),
    (
        "FROM a\nENV A_KEY=x B=y MY_TOKEN=z\nARG auth B",
        &[("SecretsUsedInArgOrEnv", 2), ("SecretsUsedInArgOrEnv", 2), ("SecretsUsedInArgOrEnv", 3)],
    ),
    ("ARG API_KEY\nFROM a\nLABEL password=x", &[]),
    (
        "FROM a\nEXPOSE 80/UDP 81:82 :83 [::1]:84:85/Tcp",
        &[
            ("ExposeProtoCasing", 2),
            ("ExposeInvalidFormat", 2),
            ("ExposeInvalidFormat", 2),
            ("ExposeProtoCasing", 2),
        ],
    ),
    ("FROM a\nARG P=1:2\nEXPOSE $P", &[("ExposeInvalidFormat", 3)]),
    ("FROM a\nCOPY $b ${c:-x} ${PATH}d /e", &[("UndefinedVar", 2)]),
    // Triggers are obeyed where they are pulled.
    ("FROM a AS b\nONBUILD ENV k v\nFROM b", &[("LegacyKeyValueFormat", 3)]),
    // `COPY . .`.
    ("FROM a\nCOPY . .\nRUN npm ci", &[("CopyTooBroad", 2)]),
    ("FROM a AS b\nWORKDIR /x\nCOPY . .\nFROM b\nRUN [\"npm\", \"ci\"]", &[("CopyTooBroad", 3)]),
    ("FROM a\nCOPY . .\nRUN <<E\nnpm ci\nE", &[("CopyTooBroad", 2)]),
    ("FROM a\nCOPY . .\nRUN --mount=source=package.json,target=/p npm ci", &[]),
    ("FROM a\nWORKDIR /x\nCOPY . .\nWORKDIR /y\nRUN npm ci", &[]),
    ("FROM a AS b\nONBUILD COPY . .\nFROM b\nRUN npm ci", &[]),
];

#[test]
fn what_breaks_a_rule() {
    for (text, expected) in CASES {
        let request = Request::new(amd64());
        assert_eq!(broken(text, &request), *expected, "\n{text}");
    }
}

#[test]
fn every_rule_is_among_the_cases() {
    // Asked for, or about the ignore file: their pages show them.
    let elsewhere = ["CopyIgnoredFile", "InvalidDefinitionDescription"];
    let rules = lint::RULES.iter().map(|rule| rule.name).filter(|name| !elsewhere.contains(name));
    for name in rules.filter(|name| *name != "RewrittenFiles") {
        assert!(CASES.iter().any(|(_, found)| found.iter().any(|(rule, _)| *rule == name)), "{name}");
    }
}

#[test]
fn comments_next_to_definitions() {
    let request = Request::new(amd64());
    let ask = "# check=experimental=all;skip=all\n\n";
    for (text, expected) in [
        ("# A is\nARG A=1\nFROM a", None),
        ("# first\n# A is\nARG A=1\nFROM a", None),
        ("# A is\n# last\nARG A=1\nFROM a", Some("ARG should follow the format: `# A <description>`")),
        ("# text\nARG A=1 B=2\nFROM a", Some("ARG should follow the format: `# <arg_key> <description>`")),
        ("# B is\nARG A=1 B=2\nFROM a", None),
        ("# text\n\nARG A=1\nFROM a", None),
        ("# text\n#\nARG A=1\nFROM a", None),
        ("# text\nFROM a", None),
        ("# text\nFROM a AS b", Some("FROM should follow the format: `# b <description>`")),
        ("# b is\nFROM a AS b", None),
        ("FROM a\n# text\nARG A", Some("ARG should follow the format: `# A <description>`")),
    ] {
        let checked = checked(&format!("{ask}{text}"), &request);
        let said: Vec<_> = checked.warnings.iter().map(|warning| &*warning.message).collect();
        let expected: Vec<_> = expected.map(|text| format!("Comment for {text}")).into_iter().collect();
        assert_eq!(said, expected, "{text}");
        assert_eq!(broken(text, &request), [], "nobody asked: {text}");
    }
}

#[test]
fn what_silences_a_rule() {
    let body = "FROM a AS Bad\nCMD x\n";
    let both = &[("StageNameCasing", true), ("JSONArgsRecommended", true)];
    let first = &[("StageNameCasing", true), ("JSONArgsRecommended", false)];
    let none = &[("StageNameCasing", false), ("JSONArgsRecommended", false)];
    for (text, argument, expected) in [
        (body.to_owned(), None, both),
        (format!("# check=skip=JSONArgsRecommended\n{body}"), None, first),
        (format!("# check=skip= jsonargsrecommended , Other\n{body}"), None, first),
        (format!("# check=skip=all\n{body}"), None, none),
        (format!("# check=skip=all\n{body}"), Some(""), both),
        (format!("# check=error=true\n{body}"), Some("skip=JSONArgsRecommended"), first),
        ("FROM a AS Bad\n# check=skip=JSONArgsRecommended\n# text\nCMD x".to_owned(), None, first),
        ("FROM a AS Bad\n# check=skip=all\nCMD x".to_owned(), None, first),
        (
            "# check=skip=JSONArgsRecommended\n\nFROM a AS Bad\n# check=skip=StageNameCasing\nCMD x"
                .to_owned(),
            None,
            first,
        ),
        (
            "ARG A\n# check=skip=StageNameCasing\nFROM a AS Bad\n# check=skip=JSONArgsRecommended\nCMD x"
                .to_owned(),
            None,
            none,
        ),
    ] {
        let mut request = Request::new(amd64());
        request
            .build_args
            .extend(argument.map(|value| ("BUILDKIT_DOCKERFILE_CHECK".to_owned(), value.to_owned())));
        let found = broken(&text, &request);
        for (rule, speaks) in expected {
            assert_eq!(found.iter().any(|(name, _)| name == rule), *speaks, "{rule} in {argument:?}\n{text}");
        }
        assert!(found.len() <= 2, "{found:?}");
    }
    // Of a pair the comment above either one.
    for text in [
        "FROM a\n# check=skip=all\nCMD [\"x\"]\nCMD [\"y\"]",
        "FROM a\nCMD [\"x\"]\n# check=skip=all\nCMD [\"y\"]",
        "FROM a\n# check=skip=all\nCOPY . .\nRUN npm ci",
        "FROM a\nCOPY . .\n# check=skip=CopyTooBroad\nRUN npm ci",
        "# check=skip=NoEmptyContinuation\nARG A=1\\\n\n2\nFROM a",
    ] {
        assert_eq!(broken(text, &Request::new(amd64())), [], "{text}");
    }
}

#[test]
fn a_broken_rule_can_be_an_error() {
    let request = Request::new(amd64());
    let text = "# check=error=true\nFROM a AS Bad\nCMD x\nCMD [\"y\"]\n";
    let error = lower_rounds(text, &request).expect_err("rules are broken");
    assert_eq!(error.code(), "checks-failed");
    assert_eq!(
        error.to_string(),
        "lint violation found for rules: JSONArgsRecommended, MultipleInstructionsDisallowed, StageNameCasing"
    );
    let names: Vec<_> = error.warnings.iter().map(|warning| warning.rule.name).collect();
    assert_eq!(names, ["StageNameCasing", "MultipleInstructionsDisallowed", "JSONArgsRecommended"]);
    let checking = checked(text, &request);
    assert_eq!(checking.error.map(|error| error.to_string()), Some(error.to_string()));
    assert_eq!(checking.warnings, error.warnings);
    let quiet = lowered("# check=error=1;skip=StageNameCasing\nFROM a AS Bad\n", &request);
    assert!(quiet.warnings.is_empty() && quiet.checks.fails());
}

#[test]
fn the_argument_is_read_or_refused() {
    let mut request = Request::new(amd64());
    for value in ["skip", "skp=all", "error=perhaps"] {
        request.build_args.insert("BUILDKIT_DOCKERFILE_CHECK".to_owned(), value.to_owned());
        let error = lower_rounds("FROM a", &request).expect_err("it cannot be read");
        assert_eq!((error.code(), error.span), ("invalid-check-directive", None), "{value}");
        assert_eq!(
            checked("FROM a", &request).error.map(|error| error.code()),
            Some("invalid-check-directive")
        );
    }
}

#[test]
fn a_build_is_told_of_what_it_builds() {
    let text = "FROM a AS one\nWORKDIR x\nFROM b AS Two\nCMD x\nFROM c AS three\nENV k v\n";
    let mut request = Request::new(amd64());
    let all = [
        ("WorkdirRelativePath", 2),
        ("StageNameCasing", 3),
        ("JSONArgsRecommended", 4),
        ("LegacyKeyValueFormat", 6),
    ];
    assert_eq!(broken(text, &request), all);
    let built = |request: &Request| {
        lowered(text, request).warnings.iter().map(|warning| warning.rule.name).collect::<Vec<_>>()
    };
    assert_eq!(built(&request), ["StageNameCasing", "LegacyKeyValueFormat"]);
    request.target = Some("one".to_owned());
    assert_eq!(built(&request), ["WorkdirRelativePath", "StageNameCasing"]);
    assert_eq!(broken(text, &request), [("WorkdirRelativePath", 2), ("StageNameCasing", 3)]);
}

#[test]
fn what_is_known_before_an_error_is_told() {
    let request = Request::new(amd64());
    let text = "FROM scratch AS BadName\nFROM ${BAR} AS base\n";
    let file = dockerfile_parser::parse(text.as_bytes()).expect("the text can be read");
    let checking = lint::check(&file, &request, &Facts::new());
    let names: Vec<_> = checking.warnings.iter().map(|warning| warning.rule.name).collect();
    assert_eq!(names, ["StageNameCasing", "InvalidDefaultArgInFrom", "UndefinedArgInFrom"]);
    assert_eq!(checking.error.map(|error| error.code()), Some("empty-from"));
    let error = lower_rounds(text, &request).expect_err("no base");
    assert_eq!((error.code(), error.warnings.len()), ("empty-from", 3));
    // What needs no image is known before any image is.
    let file = dockerfile_parser::parse(b"FROM a AS Bad\nFROM b\nCMD x").expect("the text can be read");
    let checking = lint::check(&file, &request, &Facts::new());
    assert_eq!((checking.needs.len(), checking.warnings.len(), checking.error), (2, 1, None));
}

#[test]
fn checking_allows_everything() {
    let text = "FROM a\nRUN --network=host --security=insecure x\n";
    assert_eq!(checked(text, &Request::new(amd64())).error, None);
}

#[test]
fn a_place_lies_in_its_instruction() {
    let text = "FROM a AS b\nCMD [\"x\"]\nCOPY \\\n  $y \\\n  /z\nCMD [\"w\"]\n";
    let checked = checked(text, &Request::new(amd64()));
    let places: Vec<_> = checked
        .warnings
        .iter()
        .map(|warning| (&text[warning.span.range()], &text[warning.instruction.range()]))
        .collect();
    assert_eq!(places, [("CMD [\"x\"]", "CMD [\"x\"]"), ("$y", "COPY \\\n  $y \\\n  /z")]);
}

#[test]
fn two_platforms_say_it_once() {
    let mut request = Request::new(amd64());
    request.platforms = vec![amd64(), "linux/arm64".parse().expect("a platform")];
    assert_eq!(
        broken("FROM a AS Bad\nCMD x", &request),
        [("StageNameCasing", 1), ("JSONArgsRecommended", 2)]
    );
}
