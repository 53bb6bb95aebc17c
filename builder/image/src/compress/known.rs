//! Blocks that were compressed before, in this blob or in an earlier one.
//!
//! A block's compressed bytes follow from the codec, the encoders' version and the plain bytes alone, so those of an equal
//! block are taken as they are. Which block is equal is told by BLAKE3 of the plain bytes. What is read from an earlier
//! blob is compared with the BLAKE3 of the compressed bytes that was taken when they were made: a blob that is damaged,
//! cut or gone means that the block is compressed, and never that other bytes are written.

use std::{
    collections::BTreeMap,
    fs::File,
    os::unix::fs::FileExt,
    sync::{Arc, Mutex, PoisonError},
};

use super::{Codec, ENCODER_VERSION};

/// Compressed blocks of the blob that is being written are kept up to so many bytes.
const KEPT: usize = 4 << 20;

/// BLAKE3 of some bytes. Never seen outside of the state folder: there it may be the faster one, three times as fast as
/// SHA-256 where that is fast.
type Name = [u8; 32];

fn name(bytes: &[u8]) -> Name {
    *blake3::hash(bytes).as_bytes()
}

/// Where a block is in a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Block {
    /// BLAKE3 of the plain bytes.
    pub(super) plain: Name,
    /// How many they are.
    pub(super) plain_size: u32,
    /// Their CRC-32, for gzip's trailer.
    pub(super) crc: u32,
    /// BLAKE3 of the compressed bytes.
    pub(super) digest: Name,
    /// How many they are.
    pub(super) size: u32,
    /// Where they begin in the blob.
    pub(super) offset: u64,
}

/// Which blocks a blob is made of. Blocks that are stored as they are need no looking up, and are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Blocks(pub(super) Vec<Block>);

const MAGIC: &[u8] = b"kiln blocks 1\n";
/// Two digests, three numbers of four bytes and one of eight.
const LINE: usize = 32 + 4 + 4 + 32 + 4 + 8;
/// No block is longer, compressed or not.
const LONGEST: u32 = 16 << 20;

impl Blocks {
    /// Whether there is nothing to be found in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many blocks it names.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The blocks of a blob of this codec, to be kept beside it and given to [`Earlier::add`].
    pub fn encode(&self, codec: Codec) -> Vec<u8> {
        let mut bytes = head(codec);
        for block in &self.0 {
            bytes.extend_from_slice(&block.plain);
            bytes.extend_from_slice(&block.plain_size.to_le_bytes());
            bytes.extend_from_slice(&block.crc.to_le_bytes());
            bytes.extend_from_slice(&block.digest);
            bytes.extend_from_slice(&block.size.to_le_bytes());
            bytes.extend_from_slice(&block.offset.to_le_bytes());
        }
        bytes.extend_from_slice(&name(&bytes));
        bytes
    }

    /// What [`Blocks::encode`] wrote of this codec and this version of the encoders. `None` for anything else.
    pub fn decode(bytes: &[u8], codec: Codec) -> Option<Blocks> {
        let (body, check) = bytes.split_last_chunk::<32>()?;
        let lines = body.strip_prefix(&head(codec)[..])?;
        if name(body) != *check {
            return None;
        }
        let lines = lines.chunks(LINE).map(|line| {
            let (plain, line) = line.split_first_chunk::<32>()?;
            let (plain_size, line) = line.split_first_chunk::<4>()?;
            let (crc, line) = line.split_first_chunk::<4>()?;
            let (digest, line) = line.split_first_chunk::<32>()?;
            let (size, offset) = line.split_first_chunk::<4>()?;
            let [plain_size, crc, size] = [plain_size, crc, size].map(|number| u32::from_le_bytes(*number));
            let offset = u64::from_le_bytes(offset.try_into().ok()?);
            let (plain, digest) = (*plain, *digest);
            (size <= LONGEST && plain_size <= LONGEST).then_some(Block {
                plain,
                plain_size,
                crc,
                digest,
                size,
                offset,
            })
        });
        lines.collect::<Option<_>>().map(Blocks)
    }
}

/// What a list of blocks begins with.
fn head(codec: Codec) -> Vec<u8> {
    [MAGIC, format!("{codec} v{ENCODER_VERSION}\n").as_bytes()].concat()
}

