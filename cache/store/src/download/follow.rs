//! Reading a file behind its writer.

use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::FileExt,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
};

/// The writer's side. Dropped without [`Writing::complete`], it tells its followers that nothing more comes.
pub(super) struct Writing(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    written: u64,
    end: Option<End>,
}

/// How a download ended.
#[derive(Clone, Copy)]
enum End {
    /// All is there, and its digest is right.
    Complete,
    /// It broke off, was thrown away, or begins anew.
    Broken,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self, end: End) {
        self.state().end.get_or_insert(end);
        self.changed.notify_all();
    }
}

impl Writing {
    /// With so many bytes in the file.
    pub(super) fn new(written: u64) -> Writing {
        let state = Mutex::new(State { written, end: None });
        Writing(Arc::new(Shared { state, changed: Condvar::new() }))
    }

    /// So many bytes are in the file now.
    pub(super) fn wrote(&self, written: u64) {
        self.0.state().written = written;
        self.0.changed.notify_all();
    }

    /// All bytes are there and are right.
    pub(super) fn complete(&self) {
        self.0.end(End::Complete);
    }

    /// A reader of the file, from its start.
    pub(super) fn follower(&self, file: File) -> Follower {
        Follower { file, at: 0, shared: self.0.clone() }
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        self.0.end(End::Broken);
    }
}

/// A download that is read while it comes. Reading waits for the next bytes; the end of the stream is the end of a blob
/// whose digest was right.
pub struct Follower {
    file: File,
    at: u64,
    shared: Arc<Shared>,
}

impl std::fmt::Debug for Follower {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Follower").field("at", &self.at).finish_non_exhaustive()
    }
}

impl Follower {
    /// How many bytes can be read now; 0 at the end.
    fn wait(&self) -> io::Result<u64> {
        let waits = |state: &mut State| state.written == self.at && state.end.is_none();
        let state = self.shared.changed.wait_while(self.shared.state(), waits);
        let state = state.unwrap_or_else(PoisonError::into_inner);
        match state.end {
            Some(End::Broken) => Err(io::Error::other("the download did not come to its end")),
            Some(End::Complete) | None => Ok(state.written - self.at),
        }
    }
}

impl Read for Follower {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let there = usize::try_from(self.wait()?).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.file.read_at(&mut buffer[..there], self.at)?;
        if read == 0 && there > 0 {
            return Err(io::Error::other("the download's file was cut"));
        }
        self.at += read as u64;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Write, thread};

    use super::*;

    fn file(bytes: &[u8]) -> (tempfile::NamedTempFile, File) {
        let mut named = tempfile::NamedTempFile::new().expect("a file");
        named.write_all(bytes).expect("written");
        let file = named.reopen().expect("opened");
        (named, file)
    }

    #[test]
    fn what_is_written_is_read_and_the_end_is_waited_for() {
        let (mut out, file) = file(b"earlier ");
        let writing = Writing::new(8);
        let mut follower = writing.follower(file);
        let reader = thread::spawn(move || {
            let mut all = String::new();
            follower.read_to_string(&mut all).map(|_| all)
        });
        for part in ["and ", "later"] {
            out.write_all(part.as_bytes()).expect("written");
            writing.wrote(out.as_file().metadata().expect("it is there").len());
        }
        assert!(!reader.is_finished() || writing.0.state().end.is_some());
        writing.complete();
        drop(writing);
        assert_eq!(reader.join().expect("no panic").expect("read"), "earlier and later");
    }

    #[test]
    fn a_download_that_broke_off_is_an_error_at_once() {
        let (_out, file) = file(b"half");
        let writing = Writing::new(4);
        let mut follower = writing.follower(file);
        let mut half = [0; 4];
        follower.read_exact(&mut half).expect("it is here");
        let reader = thread::spawn(move || follower.read(&mut [0; 4]));
        drop(writing);
        assert!(reader.join().expect("no panic").is_err());
    }

    #[test]
    fn a_file_that_is_shorter_than_it_should_be_is_an_error() {
        let (_out, file) = file(b"half");
        let writing = Writing::new(8);
        let mut follower = writing.follower(file);
        assert_eq!(follower.read(&mut [0; 8]).expect("read"), 4);
        assert!(follower.read(&mut [0; 8]).is_err());
    }
}
