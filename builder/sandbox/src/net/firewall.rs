//! Whether the host's own firewall would eat what steps send.
//!
//! A packet that is forwarded passes every chain at that hook, and one that says no is enough: Kiln cannot allow what
//! another forbids, and does not write into the rules of others. So it looks whether there is a chain that forbids what
//! it does not know (Docker's `FORWARD`, ufw's, firewalld's), unless one of its table's rules names Kiln's interfaces.
//!
//! What a chain does with a packet of which nothing is known is what its first rule without a condition says, or, where that
//! leads into another chain, what that says. A probe would tell less: a packet from one of Kiln's interfaces to another is not the packet
//! that a step sends, to another address by another interface, and rules are made of such things.

mod legacy;

use std::collections::BTreeMap;

use rustix::io::Errno;
use rustix::net::netlink::NETFILTER;

use super::PREFIX;
use super::netlink::{Answer, DUMP, Messages, Socket, attribute, attributes, text};
use super::refusal::Refusal;

const SUBSYSTEM: u16 = 10;
const GET_CHAIN: u16 = 4;
const GET_RULE: u16 = 7;
const FORWARD: u32 = 2;
const DROP: u32 = 0;
const ACCEPT: u32 = 1;
const JUMP: u32 = -3_i32 as u32;
const GOTO: u32 = -4_i32 as u32;
const RETURN: u32 = -5_i32 as u32;
const INET: u8 = 2;
const INET6: u8 = 10;
/// The family of chains that see packets of both.
const BOTH: u8 = 1;

/// The chain that forwarded packets of this family do not get through, as a person would look for it.
///
/// # Errors
/// The kernel has no nf_tables, or it may not be asked.
pub(crate) fn obstacle(ipv6: bool) -> Result<Option<Refusal>, Errno> {
    if let Some(refusal) = legacy::obstacle(ipv6) {
        return Ok(Some(refusal));
    }
    let socket = Socket::open(Some(NETFILTER))?;
    let rules = all(&socket, GET_RULE)?;
    let rules: Vec<Rule> = rules.iter().filter_map(|answer| Rule::of(&answer.body)).collect();
    let chains = all(&socket, GET_CHAIN)?;
    let sees = |chain: &Chain| [BOTH, if ipv6 { INET6 } else { INET }].contains(&chain.family);
    let mut chains = chains.iter().filter_map(|answer| Chain::of(&answer.body)).filter(sees);
    Ok(chains.find_map(|chain| chain.obstacle(&rules)))
}

fn all(socket: &Socket, what: u16) -> Result<Vec<Answer>, Errno> {
    let mut message = Messages::default();
    message.begin(SUBSYSTEM << 8 | what, DUMP, &[0; 4]);
    socket.dump(&message)
}

/// A chain at the hook of forwarded packets.
#[derive(Debug)]
struct Chain {
    family: u8,
    table: String,
    name: String,
    drops: bool,
}

impl Chain {
    fn of(body: &[u8]) -> Option<Chain> {
        let (family, rest) = (*body.first()?, body.get(4..)?);
        let number = |value: &[u8]| value.try_into().ok().map(u32::from_be_bytes);
        let hook = number(attribute(attribute(rest, 4)?, 1)?)?;
        if hook != FORWARD {
            return None;
        }
        let drops = attribute(rest, 5).and_then(number) == Some(DROP);
        Some(Chain { family, table: text(attribute(rest, 1)?), name: text(attribute(rest, 3)?), drops })
    }

    /// That it does not let packets through of which nothing is known.
    fn obstacle(&self, rules: &[Rule]) -> Option<Refusal> {
        let of_table: Vec<&Rule> =
            rules.iter().filter(|rule| (rule.family, &rule.table) == (self.family, &self.table)).collect();
        let end = end(&self.name, &of_table, &mut BTreeMap::new());
        let forbids = end == End::Refused || (end == End::Undecided && self.drops);
        let knows_kiln = of_table.iter().any(|rule| rule.names_kiln);
        (forbids && !knows_kiln).then(|| Refusal::Firewall {
            chain: format!("chain {} of table {}", self.name, self.table),
            by_policy: end == End::Undecided,
        })
    }
}

/// What becomes of a packet of which nothing is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Refused,
    Accepted,
    Undecided,
}

/// What a chain does with it, given the rules of its table. What is `known` of chains is not found out twice: many may lead into one.
fn end<'a>(chain: &'a str, rules: &[&'a Rule], known: &mut BTreeMap<&'a str, End>) -> End {
    if let Some(end) = known.get(chain) {
        return *end;
    }
    // The kernel has no chains in a circle; rules that changed while they were listed may have.
    known.insert(chain, End::Undecided);
    let mut found = End::Undecided;
    for rule in rules.iter().filter(|rule| rule.chain == chain) {
        let (decided, is_last) = match &rule.always {
            None => continue,
            Some(Verdict::End(end)) => (*end, true),
            Some(Verdict::Jump(other)) => (end(other, rules, known), false),
            Some(Verdict::Goto(other)) => (end(other, rules, known), true),
        };
        if is_last || decided != End::Undecided {
            found = decided;
            break;
        }
    }
    known.insert(chain, found);
    found
}

/// What a rule says of every packet.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    End(End),
    Jump(String),
    Goto(String),
}

/// A rule, as far as it matters here.
#[derive(Debug)]
struct Rule {
    family: u8,
    table: String,
    chain: String,
    /// Whether it compares something with the beginning of the names of Kiln's interfaces.
    names_kiln: bool,
    /// None where it has a condition, or decides nothing.
    always: Option<Verdict>,
}

