//! Whether the host's own firewall would eat what steps send.
//!
//! A packet that is forwarded passes every chain at that hook, and one that says no is enough: Kiln cannot allow what
//! another forbids, and does not write into the rules of others. So it looks whether there is a chain that forbids what
//! it does not know (Docker's `FORWARD`, ufw's, firewalld's), unless one of its table's rules names Kiln's interfaces.

use rustix::io::Errno;
use rustix::net::netlink::NETFILTER;

use super::PREFIX;
use super::netlink::{Answer, DUMP, Messages, Socket, attribute, attributes, text};

const SUBSYSTEM: u16 = 10;
const GET_CHAIN: u16 = 4;
const GET_RULE: u16 = 7;
const FORWARD: u32 = 2;
const DROP: u32 = 0;
/// Families that see packets of IPv4: IPv4 itself, and both at once.
const FAMILIES: [u8; 2] = [2, 1];

/// The chain that forwarded packets do not get through, as a person would look for it.
///
/// # Errors
/// The kernel has no nf_tables, or it may not be asked.
pub(crate) fn obstacle() -> Result<Option<String>, Errno> {
    if legacy_forbids() {
        return Ok(Some("chain FORWARD of iptables-legacy".to_owned()));
    }
    let socket = Socket::open(Some(NETFILTER))?;
    let rules = all(&socket, GET_RULE)?;
    let rules: Vec<Rule> = rules.iter().filter_map(|answer| Rule::of(&answer.body)).collect();
    for answer in all(&socket, GET_CHAIN)? {
        let Some(chain) = Chain::of(&answer.body) else { continue };
        let same_table = |rule: &&Rule| (rule.family, &rule.table) == (chain.family, &chain.table);
        let last = rules.iter().filter(same_table).rfind(|rule| rule.chain == chain.name);
        let forbids = chain.drops || last.is_some_and(|rule| rule.refuses_all);
        if forbids && !rules.iter().filter(same_table).any(|rule| rule.names_kiln) {
            return Ok(Some(format!("chain {} of table {}", chain.name, chain.table)));
        }
    }
    Ok(None)
}

fn all(socket: &Socket, what: u16) -> Result<Vec<Answer>, Errno> {
    let mut message = Messages::default();
    message.begin(SUBSYSTEM << 8 | what, DUMP, &[0; 4]);
    socket.dump(&message)
}

/// A chain at the hook of forwarded packets.
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
        if hook != FORWARD || !FAMILIES.contains(&family) {
            return None;
        }
        let drops = attribute(rest, 5).and_then(number) == Some(DROP);
        Some(Chain { family, table: text(attribute(rest, 1)?), name: text(attribute(rest, 3)?), drops })
    }
}

/// A rule, as far as it matters here.
struct Rule {
    family: u8,
    table: String,
    chain: String,
    /// Whether it compares something with the beginning of the names of Kiln's interfaces.
    names_kiln: bool,
    /// Whether it drops or rejects every packet.
    refuses_all: bool,
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
        let decides = |(name, data): &(String, &[u8])| match name.as_str() {
            "reject" => true,
            "immediate" => verdict(data) == Some(DROP),
            "target" => {
                attribute(data, 1).map(text).is_some_and(|target| target == "REJECT" || target == "DROP")
            }
            _ => false,
        };
        let is_idle = |name: &str| ["counter", "log", "limit"].contains(&name);
        let refuses_all = expressions.iter().any(decides)
            && expressions.iter().all(|expression| decides(expression) || is_idle(&expression.0));
        let (table, chain) = (text(attribute(rest, 1)?), text(attribute(rest, 2)?));
        Some(Rule { family, table, chain, names_kiln, refuses_all })
    }
}

fn verdict(data: &[u8]) -> Option<u32> {
    let code = attribute(attribute(attribute(data, 2)?, 2)?, 1)?;
    code.try_into().ok().map(u32::from_be_bytes)
}

/// Whether there are rules of the old iptables that refuse. They cannot be read by netlink, so that only a filter which is
/// in use at all is known; nearly always one is loaded because something wants packets to be dropped.
fn legacy_forbids() -> bool {
    let tables = std::fs::read_to_string("/proc/self/net/ip_tables_names").unwrap_or_default();
    tables.lines().any(|table| table == "filter")
}
