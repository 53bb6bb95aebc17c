//! An archive on its way: written by a thread that may block, read by a request.

use std::{
    io::{self, Write},
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::Stream;
use tokio::sync::mpsc::{Receiver, Sender, channel};

/// So many bytes go over at once.
const PIECE_BYTES: usize = 256 << 10;

/// So many pieces wait to be read.
const PIECES: usize = 8;

/// The end that is written to. Fails once nobody reads any more.
pub struct ArchiveWriter {
    pieces: Sender<io::Result<Bytes>>,
    buffer: Vec<u8>,
}

/// The end that is read: the pieces in their order, then what ended them if it was an error.
pub struct Archive(Receiver<io::Result<Bytes>>);

impl Archive {
    /// Both ends.
    pub fn new() -> (ArchiveWriter, Archive) {
        let (pieces, received) = channel(PIECES);
        (ArchiveWriter { pieces, buffer: Vec::new() }, Archive(received))
    }
}

impl ArchiveWriter {
    /// Ends the archive: whole, or broken for this reason.
    pub fn end(mut self, written: io::Result<()>) {
        let ended = written.and_then(|()| self.flush());
        if let Err(error) = ended {
            // Who does not read any more does not want to know.
            let _unread = self.pieces.blocking_send(Err(error));
        }
    }
}

impl Write for ArchiveWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= PIECE_BYTES {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let piece = Bytes::from(std::mem::take(&mut self.buffer));
        self.pieces.blocking_send(Ok(piece)).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl Stream for Archive {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        self.0.poll_recv(context)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt;

    use super::*;

    #[tokio::test]
    async fn what_is_written_is_read() {
        let (mut writer, mut archive) = Archive::new();
        let writing = tokio::task::spawn_blocking(move || {
            let written = (0..3).try_for_each(|_| writer.write_all(&[7; PIECE_BYTES - 1]));
            writer.end(written);
        });
        let mut bytes = 0;
        while let Some(piece) = archive.next().await {
            bytes += piece.expect("whole").len();
        }
        writing.await.expect("it ended");
        assert_eq!(bytes, 3 * (PIECE_BYTES - 1));
    }

    #[tokio::test]
    async fn a_broken_archive_ends_with_its_reason_and_a_reader_that_left_ends_the_writer() {
        let (mut writer, mut archive) = Archive::new();
        let writing = tokio::task::spawn_blocking(move || {
            writer.write_all(b"begun").expect("it waits to be read");
            writer.end(Err(io::Error::other("the disk is gone")));
        });
        let ended = archive.next().await.expect("an item").expect_err("nothing whole was sent");
        assert_eq!(ended.to_string(), "the disk is gone");
        writing.await.expect("it ended");

        let (mut writer, archive) = Archive::new();
        drop(archive);
        let writing = tokio::task::spawn_blocking(move || writer.write_all(&[0; PIECE_BYTES]));
        let error = writing.await.expect("it ended").expect_err("nobody reads");
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }
}
