//! What each stage asks of whoever builds it, noted while it is lowered.

use std::collections::{BTreeMap, BTreeSet};

use dockerfile_parser::{
    Span,
    instruction::{ArgName, Mount, MountKind},
};

use super::{ArgumentUse, CacheUse, Needed};
use crate::{
    gopath,
    plan::{Origin, PlannedStage},
    words::plain,
};

/// The stages that the target needs, by their number.
pub(crate) type Uses = BTreeMap<usize, StageUses>;

/// What one stage asks for.
#[derive(Clone, Debug, Default)]
pub(crate) struct StageUses {
    /// The stages that it stands on and takes from, in the order of the file.
    pub(crate) stages: Vec<usize>,
    /// The names of its `ARG`s.
    pub(crate) names: BTreeSet<String>,
    /// Those of them that are not a global `ARG` taken over.
    pub(crate) arguments: BTreeMap<String, ArgumentUse>,
    /// Secrets, by id; of several steps the first.
    pub(crate) secrets: BTreeMap<String, Needed>,
    /// Agents, by id; of several steps the first.
    pub(crate) ssh: BTreeMap<String, Needed>,
    /// Caches, by id; of several steps the first.
    pub(crate) caches: BTreeMap<String, CacheUse>,
}

impl StageUses {
    /// A stage, before its instructions.
    pub(crate) fn of(planned: &PlannedStage<'_>) -> StageUses {
        let sources = planned.steps.iter().flat_map(|step| &step.from).flatten();
        let mut stages = Vec::new();
        for origin in std::iter::once(&planned.base).chain(sources) {
            if let Origin::Stage(stage) = origin
                && !stages.contains(stage)
            {
                stages.push(*stage);
            }
        }
        StageUses { stages, ..StageUses::default() }
    }

    /// Notes one name of an `ARG`. `inherited` says that neither the file nor the request gives it a value here, and
    /// that a global one has one.
    pub(crate) fn argument(&mut self, arg: &ArgName, value: Option<&str>, inherited: bool, span: Span) {
        let name = &arg.name.text;
        self.names.insert(name.clone());
        if !inherited {
            let used = ArgumentUse::new(arg, value, span);
            self.arguments.insert(name.clone(), used);
        }
    }

    /// Notes a mount of a `RUN`.
    pub(crate) fn mount(&mut self, mount: &Mount, span: Span) {
        match &mount.kind {
            MountKind::Secret(secret) => {
                let needed = Needed { id: plain(&secret.id), required: secret.required, span };
                self.secrets.entry(secret.id.clone()).or_insert(needed);
            }
            MountKind::Ssh(ssh) => {
                let needed = Needed { id: plain(&ssh.id), required: ssh.required, span };
                self.ssh.entry(ssh.id.clone()).or_insert(needed);
            }
            MountKind::Cache(cache) => {
                let id = cache.id.clone().unwrap_or_else(|| gopath::clean(&cache.target));
                self.caches.entry(id.clone()).or_insert(CacheUse { id: plain(&id), span });
            }
            MountKind::Bind(_) | MountKind::Tmpfs(_) => {}
        }
    }
}
