//! Which language a file is in: ours, or one that another frontend reads.

use dockerfile_parser::{DirectiveName, Dockerfile, Span, detect_syntax};
use oci::Reference;

use crate::{ErrorKind, LowerError, Request};

/// Refuses a text in a language that is not the one built in, before it is read as if it were.
///
/// # Errors
/// `# syntax=`, `// syntax=`, a JSON object's `syntax`, or the request's `BUILDKIT_SYNTAX`, which goes first, names
/// another frontend.
pub fn check_frontend(source: &[u8], request: &Request) -> Result<(), LowerError> {
    let found = detect_syntax(source);
    check(found.as_ref().map(|syntax| (&*syntax.value, syntax.span)), request)
}

/// As [`check_frontend`], for a file that was read.
pub(crate) fn check_file(file: &Dockerfile, request: &Request) -> Result<(), LowerError> {
    let directive = file.directives.iter().find(|directive| directive.name == DirectiveName::Syntax);
    check(directive.map(|directive| (&*directive.value, directive.value_span)), request)
}

/// The language built in may come from a mirror under any host's name.
fn check(written: Option<(&str, Span)>, request: &Request) -> Result<(), LowerError> {
    let (text, span) = match (request.build_args.get("BUILDKIT_SYNTAX"), written) {
        (Some(text), _) => (&**text, None),
        (None, Some((text, span))) => (text, Some(span)),
        (None, None) => return Ok(()),
    };
    let frontend = text.split_whitespace().next().unwrap_or_default();
    let built_in = |repository: &str| {
        ["docker/dockerfile", "docker/dockerfile-upstream"].iter().any(|name| {
            repository == *name || repository.strip_suffix(name).is_some_and(|r| r.ends_with('/'))
        })
    };
    let known = Reference::parse(frontend).is_ok_and(|reference| built_in(&reference.repository));
    match known || matches!(frontend, "" | "dockerfile.v0") {
        true => Ok(()),
        false => Err(LowerError::new(ErrorKind::Frontend { frontend: frontend.to_owned() }, span)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_languages_are_named_before_they_are_read() {
        let mut request = Request::new("linux/amd64".parse().expect("a platform"));
        for (text, place) in [
            ("# syntax=a/pack:1\nkind: Build\n", Some("a/pack:1")),
            ("// syntax=a/pack\nlet x\n", Some("a/pack")),
            ("{\"syntax\": \"a/pack\"}", Some("\"a/pack\"")),
            ("# syntax=mirror.example/docker/dockerfile:1.9\nFROM a", None),
            ("// syntax=docker/dockerfile\nFROM a", None),
            ("FROM a", None),
        ] {
            let error = check_frontend(text.as_bytes(), &request).err();
            let span = error.and_then(|error| error.span);
            assert_eq!(span.map(|span| &text[span.range()]), place, "{text}");
        }
        request.build_args.insert("BUILDKIT_SYNTAX".to_owned(), "dockerfile.v0".to_owned());
        assert!(check_frontend(b"# syntax=a/pack", &request).is_ok());
    }
}
