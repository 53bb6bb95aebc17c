//! `registries.conf`, version 2 and what is left of version 1 (containers-registries.conf(5)).
//!
//! Not used: `unqualified-search-registries`, `short-name-mode` and `aliases`. In a Dockerfile `FROM alpine` is
//! Docker Hub's, on every machine.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use oci::Reference;
use serde::{Deserialize, de::IgnoredAny};

use super::{
    bad_file::{BadFile, Problem},
    rule::{Prefix, Pulls, Rule, Site},
};
use crate::{
    notice::{Notice, Notices},
    settings::{Files, registry_name},
};

/// Fields that are known and are for short names and for other programs.
const LEFT_OUT: [&str; 3] = ["unqualified-search-registries", "short-name-mode", "aliases"];

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct File {
    #[serde(default)]
    registry: Vec<Table>,
    #[serde(default)]
    credential_helpers: Vec<String>,
    registries: Option<VersionOne>,
    #[serde(flatten)]
    rest: BTreeMap<String, IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Table {
    prefix: Option<String>,
    location: Option<String>,
    insecure: Option<bool>,
    #[serde(default)]
    blocked: bool,
    #[serde(default)]
    mirror: Vec<MirrorTable>,
    #[serde(default)]
    mirror_by_digest_only: bool,
    #[serde(flatten)]
    rest: BTreeMap<String, IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct MirrorTable {
    location: String,
    insecure: Option<bool>,
    #[serde(default)]
    pull_from_mirror: String,
    #[serde(flatten)]
    rest: BTreeMap<String, IgnoredAny>,
}

#[derive(Deserialize)]
struct VersionOne {
    #[serde(default)]
    insecure: List,
    #[serde(default)]
    block: List,
}

#[derive(Default, Deserialize)]
struct List {
    #[serde(default)]
    registries: Vec<String>,
}

/// All tables, those of later files in the place of earlier ones about the same names.
///
/// # Errors
/// The first file that cannot be used. One that is not there is none, unless it was named.
pub(crate) fn read(files: &Files, notices: &Notices) -> Result<Vec<Rule>, BadFile> {
    let mut rules: Vec<Rule> = Vec::new();
    let main = files.registries_conf.clone();
    for path in main.into_iter().chain(drop_ins(&files.registries_conf_folders)?) {
        let text = fs::read_to_string(&path).map_err(|error| BadFile::unreadable(&path, &error))?;
        for rule in parse(&text, &path, notices)? {
            rules.retain(|before| before.prefix != rule.prefix);
            rules.push(rule);
        }
    }
    Ok(rules)
}

/// The `*.conf` of the folders, each folder's by name.
fn drop_ins(folders: &[PathBuf]) -> Result<Vec<PathBuf>, BadFile> {
    let mut all = Vec::new();
    for folder in folders {
        let entries = match fs::read_dir(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            read => read.map_err(|error| BadFile::unreadable(folder, &error))?,
        };
        let paths = entries.flatten().map(|entry| entry.path());
        let mut paths: Vec<PathBuf> = paths
            .filter(|path| path.extension().is_some_and(|end| end == "conf") && path.is_file())
            .collect();
        paths.sort();
        all.extend(paths);
    }
    Ok(all)
}

/// The table for a name, the one with the longest prefix that fits, and what follows the prefix.
pub(crate) fn find<'a>(rules: &'a [Rule], reference: &Reference) -> Option<(&'a Rule, String)> {
    let fitting = rules.iter().filter_map(|rule| Some((rule, rule.prefix.rest(reference)?)));
    // Of two that are as long, the one that names the host.
    fitting.max_by_key(|(rule, _)| (rule.prefix.length(), matches!(rule.prefix, Prefix::Plain(_))))
}

fn parse(text: &str, path: &Path, notices: &Notices) -> Result<Vec<Rule>, BadFile> {
    let file: File = toml::from_str(text).map_err(|error| BadFile::toml(path, text, &error))?;
    let unknown = |place: &str, rest: &BTreeMap<String, IgnoredAny>| {
        for key in rest.keys().filter(|key| !LEFT_OUT.contains(&key.as_str())) {
            let what = format!("`{key}`{place}");
            notices.tell(&Notice::Unused { path: path.to_owned(), what });
        }
    };
    unknown("", &file.rest);
    for helper in file.credential_helpers.iter().filter(|name| *name != "containers-auth.json") {
        let what =
            format!("the credential helper `{helper}`: name it in `credHelpers` of ~/.docker/config.json");
        notices.tell(&Notice::Unused { path: path.to_owned(), what });
    }
    let mut rules = Vec::new();
    for table in file.registry {
        unknown(" of [[registry]]", &table.rest);
        table.mirror.iter().for_each(|mirror| unknown(" of [[registry.mirror]]", &mirror.rest));
        rules.push(table.check(path)?);
    }
    if let Some(old) = file.registries {
        let rule = |name: &String| {
            Ok(Rule { prefix: Prefix::Plain(place("registries", name, path)?), ..empty(path) })
        };
        for name in &old.insecure.registries {
            rules.push(Rule { insecure: Some(true), ..rule(name)? });
        }
        for name in &old.block.registries {
            rules.push(Rule { blocked: true, ..rule(name)? });
        }
    }
    Ok(rules)
}

fn empty(path: &Path) -> Rule {
    Rule {
        prefix: Prefix::Plain(String::new()),
        file: path.to_owned(),
        blocked: false,
        insecure: None,
        place: None,
        mirrors: Vec::new(),
    }
}

impl Table {
    fn check(self, path: &Path) -> Result<Rule, BadFile> {
        let location = self.location.filter(|location| !location.is_empty());
        let Some(prefix) = self.prefix.filter(|prefix| !prefix.is_empty()).or_else(|| location.clone())
        else {
            return Err(BadFile::new(path, Problem::Nothing));
        };
        let prefix = match Prefix::of(&prefix) {
            Prefix::Below(end) => {
                place("prefix", end.trim_start_matches('.'), path)?;
                if end.contains(['/', ':', '*']) {
                    let problem = Problem::Place { field: "prefix", text: prefix };
                    return Err(BadFile::new(path, problem));
                }
                Prefix::Below(end)
            }
            // It may end with a tag or a digest.
            Prefix::Plain(_) => Prefix::Plain(prefix.trim_end_matches('/').to_owned()),
        };
        let insecure = self.insecure;
        let own = location.map(|location| {
            let location = place("location", &location, path)?;
            Ok::<_, BadFile>(
                (Prefix::Plain(location.clone()) != prefix).then(|| Site { insecure, ..Site::of(&location) }),
            )
        });
        let by_digest = self.mirror_by_digest_only;
        let mirrors = self.mirror.into_iter().map(|mirror| mirror.check(by_digest, path));
        Ok(Rule {
            blocked: self.blocked,
            insecure,
            place: own.transpose()?.flatten(),
            mirrors: mirrors.collect::<Result<_, _>>()?,
            prefix,
            ..empty(path)
        })
    }
}

impl MirrorTable {
    fn check(self, by_digest_only: bool, path: &Path) -> Result<Site, BadFile> {
        let told = self.pull_from_mirror.as_str();
        if by_digest_only && !told.is_empty() {
            let problem = Problem::Contradiction { one: "mirror-by-digest-only", other: "pull-from-mirror" };
            return Err(BadFile::new(path, problem));
        }
        let pulls = match told {
            _ if by_digest_only => Pulls::DigestOnly,
            "" | "all" => Pulls::All,
            "digest-only" => Pulls::DigestOnly,
            "tag-only" => Pulls::TagOnly,
            other => {
                let (field, text) = ("pull-from-mirror", other.to_owned());
                let can = "`all`, `digest-only` or `tag-only`";
                return Err(BadFile::new(path, Problem::Value { field, text, can }));
            }
        };
        let location = place("location", &self.location, path)?;
        Ok(Site { pulls, insecure: self.insecure, ..Site::of(&location) })
    }
}

/// `host[:port][/path]`, without a scheme, a tag or a digest.
fn place(field: &'static str, text: &str, path: &Path) -> Result<String, BadFile> {
    let trimmed = text.trim_end_matches('/');
    let (host, below) = trimmed.split_once('/').unwrap_or((trimmed, ""));
    // The grammar of repositories decides what may follow a host.
    let fits = |below: &str| {
        let whole = Reference::parse(&format!("host.invalid/{below}"));
        whole.is_ok_and(|whole| whole.repository == below)
    };
    match registry_name(host).is_some() && (below.is_empty() || fits(below)) {
        true => Ok(trimmed.to_owned()),
        false => Err(BadFile::new(path, Problem::Place { field, text: text.to_owned() })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(text: &str) -> Result<Vec<Rule>, BadFile> {
        parse(text, Path::new("/c/registries.conf"), &Notices::default())
    }

    fn site(place: &str) -> Site {
        Site::of(place)
    }

    #[test]
    fn tables_are_read() {
        let text = r#"
            unqualified-search-registries = ["docker.io"]
            short-name-mode = "enforcing"
            credential-helpers = ["containers-auth.json"]
            [aliases]
            "alpine" = "docker.io/library/alpine"
            [[registry]]
            prefix = "example.com/foo"
            location = "internal.example.net/bar"
            insecure = true
            [[registry.mirror]]
            location = "mirror-0.local/foo"
            [[registry.mirror]]
            location = "mirror:5000"
            insecure = false
            pull-from-mirror = "tag-only"
            [[registry]]
            location = "blocked.example/"
            blocked = true
            [[registry]]
            prefix = "*.lab"
            mirror-by-digest-only = true
            [[registry.mirror]]
            location = "m.lab"
        "#;
        let rules = rules(text).expect("valid");
        let rule = |prefix: Prefix| Rule { prefix, ..empty(Path::new("/c/registries.conf")) };
        let tag_only = Site { pulls: Pulls::TagOnly, insecure: Some(false), ..site("mirror:5000") };
        let expected = [
            Rule {
                insecure: Some(true),
                place: Some(Site { insecure: Some(true), ..site("internal.example.net/bar") }),
                mirrors: vec![site("mirror-0.local/foo"), tag_only],
                ..rule(Prefix::Plain("example.com/foo".into()))
            },
            Rule { blocked: true, ..rule(Prefix::Plain("blocked.example".into())) },
            Rule {
                mirrors: vec![Site { pulls: Pulls::DigestOnly, ..site("m.lab") }],
                ..rule(Prefix::Below(".lab".into()))
            },
        ];
        assert_eq!(rules, expected);
    }

    #[test]
    fn the_longest_prefix_counts() {
        let text = r#"
            [registries.insecure]
            registries = ["old.example"]
            [registries.block]
            registries = ["bad.example"]
            [[registry]]
            location = "a.example"
            [[registry]]
            location = "a.example/team"
            [[registry]]
            location = "a.example:5000"
            [[registry]]
            prefix = "*.example"
            [[registry]]
            prefix = "*.b.example"
            [[registry]]
            prefix = "a.example/team/app:2"
        "#;
        let rules = rules(text).expect("valid");
        for (name, prefix, rest) in [
            ("a.example/x", "a.example", "/x"),
            ("a.example/team/x", "a.example/team", "/x"),
            ("a.example/team", "a.example/team", ""),
            ("a.example/teams", "a.example", "/teams"),
            ("a.example/team/app", "a.example/team", "/app"),
            ("a.example/team/app:2", "a.example/team/app:2", ""),
            ("a.example:5000/x", "a.example:5000", "/x"),
            ("a.example:5001/x", "*.example", ":5001/x"),
            ("c.b.example/x", "*.b.example", "/x"),
            ("b.example/x", "*.example", "/x"),
            ("old.example/x", "old.example", "/x"),
            ("bad.example/x", "bad.example", "/x"),
        ] {
            let reference: Reference = name.parse().expect(name);
            let (rule, found) = find(&rules, &reference).expect(name);
            assert_eq!((rule.prefix.to_string().as_str(), found.as_str()), (prefix, rest), "{name}");
            assert_eq!(rule.blocked, name.starts_with("bad"), "{name}");
        }
        assert_eq!(find(&rules, &"example/x".parse().expect("a name")), None);
    }

    #[test]
    fn what_cannot_be_used_is_told_with_the_file() {
        for (text, says) in [
            ("[[registry]]\nblocked = true", "neither `prefix` nor `location`"),
            ("[[registry]]\nlocation = 'https://a.example'", "no `HOST[:PORT][/PATH]`"),
            ("[[registry]]\nlocation = 'a.example/x:1'", "no `HOST[:PORT][/PATH]`"),
            ("[[registry]]\nprefix = '*.a/b'", "no `HOST[:PORT][/PATH]`"),
            ("[[registry]]\nprefix = '*.'", "no `HOST[:PORT][/PATH]`"),
            ("[[registry]]\nprefix = 'a'\n[[registry.mirror]]\nlocation = ''", "no `HOST[:PORT][/PATH]`"),
            (
                "[[registry]]\nprefix = 'a'\n[[registry.mirror]]\nlocation = 'b'\npull-from-mirror = 'never'",
                "it can be `all`",
            ),
            (
                "[[registry]]\nprefix = 'a'\nmirror-by-digest-only = true\n[[registry.mirror]]\nlocation = 'b'\npull-from-mirror = 'all'",
                "contradict",
            ),
            ("x = 1\nregistry = 5", "/c/registries.conf:2: "),
            ("[[registry]", "/c/registries.conf:1: "),
        ] {
            let error = rules(text).expect_err(text).to_string();
            assert!(error.starts_with("/c/registries.conf") && error.contains(says), "{text}: {error}");
        }
    }

    #[test]
    fn what_is_not_used_is_told() {
        let notices = Notices::default();
        let text = "new = 1\ncredential-helpers = ['pass', 'containers-auth.json']\n[[registry]]\nlocation = 'a'\nfuture = 2";
        parse(text, Path::new("/c"), &notices).expect("valid");
        let told = notices.untold();
        assert_eq!(told.len(), 3, "{told:?}");
        for what in ["`new`", "`pass`", "`future` of [[registry]]"] {
            assert!(told.iter().any(|told| told.contains(what)), "{told:?}");
        }
    }
}
