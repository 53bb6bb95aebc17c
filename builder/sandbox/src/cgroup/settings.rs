//! Limits as what is written into which file of a control group.

use crate::cgroup::{Resources, Swap};

/// A part of the kernel that keeps limits of groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Controller {
    Cpu,
    Cpuset,
    Memory,
    Pids,
}

impl Controller {
    /// All that limits can need.
    pub const ALL: [Controller; 4] =
        [Controller::Cpu, Controller::Cpuset, Controller::Memory, Controller::Pids];

    /// The kernel's name.
    pub fn name(self) -> &'static str {
        match self {
            Controller::Cpu => "cpu",
            Controller::Cpuset => "cpuset",
            Controller::Memory => "memory",
            Controller::Pids => "pids",
        }
    }
}

/// Which interface of the kernel a group has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Version {
    One,
    Two,
}

/// One value to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Setting {
    /// Who keeps it.
    pub controller: Controller,
    /// The file in the group's folder.
    pub file: &'static str,
    /// What is written.
    pub value: String,
    /// What a user calls the limit.
    pub limit: &'static str,
    /// Whether a kernel without that file does without it, because nobody asked for the value.
    pub optional: bool,
}

/// How long a period is where nobody says.
const PERIOD_MICROSECONDS: u64 = 100_000;

