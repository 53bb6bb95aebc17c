//! `--resource NAME=VALUE,…` and the flags that `docker build` has for the same: limits of steps.

use std::path::Component;

use engine::{Resources, StepLimits, Swap};

use super::{BadFlag, csv, size_bytes};
use crate::arguments;

/// What the kernel takes for a period or a quota of processor time, in microseconds.
const SHORTEST_PERIOD: u64 = 1000;
const LONGEST_PERIOD: u64 = 1_000_000;
/// Of how long a period `cpus` is.
const PERIOD: u64 = 100_000;
/// What Docker takes for the least memory: with less no process starts.
const LEAST_MEMORY: u64 = 6 << 20;
/// What the kernel takes for the longest quota, 44 bits, and for the most processes, those that a machine can have at all.
const LONGEST_QUOTA: u64 = (1 << 44) - 1;
const MOST_PROCESSES: u64 = (4 << 20) - 1;

/// The limits that the flags of a command line give, without the time.
pub fn step_limits(flags: &arguments::Resources) -> Result<StepLimits, BadFlag> {
    let arguments::Resources {
        resources,
        memory,
        memory_swap,
        cpu_shares,
        cpu_period,
        cpu_quota,
        cpuset_cpus,
        cpuset_mems,
        cgroup_parent,
    } = flags;
    let mut limits = Limits::default();
    for text in resources {
        let bad = |why: String| BadFlag::new("--resource", text, why, "--resource memory=2g,pids=500");
        for (name, value) in pairs(text).map_err(bad)? {
            limits.set("--resource", &name, &value)?;
        }
    }
    let older = [
        ("--memory", "memory", memory),
        ("--memory-swap", "memory-swap", memory_swap),
        ("--cpu-shares", "cpu-shares", cpu_shares),
        ("--cpu-period", "cpu-period", cpu_period),
        ("--cpu-quota", "cpu-quota", cpu_quota),
        ("--cpuset-cpus", "cpuset-cpus", cpuset_cpus),
        ("--cpuset-mems", "cpuset-mems", cpuset_mems),
    ];
    for (flag, name, value) in older {
        if let Some(value) = value {
            limits.set(flag, name, value)?;
        }
    }
    if let Some(parent) = cgroup_parent {
        let is_part = |part| matches!(part, Component::Normal(_));
        let climbs = parent.components().any(|part| part == Component::ParentDir);
        if climbs || !parent.components().any(is_part) {
            let (text, why) = (parent.to_string_lossy(), "it must name a control group below the first one");
            return Err(BadFlag::new("--cgroup-parent", &text, why, "--cgroup-parent /builds"));
        }
    }
    let resources = limits.checked()?;
    Ok(StepLimits { resources, cgroup_parent: cgroup_parent.clone(), timeout_seconds: None })
}

/// The pairs of one `--resource`. A comma separates them, and also the parts of a set of processors.
fn pairs(text: &str) -> Result<Vec<(String, String)>, String> {
    let mut pairs: Vec<(String, String)> = Vec::new();
    for (name, value) in csv::keys(text)? {
        match (value, pairs.last_mut()) {
            (Some(value), _) => pairs.push((name, value)),
            (None, Some((set, parts))) if set.starts_with("cpuset-") => {
                parts.push(',');
                parts.push_str(&name);
            }
            (None, _) => return Err(format!("`{name}` has no value")),
        }
    }
    Ok(pairs)
}

/// The limits so far.
#[derive(Default)]
struct Limits {
    resources: Resources,
    /// Whether the quota is one of `cpus`.
    by_cpus: bool,
}

