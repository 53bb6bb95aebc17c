use std::sync::Arc;

use oci::{Digest, ImageConfig, Platform};

use super::*;
use crate::ImageFact;

/// The outline of a file in which every base image has `ENV FROM_BASE=b` and one trigger.
fn of(text: &str, change: impl FnOnce(&mut Request)) -> Outline {
    let file = dockerfile_parser::parse(text.as_bytes()).expect("a Dockerfile");
    let mut request = Request::new(Platform::new("linux", "amd64", None));
    change(&mut request);
    let mut config = ImageConfig::default();
    config.config.env = vec!["FROM_BASE=b".to_owned()];
    config.config.on_build = vec!["RUN --mount=type=secret,id=triggered true".to_owned()];
    let image = ImageFact { manifest: Digest::of(b"m"), config: Arc::new(config), layers: 1 };
    let mut facts = Facts::new();
    loop {
        match outline(&file, &request, &facts).expect("it can be lowered") {
            Outlining::Needs(needs) => needs.into_keys().for_each(|fact| facts.insert(fact, image.clone())),
            Outlining::Done(outline) => return outline,
        }
    }
}

/// `name=value: description`, for each argument.
fn arguments(outline: &Outline) -> Vec<String> {
    let value = |used: &ArgumentUse| used.value.as_ref().map(|value| format!("={value}")).unwrap_or_default();
    let text = |used: &ArgumentUse| used.description.as_ref().map(|d| format!(": {d}")).unwrap_or_default();
    let shown = outline.arguments.iter().map(|used| format!("{}{}{}", used.name, value(used), text(used)));
    shown.collect()
}

fn ids(list: &[Needed]) -> Vec<String> {
    list.iter().map(|needed| format!("{}{}", needed.id, if needed.required { "!" } else { "" })).collect()
}

const FILE: &str = "\
# OS the distribution
ARG OS=debian
# TAG the release
ARG TAG=${OS}-12
ARG UNUSED=u
ARG BARE
# tools compilers
FROM base:$TAG AS tools
ARG JOBS=$FROM_BASE
RUN --mount=type=cache,target=/c --mount=type=secret,id=key,required true
FROM scratch AS other
ARG NOBODY=1
RUN --mount=type=ssh true
# app the program
FROM tools AS app
# JOBS at once
ARG JOBS=4
ARG OS
ARG BARE
ARG TARGETARCH
RUN --mount=type=secret,id=key --mount=type=ssh,required --mount=type=ssh,id=git true
COPY --from=tools / /
";

#[test]
fn what_the_target_and_its_stages_use() {
    let outline = of(FILE, |_| {});
    assert_eq!((outline.name.as_deref(), outline.description.as_deref()), (Some("app"), Some("the program")));
    // `JOBS` of the target hides that of the stage below; a bare `ARG OS` is the global one; `TARGETARCH` is no choice.
    assert_eq!(
        arguments(&outline),
        ["OS=debian: the distribution", "TAG=debian-12: the release", "JOBS=4: at once", "BARE"]
    );
    assert_eq!(ids(&outline.secrets), ["triggered", "key"]);
    assert_eq!(ids(&outline.ssh), ["default!", "git"]);
    assert_eq!(outline.caches.iter().map(|cache| &*cache.id).collect::<Vec<_>>(), ["/c"]);
}

#[test]
fn another_target_with_arguments() {
    let outline = of(FILE, |request| {
        request.target = Some("Tools".to_owned());
        request.build_args.insert("TAG".to_owned(), "edge".to_owned());
    });
    assert_eq!(outline.name.as_deref(), Some("tools"));
    assert_eq!(outline.description.as_deref(), Some("compilers"));
    // With `TAG` given, its default and the `OS` in it are not used.
    assert_eq!(arguments(&outline), ["TAG=edge: the release", "JOBS=b"]);
    assert_eq!(ids(&outline.secrets), ["triggered", "key!"]);
    assert_eq!(ids(&outline.ssh), Vec::<String>::new());
}

#[test]
fn a_stage_that_a_context_replaces_asks_for_nothing() {
    let outline = of(FILE, |request| {
        request.named_contexts.insert("tools".to_owned(), crate::NamedContext::Scratch);
    });
    assert_eq!(arguments(&outline), ["OS=debian: the distribution", "JOBS=4: at once", "BARE"]);
    assert_eq!(ids(&outline.secrets), ["key"]);
}

#[test]
fn a_file_that_takes_nothing() {
    assert_eq!(of("FROM scratch\n", |_| {}), Outline::default());
}
