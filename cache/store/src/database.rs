//! The SQLite database of a state folder: opened when first asked, shared by processes.
//!
//! It is in WAL mode, which readers never wait in. A write begins as a write (`BEGIN IMMEDIATE`), so that two builds queue
//! instead of failing. `synchronous = NORMAL`: a commit survives `kill -9` at once and a power cut at some later
//! time, in order; what must survive at once is [`Durability::Flushed`].

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError, TryLockError},
    time::Duration,
};

use oci::Digest;
use rusqlite::{Connection, OpenFlags, TransactionBehavior, config::DbConfig};

use crate::{Error, Result, layout::Layout, memo, unique};

const SCHEMA: &str = include_str!("schema.sql");
/// What makes a database of version 1 one of version 2, and so on; a new one is made by the schema.
const MIGRATIONS: [&str; 2] = [
    "ALTER TABLE tag_history ADD COLUMN place TEXT NOT NULL DEFAULT 'local';
     ALTER TABLE tag_history ADD COLUMN how TEXT NOT NULL DEFAULT '';",
    "ALTER TABLE layer_blobs ADD COLUMN annotations TEXT NOT NULL DEFAULT '{}';",
];
/// `PRAGMA user_version`: the schema's, which `format.json`'s format covers.
const SCHEMA_VERSION: i64 = 1 + MIGRATIONS.len() as i64;
/// How long a writer waits for another. Writes take well below a millisecond each; the collector's may take seconds.
const BUSY_TIMEOUT: Duration = Duration::from_secs(120);

/// A log that killed builds left longer than this is emptied by who opens the database: reading it takes milliseconds.
const LOG_MAX_BYTES: u64 = 512 * 1024;

/// A log of so many pages is moved into the database while a build goes on: 64 MiB, thousands of steps.
const LOG_MAX_PAGES: u32 = 16 * 1024;

/// When a write has reached the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Durability {
    /// Some time after the call, after all earlier writes.
    Lazy,
    /// When the call returns, with all earlier writes.
    Flushed,
}

/// Why a query's function failed.
#[derive(Debug)]
pub(crate) enum Fault {
    Sql(rusqlite::Error),
    Row { what: &'static str, why: String },
    Other(Error),
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Fault {
        Fault::Sql(error)
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Fault {
        Fault::Other(error)
    }
}

#[derive(Debug)]
pub(crate) struct Database {
    path: PathBuf,
    root: PathBuf,
    connection: Mutex<Option<Connection>>,
    /// For who asks while another thread has the first one: a step is not to wait for the record of the one before.
    second: Mutex<Option<Connection>>,
}

impl Database {
    /// Opens nothing yet.
    pub(crate) fn new(layout: &Layout) -> Database {
        let (path, root) = (layout.database(), layout.root().to_owned());
        Database { path, root, connection: Mutex::default(), second: Mutex::default() }
    }

    /// Asks. `operation` names it in an error: a verb with its object. All that is asked is of one moment.
    pub(crate) fn read<T>(
        &self,
        operation: &'static str,
        ask: impl FnOnce(&Connection) -> std::result::Result<T, Fault>,
    ) -> Result<T> {
        let free = match self.connection.try_lock() {
            Err(TryLockError::WouldBlock) => None,
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Ok(guard) => Some(guard),
        };
        let mut guard = free.unwrap_or_else(|| held(&self.second));
        let connection = self.opened(&mut guard)?;
        let asked = || {
            // Ended by what is dropped: there is nothing to commit.
            let _snapshot = Open::begin(connection, "BEGIN")?;
            ask(connection)
        };
        asked().map_err(|fault| self.error(operation, fault))
    }

    /// Changes, alone among all processes; when `change` fails nothing is changed.
    pub(crate) fn write<T>(
        &self,
        operation: &'static str,
        durability: Durability,
        change: impl FnOnce(&Connection) -> std::result::Result<T, Fault>,
    ) -> Result<T> {
        let mut guard = held(&self.connection);
        let connection = self.opened(&mut guard)?;
        let run = || {
            if durability == Durability::Flushed {
                connection.pragma_update(None, "synchronous", "FULL")?;
            }
            let transaction = Open::begin(connection, "BEGIN IMMEDIATE")?;
            let changed = change(connection)?;
            transaction.commit()?;
            Ok(changed)
        };
        let changed = run();
        if durability == Durability::Flushed {
            let relaxed = connection.pragma_update(None, "synchronous", "NORMAL");
            relaxed.map_err(|e| Error::database(operation, &self.path, e))?;
        }
        changed.map_err(|fault| self.error(operation, fault))
    }

    /// Moves the log into the database and empties it, unless another process is using it: whoever opens the database next
    /// reads the whole log first.
    pub(crate) fn empty_log(&self) -> Result<()> {
        let mut guard = held(&self.connection);
        let connection = self.opened(&mut guard)?;
        empty_log(connection).map_err(|e| Error::database("empty the log", &self.path, e))
    }

    fn opened<'a>(&self, guard: &'a mut Option<Connection>) -> Result<&'a mut Connection> {
        match guard {
            Some(connection) => Ok(connection),
            empty => Ok(empty.insert(self.open()?)),
        }
    }

