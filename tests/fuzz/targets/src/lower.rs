//! Lowering: every file that can be read becomes a graph or one error, in the same way each time.

use std::sync::Arc;

use dockerfile::{
    Answer, Fact, Facts, ImageFact, Lowering, NamedContext, NoCache, Request, lower as lower_once, print,
};
use dockerfile_parser::{Dockerfile, parse};
use oci::{Digest, Epoch, ImageConfig, Platform};

/// Lowers a Dockerfile for two requests, a plain one and one with everything.
pub fn lower(data: &[u8]) {
    let Ok(file) = parse(data) else { return };
    for request in [Request::new(amd64()), everything()] {
        let first = outcome(&file, &request, data);
        assert_eq!(first, outcome(&file, &request, data), "twice lowered, two outcomes");
    }
}

fn amd64() -> Platform {
    Platform::new("linux", "amd64", None)
}

fn everything() -> Request {
    let mut request = Request::new(amd64());
    request.platforms = vec![amd64(), Platform::new("linux", "arm64", None)];
    request.no_cache = NoCache::All;
    request.build_args.insert("A".to_owned(), "given".to_owned());
    request.build_args.insert("SOURCE_DATE_EPOCH".to_owned(), "context".to_owned());
    request.labels.insert("l".to_owned(), "v".to_owned());
    request.named_contexts.insert("a".to_owned(), NamedContext::Local { ignore: vec!["*.o".to_owned()] });
    request.named_contexts.insert("base".to_owned(), NamedContext::Git("https://h/r.git#b:d".to_owned()));
    request.named_contexts.insert("busybox".to_owned(), NamedContext::Scratch);
    request
}

/// As a registry in which every image exists; `onbuild` has triggers, `empty` no layer.
fn answer(fact: &Fact) -> Answer {
    if let Fact::Time(_) = fact {
        return Answer::Time(Some(Epoch(1_700_000_000)));
    }
    let name = fact.to_string();
    let mut config = ImageConfig { os: "linux".to_owned(), ..ImageConfig::default() };
    config.architecture = if name.contains("arm") { "arm64" } else { "amd64" }.to_owned();
    config.config.env = vec!["PATH=/bin".to_owned(), "E=e".to_owned()];
    if name.contains("onbuild") {
        config.config.on_build = vec!["COPY --from=tools /t /".to_owned(), "RUN tool $A".to_owned()];
    }
    let layers = usize::from(!name.contains("empty"));
    Answer::Image(ImageFact { manifest: Digest::of(name.as_bytes()), config: Arc::new(config), layers })
}

/// All that comes of a file, as one digest.
fn outcome(file: &Dockerfile, request: &Request, data: &[u8]) -> Digest {
    let mut facts = Facts::new();
    // One round more than lowering itself allows.
    for _ in 0..17 {
        match lower_once(file, request, &facts) {
            Err(error) => {
                assert!(error.span.is_none_or(|span| span.end <= data.len()), "{error:?}");
                let text = format!("{} {error} {:?} {:?}", error.code(), error.span, error.help());
                return Digest::of(text.as_bytes());
            }
            Ok(Lowering::Needs(needs)) => {
                assert!(!needs.is_empty(), "nothing is needed, and it is not done");
                assert!(needs.keys().all(|fact| !facts.contains_key(fact)), "asked for again: {needs:?}");
                needs.into_keys().for_each(|fact| facts.insert(fact.clone(), answer(&fact)));
            }
            Ok(Lowering::Done(lowered)) => {
                let mut text = print::graph(&lowered.graph).into_bytes();
                for id in lowered.graph.ids() {
                    text.extend_from_slice(lowered.graph.digest(id).to_string().as_bytes());
                }
                for image in lowered.images.values() {
                    text.extend(image.config.bytes());
                }
                for warning in &lowered.warnings {
                    assert!(warning.span.end <= data.len(), "{warning:?}");
                    text.extend_from_slice(format!("{warning:?}").as_bytes());
                }
                return Digest::of(&text);
            }
        }
    }
    panic!("17 rounds were not enough");
}
