//! What registries answered: which manifest a name stood for, on which platform, and when.
//!
//! An answer holds its documents, so that no collection makes it worthless. It saves a question while it is fresh, and it
//! stands in for a registry that cannot be reached. How long it is fresh is for the one who asks to say. A damaged file is
//! no answer: the registry is asked again.
//!
//! One small file for each name and platform: those of one build are written at the same time.

use std::{fs, io};

use oci::{Digest, Epoch, Hasher, Platform, Reference};
use serde::{Deserialize, Serialize};

use crate::{Error, Lease, Result, Store, layout::Layout, lease::list, remove};

/// An answer that nobody renewed for so long is removed by a collection, in seconds.
const ANSWER_SECONDS: u64 = 365 * 24 * 60 * 60;

/// What a name stood for on a platform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// What the name itself stood for: an index, or the manifest.
    pub top: Digest,
    /// The bytes of the platform's manifest.
    pub manifest: Vec<u8>,
    /// The bytes of its config.
    pub config: Vec<u8>,
    /// When the registry said so.
    pub at: Epoch,
}

/// The file: documents are JSON, so they are text.
#[derive(Serialize, Deserialize)]
struct Written {
    name: String,
    platform: String,
    top: Digest,
    at: u64,
    manifest: String,
    config: String,
    /// Over the others: the file is not flushed, and after a power cut it may be half there.
    check: Digest,
}

impl Store {
    /// The last answer about a name on a platform, however long ago.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn answer(&self, name: &Reference, platform: &Platform) -> Result<Option<Answer>> {
        read(self.layout(), name, platform)
    }

    /// Remembers an answer in place of the last one. Documents that are no text are not remembered.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn remember_answer(
        &self,
        lease: &Lease,
        name: &Reference,
        platform: &Platform,
        answer: Answer,
    ) -> Result<()> {
        let Some(written) = Written::of(name, platform, answer) else { return Ok(()) };
        let bytes = serde_json::to_vec(&written).expect("strings and numbers are JSON");
        let folder = self.layout().answers();
        // A state folder of an earlier version has none.
        fs::create_dir_all(&folder).map_err(|e| Error::io("create", &folder, e))?;
        lease.write_whole(&folder.join(file_name(name, platform)), &bytes)
    }

    /// Forgets what a name stood for on all platforms, because it moved.
    ///
    /// # Errors
    /// A file cannot be removed.
    pub fn forget_answers(&self, name: &Reference) -> Result<()> {
        let (folder, of_name) = (self.layout().answers(), start_of_file_name(name));
        for file in list(&folder)?.into_iter().filter(|file| file.starts_with(&of_name)) {
            let path = folder.join(file);
            remove::file(&path).map_err(|e| Error::io("remove", path, e))?;
        }
        Ok(())
    }

    /// Removes the answers that nobody renewed for long.
    pub(crate) fn sweep_answers(&self) -> Result<()> {
        self.sweep_older(&self.layout().answers(), ANSWER_SECONDS)
    }
}

/// The last answer in a state folder.
pub(crate) fn read(layout: &Layout, name: &Reference, platform: &Platform) -> Result<Option<Answer>> {
    let path = layout.answers().join(file_name(name, platform));
    match fs::read(&path) {
        Ok(bytes) => {
            let read = serde_json::from_slice::<Written>(&bytes).ok();
            Ok(read.and_then(|written| written.checked(name, platform)))
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::io("read", path, e)),
    }
}

fn start_of_file_name(name: &Reference) -> String {
    format!("{}-", Digest::of(name.to_string().as_bytes()).hex())
}

fn file_name(name: &Reference, platform: &Platform) -> String {
    start_of_file_name(name) + &Digest::of(platform.to_string().as_bytes()).hex()
}

impl Written {
    fn of(name: &Reference, platform: &Platform, answer: Answer) -> Option<Written> {
        let Answer { top, manifest, config, at } = answer;
        let mut written = Written {
            name: name.to_string(),
            platform: platform.to_string(),
            top,
            at: at.0,
            manifest: String::from_utf8(manifest).ok()?,
            config: String::from_utf8(config).ok()?,
            check: top,
        };
        written.check = written.digest();
        Some(written)
    }

    fn checked(self, name: &Reference, platform: &Platform) -> Option<Answer> {
        let is_asked = self.name == name.to_string() && self.platform == platform.to_string();
        (is_asked && self.digest() == self.check).then(|| Answer {
            top: self.top,
            manifest: self.manifest.into_bytes(),
            config: self.config.into_bytes(),
            at: Epoch(self.at),
        })
    }

    fn digest(&self) -> Digest {
        let Written { name, platform, top, at, manifest, config, check: _itself } = self;
        let mut hasher = Hasher::new();
        hasher.field(name.as_bytes());
        hasher.field(platform.as_bytes());
        hasher.field(top.raw());
        hasher.field(&at.to_be_bytes());
        hasher.field(manifest.as_bytes());
        hasher.field(config.as_bytes());
        hasher.finish()
    }
}
