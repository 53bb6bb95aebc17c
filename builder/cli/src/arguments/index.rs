//! `kiln index`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::Shown;

/// `kiln index`.
#[derive(Debug, Args)]
pub struct Index {
    /// What to do.
    #[command(subcommand)]
    pub command: IndexCommand,
}

/// What to do with an index.
#[derive(Debug, Subcommand)]
pub enum IndexCommand {
    /// Make an index of images that are in registries, and put it there
    Create(Box<IndexCreate>),
    /// Show what a name stands for: an index, an image or another artifact
    Inspect(IndexInspect),
}

/// `kiln index create`.
#[derive(Debug, Args)]
pub struct IndexCreate {
    /// What it is made of: REGISTRY/NAME:TAG, …@DIGEST, a digest, a descriptor as JSON, oci-layout://PATH[:TAG|@DIGEST] or
    /// local-store://NAME; an index gives all that it lists
    #[arg(value_name = "SOURCE")]
    pub sources: Vec<String>,
    /// Name it in its registry; may be given more than once. What the registry lacks is copied there
    #[arg(short = 't', long = "tag", value_name = "REGISTRY/NAME[:TAG]")]
    pub tags: Vec<String>,
    /// Read a source from a file: a reference, a digest or a descriptor as JSON; - is standard input
    #[arg(short = 'f', long = "file", value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Add an annotation to the index, or with the level manifest-descriptor, and [OS/ARCH] behind it for one platform, to
    /// where the index names a manifest
    #[arg(long = "annotation", value_name = "[LEVEL,…:]NAME=VALUE")]
    pub annotations: Vec<String>,
    /// Add to what the first --tag stands for now
    #[arg(long)]
    pub append: bool,
    /// Show the index and put it nowhere
    #[arg(long)]
    pub dry_run: bool,
    /// Take only these platforms, with what attests them
    #[arg(long, value_name = "OS/ARCH[,…]", value_delimiter = ',')]
    pub platform: Vec<String>,
    /// Put an index around a single image; false copies it as it is
    #[arg(
        long, num_args = 0..=1, require_equals = true, default_value = "true", default_missing_value = "true",
        action = clap::ArgAction::Set, value_name = "BOOL"
    )]
    pub prefer_index: bool,
    /// Write what was made as JSON to this file
    #[arg(long, value_name = "FILE")]
    pub metadata_file: Option<PathBuf>,
    #[command(flatten)]
    pub shown: Shown,
}

/// `kiln index inspect`.
#[derive(Debug, Args)]
pub struct IndexInspect {
    /// REGISTRY/NAME[:TAG|@DIGEST], oci-layout://PATH[:TAG|@DIGEST] or local-store://NAME
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Write the bytes as they are, and nothing else
    #[arg(long, conflicts_with = "format")]
    pub raw: bool,
    /// json, or one of buildx's templates {{json .Manifest}}, {{.Manifest.Digest}}, {{.Manifest.MediaType}}, {{.Name}}
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<String>,
}
