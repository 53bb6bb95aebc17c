//! The bytes of a blob that is pushed, to be read from any byte on, as often as tries need it.

use std::{
    io::{self, SeekFrom},
    path::{Path, PathBuf},
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use futures_util::{Stream, StreamExt, TryStreamExt, stream};
use tokio::{
    fs::File,
    io::{AsyncReadExt, AsyncSeekExt},
};

/// So much of a file is read at once.
const PIECE_BYTES: usize = 256 << 10;

/// Bytes as they come.
pub type Pieces = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

/// Where a blob's bytes are.
pub trait Content: Send + Sync {
    /// All bytes from `from` on. Nothing is opened before the first is asked for.
    fn open(&self, from: u64) -> Pieces;
}

/// The bytes of a file.
pub struct FileContent(PathBuf);

impl FileContent {
    /// Of the file at this path, which must not change meanwhile.
    pub fn new(path: &Path) -> FileContent {
        FileContent(path.to_owned())
    }
}

impl Content for FileContent {
    fn open(&self, from: u64) -> Pieces {
        let path = self.0.clone();
        let open = async move {
            let mut file = File::open(&path).await?;
            file.seek(SeekFrom::Start(from)).await?;
            Ok::<_, io::Error>(stream::try_unfold(file, |mut file| async move {
                let mut buffer = Vec::with_capacity(PIECE_BYTES);
                let read = (&mut file).take(PIECE_BYTES as u64).read_to_end(&mut buffer).await?;
                Ok::<_, io::Error>((read > 0).then(|| (Bytes::from(buffer), file)))
            }))
        };
        Box::pin(stream::once(open).try_flatten())
    }
}

impl Content for Bytes {
    fn open(&self, from: u64) -> Pieces {
        let rest = self.slice(self.len().min(usize::try_from(from).unwrap_or(usize::MAX))..);
        Box::pin(stream::iter((!rest.is_empty()).then_some(Ok(rest))))
    }
}

/// What became of the bytes that were to be sent: a transport only tells that there were none.
pub(crate) type Unread = Arc<Mutex<Option<String>>>;

/// Exactly `length` of the bytes from `first` on as a request's body, counted as they are taken.
pub(crate) fn part(
    content: &dyn Content,
    first: u64,
    length: u64,
    moved: &Arc<AtomicU64>,
    unread: &Unread,
) -> reqwest::Body {
    let (moved, unread) = (moved.clone(), unread.clone());
    let state = (content.open(first), length);
    let pieces = stream::try_unfold(state, move |(mut pieces, left)| {
        let moved = moved.clone();
        async move {
            if left == 0 {
                return Ok(None);
            }
            let Some(bytes) = pieces.next().await.transpose()? else {
                let why = format!("the blob ends {left} bytes too early");
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, why));
            };
            let taken = bytes.slice(..bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX)));
            let count = taken.len() as u64;
            moved.fetch_add(count, Ordering::Relaxed);
            Ok(Some((taken, (pieces, left - count))))
        }
    });
    reqwest::Body::wrap_stream(pieces.inspect_err(move |error: &io::Error| {
        *unread.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.to_string());
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn all(content: &dyn Content, from: u64) -> Vec<u8> {
        content
            .open(from)
            .try_fold(Vec::new(), |mut all, bytes| async move {
                all.extend_from_slice(&bytes);
                Ok(all)
            })
            .await
            .expect("it can be read")
    }

    #[tokio::test]
    async fn bytes_come_from_any_place_on() {
        let bytes: Vec<u8> = (0..PIECE_BYTES * 2 + 7).map(|i| (i % 251) as u8).collect();
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("blob");
        std::fs::write(&path, &bytes).expect("written");
        for from in [0, 1, PIECE_BYTES, bytes.len() - 1, bytes.len(), bytes.len() + 1] {
            let wanted = bytes.get(from..).unwrap_or_default();
            assert_eq!(all(&FileContent::new(&path), from as u64).await, wanted);
            assert_eq!(all(&Bytes::from(bytes.clone()), from as u64).await, wanted);
        }
        assert!(
            FileContent::new(&folder.path().join("none")).open(0).next().await.expect("an item").is_err()
        );
    }
}