/// Which controllers the limits need, each with a limit that needs it.
pub(crate) fn controllers(resources: &Resources) -> Vec<(Controller, &'static str)> {
    let Resources {
        memory_bytes,
        memory_swap,
        memory_reservation_bytes,
        cpu_shares,
        cpu_period_microseconds,
        cpu_quota_microseconds,
        cpuset_cpus,
        cpuset_mems,
        pids,
    } = resources;
    let asked = [
        (Controller::Cpu, "cpu-shares", cpu_shares.is_some()),
        (Controller::Cpu, "cpu-quota", cpu_quota_microseconds.is_some()),
        (Controller::Cpu, "cpu-period", cpu_period_microseconds.is_some()),
        (Controller::Cpuset, "cpuset-cpus", cpuset_cpus.is_some()),
        (Controller::Cpuset, "cpuset-mems", cpuset_mems.is_some()),
        (Controller::Memory, "memory", memory_bytes.is_some()),
        (Controller::Memory, "memory-swap", memory_swap.is_some()),
        (Controller::Memory, "memory-reservation", memory_reservation_bytes.is_some()),
        (Controller::Pids, "pids", pids.is_some()),
    ];
    let mut needed: Vec<(Controller, &'static str)> = Vec::new();
    for (controller, limit, asked) in asked {
        if asked && needed.iter().all(|(known, _)| *known != controller) {
            needed.push((controller, limit));
        }
    }
    needed
}

/// What is to be written, in this order.
pub(crate) fn settings(resources: &Resources, controller: Controller, version: Version) -> Vec<Setting> {
    let set = |file, limit, value: Option<String>| {
        value.map(|value| Setting { controller, file, value, limit, optional: false })
    };
    let number = |value: Option<u64>| value.map(|value| value.to_string());
    let list: Vec<Option<Setting>> = match (controller, version) {
        (Controller::Memory, Version::One) => vec![
            set("memory.limit_in_bytes", "memory", number(resources.memory_bytes)),
            swap(resources, "memory.memsw.limit_in_bytes", |total, _| total.to_string(), "-1"),
            set(
                "memory.soft_limit_in_bytes",
                "memory-reservation",
                number(resources.memory_reservation_bytes),
            ),
        ],
        (Controller::Memory, Version::Two) => vec![
            set("memory.max", "memory", number(resources.memory_bytes)),
            swap(
                resources,
                "memory.swap.max",
                |total, memory| total.saturating_sub(memory).to_string(),
                "max",
            ),
            set("memory.low", "memory-reservation", number(resources.memory_reservation_bytes)),
        ],
        (Controller::Cpu, Version::One) => vec![
            set("cpu.shares", "cpu-shares", number(resources.cpu_shares)),
            set("cpu.cfs_period_us", "cpu-period", number(resources.cpu_period_microseconds)),
            set("cpu.cfs_quota_us", "cpu-quota", number(resources.cpu_quota_microseconds)),
        ],
        (Controller::Cpu, Version::Two) => {
            let period = resources.cpu_period_microseconds;
            let max = (resources.cpu_quota_microseconds.or(period).is_some()).then(|| {
                let quota = number(resources.cpu_quota_microseconds).unwrap_or_else(|| "max".to_owned());
                format!("{quota} {}", period.unwrap_or(PERIOD_MICROSECONDS))
            });
            vec![
                set("cpu.weight", "cpu-shares", number(resources.cpu_shares.map(weight))),
                set("cpu.max", "cpu-quota", max),
            ]
        }
        (Controller::Cpuset, _) => vec![
            set("cpuset.cpus", "cpuset-cpus", resources.cpuset_cpus.clone()),
            set("cpuset.mems", "cpuset-mems", resources.cpuset_mems.clone()),
        ],
        // The step's PID 1 is ours, and does not count for the user.
        (Controller::Pids, _) => {
            vec![set("pids.max", "pids", number(resources.pids.map(|pids| pids.saturating_add(1))))]
        }
    };
    list.into_iter().flatten().collect()
}

/// Memory and swap together: what was asked for, else twice the memory, as `docker run` has it.
fn swap(
    resources: &Resources,
    file: &'static str,
    limited: impl Fn(u64, u64) -> String,
    unlimited: &str,
) -> Option<Setting> {
    let memory = resources.memory_bytes;
    let (value, optional) = match (resources.memory_swap, memory) {
        (Some(Swap::Unlimited), _) => (unlimited.to_owned(), false),
        (Some(Swap::Total(total)), memory) => (limited(total, memory.unwrap_or(0)), false),
        (None, Some(memory)) => (limited(memory.saturating_mul(2), memory), true),
        (None, None) => return None,
    };
    Some(Setting { controller: Controller::Memory, file, value, limit: "memory-swap", optional })
}

/// `cpu.shares` (2 to 262144, 1024 is usual) as `cpu.weight` (1 to 10000, 100 is usual), on the line that runc takes.
fn weight(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Resources {
        Resources {
            memory_bytes: Some(64 << 20),
            memory_swap: Some(Swap::Total(96 << 20)),
            memory_reservation_bytes: Some(32 << 20),
            cpu_shares: Some(1024),
            cpu_period_microseconds: Some(50_000),
            cpu_quota_microseconds: Some(25_000),
            cpuset_cpus: Some("0-1".to_owned()),
            cpuset_mems: Some("0".to_owned()),
            pids: Some(50),
        }
    }

    fn written(resources: &Resources, version: Version) -> Vec<String> {
        let of = |controller| settings(resources, controller, version);
        Controller::ALL
            .into_iter()
            .flat_map(of)
            .map(|setting| format!("{}={}", setting.file, setting.value))
            .collect()
    }

    #[test]
    fn limits_are_files_of_either_version() {
        assert_eq!(
            written(&all(), Version::One),
            [
                "cpu.shares=1024",
                "cpu.cfs_period_us=50000",
                "cpu.cfs_quota_us=25000",
                "cpuset.cpus=0-1",
                "cpuset.mems=0",
                "memory.limit_in_bytes=67108864",
                "memory.memsw.limit_in_bytes=100663296",
                "memory.soft_limit_in_bytes=33554432",
                "pids.max=51",
            ]
        );
        assert_eq!(
            written(&all(), Version::Two),
            [
                "cpu.weight=39",
                "cpu.max=25000 50000",
                "cpuset.cpus=0-1",
                "cpuset.mems=0",
                "memory.max=67108864",
                "memory.swap.max=33554432",
                "memory.low=33554432",
                "pids.max=51",
            ]
        );
        assert_eq!(written(&Resources::default(), Version::One), Vec::<String>::new());
        assert_eq!(written(&Resources::default(), Version::Two), Vec::<String>::new());
    }

    #[test]
    fn swap_is_as_much_as_memory_where_nobody_says() {
        let memory = Resources { memory_bytes: Some(100), ..Resources::default() };
        assert_eq!(written(&memory, Version::One)[1], "memory.memsw.limit_in_bytes=200");
        assert_eq!(written(&memory, Version::Two)[1], "memory.swap.max=100");
        let without = Resources { memory_swap: Some(Swap::Unlimited), ..memory };
        assert_eq!(written(&without, Version::One)[1], "memory.memsw.limit_in_bytes=-1");
        assert_eq!(written(&without, Version::Two)[1], "memory.swap.max=max");
    }

    #[test]
    fn a_quota_without_a_period_has_the_usual_one() {
        let quota = Resources { cpu_quota_microseconds: Some(5), ..Resources::default() };
        assert_eq!(written(&quota, Version::Two), ["cpu.max=5 100000"]);
        let period = Resources { cpu_period_microseconds: Some(5000), ..Resources::default() };
        assert_eq!(written(&period, Version::Two), ["cpu.max=max 5000"]);
    }

    #[test]
    fn shares_stay_in_the_range_of_weights() {
        for (shares, expected) in [(0, 1), (2, 1), (1024, 39), (262_144, 10_000), (u64::MAX, 10_000)] {
            assert_eq!(weight(shares), expected, "{shares}");
        }
    }

    #[test]
    fn each_controller_is_needed_once() {
        let needed = controllers(&all());
        assert_eq!(needed.iter().map(|(controller, _)| *controller).collect::<Vec<_>>(), Controller::ALL);
        let pids = Resources { pids: Some(1), ..Resources::default() };
        assert_eq!(controllers(&pids), [(Controller::Pids, "pids")]);
    }
}
