//! `kiln info`.

use clap::Args;

/// `kiln info`.
#[derive(Debug, Args)]
pub struct Info {
    /// How it is shown: text or json
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub format: String,
}
