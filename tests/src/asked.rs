//! What the frontend asks for: a case's Dockerfile lowered to a graph, as text. No program runs, no image is read.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use dockerfile::ignore::Ignore;
use dockerfile::{Facts, ImageFact, LayoutVersion, Lowering, NamedContext, Request, lower, print};
use oci::{Digest, ImageConfig, Platform};

/// The graph of the Dockerfile in `folder`, a case's, with what of `arguments` matters for it; `with_base` gives
/// `FROM busybox` an image. The machine is linux/amd64.
///
/// # Errors
/// The Dockerfile does not parse or lower; a fact is asked for that is not the base image.
pub fn graph(folder: &Path, arguments: &[String], with_base: bool) -> Result<String, String> {
    let text = fs::read(folder.join("Dockerfile")).map_err(|error| error.to_string())?;
    let file = dockerfile_parser::parse(&text).map_err(|errors| format!("{errors:?}"))?;
    let mut request = Request::new(Platform::new("linux", "amd64", None));
    read_arguments(arguments, &mut request)?;
    for place in ["Dockerfile.dockerignore", "context/.dockerignore"] {
        if let Ok(text) = fs::read(folder.join(place)) {
            request.ignore = Ignore::parse(&text).map_err(|error| error.to_string())?.patterns();
            break;
        }
    }
    let tag = LayoutVersion::Tag("busybox:latest".to_owned());
    if with_base {
        let context = NamedContext::OciLayout { store: "base".to_owned(), version: tag };
        request.named_contexts.insert("busybox".to_owned(), context);
    }
    let mut facts = Facts::new();
    loop {
        match lower(&file, &request, &facts).map_err(|error| error.to_string())? {
            Lowering::Done(lowered) => return Ok(print::graph(&lowered.graph)),
            Lowering::Needs(needs) if facts.is_empty() => {
                for fact in needs.into_keys() {
                    facts.insert(fact, base());
                }
            }
            Lowering::Needs(needs) => return Err(format!("asks again: {:?}", needs.keys())),
        }
    }
}

/// A base image that is always the same, whatever busybox the machine has.
fn base() -> ImageFact {
    let config = br#"{"architecture":"amd64","os":"linux","config":{"Env":["PATH=/bin"],"Cmd":["sh"]},
        "rootfs":{"type":"layers","diff_ids":[]},"history":[]}"#;
    let config = ImageConfig::parse(config).expect("written above");
    ImageFact { manifest: Digest::of(b"busybox"), config: Arc::new(config), layers: 1 }
}

fn read_arguments(arguments: &[String], request: &mut Request) -> Result<(), String> {
    for pair in arguments.windows(2) {
        let [flag, value] = pair else { continue };
        let insert = |into: &mut BTreeMap<String, String>| match value.split_once('=') {
            Some((name, value)) => {
                into.insert(name.to_owned(), value.to_owned());
                Ok(())
            }
            None => Err(format!("{flag} {value}: a case gives values")),
        };
        match flag.as_str() {
            "--target" => request.target = Some(value.clone()),
            "--build-arg" => insert(&mut request.build_args)?,
            "--label" => insert(&mut request.labels)?,
            "--platform" => {
                let platforms = value.split(',').map(str::parse).collect::<Result<Vec<Platform>, _>>();
                request.platforms.extend(platforms.map_err(|error| error.to_string())?);
            }
            "--build-context" => {
                let name = value.split('=').next().unwrap_or_default().to_owned();
                request.named_contexts.insert(name, NamedContext::Local { ignore: Vec::new() });
            }
            _ => {}
        }
    }
    Ok(())
}
