//! The table that carries the steps' traffic, told to nf_tables (`linux/netfilter/nf_tables.h`).
//!
//! ```text
//! table inet kiln-TAG {                       # flag OWNER: goes with the socket that made it, however that ends
//!   chain out {  type nat hook postrouting priority srcnat
//!     ip saddr RANGE oifname != "kiln*" masquerade
//!   }
//!   chain from {  type filter hook prerouting priority raw
//!     iifname "kilnTAG-*" ip saddr != RANGE drop          # steps say no wrong address, to the host neither
//!     iifname "kilnTAG-*" ip daddr 127.0.0.0/8 drop       # which some hosts let in (route_localnet)
//!     iifname "kilnTAG-*" meta nfproto ipv6 drop          # or, where steps have IPv6: ip6 saddr != RANGE drop
//!   }
//!   chain through {  type filter hook forward priority filter
//!     iifname "kiln*" oifname "kiln*" reject              # steps do not see each other, nor those of another build
//!     oifname "kilnTAG-*" ct state != established,related drop
//!     # of interfaces that forward for Kiln alone:
//!     iifname "eth0" oifname != "kiln*" meta nfproto ipv4 ct state != established,related drop
//!   }
//!   chain to {  type filter hook output priority filter
//!     oifname "kilnTAG-*" ct state new reject             # nor the host, which steps of other builds may speak by
//!   }
//! }
//! ```

use rustix::io::Errno;
use rustix::net::netlink::NETFILTER;

use super::PREFIX;
use super::netlink::{ACKNOWLEDGE, CREATE, CREATE_NEW, DUMP, Messages, Socket, attribute, text};
use super::range::{Prefix, Range};

const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
const NEW_TABLE: u16 = 0;
const GET_TABLE: u16 = 1;
const DELETE_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const NEW_RULE: u16 = 6;
const APPEND: u16 = 0x800;

/// IPv4 and IPv6 in one table.
const INET: u8 = 1;
/// `NFT_TABLE_F_OWNER`, since Linux 5.12.
const OWNER: u32 = 2;

const PREROUTING: u32 = 0;
const FORWARD: u32 = 2;
const OUTPUT: u32 = 3;
const POSTROUTING: u32 = 4;
/// `NF_IP_PRI_NAT_SRC`.
const SOURCE_NAT: u32 = 100;
const FILTER: u32 = 0;
/// `NF_IP_PRI_RAW`: before the kernel looks for the packet's connection.
const RAW: u32 = (-300_i32).cast_unsigned();

const INPUT_NAME: u32 = 6;
const OUTPUT_NAME: u32 = 7;
const PROTOCOL_FAMILY: u32 = 15;

/// As [`PROTOCOL_FAMILY`] has them.
const IPV4: u8 = 2;
const IPV6: u8 = 10;
/// Where a packet's address is looked for.
const NETWORK: u32 = 1;

const DROP: u32 = 0;
const EQUAL: u32 = 0;
const DIFFERENT: u32 = 1;

/// The bits of `ct state established,related`.
const KNOWN: u32 = 2 | 4;
/// The bit of `ct state new`.
const NEW: u32 = 8;

/// A table that is there, as long as this is.
#[derive(Debug)]
pub(crate) struct Table {
    socket: Socket,
    name: String,
    /// Whether it goes with the socket.
    is_owned: bool,
}

impl Table {
    /// Makes the table.
    ///
    /// # Errors
    /// The kernel has no nf_tables or lacks a part of it, or it may not be asked for it.
    pub fn make(tag: &str, range: Range, ipv6: bool, guarded: &[String]) -> Result<Table, Errno> {
        let name = format!("{PREFIX}-{tag}");
        let make = |is_owned| {
            let socket = Socket::open(Some(NETFILTER))?;
            socket.commit(&rules(&name, tag, range, ipv6, guarded, is_owned))?;
            Ok(Table { socket, name: name.clone(), is_owned })
        };
        match make(true) {
            // A flag that it does not know.
            Err(Errno::INVAL | Errno::OPNOTSUPP) => make(false),
            other => other,
        }
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        if !self.is_owned {
            // The next build looks for what is left.
            let _gone = remove(&self.socket, &self.name);
        }
    }
}