    fn error(&self, operation: &'static str, fault: Fault) -> Error {
        match fault {
            Fault::Sql(source) => Error::database(operation, &self.path, source),
            Fault::Row { what, why } => Error::BadRow { path: self.path.clone(), what, why },
            Fault::Other(error) => error,
        }
    }

    fn open(&self) -> Result<Connection> {
        if !self.path.try_exists().map_err(|e| Error::io("open", &self.path, e))? {
            self.create()?;
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let log = with_suffix(&self.path, "-wal");
        let open = || {
            let mut connection = Connection::open_with_flags(&self.path, flags)?;
            connection.busy_timeout(BUSY_TIMEOUT)?;
            connection.pragma_update(None, "synchronous", "NORMAL")?;
            // `keep` does it, where a flush is expected; a build that only looked has nothing to flush.
            connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
            // Else a statement is prepared anew whenever its values change, because the planner may look at them.
            connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
            // `keep` empties the log; before that only one that has grown very large is, which waits for the disk.
            connection.pragma_update(None, "wal_autocheckpoint", LOG_MAX_PAGES)?;
            connection.set_prepared_statement_cache_capacity(64);
            let version = migrate(&mut connection)?;
            if fs::metadata(&log).is_ok_and(|log| log.len() > LOG_MAX_BYTES) {
                empty_log(&connection)?;
            }
            Ok((connection, version))
        };
        let (connection, version) =
            open().map_err(|e| Error::database("open the database", &self.path, e))?;
        if version != SCHEMA_VERSION {
            let why = format!("its version is {version}, not {SCHEMA_VERSION}");
            return Err(Error::BadRow { path: self.path.clone(), what: "schema", why });
        }
        Ok(connection)
    }

    /// Makes the database aside and gives it its name, so that nobody sees one without tables, and two processes agree on one.
    fn create(&self) -> Result<()> {
        let aside = self.root.join(format!("kiln.db.{}", unique::token()));
        let made = || {
            let connection = Connection::open(&aside)?;
            // Flushed as a whole below, instead of a dozen times.
            connection.pragma_update(None, "synchronous", "OFF")?;
            connection.pragma_update(None, "journal_mode", "OFF")?;
            connection
                .execute_batch(&format!("BEGIN;{SCHEMA}PRAGMA user_version = {SCHEMA_VERSION};COMMIT;"))?;
            connection.pragma_update(None, "journal_mode", "WAL")?;
            connection.close().map_err(|(_, e)| e)
        };
        let made = made().map_err(|e| Error::database("create the database", &aside, e));
        let flushed = made.and_then(|()| {
            let flushed = fs::File::open(&aside).and_then(|file| file.sync_all());
            flushed.map_err(|e| Error::io("flush", &aside, e))
        });
        // Of an earlier database, which somebody deleted: nothing of it is known any more.
        let linked =
            flushed.and_then(|()| memo::forget(&Layout::new(&self.root))).and_then(|()| match fs::hard_link(
                &aside, &self.path,
            ) {
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
                linked => linked.map_err(|e| Error::io("create", &self.path, e)),
            });
        for suffix in ["", "-wal", "-shm"] {
            let path = with_suffix(&aside, suffix);
            crate::remove::file(&path).map_err(|e| Error::io("remove", &path, e))?;
        }
        linked
    }
}

fn held(connection: &Mutex<Option<Connection>>) -> MutexGuard<'_, Option<Connection>> {
    // A thread that panicked in a transaction has rolled it back.
    connection.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes an older database one of this version, and gives the version that it then has.
fn migrate(connection: &mut Connection) -> rusqlite::Result<i64> {
    let of = |connection: &Connection| connection.pragma_query_value(None, "user_version", |row| row.get(0));
    let is_older = |version: i64| (1..SCHEMA_VERSION).contains(&version);
    let version = of(connection)?;
    if !is_older(version) {
        return Ok(version);
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Another process may have been first.
    let version = of(&transaction)?;
    if is_older(version) {
        for step in &MIGRATIONS[usize::try_from(version - 1).unwrap_or(0)..] {
            transaction.execute_batch(step)?;
        }
        transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
    }
    transaction.commit()?;
    of(connection)
}

/// Runs a statement that has no values, prepared once.
fn execute(connection: &Connection, statement: &str) -> rusqlite::Result<()> {
    connection.prepare_cached(statement)?.execute([]).map(drop)
}

/// A transaction that is rolled back when it is dropped; unlike the library's own, by statements that are prepared once.
struct Open<'c>(&'c Connection);

impl Open<'_> {
    fn begin<'c>(connection: &'c Connection, statement: &str) -> rusqlite::Result<Open<'c>> {
        execute(connection, statement).map(|()| Open(connection))
    }

    fn commit(self) -> rusqlite::Result<()> {
        execute(self.0, "COMMIT")
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        if !self.0.is_autocommit() {
            // What it cannot undo, the next who opens the database does.
            let _undone = execute(self.0, "ROLLBACK");
        }
    }
}

