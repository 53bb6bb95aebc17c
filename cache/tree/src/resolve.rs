//! Follows symbolic links inside a root, as a process in a chroot would.

use std::collections::VecDeque;

use crate::{BadPath, Kind, LayerPath, Stack};

/// As many links as Linux follows in one path (`path_resolution(7)`).
pub const MAX_LINKS: usize = 40;

/// A path whose links lead nowhere.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// The links go in a circle, or there are too many of them: `ELOOP`.
    #[error("`{path}` goes through more than {MAX_LINKS} symbolic links")]
    TooManyLinks {
        /// The path that was asked for.
        path: LayerPath,
    },
    /// A link's target is no path.
    #[error("`{path}` leads to a path that cannot be")]
    BadTarget {
        /// The path that was asked for.
        path: LayerPath,
        /// What is wrong with where it leads.
        source: BadPath,
    },
}

impl Stack {
    /// Where `path` leads: every symbolic link among its folders is followed, and with `follow_last` that at
    /// its end.
    ///
    /// Absolute targets start at the root of the stack and `..` stops there. What does not exist is kept as
    /// it stands, so that a dangling link gives its target.
    ///
    /// # Errors
    /// [`ResolveError`] for a circle and for targets that are no path.
    pub fn resolve(&self, path: &LayerPath, follow_last: bool) -> Result<LayerPath, ResolveError> {
        resolve(path, follow_last, |path| match self.lookup(path) {
            Some((_, node)) => match &node.kind {
                Kind::Symlink { target } => Some(target.clone()),
                _ => None,
            },
            None => None,
        })
    }
}

/// As [`Stack::resolve`], for any file system: `target` gives a symbolic link's target, and `None` for all
/// else.
///
/// # Errors
/// As [`Stack::resolve`].
pub fn resolve(
    path: &LayerPath,
    follow_last: bool,
    mut target: impl FnMut(&LayerPath) -> Option<Vec<u8>>,
) -> Result<LayerPath, ResolveError> {
    let mut ahead: VecDeque<Vec<u8>> = path.parts().map(<[u8]>::to_vec).collect();
    let mut done = LayerPath::root();
    let mut links = 0;
    while let Some(part) = ahead.pop_front() {
        match part.as_slice() {
            b"" | b"." => continue,
            b".." => {
                done = done.parent().unwrap_or_default();
                continue;
            }
            _ => {}
        }
        let mut next = done.as_bytes().to_vec();
        if !next.is_empty() {
            next.push(b'/');
        }
        next.extend_from_slice(&part);
        let next = LayerPath::exact(next)
            .map_err(|source| ResolveError::BadTarget { path: path.clone(), source })?;
        let link = if ahead.is_empty() && !follow_last { None } else { target(&next) };
        let Some(link) = link else {
            done = next;
            continue;
        };
        links += 1;
        if links > MAX_LINKS {
            return Err(ResolveError::TooManyLinks { path: path.clone() });
        }
        if link.starts_with(b"/") {
            done = LayerPath::root();
        }
        for part in link.split(|b| *b == b'/').rev() {
            ahead.push_front(part.to_vec());
        }
    }
    Ok(done)
}
