//! `kiln shell`.

use std::path::PathBuf;

use clap::Args;

use super::{ProcessLimits, Resources};

/// `kiln shell`.
#[derive(Debug, Args)]
#[command(after_help = "\
Alone, it lists the steps of the last build. STEP is a step's number in that list and in the build's output (7), its place \
in its stage (build:3), or a line of the Dockerfile (Dockerfile:12). What is written is thrown away. A command is ended \
after a time by timeout 1m kiln shell STEP COMMAND.")]
pub struct Shell {
    /// A step of the last build, or an image of the local store [default: list the steps]
    #[arg(value_name = "STEP|IMAGE")]
    pub of: Option<String>,
    /// The command and its arguments [default: the stage's shell, else /bin/sh]
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<String>,
    /// As it was after the step, and not before it
    #[arg(long)]
    pub after: bool,
    /// Run as this user
    #[arg(short = 'u', long, value_name = "USER[:GROUP]")]
    pub user: Option<String>,
    /// Run as root: -u 0
    #[arg(long, conflicts_with = "user")]
    pub root_user: bool,
    /// The last build of this Dockerfile, as it is now
    #[arg(short = 'f', long = "file", value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Give the step a secret: id=ID[,src=FILE|,env=VARIABLE]
    #[arg(long = "secret", value_name = "id=ID,…")]
    pub secrets: Vec<String>,
    /// Give the step an ssh agent: default, or ID=SOCKET
    #[arg(long = "ssh", value_name = "default|ID=SOCKET")]
    pub ssh: Vec<String>,
    /// Keep what is written to cache mounts
    #[arg(long)]
    pub write_caches: bool,
    #[command(flatten)]
    pub resources: Resources,
    #[command(flatten)]
    pub limits: ProcessLimits,
}
