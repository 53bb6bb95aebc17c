//! The proxies of Docker's `config.json`, as build arguments that need no `ARG` and are in no key.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::machine;

/// Adds the proxies that the user's file names and the command line does not, in both cases of each name. A file that
/// cannot be read names none: what is wrong with it is told when its credentials are needed.
pub fn add(build_args: &mut BTreeMap<String, String>) {
    let text = std::fs::read(machine::docker_config().join("config.json")).unwrap_or_default();
    let config: Value = serde_json::from_slice(&text).unwrap_or_default();
    for (name, value) in of_config(&config) {
        for name in [name.to_owned(), name.to_lowercase()] {
            build_args.entry(name).or_insert_with(|| value.clone());
        }
    }
}

/// The entry `default`: others are for daemons at other addresses.
fn of_config(config: &Value) -> Vec<(&'static str, String)> {
    let names = [
        ("HTTP_PROXY", "httpProxy"),
        ("HTTPS_PROXY", "httpsProxy"),
        ("FTP_PROXY", "ftpProxy"),
        ("NO_PROXY", "noProxy"),
        ("ALL_PROXY", "allProxy"),
    ];
    let value = |key: &str| config["proxies"]["default"][key].as_str().filter(|value| !value.is_empty());
    names.into_iter().filter_map(|(name, key)| Some((name, value(key)?.to_owned()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_proxies_are_read() {
        let config =
            serde_json::json!({ "proxies": { "default": { "httpProxy": "http://p:1", "noProxy": "" } } });
        assert_eq!(of_config(&config), [("HTTP_PROXY", "http://p:1".to_owned())]);
        assert_eq!(of_config(&Value::Null), []);
    }
}
