//! Rules about `FROM`: what its arguments come to, and its platform.

use dockerfile_parser::{Dockerfile, Span, Stage, Word, expand::Expanded};
use oci::{Platform, Reference};

use super::{
    FROM_PLATFORM_FLAG_CONST_DISALLOWED, INVALID_BASE_IMAGE_PLATFORM, INVALID_DEFAULT_ARG_IN_FROM,
    REDUNDANT_TARGET_PLATFORM,
};
use crate::{
    Request, globals::globals, gotext::quoted, variables::Variables, warning::Warnings, words::Words,
};

/// Every `FROM` should name an image also where a build gives no arguments.
pub(crate) fn default_arguments(
    file: &Dockerfile,
    request: &Request,
    platform: &Platform,
    words: &mut Words,
) {
    // What cannot be expanded is an error of the build a moment later.
    let Ok(defaults) = globals(file, request, &Default::default(), platform, words) else { return };
    for stage in &file.stages {
        let image = &stage.from.value.image;
        let Ok(name) = words.global_default(&defaults, image) else { return };
        if Reference::parse(&name).is_err() {
            let written = &image.text;
            let message =
                format!("Default value for ARG {written} results in empty or invalid base image name");
            words.warnings.add(&INVALID_DEFAULT_ARG_IN_FROM, message, image.span);
        }
    }
}

/// `--platform` should neither be what it is without the flag, nor the same for every build.
pub(crate) fn platform(
    stage: &Stage,
    word: &Word,
    expanded: &Expanded,
    globals: &Variables,
    warnings: &mut Warnings,
) {
    let target = "TARGETPLATFORM";
    let only_target = expanded.used.len() == 1 && expanded.unset.is_empty() && expanded.used.contains(target);
    if only_target && globals.get(target) == Some(&expanded.text) {
        let message = format!(
            "Setting platform to predefined {} in FROM is redundant as this is the default behavior",
            word.text
        );
        warnings.add(&REDUNDANT_TARGET_PLATFORM, message, word.span);
    }
    if !expanded.used.is_empty() || !expanded.unset.is_empty() {
        return;
    }
    // One that is no platform is an error of the build a moment later.
    let Ok(platform) = expanded.text.parse::<Platform>() else { return };
    let name = stage.name().unwrap_or_default();
    // `FROM --platform=linux/arm64 … AS app-arm64` is meant for that one.
    if !name.contains(&platform.os) && !name.contains(&platform.architecture) {
        let message =
            format!("FROM --platform flag should not use constant value {}", quoted(&expanded.text));
        warnings.add(&FROM_PLATFORM_FLAG_CONST_DISALLOWED, message, word.span);
    }
}

/// A base image should be there for the platform that is wanted; where it is not, another one was taken.
pub(crate) fn base_platform(
    name: &str,
    wanted: &Platform,
    actual: &Platform,
    span: Span,
    warnings: &mut Warnings,
) {
    let same = actual.os == wanted.os && actual.architecture == wanted.architecture;
    if !same && !actual.architecture.is_empty() {
        let message = format!(
            "Base image {name} was pulled with platform \"{actual}\", expected \"{wanted}\" for current build"
        );
        warnings.add(&INVALID_BASE_IMAGE_PLATFORM, message, span);
    }
}
