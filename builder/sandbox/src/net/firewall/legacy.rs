//! The rules of the old iptables, which the kernel keeps beside nf_tables and tells by socket options (`ip_tables.h`, `ip6_tables.h`,
//! `x_tables.h` in `linux/netfilter*`). All numbers are the kernel's.
//!
//! A table is one run of bytes: rules behind each other, each with its length. A chain of the kernel's begins where the head says for its hook, and
//! one of a user's behind a rule that holds its name; a jump goes to a place in bytes.

use std::collections::BTreeMap;

use rustix::fd::AsFd;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use super::super::PREFIX;
use super::super::refusal::Refusal;
use super::{Chain, End, Rule, Verdict};
use crate::sys;

/// `IPT_SO_GET_INFO`, and the same of IPv6.
const GET_INFO: i32 = 64;
/// `IPT_SO_GET_ENTRIES`.
const GET_ENTRIES: i32 = 65;
/// `struct ipt_getinfo`, and in front of the rules `struct ipt_get_entries`: both begin with the table's name.
const INFO: usize = 84;
const HEAD: usize = 40;
const NAME: usize = 32;
/// `NF_INET_FORWARD`, of five hooks.
const FORWARD: usize = 2;
/// The length of a target's and a match's head, and where their name is.
const XT_HEAD: usize = 32;
const XT_NAME: std::ops::Range<usize> = 2..31;
/// What a rule without a target of its own says: -1 less the verdict, or a place.
const DROP: i32 = -1;
const ACCEPT: i32 = -2;
const RETURN: i32 = -5;

/// What is another in the two families: where things are in a rule.
struct Family {
    family: AddressFamily,
    /// The level of the socket's options.
    level: i32,
    /// Where the interfaces' names are, of 16 bytes each.
    interfaces: [usize; 2],
    /// Where the flags are, and which of them is no condition (`IPT_F_GOTO`).
    flags: (usize, u8),
    /// The length of the conditions that every rule has.
    conditions: usize,
    /// Where the distances to the target and to the next rule are.
    distances: usize,
    /// The length of all that.
    head: usize,
}

const FOUR: Family = Family {
    family: AddressFamily::INET,
    level: 0,
    interfaces: [16, 32],
    flags: (82, 2),
    conditions: 84,
    distances: 88,
    head: 112,
};

const SIX: Family = Family {
    family: AddressFamily::INET6,
    level: 41,
    interfaces: [64, 80],
    flags: (131, 4),
    conditions: 136,
    distances: 140,
    head: 168,
};

/// What forwarded packets do not get through. One that cannot be read is taken for one that drops: nearly always a table is there because
/// something wants packets to be dropped.
pub(super) fn obstacle(ipv6: bool) -> Option<Refusal> {
    let names = if ipv6 { "/proc/self/net/ip6_tables_names" } else { "/proc/self/net/ip_tables_names" };
    let tables = std::fs::read_to_string(names).unwrap_or_default();
    // Asking for a table that is not there makes it.
    if !tables.lines().any(|table| table == "filter") {
        return None;
    }
    let family = if ipv6 { &SIX } else { &FOUR };
    let unread = Chain { family: 0, table: String::new(), name: String::new(), drops: true };
    let (chain, rules) = read(family).ok().flatten().unwrap_or((unread, Vec::new()));
    match chain.obstacle(&rules)? {
        Refusal::Firewall { by_policy, .. } => {
            Some(Refusal::Firewall { chain: "chain FORWARD of iptables-legacy".to_owned(), by_policy })
        }
        other => Some(other),
    }
}

