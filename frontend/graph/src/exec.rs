//! `RUN`: a process on a root file system.

use std::collections::BTreeMap;

use oci::Platform;
use serde::{Deserialize, Serialize};

/// A process to run. Its first mount, with target `/`, is the root file system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exec {
    /// The program and its arguments.
    pub args: Vec<String>,
    /// What the programs of the root file system are for, as far as the image says. The same command on the same files
    /// is another step for another platform: a kernel or an emulator answers for it (`uname -m`).
    pub platform: Platform,
    /// `NAME=value`, in order; later ones win.
    pub env: Vec<String>,
    /// Absolute folder to start in.
    pub cwd: String,
    /// `USER` as written: name or id, with an optional group. Empty is root.
    pub user: String,
    /// Host name seen inside; empty is the default (`buildkitsandbox`).
    pub hostname: String,
    /// What of the network the process sees.
    pub network: Network,
    /// How far it is locked in.
    pub security: Security,
    /// The root file system first, then the others in the order they were written.
    pub mounts: Vec<Mount>,
    /// Secrets as variables.
    pub secret_env: Vec<SecretEnv>,
    /// Lines for `/etc/hosts`. Addresses are not part of any key.
    pub extra_hosts: Vec<ExtraHost>,
    /// Proxy variables, which are not part of any key. Not written down with the rest: an address of a proxy may hold a password.
    #[serde(skip)]
    pub proxy_env: BTreeMap<String, String>,
    /// Limits, which are not part of any key.
    pub resources: Resources,
    /// rlimits by name (`nofile`), which are not part of any key.
    pub ulimits: Vec<Ulimit>,
    /// Size of `/dev/shm` in bytes, which is not part of any key; 64 MiB where none is given.
    pub shm_size_bytes: Option<u64>,
}

impl Exec {
    /// The ids of the secrets that it may see, as files or as variables; one may come more than once.
    pub fn secret_ids(&self) -> impl Iterator<Item = &str> {
        let files = self.mounts.iter().filter_map(|mount| match &mount.kind {
            MountKind::Secret { id, .. } => Some(id.as_str()),
            _ => None,
        });
        files.chain(self.secret_env.iter().map(|secret| secret.id.as_str()))
    }

    /// Whether it is given something that must not outlive it: a secret or an agent.
    pub fn is_confided_in(&self) -> bool {
        let has_agent = self.mounts.iter().any(|mount| matches!(mount.kind, MountKind::Ssh { .. }));
        has_agent || self.secret_ids().next().is_some()
    }
}

impl Exec {
    /// A process as root in an empty tree, with nothing but its arguments.
    pub fn new(args: Vec<String>, platform: Platform) -> Exec {
        Exec {
            args,
            platform,
            env: Vec::new(),
            cwd: "/".to_owned(),
            user: String::new(),
            hostname: String::new(),
            network: Network::default(),
            security: Security::default(),
            mounts: vec![Exec::root(None)],
            secret_env: Vec::new(),
            extra_hosts: Vec::new(),
            proxy_env: BTreeMap::new(),
            resources: Resources::default(),
            ulimits: Vec::new(),
            shm_size_bytes: None,
        }
    }

    /// The mount of the root file system.
    pub fn root(input: Option<usize>) -> Mount {
        Mount {
            target: "/".to_owned(),
            input,
            selector: String::new(),
            readonly: false,
            kind: MountKind::Bind,
            output: Some(0),
        }
    }
}

/// What of the network a process sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Network {
    /// What the builder gives by default.
    #[default]
    Default,
    /// The loopback device only.
    None,
    /// The host's, which the request must allow.
    Host,
}

/// How far a process is locked in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Security {
    /// As a container.
    #[default]
    Sandbox,
    /// With all capabilities, which the request must allow.
    Insecure,
}

/// Something mounted into the root file system while the process runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Absolute path inside the root file system; `/` for the root itself.
    pub target: String,
    /// Which of the vertex's inputs is mounted; `None` is an empty tree.
    pub input: Option<usize>,
    /// The path of the input that is mounted; empty is all of it.
    pub selector: String,
    /// Whether writing is refused.
    pub readonly: bool,
    /// What kind of mount.
    pub kind: MountKind,
    /// The output that holds what was written; `None` throws it away.
    pub output: Option<u32>,
}

/// Kinds of mounts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountKind {
    /// A tree of the graph.
    Bind,
    /// A folder that outlives the build and is in no layer.
    Cache {
        /// Names the folder.
        id: String,
        /// What happens when two steps want it at once.
        sharing: CacheSharing,
        /// Mode of the folder when it is made.
        mode: u32,
        /// Owner of the folder when it is made.
        uid: u32,
        /// Group of the folder when it is made.
        gid: u32,
    },
    /// An empty file system in memory.
    Tmpfs {
        /// Limit in bytes.
        size_bytes: Option<u64>,
    },
    /// A secret as a file.
    Secret {
        /// Which secret.
        id: String,
        /// Mode of the file.
        mode: u32,
        /// Owner of the file.
        uid: u32,
        /// Group of the file.
        gid: u32,
        /// Whether the step fails without it.
        required: bool,
    },
    /// A socket that leads to an ssh agent.
    Ssh {
        /// Which agent.
        id: String,
        /// Mode of the socket.
        mode: u32,
        /// Owner of the socket.
        uid: u32,
        /// Group of the socket.
        gid: u32,
        /// Whether the step fails without it.
        required: bool,
    },
}

/// What happens when two steps want one cache at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum CacheSharing {
    /// Both use it.
    #[default]
    Shared,
    /// The second gets another one.
    Private,
    /// The second waits.
    Locked,
}

/// A secret as a variable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretEnv {
    /// The variable.
    pub name: String,
    /// Which secret.
    pub id: String,
    /// Whether the step fails without it.
    pub required: bool,
}

/// A line for `/etc/hosts`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExtraHost {
    /// The name.
    pub host: String,
    /// Its address, as written, or [`ExtraHost::GATEWAY`].
    pub ip: String,
}

impl ExtraHost {
    /// In place of an address: that at which a step reaches the host.
    pub const GATEWAY: &str = "host-gateway";
}

/// Limits of a step's control group; `None` is no limit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// Memory in bytes.
    pub memory_bytes: Option<u64>,
    /// Memory and swap together in bytes; -1 is no limit.
    pub memory_swap_bytes: Option<i64>,
    /// Relative weight.
    pub cpu_shares: Option<u64>,
    /// Period of the quota in microseconds.
    pub cpu_period_microseconds: Option<u64>,
    /// CPU time in a period in microseconds.
    pub cpu_quota_microseconds: Option<i64>,
    /// Cores, as `0-2,5`.
    pub cpuset_cpus: Option<String>,
    /// Memory nodes, as `0-1`.
    pub cpuset_mems: Option<String>,
}

/// An rlimit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ulimit {
    /// `nofile`, `nproc`, ….
    pub name: String,
    /// The soft limit.
    pub soft: u64,
    /// The hard limit.
    pub hard: u64,
}
