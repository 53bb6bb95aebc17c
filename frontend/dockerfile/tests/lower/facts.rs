//! What is asked for, when, and of which stages; and what configs become of the answers.

use std::collections::BTreeMap;

use dockerfile::{
    Answer, Fact, Facts, GitAddress, LayoutVersion, Lowering, MainContext, NamedContext, NoCache, Request,
    lower,
};
use graph::{Op, Source};
use oci::{Epoch, Platform};

use crate::support::{amd64, answer, lower_rounds, lowered, refused};

/// The needs of each round, as text with the place that asks.
fn rounds(text: &str, request: &Request) -> Vec<Vec<String>> {
    let file = dockerfile_parser::parse(text.as_bytes()).expect("the text can be read");
    let mut facts = Facts::new();
    let mut rounds = Vec::new();
    loop {
        match lower(&file, request, &facts).expect("it can be lowered") {
            Lowering::Done(_) => return rounds,
            Lowering::Needs(needs) => {
                let line = |(fact, span): (&Fact, &dockerfile_parser::Span)| {
                    format!("{fact} at {}", &text[span.range()])
                };
                rounds.push(needs.iter().map(line).collect());
                facts.extend(needs.into_keys().map(|fact| (fact.clone(), answer(&fact))));
            }
        }
    }
}

#[test]
fn only_what_is_needed_is_asked_for_and_all_at_once() {
    let text = "FROM unused AS u\nFROM one AS a\nFROM --platform=linux/arm64 two AS b\nCOPY --from=three / /\n\
                FROM a\nCOPY --from=b /x /x\nRUN --mount=from=four,target=/m y\n";
    let expected = [vec![
        "docker.io/library/four:latest for linux/amd64 at RUN --mount=from=four,target=/m y",
        "docker.io/library/one:latest for linux/amd64 at one",
        // A source is taken for the platform that is built for, whatever its stage's.
        "docker.io/library/three:latest for linux/amd64 at COPY --from=three / /",
        "docker.io/library/two:latest for linux/arm64 at two",
    ]];
    assert_eq!(rounds(text, &Request::new(amd64())), expected);
    let target = Request { target: Some("A".to_owned()), ..Request::new(amd64()) };
    assert_eq!(rounds(text, &target), [["docker.io/library/one:latest for linux/amd64 at one"]]);
}

#[test]
fn a_stage_that_is_not_needed_may_look_down() {
    let text = "FROM one AS a\nCOPY --from=b /x /x\nRUN --mount=from=1,target=/m y\nFROM two AS b\n";
    let request = Request::new(amd64());
    assert_eq!(rounds(text, &request), [["docker.io/library/two:latest for linux/amd64 at two"]]);
    let target = Request { target: Some("a".to_owned()), ..request };
    assert_eq!(refused(text, &target).code(), "copy-from-later-stage");
}

#[test]
fn triggers_of_a_base_may_need_more() {
    let text = "FROM toolbox AS tools\nFROM onbuild\nARG A=1\n";
    let expected = [
        ["docker.io/library/onbuild:latest for linux/amd64 at onbuild"],
        ["docker.io/library/toolbox:latest for linux/amd64 at toolbox"],
    ];
    assert_eq!(rounds(text, &Request::new(amd64())), expected);
    let image = &lowered(text, &Request::new(amd64())).images[&amd64()];
    assert!(image.config.config.on_build.is_empty(), "they have fired");
    let texts: Vec<_> = image.config.history.iter().filter_map(|entry| entry.created_by.as_deref()).collect();
    // A trigger runs before the stage's own instructions.
    assert_eq!(
        texts[2..],
        ["COPY /bin/tool /bin/ # buildkit", "RUN /bin/sh -c tool $A # buildkit", "ARG A=1"]
    );
}

#[test]
fn named_contexts_hide_images_and_stages() {
    let text = "FROM base AS a\nRUN x\nFROM b\nCOPY --from=a / /\n";
    let mut request = Request::new(amd64());
    let version = LayoutVersion::Tag("t".to_owned());
    request
        .named_contexts
        .insert("b".to_owned(), NamedContext::OciLayout { store: "/s".to_owned(), version });
    request.named_contexts.insert("a".to_owned(), NamedContext::Local { ignore: Vec::new() });
    assert_eq!(rounds(text, &request), [["/s:t for linux/amd64 at b"]]);
    request.named_contexts.insert("a".to_owned(), NamedContext::Scratch);
    request.named_contexts.insert("b".to_owned(), NamedContext::Scratch);
    assert_eq!(rounds(text, &request), Vec::<Vec<String>>::new());
}