/// The chain of forwarded packets, and all rules.
fn read(family: &Family) -> Result<Option<(Chain, Vec<Rule>)>, Errno> {
    let socket = socket_with(family.family, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    let mut tries = 0;
    loop {
        let mut info = named(INFO);
        sys::get_option(socket.as_fd(), family.level, GET_INFO, &mut info)?;
        let size = number(&info, INFO - 4).unwrap_or_default();
        let mut rules = named(HEAD + size as usize);
        rules[NAME..NAME + 4].copy_from_slice(&size.to_ne_bytes());
        match sys::get_option(socket.as_fd(), family.level, GET_ENTRIES, &mut rules) {
            Ok(()) => return Ok(Table { family, info: &info, rules: &rules[HEAD..] }.parse()),
            // It has another size by now.
            Err(Errno::AGAIN) if tries < 10 => tries += 1,
            Err(errno) => return Err(errno),
        }
    }
}

/// So many bytes, which begin with the table's name.
fn named(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    bytes[..6].copy_from_slice(b"filter");
    bytes
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn short(bytes: &[u8], at: usize) -> Option<usize> {
    Some(usize::from(u16::from_ne_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?)))
}

/// A name that ends where a zero is.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned()
}

/// A table as the kernel tells it.
struct Table<'a> {
    family: &'a Family,
    info: &'a [u8],
    rules: &'a [u8],
}

/// A rule as the kernel tells it.
struct Entry<'a> {
    at: usize,
    conditions: &'a [u8],
    matches: &'a [u8],
    /// The name of its target, which the usual one has not.
    target: String,
    data: &'a [u8],
}

impl Table<'_> {
    fn parse(&self) -> Option<(Chain, Vec<Rule>)> {
        let entries = self.entries();
        let hook = |first: usize| Some(number(self.info, NAME + 4 + 4 * (first + FORWARD))? as usize);
        let (begin, policy) = (hook(0)?, hook(5)?);
        let names = Table::chains(&entries, begin);
        let drops = entries.iter().find(|entry| entry.at == policy)?.verdict() == Some(DROP);
        let mut chain = None;
        let mut rules = Vec::new();
        for entry in &entries {
            chain = names.get(&entry.at).or(chain);
            // Behind that there is another hook's.
            chain = chain.filter(|_| entry.at != policy && entry.target != "ERROR");
            rules.extend(chain.map(|chain| self.rule(entry, chain, &names)));
        }
        Some((Chain { family: 0, table: String::new(), name: "FORWARD".to_owned(), drops }, rules))
    }

    /// All there are. What the kernel tells is whole; what would not be is not gone on with.
    fn entries(&self) -> Vec<Entry<'_>> {
        let Family { conditions, distances, head, .. } = *self.family;
        let one = |at: usize| {
            let (to_target, to_next) =
                (short(self.rules, at + distances)?, short(self.rules, at + distances + 2)?);
            let entry = self.rules.get(at..at + to_next)?;
            let target = entry.get(to_target..)?;
            let (conditions, matches) = (entry.get(..conditions)?, entry.get(head..to_target)?);
            let (name, data) = (text(target.get(XT_NAME)?), target.get(XT_HEAD..)?);
            Some((Entry { at, conditions, matches, target: name, data }, at + to_next))
        };
        let mut at = 0;
        let mut entries = Vec::new();
        while let Some((entry, next)) = one(at) {
            entries.push(entry);
            at = next;
        }
        entries
    }

    /// Which chain begins at a place. Those of the other hooks have no rules that matter.
    fn chains(entries: &[Entry<'_>], forward: usize) -> BTreeMap<usize, String> {
        let pairs = entries.iter().zip(entries.iter().skip(1));
        let users =
            pairs.filter(|(name, _)| name.target == "ERROR").map(|(name, first)| (first.at, text(name.data)));
        users.chain([(forward, "FORWARD".to_owned())]).collect()
    }

    fn rule(&self, entry: &Entry<'_>, chain: &str, names: &BTreeMap<usize, String>) -> Rule {
        let Family { interfaces, flags: (flags, goto), .. } = *self.family;
        let names_kiln = interfaces.iter().any(|at| entry.conditions[*at..].starts_with(PREFIX.as_bytes()));
        let is_unconditional =
            entry.conditions.iter().enumerate().all(|(at, byte)| *byte == 0 || at == flags && *byte == goto);
        let always = if is_unconditional && entry.has_idle_matches() {
            let goes = entry.conditions[flags] == goto;
            entry.always(|place| {
                let chain = names.get(&place)?.clone();
                Some(if goes { Verdict::Goto(chain) } else { Verdict::Jump(chain) })
            })
        } else {
            None
        };
        Rule { family: 0, table: String::new(), chain: chain.to_owned(), names_kiln, always }
    }
}

