//! Rules about the instructions that change the image's config.

use dockerfile_parser::{Span, instruction::Command};

use super::{
    EXPOSE_INVALID_FORMAT, EXPOSE_PROTO_CASING, JSON_ARGS_RECOMMENDED, LEGACY_KEY_VALUE_FORMAT,
    MULTIPLE_INSTRUCTIONS_DISALLOWED, SECRETS_USED_IN_ARG_OR_ENV, WORKDIR_RELATIVE_PATH,
};
use crate::{gotext::quoted, plan::Step, stage::Building, state::State, warning::Warnings};

/// Parts of a name, between underscores, that make it one of a secret.
const SECRET: [&str; 10] =
    ["apikey", "auth", "credential", "credentials", "key", "password", "passwd", "pword", "secret", "token"];

/// Parts of a name that make it one of something public all the same.
const PUBLIC: [&str; 3] = ["file", "public", "version"];

/// `ENV` and `LABEL` should be written with `=`.
pub(crate) fn legacy(step: &Step<'_>, legacy: bool, warnings: &mut Warnings) {
    if legacy {
        let keyword = step.keyword();
        let message = format!(
            "\"{keyword} key=value\" should be used instead of legacy \"{keyword} key value\" format"
        );
        warnings.add(&LEGACY_KEY_VALUE_FORMAT, message, step.span);
    }
}

/// A secret should not be the value of a variable, which stays in the image or its history.
pub(crate) fn secret(instruction: &str, name: &str, span: Span, warnings: &mut Warnings) {
    let has =
        |words: &[&str]| name.split('_').any(|part| words.iter().any(|word| word.eq_ignore_ascii_case(part)));
    if has(&SECRET) && !has(&PUBLIC) {
        let name = quoted(name);
        let message = format!("Do not use ARG or ENV instructions for sensitive data ({instruction} {name})");
        warnings.add(&SECRETS_USED_IN_ARG_OR_ENV, message, span);
    }
}

/// Of two `CMD`s, `ENTRYPOINT`s or `HEALTHCHECK`s in a stage the first does nothing.
pub(crate) fn once(building: &mut Building, step: &Step<'_>, warnings: &mut Warnings) {
    let keyword = step.keyword();
    if let Some(earlier) = building.latest.insert(step.instruction.keyword(), step.span) {
        let message = format!(
            "Multiple {keyword} instructions should not be used in the same stage because only the last one will be used"
        );
        warnings.add_by(&MULTIPLE_INSTRUCTIONS_DISALLOWED, message, earlier, step.span);
    }
}

/// `CMD` and `ENTRYPOINT` should be in exec form, unless the file chose a shell.
pub(crate) fn exec_form(state: &State, step: &Step<'_>, command: &Command, warnings: &mut Warnings) {
    let chosen = state.config.config.shell.as_ref().is_some_and(|shell| !shell.is_empty());
    if let (Command::Shell(word), false) = (command, chosen) {
        let message = format!(
            "JSON arguments recommended for {} to prevent unintended behavior related to OS signals",
            step.keyword()
        );
        let span = if word.span.is_empty() { step.span } else { word.span };
        warnings.add(&JSON_ARGS_RECOMMENDED, message, span);
    }
}

/// The first `WORKDIR` should not depend on where the base image stands. Inherited by stages on this one.
pub(crate) fn first_folder(state: &mut State, folder: &str, span: Span, warnings: &mut Warnings) {
    let mut letters = folder.chars();
    let drive =
        (letters.next().is_some_and(|c| c.is_ascii_alphabetic()), letters.next()) == (true, Some(':'));
    let absolute =
        folder.starts_with('/') || (state.config.os == "windows" && (folder.starts_with('\\') || drive));
    if !std::mem::replace(&mut state.has_folder, true) && !absolute {
        let message = format!(
            "Relative workdir {} can have unexpected results if the base image changes",
            quoted(folder)
        );
        warnings.add(&WORKDIR_RELATIVE_PATH, message, span);
    }
}

/// `EXPOSE` should name the container's port, and the protocol in lower case.
pub(crate) fn port(text: &str, span: Span, warnings: &mut Warnings) {
    let (before, container) = text.rsplit_once(':').unwrap_or(("", text));
    let protocol = container.split_once('/').map(|(_, protocol)| protocol).unwrap_or_default();
    if protocol != protocol.to_lowercase() {
        let message = format!("Defined protocol '{text}' in EXPOSE instruction should be lowercase");
        warnings.add(&EXPOSE_PROTO_CASING, message, span);
    }
    if before.split(':').any(|part| !part.is_empty()) {
        let message = format!(
            "EXPOSE instruction should not define an IP address or host-port mapping, found '{text}'"
        );
        warnings.add(&EXPOSE_INVALID_FORMAT, message, span);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::warning::Policy;

    #[test]
    fn names_of_secrets() {
        let named = |name: &str| {
            let mut warnings = Warnings::new(Policy::default());
            secret("ENV", name, Span::default(), &mut warnings);
            !warnings.finish().0.is_empty()
        };
        for name in ["KEY", "api_key", "API_KEY_1", "GITHUB_TOKEN", "auth", "MY_PASSWD", "_secret_", "APIKEY"]
        {
            assert!(named(name), "{name}");
        }
        for name in
            ["KEYBOARD", "MONKEY", "PUBLIC_KEY", "key_file", "TOKEN_VERSION", "authors", "PASSWORDS", ""]
        {
            assert!(!named(name), "{name}");
        }
    }
}
