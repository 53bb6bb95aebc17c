//! One header block: numbers, names and the checksum.

use super::{BLOCK, TarError};

/// A header block whose checksum is right.
pub(super) struct Block<'a> {
    raw: &'a tar::Header,
    /// Where the block starts, for errors.
    pub(super) offset: u64,
}

/// Which fields past the first 257 bytes mean something.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Dialect {
    V7,
    Ustar,
    /// ustar whose prefix is shorter, as two times stand behind it.
    Star,
    /// No prefix: other things stand there.
    Gnu,
}

impl<'a> Block<'a> {
    /// Checks the checksum. Old archivers summed signed bytes, so both sums are taken.
    pub(super) fn new(bytes: &'a [u8; BLOCK], offset: u64) -> Result<Block<'a>, TarError> {
        let block = Block { raw: tar::Header::from_byte_slice(bytes), offset };
        let stored = block.number(&block.raw.as_old().cksum, "checksum")?;
        let (mut unsigned, mut signed) = (0i64, 0i64);
        for (at, byte) in bytes.iter().enumerate() {
            let byte = if (148..156).contains(&at) { b' ' } else { *byte };
            unsigned += i64::from(byte);
            signed += i64::from(byte as i8);
        }
        if stored == unsigned || stored == signed { Ok(block) } else { Err(TarError::Checksum { offset }) }
    }

    fn dialect(&self) -> Dialect {
        match (self.raw.as_ustar(), self.raw.as_gnu()) {
            (Some(_), _) if self.raw.as_bytes()[508..] == *b"tar\0" => Dialect::Star,
            (Some(_), _) => Dialect::Ustar,
            (_, Some(_)) => Dialect::Gnu,
            _ => Dialect::V7,
        }
    }

    /// The type flag as it stands there.
    pub(super) fn flag(&self) -> u8 {
        self.raw.as_old().linkflag[0]
    }

    /// The whole block.
    pub(super) fn bytes(&self) -> &'a [u8; BLOCK] {
        self.raw.as_bytes()
    }

    /// The member's name: prefix, slash and name where the dialect has a prefix.
    pub(super) fn path(&self) -> Vec<u8> {
        let name = until_nul(&self.raw.as_old().name);
        let prefix = match (self.dialect(), self.raw.as_ustar()) {
            (Dialect::Ustar, Some(ustar)) => until_nul(&ustar.prefix),
            (Dialect::Star, Some(ustar)) => until_nul(&ustar.prefix[..131]),
            _ => b"",
        };
        if prefix.is_empty() { name.to_vec() } else { [prefix, b"/", name].concat() }
    }

    /// The link field.
    pub(super) fn link(&self) -> Vec<u8> {
        until_nul(&self.raw.as_old().linkname).to_vec()
    }

    /// The permission, set-id and sticky bits.
    pub(super) fn mode(&self) -> Result<u32, TarError> {
        Ok((self.number(&self.raw.as_old().mode, "mode")? & 0o7777) as u32)
    }

    /// The owner as the number that stands there.
    pub(super) fn uid(&self) -> Result<i64, TarError> {
        self.number(&self.raw.as_old().uid, "uid")
    }

    /// The group as the number that stands there.
    pub(super) fn gid(&self) -> Result<i64, TarError> {
        self.number(&self.raw.as_old().gid, "gid")
    }

    /// Seconds since 1970.
    pub(super) fn mtime(&self) -> Result<i64, TarError> {
        self.number(&self.raw.as_old().mtime, "mtime")
    }

    /// The length of what follows.
    pub(super) fn size(&self) -> Result<u64, TarError> {
        let field = &self.raw.as_old().size;
        let size = self.number(field, "size")?;
        u64::try_from(size).map_err(|_| self.bad(field, "size"))
    }

    /// Device numbers; 0 in a V7 archive, which has no field for them.
    pub(super) fn device(&self) -> Result<(u32, u32), TarError> {
        if self.dialect() == Dialect::V7 {
            return Ok((0, 0));
        }
        let bytes = self.raw.as_bytes();
        let part =
            |field: &[u8], name| u32::try_from(self.number(field, name)?).map_err(|_| self.bad(field, name));
        Ok((part(&bytes[329..337], "major number")?, part(&bytes[337..345], "minor number")?))
    }

    /// A number of a field that is not among the above, for the sparse map of old GNU headers.
    pub(super) fn number(&self, field: &[u8], name: &'static str) -> Result<i64, TarError> {
        parse_number(field).ok_or_else(|| self.bad(field, name))
    }

    fn bad(&self, field: &[u8], name: &'static str) -> TarError {
        TarError::Number { offset: self.offset, field: name, value: field.escape_ascii().to_string() }
    }
}

/// The bytes before the first NUL.
pub(super) fn until_nul(field: &[u8]) -> &[u8] {
    let end = field.iter().position(|b| *b == 0).unwrap_or(field.len());
    &field[..end]
}

/// Octal digits amid blanks and NULs, or a base-256 number: the first bit set, then two's complement, big endian.
pub(super) fn parse_number(field: &[u8]) -> Option<i64> {
    let first = *field.first()?;
    if first & 0x80 != 0 {
        // The second bit is the sign; the flag bit itself is not part of the number.
        let negative = first & 0x40 != 0;
        let mut value = if negative { i128::from(first as i8) } else { i128::from(first & 0x7f) };
        for byte in &field[1..] {
            value = value.checked_mul(256)?.checked_add(i128::from(*byte))?;
        }
        return i64::try_from(value).ok();
    }
    let blank = |b: &u8| *b == b' ' || *b == 0;
    let start = field.iter().position(|b| !blank(b)).unwrap_or(field.len());
    let digits = &field[start..];
    let end = digits.iter().position(blank).unwrap_or(digits.len());
    // Go and GNU tar take what follows the first blank for garbage of old archivers.
    digits[..end].iter().try_fold(0i64, |value, digit| {
        let digit = digit.checked_sub(b'0').filter(|d| *d < 8)?;
        value.checked_mul(8)?.checked_add(i64::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::parse_number;

    #[test]
    fn numbers_are_octal_or_base_256() {
        for (field, value) in [
            (&b"0000644\0"[..], Some(0o644)),
            (b"   644 \0", Some(0o644)),
            (b"\0\0\0\0\0\0\0\0", Some(0)),
            (b"77777777777\0", Some(0o77777777777)),
            (b"777777777777", Some(0o777777777777)),
            (b"00008\0", None),
            (b"-1\0", None),
            (b"\x80\0\0\0\0\0\x01\x00", Some(256)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff", Some(-1)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe", Some(-2)),
            (b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff", Some(i64::MAX)),
            (b"\x80\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff", None),
            (b"\xbf\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", None),
        ] {
            assert_eq!(parse_number(field), value, "{}", field.escape_ascii());
        }
    }
}
