//! Netlink: messages as bytes, a socket to send them by, and the answers.
//!
//! All numbers are the kernel's (`linux/netlink.h`), in the machine's order of bytes unless an attribute says otherwise.

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with,
};

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// A request that is answered by an acknowledgement or an error.
pub(crate) const ACKNOWLEDGE: u16 = 1 | 4;
/// Make what is not there, and fail where it is.
pub(crate) const CREATE_NEW: u16 = 0x400 | 0x200;
/// Make what is not there.
pub(crate) const CREATE: u16 = 0x400;
/// Answer with all there is.
pub(crate) const DUMP: u16 = 0x300;

const DEADLINE: Duration = Duration::from_secs(10);
const HEADER: usize = 16;
const ERROR: u16 = 2;
const DONE: u16 = 3;
const NESTED: u16 = 0x8000;
/// The most that the kernel puts into one answer; what is larger comes in several.
const ANSWER: usize = 32 << 10;

/// Messages that are sent at once.
#[derive(Debug, Default)]
pub(crate) struct Messages {
    bytes: Vec<u8>,
    /// Where the last message begins.
    last: usize,
    count: u32,
    /// The numbers of those that are acknowledged.
    expected: Vec<u32>,
}

impl Messages {
    /// Begins a message: its type, flags and fixed part.
    pub fn begin(&mut self, kind: u16, flags: u16, fixed: &[u8]) -> &mut Messages {
        self.last = self.bytes.len();
        self.count += 1;
        if flags & 4 != 0 {
            self.expected.push(self.count);
        }
        self.bytes.extend([0; 4]);
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend((flags | 1).to_ne_bytes());
        self.bytes.extend(self.count.to_ne_bytes());
        self.bytes.extend([0; 4]);
        self.bytes.extend(fixed);
        self.finish();
        self
    }

    /// Adds an attribute.
    pub fn put(&mut self, kind: u16, value: &[u8]) -> &mut Messages {
        let length = (value.len() + 4) as u16;
        self.bytes.extend(length.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(value);
        self.finish();
        self
    }

    /// Adds a text, with the NUL at its end.
    pub fn text(&mut self, kind: u16, value: &str) -> &mut Messages {
        self.put(kind, &[value.as_bytes(), b"\0"].concat())
    }

    /// Adds a number.
    pub fn number(&mut self, kind: u16, value: u32) -> &mut Messages {
        self.put(kind, &value.to_ne_bytes())
    }

    /// Adds a number as netfilter has them.
    pub fn big_endian(&mut self, kind: u16, value: u32) -> &mut Messages {
        self.put(kind, &value.to_be_bytes())
    }

    /// Adds an attribute that is made of others.
    pub fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Messages)) -> &mut Messages {
        let start = self.bytes.len();
        self.put(kind | NESTED, &[]);
        fill(self);
        let length = (self.bytes.len() - start) as u16;
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self
    }

    /// Adds the fixed part that an attribute begins with.
    pub fn fixed(&mut self, value: &[u8]) -> &mut Messages {
        self.bytes.extend(value);
        self.finish();
        self
    }

    /// Fills up to a multiple of four, and writes the length of the last message.
    fn finish(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        let length = (self.bytes.len() - self.last) as u32;
        self.bytes[self.last..self.last + 4].copy_from_slice(&length.to_ne_bytes());
    }
}

/// What the kernel answered: a type, and what follows the header.
#[derive(Debug)]
pub(crate) struct Answer {
    pub kind: u16,
    pub body: Vec<u8>,
}

/// A socket to one part of the kernel, in the network namespace in which it was opened.
#[derive(Debug)]
pub(crate) struct Socket(OwnedFd);

