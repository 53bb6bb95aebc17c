//! Why a step cannot be limited, and the line that mends it.

use std::io;
use std::path::{Path, PathBuf};

/// Why there is no control group with the limits that were asked for.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// No mounted hierarchy has the controller.
    #[error(
        "`{limit}` cannot be kept: no control group hierarchy of this machine has the controller `{controller}`"
    )]
    NoController {
        /// The limit, by the name of `--resource`.
        limit: &'static str,
        /// The kernel's name of what would keep it.
        controller: &'static str,
    },
    /// Controllers can be given to groups only by one that holds no process (cgroup v2), and others than ours are in it.
    #[error(
        "steps cannot be limited: processes besides this one are in the control group {}, which can then have no \
         groups with limits below it",
        folder.display()
    )]
    Occupied {
        /// The control group.
        folder: PathBuf,
    },
    /// No group can be made.
    #[error("steps cannot be limited: no control group can be made in {}", folder.display())]
    NotOurs {
        /// Where.
        folder: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The kernel does not take a value.
    #[error("the limit {limit}={value} is refused by the kernel ({})", file.display())]
    Refused {
        /// The limit, by the name of `--resource`.
        limit: &'static str,
        /// The value as the kernel was given it.
        value: String,
        /// The file that it was written to.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What the kernel says about the own groups cannot be read.
    #[error("cannot read {}", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Starts a program in a control group of its own, which it may divide.
const DELEGATED: &str = "systemd-run --user --scope -p Delegate=yes kiln build …";

impl CgroupError {
    /// A command that mends it.
    pub fn help(&self) -> Option<String> {
        match self {
            CgroupError::NoController { controller: "memory", .. } => Some(
                "start Linux with `cgroup_enable=memory swapaccount=1`, or mount the controllers: mount -t cgroup2 none \
                 /sys/fs/cgroup"
                    .to_owned(),
            ),
            CgroupError::NoController { .. } => {
                Some("mount the controllers: mount -t cgroup2 none /sys/fs/cgroup".to_owned())
            }
            CgroupError::Occupied { folder } => Some(format!(
                "{DELEGATED}; or, where there is no systemd: {}",
                empty_it(folder)
            )),
            CgroupError::NotOurs { source, .. } if source.kind() == io::ErrorKind::ReadOnlyFilesystem => {
                Some("mount -o remount,rw /sys/fs/cgroup (in a container: run that with --privileged)".to_owned())
            }
            CgroupError::NotOurs { .. } => Some(DELEGATED.to_owned()),
            CgroupError::Refused { limit: "cpuset-cpus", .. } => {
                Some("`cat /sys/devices/system/cpu/online` lists the processors that there are".to_owned())
            }
            CgroupError::Refused { limit: "cpuset-mems", .. } => {
                Some("`cat /sys/devices/system/node/online` lists the memory nodes that there are".to_owned())
            }
            CgroupError::Refused { .. } | CgroupError::Unreadable { .. } => None,
        }
    }
}

/// Moves every process of a group into a new one below it.
fn empty_it(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        "mkdir {folder}/main && for p in $(cat {folder}/cgroup.procs); do echo $p > {folder}/main/cgroup.procs; done"
    )
}
