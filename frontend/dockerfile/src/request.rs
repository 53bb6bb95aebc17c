//! What is asked of a Dockerfile besides its text. All of it is values: nothing here is read from the environment.

use std::collections::{BTreeMap, BTreeSet};

use graph::{ExtraHost, Network, Resources, Ulimit};
use oci::{Platform, Reference};

use crate::{fact::LayoutVersion, git::GitAddress};

/// One build's wishes, as the command line or an API client stated them.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// `--build-arg`. BuildKit's own (`BUILDKIT_CACHE_MOUNT_NS`, `BUILDKIT_SANDBOX_HOSTNAME`,
    /// `BUILDKIT_MULTI_PLATFORM`, `BUILDKIT_CONTEXT_KEEP_GIT_DIR`), proxies and `SOURCE_DATE_EPOCH` are understood
    /// without an `ARG`.
    pub build_args: BTreeMap<String, String>,
    /// `--target`: a stage's name in any case; `None` is the last stage.
    pub target: Option<String>,
    /// `--platform`: the platforms to build for. Empty is the build platform, unless a base image has another one only.
    pub platforms: Vec<Platform>,
    /// The platform of the machine that runs the steps: `BUILDPLATFORM`.
    pub build_platform: Platform,
    /// `--label`, applied after the Dockerfile's.
    pub labels: BTreeMap<String, String>,
    /// `--build-context`: by name, or by `name::os/arch` for one platform. A name hides a stage or an image.
    pub named_contexts: BTreeMap<String, NamedContext>,
    /// The main context: what `COPY` takes from where it names nothing else.
    pub context: MainContext,
    /// Patterns of the main context's ignore file, in order; only a folder has one.
    pub ignore: Vec<String>,
    /// Which stages must run again.
    pub no_cache: NoCache,
    /// `--network`: the network of each `RUN` that does not name one. `Host` is its own consent.
    pub network: Network,
    /// `--allow`: what `RUN` may ask for.
    pub allow: BTreeSet<Entitlement>,
    /// `--add-host`.
    pub extra_hosts: Vec<ExtraHost>,
    /// `--ulimit`.
    pub ulimits: Vec<Ulimit>,
    /// `--shm-size` in bytes.
    pub shm_size_bytes: Option<u64>,
    /// `--resource`.
    pub resources: Resources,
    /// The host name that `RUN` sees; `BUILDKIT_SANDBOX_HOSTNAME` where `None`, else the builder's default.
    pub hostname: Option<String>,
}

impl Request {
    /// A request with nothing but a build platform.
    pub fn new(build_platform: Platform) -> Request {
        Request {
            build_args: BTreeMap::new(),
            target: None,
            platforms: Vec::new(),
            build_platform,
            labels: BTreeMap::new(),
            named_contexts: BTreeMap::new(),
            context: MainContext::Local,
            ignore: Vec::new(),
            no_cache: NoCache::None,
            network: Network::Default,
            allow: BTreeSet::new(),
            extra_hosts: Vec::new(),
            ulimits: Vec::new(),
            shm_size_bytes: None,
            resources: Resources::default(),
            hostname: None,
        }
    }

    /// The named context that hides `name` for `platform`, and its key. Names are compared as image references in
    /// their short form, without `:latest`.
    pub(crate) fn named_context(&self, name: &str, platform: &Platform) -> Option<(&str, &NamedContext)> {
        if name.eq_ignore_ascii_case("scratch") || name.eq_ignore_ascii_case("context") {
            return None;
        }
        let wanted = familiar(name);
        let entry = |platform: Option<&Platform>| {
            self.named_contexts.iter().find_map(|(key, context)| {
                let (name, suffix) = key.split_once("::").map_or((&**key, None), |(n, p)| (n, Some(p)));
                let fits = match (suffix, platform) {
                    (None, None) => true,
                    (Some(suffix), Some(platform)) => {
                        suffix.parse::<Platform>().is_ok_and(|p| p == *platform)
                    }
                    _ => false,
                };
                (fits && familiar(name) == wanted).then_some((&**key, context))
            })
        };
        entry(Some(platform)).or_else(|| entry(None))
    }

    /// Whether a step of the stage must run although a result is known.
    pub(crate) fn ignores_cache_of(&self, stage: Option<&str>) -> bool {
        match &self.no_cache {
            NoCache::None => false,
            NoCache::All => true,
            NoCache::Stages(names) => {
                stage.is_some_and(|stage| names.iter().any(|name| name.eq_ignore_ascii_case(stage)))
            }
        }
    }

