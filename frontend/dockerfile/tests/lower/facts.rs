//! What is asked for, when, and of which stages; and what configs become of the answers.

use std::collections::BTreeMap;

use dockerfile::{Fact, Facts, LayoutVersion, Lowering, NamedContext, NoCache, Request, lower};
use oci::{Epoch, Platform};

use crate::support::{amd64, answer, lower_rounds, lowered};

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
    let mut request = Request { source_date_epoch: Some(Epoch(1)), ..Request::new(amd64()) };
    let epoch = |text: &str, request: &Request| lowered(text, request).source_date_epoch;
    assert_eq!(epoch("FROM base\n", &request), Some(Epoch(1)));
    assert_eq!(epoch("ARG SOURCE_DATE_EPOCH=2\nFROM base\n", &request), Some(Epoch(2)));
    assert_eq!(epoch("ARG SOURCE_DATE_EPOCH=context\nFROM base\n", &request), Some(Epoch(1)));
    request.build_args.insert("SOURCE_DATE_EPOCH".to_owned(), "3".to_owned());
    assert_eq!(epoch("ARG SOURCE_DATE_EPOCH=2\nFROM base\n", &request), Some(Epoch(3)));
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
