//! Kiln's own settings: `kiln.toml`. Where it is, and what it says of collection.

use std::fs;

use engine::{Caps, Disk, Filter, Rule, Space, default_policy};
use serde::Deserialize;

use crate::{
    failure::Failure,
    flags::{self, BadFlag},
    machine,
};

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
struct Settings {
    gc: Written,
}

/// `[gc]`, in the words of `buildkitd.toml`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default, expecting = "a table")]
struct Written {
    enabled: Option<bool>,
    reserved_space: Option<Amount>,
    max_used_space: Option<Amount>,
    min_free_space: Option<Amount>,
    policy: Option<Vec<WrittenRule>>,
}

/// `[[gc.policy]]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default, expecting = "a table")]
struct WrittenRule {
    filters: Vec<String>,
    keep_duration: Option<Amount>,
    reserved_space: Option<Amount>,
    max_used_space: Option<Amount>,
    min_free_space: Option<Amount>,
    all: bool,
}

/// A text with a unit, or a number of bytes or seconds.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "expected a number, or a text with a unit")]
enum Amount {
    Number(u64),
    Text(String),
}

/// What is collected without being asked.
#[derive(Debug)]
pub struct Collecting {
    enabled: bool,
    caps: Caps,
    rules: Option<Vec<Rule>>,
}

impl Collecting {
    /// The rules for a disk; none where nothing is to be collected.
    pub fn rules(self, disk: &Disk) -> Vec<Rule> {
        let otherwise = Caps::of_disk(disk);
        let caps = Caps {
            reserved: self.caps.reserved.or(otherwise.reserved),
            max_used: self.caps.max_used.or(otherwise.max_used),
            min_free: self.caps.min_free.or(otherwise.min_free),
        };
        match (self.enabled, self.rules) {
            (false, _) => Vec::new(),
            (true, Some(rules)) => rules,
            (true, None) => default_policy(caps),
        }
    }

    fn parse(text: &str) -> Result<Collecting, String> {
        let Settings { gc } = toml::from_str(text).map_err(|error| error.to_string())?;
        let said = |bad: BadFlag| bad.to_string();
        let of_gc = caps(&gc.reserved_space, &gc.max_used_space, &gc.min_free_space).map_err(said)?;
        let rules = gc.policy.map(|rules| rules.iter().map(WrittenRule::rule).collect::<Result<Vec<_>, _>>());
        Ok(Collecting { enabled: gc.enabled.unwrap_or(true), caps: of_gc, rules: rules.transpose()? })
    }
}

impl WrittenRule {
    fn rule(&self) -> Result<Rule, String> {
        let caps = caps(&self.reserved_space, &self.max_used_space, &self.min_free_space);
        let keep_seconds = match &self.keep_duration {
            None => 0,
            Some(Amount::Number(seconds)) => *seconds,
            Some(Amount::Text(text)) => {
                flags::seconds("keepDuration", text).map_err(|bad| bad.to_string())?
            }
        };
        let filter = |text: &String| Filter::parse(text).map_err(|bad| format!("filters: {bad}"));
        Ok(Rule {
            filters: self.filters.iter().map(filter).collect::<Result<_, _>>()?,
            keep_seconds,
            caps: caps.map_err(|bad| bad.to_string())?,
            all: self.all,
        })
    }
}

fn caps(reserved: &Option<Amount>, max: &Option<Amount>, min: &Option<Amount>) -> Result<Caps, BadFlag> {
    let space = |name, amount: &Option<Amount>| match amount {
        None => Ok(None),
        Some(Amount::Number(bytes)) => Ok(Some(Space::Bytes(*bytes))),
        Some(Amount::Text(text)) => flags::space(name, text).map(Some),
    };
    Ok(Caps {
        reserved: space("reservedSpace", reserved)?,
        max_used: space("maxUsedSpace", max)?,
        min_free: space("minFreeSpace", min)?,
    })
}

/// What is said of collection in `KILN_CONFIG`, else the user's, else the system's file; without one, the default.
pub fn collecting() -> Result<Collecting, Failure> {
    let Some(path) = machine::settings("KILN_CONFIG", "kiln.toml") else {
        return Collecting::parse("").map_err(Failure::usage);
    };
    let text = fs::read_to_string(&path)
        .map_err(|error| Failure::usage(format!("cannot read {}: {error}", path.display())))?;
    Collecting::parse(&text)
        .map_err(|error| Failure::usage(format!("{}: {}", path.display(), error.trim_end())))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GB: u64 = 1 << 30;

    #[test]
    fn a_policy_is_read() {
        let text = r#"
            [gc]
            minFreeSpace = "30%"
            [[gc.policy]]
            filters = ["type==source.local", "type==exec.cachemount,inuse==false"]
            keepDuration = "48h"
            maxUsedSpace = "1GB"
            [[gc.policy]]
            all = true
            keepDuration = 3600
            reservedSpace = 1000
        "#;
        let rules = Collecting::parse(text).expect("read").rules(&Disk::default());
        assert_eq!(rules.len(), 2);
        assert_eq!((rules[0].filters.len(), rules[0].keep_seconds, rules[0].all), (2, 48 * 3600, false));
        assert_eq!(rules[0].caps, Caps { max_used: Some(Space::Bytes(GB)), ..Caps::default() });
        assert_eq!((rules[1].keep_seconds, rules[1].all), (3600, true));
        assert_eq!(rules[1].caps.reserved, Some(Space::Bytes(1000)));
    }

    #[test]
    fn what_is_not_said_follows_the_disk() {
        let disk = Disk { total_bytes: 100 * GB, free_bytes: 50 * GB };
        let said = Collecting::parse("gc.maxUsedSpace = '5GB'").expect("read").rules(&disk);
        let last = said.last().expect("a rule").caps;
        assert_eq!((last.max_used, last.min_free), (Some(Space::Bytes(5 * GB)), Some(Space::Percent(20))));
        assert_eq!(Collecting::parse("").expect("read").rules(&disk).len(), 4);
        assert!(Collecting::parse("gc.enabled = false").expect("read").rules(&disk).is_empty());
    }

    #[test]
    fn mistakes_are_named() {
        for (text, says) in [
            ("[gcc]", "unknown field `gcc`, expected `gc`"),
            ("[gc]\nkeep = 1", "expected one of `enabled`, `reservedSpace`"),
            ("[gc]\nreservedSpace = 'much'", "invalid value `much` for `reservedSpace`"),
            ("[[gc.policy]]\nfilters = ['colour==red']", "filters: `colour` is nothing"),
            ("[[gc.policy]]\nkeepDuration = 'long'", "invalid value `long` for `keepDuration`"),
            ("[[gc.policy]]\nkeepBytes = 3", "unknown field `keepBytes`"),
            ("[gc", "line 1"),
            ("gc = 3", "expected a table"),
            ("gc.maxUsedSpace = true", "expected a number, or a text with a unit"),
        ] {
            let error = Collecting::parse(text).expect_err(text);
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
