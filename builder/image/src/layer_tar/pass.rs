//! One pass over a layer: what is next is read by several threads, and handed on in order.
//!
//! Opening a small file costs more than reading it, so small files are taken together until they fill a chunk, and a
//! few such chunks are made ahead on the `rayon` pool that the caller is in. A file that fills a chunk by itself is read
//! by the caller's thread, piece after piece. What is in memory is bounded by the number of threads.

use std::{
    collections::VecDeque,
    io,
    iter::Peekable,
    sync::{
        Arc,
        mpsc::{Receiver, channel},
    },
    thread,
};

use oci::Digest;
use rayon::Scope;
use tree::{Iter, Kind, Layer, LayerPath, Node};

use super::{
    LayerTarError, TarOptions,
    members::{Contents as Expected, contents, ends, fill},
};
use crate::{
    compress::wait,
    contents::{Bytes, Contents},
    pipe::{CHUNK, Chunk, chunks, hash},
    tar::{AppendError, BLOCK, padding},
};

/// Where the chunks of a tar go, in order.
pub(crate) type Out<'a> = dyn FnMut(Chunk) -> io::Result<()> + 'a;

/// What a tar is made of.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) layer: &'a Layer,
    pub(super) contents: &'a dyn Contents,
    pub(super) options: TarOptions,
    /// Whether whiteouts mean something where it goes.
    pub(super) whiteouts: bool,
}

type Member<'a> = (&'a LayerPath, &'a Node);

