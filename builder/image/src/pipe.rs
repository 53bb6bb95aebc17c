//! One stream, several threads: chunks of bytes that are shared, not copied.

use std::{
    io::{self, Read, Write},
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::{Scope, ScopedJoinHandle},
};

use oci::{Digest, Hasher};

/// How long a chunk is: large enough that handing it over costs nothing beside hashing it.
pub(crate) const CHUNK: usize = 256 * 1024;

/// How many chunks may wait for a thread.
const WAITING: usize = 8;

/// Some bytes that several threads read.
pub(crate) type Chunk = Arc<Vec<u8>>;

/// A channel for chunks.
pub(crate) fn chunks<T>() -> (SyncSender<T>, Receiver<T>) {
    sync_channel(WAITING)
}

/// Hashes all chunks of a channel.
pub(crate) fn hash(chunks: &Receiver<Chunk>) -> Digest {
    let mut hasher = Hasher::new();
    for chunk in chunks {
        hasher.update(&chunk);
    }
    hasher.finish()
}

/// Hashes chunks on a thread of its own; where they are few, at the end instead.
pub(crate) struct Hashing<'scope, 'env> {
    scope: &'scope Scope<'scope, 'env>,
    /// The first chunks, as long as they are few.
    few: Vec<Chunk>,
    running: Option<(SyncSender<Chunk>, ScopedJoinHandle<'scope, Digest>)>,
    size: u64,
}

impl<'scope, 'env> Hashing<'scope, 'env> {
    /// Hashes on a thread of this scope.
    pub(crate) fn new(scope: &'scope Scope<'scope, 'env>) -> Self {
        Hashing { scope, few: Vec::new(), running: None, size: 0 }
    }

    /// Adds a chunk.
    pub(crate) fn add(&mut self, chunk: Chunk) -> io::Result<()> {
        self.size += chunk.len() as u64;
        self.few.push(chunk);
        if self.running.is_none() && self.size > CHUNK as u64 {
            let (sender, receiver) = chunks();
            self.running = Some((sender, self.scope.spawn(move || hash(&receiver))));
        }
        let Some((sender, _)) = &self.running else { return Ok(()) };
        let gone = |_| io::Error::other("the hashing thread has ended");
        self.few.drain(..).try_for_each(|chunk| sender.send(chunk).map_err(gone))
    }

    /// Digest and number of the bytes that were added.
    pub(crate) fn finish(self) -> io::Result<(Digest, u64)> {
        let digest = match self.running {
            Some((sender, running)) => {
                drop(sender);
                running.join().map_err(|_| io::Error::other("the hashing thread panicked"))?
            }
            None => {
                let mut hasher = Hasher::new();
                self.few.iter().for_each(|chunk| hasher.update(chunk));
                hasher.finish()
            }
        };
        Ok((digest, self.size))
    }
}

/// The chunks of a channel as a stream.
pub(crate) struct ChunkReader {
    chunks: Receiver<io::Result<Chunk>>,
    current: Chunk,
    at: usize,
}

impl ChunkReader {
    pub(crate) fn new(chunks: Receiver<io::Result<Chunk>>) -> ChunkReader {
        ChunkReader { chunks, current: Arc::default(), at: 0 }
    }
}

impl Read for ChunkReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.current.len() {
            match self.chunks.recv() {
                Ok(chunk) => (self.current, self.at) = (chunk?, 0),
                Err(_) => return Ok(0),
            }
        }
        let taken = buffer.len().min(self.current.len() - self.at);
        buffer[..taken].copy_from_slice(&self.current[self.at..self.at + taken]);
        self.at += taken;
        Ok(taken)
    }
}

/// A stream that is longer than its reader allows.
#[derive(Debug, thiserror::Error)]
#[error("it is larger than {limit} bytes")]
pub(crate) struct TooLong {
    pub(crate) limit: u64,
}

/// Reads `source` to its end, and gives every chunk to both channels. An error goes to the reading side as it is; a
/// side that hung up ends the work.
///
/// Returns the number of bytes; more than `limit` of them are an error.
pub(crate) fn split(
    source: &mut dyn Read,
    limit: u64,
    hashing: SyncSender<Chunk>,
    reading: SyncSender<io::Result<Chunk>>,
) -> u64 {
    let mut size = 0;
    loop {
        let mut chunk = Vec::with_capacity(CHUNK);
        let read = source.take(CHUNK as u64).read_to_end(&mut chunk);
        size += chunk.len() as u64;
        let read = read.and_then(|read| {
            let fits = size <= limit;
            fits.then_some(read).ok_or_else(|| io::Error::other(TooLong { limit }))
        });
        let sent = match read {
            Ok(0) => return size,
            Ok(_) => {
                let chunk = Arc::new(chunk);
                hashing.send(Arc::clone(&chunk)).is_ok() && reading.send(Ok(chunk)).is_ok()
            }
            Err(error) => {
                // The reading side may have what it wanted and be gone, or have it with what came before the error; then
                // nobody asks for the digest either.
                let _ = reading.send(Ok(Arc::new(chunk))).and_then(|()| reading.send(Err(error)));
                false
            }
        };
        if !sent {
            return size;
        }
    }
}

/// Counts and hashes what is written through it.
pub(crate) struct HashingWriter<W> {
    out: W,
    hasher: Hasher,
    size: u64,
}

impl<W: Write> HashingWriter<W> {
    pub(crate) fn new(out: W) -> HashingWriter<W> {
        HashingWriter { out, hasher: Hasher::new(), size: 0 }
    }

    /// Digest and number of the bytes that were written.
    pub(crate) fn finish(self) -> (Digest, u64) {
        (self.hasher.finish(), self.size)
    }
}

impl<W: Write> Write for HashingWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
