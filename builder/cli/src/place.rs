//! Where a command works: in the state folder, and in which mode.

use std::path::PathBuf;

use engine::IdMap;
use sandbox::{
    Mode, Wish,
    userns::{self, Asked, Entered, IdsOnDisk, Note},
};

use crate::{failure::Failure, machine};

/// Where a command works.
#[derive(Clone, Debug)]
pub struct Place {
    /// The state folder, absolute.
    pub root: PathBuf,
    /// How steps are kept apart.
    pub mode: Mode,
    /// How owners stand in the state folder's inodes.
    pub id_map: IdMap,
    /// What a person should know of the mode.
    pub notes: Vec<Note>,
}

impl Place {
    /// Enters what the mode asks for. To be called while there is one thread; it can be done once.
    pub fn enter(root: PathBuf, wish: Wish) -> Result<Place, Failure> {
        // Root's folder has no other, and it is not asked for one.
        let recorded = if machine::is_root() { None } else { IdMap::of_folder(&root) };
        let recorded = recorded.as_ref().map(ids_on_disk);
        let asked = Asked { wish, recorded, root, user: machine::variable("USER") };
        let Entered { mode, ids, notes } = userns::enter(&asked).map_err(Failure::lacks)?;
        Ok(Place { root: asked.root, mode, id_map: id_map(ids), notes })
    }

    /// As [`Place::enter`] for a command that reads and writes documents of the state folder, and none of its layers: there is
    /// nothing to enter then, where the folder is there.
    pub fn of_documents(root: PathBuf, wish: Wish) -> Result<Place, Failure> {
        let recorded = if machine::is_root() || wish.mode.is_some() { None } else { IdMap::of_folder(&root) };
        let Some(id_map) = recorded else { return Place::enter(root, wish) };
        let mode = match id_map {
            IdMap::Root => Mode::ROOT,
            IdMap::SubIds { .. } => Mode::SUBIDS,
            IdMap::Single { .. } => Mode::SINGLE,
        };
        Ok(Place { root, mode, id_map, notes: Vec::new() })
    }

    /// The place of a command that does not build.
    pub fn of(root: Option<PathBuf>, wish: Wish, needs_layers: bool) -> Result<Place, Failure> {
        let root = state_folder(root)?;
        if needs_layers { Place::enter(root, wish) } else { Place::of_documents(root, wish) }
    }
}

/// Where the state folder is.
pub fn state_folder(named: Option<PathBuf>) -> Result<PathBuf, Failure> {
    let root = named.unwrap_or_else(machine::default_root);
    std::path::absolute(&root).map_err(|error| Failure::usage(format!("--root {}: {error}", root.display())))
}

fn ids_on_disk(id_map: &IdMap) -> IdsOnDisk {
    match *id_map {
        IdMap::Root => IdsOnDisk::Same,
        IdMap::SubIds { first_uid, first_gid, count } => IdsOnDisk::SubIds { first_uid, first_gid, count },
        IdMap::Single { uid, gid } => IdsOnDisk::Single { uid, gid },
    }
}

fn id_map(ids: IdsOnDisk) -> IdMap {
    match ids {
        IdsOnDisk::Same => IdMap::Root,
        IdsOnDisk::SubIds { first_uid, first_gid, count } => IdMap::SubIds { first_uid, first_gid, count },
        IdsOnDisk::Single { uid, gid } => IdMap::Single { uid, gid },
    }
}