/// Some of the members, in their order.
enum Batch<'a> {
    /// About a chunk's worth.
    Small(Vec<Member<'a>>),
    /// A file of more than that.
    Large(Member<'a>, Expected),
}

/// A batch that is waited for.
enum Coming<'a> {
    Read(Receiver<Result<Vec<u8>, LayerTarError>>),
    Large(Member<'a>, Expected),
}

impl<'a> Source<'a> {
    /// Writes the whole archive.
    pub(super) fn write(self, out: &mut Out<'_>) -> Result<(), LayerTarError> {
        let mut batches = Batches(self.layer.entries.iter().peekable());
        let mut end = match batches.next() {
            // A small layer is not worth waking anybody.
            Some(Batch::Small(only)) if batches.0.peek().is_none() => self.read(&only)?,
            None => Vec::new(),
            Some(first) => {
                let batches = std::iter::once(first).chain(batches);
                rayon::in_place_scope(|scope| self.write_batches(scope, batches, out))?;
                Vec::new()
            }
        };
        end.resize(end.len() + 2 * BLOCK, 0);
        send(end, out)
    }

    fn write_batches<'s>(
        self,
        scope: &Scope<'s>,
        mut batches: impl Iterator<Item = Batch<'a>>,
        out: &mut Out<'_>,
    ) -> Result<(), LayerTarError>
    where
        'a: 's,
    {
        let ahead = 2 * rayon::current_num_threads() + 2;
        let mut coming: VecDeque<Coming<'a>> = VecDeque::new();
        loop {
            while coming.len() < ahead
                && let Some(batch) = batches.next()
            {
                coming.push_back(match batch {
                    Batch::Large(member, expected) => Coming::Large(member, expected),
                    Batch::Small(members) => {
                        let (sender, receiver) = channel();
                        scope.spawn(move |_| {
                            // Nobody listens any more after an error.
                            let _ = sender.send(self.read(&members));
                        });
                        Coming::Read(receiver)
                    }
                });
            }
            match coming.pop_front() {
                None => return Ok(()),
                Some(Coming::Read(chunk)) => send(wait(&chunk).map_err(AppendError::Write)??, out)?,
                Some(Coming::Large(member, expected)) => self.write_large(member, expected, out)?,
            }
        }
    }

    fn read(&self, members: &[Member<'a>]) -> Result<Vec<u8>, LayerTarError> {
        let mut chunk = Vec::with_capacity(members.iter().copied().map(size_in_tar).sum());
        members.iter().try_for_each(|(path, node)| self.append(path, node, &mut chunk))?;
        Ok(chunk)
    }

    fn write_large(
        &self,
        (path, node): Member<'a>,
        expected: Expected,
        out: &mut Out<'_>,
    ) -> Result<(), LayerTarError> {
        let mut head = Vec::with_capacity(2 * BLOCK);
        self.append_head(path, node, &mut head)?;
        send(head, out)?;
        let mut reader = self.open(path)?;
        let verify = self.options.verify;
        if verify && !reader.is_known(&expected.digest) {
            let found = self.write_and_hash(path, expected, &mut *reader, out)?;
            self.check(path, expected.digest, found)?;
        } else {
            self.write_pieces(path, expected, &mut *reader, out)?;
            if verify && !reader.is_known(&expected.digest) {
                return Err(LayerTarError::Written { path: path.clone() });
            }
        }
        send(vec![0; padding(expected.size) as usize], out)
    }

    /// A file by pieces, and what its digest is: that is made by a thread of its own.
    fn write_and_hash(
        &self,
        path: &LayerPath,
        expected: Expected,
        reader: &mut dyn Bytes,
        out: &mut Out<'_>,
    ) -> Result<Digest, LayerTarError> {
        let (sender, receiver) = chunks();
        thread::scope(|scope| {
            let hashing = scope.spawn(move || hash(&receiver));
            let ended = |what| AppendError::Write(io::Error::other(what));
            let written = self.write_pieces(path, expected, reader, &mut |piece| {
                sender
                    .send(Arc::clone(&piece))
                    .map_err(|_| io::Error::other("the hashing thread has ended"))?;
                out(piece)
            });
            drop(sender);
            let found = hashing.join().map_err(|_| ended("the hashing thread panicked"))?;
            written.map(|()| found)
        })
    }

    fn write_pieces(
        &self,
        path: &LayerPath,
        expected: Expected,
        reader: &mut dyn Bytes,
        out: &mut Out<'_>,
    ) -> Result<(), LayerTarError> {
        let mut rest = expected.size;
        while rest > 0 {
            let length = usize::try_from(rest).unwrap_or(CHUNK).min(CHUNK);
            let mut piece = vec![0; length];
            fill(path, expected.size, expected.size - rest, reader, &mut piece)?;
            rest -= length as u64;
            send(piece, out)?;
        }
        ends(path, expected.size, reader)
    }
}

fn send(chunk: Vec<u8>, out: &mut Out<'_>) -> Result<(), LayerTarError> {
    if chunk.is_empty() {
        return Ok(());
    }
    out(Arc::new(chunk)).map_err(|error| AppendError::Write(error).into())
}

/// About how many bytes a member is.
fn size_in_tar((path, node): Member<'_>) -> usize {
    let size = contents(node).map_or(0, |expected| expected.size.saturating_add(padding(expected.size)));
    // What is long in a header follows it as records.
    let target = match (&node.hardlink, &node.kind) {
        (Some(target), _) => target.as_bytes().len(),
        (None, Kind::Symlink { target }) => target.len(),
        _ => 0,
    };
    let xattrs: usize = node.xattrs.iter().map(|(name, value)| name.len() + value.len()).sum();
    let head = BLOCK + path.as_bytes().len() + target + xattrs;
    usize::try_from(size).unwrap_or(usize::MAX).saturating_add(head)
}

/// Cuts members into batches.
struct Batches<'a>(Peekable<Iter<'a>>);

impl<'a> Iterator for Batches<'a> {
    type Item = Batch<'a>;

    fn next(&mut self) -> Option<Batch<'a>> {
        let (mut members, mut size) = (Vec::new(), 0);
        while let Some(member) = self.0.peek().copied() {
            let large = contents(member.1).filter(|expected| expected.size > CHUNK as u64);
            if let Some(expected) = large {
                if members.is_empty() {
                    self.0.next();
                    return Some(Batch::Large(member, expected));
                }
                break;
            }
            size += size_in_tar(member);
            if size > CHUNK && !members.is_empty() {
                break;
            }
            self.0.next();
            members.push(member);
        }
        (!members.is_empty()).then_some(Batch::Small(members))
    }
}
