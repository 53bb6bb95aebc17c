//! Records: what a step gave, by its two keys.
//!
//! A record is found only when it may be believed (kept, or of this boot) and all its layers are here; then it and they
//! are named in the lease. When a step was run again for a key, the newest record counts; the older one stays until
//! the newer is kept, so that a power cut loses no more than the work of that boot.

use oci::{Digest, Epoch};
use rusqlite::{OptionalExtension, Row, ToSql, params};
use serde::{Deserialize, Serialize};
use tree::LayerId;

use crate::{
    Error, Lease, Result, Store,
    contents::Contents,
    database::{Durability, Fault, column, signed, unsigned},
    lease::Pin,
    memo,
};

/// A stamp of last use is renewed when it is older than this, in seconds: a build that only hits writes nothing.
pub(crate) const STAMP_SECONDS: u64 = 24 * 60 * 60;

/// One part of a key, such as `env CC` and its value's digest. The list makes the key and explains a miss.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Ingredient {
    /// What it is.
    pub name: String,
    /// Its value, or the value's digest where it is long; never a secret.
    pub value: String,
}

/// One layer of a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResultLayer {
    /// The layer.
    pub layer: LayerId,
    /// When it was made, if its history says so.
    pub created: Option<Epoch>,
}

/// What a step took of the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Took {
    /// User time of all its processes.
    pub user_microseconds: u64,
    /// System time of all its processes.
    pub system_microseconds: u64,
    /// The largest resident set that one of its processes had, where that was measured.
    pub largest_process_bytes: Option<u64>,
    /// The most memory that all of them had at once, the page cache included: measured where its memory was limited.
    pub peak_memory_bytes: Option<u64>,
}

impl Took {
    /// How much memory it takes to do it again, as far as that is known.
    pub fn memory_bytes(&self) -> Option<u64> {
        self.peak_memory_bytes.max(self.largest_process_bytes)
    }
}

/// What one output of a step was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Names what the result depends on, as it was defined.
    pub definition_key: Digest,
    /// Names what the result depends on, by the inputs' contents; none while nobody has hashed them.
    pub content_key: Option<Digest>,
    /// Digest of the operation and the output's index, without its inputs.
    pub op: Digest,
    /// What the definition key is made of.
    pub ingredients: Vec<Ingredient>,
    /// The result, bottom first.
    pub result: Vec<ResultLayer>,
    /// When the step ended.
    pub created: Epoch,
    /// How long it ran.
    pub duration_ms: u64,
    /// What it took of the machine.
    #[serde(default)]
    pub took: Took,
    /// The stage it was written in, for explanations; part of no key.
    pub stage: String,
    /// The instruction as it was written, for explanations; part of no key.
    pub instruction: String,
    /// Whether its ingredients hold the mark of a secret ([`crate::SecretKey`]): it means nothing elsewhere, and is never to
    /// be exported.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stays_here: bool,
}

impl Store {
    /// Adds a record, valid at once in this boot; named in the lease.
    ///
    /// # Errors
    /// [`Error::MissingLayer`] when a layer of the result is not here; the database cannot be written.
    pub fn put_record(&self, lease: &Lease, record: &Record) -> Result<()> {
        let _guard = self.no_collector()?;
        self.change("add a record", Durability::Lazy, |contents| {
            for part in &record.result {
                if !lease.has_seen(&part.layer) && !contents.has_layer(&part.layer)? {
                    return Err(Error::MissingLayer(part.layer).into());
                }
            }
            add(contents, record, self.clock().epoch())
        })?;
        pin(lease, record)
    }

    /// The record of a definition key.
    ///
    /// # Errors
    /// The database cannot be read or the lease not be written.
    pub fn by_definition_key(&self, lease: &Lease, key: &Digest) -> Result<Option<Record>> {
        self.unwritten().wait(|late| late.definition == *key);
        self.record_where(
            lease,
            "SELECT seq, last_used, body FROM records
             WHERE definition_key = ?1 AND (kept = 1 OR boot = ?2) ORDER BY seq DESC",
            key,
        )
    }

    /// The newest record of a content key.
    ///
    /// # Errors
    /// The database cannot be read or the lease not be written.
    pub fn by_content_key(&self, lease: &Lease, key: &Digest) -> Result<Option<Record>> {
        self.unwritten().wait(|late| late.content == Some(*key));
        self.record_where(
            lease,
            "SELECT seq, last_used, body FROM records
             WHERE content_key = ?1 AND (kept = 1 OR boot = ?2) ORDER BY seq DESC",
            key,
        )
    }

