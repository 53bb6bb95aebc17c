//! What the tests of this crate have in common: reading, the base image `busybox`, and lowering until nothing is needed.

use std::sync::Arc;

use dockerfile::{
    Fact, Facts, ImageFact, LowerError, Lowered, Lowering, Request,
    lint::{Checking, check},
    lower,
};
use oci::{Digest, ImageConfig, Platform};

/// `linux/amd64`.
pub fn amd64() -> Platform {
    Platform::new("linux", "amd64", None)
}

/// The config of the images that the cases build on.
pub fn base_config(architecture: &str, on_build: &[&str]) -> ImageConfig {
    let on_build = serde_json::to_string(on_build).expect("strings are JSON");
    let text = format!(
        r#"{{"created":"2024-01-01T00:00:00Z","architecture":"{architecture}","os":"linux",
        "config":{{"Cmd":["sh"],"OnBuild":{on_build},
            "Env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]}},
        "rootfs":{{"type":"layers","diff_ids":[]}},"moby.buildkit.cache.v0":"x",
        "history":[{{"created_by":"/bin/sh -c #(nop) ADD file:rootfs in / "}},
                   {{"created_by":"/bin/sh -c #(nop)  CMD [\"sh\"]","empty_layer":true}}]}}"#
    );
    ImageConfig::parse(text.as_bytes()).expect("a config")
}

/// Answers as a registry would in which every image exists: `onbuild` with triggers, `empty` without layers, `arm`
/// for arm64 only, every other one like busybox.
pub fn answer(fact: &Fact) -> ImageFact {
    let manifest = Digest::of(fact.to_string().as_bytes());
    let (name, platform) = match fact {
        Fact::Image { reference, platform } => (reference.familiar(), platform),
        Fact::OciLayout { store, platform, .. } => (store.clone(), platform),
        Fact::Time(source) => panic!("a test answers by itself how old {source:?} is"),
    };
    let architecture = if name.starts_with("arm") { "arm64" } else { &platform.architecture };
    let triggers: &[&str] = match &*name {
        "onbuild:latest" => &["COPY --from=tools /bin/tool /bin/", "RUN tool $A"],
        _ => &[],
    };
    let layers = if name.starts_with("empty") { 0 } else { 1 };
    ImageFact { manifest, config: Arc::new(base_config(architecture, triggers)), layers }
}

/// Lowers a text, answering each round's needs; also says how many rounds there were.
pub fn lower_rounds(text: &str, request: &Request) -> Result<(Box<Lowered>, usize), LowerError> {
    let file = dockerfile_parser::parse(text.as_bytes()).expect("the text can be read");
    let mut facts = Facts::new();
    for round in 0..16 {
        match lower(&file, request, &facts)? {
            Lowering::Done(lowered) => return Ok((lowered, round)),
            Lowering::Needs(needs) => {
                facts.extend(needs.into_keys().map(|fact| (fact.clone(), answer(&fact))))
            }
        }
    }
    panic!("16 rounds were not enough");
}

/// Lowers a text that can be lowered.
pub fn lowered(text: &str, request: &Request) -> Box<Lowered> {
    match lower_rounds(text, request) {
        Ok((lowered, _)) => lowered,
        Err(error) => panic!("{error} at {:?}\n{text}", error.span),
    }
}

/// The error of a text that cannot be lowered.
pub fn refused(text: &str, request: &Request) -> LowerError {
    match lower_rounds(text, request) {
        Ok(_) => panic!("this was lowered:\n{text}"),
        Err(error) => error,
    }
}

/// Checks a text, answering each round's needs.
pub fn checked(text: &str, request: &Request) -> Checking {
    let file = dockerfile_parser::parse(text.as_bytes()).expect("the text can be read");
    let mut facts = Facts::new();
    for _ in 0..16 {
        let checking = check(&file, request, &facts);
        if checking.needs.is_empty() {
            return checking;
        }
        facts.extend(checking.needs.into_keys().map(|fact| (fact.clone(), answer(&fact))));
    }
    panic!("16 rounds were not enough");
}
