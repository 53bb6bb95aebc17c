//! Bits on their way into bytes.

/// Bits on their way into bytes, the lowest of each byte first.
pub(super) struct Bits<'a> {
    room: &'a mut [u8],
    at: usize,
    hold: u64,
    /// At most seven after [`Bits::flush`].
    held: u32,
}

impl<'a> Bits<'a> {
    pub(super) fn new(room: &'a mut [u8]) -> Bits<'a> {
        Bits { room, at: 0, hold: 0, held: 0 }
    }

    /// Adds bits, at most 57 since the last [`Bits::flush`].
    #[inline(always)]
    pub(super) fn add(&mut self, bits: u64, width: u32) {
        self.hold |= bits << self.held;
        self.held += width;
    }

    /// Writes whole bytes down. What has no room is counted only: see [`Bits::end`].
    #[inline(always)]
    pub(super) fn flush(&mut self) {
        if let Some(room) = self.room.get_mut(self.at..).and_then(|room| room.first_chunk_mut()) {
            *room = self.hold.to_le_bytes();
        }
        self.at += (self.held / 8) as usize;
        self.hold >>= self.held & !7;
        self.held &= 7;
    }

    /// Ends at a byte's border with an empty stored block. How many bytes there are, if they had room.
    pub(super) fn end(mut self) -> Option<usize> {
        // Three bits of zero, up to the border, its length and the complement of it.
        self.held = (self.held + 3).next_multiple_of(8);
        self.flush();
        self.add(0xffff_0000, 32);
        self.flush();
        (self.at + 8 <= self.room.len()).then_some(self.at)
    }
}
