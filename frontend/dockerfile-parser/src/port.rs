//! `EXPOSE`d ports, after expansion.

use core::net::IpAddr;
use std::fmt;
use thiserror::Error;

/// A port of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port {
    /// The number.
    pub number: u16,
    /// What is spoken there.
    pub protocol: Protocol,
}

/// What is spoken at a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// `tcp`, where nothing is said.
    Tcp,
    /// `udp`
    Udp,
    /// `sctp`
    Sctp,
}

/// As the image config has it: `80/tcp`.
impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = match self.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        };
        write!(f, "{}/{protocol}", self.number)
    }
}

/// Why a text names no ports.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PortError {
    /// Not a number from 0 to 65535, or two with `-` between them, the smaller first.
    #[error("`{text}` is not a port, nor a range of ports like `8000-8010`")]
    Range {
        /// The part that should be one.
        text: String,
    },
    /// A protocol that there is not.
    #[error("there is no protocol `{protocol}`; there are `tcp`, `udp` and `sctp`")]
    Protocol {
        /// The protocol as written.
        protocol: String,
    },
    /// An address that is none.
    #[error("`{text}` is not an address; only the port means something in an image")]
    Address {
        /// What stands for it.
        text: String,
    },
    /// A host's ports that are not as many as the container's.
    #[error("`{host}` and `{container}` are not equally many ports")]
    Unequal {
        /// The host's.
        host: String,
        /// The container's.
        container: String,
    },
}

/// Reads `<port>[-<port>][/<protocol>]` as the ports it names, in order.
///
/// An address and a host's ports before it, `127.0.0.1:80:8080`, are checked and left out; [`has_host_part`] tells of
/// them, since they mean nothing in an image.
///
/// # Errors
/// [`PortError`] says which part is wrong.
pub fn parse(text: &str) -> Result<Vec<Port>, PortError> {
    let (ports, protocol) = text.split_once('/').unwrap_or((text, ""));
    let protocol = match &*protocol.to_ascii_lowercase() {
        "" | "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "sctp" => Protocol::Sctp,
        _ => return Err(PortError::Protocol { protocol: protocol.to_owned() }),
    };
    let (host, container) = match ports.rsplit_once(':') {
        None => ("", ports),
        Some((before, container)) => match before.rsplit_once(':') {
            None => (before, container),
            Some((written, host)) => {
                address(written)?;
                (host, container)
            }
        },
    };
    let (first, last) = range(container)?;
    if !host.is_empty() {
        let (host_first, host_last) = range(host)?;
        if first != last && last - first != host_last - host_first {
            return Err(PortError::Unequal { host: host.to_owned(), container: container.to_owned() });
        }
    }
    Ok((first..=last).map(|number| Port { number, protocol }).collect())
}

/// An address, one of version 6 with or without brackets, or none at all.
fn address(text: &str) -> Result<(), PortError> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    match text.is_empty() || bare.parse::<IpAddr>().is_ok() {
        true => Ok(()),
        false => Err(PortError::Address { text: text.to_owned() }),
    }
}

/// Whether there is an address or a host's port in front of the container's.
pub fn has_host_part(text: &str) -> bool {
    text.split_once('/').map_or(text, |(ports, _)| ports).contains(':')
}

fn range(text: &str) -> Result<(u16, u16), PortError> {
    let error = || PortError::Range { text: text.to_owned() };
    let number = |digits: &str| match digits.bytes().all(|byte| byte.is_ascii_digit()) {
        true => digits.parse::<u16>().map_err(|_| error()),
        false => Err(error()),
    };
    let (first, last) = match text.split_once('-') {
        None => (number(text)?, number(text)?),
        Some((first, last)) => (number(first)?, number(last)?),
    };
    if first <= last { Ok((first, last)) } else { Err(error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports() {
        let names = |text: &str| {
            parse(text).map(|ports| ports.iter().map(Port::to_string).collect::<Vec<_>>().join(" "))
        };
        let good = [
            ("80", "80/tcp"),
            ("80/", "80/tcp"),
            ("80/UDP", "80/udp"),
            ("8000-8002/sctp", "8000/sctp 8001/sctp 8002/sctp"),
            ("127.0.0.1:80:8080", "8080/tcp"),
            ("8000:80", "80/tcp"),
            ("[::1]:1-2:3-4/udp", "3/udp 4/udp"),
            ("::1::80", "80/tcp"),
            ("::80", "80/tcp"),
            ("1-5:80", "80/tcp"),
        ];
        for (text, expected) in good {
            assert_eq!(names(text).as_deref(), Ok(expected), "{text}");
        }
        for text in [
            "",
            "/tcp",
            "a",
            "70000",
            "+80",
            "3-1",
            "1-",
            "-1",
            "80/http",
            "80/tcp/udp",
            "1-2:3-5",
            "a:80",
            "80:",
            "host:80:80",
            "[127.0.0.1:80:80",
            "1.2.3:80:80",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert!(has_host_part("1:2/tcp") && !has_host_part("2/tcp"));
    }
}
