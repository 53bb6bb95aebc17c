//! `--ulimit NAME=SOFT[:HARD]` with `--shm-size SIZE`, and `--add-host HOST:IP`.

use graph::{ExtraHost, Ulimit};

use super::{BadFlag, size_bytes};
use crate::arguments::ProcessLimits;

/// The limits of single processes, of each resource as it was said last, and the size of their `/dev/shm`.
pub fn process_limits(flags: &ProcessLimits) -> Result<(Vec<Ulimit>, Option<u64>), BadFlag> {
    let mut ulimits: Vec<Ulimit> = Vec::new();
    for text in &flags.ulimits {
        let given = ulimit(text)?;
        match ulimits.iter_mut().find(|known| known.name == given.name) {
            Some(known) => *known = given,
            None => ulimits.push(given),
        }
    }
    let shm_size = flags.shm_size.as_deref().map(|text| size_bytes("--shm-size", text)).transpose()?;
    Ok((ulimits, shm_size))
}

/// One resource limit; -1 is no limit.
fn ulimit(text: &str) -> Result<Ulimit, BadFlag> {
    let bad = |why: String| BadFlag::new("--ulimit", text, why, "--ulimit nofile=1024:2048");
    let number = |text: &str| match text {
        "-1" | "unlimited" => Ok(u64::MAX),
        text => text.parse::<u64>().map_err(|_| bad(format!("`{text}` is no number"))),
    };
    let (name, limits) = text.split_once('=').ok_or_else(|| bad("expected NAME=SOFT[:HARD]".to_owned()))?;
    if sandbox::Resource::ALL.iter().all(|resource| resource.name() != name) {
        return Err(bad(format!("there is no resource `{name}`")));
    }
    let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
    let (soft, hard) = (number(soft)?, number(hard)?);
    if soft > hard {
        return Err(bad("the soft limit is above the hard one".to_owned()));
    }
    Ok(Ulimit { name: name.to_owned(), soft, hard })
}

/// One line of `/etc/hosts`: `HOST:IP` or `HOST=IP`.
pub fn extra_host(text: &str) -> Result<ExtraHost, BadFlag> {
    let bad = |why: &str| BadFlag::new("--add-host", text, why, "--add-host db:10.0.0.5");
    let (host, ip) =
        text.split_once('=').or_else(|| text.split_once(':')).ok_or_else(|| bad("expected HOST:IP"))?;
    let bare = ip.trim_start_matches('[').trim_end_matches(']');
    if host.is_empty() || host.contains(char::is_whitespace) {
        return Err(bad("the host name is empty or holds blanks"));
    }
    if bare != ExtraHost::GATEWAY && bare.parse::<std::net::IpAddr>().is_err() {
        return Err(bad("the address is no IP address"));
    }
    Ok(ExtraHost { host: host.to_owned(), ip: bare.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_and_hosts_are_checked() {
        let limit = |soft, hard| Ok(Ulimit { name: "nofile".to_owned(), soft, hard });
        assert_eq!(ulimit("nofile=5"), limit(5, 5));
        assert_eq!(ulimit("nofile=5:-1"), limit(5, u64::MAX));
        for text in ["nofile", "what=1", "nofile=x", "nofile=2:1"] {
            assert!(ulimit(text).is_err(), "{text}");
        }
        let given = ["nofile=5", "core=0", "nofile=7"].map(str::to_owned).to_vec();
        let (ulimits, _) =
            process_limits(&ProcessLimits { ulimits: given, shm_size: None }).expect("all are right");
        let softs: Vec<_> = ulimits.iter().map(|ulimit| (ulimit.name.as_str(), ulimit.soft)).collect();
        assert_eq!(softs, [("nofile", 7), ("core", 0)], "the last one counts, as with Docker");
        for (text, ip) in [
            ("a:1.2.3.4", "1.2.3.4"),
            ("a=::1", "::1"),
            ("a:[::1]", "::1"),
            ("h=host-gateway", "host-gateway"),
        ] {
            assert_eq!(extra_host(text).expect(text).ip, ip);
        }
        for text in ["a", ":1.2.3.4", "a:b"] {
            assert!(extra_host(text).is_err(), "{text}");
        }
    }
}
