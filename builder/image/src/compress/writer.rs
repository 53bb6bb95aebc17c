//! A stream that is cut, compressed on all cores and joined.

use std::{
    collections::VecDeque,
    io::{self, Write},
    sync::{
        Arc,
        mpsc::{Receiver, TryRecvError, channel},
    },
};

use oci::media_type::Compression;

use super::{
    BadLevel, Codec, Encoder,
    block::{DEFLATE_END, GZIP_HEADER},
    cut::Cutter,
    known::{Blocks, Compressed, Known},
};

/// Compresses what is written to it and writes the blob to `out`. Blocks are compressed on the `rayon` pool that the
/// caller is in; a few for each of its threads are held in memory.
///
/// A codec with an index gives the blob of the codec it is made of; its index comes with an archive
/// ([`crate::encode`]). Dropped before [`CompressWriter::finish`], it leaves a truncated blob.
pub struct CompressWriter<W> {
    out: W,
    codec: Codec,
    known: Arc<Known>,
    cutter: Cutter,
    block: Vec<u8>,
    /// Oldest first.
    running: VecDeque<Receiver<Compressed>>,
    /// Of the blocks that were written.
    crc: crc32fast::Hasher,
    plain_size: u64,
    /// How many bytes went to `out`.
    written: u64,
    blocks: Blocks,
}

impl<W: Write> CompressWriter<W> {
    /// A blob that goes to `out`.
    ///
    /// # Errors
    /// [`BadLevel`].
    pub fn new(out: W, encoder: impl Into<Encoder>) -> Result<CompressWriter<W>, BadLevel> {
        let Encoder { codec, earlier } = encoder.into();
        let codec = codec.check()?;
        Ok(CompressWriter {
            out,
            codec,
            known: Arc::new(Known::new(codec, earlier)),
            cutter: Cutter::new(codec.sizes()),
            block: Vec::new(),
            running: VecDeque::new(),
            crc: crc32fast::Hasher::new(),
            plain_size: 0,
            written: 0,
            blocks: Blocks::default(),
        })
    }

    /// Compresses what is left, ends the blob, and gives `out` back, with the places of the blocks.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn finish(mut self) -> io::Result<(W, Blocks)> {
        self.head()?;
        let last = std::mem::take(&mut self.block);
        self.plain_size += last.len() as u64;
        if self.running.is_empty() && !last.is_empty() {
            // Of a small layer there is nothing else to do meanwhile.
            let only = self.known.block(&last);
            self.join(&only)?;
        } else if !last.is_empty() {
            self.start(last);
        }
        while !self.running.is_empty() {
            self.join_oldest()?;
        }
        match self.codec {
            Codec::Uncompressed => {}
            Codec::Gzip { .. } | Codec::EStargz { .. } => {
                // CRC and length modulo 2³² follow.
                self.out.write_all(&DEFLATE_END)?;
                self.out.write_all(&self.crc.clone().finalize().to_le_bytes())?;
                self.out.write_all(&(self.plain_size as u32).to_le_bytes())?;
            }
            Codec::Zstd { .. } | Codec::ZstdChunked { .. } if self.plain_size == 0 => {
                self.out.write_all(&self.codec.block(b""))?;
            }
            Codec::Zstd { .. } | Codec::ZstdChunked { .. } => {}
        }
        self.out.flush()?;
        Ok((self.out, self.blocks))
    }

    /// Writes what stands before the first block.
    fn head(&mut self) -> io::Result<()> {
        if self.plain_size == 0 && self.codec.compression() == Compression::Gzip {
            self.out.write_all(&GZIP_HEADER)?;
            self.written = GZIP_HEADER.len() as u64;
        }
        Ok(())
    }

    /// Ends the gathered block, and hands it to the pool.
    fn end_block(&mut self) -> io::Result<()> {
        self.head()?;
        let room = self.block.capacity();
        let block = std::mem::replace(&mut self.block, Vec::with_capacity(room));
        self.plain_size += block.len() as u64;
        if self.running.len() >= self.codec.blocks_in_flight(rayon::current_num_threads()) {
            self.join_oldest()?;
        }
        self.start(block);
        Ok(())
    }

    fn start(&mut self, block: Vec<u8>) {
        let (sender, receiver) = channel();
        let known = Arc::clone(&self.known);
        rayon::spawn(move || {
            // Nobody listens any more when the writer was dropped after an error.
            let _ = sender.send(known.block(&block));
        });
        self.running.push_back(receiver);
    }

    /// Waits for the oldest block and writes it.
    fn join_oldest(&mut self) -> io::Result<()> {
        let Some(oldest) = self.running.pop_front() else { return Ok(()) };
        let compressed = wait(&oldest)?;
        self.join(&compressed)
    }

    fn join(&mut self, compressed: &Compressed) -> io::Result<()> {
        let size = u64::from(compressed.plain_size);
        self.crc.combine(&crc32fast::Hasher::new_with_initial_len(compressed.crc, size));
        self.blocks.0.extend(compressed.at(self.written));
        self.written += compressed.bytes.len() as u64;
        self.out.write_all(&compressed.bytes)
    }
}

impl<W: Write> Write for CompressWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.codec == Codec::Uncompressed {
            return self.out.write(bytes);
        }
        let (taken, ends) = self.cutter.advance(bytes);
        self.block.extend_from_slice(&bytes[..taken]);
        if ends {
            self.end_block()?;
        }
        Ok(taken)
    }

    /// Does not end the block, as that would change the bytes.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Waits for a job without standing in the pool's way: one of its own threads works while it waits, or a pool whose
/// threads all compress layers would wait for itself.
pub(crate) fn wait<T>(result: &Receiver<T>) -> io::Result<T> {
    let gone = || io::Error::other("a job ended without a result");
    if rayon::current_thread_index().is_none() {
        return result.recv().map_err(|_| gone());
    }
    loop {
        match result.try_recv() {
            Ok(value) => return Ok(value),
            Err(TryRecvError::Disconnected) => return Err(gone()),
            Err(TryRecvError::Empty) => {
                if rayon::yield_now() != Some(rayon::Yield::Executed) {
                    std::thread::yield_now();
                }
            }
        }
    }
}