#[test]
fn configs_are_made_anew_and_complete() {
    let text = "FROM base AS b\nENV V=1 W=$GIVEN\nARG V=2 GIVEN\nENV X=$V\nUSER u:g\nWORKDIR /w/\nWORKDIR d/\nEXPOSE 80 90-91/UDP\n\
                VOLUME [\"/a\", \"/b c\"]\nHEALTHCHECK --interval=90s --retries=3 CMD [\"t\", \"x y\"]\nONBUILD RUN t\n\
                CMD []\nLABEL a=b\n";
    let mut request = Request::new(amd64());
    request.labels = BTreeMap::from([("a".to_owned(), "cli".to_owned())]);
    let image = &lowered(text, &request).images[&amd64()];
    let expected = r#"{"architecture":"amd64","config":{"ArgsEscaped":true,"Env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin","V=1","W=","X=2"],"ExposedPorts":{"80/tcp":{},"90/udp":{},"91/udp":{}},"Healthcheck":{"Interval":90000000000,"Retries":3,"Test":["CMD","t","x y"]},"Labels":{"a":"cli"},"OnBuild":["RUN t"],"User":"u:g","Volumes":{"/a":{},"/b c":{}},"WorkingDir":"/w/d"}"#;
    let bytes = String::from_utf8(image.config.bytes()).expect("JSON");
    assert!(bytes.starts_with(expected), "{bytes}");
    // The base's own time and cache are not the image's.
    assert!(image.config.created.is_none() && image.config.extra.is_empty());
    let texts: Vec<_> = image.config.history.iter().filter_map(|entry| entry.created_by.as_deref()).collect();
    assert_eq!(
        texts[2..],
        [
            "ENV V=1 W=",
            "ARG V=2 GIVEN",
            "ENV X=2",
            "USER u:g",
            "WORKDIR /w/",
            "WORKDIR /w/d",
            "EXPOSE [80/tcp 90/udp 91/udp]",
            "VOLUME [/a /b c]",
            "HEALTHCHECK {Test:[CMD t x y] Interval:1m30s Timeout:0s StartPeriod:0s StartInterval:0s Retries:3}",
            "CMD []",
            "LABEL a=b",
        ]
    );
}

#[test]
fn an_image_without_layers_is_an_empty_tree_with_a_config() {
    let lowered = lowered("FROM empty\nENV A=1\n", &Request::new(amd64()));
    let image = &lowered.images[&amd64()];
    assert!(lowered.graph.is_empty() && image.edge.is_none() && image.base_layers == 0);
    assert_eq!(image.config.config.cmd, Some(vec!["sh".to_owned()]));
    assert_eq!(lowered.pinned.len(), 1);
}

#[test]
fn platforms_share_what_does_not_depend_on_them() {
    let arm64: Platform = "linux/arm64".parse().expect("a platform");
    let mut request = Request::new(amd64());
    request.platforms = vec![amd64(), arm64.clone()];
    let text = "FROM --platform=$BUILDPLATFORM go AS build\nRUN make\nFROM base\nCOPY --from=build /x /x\n";
    let lowered = lowered(text, &request);
    // go, make, and for each platform a base and a copy.
    assert_eq!(lowered.graph.len(), 6);
    for platform in [amd64(), arm64] {
        assert_eq!(lowered.images[&platform].config.platform(), platform);
    }
    let cross = "FROM --platform=$BUILDPLATFORM go AS build\nARG TARGETARCH\nRUN make\nFROM base\nCOPY --from=build /x /x\n";
    assert_eq!(crate::support::lowered(cross, &request).graph.len(), 7);
}

#[test]
fn the_platform_of_a_lone_image_is_its_own_unless_one_was_asked_for() {
    let mut request = Request::new(amd64());
    let config =
        |request: &Request| lowered("FROM arm\n", request).images[&amd64()].config.platform().to_string();
    assert_eq!(config(&request), "linux/arm64");
    request.platforms = vec![amd64()];
    assert_eq!(config(&request), "linux/amd64");
}

