//! The keys that all outputs of images have: how the image is written.

use engine::{DanglingName, ImageForm, OutputEpoch};
use image::{annotations::Annotations, assemble::Dialect, compress::Codec};
use oci::Reference;

use super::keys::Keys;
use crate::flags::{BadFlag, annotation};

/// Their names, sorted.
pub const FORM: [&str; 14] = [
    "annotation",
    "attestation-inline",
    "buildinfo",
    "buildinfo-attrs",
    "compatibility-version",
    "compression",
    "compression-level",
    "force-compression",
    "name",
    "oci-artifact",
    "oci-mediatypes",
    "prefer-nondist-layers",
    "rewrite-timestamp",
    "source-date-epoch",
];

/// Why keys about attestations change nothing.
pub const NO_ATTESTATIONS: &str = "Kiln writes no attestations yet";
const NO_BUILDINFO: &str = "BuildKit does not write it any more either";

impl Keys<'_> {
    /// How the image of an output of type `kind` is written, its own layers by `codec`.
    pub fn form(&mut self, kind: &str, codec: Codec) -> Result<ImageForm, BadFlag> {
        for key in ["buildinfo", "buildinfo-attrs"] {
            self.idle_flag(key, NO_BUILDINFO)?;
        }
        self.idle_flag("attestation-inline", NO_ATTESTATIONS)?;
        let artifact = self.flag("oci-artifact")? == Some(true);
        let dialect = self.dialect(kind, codec)?;
        match (artifact, dialect) {
            (true, Dialect::Docker) => {
                let why = "`oci-artifact=true` contradicts Docker's media types";
                return Err(self.bad_with(why, "leave `oci-artifact` or `oci-mediatypes=false` away"));
            }
            (true, Dialect::Oci) => self.warn("oci-artifact", NO_ATTESTATIONS),
            (false, _) => {}
        }
        Ok(ImageForm {
            codec,
            force_compression: self.flag("force-compression")?.unwrap_or(false),
            names: self.names()?,
            dangling: None,
            annotations: self.annotations()?,
            dialect,
            epoch: self.epoch()?,
            rewrite_timestamp: self.flag("rewrite-timestamp")?,
            prefer_foreign_layers: self.flag("prefer-nondist-layers")?.unwrap_or(false),
        })
    }

    /// Whose media types. BuildKit's own default was Docker's for all but OCI layouts until its compatibility version
    /// 30.
    fn dialect(&mut self, kind: &str, codec: Codec) -> Result<Dialect, BadFlag> {
        // Such layers are told by annotations, which Docker's documents lack.
        let oci_only = matches!(codec, Codec::EStargz { .. } | Codec::ZstdChunked { .. });
        let default = match self.take("compatibility-version").as_deref() {
            None | Some("30") => Dialect::Oci,
            Some("20") if kind == "oci" || oci_only => Dialect::Oci,
            Some("20") => Dialect::Docker,
            Some("10") => {
                let why = "`compatibility-version=10` is not supported: it changes the modes of a repository's files too";
                return Err(self.bad_with(why, "compatibility-version=20, or oci-mediatypes=false"));
            }
            Some(other) => {
                return Err(self.bad(format!("there is no `compatibility-version={other}`: 20 or 30")));
            }
        };
        match self.flag("oci-mediatypes")? {
            None => Ok(default),
            Some(true) => Ok(Dialect::Oci),
            Some(false) if oci_only => {
                // BuildKit takes OCI's as well, and warns in its log.
                let name = codec.name();
                let why = format!("{name} needs OCI's, for the annotations of its layers");
                self.warn("oci-mediatypes", &why);
                Ok(Dialect::Oci)
            }
            Some(false) => Ok(Dialect::Docker),
        }
    }

    /// `source-date-epoch=SECONDS`; without a number, none.
    pub fn epoch(&mut self) -> Result<OutputEpoch, BadFlag> {
        match self.take("source-date-epoch").as_deref() {
            None => Ok(OutputEpoch::OfBuild),
            Some("") => Ok(OutputEpoch::Unset),
            Some(text) => match text.parse() {
                Ok(epoch) => Ok(OutputEpoch::At(epoch)),
                Err(error) => Err(self.bad_with(
                    format!("`source-date-epoch`: {}", error),
                    "source-date-epoch=$(git log -1 --format=%ct)",
                )),
            },
        }
    }

    /// `name=A,B`.
    fn names(&mut self) -> Result<Vec<Reference>, BadFlag> {
        let names = self.take("name").unwrap_or_default();
        names.split(',').filter(|name| !name.is_empty()).map(|name| self.name("name", name)).collect()
    }

    fn name(&self, key: &str, text: &str) -> Result<Reference, BadFlag> {
        match Reference::parse(text) {
            Ok(name) if name.digest.is_none() => Ok(name),
            Ok(_) => {
                let why = format!("`{key}` of an image that is yet to be made cannot have a digest");
                Err(self.bad_with(why, format!("{key}=registry.example/app")))
            }
            Err(error) => Err(self.bad_with(error.to_string(), format!("{key}=registry.example/app"))),
        }
    }

    /// `dangling-name-prefix`, and whether it is for images without names only, which BuildKit spells as it does.
    pub fn dangling(&mut self) -> Result<Option<DanglingName>, BadFlag> {
        let spelled = self.flag("dangling-name-empty-only")?;
        let only_unnamed = self.flag("danging-name-empty-only")?.or(spelled).unwrap_or(false);
        let Some(text) = self.take("dangling-name-prefix").filter(|text| !text.is_empty()) else {
            return Ok(None);
        };
        let prefix = Reference { tag: None, ..self.name("dangling-name-prefix", &text)? };
        Ok(Some(DanglingName { prefix, only_unnamed }))
    }

    /// `annotation[-LEVEL][[PLATFORM]].KEY=VALUE`, as often as wanted.
    fn annotations(&mut self) -> Result<Annotations, BadFlag> {
        let mut annotations = Annotations::default();
        for (place, value) in self.take_all("annotation") {
            let key = annotation::of_output(&place).map_err(|why| {
                self.bad_with(why, "-o type=image,annotation-manifest[linux/amd64].KEY=VALUE")
            })?;
            annotations.insert(key, value);
        }
        Ok(annotations)
    }
}
