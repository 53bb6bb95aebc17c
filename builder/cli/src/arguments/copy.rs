//! `kiln copy`, `kiln referrers`, `kiln artifact`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::Shown;

/// `kiln copy`.
#[derive(Debug, Args)]
pub struct Copy {
    /// The image or artifact: REGISTRY/NAME[:TAG|@DIGEST], oci-layout://PATH[:TAG|@DIGEST] or local-store://NAME
    #[arg(value_name = "SOURCE")]
    pub source: String,
    /// Names that it gets, each in its registry
    #[arg(required = true, value_name = "REGISTRY/NAME[:TAG]")]
    pub targets: Vec<String>,
    /// Copy only these platforms: of one its manifest, of several an index of them [default: all]
    #[arg(long, value_name = "OS/ARCH[,…]", value_delimiter = ',')]
    pub platform: Vec<String>,
    /// Copy what refers to it as well: signatures, SBOMs, attestations, and what refers to those
    #[arg(long)]
    pub referrers: bool,
    #[command(flatten)]
    pub shown: Shown,
}

/// `kiln referrers`.
#[derive(Debug, Args)]
pub struct Referrers {
    /// The image or artifact
    #[arg(value_name = "REGISTRY/NAME[:TAG|@DIGEST]")]
    pub name: String,
    /// Only those of this type
    #[arg(long, value_name = "TYPE")]
    pub artifact_type: Option<String>,
    /// table, or json: an index of their descriptors
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    pub format: String,
}

/// `kiln artifact`.
#[derive(Debug, Args)]
pub struct Artifact {
    /// What to do.
    #[command(subcommand)]
    pub command: ArtifactCommand,
}

/// What to do with an artifact.
#[derive(Debug, Subcommand)]
pub enum ArtifactCommand {
    /// Write the files of an artifact
    Fetch(ArtifactFetch),
}

/// `kiln artifact fetch`.
#[derive(Debug, Args)]
pub struct ArtifactFetch {
    /// REGISTRY/NAME[:TAG|@DIGEST], oci-layout://PATH[:TAG|@DIGEST] or local-store://NAME
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Write them into this folder
    #[arg(short = 'o', long = "output", value_name = "DIR", default_value = ".")]
    pub output: PathBuf,
    #[command(flatten)]
    pub shown: Shown,
}
