//! Addresses as people may see them, and as they may be kept.

/// An address without what logs in. Over http that is all that stands before the host: tokens are written as the user's name, too. Elsewhere
/// the user is a part of the name (`ssh://git@host/path`), and stays where there is no password.
pub fn shown(address: &str) -> String {
    match split(address) {
        Some((scheme, login, rest)) if is_web(scheme) || login.contains(':') => format!("{scheme}://{rest}"),
        _ => address.to_owned(),
    }
}

/// The login of an http address.
pub(crate) fn login(address: &str) -> Option<&str> {
    split(address).filter(|(scheme, ..)| is_web(scheme)).map(|(_, login, _)| login)
}

fn is_web(scheme: &str) -> bool {
    ["http", "https"].iter().any(|web| scheme.eq_ignore_ascii_case(web))
}

/// Scheme, login, and the rest from the host on.
fn split(address: &str) -> Option<(&str, &str, &str)> {
    let (scheme, rest) = address.split_once("://")?;
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let at = rest[..end].rfind('@')?;
    Some((scheme, &rest[..at], &rest[at + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logins_are_taken_out() {
        for (address, seen, taken) in [
            ("https://u:p@h/x.git", "https://h/x.git", Some("u:p")),
            ("https://token@h/x@y", "https://h/x@y", Some("token")),
            ("HTTP://token@h", "HTTP://h", Some("token")),
            ("ssh://git@h/x", "ssh://git@h/x", None),
            ("ssh://git:p@h/x", "ssh://h/x", None),
            ("git@h:x", "git@h:x", None),
            ("http://h", "http://h", None),
        ] {
            assert_eq!((shown(address).as_str(), login(address)), (seen, taken), "{address}");
        }
    }
}