fn empty_log(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(Duration::ZERO)?;
    // Answers "busy" in a row, not as an error, when another process is in the way.
    let emptied = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
    connection.busy_timeout(BUSY_TIMEOUT)?;
    match emptied {
        Err(e) if e.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy) => Ok(()),
        emptied => emptied,
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}

/// A digest as a column's value.
pub(crate) fn column(digest: &Digest) -> &[u8] {
    digest.raw()
}

/// A digest from a column's value.
pub(crate) fn digest(row: &rusqlite::Row<'_>, index: usize) -> rusqlite::Result<Digest> {
    row.get(index).map(Digest::from_raw)
}

/// A count of bytes as a column's value; no file is longer than that.
pub(crate) fn signed(size: u64) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

/// A count of bytes, or a time, from a column's value.
pub(crate) fn unsigned(row: &rusqlite::Row<'_>, index: usize) -> rusqlite::Result<u64> {
    row.get::<_, i64>(index).map(|size| u64::try_from(size).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, thread};

    use super::*;

    fn users(connection: &Connection) -> std::result::Result<i64, Fault> {
        Ok(connection.query_row("SELECT count(*) FROM tag_history", [], |row| row.get(0))?)
    }

    #[test]
    fn who_asks_does_not_wait_for_who_writes() {
        let root = tempfile::tempdir().expect("there is room for a folder");
        let database = Database::new(&Layout::new(root.path()));
        let (asked, hears) = mpsc::channel();
        thread::scope(|scope| {
            let write = database.write("write", Durability::Lazy, |connection| {
                connection.execute("DELETE FROM records", [])?;
                let database = &database;
                scope.spawn(move || asked.send(database.read("ask", users).expect("it can be read")));
                // Ended by an error if the one who asks waits for this one's end.
                let found = hears.recv_timeout(Duration::from_secs(60));
                found.map_err(|why| Fault::Row { what: "answer", why: why.to_string() })
            });
            assert_eq!(write.expect("the other has its answer meanwhile"), 0);
        });
        assert_eq!(database.read("ask", users).expect("it can be read"), 0);
    }
}
