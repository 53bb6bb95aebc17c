//! `format.json`: which program and which user map a state folder is for.
//!
//! It is written last at the first use, so that a folder that has it is whole; and flushed, so that a power cut
//! cannot leave an empty one behind.

use std::{
    fmt, fs, io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
};

use serde::{Deserialize, Serialize};

use crate::{Error, Result, layout::Layout, lease::spread_folders, unique};

/// The format that this program reads and writes.
pub const FORMAT: u32 = 1;

/// How owners inside an image stand in the state folder's inodes.
///
/// The intended owner is in the tree manifest in every mode; but a layer's folder made under one map is wrong under
/// another, so a state folder has one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IdMap {
    /// Run by root: an owner is itself.
    Root,
    /// Run by a user with sub-ids: owner 0 is the user, 1 and up are these.
    SubIds {
        /// First sub-user-id (`/etc/subuid`).
        first_uid: u32,
        /// First sub-group-id (`/etc/subgid`).
        first_gid: u32,
        /// How many.
        count: u32,
    },
    /// Run by a user without sub-ids: every inode is this user's, the owner is only in the tree manifest.
    Single {
        /// The user.
        uid: u32,
        /// Its group.
        gid: u32,
    },
}

impl fmt::Display for IdMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            IdMap::Root => write!(f, "root"),
            IdMap::SubIds { first_uid, first_gid, count } => {
                write!(f, "sub-ids from {first_uid}:{first_gid}, {count} of them")
            }
            IdMap::Single { uid, gid } => write!(f, "the single user {uid}:{gid}"),
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Format {
    format: u32,
    id_map: IdMap,
}

/// The part that every format has, read first.
#[derive(Deserialize)]
struct Version {
    format: u32,
}

/// Checks that the state folder is ours and fits, or makes it, mode 0700.
pub(crate) fn check_or_create(layout: &Layout, id_map: &IdMap) -> Result<()> {
    let path = layout.format();
    match fs::read(&path) {
        Ok(bytes) => return check(layout, &bytes, id_map),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(Error::io("read", path, e)),
    }
    create(layout, id_map)?;
    // Another process may have been first, with another id map.
    let bytes = fs::read(&path).map_err(|e| Error::io("read", &path, e))?;
    check(layout, &bytes, id_map)
}

impl IdMap {
    /// What a state folder says of itself; none where there is none, or one that this program cannot use.
    pub fn of_folder(root: &Path) -> Option<IdMap> {
        let format: Format = serde_json::from_slice(&fs::read(Layout::new(root).format()).ok()?).ok()?;
        (format.format == FORMAT).then_some(format.id_map)
    }

    /// Who has it: the mode that `--sandbox` names, and the user.
    pub(crate) fn way(&self) -> String {
        match self {
            IdMap::Root => "run Kiln as root (`sudo kiln …`)".to_owned(),
            IdMap::SubIds { .. } => "use `--sandbox=subids` as the user with these sub-ids".to_owned(),
            IdMap::Single { uid, .. } => format!("use `--sandbox=single` as user {uid}"),
        }
    }
}

fn check(layout: &Layout, bytes: &[u8], id_map: &IdMap) -> Result<()> {
    let bad = |source| Error::BadFormat { path: layout.format(), source };
    let root = || layout.root().to_owned();
    let found = serde_json::from_slice::<Version>(bytes).map_err(bad)?.format;
    if found > FORMAT {
        return Err(Error::NewerFormat { root: root(), found });
    }
    let format: Format = serde_json::from_slice(bytes).map_err(bad)?;
    if format.id_map != *id_map {
        return Err(Error::OtherIdMap { root: root(), found: format.id_map, wanted: id_map.clone() });
    }
    Ok(())
}

fn create(layout: &Layout, id_map: &IdMap) -> Result<()> {
    let root = layout.root();
    if let Some(above) = root.parent() {
        fs::create_dir_all(above).map_err(|e| Error::io("create", above, e))?;
    }
    create_folder(root)?;
    match refuse_foreign(root) {
        // Another process has just made it and gone on.
        Err(Error::NotAStateFolder { .. }) if layout.format().exists() => return Ok(()),
        refused => refused?,
    }
    for folder in Layout::FOLDERS {
        create_folder(&root.join(folder))?;
    }
    spread_folders(&layout.tmp());
    let format = Format { format: FORMAT, id_map: id_map.clone() };
    let text = serde_json::to_string(&format).expect("numbers and fixed names are always JSON");
    let aside = root.join(format!("{ASIDE}{}", unique::token()));
    let written = write_flushed(&aside, format!("{text}\n").as_bytes());
    // A link, not a rename: the first process's word stands.
    let linked = written.and_then(|()| match fs::hard_link(&aside, layout.format()) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        linked => linked,
    });
    let removed = fs::remove_file(&aside);
    linked.map_err(|e| Error::io("create", layout.format(), e))?;
    removed.map_err(|e| Error::io("remove", &aside, e))?;
    let folder = fs::File::open(root).and_then(|folder| folder.sync_all());
    folder.map_err(|e| Error::io("flush", root, e))
}

/// Start of the name under which `format.json` is written before it has its own.
const ASIDE: &str = "format.json.";

fn create_folder(path: &Path) -> Result<()> {
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        created => created.map_err(|e| Error::io("create", path, e)),
    }
}

fn write_flushed(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    io::Write::write_all(&mut file, bytes)?;
    file.sync_all()
}

/// A folder without `format.json` may hold what an interrupted first use left, and nothing else: `--root ~` is a mistake.
fn refuse_foreign(root: &Path) -> Result<()> {
    for entry in fs::read_dir(root).map_err(|e| Error::io("list", root, e))? {
        let name = entry.map_err(|e| Error::io("list", root, e))?.file_name();
        let text = name.to_string_lossy();
        let ours = text.starts_with("format.json") || Layout::FOLDERS.contains(&text.as_ref());
        if !ours && text != "lost+found" && !Layout::is_trial(&text) {
            return Err(Error::NotAStateFolder { root: root.to_owned(), found: name.into() });
        }
    }
    Ok(())
}
