//! `kiln rollback`.

use clap::Args;

/// `kiln rollback`.
#[derive(Debug, Args)]
pub struct Rollback {
    /// The name
    #[arg(value_name = "NAME[:TAG]")]
    pub name: String,
    /// The image to go back to, one of `kiln history --tag`: at least 6 digits [default: the one before]
    #[arg(value_name = "DIGEST")]
    pub digest: Option<String>,
    /// Move the name in its registry, not here
    #[arg(long)]
    pub registry: bool,
    /// Move it even if it was moved there by somebody else
    #[arg(short = 'f', long, requires = "registry")]
    pub force: bool,
}
