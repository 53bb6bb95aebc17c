//! What stands above the first `FROM`, for one platform.

use std::collections::BTreeMap;

use dockerfile_parser::{Dockerfile, Word};
use oci::Platform;

use crate::{
    LowerError, Request,
    variables::{Variables, predefined},
    words::Words,
};

/// The arguments that `FROM` lines see: predefined ones, and the `ARG`s above the first `FROM`.
///
/// `build_args` are those of the request, or none, to see what the defaults come to.
pub(crate) fn globals(
    file: &Dockerfile,
    request: &Request,
    build_args: &BTreeMap<String, String>,
    platform: &Platform,
    words: &Words,
) -> Result<Variables, LowerError> {
    let name = match request.target.as_deref().filter(|name| !name.is_empty()) {
        Some(name) => Some(name),
        None => file.stages.last().and_then(|stage| stage.name()),
    };
    let mut globals = predefined(request, platform, name);
    for arg in file.global_args.iter().flat_map(|node| &node.value.names) {
        let name: &Word = &arg.name;
        let value = match (build_args.get(&name.text), &arg.value) {
            (Some(value), _) => Some(value.clone()),
            (None, Some(default)) => Some(words.global_default(&globals, default)?),
            (None, None) => None,
        };
        if let Some(value) = value {
            globals.set(&name.text, &value);
        }
    }
    Ok(globals)
}
