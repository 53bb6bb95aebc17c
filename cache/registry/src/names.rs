//! Which addresses a host name has, without the C library.
//!
//! A static program has no name service switch, so names are asked for by a resolver in this process. It reads
//! `/etc/resolv.conf` and `/etc/hosts` by itself, with two habits that are undone here: a name whose
//! `/etc/hosts` line has an IPv4 address only is still asked for over the network for its IPv6 one, which
//! hangs on a machine without a name server; and where no name server is configured it asks a public one,
//! telling a stranger the names of private hosts.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use reqwest::{
    ClientBuilder,
    dns::{Name, Resolve, Resolving},
};

/// Makes the client know `/etc/hosts` and `localhost`, and ask a name server only where one is configured.
pub(crate) fn configure(builder: ClientBuilder) -> ClientBuilder {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let known = hosts(&read("/etc/hosts"));
    let builder = known.into_iter().fold(builder, |builder, (name, addresses)| {
        let addresses: Vec<SocketAddr> = addresses.into_iter().map(|address| (address, 0).into()).collect();
        builder.resolve_to_addrs(&name, &addresses)
    });
    if has_name_server(&read("/etc/resolv.conf")) { builder } else { builder.dns_resolver(NoNameServer) }
}

/// The addresses of each name in a hosts file (hosts(5)), and of `localhost` where the file does not tell.
fn hosts(text: &str) -> BTreeMap<String, Vec<IpAddr>> {
    let mut hosts: BTreeMap<String, Vec<IpAddr>> = BTreeMap::new();
    for line in text.lines() {
        let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
        let Some(address) = words.next().and_then(|word| word.parse().ok()) else { continue };
        for name in words {
            hosts.entry(name.to_ascii_lowercase()).or_default().push(address);
        }
    }
    let loopback = || vec![IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    hosts.entry("localhost".to_owned()).or_insert_with(loopback);
    hosts
}

/// Whether a resolv.conf(5) names a server.
fn has_name_server(text: &str) -> bool {
    text.lines().any(|line| {
        let mut words = line.split_whitespace();
        words.next() == Some("nameserver") && words.next().is_some()
    })
}

/// Knows no name.
struct NoNameServer;

impl Resolve for NoNameServer {
    fn resolve(&self, name: Name) -> Resolving {
        let why = format!(
            "`{}` is not in /etc/hosts, and /etc/resolv.conf is missing or names no server",
            name.as_str()
        );
        Box::pin(async move { Err(why.into()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hosts_file_is_read() {
        let hosts =
            hosts("127.0.0.1 localhost vm # me\n\n::1 localhost\n10.0.0.1 Registry.lab\nbad line\n# x\n");
        let of = |name: &str| hosts.get(name).cloned().unwrap_or_default();
        assert_eq!(of("localhost"), [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)]);
        assert_eq!(of("registry.lab").len(), 1);
        assert!(of("line").is_empty());
    }

    #[test]
    fn localhost_is_known_without_a_file() {
        assert_eq!(hosts("").get("localhost").map(Vec::len), Some(2));
    }

    #[tokio::test]
    async fn without_a_name_server_the_name_is_told() {
        let name = "registry.example".parse().expect("a name");
        let error = NoNameServer.resolve(name).await.err().expect("nobody was asked");
        assert!(error.to_string().contains("`registry.example` is not in /etc/hosts"), "{error}");
    }

    #[test]
    fn a_name_server_is_seen() {
        for (text, has) in [
            ("nameserver 10.0.0.1\n", true),
            ("search lab\nnameserver\t::1", true),
            ("# nameserver 10.0.0.1\nnameserver\n", false),
            ("", false),
        ] {
            assert_eq!(has_name_server(text), has, "{text}");
        }
    }
}
