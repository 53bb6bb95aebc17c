//! Bytes that a step is confided, for as long as somebody needs them.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use zeroize::{Zeroize, Zeroizing};

use crate::sys::Pages;

/// Bytes of a secret. They are never printed, and overwritten when nobody needs them any more. A clone is the same bytes. As
/// far as the kernel grants it, they are not swapped, in no core dump, and in no process that is forked.
#[derive(Clone)]
pub struct SecretBytes(Arc<Held>);

struct Held {
    memory: Memory,
    length: usize,
}

enum Memory {
    Pages(Pages),
    /// Where there can be no further mapping.
    Heap(Zeroizing<Vec<u8>>),
}

impl SecretBytes {
    /// A copy of these bytes.
    pub fn copy(bytes: &[u8]) -> SecretBytes {
        let memory = match Pages::new(bytes.len()) {
            Ok(mut pages) => {
                for (to, from) in pages.iter_mut().zip(bytes) {
                    *to = *from;
                }
                Memory::Pages(pages)
            }
            Err(_) => Memory::Heap(Zeroizing::new(bytes.to_vec())),
        };
        SecretBytes(Arc::new(Held { memory, length: bytes.len() }))
    }
}

impl From<Vec<u8>> for SecretBytes {
    /// Overwrites the vector. One that grew has left copies behind where it was before.
    fn from(mut bytes: Vec<u8>) -> SecretBytes {
        let copied = SecretBytes::copy(&bytes);
        bytes.zeroize();
        copied
    }
}

impl Deref for SecretBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let all: &[u8] = match &self.0.memory {
            Memory::Pages(pages) => pages,
            Memory::Heap(bytes) => bytes,
        };
        all.get(..self.0.length).unwrap_or_default()
    }
}

impl PartialEq for SecretBytes {
    fn eq(&self, other: &SecretBytes) -> bool {
        **self == **other
    }
}

impl Eq for SecretBytes {}

impl fmt::Debug for SecretBytes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "SecretBytes({})", self.len())
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // The other overwrites itself.
        if let Memory::Pages(pages) = self {
            pages.zeroize();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// What the kernel says of the mapping that an address is in.
    fn flags_of(address: *const u8) -> String {
        let maps = fs::read_to_string("/proc/self/smaps").expect("it is mounted");
        let mut flags = String::new();
        let mut inside = false;
        for line in maps.lines() {
            let range = line.split(' ').next().and_then(|word| word.split_once('-'));
            let number = |text| usize::from_str_radix(text, 16).ok();
            if let Some((from, to)) = range.and_then(|(from, to)| number(from).zip(number(to))) {
                inside = (from..to).contains(&(address as usize));
            } else if inside && let Some(found) = line.strip_prefix("VmFlags:") {
                flags = found.to_owned();
            }
        }
        flags
    }

    #[test]
    fn what_is_confided_is_locked_and_dumped_nowhere() {
        let large = vec![b'x'; 100_000];
        for bytes in [b"".as_slice(), b"hidden", &large] {
            let secret = SecretBytes::from(bytes.to_vec());
            assert_eq!(&*secret, bytes);
            assert_eq!(secret.clone(), secret);
            assert_eq!(secret.as_ptr(), secret.clone().as_ptr(), "a clone is no copy");
            let flags = flags_of(secret.as_ptr());
            for flag in ["lo", "dd", "dc"] {
                assert!(flags.split_whitespace().any(|found| found == flag), "no {flag} in {flags}");
            }
        }
        assert_eq!(format!("{:?}", SecretBytes::copy(b"hidden")), "SecretBytes(6)");
        assert_ne!(SecretBytes::copy(b"hidden"), SecretBytes::copy(b"hidde"));
    }
}
