//! containerd's `hosts.toml`: who is asked for the images of one host (containerd, docs/hosts.md).

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use reqwest::Url;
use serde::{Deserialize, de::IgnoredAny};
use toml::Spanned;

use super::{
    bad_file::{BadFile, Problem},
    rule::{Prefix, Pulls, Rule, Site, host_name},
};
use crate::{
    notice::{Notice, Notices},
    settings::{ClientCertificate, Scheme},
};

#[derive(Deserialize)]
struct File {
    server: Option<String>,
    #[serde(default)]
    host: BTreeMap<String, Spanned<Host>>,
    #[serde(flatten)]
    own: Host,
}

#[derive(Clone, Deserialize)]
struct Host {
    capabilities: Option<Vec<String>>,
    ca: Option<Paths>,
    client: Option<Clients>,
    #[serde(default)]
    skip_verify: bool,
    #[serde(default)]
    override_path: bool,
    #[serde(flatten)]
    rest: BTreeMap<String, IgnoredAny>,
}

#[derive(Clone, Deserialize)]
#[serde(untagged)]
enum Paths {
    One(PathBuf),
    Many(Vec<PathBuf>),
}

#[derive(Clone, Deserialize)]
#[serde(untagged)]
enum Clients {
    One(PathBuf),
    Many(Vec<PathBuf>),
    Pairs(Vec<(PathBuf, PathBuf)>),
}

pub(crate) fn parse(text: &str, path: &Path, registry: &str, notices: &Notices) -> Result<Rule, BadFile> {
    let file: File = toml::from_str(text).map_err(|error| BadFile::toml(path, text, &error))?;
    let unused = |what: String| notices.tell(&Notice::Unused { path: path.to_owned(), what });
    for key in file.own.rest.keys() {
        unused(format!("`{key}`"));
    }
    // In the file's order, which a map does not keep.
    let mut hosts: Vec<(String, Spanned<Host>)> = file.host.into_iter().collect();
    hosts.sort_by_key(|(_, host)| host.span().start);
    let mut mirrors = Vec::new();
    for (address, host) in hosts {
        let host = host.into_inner();
        for key in host.rest.keys() {
            unused(format!("`{key}` of [host.\"{address}\"]"));
        }
        let can = |what: &str| host.capabilities.as_ref().is_none_or(|all| all.iter().any(|one| one == what));
        if host.capabilities.is_some() && can("push") {
            unused(format!("the capability `push` of [host.\"{address}\"]: pushes go to the server alone"));
        }
        let mut site = host.site("host", &address, path)?;
        match (can("pull"), can("resolve")) {
            (true, true) => {}
            (true, false) => site.pulls = Pulls::Content,
            (false, _) => continue,
        }
        mirrors.push(site);
    }
    let address = file.server.as_deref().unwrap_or(registry);
    Ok(Rule {
        prefix: Prefix::Plain(registry.to_owned()),
        file: path.to_owned(),
        blocked: false,
        insecure: None,
        place: Some(file.own.site("server", address, path)?),
        mirrors,
    })
}

impl Host {
    fn site(&self, field: &'static str, address: &str, path: &Path) -> Result<Site, BadFile> {
        let bad = || BadFile::new(path, Problem::Address { field, text: address.to_owned() });
        let site = site(address, self.override_path).ok_or_else(bad)?;
        let folder = path.parent().unwrap_or(Path::new("/"));
        let absolute = |path: &PathBuf| folder.join(path);
        let authorities = match &self.ca {
            None => Vec::new(),
            Some(Paths::One(path)) => vec![absolute(path)],
            Some(Paths::Many(paths)) => paths.iter().map(absolute).collect(),
        };
        let both = |path: &PathBuf| (path.clone(), PathBuf::new());
        let first = match &self.client {
            None => None,
            Some(Clients::One(path)) => Some(both(path)),
            Some(Clients::Many(paths)) => paths.first().map(both),
            Some(Clients::Pairs(pairs)) => pairs.first().cloned(),
        };
        let client = first.map(|(certificate, key)| {
            // One file may hold both.
            let key = if key.as_os_str().is_empty() { certificate.clone() } else { key };
            ClientCertificate { certificate: absolute(&certificate), key: absolute(&key) }
        });
        Ok(Site { insecure: self.skip_verify.then_some(true), authorities, client, ..site })
    }
}

