//! The store's handle.

use std::{
    collections::BTreeMap,
    fs::File,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use tree::{Layer, LayerId};

use crate::{
    BootId, Clock, Error, IdMap, Result,
    contents::Contents,
    database::{Database, Durability, Fault},
    finish::Unwritten,
    flock::{Together, TogetherLock},
    format,
    layout::Layout,
    lock::Spares,
};

/// How to open a state folder.
#[derive(Clone, Debug)]
pub struct Options {
    /// The state folder; made with mode 0700 at the first use.
    pub root: PathBuf,
    /// How owners stand in the state folder's inodes.
    pub id_map: IdMap,
    /// The clock to stamp with.
    pub clock: Clock,
    /// The run of the kernel that this is.
    pub boot: BootId,
    /// How much of the disk downloads and [`Store::watched`] leave free, in bytes; see [`Store::check_room`].
    pub keep_free_bytes: u64,
}

impl Options {
    /// The state folder at `root`, run by root, in this boot.
    pub fn new(root: impl Into<PathBuf>, clock: Clock) -> Options {
        Options {
            root: root.into(),
            id_map: IdMap::Root,
            clock,
            boot: BootId::of_kernel(),
            keep_free_bytes: 0,
        }
    }
}

/// A state folder. Clones are one handle.
#[derive(Clone, Debug)]
pub struct Store(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    layout: Layout,
    /// The state folder, opened before anything is written: whatever the disk refuses from then on, a flush of it says.
    root: File,
    clock: Clock,
    boot: BootId,
    keep_free_bytes: u64,
    database: Database,
    trees: Mutex<BTreeMap<LayerId, Arc<Layer>>>,
    added: AtomicBool,
    collector: TogetherLock,
    spare_locks: Arc<Spares>,
    unwritten: Unwritten,
}

impl Store {
    /// Opens a state folder, or makes it. Reads one small file; the database is opened when it is first asked.
    ///
    /// # Errors
    /// The folder cannot be written, is not a state folder, has a newer format, or was made for another id map.
    pub fn open(options: Options) -> Result<Store> {
        let layout = Layout::new(&options.root);
        format::check_or_create(&layout, &options.id_map)?;
        let root = File::open(layout.root()).map_err(|e| Error::io("open", layout.root(), e))?;
        let database = Database::new(&layout);
        let collector = TogetherLock::new(layout.collector_lock());
        let Options { clock, boot, keep_free_bytes, .. } = options;
        Ok(Store(Arc::new(Inner {
            layout,
            root,
            clock,
            boot,
            keep_free_bytes,
            database,
            trees: Mutex::default(),
            added: AtomicBool::default(),
            collector,
            spare_locks: Arc::default(),
            unwritten: Unwritten::default(),
        })))
    }

    /// The state folder.
    pub fn root(&self) -> &Path {
        self.0.layout.root()
    }

    /// The clock it was opened with.
    pub fn clock(&self) -> &Clock {
        &self.0.clock
    }

    /// Whether a content was added through this handle.
    pub fn has_added(&self) -> bool {
        self.0.added.load(Ordering::Relaxed)
    }

    pub(crate) fn root_folder(&self) -> &File {
        &self.0.root
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.0.layout
    }

    pub(crate) fn keep_free_bytes(&self) -> u64 {
        self.0.keep_free_bytes
    }

    pub(crate) fn boot(&self) -> &BootId {
        &self.0.boot
    }

    pub(crate) fn trees(&self) -> &Mutex<BTreeMap<LayerId, Arc<Layer>>> {
        &self.0.trees
    }

    /// Asks the database, with what queries about contents need.
    pub(crate) fn ask<T>(
        &self,
        operation: &'static str,
        ask: impl FnOnce(&Contents<'_>) -> std::result::Result<T, Fault>,
    ) -> Result<T> {
        self.0.database.read(operation, |connection| ask(&self.contents(connection)))
    }

    /// Changes the database, with what queries about contents need.
    pub(crate) fn change<T>(
        &self,
        operation: &'static str,
        durability: Durability,
        change: impl FnOnce(&Contents<'_>) -> std::result::Result<T, Fault>,
    ) -> Result<T> {
        self.0.database.write(operation, durability, |transaction| change(&self.contents(transaction)))
    }

    /// Empties the database's log where nobody is in the way.
    pub(crate) fn empty_log(&self) -> Result<()> {
        self.0.database.empty_log()
    }

    fn contents<'a>(&'a self, connection: &'a rusqlite::Connection) -> Contents<'a> {
        Contents { connection, layout: &self.0.layout, boot: &self.0.boot, added: &self.0.added }
    }

    /// Lock files to take locks with.
    pub(crate) fn spare_locks(&self) -> &Arc<Spares> {
        &self.0.spare_locks
    }

    /// The records that are still to be written.
    pub(crate) fn unwritten(&self) -> &Unwritten {
        &self.0.unwritten
    }

    /// Keeps the collector out while something is found or added and then named in a lease.
    pub(crate) fn no_collector(&self) -> Result<Together<'_>> {
        let collector = &self.0.collector;
        collector.hold().map_err(|e| Error::io("lock", collector.path(), e))
    }
}
