//! Digests, one type for each meaning.
//!
//! Three digests of a layer look alike and mean three things; swapping two of them is *the* bug of this
//! field, so each has its own type and there is no conversion between them.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};

/// SHA-256 of some bytes. Says nothing about what the bytes are.
///
/// Text form: `sha256:` and 64 lower-case hex digits (image-spec v1.1, descriptor.md § Digests).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

/// A text that is no SHA-256 digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no digest: expected `sha256:` and 64 lower-case hex digits")]
pub struct BadDigest(pub String);

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Digest {
        Digest(Sha256::digest(bytes).into())
    }

    /// A digest whose 32 bytes are already known, for instance read back from the store.
    pub fn from_raw(raw: [u8; 32]) -> Digest {
        Digest(raw)
    }

    /// The 32 bytes.
    pub fn raw(&self) -> &[u8; 32] {
        &self.0
    }

    /// The 64 hex digits without `sha256:`, as file names in an OCI layout are written.
    pub fn hex(&self) -> String {
        // One look at a table for each half byte: digests are written by the thousand.
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let halves = self.0.iter().flat_map(|byte| [byte >> 4, byte & 15]);
        halves.map(|half| char::from(DIGITS[usize::from(half)])).collect()
    }

    /// The first 12 hex digits: enough for a person.
    pub fn short(&self) -> String {
        self.hex()[..12].to_owned()
    }

    /// Parses 64 hex digits without `sha256:`.
    ///
    /// # Errors
    /// [`BadDigest`] when the text is anything else.
    pub fn from_hex(hex: &str) -> Result<Digest, BadDigest> {
        let bad = || BadDigest(hex.to_owned());
        let text = hex.as_bytes();
        if text.len() != 64 {
            return Err(bad());
        }
        let mut raw = [0u8; 32];
        for (byte, pair) in raw.iter_mut().zip(text.chunks_exact(2)) {
            let high = nibble(pair[0]).ok_or_else(bad)?;
            *byte = high << 4 | nibble(pair[1]).ok_or_else(bad)?;
        }
        Ok(Digest(raw))
    }
}

fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = BadDigest;

    fn from_str(text: &str) -> Result<Digest, BadDigest> {
        let hex = text.strip_prefix("sha256:").ok_or_else(|| BadDigest(text.to_owned()))?;
        Digest::from_hex(hex).map_err(|_| BadDigest(text.to_owned()))
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Digest, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Hashes bytes as they pass; [`Hasher::finish`] gives their [`Digest`].
#[derive(Clone, Default)]
pub struct Hasher(Sha256);

impl Hasher {
    /// A hasher that has seen nothing yet.
    pub fn new() -> Hasher {
        Hasher::default()
    }

    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Adds bytes behind their length, so that two neighbouring fields cannot be mistaken for other two.
    pub fn field(&mut self, bytes: &[u8]) {
        self.0.update((bytes.len() as u64).to_be_bytes());
        self.0.update(bytes);
    }

    /// The digest of all that was added.
    pub fn finish(self) -> Digest {
        Digest(self.0.finalize().into())
    }
}

impl std::io::Write for Hasher {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

macro_rules! meaning {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Digest);

        impl $name {
            /// The bare digest, for file names and JSON.
            pub fn digest(&self) -> Digest {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }
    };
}

meaning! {
    /// Digest of a layer's *uncompressed* tar: an entry of `config.rootfs.diff_ids`.
    DiffId
}
meaning! {
    /// Digest of a layer's blob *as stored*, usually compressed: the layer descriptor's `digest`.
    BlobDigest
}
meaning! {
    /// Name of the root file system that results from applying layers in order, base first.
    ChainId
}

impl DiffId {
    /// Says that `digest` is that of an uncompressed layer tar.
    pub fn of_tar(digest: Digest) -> DiffId {
        DiffId(digest)
    }
}

impl BlobDigest {
    /// Says that `digest` is that of a blob as it is stored.
    pub fn of_blob(digest: Digest) -> BlobDigest {
        BlobDigest(digest)
    }
}

impl ChainId {
    /// A root file system of one layer: `ChainID(L0) = DiffID(L0)`.
    pub fn base(bottom: DiffId) -> ChainId {
        ChainId(bottom.0)
    }

    /// The root file system after one more layer (image-spec, config.md § Layer ChainID):
    /// `ChainID(L0|…|Ln) = SHA256(ChainID(L0|…|Ln-1) + " " + DiffID(Ln))`.
    pub fn then(self, above: DiffId) -> ChainId {
        ChainId(Digest::of(format!("{} {}", self.0, above.0).as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_reads_back_what_it_writes() {
        let digest = Digest::of(b"");
        assert_eq!(
            digest.to_string(),
            "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
        assert_eq!(digest.to_string().parse(), Ok(digest));
    }

    #[test]
    fn what_is_no_digest_is_refused() {
        let upper = Digest::of(b"").to_string().to_uppercase();
        for text in ["", "sha256:", "sha512:00", "sha256:zz", &upper, &Digest::of(b"").hex()] {
            assert!(text.parse::<Digest>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_chain_of_two_is_the_hash_of_both_texts() {
        let (a, b) = (DiffId::of_tar(Digest::of(b"a")), DiffId::of_tar(Digest::of(b"b")));
        let expected = Digest::of(format!("{a} {b}").as_bytes());
        assert_eq!(ChainId::base(a).then(b).digest(), expected);
    }
}