/// The names of all tables of Kiln's, on this host or in this container.
pub(crate) fn tables(socket: &Socket) -> Result<Vec<String>, Errno> {
    let mut message = Messages::default();
    message.begin(SUBSYSTEM << 8 | GET_TABLE, DUMP, &[INET, 0, 0, 0]);
    let named = |body: &[u8]| attribute(body.get(4..)?, 1).map(text);
    let mut names: Vec<String> =
        socket.dump(&message)?.iter().filter_map(|answer| named(&answer.body)).collect();
    names.retain(|name| name.starts_with(&format!("{PREFIX}-")));
    Ok(names)
}

/// Removes a table. One that has an owner cannot be removed by another.
pub(crate) fn remove(socket: &Socket, name: &str) -> Result<(), Errno> {
    let mut batch = begin();
    batch.begin(SUBSYSTEM << 8 | DELETE_TABLE, ACKNOWLEDGE, &[INET, 0, 0, 0]).text(1, name);
    end(&mut batch);
    socket.commit(&batch)
}

fn begin() -> Messages {
    let mut batch = Messages::default();
    let [high, low] = SUBSYSTEM.to_be_bytes();
    batch.begin(BATCH_BEGIN, 0, &[0, 0, high, low]);
    batch
}

fn end(batch: &mut Messages) {
    let [high, low] = SUBSYSTEM.to_be_bytes();
    batch.begin(BATCH_END, 0, &[0, 0, high, low]);
}

fn rules(name: &str, tag: &str, range: Range, ipv6: bool, guarded: &[String], is_owned: bool) -> Messages {
    let mut batch = begin();
    batch.begin(SUBSYSTEM << 8 | NEW_TABLE, CREATE_NEW, &[INET, 0, 0, 0]).text(1, name);
    if is_owned {
        batch.big_endian(2, OWNER);
    }
    chain(&mut batch, name, "out", "nat", (POSTROUTING, SOURCE_NAT));
    chain(&mut batch, name, "through", "filter", (FORWARD, FILTER));
    chain(&mut batch, name, "from", "filter", (PREROUTING, RAW));
    chain(&mut batch, name, "to", "filter", (OUTPUT, FILTER));
    let own = format!("{PREFIX}{tag}-");
    for ipv6 in [false].into_iter().chain(ipv6.then_some(true)) {
        let prefix = range.prefix(ipv6);
        rule(&mut batch, name, "out", |rule| {
            rule.source(prefix, EQUAL).interface(OUTPUT_NAME, DIFFERENT, PREFIX).expression("masq", |_| {});
        });
    }
    rule(&mut batch, name, "through", |rule| {
        rule.interface(INPUT_NAME, EQUAL, PREFIX).interface(OUTPUT_NAME, EQUAL, PREFIX).reject();
    });
    rule(&mut batch, name, "through", |rule| {
        rule.interface(OUTPUT_NAME, EQUAL, &own).is_unknown().verdict(DROP);
    });
    rule(&mut batch, name, "to", |rule| {
        rule.interface(OUTPUT_NAME, EQUAL, &own).state(NEW, DIFFERENT).reject();
    });
    for link in guarded {
        rule(&mut batch, name, "through", |rule| {
            rule.whole_interface(INPUT_NAME, link).interface(OUTPUT_NAME, DIFFERENT, PREFIX);
            rule.family(IPV4).is_unknown().verdict(DROP);
        });
    }
    rule(&mut batch, name, "from", |rule| {
        rule.interface(INPUT_NAME, EQUAL, &own).source(range.prefix(false), DIFFERENT).verdict(DROP);
    });
    rule(&mut batch, name, "from", |rule| {
        let loopback = [127];
        rule.interface(INPUT_NAME, EQUAL, &own).family(IPV4);
        rule.payload(NETWORK, 16, 1).compare(EQUAL, &loopback).verdict(DROP);
    });
    rule_with(&mut batch, name, "from", ACKNOWLEDGE, |rule| {
        rule.interface(INPUT_NAME, EQUAL, &own);
        match ipv6 {
            // Addresses of its own making among them: with those a router would announce itself to the host.
            true => rule.source(range.prefix(true), DIFFERENT).verdict(DROP),
            false => rule.family(IPV6).verdict(DROP),
        };
    });
    end(&mut batch);
    batch
}

fn chain(batch: &mut Messages, table: &str, name: &str, kind: &str, (hook, priority): (u32, u32)) {
    batch.begin(SUBSYSTEM << 8 | NEW_CHAIN, CREATE, &[INET, 0, 0, 0]).text(1, table).text(3, name);
    batch.nest(4, |place| {
        place.big_endian(1, hook).big_endian(2, priority);
    });
    batch.text(7, kind);
}