    /// Whether any record of this operation may be believed: else no content key of it can hit.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn has_op(&self, op: &Digest) -> Result<bool> {
        self.unwritten().wait(|late| late.op == *op);
        self.ask("look up a record", |contents| {
            let mut query = contents.connection.prepare_cached(
                "SELECT EXISTS (SELECT 1 FROM records WHERE op = ?1 AND (kept = 1 OR boot = ?2))",
            )?;
            Ok(query.query_row(params![column(op), contents.boot.as_str()], |row| row.get(0))?)
        })
    }

    /// The record to explain a miss with: of the same operation, else of the same instruction text, else none; of those
    /// first the same stage's, then the newest. Looked at are the last fifty of each, however many there are. Its layers may be gone, and it is not named in a lease.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn nearest(&self, op: &Digest, stage: &str, instruction: &str) -> Result<Option<Record>> {
        self.unwritten().wait(|late| late.op == *op || late.instruction == instruction);
        self.ask("look up a record", |contents| {
            let mut query = contents.connection.prepare_cached(
                "WITH of_op AS (SELECT * FROM records WHERE op = ?1 ORDER BY seq DESC LIMIT 50),
                 of_instruction AS (SELECT * FROM records WHERE instruction = ?3 ORDER BY seq DESC LIMIT 50)
                 SELECT seq, last_used, body FROM (SELECT * FROM of_op UNION ALL SELECT * FROM of_instruction)
                 ORDER BY op = ?1 DESC, stage = ?2 DESC, seq DESC LIMIT 1",
            )?;
            let found = query.query_row(params![column(op), stage, instruction], found).optional()?;
            found.map(|found| found.record()).transpose()
        })
    }

    fn record_where(&self, lease: &Lease, query: &str, key: &Digest) -> Result<Option<Record>> {
        let _guard = self.no_collector()?;
        let values: [&dyn ToSql; 2] = [&column(key), &self.boot().as_str()];
        let found = self.ask("look up a record", |contents| {
            let mut query = contents.connection.prepare_cached(query)?;
            for row in query.query_map(values, found)? {
                let row = row?;
                let record = row.record()?;
                if is_here(contents, lease, &record)? {
                    return Ok(Some((row, record)));
                }
            }
            Ok(None)
        })?;
        let Some((row, record)) = found else { return Ok(None) };
        pin(lease, &record)?;
        let now = self.clock().epoch().0;
        if now.saturating_sub(row.last_used) >= STAMP_SECONDS {
            self.change("stamp a record", Durability::Lazy, |contents| {
                let mut update =
                    contents.connection.prepare_cached("UPDATE records SET last_used = ?2 WHERE seq = ?1")?;
                update.execute(params![row.seq, signed(now)])?;
                Ok(())
            })?;
        }
        Ok(Some(record))
    }
}

/// A row of the table.
struct Found {
    seq: i64,
    last_used: u64,
    body: String,
}

fn found(row: &Row<'_>) -> rusqlite::Result<Found> {
    Ok(Found { seq: row.get(0)?, last_used: unsigned(row, 1)?, body: row.get(2)? })
}

impl Found {
    fn record(&self) -> std::result::Result<Record, Fault> {
        parse(&self.body)
    }
}

/// Reads a record's body.
pub(crate) fn parse(body: &str) -> std::result::Result<Record, Fault> {
    serde_json::from_str(body).map_err(|e| Fault::Row { what: "record", why: e.to_string() })
}

fn is_here(contents: &Contents<'_>, lease: &Lease, record: &Record) -> std::result::Result<bool, Fault> {
    for part in &record.result {
        // One look per layer and build: nobody takes what the lease names.
        if !lease.has_seen(&part.layer) && !contents.has_layer(&part.layer)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Writes a record's row. Inside a write transaction.
pub(crate) fn add(contents: &Contents<'_>, record: &Record, now: Epoch) -> std::result::Result<(), Fault> {
    let query = "SELECT EXISTS (SELECT 1 FROM records WHERE definition_key = ?1)";
    let mut known = contents.connection.prepare_cached(query)?;
    if known.query_row([column(&record.definition_key)], |row| row.get(0))? {
        // A build that found the older one would now find this one.
        memo::forget(contents.layout)?;
    }
    let body = serde_json::to_string(record).expect("a record is strings, numbers and lists");
    let mut insert = contents.connection.prepare_cached(
        "INSERT INTO records
         (definition_key, content_key, op, stage, instruction, boot, kept, last_used, body)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, 0, ?7, ?8)",
    )?;
    insert.execute(params![
        column(&record.definition_key),
        record.content_key.as_ref().map(column),
        column(&record.op),
        record.stage,
        record.instruction,
        contents.boot.as_str(),
        signed(now.0),
        body,
    ])?;
    Ok(())
}

pub(crate) fn pin(lease: &Lease, record: &Record) -> Result<()> {
    lease.pin(Pin::Record(record.definition_key))?;
    record.result.iter().try_for_each(|part| lease.pin_layer(part.layer))
}
