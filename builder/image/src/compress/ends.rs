//! Where a deflate stream's last block begins and ends: found without making the bytes it stands for.
//!
//! The library that compresses marks the last block of what it makes as the last of all, and says nothing of where that
//! block begins. Blocks of ours are joined into one stream, so the mark has to go. What stands before the last block is
//! passed over by its codes ([`skip`]). The last one need not be: behind its end there is nothing but zeros up
//! to a byte's border, and how many zeros the code of its end has itself is known from its head.
//!
//! # Source
//! RFC 1951 § 3.2.

use super::codes::{Bits, Codes};

/// The last block of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Last {
    /// The number of the bit that marks it as the last.
    pub(super) mark: usize,
    /// The number of bits of the whole stream.
    pub(super) end: usize,
}

/// Finds the last block of a whole stream. `None` where it is no deflate; what stands in the last block is not looked at.
pub(super) fn last_block(stream: &[u8]) -> Option<Last> {
    find(stream, Codes::end_in)
}

/// As [`last_block`]; `end` says of the last block's codes where the stream ends, if that can be told.
fn find(stream: &[u8], end: impl Fn(&Codes, &[u8]) -> Option<usize>) -> Option<Last> {
    let mut bits = Bits::new(stream);
    loop {
        let mark = bits.position();
        bits.refill();
        let header = bits.take(3)?;
        let is_last = header & 1 == 1;
        let codes = match header >> 1 {
            0 => {
                bits.skip_stored()?;
                None
            }
            1 => Some(Codes::fixed()?),
            2 => Some(Codes::read(&mut bits)?),
            _ => return None,
        };
        if let Some(codes) = codes {
            if is_last && let Some(end) = end(&codes, stream) {
                return (end > bits.position()).then_some(Last { mark, end });
            }
            codes.skip(&mut bits)?;
        }
        if is_last {
            return Some(Last { mark, end: bits.position() });
        }
    }
}

/// As [`last_block`], but the last block is gone through as the others are.
#[cfg(test)]
pub(super) fn last_block_by_walking(stream: &[u8]) -> Option<Last> {
    find(stream, |_, _| None)
}
