//! A large file goes to the disk while it is made, so that the one flush at a build's end has little to wait for.

use std::{
    fs::File,
    thread::{self, JoinHandle},
};

/// So many bytes are worth a thread.
const STEP: u64 = 16 << 20;

/// What of a file is on its way to the disk.
#[derive(Debug, Default)]
pub(crate) struct Ahead {
    begun: u64,
    /// One at a time: a disk that is slower than who writes gets larger pieces.
    running: Option<JoinHandle<()>>,
}

impl Ahead {
    /// Tells that the file is `size` bytes long now. What the disk refuses is told by the flush that counts.
    pub(crate) fn grown(&mut self, file: &File, size: u64) {
        if size - self.begun < STEP || self.running.as_ref().is_some_and(|running| !running.is_finished()) {
            return;
        }
        let Ok(file) = file.try_clone() else { return };
        let flush = move || {
            let _told_by_keep = file.sync_data();
        };
        // Without a thread it waits for that flush.
        self.running = thread::Builder::new().name("write-ahead".to_owned()).spawn(flush).ok();
        self.begun = size;
    }
}
