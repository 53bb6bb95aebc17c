//! Variables: `ENV`, `ARG`, and those that every build has.

use std::collections::BTreeMap;

use oci::Platform;

use crate::Request;

/// The `PATH` of an image that sets none.
pub(crate) const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Names that get no variable although they can be arguments: they speak to the builder.
pub(crate) const NOT_IN_ENVIRONMENT: [&str; 2] = ["BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"];

/// Names and values, in the order in which the names were first set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Variables {
    list: Vec<(String, String)>,
    places: BTreeMap<String, usize>,
}

impl Variables {
    /// The value of a name.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.places.get(name).map(|place| &*self.list[*place].1)
    }

    /// Sets a name; one that is there keeps its place.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        match self.places.get(name) {
            Some(place) => value.clone_into(&mut self.list[*place].1),
            None => {
                self.places.insert(name.to_owned(), self.list.len());
                self.list.push((name.to_owned(), value.to_owned()));
            }
        }
    }

    /// Takes a name away.
    pub(crate) fn unset(&mut self, name: &str) {
        if let Some(place) = self.places.remove(name) {
            self.list.remove(place);
            self.places.values_mut().filter(|later| **later > place).for_each(|later| *later -= 1);
        }
    }

    /// All names.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.list.iter().map(|(name, _)| &**name)
    }

    /// The length of [`Variables::pairs`] in bytes.
    pub(crate) fn length_bytes(&self) -> usize {
        self.list.iter().map(|(name, value)| name.len() + value.len() + 1).sum()
    }

    /// `NAME=value`, in order.
    pub(crate) fn pairs(&self) -> Vec<String> {
        self.list.iter().map(|(name, value)| format!("{name}={value}")).collect()
    }
}

/// Name and value of `NAME=value`; a text without `=` is a name with an empty value.
pub(crate) fn split(pair: &str) -> (&str, &str) {
    pair.split_once('=').unwrap_or((pair, ""))
}

/// Sets a name in a config's `Env`: in its place, else at the end.
pub(crate) fn set_pair(env: &mut Vec<String>, name: &str, value: &str) {
    let pair = format!("{name}={value}");
    match env.iter_mut().find(|pair| split(pair).0 == name) {
        Some(place) => *place = pair,
        None => env.push(pair),
    }
}

/// The arguments that every build has, overridden by the request's: `BUILDPLATFORM` … `TARGETSTAGE`.
pub(crate) fn predefined(request: &Request, target: &Platform, stage: Option<&str>) -> Variables {
    let mut variables = Variables::default();
    for (prefix, platform) in [("BUILD", &request.build_platform), ("TARGET", target)] {
        let text = platform.to_string();
        let (version, variant) = (platform.os_version.as_deref(), platform.variant.as_deref());
        for (suffix, value) in [
            ("PLATFORM", &*text),
            ("OS", &platform.os),
            ("OSVERSION", version.unwrap_or_default()),
            ("ARCH", &platform.architecture),
            ("VARIANT", variant.unwrap_or_default()),
        ] {
            variables.set(&format!("{prefix}{suffix}"), value);
        }
    }
    variables.set("TARGETSTAGE", stage.unwrap_or("default"));
    let overridden: Vec<String> = variables.names().map(str::to_owned).collect();
    for name in overridden {
        if let Some(value) = request.build_args.get(&name) {
            variables.set(&name, value);
        }
    }
    variables
}

/// The proxies among the build arguments, under their names in both cases; of two cases the lower one wins.
pub(crate) fn proxies(request: &Request) -> BTreeMap<String, String> {
    let mut proxies = BTreeMap::new();
    for (name, value) in &request.build_args {
        let lower = name.to_lowercase();
        if ["http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy"].contains(&&*lower) {
            proxies.insert(lower.to_uppercase(), value.clone());
            proxies.insert(lower, value.clone());
        }
    }
    proxies
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_their_place() {
        let mut variables = Variables::default();
        for (name, value) in [("A", "1"), ("B", "2"), ("A", "3")] {
            variables.set(name, value);
        }
        assert_eq!(variables.pairs(), ["A=3", "B=2"]);
        variables.unset("A");
        variables.set("B", "4");
        assert_eq!((variables.pairs(), variables.get("A")), (vec!["B=4".to_owned()], None));
        let mut env = vec!["A=1".to_owned(), "B".to_owned()];
        set_pair(&mut env, "B", "x=y");
        set_pair(&mut env, "C", "");
        assert_eq!(env, ["A=1", "B=x=y", "C="]);
    }

    #[test]
    fn every_build_has_its_platforms() {
        let mut request = Request::new("linux/amd64".parse().expect("a platform"));
        request.build_args.insert("TARGETARCH".to_owned(), "mine".to_owned());
        let variables = predefined(&request, &"linux/arm/v7".parse().expect("a platform"), None);
        for (name, value) in [
            ("BUILDPLATFORM", "linux/amd64"),
            ("BUILDVARIANT", ""),
            ("TARGETPLATFORM", "linux/arm/v7"),
            ("TARGETARCH", "mine"),
            ("TARGETVARIANT", "v7"),
            ("TARGETSTAGE", "default"),
        ] {
            assert_eq!(variables.get(name), Some(value), "{name}");
        }
    }

    #[test]
    fn proxies_are_known_in_both_cases() {
        let mut request = Request::new("linux/amd64".parse().expect("a platform"));
        for (name, value) in [("HTTP_PROXY", "upper"), ("http_proxy", "lower"), ("No_Proxy", "n"), ("X", "x")]
        {
            request.build_args.insert(name.to_owned(), value.to_owned());
        }
        let expected =
            [("HTTP_PROXY", "lower"), ("NO_PROXY", "n"), ("http_proxy", "lower"), ("no_proxy", "n")];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(proxies(&request), BTreeMap::from(expected));
    }
}
