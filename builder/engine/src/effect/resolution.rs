//! `/etc/resolv.conf` of a step that has a network of its own: the host's, without what only the host reaches.

use std::net::IpAddr;

/// Asked where the host knows no server that a step could reach, as Docker does.
const PUBLIC: [&str; 2] = ["8.8.8.8", "8.8.4.4"];

/// What a step's file holds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Resolution {
    pub(crate) text: String,
    /// The host's servers, where none of them could be kept.
    pub(crate) unreachable: Vec<String>,
}

/// Makes a step's file of the host's. What the host alone reaches, a step reaches by asking `forwarder`, if there is one. `upstream` reads
/// what systemd-resolved itself asks, and is called where the host asks that.
pub(crate) fn resolution(
    host: &str,
    upstream: impl FnOnce() -> Option<String>,
    ipv6: bool,
    forwarder: Option<IpAddr>,
) -> Resolution {
    let reached = |text: &str| servers(text).any(|server| is_reached(server, ipv6));
    let through_resolved = servers(host).any(|server| server == "127.0.0.53");
    let upstream = if through_resolved { upstream() } else { None };
    let source = upstream.as_deref().filter(|upstream| reached(upstream)).unwrap_or(host);
    let is_kept = |line: &&str| server(line).is_none_or(|server| is_reached(server, ipv6));
    let mut text: String = source.lines().filter(is_kept).flat_map(|line| [line, "\n"]).collect();
    let mut unreachable = Vec::new();
    // It forwards to servers of its own address's family.
    let of_family = |server: &str| {
        let address = server.parse::<IpAddr>();
        address.is_ok_and(|address| forwarder.is_some_and(|it| it.is_ipv4() == address.is_ipv4()))
    };
    let is_forwarded = servers(host).any(of_family);
    if let (false, true, Some(forwarder)) = (reached(source), is_forwarded, forwarder) {
        text.push_str(&format!("nameserver {forwarder}\n"));
    } else if !reached(source) {
        text.extend(PUBLIC.map(|server| format!("nameserver {server}\n")));
        unreachable.extend(servers(source).map(str::to_owned));
    }
    Resolution { text, unreachable }
}

fn servers(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter_map(server)
}

fn server(line: &str) -> Option<&str> {
    let mut words = line.split_whitespace();
    (words.next() == Some("nameserver")).then(|| words.next()).flatten()
}

/// Whether a step reaches it: neither the host alone does, nor only those on the same wire.
fn is_reached(server: &str, ipv6: bool) -> bool {
    match server.parse::<IpAddr>() {
        Ok(IpAddr::V4(address)) => !address.is_loopback() && !address.is_unspecified(),
        Ok(IpAddr::V6(address)) => ipv6 && !address.is_loopback() && !address.is_unicast_link_local(),
        // With the name of an interface (`fe80::1%eth0`), or nothing that a resolver would take.
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_given_what_it_reaches() {
        let public = "nameserver 8.8.8.8\nnameserver 8.8.4.4\n";
        let resolved = "# stub\nnameserver 127.0.0.53\noptions edns0\nsearch lan\n";
        let without_stub = "# stub\noptions edns0\nsearch lan\nnameserver 8.8.8.8\nnameserver 8.8.4.4\n";
        let lan = "nameserver 10.0.0.3\nsearch lan\n";
        let cases = [
            ("nameserver 10.0.0.2\nsearch a b\n", None, false, "nameserver 10.0.0.2\nsearch a b\n", ""),
            ("nameserver ::1\nnameserver 10.0.0.2", None, false, "nameserver 10.0.0.2\n", ""),
            (resolved, Some(lan), false, lan, ""),
            (resolved, Some("search lan\n"), false, without_stub, "127.0.0.53"),
            // Another server of the host's own is not systemd-resolved.
            ("nameserver 127.0.0.1\n", Some(lan), false, public, "127.0.0.1"),
            ("nameserver fd00::2\n", None, true, "nameserver fd00::2\n", ""),
            ("nameserver fd00::2\n", None, false, public, "fd00::2"),
            ("nameserver fe80::1%eth0\n", None, true, public, "fe80::1%eth0"),
            ("", None, false, public, ""),
        ];
        for (host, upstream, ipv6, text, unreachable) in cases {
            let made = resolution(host, || upstream.map(str::to_owned), ipv6, None);
            assert_eq!(
                (made.text.as_str(), made.unreachable.join(" ").as_str()),
                (text, unreachable),
                "{host}"
            );
        }
    }

    #[test]
    fn who_forwards_is_asked_for_what_is_not_reached() {
        let forwarder = Some(IpAddr::from([10, 211, 1, 1]));
        let cases = [
            ("nameserver 10.0.0.2\n", "nameserver 10.0.0.2\n", 0),
            ("nameserver 127.0.0.1\nsearch a\n", "search a\nnameserver 10.211.1.1\n", 0),
            ("nameserver 127.0.0.53\n", "nameserver 10.211.1.1\n", 0),
            // It would have nobody to ask, or nobody that it can ask.
            ("nameserver ::1\n", "nameserver 8.8.8.8\nnameserver 8.8.4.4\n", 1),
            ("search a\n", "search a\nnameserver 8.8.8.8\nnameserver 8.8.4.4\n", 0),
        ];
        for (host, text, unreachable) in cases {
            let made = resolution(host, || None, false, forwarder);
            assert_eq!((made.text.as_str(), made.unreachable.len()), (text, unreachable), "{host}");
        }
    }
}
