//! One file a command.

pub mod archive;
pub mod build;
pub mod copy;
pub mod du;
pub mod images;
pub mod index;
pub mod info;
pub mod login;
pub mod prune;
pub mod remote;
pub mod rollback;
pub mod run;
pub mod shell;

use engine::{Engine, Settings, StepLimits};
use sandbox::Zygote;

use crate::{failure::Failure, flags, machine, place::Place, registries};

/// The engine over the state folder.
pub fn engine(place: Place, jobs: Option<usize>) -> Result<Engine, Failure> {
    engine_with(place, jobs, None, StepLimits::default())
}

/// As [`engine`], with something that clones the steps of builds, and limits for what is run.
pub fn engine_with(
    place: Place,
    jobs: Option<usize>,
    zygote: Option<Zygote>,
    step_limits: StepLimits,
) -> Result<Engine, Failure> {
    let Place { root, mode, id_map, .. } = place;
    let (clock, registry, surroundings) = (machine::clock(), registries::client()?, machine::surroundings());
    let limits = flags::limits(&machine::variable("KILN_LIMITS").unwrap_or_default())?;
    let around =
        Settings { root, clock, registry, surroundings, jobs, limits, zygote, step_limits, mode, id_map };
    Ok(Engine::open(around)?)
}
