//! The network of a step: a namespace that is made for the steps of a build, nothing, or the host's.

use std::{collections::BTreeSet, net::IpAddr};

use graph::{Exec, Network};
use sandbox::net::{Announced, Refusal, Unavailable};

use super::Effects;
use crate::error::Cause;

/// What comes of a network that was asked for.
pub(crate) struct Reached {
    /// What the sandbox is told.
    pub(crate) network: sandbox::Network,
    /// To be kept until nothing of the step runs any more; none where the step has no network of its own.
    pub(crate) own: Option<sandbox::net::Network>,
    /// Why the step has the host's, where it was not asked for.
    pub(crate) shared: Option<String>,
}

impl Effects {
    /// A step that wants this network is about to be prepared.
    pub(crate) fn announce_network(&self, wanted: Network) -> Option<Announced> {
        let has_namespaces = self.mode.isolation == sandbox::Isolation::Namespaces;
        (wanted == Network::Default && has_namespaces).then(|| self.networks.announce())
    }

    /// The network of a step; one that is given more rights than others gets one that nobody else will have. Where this
    /// machine has none to give it is the host's, which is said once.
    ///
    /// # Errors
    /// It has none any more.
    pub(crate) fn network(
        &self,
        wanted: Network,
        announced: Option<Announced>,
        is_trusted: bool,
    ) -> Result<Reached, Cause> {
        let reached = |network| Ok(Reached { network, own: None, shared: None });
        let announced = match (wanted, announced) {
            (Network::None, _) => return reached(sandbox::Network::None),
            (Network::Default, Some(announced)) => announced,
            (Network::Default | Network::Host, _) => return reached(sandbox::Network::Host),
        };
        match announced.take(is_trusted) {
            Ok(own) => {
                let network = sandbox::Network::Namespace(own.descriptor());
                Ok(Reached { network, own: Some(own), shared: None })
            }
            Err(unavailable) if unavailable.is_late => Err(Cause::NetworkLost(unavailable)),
            Err(unavailable) => {
                let message = shared(&unavailable);
                self.warn_once("shared-network", &message);
                Ok(Reached { network: sandbox::Network::Host, own: None, shared: Some(message) })
            }
        }
    }

    /// Says that a step will not reach its proxy, where that listens for the host alone.
    pub(crate) fn check_proxies(&self, exec: &Exec) {
        let proxies = exec.proxy_env.iter().filter(|(name, _)| !name.eq_ignore_ascii_case("no_proxy"));
        let unreachable: BTreeSet<&String> =
            proxies.map(|(_, value)| value).filter(|value| is_loopback(value)).collect();
        for proxy in unreachable {
            let place = place(proxy);
            let message = format!(
                "RUN steps do not reach the proxy at {place}, which is on the host's loopback; let it listen on another \
                 address, or build with --network=host"
            );
            self.warn_once("proxy-on-loopback", &message);
        }
    }
}

/// What is said where steps have the host's network.
fn shared(unavailable: &Unavailable) -> String {
    let mut ways: Vec<String> = Vec::new();
    let refusals = || unavailable.refusals.iter().map(|(_, refusal)| refusal);
    for refusal in refusals() {
        match refusal {
            // Of iptables: a rule in its table changes nothing for another's, such as firewalld's. Where only the policy is
            // in the way, they come last: what the others say goes first, such as that of Docker's networks none sees another.
            Refusal::Firewall { chain, by_policy } => {
                let place = if *by_policy { "-A" } else { "-I" };
                ways.extend(program_of(chain).map(|program| {
                    format!(
                        "run `{program} {place} FORWARD -i kiln+ -j ACCEPT && {program} {place} FORWARD -o kiln+ -j ACCEPT` \
                         to let them through"
                    )
                }));
            }
            Refusal::NotInstalled => ways.push("install pasta (package passt)".to_owned()),
            _ => {}
        }
    }
    if ways.is_empty() {
        ways.push("with --network=none they see none".to_owned());
    }
    let help = ways.join(", or ");
    format!("RUN steps see the host's network, its loopback included: {unavailable}; {help}")
}

/// What writes rules into a chain, where it is one of iptables.
fn program_of(chain: &str) -> Option<&'static str> {
    match chain {
        "chain FORWARD of table filter" => Some("iptables"),
        "chain FORWARD of iptables-legacy" => Some("iptables-legacy"),
        _ => None,
    }
}

/// Host and port of a proxy, without what may be secret.
fn place(proxy: &str) -> &str {
    let after_scheme = proxy.split_once("://").map_or(proxy, |(_, rest)| rest);
    let authority = after_scheme.split('/').next().unwrap_or_default();
    authority.rsplit_once('@').map_or(authority, |(_, place)| place)
}

/// Whether the address of a proxy is one of this host alone.
fn is_loopback(proxy: &str) -> bool {
    let place = place(proxy);
    let host = match place.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => place.split(':').next().unwrap_or_default(),
    };
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_known_in_every_form() {
        let table = [
            ("http://127.0.0.1:3128", true),
            ("127.8.9.1:1", true),
            ("http://user:pass@localhost:3128/", true),
            ("http://[::1]:80", true),
            ("http://proxy.corp:3128", false),
            ("http://10.0.0.1:3128", false),
            ("socks5://[fd00::1]:1", false),
            ("", false),
        ];
        for (proxy, expected) in table {
            assert_eq!(is_loopback(proxy), expected, "{proxy}");
        }
        assert_eq!(place("http://user:pass@localhost:3128/"), "localhost:3128");
    }
}
