//! The one flush of a build.

use std::fs::File;

use rusqlite::params;

use crate::{
    Error, Result, Store,
    contents::Contents,
    database::{Durability, Fault},
};

/// What a flush made valid for ever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// How many records.
    pub records: u64,
    /// How many blobs, tree manifests and layer folders.
    pub contents: u64,
}

impl Store {
    /// Makes everything that was added in this boot so far, by whichever process, valid also after a power cut: flushes the
    /// state folder's file system, then marks it as kept. Where all is kept already, flushes nothing.
    ///
    /// Comes at the end of a build, before an image is listed or an output is called done.
    ///
    /// # Errors
    /// The disk refused the data; nothing is then kept.
    pub fn keep(&self) -> Result<Kept> {
        let last = self.ask("look up what is not kept", |contents| {
            Ok((last_unkept(contents, "contents")?, last_unkept(contents, "records")?))
        })?;
        if last == (None, None) {
            return Ok(Kept::default());
        }
        // A row is written after its content has its name: all that has a row now is in what is flushed.
        rustix::fs::syncfs(self.root_folder()).map_err(|e| Error::io("flush", self.root(), e.into()))?;
        let kept = self.change("mark as kept", Durability::Flushed, |contents| {
            drop_replaced(contents, last.1)?;
            Ok(Kept {
                contents: mark(contents, "contents", last.0)?,
                records: mark(contents, "records", last.1)?,
            })
        })?;
        self.empty_log()?;
        Ok(kept)
    }

    /// Writes what was added so far to the disk, while the caller does something else: [`Store::keep`], which alone makes it
    /// valid and tells what the disk refused, then has less to wait for.
    pub fn write_ahead(&self) {
        // Of its own: a refusal is told once to each that has the folder open, and is for the flush that counts.
        if let Ok(root) = File::open(self.root()) {
            let _told_by_keep = rustix::fs::syncfs(root);
        }
    }
}

fn last_unkept(contents: &Contents<'_>, table: &str) -> std::result::Result<Option<i64>, Fault> {
    let query = format!("SELECT max(seq) FROM {table} WHERE kept = 0 AND boot = ?1");
    let mut query = contents.connection.prepare_cached(&query)?;
    Ok(query.query_row([contents.boot.as_str()], |row| row.get(0))?)
}

fn mark(contents: &Contents<'_>, table: &str, last: Option<i64>) -> std::result::Result<u64, Fault> {
    let update = format!("UPDATE {table} SET kept = 1 WHERE kept = 0 AND boot = ?1 AND seq <= ?2");
    let mut update = contents.connection.prepare_cached(&update)?;
    Ok(update.execute(params![contents.boot.as_str(), last.unwrap_or(0)])? as u64)
}

/// Removes the records that those about to be kept replace.
fn drop_replaced(contents: &Contents<'_>, last: Option<i64>) -> std::result::Result<(), Fault> {
    contents.connection.execute(
        "DELETE FROM records WHERE seq IN
         (SELECT older.seq FROM records AS newer
          JOIN records AS older ON older.definition_key = newer.definition_key AND older.seq < newer.seq
          WHERE newer.kept = 0 AND newer.boot = ?1 AND newer.seq <= ?2)",
        params![contents.boot.as_str(), last.unwrap_or(0)],
    )?;
    Ok(())
}