#[test]
fn a_step_is_for_the_platform_of_its_stage() {
    let platforms = |text: &str, request: &Request| -> Vec<String> {
        let graph = lowered(text, request).graph;
        let exec = |id| match &graph.vertex(id).op {
            Op::Exec(exec) => Some(exec.platform.to_string()),
            _ => None,
        };
        graph.ids().filter_map(exec).collect()
    };
    let mut request = Request::new(amd64());
    // Nobody asked, and the image has another one.
    assert_eq!(platforms("FROM arm\nRUN x\n", &request), ["linux/arm64"]);
    assert_eq!(platforms("FROM --platform=linux/386 base\nRUN x\n", &request), ["linux/386"]);
    request.platforms = vec!["linux/s390x".parse().expect("a platform"), amd64()];
    assert_eq!(platforms("FROM base\nRUN x\n", &request), ["linux/s390x", "linux/amd64"]);
    assert_eq!(platforms("FROM --platform=$BUILDPLATFORM base\nRUN x\n", &request), ["linux/amd64"]);
    // The empty tree is for the target, whatever its `FROM` says; and so is each step on it.
    let text = "FROM --platform=$BUILDPLATFORM scratch\nRUN x\n";
    assert_eq!(platforms(text, &request), ["linux/s390x", "linux/amd64"]);
    assert_eq!(lowered(text, &request).platforms, request.platforms);
}

#[test]
fn an_index_is_made_of_several_platforms_or_where_it_is_wanted() {
    let several = |platforms: &[&str], argument: Option<&str>| {
        let mut request = Request::new(amd64());
        request.platforms = platforms.iter().map(|text| text.parse().expect("a platform")).collect();
        let argument = argument.map(|value| ("BUILDKIT_MULTI_PLATFORM".to_owned(), value.to_owned()));
        request.build_args.extend(argument);
        lowered("FROM scratch\n", &request).several_platforms
    };
    assert!(!several(&[], None) && !several(&["linux/arm64", "arm64"], None) && !several(&[], Some("0")));
    assert!(several(&["linux/arm64", "linux/amd64"], None) && several(&[], Some("true")));
}

#[test]
fn no_cache_is_told_stage_by_stage() {
    let text = "FROM base AS a\nRUN x\nFROM base AS b\nRUN y\nWORKDIR /w\nCOPY --from=a / /\n";
    let ignoring = |no_cache| {
        let request = Request { no_cache, ..Request::new(amd64()) };
        let graph = lowered(text, &request).graph;
        graph.ids().filter(|id| graph.vertex(*id).about.ignore_cache).count()
    };
    assert_eq!(ignoring(NoCache::None), 0);
    assert_eq!(ignoring(NoCache::All), 3);
    assert_eq!(ignoring(NoCache::Stages(vec!["A".to_owned()])), 1);
}

#[test]
fn source_date_epoch_comes_from_the_nearest() {
    let mut request = Request::new(amd64());
    let epoch = |text: &str, request: &Request| lowered(text, request).source_date_epoch;
    assert_eq!(epoch("FROM base\n", &request), None);
    assert_eq!(epoch("ARG SOURCE_DATE_EPOCH=2\nFROM base\n", &request), Some(Epoch(2)));
    assert_eq!(epoch("ARG SOURCE_DATE_EPOCH=context\nFROM base\n", &request), None);
    request.build_args.insert("SOURCE_DATE_EPOCH".to_owned(), "3".to_owned());
    assert_eq!(epoch("ARG SOURCE_DATE_EPOCH=2\nFROM base\n", &request), Some(Epoch(3)));
}

/// What is asked for before anything else, and what comes of the answer `time`.
fn dated(text: &str, request: &Request, time: Option<Epoch>) -> (Option<Source>, Option<Epoch>, Vec<String>) {
    let file = dockerfile_parser::parse(text.as_bytes()).expect("the text can be read");
    let (mut facts, mut asked) = (Facts::new(), None);
    loop {
        let needs = match lower(&file, request, &facts).expect("it can be lowered") {
            Lowering::Done(lowered) => {
                let env = lowered.images[&amd64()].config.config.env.clone();
                return (asked, lowered.source_date_epoch, env);
            }
            Lowering::Needs(needs) => needs,
        };
        for fact in needs.into_keys() {
            match &fact {
                Fact::Time(source) => {
                    asked = Some((**source).clone());
                    facts.insert(fact, Answer::Time(time));
                }
                _ => {
                    let image = answer(&fact);
                    facts.insert(fact, image);
                }
            }
        }
    }
}

