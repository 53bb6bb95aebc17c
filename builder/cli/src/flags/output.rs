//! `-o type=TYPE,dest=PATH,…` and `-o PATH`.

mod compression;
mod form;
mod keys;

use std::path::PathBuf;

use dockerfile_parser::suggest;
use engine::{Destination, ImageForm, Output, OutputEpoch, Push};
use oci::Reference;

use self::{form::FORM, keys::Keys};
use super::BadFlag;

const TYPES: &str = "image, registry, oci, docker, local, tar or cacheonly";

/// An output that was asked for.
#[derive(Debug, PartialEq, Eq)]
pub struct Asked {
    /// The output.
    pub output: Output,
    /// What of its keys changes nothing.
    pub warnings: Vec<String>,
}

/// Where a result goes. A bare path is `type=local`, `-` is `type=tar` on standard output. With `push`, an image is
/// pushed whatever it says.
pub fn output(text: &str, push: bool) -> Result<Asked, BadFlag> {
    let epoch = OutputEpoch::OfBuild;
    if text == "-" {
        let output = Output::Tar { to: Destination::Stdout, platform_split: None, epoch };
        return Ok(Asked { output, warnings: Vec::new() });
    }
    if !text.contains('=') && !text.contains(',') {
        let output = Output::Local { to: PathBuf::from(text), platform_split: None, epoch };
        return Ok(Asked { output, warnings: Vec::new() });
    }
    let mut keys = Keys::read(text)?;
    let kind = keys.take("type").ok_or_else(|| keys.bad(format!("it has no `type`: {TYPES}")))?;
    let output = keys.output(&kind, push)?;
    Ok(Asked { output, warnings: keys.end(&kind, &known(&kind))? })
}

/// The keys of a type, sorted.
fn known(kind: &str) -> Vec<&'static str> {
    let own: &[&str] = match kind {
        "image" | "registry" => &[
            "danging-name-empty-only",
            "dangling-name-empty-only",
            "dangling-name-prefix",
            "name-canonical",
            "push",
            "push-by-digest",
            "registry.insecure",
            "store",
            "unpack",
        ],
        "oci" => &["dest", "tar"],
        "docker" => &["context", "dest", "tar"],
        "local" => &["attestation-prefix", "dest", "mode", "platform-split", "source-date-epoch"],
        "tar" => &["attestation-prefix", "dest", "platform-split", "source-date-epoch"],
        _ => &[],
    };
    let form: &[&str] = if matches!(kind, "image" | "registry" | "oci" | "docker") { &FORM } else { &[] };
    let mut all = [own, form].concat();
    all.sort_unstable();
    all
}