impl Rule {
    fn of(body: &[u8]) -> Option<Rule> {
        let (family, rest) = (*body.first()?, body.get(4..)?);
        let expressions: Vec<(String, &[u8])> = attributes(attribute(rest, 4).unwrap_or_default())
            .into_iter()
            .filter_map(|(_, element)| {
                Some((text(attribute(element, 1)?), attribute(element, 2).unwrap_or_default()))
            })
            .collect();
        let compared = |data: &[u8]| attribute(attribute(data, 3)?, 1).map(<[u8]>::to_vec);
        let names_kiln = expressions.iter().any(|(name, data)| {
            name == "cmp" && compared(data).is_some_and(|value| value.starts_with(PREFIX.as_bytes()))
        });
        let mut deciding = expressions.iter().filter(|(name, data)| !is_idle(name, data));
        let always = match (deciding.next(), deciding.next()) {
            (Some((name, data)), None) => verdict(name, data),
            _ => None,
        };
        let (table, chain) = (text(attribute(rest, 1)?), text(attribute(rest, 2)?));
        Some(Rule { family, table, chain, names_kiln, always })
    }
}

/// Whether an expression is met by every packet and decides nothing.
fn is_idle(name: &str, data: &[u8]) -> bool {
    let is_comment = || attribute(data, 1).map(text).as_deref() == Some("comment");
    ["counter", "log"].contains(&name) || (name == "match" && is_comment())
}

/// What an expression decides.
fn verdict(name: &str, data: &[u8]) -> Option<Verdict> {
    match name {
        "reject" => Some(Verdict::End(End::Refused)),
        // Of iptables, where nf_tables has no word of its own for it.
        "target" => {
            let target = attribute(data, 1).map(text)?;
            ["REJECT", "DROP"].contains(&target.as_str()).then_some(Verdict::End(End::Refused))
        }
        "immediate" => {
            let verdict = attribute(attribute(data, 2)?, 2)?;
            let chain = || attribute(verdict, 2).map(text);
            match attribute(verdict, 1)?.try_into().map(u32::from_be_bytes).ok()? {
                DROP => Some(Verdict::End(End::Refused)),
                ACCEPT => Some(Verdict::End(End::Accepted)),
                RETURN => Some(Verdict::End(End::Undecided)),
                JUMP => chain().map(Verdict::Jump),
                GOTO => chain().map(Verdict::Goto),
                _ => None,
            }
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(chain: &str, always: Option<Verdict>) -> Rule {
        Rule { family: 2, table: "filter".into(), chain: chain.into(), names_kiln: false, always }
    }

    #[test]
    fn the_first_rule_without_a_condition_decides() {
        let refuse = || Some(Verdict::End(End::Refused));
        let accept = || Some(Verdict::End(End::Accepted));
        let jump = |chain: &str| Some(Verdict::Jump(chain.into()));
        let goto = |chain: &str| Some(Verdict::Goto(chain.into()));
        let back = || Some(Verdict::End(End::Undecided));
        // The rules; what an accepting and a dropping chain do with them: 'p' passes, 'r' is a rule's, 'd' is the policy's.
        let table = [
            (vec![], 'p', 'd'),
            (vec![rule("F", None)], 'p', 'd'),
            (vec![rule("F", None), rule("F", refuse())], 'r', 'r'),
            (vec![rule("F", accept()), rule("F", refuse())], 'p', 'p'),
            (vec![rule("F", jump("X")), rule("X", refuse())], 'r', 'r'),
            (vec![rule("X", refuse()), rule("F", jump("X")), rule("F", accept())], 'r', 'r'),
            (
                vec![rule("F", jump("X")), rule("X", back()), rule("X", refuse()), rule("F", accept())],
                'p',
                'p',
            ),
            (
                vec![rule("F", jump("X")), rule("X", None), rule("F", jump("Y")), rule("Y", refuse())],
                'r',
                'r',
            ),
            (vec![rule("F", goto("X")), rule("F", refuse()), rule("X", None)], 'p', 'd'),
            (vec![rule("F", jump("X")), rule("X", jump("F"))], 'p', 'd'),
            (
                vec![rule("F", jump("X")), rule("F", jump("X")), rule("X", None), rule("F", refuse())],
                'r',
                'r',
            ),
            (vec![rule("F", jump("nowhere"))], 'p', 'd'),
            (vec![Rule { names_kiln: true, ..rule("X", None) }, rule("F", refuse())], 'p', 'p'),
            (vec![Rule { family: 10, ..rule("F", refuse()) }], 'p', 'd'),
            (vec![Rule { table: "other".into(), ..rule("F", refuse()) }], 'p', 'd'),
        ];
        for (rules, accepting, dropping) in table {
            for (drops, expected) in [(false, accepting), (true, dropping)] {
                let chain = Chain { family: 2, table: "filter".into(), name: "F".into(), drops };
                let found = match chain.obstacle(&rules) {
                    None => 'p',
                    Some(Refusal::Firewall { by_policy: false, .. }) => 'r',
                    Some(_) => 'd',
                };
                assert_eq!(found, expected, "{drops} {rules:?}");
            }
        }
    }

    #[test]
    fn chains_that_many_lead_into_are_followed_once() {
        let names: Vec<String> = (0..16).map(|level| format!("level {level}")).collect();
        let rules: Vec<Rule> = names
            .windows(2)
            .flat_map(|pair| {
                let jump = |_| rule(&pair[0], Some(Verdict::Jump(pair[1].clone())));
                (0..50).map(jump).collect::<Vec<Rule>>()
            })
            .collect();
        let rules: Vec<&Rule> = rules.iter().collect();
        assert_eq!(end(&names[0], &rules, &mut BTreeMap::new()), End::Undecided);
    }
}
