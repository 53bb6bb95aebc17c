//! What is compressed on its own, and the jobs that do it.

use std::sync::mpsc::{Receiver, channel};

use oci::Digest;

use super::crc64::Crc64;
use crate::compress::{Codec, gzip_member};

/// A gzip member or a zstd frame to be: perhaps a piece of a file, then perhaps what follows it.
#[derive(Default)]
pub(super) struct Unit {
    pub(super) plain: Vec<u8>,
    /// The piece at the front.
    pub(super) piece: Option<Piece>,
}

/// A piece of a file's contents.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece {
    /// Which of the members it is of.
    pub(super) member: usize,
    /// Where it begins in the file.
    pub(super) file_offset: u64,
    /// How much of the unit it is.
    pub(super) size: usize,
}

/// A unit that was compressed.
pub(super) struct Done {
    pub(super) bytes: Vec<u8>,
    pub(super) piece: Option<(Piece, Sums)>,
}

/// What is known of a piece.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sums {
    pub(super) digest: Digest,
    pub(super) crc64: u64,
    /// Whether it is nothing but zeros.
    pub(super) zeros: bool,
}

/// Compresses one unit. Depends on nothing but the codec and the bytes.
pub(super) fn compress(codec: Codec, plain: &[u8]) -> Vec<u8> {
    match codec {
        Codec::Gzip { level } | Codec::EStargz { level } => gzip_member(plain, level),
        other => other.block(plain),
    }
}

/// Compresses units on the pool; they come back in their order.
pub(super) fn start(codec: Codec, units: Vec<Unit>) -> Receiver<Vec<Done>> {
    let (sender, receiver) = channel();
    rayon::spawn(move || {
        let done = units.iter().map(|unit| Done {
            bytes: compress(codec, &unit.plain),
            piece: unit.piece.map(|piece| (piece, sums(codec, &unit.plain[..piece.size]))),
        });
        // Nobody listens any more when the writer was dropped after an error.
        let _ = sender.send(done.collect());
    });
    receiver
}

fn sums(codec: Codec, piece: &[u8]) -> Sums {
    // Only tar-split wants them.
    let chunked = matches!(codec, Codec::ZstdChunked { .. });
    Sums {
        digest: Digest::of(piece),
        crc64: if chunked { Crc64::of(piece) } else { 0 },
        zeros: chunked && piece.iter().all(|byte| *byte == 0),
    }
}