impl Socket {
    /// `socket(AF_NETLINK)`; no protocol is that of links, addresses and routes.
    pub fn open(protocol: Option<Protocol>) -> Result<Socket, Errno> {
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)?;
        // The kernel answers before `send` returns; a build must not hang on one that does not.
        set_socket_timeout(&socket, Timeout::Recv, Some(DEADLINE))?;
        Ok(Socket(socket))
    }

    /// Sends them, and waits until all are acknowledged. Gives what was answered besides.
    ///
    /// # Errors
    /// The first that failed; those after it were made all the same.
    pub fn ask(&self, messages: &Messages) -> Result<Vec<Answer>, Errno> {
        if messages.bytes.is_empty() {
            return Ok(Vec::new());
        }
        send(&self.0, &messages.bytes, SendFlags::empty())?;
        let mut left = messages.expected.clone();
        let mut failed = None;
        let mut answers = Vec::new();
        while !left.is_empty() {
            for (number, answer) in self.receive()? {
                let Some(error) = error_of(&answer) else {
                    answers.push(answer);
                    continue;
                };
                left.retain(|expected| *expected != number);
                if error != 0 {
                    failed.get_or_insert(Errno::from_raw_os_error(error));
                }
            }
        }
        failed.map_or(Ok(answers), Err)
    }

    /// Sends a transaction, of which all is done or nothing. Only its last message is acknowledged.
    ///
    /// # Errors
    /// The first that failed.
    pub fn commit(&self, messages: &Messages) -> Result<(), Errno> {
        send(&self.0, &messages.bytes, SendFlags::empty())?;
        loop {
            if let Some(error) = self.receive()?.iter().find_map(|(_, answer)| error_of(answer)) {
                return if error == 0 { Ok(()) } else { Err(Errno::from_raw_os_error(error)) };
            }
        }
    }

    /// Sends one that asks for all there is, and gives that.
    pub fn dump(&self, message: &Messages) -> Result<Vec<Answer>, Errno> {
        send(&self.0, &message.bytes, SendFlags::empty())?;
        let mut answers = Vec::new();
        loop {
            for (_, answer) in self.receive()? {
                match (answer.kind, error_of(&answer)) {
                    (DONE, _) => return Ok(answers),
                    (_, Some(error)) => return Err(Errno::from_raw_os_error(error)),
                    _ => answers.push(answer),
                }
            }
        }
    }

    fn receive(&self) -> Result<Vec<(u32, Answer)>, Errno> {
        let mut buffer = vec![0_u8; ANSWER];
        let (length, whole) = loop {
            match recv(&self.0, &mut buffer[..], RecvFlags::TRUNC) {
                Err(Errno::INTR) => {}
                other => break other?,
            }
        };
        if whole > length {
            return Err(Errno::MSGSIZE);
        }
        let mut rest = &buffer[..length];
        let mut answers = Vec::new();
        while let Some(header) = rest.get(..HEADER) {
            let length = word(header, 0).unwrap_or(0) as usize;
            let Some(body) = rest.get(HEADER..length) else { break };
            let kind = u16::from_ne_bytes([header[4], header[5]]);
            answers.push((word(header, 8).unwrap_or(0), Answer { kind, body: body.to_vec() }));
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
        Ok(answers)
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The error number that an answer is, 0 for an acknowledgement; none where it is no such answer.
fn error_of(answer: &Answer) -> Option<i32> {
    let number = word(&answer.body, 0).filter(|_| answer.kind == ERROR)?;
    Some((number as i32).wrapping_neg())
}

/// The number at a place.
pub(crate) fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

/// The attributes in bytes: type and value of each.
pub(crate) fn attributes(mut bytes: &[u8]) -> Vec<(u16, &[u8])> {
    let mut found = Vec::new();
    while let Some(&[a, b, c, d]) = bytes.get(..4) {
        let length = usize::from(u16::from_ne_bytes([a, b]));
        let Some(value) = bytes.get(4..length) else { break };
        found.push((u16::from_ne_bytes([c, d]) & !(NESTED | 0x4000), value));
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    found
}

/// The attribute of a type.
pub(crate) fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).into_iter().find(|(found, _)| *found == kind).map(|(_, value)| value)
}

/// A text without the NUL at its end.
pub(crate) fn text(value: &[u8]) -> String {
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_message_knows_its_length_and_that_of_its_parts() {
        let mut messages = Messages::default();
        messages.begin(18, ACKNOWLEDGE, &[9; 4]).text(3, "lo").nest(18, |m| {
            m.text(1, "veth").nest(2, |m| {
                m.number(7, 42);
            });
        });
        messages.begin(20, 0, &[]);
        let first = word(&messages.bytes, 0).expect("a header") as usize;
        assert_eq!((first, word(&messages.bytes, first)), (messages.bytes.len() - HEADER, Some(16)));
        let body = &messages.bytes[HEADER + 4..first];
        assert_eq!(attribute(body, 3).map(text).as_deref(), Some("lo"));
        let nested = attribute(body, 18).expect("it was put there");
        assert_eq!(attribute(nested, 1).map(text).as_deref(), Some("veth"));
        assert_eq!(attribute(attribute(nested, 2).expect("nested"), 7).and_then(|v| word(v, 0)), Some(42));
        assert_eq!(messages.expected, [1]);
    }

    proptest! {
        #[test]
        fn noise_is_read_to_its_end(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let all: usize = attributes(&bytes).iter().map(|(_, value)| value.len() + 4).sum();
            prop_assert!(all <= bytes.len());
        }
    }
}
