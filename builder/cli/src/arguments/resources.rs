//! Flags that limit what runs: the steps of `kiln build`, and what `kiln run` and `kiln shell` start.

use std::path::PathBuf;

use clap::Args;

/// Limits of what is run.
#[derive(Debug, Default, Args)]
pub struct Resources {
    /// Limit each step, or the command: memory, memory-swap, memory-reservation, cpus, cpu-shares, cpu-period, cpu-quota, cpuset-cpus,
    /// cpuset-mems, pids
    #[arg(long = "resource", value_name = "NAME=VALUE,…")]
    pub resources: Vec<String>,
    /// The most memory of each step, or of the command, for instance 2g; the same as --resource memory=2g
    #[arg(short = 'm', long, value_name = "SIZE")]
    pub memory: Option<String>,
    #[arg(long, hide = true, allow_negative_numbers = true)]
    pub memory_swap: Option<String>,
    #[arg(short = 'c', long, hide = true)]
    pub cpu_shares: Option<String>,
    #[arg(long, hide = true)]
    pub cpu_period: Option<String>,
    #[arg(long, hide = true, allow_negative_numbers = true)]
    pub cpu_quota: Option<String>,
    #[arg(long, hide = true)]
    pub cpuset_cpus: Option<String>,
    #[arg(long, hide = true)]
    pub cpuset_mems: Option<String>,
    /// Run in control groups below this one
    #[arg(long, value_name = "PATH")]
    pub cgroup_parent: Option<PathBuf>,
}

/// Limits of single processes, and of their `/dev/shm`.
#[derive(Debug, Default, Args)]
pub struct ProcessLimits {
    /// Size of /dev/shm, for instance 128m
    #[arg(long, value_name = "SIZE")]
    pub shm_size: Option<String>,
    /// Resource limit of its processes, for instance nofile=1024:2048
    #[arg(long = "ulimit", value_name = "NAME=SOFT[:HARD]")]
    pub ulimits: Vec<String>,
}
