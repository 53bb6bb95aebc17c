//! Any file that can be read is lowered or refused, and always in the same way.

use dockerfile::{Facts, Lowering, NamedContext, NoCache, Request, lower, print};
use proptest::prelude::*;

use crate::support::{amd64, answer};

/// Lines that are lively together.
fn line() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        Just("a".to_owned()),
        Just("$A".to_owned()),
        Just("${B:-x}".to_owned()),
        Just("../x/./y/".to_owned()),
        Just("\"q w\"".to_owned()),
        Just("*.t".to_owned()),
        Just("https://h/f".to_owned()),
        Just("git@h:r.git#m:s".to_owned()),
        Just("\u{e9}\u{0}".to_owned()),
        "[ -~]{0,12}",
    ];
    let name = prop_oneof![
        Just("a"),
        Just("b"),
        Just("base"),
        Just("0"),
        Just("1"),
        Just("scratch"),
        Just("onbuild")
    ];
    let flag = prop_oneof![
        Just(String::new()),
        name.clone().prop_map(|name| format!("--from={name} ")),
        Just("--link ".to_owned()),
        Just("--parents --exclude=*.o ".to_owned()),
        Just("--chown=$A:b ".to_owned()),
        Just("--chmod=u+x,$A ".to_owned()),
    ];
    let mount = prop_oneof![
        Just(String::new()),
        name.clone().prop_map(|name| format!("--mount=from={name},target=/m ")),
        Just("--mount=type=cache,target=$A,id=x ".to_owned()),
        Just("--mount=type=secret,id=s,env=A --mount=type=ssh ".to_owned()),
    ];
    prop_oneof![
        4 => (name.clone(), name.clone()).prop_map(|(base, name)| format!("FROM {base} AS {name}")),
        1 => word.clone().prop_map(|word| format!("FROM {word}")),
        4 => (flag.clone(), word.clone(), word.clone()).prop_map(|(flag, a, b)| format!("COPY {flag}{a} {b}")),
        2 => (flag, word.clone()).prop_map(|(flag, a)| format!("ADD {flag}{a} /x/")),
        3 => (mount, word.clone()).prop_map(|(mount, a)| format!("RUN {mount}{a}")),
        2 => (name, word.clone()).prop_map(|(name, a)| format!("ONBUILD COPY --from={name} {a} /o")),
        2 => word.clone().prop_map(|word| format!("ENV A={word} B=$A$A$A")),
        2 => word.clone().prop_map(|word| format!("ARG A={word} B")),
        1 => word.clone().prop_map(|word| format!("WORKDIR {word}")),
        1 => word.clone().prop_map(|word| format!("USER {word}")),
        1 => word.clone().prop_map(|word| format!("EXPOSE {word} 80-90/udp")),
        1 => word.clone().prop_map(|word| format!("RUN <<E\n#!/bin/{word}\nE")),
        1 => word.clone().prop_map(|word| format!("COPY <<E /h\n{word}$A\nE")),
        1 => word.prop_map(|word| format!("HEALTHCHECK --interval=1m CMD {word}")),
        1 => Just("CMD [\"a\"]\nENTRYPOINT b".to_owned()),
    ]
}

fn request() -> impl Strategy<Value = Request> {
    (any::<bool>(), any::<bool>(), prop::option::of("[ab0]")).prop_map(|(several, contexts, target)| {
        let mut request = Request::new(amd64());
        if several {
            request.platforms = vec![amd64(), "linux/arm64".parse().expect("a platform")];
            request.no_cache = NoCache::All;
            request.build_args.insert("A".to_owned(), "given".to_owned());
        }
        if contexts {
            request
                .named_contexts
                .insert("a".to_owned(), NamedContext::Local { ignore: vec!["*.o".to_owned()] });
            request.named_contexts.insert("base".to_owned(), NamedContext::Git("git://h/r".to_owned()));
        }
        request.target = target;
        request
    })
}

/// All that comes of a text, as text; `None` where it cannot be read.
fn outcome(text: &str, request: &Request) -> Option<String> {
    let file = dockerfile_parser::parse(text.as_bytes()).ok()?;
    let mut facts = Facts::new();
    for _ in 0..16 {
        match lower(&file, request, &facts) {
            Err(error) => {
                if let Some(span) = error.span {
                    assert!(span.end <= text.len(), "{error:?}");
                }
                return Some(format!("{} {error} {:?} {:?}", error.code(), error.span, error.help()));
            }
            Ok(Lowering::Needs(needs)) => {
                assert!(!needs.is_empty() && needs.keys().all(|fact| !facts.contains_key(fact)), "{needs:?}");
                facts.extend(needs.into_keys().map(|fact| (fact.clone(), answer(&fact))));
            }
            Ok(Lowering::Done(lowered)) => {
                let configs: Vec<_> = lowered.images.values().map(|image| image.config.bytes()).collect();
                let digests: Vec<_> =
                    lowered.graph.ids().map(|id| lowered.graph.digest(id).to_string()).collect();
                return Some(format!(
                    "{}{configs:?}{digests:?}{:?}",
                    print::graph(&lowered.graph),
                    lowered.warnings
                ));
            }
        }
    }
    panic!("16 rounds were not enough for {text}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn every_readable_file_has_an_outcome(
        lines in prop::collection::vec(line(), 0..16),
        request in request(),
    ) {
        let text = format!("ARG A=1\nFROM base AS b\n{}\n", lines.join("\n"));
        prop_assert_eq!(outcome(&text, &request), outcome(&text, &request));
    }

    #[test]
    fn each_line_alone_has_an_outcome(line in line(), request in request()) {
        let text = format!("FROM base AS base\nFROM base AS b\n{line}\n");
        prop_assert_eq!(outcome(&text, &request), outcome(&text, &request));
    }
}
