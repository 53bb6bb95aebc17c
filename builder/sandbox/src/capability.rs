//! Capabilities by name, and the set that Docker gives a container by default.

use std::fmt;

/// One capability: its number in `linux/capability.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Capability(u8);

/// Names by number (`linux/capability.h`), without `CAP_`.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// What Docker gives a container (moby, `daemon/pkg/oci/caps/defaults.go`).
const DEFAULT: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

impl Capability {
    /// The capability of that name, in any case, with or without `CAP_`; `None` if there is none.
    pub fn from_name(name: &str) -> Option<Capability> {
        let upper = name.to_ascii_uppercase();
        let short = upper.strip_prefix("CAP_").unwrap_or(&upper);
        let number = NAMES.iter().position(|known| *known == short)?;
        Some(Capability(number as u8))
    }

    /// Its number.
    pub fn number(self) -> u8 {
        self.0
    }

    /// Its name without `CAP_`.
    pub fn name(self) -> &'static str {
        NAMES[usize::from(self.0)]
    }
}

/// A set of capabilities, as the kernel's 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct CapabilitySet(u64);

impl CapabilitySet {
    /// No capability.
    pub const EMPTY: CapabilitySet = CapabilitySet(0);

    /// Docker's default: 14 capabilities.
    pub fn docker_default() -> CapabilitySet {
        DEFAULT.iter().filter_map(|name| Capability::from_name(name)).collect()
    }

    /// Every capability, also those this table has no name for: `RUN --security=insecure`.
    pub const ALL: CapabilitySet = CapabilitySet(u64::MAX);

    /// The set with one more.
    pub fn with(self, capability: Capability) -> CapabilitySet {
        CapabilitySet(self.0 | 1 << capability.0)
    }

    /// The set with one less.
    pub fn without(self, capability: Capability) -> CapabilitySet {
        CapabilitySet(self.0 & !(1 << capability.0))
    }

    /// The set of the kernel's mask.
    pub(crate) fn from_bits(bits: u64) -> CapabilitySet {
        CapabilitySet(bits)
    }

    /// The kernel's mask: bit *n* is capability *n*.
    pub fn bits(self) -> u64 {
        self.0
    }
}

impl FromIterator<Capability> for CapabilitySet {
    fn from_iter<I: IntoIterator<Item = Capability>>(capabilities: I) -> CapabilitySet {
        capabilities.into_iter().fold(CapabilitySet::EMPTY, CapabilitySet::with)
    }
}

impl fmt::Display for CapabilitySet {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:016x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn docker_default_is_the_mask_that_docker_shows() {
        assert_eq!(CapabilitySet::docker_default().bits(), 0xa804_25fb);
    }

    #[test]
    fn names_are_found_in_any_form() {
        for (number, name) in NAMES.iter().enumerate() {
            for form in [name.to_string(), format!("CAP_{name}"), format!("cap_{}", name.to_lowercase())] {
                let found = Capability::from_name(&form).map(|capability| usize::from(capability.number()));
                assert_eq!(found, Some(number), "{form}");
            }
        }
        assert_eq!(Capability::from_name("CAP_"), None);
        assert_eq!(Capability::from_name("NET"), None);
    }

    #[test]
    fn with_and_without_are_inverse() {
        let admin = Capability::from_name("SYS_ADMIN").expect("it is in the table");
        let set = CapabilitySet::docker_default().with(admin);
        assert_ne!(set, CapabilitySet::docker_default());
        assert_eq!(set.without(admin), CapabilitySet::docker_default());
    }
}
