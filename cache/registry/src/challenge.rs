//! What a 401 asks for: the `WWW-Authenticate` header (RFC 9110, § 11.6.1; RFC 6750, § 3; the distribution
//! project's token authentication).

/// A way to log in that a server offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// Name and password with each request.
    Basic,
    /// A token from the server at `realm`.
    Bearer {
        /// Address of the token server.
        realm: String,
        /// What the token is for, when told.
        service: Option<String>,
        /// Which rights it must carry, when told: scopes, separated by spaces.
        scope: Option<String>,
    },
}

/// The challenges of a header's value, in order. Schemes that we do not speak, and a bearer challenge
/// without a realm, are left out.
pub(crate) fn parse(header: &str) -> Vec<Challenge> {
    let mut rest = header;
    let mut challenges = Vec::new();
    while let Some((scheme, parameters, after)) = next(rest) {
        rest = after;
        let value = |name: &str| {
            let found = parameters.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.clone()).filter(|value| !value.is_empty())
        };
        if scheme.eq_ignore_ascii_case("basic") {
            challenges.push(Challenge::Basic);
        } else if scheme.eq_ignore_ascii_case("bearer")
            && let Some(realm) = value("realm")
        {
            challenges.push(Challenge::Bearer { realm, service: value("service"), scope: value("scope") });
        }
    }
    challenges
}

type Parameters = Vec<(String, String)>;

/// The first challenge of `text`, and what follows it. Commas separate parameters and challenges alike: a
/// word with no
/// `=` behind it begins the next challenge.
fn next(text: &str) -> Option<(&str, Parameters, &str)> {
    let text = text.trim_start_matches([' ', '\t', ',']);
    let end = text.find(|c: char| !is_token(c)).unwrap_or(text.len());
    if end == 0 {
        return None;
    }
    let (scheme, mut rest) = text.split_at(end);
    let mut parameters = Parameters::new();
    while let Some((name, value, after)) = parameter(rest) {
        parameters.push((name, value));
        rest = after;
    }
    Some((scheme, parameters, rest))
}

/// `name=value` or `name="value"` at the front of `text`, and what follows it.
fn parameter(text: &str) -> Option<(String, String, &str)> {
    let text = text.trim_start_matches([' ', '\t', ',']);
    let end = text.find(|c: char| !is_token(c))?;
    let (name, rest) = text.split_at(end);
    let rest = rest.trim_start_matches([' ', '\t']).strip_prefix('=')?.trim_start_matches([' ', '\t']);
    if name.is_empty() {
        return None;
    }
    let Some(quoted) = rest.strip_prefix('"') else {
        let end = rest.find([' ', '\t', ',']).unwrap_or(rest.len());
        return Some((name.to_owned(), rest[..end].to_owned(), &rest[end..]));
    };
    let mut value = String::new();
    let mut letters = quoted.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return Some((name.to_owned(), value, &quoted[at + 1..])),
            '\\' => value.extend(letters.next().map(|(_, escaped)| escaped)),
            other => value.push(other),
        }
    }
    None
}

fn is_token(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Challenge {
        Challenge::Bearer {
            realm: realm.into(),
            service: service.map(Into::into),
            scope: scope.map(Into::into),
        }
    }

    #[test]
    fn challenges_are_read() {
        for (header, challenges) in [
            (
                r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/alpine:pull""#,
                vec![bearer(
                    "https://auth.docker.io/token",
                    Some("registry.docker.io"),
                    Some("repository:library/alpine:pull"),
                )],
            ),
            (r#"bearer realm=https://a/t , service=s"#, vec![bearer("https://a/t", Some("s"), None)]),
            (r#"Basic realm="Registry Realm""#, vec![Challenge::Basic]),
            (r#"Basic"#, vec![Challenge::Basic]),
            (
                r#"Negotiate, Basic realm="a, b", Bearer realm="\"q\"",scope="x:a,b""#,
                vec![Challenge::Basic, bearer("\"q\"", None, Some("x:a,b"))],
            ),
            (r#"Bearer service="no realm""#, vec![]),
            (r#"Bearer realm="unclosed"#, vec![]),
            ("", vec![]),
            ("=,=", vec![]),
        ] {
            assert_eq!(parse(header), challenges, "{header}");
        }
    }

    proptest! {
        #[test]
        fn no_header_is_too_strange(header in ".*") {
            parse(&header);
        }

        #[test]
        fn a_quoted_realm_is_read_back(realm in "[ -~]+") {
            let quoted = realm.replace('\\', "\\\\").replace('"', "\\\"");
            prop_assert_eq!(parse(&format!("Bearer realm=\"{quoted}\"")), vec![bearer(&realm, None, None)]);
        }
    }
}
