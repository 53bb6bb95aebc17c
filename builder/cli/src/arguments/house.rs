//! `kiln du` and `kiln prune`.

use clap::Args;

/// `kiln du`.
#[derive(Debug, Args)]
pub struct Du {
    /// Only entries of this kind, for instance type=exec.cachemount, shared, description~=apt or until=24h
    #[arg(long = "filter", value_name = "FIELD[=VALUE]")]
    pub filters: Vec<String>,
    /// Tell all that is known of each entry; the same as --format=pretty
    #[arg(long)]
    pub verbose: bool,
    /// How it is written: table, pretty, or json, which is one entry a line
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<String>,
}

/// `kiln prune`.
#[derive(Debug, Args)]
pub struct Prune {
    /// Also what images with a name have a part in; the images stay
    #[arg(short = 'a', long)]
    pub all: bool,
    /// Only entries of this kind, for instance until=24h, type=exec.cachemount or description~=apt
    #[arg(long = "filter", value_name = "FIELD[=VALUE]")]
    pub filters: Vec<String>,
    /// Leave so much of the cache, for instance 10GB or 20% of the disk
    #[arg(long, visible_alias = "keep-storage", value_name = "SIZE")]
    pub reserved_space: Option<String>,
    /// Leave no more of the cache than this
    #[arg(long, value_name = "SIZE")]
    pub max_used_space: Option<String>,
    /// Remove until so much of the disk is free
    #[arg(long, value_name = "SIZE")]
    pub min_free_space: Option<String>,
    /// Tell all that is known of each entry that goes
    #[arg(long)]
    pub verbose: bool,
    /// Do not ask
    #[arg(short = 'f', long)]
    pub force: bool,
}
