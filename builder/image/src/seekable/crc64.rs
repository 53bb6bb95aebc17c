//! The CRC-64 of ISO 3309, by which tar-split knows the contents of a file (Go's `crc64.ISO`).

/// The polynomial, bit-reversed.
const POLYNOMIAL: u64 = 0xd800_0000_0000_0000;

/// For eight bytes at a time: `TABLES[n][b]` is what byte `b` adds when `n` bytes follow it.
const TABLES: [[u64; 256]; 8] = {
    let mut tables = [[0; 256]; 8];
    let mut at = 0;
    while at < 256 {
        let mut value = at as u64;
        let mut bit = 0;
        while bit < 8 {
            value = if value & 1 == 1 { (value >> 1) ^ POLYNOMIAL } else { value >> 1 };
            bit += 1;
        }
        tables[0][at] = value;
        at += 1;
    }
    let mut table = 1;
    while table < 8 {
        let mut at = 0;
        while at < 256 {
            let before = tables[table - 1][at];
            tables[table][at] = tables[0][(before & 0xff) as usize] ^ (before >> 8);
            at += 1;
        }
        table += 1;
    }
    tables
};

/// Sums up bytes that come in pieces.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Crc64(u64);

impl Crc64 {
    pub(super) fn of(bytes: &[u8]) -> u64 {
        let mut crc = Crc64::default();
        crc.update(bytes);
        crc.value()
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        let mut crc = !self.0;
        let (eights, rest) = bytes.as_chunks::<8>();
        for eight in eights {
            let mixed = (crc ^ u64::from_le_bytes(*eight)).to_le_bytes();
            crc = 0;
            for (at, byte) in mixed.iter().enumerate() {
                crc ^= TABLES[7 - at][usize::from(*byte)];
            }
        }
        for byte in rest {
            crc = TABLES[0][usize::from(byte ^ crc.to_le_bytes()[0])] ^ (crc >> 8);
        }
        self.0 = !crc;
    }

    pub(super) fn value(self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_those_of_go() {
        // The catalogue's check value of CRC-64/GO-ISO, and one of Go's own tests.
        for (text, sum) in
            [(&b""[..], 0), (b"a", 0x3420_0000_0000_0000), (b"123456789", 0xb909_56c7_75a4_1001)]
        {
            assert_eq!(Crc64::of(text), sum);
            let mut pieces = Crc64::default();
            for piece in text.chunks(2) {
                pieces.update(piece);
            }
            assert_eq!(pieces.value(), sum);
        }
        let long: Vec<u8> = (0..1000u32).map(|at| (at * at % 251) as u8).collect();
        let mut bytewise = Crc64::default();
        for byte in &long {
            bytewise.update(&[*byte]);
        }
        assert_eq!(Crc64::of(&long), bytewise.value());
    }
}
