//! The `key=value` pairs of an output, taken one by one; what nobody took is unknown.

use std::collections::BTreeMap;

use dockerfile_parser::suggest;

use crate::flags::{BadFlag, csv};

/// The pairs that are left.
pub struct Keys<'a> {
    text: &'a str,
    keys: BTreeMap<String, String>,
    /// What was given and changes nothing.
    pub warnings: Vec<String>,
}

/// An example, for a help that knows nothing better.
const EXAMPLE: &str = "-o type=oci,dest=image.tar";

impl<'a> Keys<'a> {
    /// Reads the pairs. Names of keys are lower-cased, as buildx does; not so keys of annotations.
    pub fn read(text: &'a str) -> Result<Keys<'a>, BadFlag> {
        let mut read = Keys { text, keys: BTreeMap::new(), warnings: Vec::new() };
        let mut before = String::new();
        for field in csv::fields(text).map_err(|why| read.bad(why))? {
            let Some((key, value)) = field.split_once('=') else {
                return Err(read.lone(&field, &before));
            };
            let key = lowered(key.trim());
            before.clone_from(&field);
            if read.keys.insert(key.clone(), value.to_owned()).is_some() {
                return Err(read.bad(format!("`{key}` is given twice")));
            }
        }
        Ok(read)
    }

    /// A field without `=`: behind a name or an annotation, most often a part of its value.
    fn lone(&self, field: &str, before: &str) -> BadFlag {
        let why = format!("`{field}` needs a value");
        if before.starts_with("name=") || before.starts_with("annotation") {
            let why = format!("{why}; a value with commas stands in quotes, with its key");
            return self.bad_with(why, format!("-o 'type=…,\"{before},{field}\"'"));
        }
        self.bad_with(why, format!("{field}=VALUE"))
    }

    /// The whole value is wrong.
    pub fn bad(&self, why: impl Into<String>) -> BadFlag {
        self.bad_with(why, EXAMPLE)
    }

    /// The same, with what to write instead.
    pub fn bad_with(&self, why: impl Into<String>, help: impl Into<String>) -> BadFlag {
        BadFlag::new("--output", self.text, why, help)
    }

    /// The value of a key.
    pub fn take(&mut self, key: &str) -> Option<String> {
        self.keys.remove(key)
    }

    /// The value of a key that stays to be taken.
    pub fn peek(&self, key: &str) -> Option<&str> {
        self.keys.get(key).map(String::as_str)
    }

    /// All keys that begin like this, with their values.
    pub fn take_all(&mut self, start: &str) -> Vec<(String, String)> {
        let taken = self.keys.extract_if(.., |key, _| key.starts_with(start));
        taken.collect()
    }

    /// `true` or `false`, in all spellings that BuildKit takes.
    pub fn flag(&mut self, key: &str) -> Result<Option<bool>, BadFlag> {
        match self.take(key).as_deref() {
            None => Ok(None),
            Some("true" | "True" | "TRUE" | "t" | "T" | "1") => Ok(Some(true)),
            Some("false" | "False" | "FALSE" | "f" | "F" | "0") => Ok(Some(false)),
            Some(other) => {
                let why = format!("`{key}={other}` is neither true nor false");
                Err(self.bad_with(why, format!("{key}=true")))
            }
        }
    }

    /// A flag that is taken for docker's sake.
    pub fn idle_flag(&mut self, key: &str, why: &str) -> Result<(), BadFlag> {
        if self.flag(key)? == Some(true) {
            self.warn(key, why);
        }
        Ok(())
    }

    /// Says that a key changes nothing.
    pub fn warn(&mut self, key: &str, why: &str) {
        self.warnings.push(format!("`{key}` of `--output {}` changes nothing: {why}", self.text));
    }

    /// The warnings, once all keys were taken.
    ///
    /// # Errors
    /// One is left, which `known` lacks; it says which are near or which there are.
    pub fn end(self, kind: &str, known: &[&str]) -> Result<Vec<String>, BadFlag> {
        let Some(unknown) = self.keys.keys().next() else { return Ok(self.warnings) };
        let why = format!("`type={kind}` has no key `{unknown}`");
        Err(match suggest::nearest(unknown, known) {
            Some(near) => self.bad_with(
                format!("{why}: did you mean `{near}`?"),
                format!("-o {}", self.text.replacen(unknown.as_str(), near, 1)),
            ),
            None => {
                let help = format!("keys of `type={kind}`: {}", known.join(", "));
                self.bad_with(why, help)
            }
        })
    }
}

/// A key in lower case, but for the key of an annotation, which stands behind the first dot.
fn lowered(key: &str) -> String {
    let lower = key.to_lowercase();
    match (lower.starts_with("annotation"), key.split_once('.')) {
        (true, Some((head, own))) => format!("{}.{own}", head.to_lowercase()),
        _ => lower,
    }
}