    /// Whether `RUN` may have it.
    pub(crate) fn allows(&self, entitlement: Entitlement) -> bool {
        self.allow.contains(&entitlement)
            || (entitlement == Entitlement::NetworkHost && self.network == Network::Host)
    }

    /// Whether the result is one of several platforms: more than one is asked for, or `BUILDKIT_MULTI_PLATFORM` says so.
    pub(crate) fn several_platforms(&self) -> bool {
        let said = self.build_args.get("BUILDKIT_MULTI_PLATFORM").map(String::as_str);
        self.target_platforms().0.len() > 1
            || matches!(said, Some("1" | "t" | "T" | "true" | "TRUE" | "True"))
    }

    /// The platforms to build for, and whether nobody named any.
    pub(crate) fn target_platforms(&self) -> (Vec<Platform>, bool) {
        if self.platforms.is_empty() {
            return (vec![self.build_platform.clone()], true);
        }
        let mut platforms = Vec::new();
        for platform in &self.platforms {
            if !platforms.contains(platform) {
                platforms.push(platform.clone());
            }
        }
        (platforms, false)
    }
}

fn familiar(name: &str) -> String {
    match Reference::parse(name) {
        Ok(reference) => {
            let short = reference.familiar();
            short.strip_suffix(":latest").map_or(short.clone(), str::to_owned)
        }
        // A stage's name may be no reference (`a..b`); it is compared as it is.
        Err(_) => name.to_owned(),
    }
}

/// What the main context is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MainContext {
    /// The folder `context` of whoever asks.
    Local,
    /// A git repository.
    Git(GitAddress),
    /// An archive over http or https, unpacked.
    HttpArchive(String),
    /// One file over http or https that is no archive, as a rule the Dockerfile; it is called `context` in the tree.
    HttpFile(String),
    /// The archive that is called `context` in the folder `context` of whoever asks, unpacked.
    Archive,
}

/// What `--build-context name=…` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NamedContext {
    /// A folder of whoever asks; the graph names it by its key in [`Request::named_contexts`].
    Local {
        /// Patterns of the folder's own ignore file, in order.
        ignore: Vec<String>,
    },
    /// `docker-image://scratch`: an empty tree.
    Scratch,
    /// `docker-image://…`.
    Image(Reference),
    /// `oci-layout://…`: an image in a layout of whoever asks.
    OciLayout {
        /// Names the layout: what the engine finds it by.
        store: String,
        /// Which image of the layout.
        version: LayoutVersion,
    },
    /// A git repository's address, with its fragment or query.
    Git(String),
    /// One file over http or https, which is called `context` in the tree.
    Http(String),
}

/// `--no-cache` and `--no-cache-filter`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum NoCache {
    /// Every stage may be answered from the cache.
    #[default]
    None,
    /// `--no-cache`: none may.
    All,
    /// `--no-cache-filter`: those named, in any case, may not.
    Stages(Vec<String>),
}

/// What a `RUN` may do only if the request allows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Entitlement {
    /// `RUN --network=host`.
    NetworkHost,
    /// `RUN --security=insecure`.
    SecurityInsecure,
}

impl Entitlement {
    /// The name that `--allow` takes.
    pub fn name(self) -> &'static str {
        match self {
            Entitlement::NetworkHost => "network.host",
            Entitlement::SecurityInsecure => "security.insecure",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn named_contexts_are_found_as_buildx_names_them() {
        let amd64 = Platform::new("linux", "amd64", None);
        let arm64 = Platform::new("linux", "arm64", None);
        let mut request = Request::new(amd64.clone());
        let local = |name: &str| NamedContext::Local { ignore: vec![name.to_owned()] };
        for key in ["alpine", "base::linux/arm64", "base", "ghcr.io/a/b:1", "scratch"] {
            request.named_contexts.insert(key.to_owned(), local(key));
        }
        for (name, platform, found) in [
            ("alpine:latest", &amd64, Some("alpine")),
            ("docker.io/library/alpine", &amd64, Some("alpine")),
            ("alpine:3", &amd64, None),
            ("base", &arm64, Some("base::linux/arm64")),
            ("base", &amd64, Some("base")),
            ("ghcr.io/a/b:1", &amd64, Some("ghcr.io/a/b:1")),
            ("scratch", &amd64, None),
        ] {
            let context = request.named_context(name, platform).map(|(_, context)| context.clone());
            assert_eq!(context, found.map(local), "{name} {platform}");
        }
    }
}