impl Entry<'_> {
    /// What the usual target says.
    fn verdict(&self) -> Option<i32> {
        let is_usual = self.target.is_empty();
        number(self.data, 0).filter(|_| is_usual).map(u32::cast_signed)
    }

    fn always(&self, jump: impl Fn(usize) -> Option<Verdict>) -> Option<Verdict> {
        if self.target == "REJECT" {
            return Some(Verdict::End(End::Refused));
        }
        match self.verdict()? {
            DROP => Some(Verdict::End(End::Refused)),
            ACCEPT => Some(Verdict::End(End::Accepted)),
            RETURN => Some(Verdict::End(End::Undecided)),
            place => jump(usize::try_from(place).ok()?),
        }
    }

    /// Whether all that it asks besides is met by every packet: comments.
    fn has_idle_matches(&self) -> bool {
        let mut rest = self.matches;
        while !rest.is_empty() {
            let length = short(rest, 0).unwrap_or_default();
            let is_comment = rest.get(XT_NAME).is_some_and(|name| text(name) == "comment");
            match rest.get(length..) {
                Some(next) if is_comment && length >= XT_HEAD => rest = next,
                _ => return false,
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A rule: conditions that are not zero, names of its matches, its target and what that says.
    fn entry(
        family: &Family,
        conditions: &[(usize, &[u8])],
        matches: &[&str],
        target: &str,
        data: &[u8],
    ) -> Vec<u8> {
        let part = |name: &str, data: &[u8]| {
            let length = u16::try_from(XT_HEAD + data.len()).expect("it is short");
            let mut part = vec![0; XT_HEAD];
            part[..2].copy_from_slice(&length.to_ne_bytes());
            part[XT_NAME.start..XT_NAME.start + name.len()].copy_from_slice(name.as_bytes());
            [part, data.to_vec()].concat()
        };
        let mut head = vec![0; family.head];
        for (at, bytes) in conditions {
            head[*at..at + bytes.len()].copy_from_slice(bytes);
        }
        let matches: Vec<u8> = matches.iter().flat_map(|name| part(name, &[0; 8])).collect();
        let target = part(target, data);
        let to_target = head.len() + matches.len();
        for (at, distance) in [(0, to_target), (2, to_target + target.len())] {
            let distance = u16::try_from(distance).expect("it is short").to_ne_bytes();
            head[family.distances + at..family.distances + at + 2].copy_from_slice(&distance);
        }
        [head, matches, target].concat()
    }

    fn verdict(number: i32) -> Vec<u8> {
        [number.to_ne_bytes(), [0; 4]].concat()
    }

    /// What is done by a table of these rules for forwarded packets and of these of a chain that a person made, which is
    /// where `CHAIN` leads: 'p' lets through, 'r' is a rule's, 'd' the policy's.
    fn found(family: &Family, drops: bool, forwarded: &[Vec<u8>], made: &[Vec<u8>]) -> char {
        let accept = || entry(family, &[], &[], "", &verdict(ACCEPT));
        let policy = if drops { entry(family, &[], &[], "", &verdict(DROP)) } else { accept() };
        let before = accept().len();
        let length = |rules: &[Vec<u8>]| rules.iter().map(Vec::len).sum::<usize>();
        let policy_at = before + length(forwarded);
        let head = |name: &str| {
            let mut data = [0; 32];
            data[..name.len()].copy_from_slice(name.as_bytes());
            entry(family, &[], &[], "ERROR", &data)
        };
        // The rule of the hook behind it refuses, which is not for what is forwarded.
        let behind = entry(family, &[], &[], "REJECT", &[0; 8]);
        let made_at = policy_at + policy.len() + behind.len() + accept().len() + head("made").len();
        let place = i32::try_from(made_at).expect("it is short");
        let mut rules = [
            &[accept()],
            forwarded,
            &[policy, behind, accept(), head("made")],
            made,
            &[entry(family, &[], &[], "", &verdict(RETURN)), head("ERROR")],
        ]
        .concat()
        .concat();
        let wanted = CHAIN.to_ne_bytes();
        while let Some(at) = rules.windows(4).position(|bytes| bytes == wanted) {
            rules[at..at + 4].copy_from_slice(&place.to_ne_bytes());
        }
        let mut info = named(INFO);
        for (at, value) in [(NAME + 4 + 8, before), (NAME + 24 + 8, policy_at)] {
            info[at..at + 4].copy_from_slice(&u32::try_from(value).expect("it is short").to_ne_bytes());
        }
        let (chain, rules) = Table { family, info: &info, rules: &rules }.parse().expect("it is whole");
        match chain.obstacle(&rules) {
            None => 'p',
            Some(Refusal::Firewall { by_policy: false, .. }) => 'r',
            Some(_) => 'd',
        }
    }

    const CHAIN: i32 = 0x7e7e_7e7e;

    #[test]
    fn a_table_is_read_as_the_kernel_keeps_it() {
        for family in [&FOUR, &SIX] {
            let rule = |conditions: &[(usize, &[u8])], matches: &[&str], number| {
                entry(family, conditions, matches, "", &verdict(number))
            };
            let always = |number| rule(&[], &[], number);
            let goto = rule(&[(family.flags.0, &[family.flags.1])], &[], CHAIN);
            type Rules = Vec<Vec<u8>>;
            let table: [(Rules, Rules, &str); 12] = [
                (vec![], vec![], "pd"),
                (vec![always(DROP)], vec![], "rr"),
                (vec![always(ACCEPT), always(DROP)], vec![], "pp"),
                (vec![rule(&[(0, &[10])], &[], DROP)], vec![], "pd"),
                (vec![rule(&[], &["state"], DROP)], vec![], "pd"),
                (vec![rule(&[], &["comment", "comment"], DROP)], vec![], "rr"),
                (vec![entry(family, &[], &[], "REJECT", &[0; 8])], vec![], "rr"),
                (vec![entry(family, &[], &[], "LOG", &[0; 8])], vec![], "pd"),
                (vec![always(CHAIN)], vec![always(DROP)], "rr"),
                (vec![always(CHAIN), always(ACCEPT)], vec![always(RETURN), always(DROP)], "pp"),
                (vec![goto, always(DROP)], vec![], "pd"),
                (vec![rule(&[(family.interfaces[1], b"kiln+")], &[], ACCEPT), always(DROP)], vec![], "pp"),
            ];
            for (forwarded, made, expected) in table {
                let found = [false, true].map(|drops| found(family, drops, &forwarded, &made));
                assert_eq!(found.iter().collect::<String>(), expected, "{forwarded:?} {made:?}");
            }
        }
    }

    #[test]
    fn what_is_no_table_is_not_gone_on_with() {
        let rule = entry(&FOUR, &[], &[], "", &verdict(DROP));
        let info = named(INFO);
        for length in 0..rule.len() {
            assert!(Table { family: &FOUR, info: &info, rules: &rule[..length] }.parse().is_none());
        }
        // Places that are nowhere, and distances that lead back.
        assert!(Table { family: &FOUR, info: &[0xff; INFO], rules: &rule }.parse().is_none());
        let mut idle = rule.clone();
        idle[FOUR.distances..FOUR.distances + 4].fill(0);
        assert!(Table { family: &FOUR, info: &info, rules: &idle }.parse().is_none());
    }
}