/// Earlier blobs whose blocks are taken where they come again.
#[derive(Debug, Default)]
pub struct Earlier {
    blobs: Vec<File>,
    /// By the digest of the plain bytes: which of the blobs, and where.
    places: BTreeMap<Name, (usize, Block)>,
}

impl Earlier {
    /// None.
    pub fn new() -> Earlier {
        Earlier::default()
    }

    /// Adds a blob that was made with the same codec and version of the encoders. Of blocks that several have, those of the first count.
    pub fn add(&mut self, blob: File, blocks: Blocks) {
        let at = self.blobs.len();
        self.blobs.push(blob);
        for block in blocks.0 {
            self.places.entry(block.plain).or_insert((at, block));
        }
    }

    fn get(&self, plain: &Name) -> Option<(Block, Vec<u8>)> {
        let (blob, block) = self.places.get(plain)?;
        let mut bytes = vec![0; usize::try_from(block.size).ok()?];
        self.blobs[*blob].read_exact_at(&mut bytes, block.offset).ok()?;
        (name(&bytes) == block.digest).then_some((*block, bytes))
    }
}

/// A block that was compressed, or found.
#[derive(Clone)]
pub(super) struct Compressed {
    pub(super) bytes: Arc<Vec<u8>>,
    /// CRC-32 of the plain block, where the codec wants it.
    pub(super) crc: u32,
    pub(super) plain_size: u32,
    /// What it is called, unless it is stored as it is: of the plain bytes and of the compressed ones.
    pub(super) named: Option<(Name, Name)>,
}

impl Compressed {
    /// Where it is, if it can be found again.
    pub(super) fn at(&self, offset: u64) -> Option<Block> {
        let (plain, digest) = self.named?;
        let size = u32::try_from(self.bytes.len()).ok()?;
        Some(Block { plain, plain_size: self.plain_size, crc: self.crc, digest, size, offset })
    }
}

/// What one blob's blocks are looked up in.
pub(super) struct Known {
    codec: Codec,
    earlier: Arc<Earlier>,
    recent: Mutex<Recent>,
}

/// The last blocks that were compressed or found again.
#[derive(Default)]
struct Recent {
    blocks: BTreeMap<Name, (u64, Compressed)>,
    by_use: BTreeMap<u64, Name>,
    uses: u64,
    bytes: usize,
}

impl Known {
    pub(super) fn new(codec: Codec, earlier: Arc<Earlier>) -> Known {
        Known { codec, earlier, recent: Mutex::default() }
    }

    /// The block, compressed: the same bytes whether it was found or not.
    pub(super) fn block(&self, plain: &[u8]) -> Compressed {
        let crc = || if self.codec.has_crc() { crc32fast::hash(plain) } else { 0 };
        let plain_size = u32::try_from(plain.len()).expect("a block is some MiB long");
        let runs = self.codec.runs(plain);
        if runs.iter().all(|run| run.stored) {
            let bytes = Arc::new(self.codec.block_by(plain, &runs));
            return Compressed { bytes, crc: crc(), plain_size, named: None };
        }
        let named_by = name(plain);
        if let Some(found) = self.recent().get(&named_by) {
            return found;
        }
        let block = match self.earlier.get(&named_by).filter(|(block, _)| block.plain_size == plain_size) {
            Some((block, bytes)) => {
                let named = Some((named_by, block.digest));
                Compressed { bytes: Arc::new(bytes), crc: block.crc, plain_size, named }
            }
            None => {
                let mut bytes = self.codec.block_by(plain, &runs);
                // There was room for all of the plain bytes, and it may be kept for long.
                bytes.shrink_to_fit();
                let bytes = Arc::new(bytes);
                let named = Some((named_by, name(&bytes)));
                Compressed { bytes, crc: crc(), plain_size, named }
            }
        };
        self.recent().add(named_by, &block);
        block
    }

