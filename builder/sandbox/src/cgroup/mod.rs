//! Limits that the kernel keeps for a whole step, and what the step took: control groups.
//!
//! ```text
//! <group of this process>/kiln.PID.0/     locked while the build lives (flock), one for each hierarchy
//!                                   0/    a step's group, removed when the step is gone
//!                                   1/    another, at the same time
//! ```
//!
//! What would surprise a reader:
//!
//! - A step enters its group before anything else it does ([`Call::JoinGroup`](crate::Call)): version 2 clones it right into
//!   it. The group is the `/` of its cgroup namespace.
//! - A group is a step's own and not used again: what an earlier step left in the page cache would count.
//! - Groups of a build that was killed are found by their name and their lock, and are removed by the next build that makes
//!   groups in the same place. No process id is believed, because it may be one of another pid namespace.
//! - Where groups are made, see `base.rs`. Nothing is made, and nothing is asked, where there is no limit.

mod base;
mod error;
mod folder;
mod hierarchy;
mod left;
mod settings;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

pub use error::CgroupError;
pub use left::available_memory;

use base::MovedAway;
use folder::{BuildFolder, write};
pub(crate) use folder::{locked, remove, sweep};
pub(crate) use hierarchy::Hierarchies;
use hierarchy::Hierarchy;
use settings::{Controller, Version, controllers, settings};

/// Limits of a step, all its processes together. What is `None` is not limited.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// The most memory.
    pub memory_bytes: Option<u64>,
    /// The most memory and swap together. Where only the memory is limited, there is as much swap.
    pub memory_swap: Option<Swap>,
    /// What is left to the step when memory gets scarce.
    pub memory_reservation_bytes: Option<u64>,
    /// Its part of the processors where they do not suffice; 1024 is that of others.
    pub cpu_shares: Option<u64>,
    /// The time that a quota is of; 100 ms where there is none.
    pub cpu_period_microseconds: Option<u64>,
    /// How much processor time it gets in each period.
    pub cpu_quota_microseconds: Option<u64>,
    /// The processors that it may run on, as `0-2,4`.
    pub cpuset_cpus: Option<String>,
    /// The memory nodes that it may use, as `0-1`.
    pub cpuset_mems: Option<String>,
    /// How many processes and threads it may have at once.
    pub pids: Option<u64>,
}

/// How much memory and swap there are together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Swap {
    /// So many bytes.
    Total(u64),
    /// As much swap as there is.
    Unlimited,
}

/// Makes the groups of one build. Dropped, it removes what is left of them.
#[derive(Debug)]
pub struct Cgroups {
    resources: Resources,
    // In this order: while there are groups with controllers, nobody moves back.
    folders: Vec<BuildFolder>,
    _moved_away: Option<MovedAway>,
    made: AtomicU64,
}

/// The group of one step. Dropped, it is removed: nothing may run in it any more.
#[derive(Debug)]
pub struct Group {
    memberships: Vec<Membership>,
    memory: Option<(PathBuf, Version)>,
    cpu: Option<PathBuf>,
}

/// A group that a step enters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    /// Its folder, absolute.
    pub folder: PathBuf,
    /// Whether it is one of version 2.
    pub unified: bool,
}

/// What the kernel says about a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupUsage {
    /// The most memory that all its processes had at once, with the page cache that they filled. `None` where the memory
    /// is not limited, or the kernel does not tell (version 2 before Linux 5.19).
    pub peak_memory_bytes: Option<u64>,
    /// How many of its processes were killed because of its memory limit.
    pub killed_for_memory: u64,
    /// In how many periods it had used up its quota of processor time.
    pub throttled_periods: u64,
}

impl Cgroups {
    /// Finds out where groups can be made, and makes the build's own. With `parent`, a path in the hierarchies, they are made
    /// below that group, which is made if it is not there.
    ///
    /// # Errors
    /// [`CgroupError`], with what mends it.
    pub fn open(resources: Resources, parent: Option<&Path>) -> Result<Cgroups, CgroupError> {
        let read = |file: &str| {
            fs::read_to_string(file)
                .map_err(|source| CgroupError::Unreadable { file: PathBuf::from(file), source })
        };
        let found = Hierarchies::parse(&read("/proc/self/cgroup")?, &read("/proc/self/mountinfo")?);
        Cgroups::on(&found, resources, parent)
    }

