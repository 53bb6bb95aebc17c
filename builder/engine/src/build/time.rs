//! The time that `SOURCE_DATE_EPOCH` takes from a source.

use std::{io::Read, sync::Arc};

use dockerfile::{CONTEXT_FILE, file_graph};
use graph::Source;
use image::{
    detect::decompress,
    tar::{EntryKind, Reader},
};
use oci::Epoch;

use super::{
    context::{Make, open_file},
    internal::Internal,
};
use crate::{
    effect::Effects,
    error::{Cause, Error},
};

/// The time of a source, where it has one.
///
/// # Errors
/// As making the source.
pub(crate) async fn of(make: &Make<'_>, source: &Source) -> Result<Option<Epoch>, Error> {
    let effects = make.effects;
    let shown = Internal::start(effects, "[internal] load time of source");
    let found = match source {
        Source::Local(_) => effects.clone().blocking(archive_time).await,
        source => {
            let source = source.clone();
            effects.clone().blocking(move |effects| effects.source_time(&source)).await
        }
    };
    shown.end(found.as_ref().err());
    match (found?, source) {
        // A server that says nothing: an archive knows better than none.
        (None, Source::Http(http)) => {
            let (graph, edge) = file_graph(&http.url, &http.file_name, "[internal] load source of time");
            let tree = make.result(&graph, edge).await?;
            let name = http.file_name.clone();
            let newest = effects
                .clone()
                .blocking(move |effects| Ok(open_file(&effects.mounted(&tree)?, &name)?.and_then(newest_in)));
            Ok(newest.await?)
        }
        (found, _) => Ok(found),
    }
}

/// The time of the archive that the client sent.
fn archive_time(effects: &Arc<Effects>) -> Result<Option<Epoch>, Cause> {
    let Some(folder) = effects.contexts.archive() else { return Ok(None) };
    let path = folder.join(CONTEXT_FILE);
    let file = std::fs::File::open(&path).map_err(Cause::io("open", &path))?;
    Ok(newest_in(file))
}

/// The time of the newest file of an archive. What cannot be read to its end has none.
fn newest_in(archive: impl Read + Send) -> Option<Epoch> {
    let (_, tar) = decompress(archive).ok()?;
    let mut reader = Reader::new(tar);
    let mut newest: Option<i64> = None;
    while let Some(entry) = reader.next_entry().ok()? {
        if matches!(entry.kind, EntryKind::File { .. }) {
            newest = newest.max(Some(entry.mtime.seconds));
        }
    }
    newest.map(|seconds| Epoch(u64::try_from(seconds).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use image::tar::{Builder, Entry};

    use super::*;

    #[test]
    fn the_newest_file_of_an_archive_counts() {
        let mut builder = Builder::new(Vec::new());
        for (path, kind, seconds) in [
            (&b"old"[..], EntryKind::File { size: 0 }, 5),
            (b"new", EntryKind::File { size: 0 }, 7),
            (b"folder", EntryKind::Directory, 9),
        ] {
            let entry = Entry {
                path: path.to_vec(),
                kind,
                mode: 0o644,
                uid: 0,
                gid: 0,
                mtime: tree::Mtime { seconds, nanoseconds: 0 },
                xattrs: Default::default(),
            };
            builder.append(&entry, &mut std::io::empty()).expect("written");
        }
        let tar = builder.finish().expect("written");
        assert_eq!(newest_in(&tar[..]), Some(Epoch(7)));
        assert_eq!(newest_in(&tar[..600]), None);
        assert_eq!(newest_in(&b"FROM scratch"[..]), None);
    }
}
