//! Files with holes, in the four forms that archives have them.

use super::{TarError, header::Block};

/// A stretch of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Segment {
    /// So many bytes stand in the archive.
    Data(u64),
    /// So many zeros do not.
    Hole(u64),
}

/// An archive's own word on where the data of a file is: pairs of offset and length.
///
/// More pairs than this are refused: 1 MiB of map, as for the other extensions.
pub(super) const MAX_PAIRS: usize = 64 * 1024;

/// Turns a map into segments from the start of the file to its end.
///
/// The pairs must ascend without touching each other's bytes, end inside the file, and their lengths must make up what
/// the archive stores.
pub(super) fn segments(pairs: &[u64], real_size: u64, stored: u64) -> Result<Vec<Segment>, &'static str> {
    if !pairs.len().is_multiple_of(2) {
        return Err("an offset without a length");
    }
    let mut found = Vec::new();
    let (mut at, mut data) = (0u64, 0u64);
    for pair in pairs.chunks_exact(2) {
        let (offset, length) = (pair[0], pair[1]);
        let end = offset.checked_add(length).filter(|end| *end <= real_size);
        let end = end.ok_or("it reaches beyond the end of the file")?;
        if offset < at {
            return Err("its pieces overlap");
        }
        if offset > at {
            found.push(Segment::Hole(offset - at));
        }
        if length > 0 {
            found.push(Segment::Data(length));
        }
        data += length;
        at = end;
    }
    if real_size > at {
        found.push(Segment::Hole(real_size - at));
    }
    if data == stored { Ok(found) } else { Err("its pieces do not make up the stored bytes") }
}

/// The pairs of an old GNU header, which end at the first empty one; whether an extension block follows; and, of the
/// header itself, the file's length.
pub(super) fn old_gnu(block: &Block<'_>) -> Result<(Vec<u64>, bool, u64), TarError> {
    let bytes = block.bytes();
    let mut pairs = Vec::new();
    collect(block, &bytes[386..482], &mut pairs)?;
    let real_size = block.number(&bytes[483..495], "sparse size")?;
    let real_size = u64::try_from(real_size).map_err(|_| TarError::Number {
        offset: block.offset,
        field: "sparse size",
        value: real_size.to_string(),
    })?;
    Ok((pairs, bytes[482] != 0, real_size))
}

/// Adds the pairs of one 24-byte descriptor after the other.
pub(super) fn collect(block: &Block<'_>, descriptors: &[u8], pairs: &mut Vec<u64>) -> Result<(), TarError> {
    for descriptor in descriptors.chunks_exact(24) {
        if descriptor[0] == 0 {
            break;
        }
        for field in descriptor.chunks_exact(12) {
            let number = block.number(field, "sparse map")?;
            pairs.push(u64::try_from(number).map_err(|_| TarError::Number {
                offset: block.offset,
                field: "sparse map",
                value: number.to_string(),
            })?);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_must_fit_their_files() {
        use Segment::{Data, Hole};
        assert_eq!(segments(&[], 0, 0), Ok(vec![]));
        assert_eq!(segments(&[], 7, 0), Ok(vec![Hole(7)]));
        assert_eq!(segments(&[2, 3, 10, 0], 10, 3), Ok(vec![Hole(2), Data(3), Hole(5)]));
        assert_eq!(segments(&[0, 3, 3, 1], 4, 4), Ok(vec![Data(3), Data(1)]));
        for (pairs, real_size, stored) in [
            (&[0, 3][..], 4, 4),
            (&[0, 5], 4, 5),
            (&[u64::MAX, 5], 4, 5),
            (&[2, 2, 1, 1], 9, 3),
            (&[2], 9, 0),
        ] {
            assert!(segments(pairs, real_size, stored).is_err(), "{pairs:?}");
        }
    }
}