impl Limits {
    fn set(&mut self, flag: &'static str, name: &str, value: &str) -> Result<(), BadFlag> {
        let bad = |why: &str, good: &str| {
            let (value, good) = match flag {
                "--resource" => (format!("{name}={value}"), format!("--resource {name}={good}")),
                _ => (value.to_owned(), format!("{flag} {good}")),
            };
            BadFlag::new(flag, &value, why, good)
        };
        let size =
            |good| size_bytes(flag, value).map_err(|_| bad("expected a size such as 512m or 2g", good));
        let number = |good: &str| value.parse::<u64>().map_err(|_| bad("expected a number", good));
        let to = &mut self.resources;
        match name {
            "memory" => {
                to.memory_bytes = match size("2g")? {
                    0 => None,
                    bytes @ LEAST_MEMORY.. => Some(bytes),
                    _ => return Err(bad("a step needs 6m at least; 0 is no limit", "64m")),
                }
            }
            "memory-swap" if value == "-1" => to.memory_swap = Some(Swap::Unlimited),
            "memory-swap" => to.memory_swap = Some(size("4g")?).filter(|bytes| *bytes > 0).map(Swap::Total),
            "memory-reservation" => {
                to.memory_reservation_bytes = Some(size("1g")?).filter(|bytes| *bytes > 0)
            }
            "cpus" => {
                let cpus: f64 = value.parse().map_err(|_| bad("expected a number such as 1.5", "1.5"))?;
                // In hundredths, as the shortest quota that the kernel takes.
                if !(0.01..=100_000.0).contains(&cpus) {
                    return Err(bad("there are 0.01 processors at least", "1.5"));
                }
                to.cpu_quota_microseconds = Some((cpus * PERIOD as f64).round() as u64);
                self.by_cpus = true;
            }
            "cpu-shares" => {
                to.cpu_shares = match number("512")? {
                    0 => None,
                    shares @ 2..=262_144 => Some(shares),
                    _ => return Err(bad("expected a number from 2 to 262144; 1024 is usual", "512")),
                }
            }
            "cpu-period" => {
                to.cpu_period_microseconds = match number("100000")? {
                    0 => None,
                    period @ SHORTEST_PERIOD..=LONGEST_PERIOD => Some(period),
                    _ => return Err(bad("expected microseconds from 1000 to 1000000", "100000")),
                }
            }
            "cpu-quota" if value == "-1" => to.cpu_quota_microseconds = None,
            "cpu-quota" => {
                to.cpu_quota_microseconds = match number("50000")? {
                    0 => None,
                    quota @ SHORTEST_PERIOD..=LONGEST_QUOTA => Some(quota),
                    _ => {
                        return Err(bad("expected microseconds from 1000 to 17592186044415, or -1", "50000"));
                    }
                }
            }
            "cpuset-cpus" => to.cpuset_cpus = Some(set(value).ok_or_else(|| bad(NO_SET, "0-1"))?),
            "cpuset-mems" => to.cpuset_mems = Some(set(value).ok_or_else(|| bad(NO_SET, "0"))?),
            "pids" if value == "-1" => to.pids = None,
            "pids" => {
                to.pids = match number("500")? {
                    0 => return Err(bad("a step is one process at least; -1 is no limit", "500")),
                    pids @ 1..=MOST_PROCESSES => Some(pids),
                    _ => {
                        return Err(bad("no machine has more than 4194303 processes; -1 is no limit", "500"));
                    }
                }
            }
            _ => {
                return Err(BadFlag::new(
                    flag,
                    &format!("{name}={value}"),
                    "there is no such limit; there are memory, memory-swap, memory-reservation, cpus, cpu-shares, \
                     cpu-period, cpu-quota, cpuset-cpus, cpuset-mems, pids",
                    "--resource memory=2g,pids=500",
                ));
            }
        }
        Ok(())
    }

    /// What was said, if it goes together.
    fn checked(self) -> Result<Resources, BadFlag> {
        let bad = |value: String, why, good: &str| Err(BadFlag::new("--resource", &value, why, good));
        let resources = self.resources;
        if let (Some(memory), Some(Swap::Total(total))) = (resources.memory_bytes, resources.memory_swap)
            && total < memory
        {
            let why = "it is memory and swap together, and less than the memory";
            return bad(format!("memory-swap={total}"), why, &format!("--resource memory-swap={memory}"));
        }
        if let (None, Some(Swap::Total(total))) = (resources.memory_bytes, resources.memory_swap) {
            let why = "swap is limited together with memory, and the memory is not limited";
            return bad(
                format!("memory-swap={total}"),
                why,
                &format!("--resource memory={total},memory-swap={total}"),
            );
        }
        if let (Some(memory), Some(left)) = (resources.memory_bytes, resources.memory_reservation_bytes)
            && left > memory
        {
            let why = "more is reserved than the step may have";
            return bad(format!("memory-reservation={left}"), why, &format!("--resource memory={left}"));
        }
        if let (true, Some(period)) = (self.by_cpus, resources.cpu_period_microseconds) {
            let why = "`cpus` is a quota of its own period";
            return bad(format!("cpu-period={period}"), why, "--resource cpu-period=100000,cpu-quota=150000");
        }
        Ok(resources)
    }
}

const NO_SET: &str = "expected numbers and ranges such as 0-2,4";

