//! Messages between a client of an agent and the agent: a length of four bytes, and so many bytes.

use std::io::{self, Read, Write};

/// What an agent says to whatever it does not do.
pub const FAILURE: [u8; 1] = [5];

pub(crate) const ASK_IDENTITIES: u8 = 11;
pub(crate) const IDENTITIES: u8 = 12;
pub(crate) const SIGN: u8 = 13;
pub(crate) const SIGNATURE: u8 = 14;

/// OpenSSH takes no longer one, in bytes.
const LONGEST_BYTES: u32 = 256 << 10;

/// Whether a request changes nothing in an agent: it asks for the keys, or for a signature. All else is refused, as
/// BuildKit does: a step could remove the user's keys, lock the agent, or add a key that others then trust.
pub fn is_harmless(request: &[u8]) -> bool {
    matches!(request.first(), Some(&(ASK_IDENTITIES | SIGN)))
}

/// The next message; none at the end.
///
/// # Errors
/// It cannot be read, is cut short, is empty or is longer than 256 KiB.
pub fn read_message(from: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0_u8; 4];
    if from.read(&mut length[..1])? == 0 {
        return Ok(None);
    }
    from.read_exact(&mut length[1..])?;
    let length = u32::from_be_bytes(length);
    if length == 0 || length > LONGEST_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "no message of an ssh agent is that long"));
    }
    let mut message = vec![0_u8; length as usize];
    from.read_exact(&mut message)?;
    Ok(Some(message))
}

/// Writes a message, at once.
///
/// # Errors
/// It cannot be written.
pub fn write_message(to: &mut impl Write, message: &[u8]) -> io::Result<()> {
    let length = (message.len() as u32).to_be_bytes();
    to.write_all(&[&length, message].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_out_as_they_went_in() {
        let mut stream = Vec::new();
        for message in [&b"a"[..], b"longer"] {
            write_message(&mut stream, message).expect("memory");
        }
        let mut from = stream.as_slice();
        assert_eq!(read_message(&mut from).expect("whole"), Some(b"a".to_vec()));
        assert_eq!(read_message(&mut from).expect("whole"), Some(b"longer".to_vec()));
        assert_eq!(read_message(&mut from).expect("the end"), None);
    }

    #[test]
    fn what_is_no_message_is_an_error() {
        for bytes in [&[0][..], &[0, 0, 0, 0], &[0, 0, 0, 2, 1], &[0xff, 0, 0, 0, 1], &[0, 4, 0, 1, 1]] {
            assert!(read_message(&mut &*bytes).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn an_agent_is_asked_and_not_changed() {
        let harmless: Vec<u8> = (0..=255).filter(|kind| is_harmless(&[*kind])).collect();
        assert_eq!(harmless, [11, 13]);
        assert!(!is_harmless(&[]));
    }
}