#[test]
fn a_time_is_asked_of_the_source_that_is_named() {
    let text = "FROM base\nARG SOURCE_DATE_EPOCH\nENV T=$SOURCE_DATE_EPOCH\n";
    let git = || GitAddress::parse("git://h/x#v1").expect("git").expect("well-formed");
    let download = |url: &str| NamedContext::Http(url.to_owned());
    let mut request = Request::new(amd64());
    request.named_contexts.extend([
        ("repository".to_owned(), NamedContext::Git("git://h/x#v1".to_owned())),
        ("file".to_owned(), download("https://h/f")),
        ("folder".to_owned(), NamedContext::Local { ignore: Vec::new() }),
    ]);
    let mut ask = |value: &str, context: MainContext| {
        request.context = context;
        request.build_args.insert("SOURCE_DATE_EPOCH".to_owned(), value.to_owned());
        dated(text, &request, Some(Epoch(7)))
    };
    for (value, context, asks) in [
        ("context", MainContext::Git(git()), "Git("),
        ("context", MainContext::HttpArchive("https://h/a.tar".to_owned()), "https://h/a.tar"),
        ("context", MainContext::HttpFile("https://h/d".to_owned()), "https://h/d"),
        ("context", MainContext::Archive, "Local("),
        ("repository", MainContext::Local, "Git("),
        ("file", MainContext::Local, "https://h/f"),
    ] {
        let (asked, epoch, env) = ask(value, context);
        assert!(format!("{asked:?}").contains(asks), "{value}: {asked:?}");
        assert_eq!((epoch, env.last().map(String::as_str)), (Some(Epoch(7)), Some("T=7")), "{value}");
    }
    for (value, context) in [("context", MainContext::Local), ("folder", MainContext::Local)] {
        let (asked, epoch, env) = ask(value, context);
        assert_eq!((asked, epoch, env.last().map(String::as_str)), (None, None, Some("T=")), "{value}");
    }
    // A source without a time leaves none.
    assert_eq!(dated(text, &request, None).1, None);
}

#[test]
fn a_stage_that_only_downloads_gives_its_time() {
    let stage = |body: &str| {
        format!(
            "ARG V=2\nARG SOURCE_DATE_EPOCH=Clock\nFROM scratch AS clock\n{body}\nFROM base:$SOURCE_DATE_EPOCH\n"
        )
    };
    let request = Request::new(amd64());
    let (asked, epoch, _) = dated(&stage("ARG V\nARG W=w\nADD https://h/$V/$W /x"), &request, Some(Epoch(9)));
    assert!(format!("{asked:?}").contains("https://h/2/w"), "{asked:?}");
    assert_eq!(epoch, Some(Epoch(9)));
    let (asked, ..) = dated(&stage("ADD https://h/x.git#v1 /x"), &request, Some(Epoch(9)));
    assert!(matches!(asked, Some(Source::Git(_))), "{asked:?}");
    for (body, why) in [
        ("", "downloads nothing"),
        ("ADD https://h/a https://h/b /x/", "more than one"),
        ("ADD a /x", "neither a repository nor a file over http"),
        ("ADD https://h/a /x\nADD https://h/b /x", "a second `ADD`"),
        ("ADD https://h/a /x\nRUN y", "holds more"),
    ] {
        let error = refused(&stage(body), &request);
        assert_eq!(error.code(), "invalid-source-date-epoch");
        assert!(error.to_string().contains(why) && error.span.is_some(), "{error}");
    }
    let on_image = "ARG SOURCE_DATE_EPOCH=a\nFROM base AS a\nADD https://h/x /\n";
    assert!(refused(on_image, &request).to_string().contains("stands on an image"));
    let nothing = refused("ARG SOURCE_DATE_EPOCH=nothing\nFROM base\n", &request);
    assert_eq!((nothing.code(), nothing.span.is_some()), ("invalid-source-date-epoch", true));
}

#[test]
fn a_thousand_stages_are_no_depth() {
    let mut text = "FROM base AS s0\n".to_owned();
    for stage in 1..1000 {
        text.push_str(&format!("FROM s{} AS s{stage}\nENV A{stage}=1\n", stage - 1));
    }
    let (lowered, rounds) = lower_rounds(&text, &Request::new(amd64())).expect("it can be lowered");
    assert_eq!((lowered.graph.len(), rounds), (1, 1));
}