/// A list of numbers and ranges, as the kernel takes it.
fn set(text: &str) -> Option<String> {
    let number = |text: &str| text.parse::<u16>().ok();
    let is_part = |part: &str| match part.split_once('-') {
        Some((first, last)) => {
            matches!((number(first), number(last)), (Some(first), Some(last)) if first <= last)
        }
        None => number(part).is_some(),
    };
    text.split(',').all(is_part).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource(text: &str) -> Result<Resources, BadFlag> {
        let flags = arguments::Resources { resources: vec![text.to_owned()], ..Default::default() };
        step_limits(&flags).map(|limits| limits.resources)
    }

    #[test]
    fn all_limits_have_a_name() {
        let all = "memory=1g,memory-swap=2g,memory-reservation=512m,cpu-shares=512,cpu-period=50000,cpu-quota=25000,\
                   cpuset-cpus=0-1,3,cpuset-mems=0,pids=9";
        let expected = Resources {
            memory_bytes: Some(1 << 30),
            memory_swap: Some(Swap::Total(2 << 30)),
            memory_reservation_bytes: Some(512 << 20),
            cpu_shares: Some(512),
            cpu_period_microseconds: Some(50_000),
            cpu_quota_microseconds: Some(25_000),
            cpuset_cpus: Some("0-1,3".to_owned()),
            cpuset_mems: Some("0".to_owned()),
            pids: Some(9),
        };
        assert_eq!(resource(all), Ok(expected));
        assert_eq!(resource("cpus=1.5").map(|found| found.cpu_quota_microseconds), Ok(Some(150_000)));
        for none in [
            "pids=-1",
            "cpu-quota=-1",
            "cpu-quota=0",
            "cpu-shares=0",
            "cpu-period=0",
            "memory=0",
            "memory-swap=0",
            "memory-reservation=0",
        ] {
            assert_eq!(resource(none), Ok(Resources::default()), "{none}");
        }
        let swap = resource("memory=1g,memory-swap=-1").map(|found| found.memory_swap);
        assert_eq!(swap, Ok(Some(Swap::Unlimited)));
    }

    #[test]
    fn older_flags_are_the_same_limits() {
        let flags = arguments::Resources {
            memory: Some("1g".to_owned()),
            cpu_quota: Some("25000".to_owned()),
            cgroup_parent: Some("builds/mine".into()),
            ..Default::default()
        };
        let limits = step_limits(&flags).expect("they are good");
        assert_eq!(Ok(limits.resources), resource("memory=1g,cpu-quota=25000"));
        assert_eq!(limits.cgroup_parent, Some("builds/mine".into()));
        for parent in ["/", "../x", "/a/../../b", "", ".", "/./."] {
            let flags = arguments::Resources { cgroup_parent: Some(parent.into()), ..Default::default() };
            assert!(step_limits(&flags).is_err(), "{parent}");
        }
    }

    #[test]
    fn mistakes_say_what_to_write() {
        for (text, help) in [
            ("memory", "--resource memory=2g,pids=500"),
            ("memory=x", "--resource memory=2g"),
            ("memory=1", "--resource memory=64m"),
            ("memory=2g,memory-swap=1g", "--resource memory-swap=2147483648"),
            ("memory-swap=1g", "--resource memory=1073741824,memory-swap=1073741824"),
            ("memory=1g,memory-reservation=2g", "--resource memory=2147483648"),
            ("cpus=0", "--resource cpus=1.5"),
            ("cpus=nan", "--resource cpus=1.5"),
            ("cpus=1,cpu-period=5000", "--resource cpu-period=100000,cpu-quota=150000"),
            ("cpu-shares=1", "--resource cpu-shares=512"),
            ("cpu-period=10", "--resource cpu-period=100000"),
            ("cpu-quota=10", "--resource cpu-quota=50000"),
            ("cpuset-cpus=3-1", "--resource cpuset-cpus=0-1"),
            ("cpuset-mems=", "--resource cpuset-mems=0"),
            ("cpuset-cpus=0,x", "--resource cpuset-cpus=0-1"),
            ("cpu-quota=18446744073709551615", "--resource cpu-quota=50000"),
            ("pids=0", "--resource pids=500"),
            ("pids=4194304", "--resource pids=500"),
            ("disk=1", "--resource memory=2g,pids=500"),
        ] {
            let error = resource(text).expect_err(text);
            assert_eq!((error.flag, error.help.as_str()), ("--resource", help), "{text}");
        }
        let flags = arguments::Resources { memory: Some("lots".to_owned()), ..Default::default() };
        let error = step_limits(&flags).expect_err("no size");
        assert_eq!(
            (error.flag, error.value.as_str(), error.help.as_str()),
            ("--memory", "lots", "--memory 2g")
        );
    }
}
