//! Bounds for layers that come from elsewhere: what is made to exhaust a machine meets them, what runs does not.

use image::apply;

/// What one layer may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The most bytes that a layer's tar may have, and its files with their holes.
    pub layer_bytes: u64,
    /// The most bytes of tar that may be made of one byte of a blob.
    pub layer_expansion: u64,
    /// Up to so many bytes of tar its expansion is not looked at: an image may have a file of zeros.
    pub layer_expansion_from: u64,
    /// The most entries of a layer. Each takes some 450 bytes of memory while it is unpacked.
    pub layer_entries: u64,
    /// How much of the state folder's disk is left free, in bytes, by what comes from elsewhere; see
    /// [`store::Store::check_room`].
    pub free_bytes: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            layer_bytes: 1 << 40,
            layer_expansion: 200,
            layer_expansion_from: 8 << 30,
            layer_entries: 1_000_000,
            free_bytes: 1 << 30,
        }
    }
}

impl Limits {
    /// The bounds for a layer whose blob has so many bytes.
    pub(crate) fn of_blob(&self, blob_bytes: u64) -> apply::Limits {
        let expanded = blob_bytes.saturating_mul(self.layer_expansion).max(self.layer_expansion_from);
        apply::Limits { entries: self.layer_entries, bytes: self.layer_bytes.min(expanded) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_blob_makes_no_large_layer() {
        let (mib, gib) = (1 << 20, 1 << 30);
        for (blob, most) in [
            (0, 8 * gib),
            (100, 8 * gib),
            (100 * mib, 20_000 * mib),
            (gib, 200 * gib),
            (100 * gib, 1 << 40),
            (u64::MAX, 1 << 40),
        ] {
            assert_eq!(Limits::default().of_blob(blob).bytes, most, "{blob}");
        }
        let small = Limits { layer_bytes: 5, layer_entries: 7, ..Limits::default() };
        assert_eq!(small.of_blob(u64::MAX), apply::Limits { entries: 7, bytes: 5 });
    }
}
