//! `NAME=VALUE` and `NAME`, and the words for networks.

use std::collections::BTreeMap;

use graph::Network;

use super::BadFlag;

/// `NAME=VALUE`; the value is required. Later ones win.
pub fn pairs(flag: &'static str, values: &[String]) -> Result<BTreeMap<String, String>, BadFlag> {
    let split = |text: &String| match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(BadFlag::new(flag, text, "expected NAME=VALUE", format!("{flag} NAME=VALUE"))),
    };
    values.iter().map(split).collect()
}

/// `NAME=VALUE`, or `NAME` for a value that `lookup` gives; a name that it does not know is left out.
pub fn pairs_from(
    flag: &'static str,
    values: &[String],
    lookup: impl Fn(&str) -> Option<String>,
) -> Result<BTreeMap<String, String>, BadFlag> {
    let mut pairs = BTreeMap::new();
    for text in values {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (text.as_str(), lookup(text)),
        };
        if name.is_empty() {
            return Err(BadFlag::new(flag, text, "the name is empty", format!("{flag} NAME=VALUE")));
        }
        match value {
            Some(value) => pairs.insert(name.to_owned(), value),
            None => pairs.remove(name),
        };
    }
    Ok(pairs)
}

/// `default`, `none` or `host`.
pub fn network(text: &str) -> Result<Network, BadFlag> {
    match text {
        "default" | "bridge" | "" => Ok(Network::Default),
        "none" => Ok(Network::None),
        "host" => Ok(Network::Host),
        other => {
            let why = "a network is `default`, `none` or `host`";
            Err(BadFlag::new("--network", other, why, "--network=host"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_without_a_value_is_looked_up() {
        let lookup = |name: &str| (name == "HOME").then(|| "/root".to_owned());
        let given = ["A=1", "HOME", "GONE", "A=2=3"].map(str::to_owned);
        let pairs = pairs_from("--build-arg", &given, lookup).expect("valid");
        let expected = [("A", "2=3"), ("HOME", "/root")].map(|(a, b)| (a.to_owned(), b.to_owned()));
        assert_eq!(pairs, BTreeMap::from(expected));
        assert!(pairs_from("--build-arg", &["=x".to_owned()], lookup).is_err());
    }
}
