//! Strings and numbers as ssh writes them: RFC 4251 section 5.

/// Reads from the beginning of what is left; `None` where that is too short.
pub(crate) struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    /// The next bytes.
    pub fn bytes(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    /// A number of four bytes.
    pub fn number(&mut self) -> Option<u32> {
        self.bytes(4)?.try_into().ok().map(u32::from_be_bytes)
    }

    /// Bytes behind their length.
    pub fn string(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.number()?).ok()?;
        self.bytes(length)
    }

    /// A positive number of any length, without zeros before it.
    pub fn integer(&mut self) -> Option<&'a [u8]> {
        self.string().map(trimmed)
    }
}

/// Adds bytes behind their length.
pub(crate) fn put_string(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend((bytes.len() as u32).to_be_bytes());
    out.extend(bytes);
}

/// Adds a positive number: with a zero before it where it would look negative.
pub(crate) fn put_integer(out: &mut Vec<u8>, bytes: &[u8]) {
    let bytes = trimmed(bytes);
    let sign = usize::from(bytes.first().is_some_and(|first| first & 0x80 != 0));
    out.extend(((bytes.len() + sign) as u32).to_be_bytes());
    out.extend([0_u8].iter().take(sign));
    out.extend(bytes);
}

/// A number without the zeros before it.
pub(crate) fn trimmed(bytes: &[u8]) -> &[u8] {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    bytes.get(zeros..).unwrap_or_default()
}
