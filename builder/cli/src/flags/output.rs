//! `-o type=TYPE,dest=PATH,…` and `-o PATH`.

use std::{collections::BTreeMap, path::PathBuf};

use engine::{Destination, ImageForm, Output, Push};
use image::compress::Codec;
use oci::Reference;

use super::{BadFlag, csv};

const TYPES: &str = "image, registry, oci, docker, local, tar or cacheonly";

/// Where a result goes. A bare path is `type=local`, `-` is `type=tar` on standard output.
pub fn output(text: &str) -> Result<Output, BadFlag> {
    let bad = |why: String| BadFlag::new("--output", text, why, "-o type=oci,dest=image.tar");
    if text == "-" {
        return Ok(Output::Tar { to: Destination::Stdout, platform_split: None });
    }
    if !text.contains('=') && !text.contains(',') {
        return Ok(Output::Local { to: PathBuf::from(text), platform_split: None });
    }
    let mut keys = BTreeMap::new();
    for (key, value) in csv::keys(text).map_err(bad)? {
        let value = value.ok_or_else(|| bad(format!("`{key}` needs a value")))?;
        if keys.insert(key.clone(), value).is_some() {
            return Err(bad(format!("`{key}` is given twice")));
        }
    }
    let output = Keys { text, keys }.output()?;
    Ok(output)
}

struct Keys<'a> {
    text: &'a str,
    keys: BTreeMap<String, String>,
}

impl Keys<'_> {
    fn bad(&self, why: String) -> BadFlag {
        BadFlag::new("--output", self.text, why, "-o type=oci,dest=image.tar")
    }

    fn output(mut self) -> Result<Output, BadFlag> {
        let kind = self.keys.remove("type").ok_or_else(|| self.bad(format!("it has no `type`: {TYPES}")))?;
        let output = match kind.as_str() {
            "oci" => {
                let archive = self.flag("tar", true)?;
                Output::Oci { to: self.destination()?, archive, form: self.form()? }
            }
            "docker" => {
                let to = match self.keys.remove("dest") {
                    Some(dest) => destination(dest),
                    None => {
                        return Err(
                            self.bad("loading into a Docker daemon is not supported yet: give `dest`".into())
                        );
                    }
                };
                Output::Docker { to, form: self.form()? }
            }
            "local" => match self.destination()? {
                Destination::Path(to) => Output::Local { to, platform_split: self.platform_split()? },
                Destination::Stdout => {
                    return Err(self.bad("a folder cannot go to standard output".to_owned()));
                }
            },
            "tar" => Output::Tar { to: self.destination()?, platform_split: self.platform_split()? },
            "cacheonly" => Output::CacheOnly,
            "image" | "registry" => {
                let store = self.flag("store", true)?;
                let push = self.flag("push", kind == "registry")?;
                let by_digest = self.flag("push-by-digest", false)?;
                // What the local store has is always there to run from.
                self.keys.remove("unpack");
                Output::Image { store, push: push.then_some(Push { by_digest }), form: self.form()? }
            }
            other => return Err(self.bad(format!("there is no type `{other}`: {TYPES}"))),
        };
        match self.keys.keys().next() {
            None => Ok(output),
            Some(key) => Err(self.bad(format!("`type={kind}` has no key `{key}`"))),
        }
    }

    fn destination(&mut self) -> Result<Destination, BadFlag> {
        match self.keys.remove("dest") {
            Some(dest) if !dest.is_empty() => Ok(destination(dest)),
            _ => Err(self.bad("it has no `dest`".to_owned())),
        }
    }

    fn form(&mut self) -> Result<ImageForm, BadFlag> {
        let mut form = ImageForm { codec: self.codec()?, ..ImageForm::default() };
        form.force_compression = self.flag("force-compression", false)?;
        if !self.flag("oci-mediatypes", true)? {
            return Err(self.bad("`oci-mediatypes=false` is not supported yet".to_owned()));
        }
        let names = self.keys.remove("name").unwrap_or_default();
        for name in names.split(',').filter(|name| !name.is_empty()) {
            form.names.push(Reference::parse(name).map_err(|error| self.bad(error.to_string()))?);
        }
        let annotations: Vec<String> =
            self.keys.keys().filter(|k| k.starts_with("annotation.")).cloned().collect();
        for key in annotations {
            let value = self.keys.remove(&key).unwrap_or_default();
            form.annotations.insert(key["annotation.".len()..].to_owned(), value);
        }
        Ok(form)
    }

    fn codec(&mut self) -> Result<Codec, BadFlag> {
        let level = match self.keys.remove("compression-level") {
            Some(text) => {
                Some(text.parse::<u32>().map_err(|_| self.bad(format!("the level `{text}` is no number")))?)
            }
            None => None,
        };
        let codec = match (self.keys.remove("compression").as_deref().unwrap_or("gzip"), level) {
            ("gzip", None) => Codec::GZIP,
            ("gzip", Some(level)) => Codec::Gzip { level },
            ("zstd", None) => Codec::ZSTD,
            ("zstd", Some(level)) => Codec::Zstd { level },
            ("uncompressed", _) => Codec::Uncompressed,
            (other, _) => {
                return Err(self.bad(format!(
                    "the compression `{other}` is not supported yet: gzip, zstd, uncompressed"
                )));
            }
        };
        codec.check().map_err(|error| self.bad(error.to_string()))
    }

    fn platform_split(&mut self) -> Result<Option<bool>, BadFlag> {
        let given = self.keys.contains_key("platform-split");
        let split = self.flag("platform-split", true)?;
        Ok(given.then_some(split))
    }

    fn flag(&mut self, key: &str, default: bool) -> Result<bool, BadFlag> {
        match self.keys.remove(key).as_deref() {
            None => Ok(default),
            Some("true" | "1") => Ok(true),
            Some("false" | "0") => Ok(false),
            Some(other) => Err(self.bad(format!("`{key}={other}` is neither true nor false"))),
        }
    }
}

