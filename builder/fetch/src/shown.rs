//! Addresses as people may see them.

/// An address without the user and the password that stand before its host, where there is a password.
pub fn shown(address: &str) -> String {
    match split(address) {
        Some((scheme, login, rest)) if login.contains(':') => format!("{scheme}://{rest}"),
        _ => address.to_owned(),
    }
}

/// An http address without user and password, as it may be kept in a file. Other addresses, where the user is a part of the
/// name (`git@host:path`), stay as they are but for a password.
pub fn without_login(address: &str) -> String {
    match split(address) {
        Some((scheme, _, rest)) if scheme.starts_with("http") => format!("{scheme}://{rest}"),
        _ => shown(address),
    }
}

/// Scheme, login, and the rest from the host on.
fn split(address: &str) -> Option<(&str, &str, &str)> {
    let (scheme, rest) = address.split_once("://")?;
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let at = rest[..end].rfind('@')?;
    Some((scheme, &rest[..at], &rest[at + 1..]))
}

/// A text with every login of an address taken out: what a program said may repeat the address that it was given.
pub(crate) fn cleaned(text: &str, address: &str) -> String {
    let text: String = text.chars().filter(|c| !c.is_control() || *c == '\t').collect();
    match split(address) {
        Some((_, login, _)) if login.contains(':') => text.replace(&format!("{login}@"), ""),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logins_are_taken_out() {
        for (address, seen, kept) in [
            ("https://u:p@h/x.git", "https://h/x.git", "https://h/x.git"),
            ("https://u@h/x@y", "https://u@h/x@y", "https://h/x@y"),
            ("ssh://git@h/x", "ssh://git@h/x", "ssh://git@h/x"),
            ("git@h:x", "git@h:x", "git@h:x"),
            ("http://h", "http://h", "http://h"),
        ] {
            assert_eq!((shown(address).as_str(), without_login(address).as_str()), (seen, kept), "{address}");
        }
        assert_eq!(cleaned("fatal: https://u:p@h/x\u{1b}[2J", "https://u:p@h/x"), "fatal: https://h/x[2J");
    }
}