impl Keys<'_> {
    fn output(&mut self, kind: &str, push: bool) -> Result<Output, BadFlag> {
        match kind {
            "oci" => {
                let archive = self.flag("tar")?.unwrap_or(true);
                let (to, form) = (self.destination()?, self.image_form(kind)?);
                if !archive && to == Destination::Stdout {
                    return Err(self.bad("a folder (`tar=false`) cannot go to standard output"));
                }
                Ok(Output::Oci { to, archive, form })
            }
            "docker" => self.docker(),
            "local" => match self.destination()? {
                Destination::Path(to) => {
                    self.mode()?;
                    self.attestation_prefix();
                    Ok(Output::Local {
                        to,
                        platform_split: self.flag("platform-split")?,
                        epoch: self.epoch()?,
                    })
                }
                Destination::Stdout => Err(self.bad("a folder cannot go to standard output")),
            },
            "tar" => {
                self.attestation_prefix();
                let to = self.destination()?;
                Ok(Output::Tar { to, platform_split: self.flag("platform-split")?, epoch: self.epoch()? })
            }
            "cacheonly" => Ok(Output::CacheOnly),
            "image" | "registry" => self.image(kind, push),
            other => {
                let why = format!("there is no type `{other}`: {TYPES}");
                let types = ["image", "registry", "oci", "docker", "local", "tar", "cacheonly"];
                Err(match suggest::nearest(other, &types) {
                    Some(near) => self.bad_with(why, format!("-o type={near}")),
                    None => self.bad(why),
                })
            }
        }
    }

    /// An archive for a Docker Engine where there is a `dest`, else the engine itself.
    fn docker(&mut self) -> Result<Output, BadFlag> {
        if self.flag("tar")? == Some(false) {
            let why = "Docker's archive is always one file: `tar=false` is for OCI layouts";
            return Err(self.bad_with(why, "-o type=oci,tar=false,dest=FOLDER"));
        }
        let (dest, context) = (self.take("dest"), self.take("context"));
        match (dest, context) {
            (None, context) => Ok(Output::DockerEngine { context, form: self.image_form("docker")? }),
            (Some(dest), None) if !dest.is_empty() => {
                Ok(Output::Docker { to: destination(dest), form: self.image_form("docker")? })
            }
            (Some(_), None) => Err(self.bad("`dest` is empty")),
            (Some(_), Some(_)) => {
                Err(self.bad("`dest` is a file and `context` is a Docker Engine: keep one of them"))
            }
        }
    }

    fn image(&mut self, kind: &str, push: bool) -> Result<Output, BadFlag> {
        let store = self.flag("store")?.unwrap_or(true);
        let said = self.flag("push")?.unwrap_or(kind == "registry");
        let by_digest = self.flag("push-by-digest")?.unwrap_or(false);
        let insecure = self.flag("registry.insecure")?.unwrap_or(false);
        let pushed = said || push;
        for (key, given) in [("push-by-digest", by_digest), ("registry.insecure", insecure)] {
            if given && !pushed {
                self.warn(key, "nothing is pushed without `push=true`");
            }
        }
        // What the local store has is always there to run from, and always has a name with its digest.
        for harmless in ["unpack", "name-canonical"] {
            self.flag(harmless)?;
        }
        if pushed && by_digest {
            self.untagged()?;
        }
        let dangling = self.dangling()?;
        let form = ImageForm { dangling, ..self.image_form(kind)? };
        Ok(Output::Image { store, push: pushed.then_some(Push { by_digest, insecure }), form })
    }

    /// No name was written with a tag: read, every one has a tag.
    fn untagged(&self) -> Result<(), BadFlag> {
        let Some(tagged) = self.peek("name").unwrap_or_default().split(',').find(|name| has_tag(name)) else {
            return Ok(());
        };
        let why = format!("`{tagged}` has a tag, and `push-by-digest` pushes without one");
        Err(self.bad_with(why, "-o type=image,name=REGISTRY/NAME,push-by-digest=true,push=true"))
    }

    fn image_form(&mut self, kind: &str) -> Result<ImageForm, BadFlag> {
        let codec = self.codec()?;
        self.form(kind, codec)
    }

    fn destination(&mut self) -> Result<Destination, BadFlag> {
        match self.take("dest") {
            Some(dest) if !dest.is_empty() => Ok(destination(dest)),
            _ => Err(self.bad("it has no `dest`")),
        }
    }

    /// `mode=copy`, which leaves what else is in the folder.
    fn mode(&mut self) -> Result<(), BadFlag> {
        match self.take("mode").as_deref() {
            None | Some("copy") => Ok(()),
            Some("delete") => {
                let why = "`mode=delete`, which empties the folder first, is not supported yet";
                Err(self.bad_with(why, "remove the folder, then `mode=copy`"))
            }
            Some(other) => Err(self.bad(format!("there is no `mode={other}`: copy"))),
        }
    }

    fn attestation_prefix(&mut self) {
        if self.take("attestation-prefix").is_some() {
            self.warn("attestation-prefix", form::NO_ATTESTATIONS);
        }
    }
}

fn destination(dest: String) -> Destination {
    if dest == "-" { Destination::Stdout } else { Destination::Path(PathBuf::from(dest)) }
}

/// Whether a name was written with a tag: read, one without has that which it means.
pub fn has_tag(name: &str) -> bool {
    Reference::parse(name).is_ok_and(|read| read.tag.is_some_and(|tag| name.ends_with(&format!(":{tag}"))))
}

#[cfg(test)]
mod tests;