fn destination(dest: String) -> Destination {
    if dest == "-" { Destination::Stdout } else { Destination::Path(PathBuf::from(dest)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_are_typed() {
        let to = || Destination::Path("x".into());
        let form = ImageForm::default;
        for (text, expected) in [
            ("type=oci,dest=x", Output::Oci { to: to(), archive: true, form: form() }),
            ("type=oci,dest=x,tar=false", Output::Oci { to: to(), archive: false, form: form() }),
            ("type=docker,dest=-", Output::Docker { to: Destination::Stdout, form: form() }),
            ("type=local,dest=x", Output::Local { to: "x".into(), platform_split: None }),
            (
                "type=local,dest=x,platform-split=false",
                Output::Local { to: "x".into(), platform_split: Some(false) },
            ),
            ("type=tar,dest=x,platform-split=true", Output::Tar { to: to(), platform_split: Some(true) }),
            ("x", Output::Local { to: "x".into(), platform_split: None }),
            ("-", Output::Tar { to: Destination::Stdout, platform_split: None }),
            ("type=cacheonly", Output::CacheOnly),
            ("type=image", Output::store()),
            (
                "type=registry,store=false,push-by-digest=true",
                Output::Image { store: false, push: Some(Push { by_digest: true }), form: form() },
            ),
            (
                "type=image,push=true",
                Output::Image { store: true, push: Some(Push::default()), form: form() },
            ),
        ] {
            assert_eq!(output(text), Ok(expected), "{text}");
        }
        let zstd = ImageForm { codec: Codec::Zstd { level: 9 }, ..form() };
        let text = "type=oci,dest=x,compression=zstd,compression-level=9";
        assert_eq!(output(text), Ok(Output::Oci { to: to(), archive: true, form: zstd }));
        for text in [
            "type=oci",
            "dest=x",
            "type=what,dest=x",
            "type=oci,dest=x,what=y",
            "type=oci,dest=x,platform-split=false",
            "type=local,dest=x,platform-split=maybe",
            "type=oci,dest=x,dest=y",
            "type=registry,dest=x",
            "type=oci,dest=x,compression=lzma",
            "type=oci,dest=x,compression-level=99",
        ] {
            assert!(output(text).is_err(), "{text}");
        }
    }
}
