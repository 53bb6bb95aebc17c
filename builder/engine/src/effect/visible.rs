//! What a build can see of a context.

use std::os::fd::BorrowedFd;

use dockerfile::{ignore::Ignore, text};
use graph::Local;
use image::scan::{Reach, Visit};
use tree::LayerPath;

use crate::error::Cause;

/// The paths of a context that the graph can reach and no pattern leaves out.
pub(crate) struct Visible {
    /// None reaches everything.
    reach: Option<Reach>,
    ignore: Ignore,
}

impl Visible {
    /// What a source's vertex can see of an open folder.
    ///
    /// # Errors
    /// The patterns are none, or a folder cannot be read.
    pub(crate) fn of(local: &Local, root: BorrowedFd<'_>) -> Result<Visible, Cause> {
        let ignore =
            Ignore::new(&local.ignore).map_err(|error| Cause::Task(format!("the ignore file: {error}")))?;
        let sources: Vec<Vec<u8>> =
            local.reaches.iter().map(|source| text::encode(source).into_owned()).collect();
        let sources: Vec<&[u8]> = sources.iter().map(Vec::as_slice).collect();
        let reach = if sources.is_empty() { None } else { Some(Reach::of(root, &sources)?) };
        Ok(Visible { reach, ignore })
    }

    /// What a walk does with a path.
    pub(crate) fn visit(&self, path: &LayerPath, is_folder: bool) -> Visit {
        let reached = self.reach.as_ref().map_or(Visit::Take, |reach| reach.visit(path, is_folder));
        if reached == Visit::Skip || self.ignore.is_empty() {
            return reached;
        }
        reached.and(match (self.ignore.excludes(path.as_bytes()), is_folder) {
            (false, _) => Visit::Take,
            (true, true) if self.ignore.may_contain_included(path.as_bytes()) => Visit::Descend,
            (true, _) => Visit::Skip,
        })
    }

    /// Its patterns.
    pub(crate) fn into_ignore(self) -> Ignore {
        self.ignore
    }
}