/// A host by its address. A path in it stands before the API's `/v2`, or in its place.
pub(crate) fn site(address: &str, override_path: bool) -> Option<Site> {
    let (scheme, full) = match address.split_once("://") {
        Some(("http", _)) => (Some(Scheme::Http), address.to_owned()),
        Some(("https", _)) => (Some(Scheme::Https), address.to_owned()),
        Some(_) => return None,
        None => (None, format!("https://{address}")),
    };
    let url = Url::parse(&full).ok()?;
    let host = url.host_str().filter(|host| !host.is_empty())?;
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() {
        return None;
    }
    let place = match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host_name(host).to_owned(),
    };
    let path = url.path().trim_end_matches('/');
    let api = match path.ends_with("/v2") || override_path {
        true => path.to_owned(),
        false => format!("{path}/v2"),
    };
    Some(Site { scheme, api, ..Site::of(&place) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(text: &str) -> Result<Rule, BadFile> {
        parse(text, Path::new("/certs.d/r.lab/hosts.toml"), "r.lab", &Notices::default())
    }

    #[test]
    fn hosts_keep_their_order_and_their_capabilities() {
        let text = r#"
            server = "https://real.lab:8443"
            ca = "server.crt"
            [host."https://z.lab"]
            capabilities = ["pull"]
            [host."http://b.lab:5000"]
            skip_verify = true
            client = [["me.cert", "me.key"], ["other.pem", ""]]
            [host."https://push.lab"]
            capabilities = ["push"]
            [host."a.lab/proxy"]
            capabilities = ["pull", "resolve"]
            ca = ["/x/1.pem", "2.pem"]
            client = "both.pem"
            [host."https://c.lab/api/hub"]
            override_path = true
        "#;
        let rule = rule(text).expect("valid");
        let below = |name: &str| Path::new("/certs.d/r.lab").join(name);
        let client = |certificate: &str, key: &str| {
            Some(ClientCertificate { certificate: below(certificate), key: below(key) })
        };
        let (http, https) = (Some(Scheme::Http), Some(Scheme::Https));
        let server =
            Site { scheme: https, authorities: vec![below("server.crt")], ..Site::of("real.lab:8443") };
        assert_eq!(rule.place, Some(server));
        let expected = [
            Site { scheme: https, pulls: Pulls::Content, ..Site::of("z.lab") },
            Site {
                scheme: http,
                insecure: Some(true),
                client: client("me.cert", "me.key"),
                ..Site::of("b.lab:5000")
            },
            Site {
                api: "/proxy/v2".into(),
                authorities: vec!["/x/1.pem".into(), below("2.pem")],
                client: client("both.pem", "both.pem"),
                ..Site::of("a.lab")
            },
            Site { scheme: https, api: "/api/hub".into(), ..Site::of("c.lab") },
        ];
        assert_eq!(rule.mirrors, expected);
    }

    #[test]
    fn without_a_server_it_is_the_host_itself() {
        assert_eq!(rule("").expect("empty").place, Some(Site::of("r.lab")));
        let hub = site("https://registry-1.docker.io", false).expect("an address");
        assert_eq!(hub.place, "docker.io");
    }

    #[test]
    fn what_cannot_be_used_is_refused_or_told() {
        for text in ["server = 'ftp://x'", "[host.'https://']", "host = 1", "[host.'https://u:p@x']"] {
            assert!(rule(text).is_err(), "{text}");
        }
        let notices = Notices::default();
        let text = "dial_timeout = '1s'\n[host.'https://m.lab']\ncapabilities = ['pull', 'push']\n[host.'https://m.lab'.header]\nx = 'y'";
        parse(text, Path::new("/h"), "r.lab", &notices).expect("valid");
        let told = notices.untold();
        for what in ["`dial_timeout`", "`push`", "`header` of [host.\"https://m.lab\"]"] {
            assert!(told.iter().any(|told| told.contains(what)), "{what}: {told:?}");
        }
    }
}
