//! What OpenSSH leaves out of an RSA key, because it can be computed.

use std::cmp::Ordering;

use zeroize::Zeroizing;

use crate::wire::trimmed;

/// `number mod (prime - 1)`, both of any length, the prime odd. The exponents of the Chinese remainder theorem are that of the
/// private exponent.
///
/// Bit by bit: some million steps for the longest key, once when a key is read, on a machine that has the key in a file.
pub(crate) fn reduced(number: &[u8], prime: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut modulus = Zeroizing::new(trimmed(prime).to_vec());
    if let Some(last) = modulus.last_mut() {
        *last &= 0xfe;
    }
    // One byte more, for the doubling.
    let mut rest = Zeroizing::new(vec![0_u8; modulus.len() + 1]);
    modulus.insert(0, 0);
    for byte in number {
        for bit in (0..8).rev() {
            double_and_add(&mut rest, byte >> bit & 1);
            if rest.as_slice().cmp(modulus.as_slice()) != Ordering::Less {
                subtract(&mut rest, &modulus);
            }
        }
    }
    rest
}

fn double_and_add(number: &mut [u8], bit: u8) {
    let mut carry = bit;
    for byte in number.iter_mut().rev() {
        let out = *byte >> 7;
        *byte = *byte << 1 | carry;
        carry = out;
    }
}

fn subtract(from: &mut [u8], what: &[u8]) {
    let mut borrow = false;
    for (byte, other) in from.iter_mut().zip(what).rev() {
        let (one, first) = byte.overflowing_sub(*other);
        let (two, second) = one.overflowing_sub(u8::from(borrow));
        (*byte, borrow) = (two, first || second);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_remainder() {
        for (number, prime) in
            [(0_u64, 3_u64), (1, 3), (1_000_003, 257), (u64::MAX, 65_537), (12, 13), (11, 13)]
        {
            let rest = reduced(&number.to_be_bytes(), &prime.to_be_bytes());
            let value = rest.iter().fold(0_u64, |value, byte| value << 8 | u64::from(*byte));
            assert_eq!(value, number % (prime - 1), "{number} mod {prime} - 1");
        }
    }
}
