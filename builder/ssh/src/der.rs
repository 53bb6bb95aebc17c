//! As much of DER as the public half of an RSA key takes.

/// The numbers of a sequence of numbers: of `RSAPublicKey`, the modulus and the exponent.
pub(crate) fn integers(bytes: &[u8]) -> Option<Vec<&[u8]>> {
    let (mut content, rest) = element(bytes, 0x30)?;
    let mut numbers = Vec::new();
    while !content.is_empty() {
        let (number, behind) = element(content, 0x02)?;
        numbers.push(number);
        content = behind;
    }
    rest.is_empty().then_some(numbers)
}

/// The content of the first element, which has this tag, and what is behind it.
fn element(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (found, rest) = bytes.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        short @ 0..=0x7f => (usize::from(*short), rest),
        long => {
            let (digits, rest) = rest.split_at_checked(usize::from(long & 0x7f))?;
            let length = digits.iter().try_fold(0_usize, |length, digit| {
                length.checked_mul(256)?.checked_add(usize::from(*digit))
            })?;
            (length, rest)
        }
    };
    (*found == tag).then(|| rest.split_at_checked(length))?
}

#[cfg(test)]
mod tests {
    use super::integers;

    #[test]
    fn what_is_no_sequence_of_numbers_is_nothing() {
        assert_eq!(integers(&[0x30, 6, 2, 1, 7, 2, 1, 9]), Some(vec![&[7][..], &[9]]));
        assert_eq!(integers(&[0x30, 0x81, 3, 2, 1, 7]), Some(vec![&[7][..]]));
        for bytes in
            [&[][..], &[0x30], &[0x30, 1], &[0x31, 0], &[0x30, 3, 4, 1, 7], &[0x30, 0x88], &[0x30, 0, 1]]
        {
            assert_eq!(integers(bytes), None, "{bytes:?}");
        }
    }
}
