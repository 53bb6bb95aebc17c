//! What Docker's `daemon.json` says about registries: `registry-mirrors`, which are Docker Hub's, and
//! `insecure-registries`.
//!
//! The rest of the file is for Docker alone and is not looked at.

use std::{fs, net::IpAddr, path::Path};

use serde::Deserialize;

use super::{
    bad_file::{BadFile, Problem},
    hosts_toml,
    rule::Site,
};

#[derive(Debug, Default)]
pub(crate) struct Daemon {
    pub mirrors: Vec<Site>,
    insecure: Vec<String>,
    networks: Vec<Network>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct File {
    #[serde(default)]
    registry_mirrors: Vec<String>,
    #[serde(default)]
    insecure_registries: Vec<String>,
}

/// Addresses that begin alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Network {
    address: IpAddr,
    bits: u32,
}

/// # Errors
/// The file is there and cannot be used.
pub(crate) fn read(path: &Path) -> Result<Daemon, BadFile> {
    let text = fs::read_to_string(path).map_err(|error| BadFile::unreadable(path, &error))?;
    parse(&text, path)
}

fn parse(text: &str, path: &Path) -> Result<Daemon, BadFile> {
    // Docker takes an empty file for an empty object.
    let text = if text.trim().is_empty() { "{}" } else { text };
    let file: File = serde_json::from_str(text).map_err(|error| BadFile::json(path, &error))?;
    let mut daemon = Daemon::default();
    for text in &file.registry_mirrors {
        let bad = || BadFile::new(path, Problem::Address { field: "registry-mirrors", text: text.clone() });
        daemon.mirrors.push(hosts_toml::site(text, false).ok_or_else(bad)?);
    }
    for text in file.insecure_registries {
        match Network::parse(&text) {
            Some(network) => daemon.networks.push(network),
            None => daemon
                .insecure
                .push(text.split_once("://").map_or(text.as_str(), |(_, rest)| rest).to_owned()),
        }
    }
    Ok(daemon)
}

impl Daemon {
    /// Whether a host's certificate is not checked. Names are not looked up for their addresses, as Docker would.
    pub(crate) fn insecure(&self, registry: &str) -> bool {
        let host = registry.rsplit_once(':').map_or(registry, |(host, _)| host);
        // With a port or without; one of IPv6 stands in brackets.
        let address =
            [registry, host].into_iter().find_map(|text| text.trim_matches(['[', ']']).parse().ok());
        self.insecure.iter().any(|name| name == registry)
            || address.is_some_and(|address| self.networks.iter().any(|network| network.holds(address)))
    }
}

impl Network {
    /// `10.0.0.0/8`.
    fn parse(text: &str) -> Option<Network> {
        let (address, bits) = text.split_once('/')?;
        let (address, bits): (IpAddr, u32) = (address.parse().ok()?, bits.parse().ok()?);
        let all = if address.is_ipv4() { 32 } else { 128 };
        (bits <= all).then_some(Network { address, bits })
    }

    fn holds(self, address: IpAddr) -> bool {
        let same = |difference: u128, all: u32| self.bits == 0 || difference >> (all - self.bits) == 0;
        match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => same(u128::from(own.to_bits() ^ other.to_bits()), 32),
            (IpAddr::V6(own), IpAddr::V6(other)) => same(own.to_bits() ^ other.to_bits(), 128),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Scheme;

    #[test]
    fn networks_and_names_are_insecure() {
        let text = r#"{"insecure-registries": ["lab:5000", "10.1.0.0/16", "fd00::/8", "http://old.lab"], "debug": true}"#;
        let daemon = parse(text, Path::new("/d")).expect("valid");
        for (registry, insecure) in [
            ("lab:5000", true),
            ("lab", false),
            ("old.lab", true),
            ("10.1.2.3", true),
            ("10.1.2.3:5000", true),
            ("10.2.2.3:5000", false),
            ("[fd12::1]:5000", true),
            ("[fd12::1]", true),
            ("[fe80::1]:5000", false),
        ] {
            assert_eq!(daemon.insecure(registry), insecure, "{registry}");
        }
        let all = parse(r#"{"insecure-registries": ["0.0.0.0/0"]}"#, Path::new("/d")).expect("valid");
        assert!(all.insecure("192.0.2.1:5000") && !all.insecure("name.example"));
    }

    #[test]
    fn mirrors_are_addresses() {
        let daemon =
            parse(r#"{"registry-mirrors": ["https://m.lab/", "http://10.0.0.1:5000"]}"#, Path::new("/d"));
        let mirrors = daemon.expect("valid").mirrors;
        let told: Vec<_> = mirrors.iter().map(|site| (site.scheme, site.place.as_str())).collect();
        assert_eq!(told, [(Some(Scheme::Https), "m.lab"), (Some(Scheme::Http), "10.0.0.1:5000")]);
        assert!(parse("", Path::new("/d")).expect("empty").mirrors.is_empty());
        for bad in [r#"{"registry-mirrors": ["ftp://x"]}"#, "[", r#"{"registry-mirrors": 1}"#] {
            assert!(parse(bad, Path::new("/d")).expect_err(bad).to_string().starts_with("/d"), "{bad}");
        }
    }
}