    fn recent(&self) -> std::sync::MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Recent {
    fn get(&mut self, name: &Name) -> Option<Compressed> {
        let (used, block) = self.blocks.get_mut(name)?;
        self.by_use.remove(used);
        self.uses += 1;
        *used = self.uses;
        self.by_use.insert(self.uses, *name);
        Some(block.clone())
    }

    fn add(&mut self, name: Name, block: &Compressed) {
        // Two threads may have had the same block at once.
        if block.bytes.len() > KEPT || self.get(&name).is_some() {
            return;
        }
        self.uses += 1;
        self.by_use.insert(self.uses, name);
        self.bytes += block.bytes.len();
        self.blocks.insert(name, (self.uses, block.clone()));
        while self.bytes > KEPT
            && let Some((_, oldest)) = self.by_use.pop_first()
            && let Some((_, gone)) = self.blocks.remove(&oldest)
        {
            self.bytes -= gone.bytes.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn text(seed: u64) -> Vec<u8> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            b'a' + (state >> 33) as u8 % 16
        };
        (0..100_000).map(|_| next()).collect()
    }

    fn compressed(plain: &[u8]) -> Compressed {
        Known::new(Codec::GZIP, Arc::default()).block(plain)
    }

    #[test]
    fn a_list_of_blocks_is_read_by_its_own_codec_and_version_or_not_at_all() {
        let blocks = (0..3).filter_map(|seed| compressed(&text(seed)).at(seed << 40));
        let blocks = Blocks(blocks.collect());
        assert_eq!(blocks.len(), 3);
        let bytes = blocks.encode(Codec::GZIP);
        assert_eq!(Blocks::decode(&bytes, Codec::GZIP), Some(blocks));
        assert_eq!(Blocks::decode(&bytes, Codec::Gzip { level: Some(9) }), None);
        assert_eq!(Blocks::decode(&bytes, Codec::ZSTD), None);
        for at in 0..bytes.len() {
            assert_eq!(Blocks::decode(&bytes[..at], Codec::GZIP), None, "cut at {at}");
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert_eq!(Blocks::decode(&damaged, Codec::GZIP), None, "byte {at}");
        }
        assert_eq!(
            Blocks::decode(&Blocks::default().encode(Codec::ZSTD), Codec::ZSTD),
            Some(Blocks::default())
        );
    }

    #[test]
    fn what_is_damaged_or_gone_is_compressed() {
        let plain = text(1);
        let made = compressed(&plain);
        let blocks = Blocks(made.at(3).into_iter().collect());
        for (what, stored, is_found) in [
            ("whole", [b"xyz", &made.bytes[..]].concat(), true),
            ("moved", made.bytes.to_vec(), false),
            ("cut", made.bytes[..made.bytes.len() - 10].to_vec(), false),
            ("empty", Vec::new(), false),
        ] {
            let mut file = tempfile::tempfile().expect("a file");
            file.write_all(&stored).expect("written");
            let mut earlier = Earlier::new();
            earlier.add(file, blocks.clone());
            assert_eq!(earlier.get(&name(&plain)).is_some(), is_found, "{what}");
            let found = Known::new(Codec::GZIP, Arc::new(earlier)).block(&plain);
            assert!(found.bytes == made.bytes && found.crc == made.crc, "{what}");
        }
    }

    #[test]
    fn what_is_kept_has_no_room_to_spare() {
        for codec in [Codec::GZIP, Codec::ZSTD] {
            let made = Known::new(codec, Arc::default()).block(&b"a line\n".repeat(50_000));
            assert!(made.bytes.capacity() < 10_000, "{codec}: {} bytes", made.bytes.capacity());
        }
    }

    #[test]
    fn what_is_kept_is_bounded_and_the_last_used_stays() {
        let mut recent = Recent::default();
        let block =
            |size: usize| Compressed { bytes: Arc::new(vec![0; size]), crc: 0, plain_size: 0, named: None };
        let name = |at: u32| name(&at.to_le_bytes());
        for at in 0..100 {
            recent.add(name(at), &block(KEPT / 10));
            assert!(recent.get(&name(0)).is_some(), "it is used again and again");
            assert!(recent.bytes <= KEPT);
            assert_eq!(
                recent.bytes,
                recent.blocks.values().map(|(_, block)| block.bytes.len()).sum::<usize>()
            );
            assert_eq!(recent.by_use.len(), recent.blocks.len());
        }
        assert!(recent.get(&name(99)).is_some() && recent.get(&name(50)).is_none());
        recent.add(name(1000), &block(KEPT + 1));
        assert!(recent.get(&name(1000)).is_none());
    }
}