    fn on(found: &Hierarchies, resources: Resources, parent: Option<&Path>) -> Result<Cgroups, CgroupError> {
        let mut needed = controllers(&resources);
        if parent.is_some() {
            // Whatever limits the parent has are to hold.
            let more = Controller::ALL.into_iter().filter(|one| needed.iter().all(|(known, _)| known != one));
            let is_there =
                |one: &Controller| found.by_controller.contains_key(one) || found.unified.is_some();
            needed.extend(more.filter(is_there).map(|one| (one, "cgroup-parent")).collect::<Vec<_>>());
        }
        let (mut folders, mut moved_away) = (Vec::new(), None);
        let mut unified = Vec::new();
        // Of controllers that are mounted together there is one folder.
        let mut first: BTreeMap<&Path, Vec<Controller>> = BTreeMap::new();
        for (controller, limit) in needed {
            match (found.by_controller.get(&controller), &found.unified) {
                (Some(Hierarchy { own, mount }), _) => {
                    first.entry(parent.map_or(own, |_| mount)).or_default().push(controller);
                }
                (None, Some(hierarchy)) if parent.is_some() && !base::has(hierarchy, controller) => {}
                (None, Some(hierarchy)) if base::has(hierarchy, controller) => unified.push(controller),
                _ => return Err(CgroupError::NoController { limit, controller: controller.name() }),
            }
        }
        for (own, controllers) in first {
            let base = match parent {
                Some(parent) => base::parent(own, parent, &[])?,
                None => own.to_owned(),
            };
            folders.push(BuildFolder::make(&base, Version::One, controllers)?);
        }
        if let (Some(hierarchy), false) = (&found.unified, unified.is_empty()) {
            let (folder, moved) = base::unified(hierarchy, parent, unified)?;
            folders.push(folder);
            moved_away = moved;
        }
        if parent.is_some() && folders.is_empty() {
            let controller = Controller::Memory.name();
            return Err(CgroupError::NoController { limit: "cgroup-parent", controller });
        }
        Ok(Cgroups { resources, folders, _moved_away: moved_away, made: AtomicU64::new(0) })
    }

    /// Makes the group of a step, with all limits.
    ///
    /// # Errors
    /// The kernel refuses a limit, or another group.
    pub fn group(&self) -> Result<Group, CgroupError> {
        let name = self.made.fetch_add(1, Ordering::Relaxed).to_string();
        let mut group = Group { memberships: Vec::new(), memory: None, cpu: None };
        for build in &self.folders {
            let folder = build.path().join(&name);
            fs::create_dir(&folder)
                .map_err(|source| CgroupError::NotOurs { folder: folder.clone(), source })?;
            let unified = build.version() == Version::Two;
            // From here on it is removed whatever happens.
            group.memberships.push(Membership { folder: folder.clone(), unified });
            for controller in build.controllers() {
                match controller {
                    Controller::Memory => group.memory = Some((folder.clone(), build.version())),
                    Controller::Cpu => group.cpu = Some(folder.clone()),
                    Controller::Cpuset if !unified => folder::inherit_sets(build.path(), &folder)?,
                    Controller::Cpuset | Controller::Pids => {}
                }
                for setting in settings(&self.resources, *controller, build.version()) {
                    write(&folder, &setting)?;
                }
            }
        }
        Ok(group)
    }
}

impl Group {
    /// What a step's [`Spec`](crate::Spec) needs to run in it.
    pub fn memberships(&self) -> &[Membership] {
        &self.memberships
    }

    /// What the kernel says now. What it does not tell is zero.
    pub fn usage(&self) -> GroupUsage {
        let mut usage = GroupUsage::default();
        if let Some((folder, version)) = &self.memory {
            let (peak, events) = match version {
                Version::One => ("memory.max_usage_in_bytes", "memory.oom_control"),
                Version::Two => ("memory.peak", "memory.events"),
            };
            usage.peak_memory_bytes =
                fs::read_to_string(folder.join(peak)).ok().and_then(|text| text.trim().parse().ok());
            usage.killed_for_memory = field(&folder.join(events), "oom_kill");
        }
        if let Some(folder) = &self.cpu {
            usage.throttled_periods = field(&folder.join("cpu.stat"), "nr_throttled");
        }
        usage
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // What is still in use goes with the build's own folder.
        self.memberships.iter().for_each(|membership| remove(&membership.folder));
    }
}

/// A line `NAME NUMBER` of a file.
fn field(file: &Path, name: &str) -> u64 {
    let Ok(text) = fs::read_to_string(file) else { return 0 };
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
    value.unwrap_or(0)
}

#[cfg(test)]
mod tests;