fn rule(batch: &mut Messages, table: &str, chain: &str, fill: impl FnOnce(&mut Rule<'_>)) {
    rule_with(batch, table, chain, 0, fill);
}

fn rule_with(batch: &mut Messages, table: &str, chain: &str, flags: u16, fill: impl FnOnce(&mut Rule<'_>)) {
    batch.begin(SUBSYSTEM << 8 | NEW_RULE, CREATE | APPEND | flags, &[INET, 0, 0, 0]);
    batch.text(1, table).text(2, chain).nest(4, |list| fill(&mut Rule(list)));
}

/// The expressions of a rule. All of them work on one register, in turn.
struct Rule<'a>(&'a mut Messages);

impl Rule<'_> {
    fn expression(&mut self, name: &str, fill: impl FnOnce(&mut Messages)) -> &mut Self {
        self.0.nest(1, |element| {
            element.text(1, name).nest(2, fill);
        });
        self
    }

    fn meta(&mut self, key: u32) -> &mut Self {
        self.expression("meta", |data| {
            data.big_endian(1, 1).big_endian(2, key);
        })
    }

    fn payload(&mut self, base: u32, offset: u32, length: u32) -> &mut Self {
        self.expression("payload", |data| {
            data.big_endian(1, 1).big_endian(2, base).big_endian(3, offset).big_endian(4, length);
        })
    }

    fn compare(&mut self, how: u32, value: &[u8]) -> &mut Self {
        self.expression("cmp", |data| {
            data.big_endian(1, 1).big_endian(2, how).nest(3, |holder| {
                holder.put(1, value);
            });
        })
    }

    /// The interface's name begins like this, or does not.
    fn interface(&mut self, key: u32, how: u32, start: &str) -> &mut Self {
        self.meta(key).compare(how, start.as_bytes())
    }

    /// The interface has this name.
    fn whole_interface(&mut self, key: u32, name: &str) -> &mut Self {
        let mut value = [0; 16];
        value.iter_mut().zip(name.bytes().take(15)).for_each(|(place, byte)| *place = byte);
        self.meta(key).compare(EQUAL, &value)
    }

    fn family(&mut self, family: u8) -> &mut Self {
        self.meta(PROTOCOL_FAMILY).compare(EQUAL, &[family])
    }

    /// The source address is in the prefix, or is another of the same family. The prefix ends with a byte.
    fn source(&mut self, prefix: Prefix, how: u32) -> &mut Self {
        let (family, offset, octets) = match prefix.address {
            std::net::IpAddr::V4(address) => (IPV4, 12, address.octets().to_vec()),
            std::net::IpAddr::V6(address) => (IPV6, 8, address.octets().to_vec()),
        };
        let length = usize::from(prefix.bits / 8);
        self.family(family);
        self.payload(NETWORK, offset, length as u32).compare(how, octets.get(..length).unwrap_or_default())
    }

    /// The packet belongs to no connection that is known.
    fn is_unknown(&mut self) -> &mut Self {
        self.state(KNOWN, EQUAL)
    }

    /// Its connection's state has none of these bits, or one.
    fn state(&mut self, bits: u32, how: u32) -> &mut Self {
        let state = 0;
        self.expression("ct", |data| {
            data.big_endian(1, 1).big_endian(2, state);
        });
        self.expression("bitwise", |data| {
            data.big_endian(1, 1).big_endian(2, 1).big_endian(3, 4);
            data.nest(4, |mask| {
                mask.put(1, &bits.to_ne_bytes());
            });
            data.nest(5, |nothing| {
                nothing.put(1, &[0; 4]);
            });
        });
        self.compare(how, &[0; 4])
    }

    fn verdict(&mut self, code: u32) -> &mut Self {
        self.expression("immediate", |data| {
            data.big_endian(1, 0).nest(2, |holder| {
                holder.nest(2, |verdict| {
                    verdict.big_endian(1, code);
                });
            });
        })
    }

    /// Tells the sender that it may not.
    fn reject(&mut self) -> &mut Self {
        let (by_icmp, prohibited) = (2, 3);
        self.expression("reject", |data| {
            data.big_endian(1, by_icmp).put(2, &[prohibited]);
        })
    }
}
