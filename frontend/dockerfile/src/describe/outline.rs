//! What one target takes: arguments, secrets, agents, caches.

use std::collections::{BTreeMap, BTreeSet};

use dockerfile_parser::{Dockerfile, Span, expand, instruction::ArgName};

use super::{StageUses, Uses};
use crate::{
    Entitlement, Fact, Facts, LowerError, Request,
    lower::{Passed, Stages, pass},
    variables::{Variables, predefined},
    words::{Words, plain},
};

/// What came of asking for an outline.
#[derive(Clone, Debug)]
pub enum Outlining {
    /// Facts that must be known first, as of [`Lowering::Needs`](crate::Lowering::Needs): a base image's `ENV` may be in
    /// the default of an argument, and its `ONBUILD` may ask for more.
    Needs(BTreeMap<Fact, Span>),
    /// All is known.
    Done(Outline),
}

/// What a target takes. Lists are in the order of the file, each name once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outline {
    /// The target's name, if it has one.
    pub name: Option<String>,
    /// What the comment above the target says of it.
    pub description: Option<String>,
    /// The `ARG`s that it uses, its own and global ones.
    pub arguments: Vec<ArgumentUse>,
    /// `RUN --mount=type=secret`.
    pub secrets: Vec<Needed>,
    /// `RUN --mount=type=ssh`.
    pub ssh: Vec<Needed>,
    /// `RUN --mount=type=cache`.
    pub caches: Vec<CacheUse>,
}

/// An `ARG`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArgumentUse {
    /// Its name.
    pub name: String,
    /// Its value in a build with this request, if it has one.
    pub value: Option<String>,
    /// What the comment above says of it.
    pub description: Option<String>,
    /// The instruction.
    pub span: Span,
}

/// A secret or an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Needed {
    /// Its id.
    pub id: String,
    /// Whether the step fails without it.
    pub required: bool,
    /// The first instruction that asks for it.
    pub span: Span,
}

/// A cache mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheUse {
    /// Its id; the target path where the file names none.
    pub id: String,
    /// The first instruction that mounts it.
    pub span: Span,
}

impl ArgumentUse {
    pub(super) fn new(arg: &ArgName, value: Option<&str>, span: Span) -> ArgumentUse {
        ArgumentUse {
            name: plain(&arg.name.text),
            value: value.map(plain),
            description: arg.description.as_deref().map(plain),
            span,
        }
    }
}

/// Tells what the target of a request takes, with the stages that it needs.
///
/// Pure, and in rounds like [`lower`](crate::lower()). Of several platforms the first is looked at. What `RUN` may do is
/// not asked: whoever describes allows nothing.
///
/// # Errors
/// As [`lower`](crate::lower()).
pub fn outline(file: &Dockerfile, request: &Request, facts: &Facts) -> Result<Outlining, LowerError> {
    let mut request = request.clone();
    request.allow.extend([Entitlement::NetworkHost, Entitlement::SecurityInsecure]);
    request.platforms.truncate(1);
    let mut words = Words::new(file, &request)?;
    let done = match pass(file, &request, facts, Stages::Needed, &mut words)? {
        Passed::Needs(needs) => return Ok(Outlining::Needs(needs)),
        Passed::Done(done) => done,
    };
    let stage = &file.stages[done.target];
    let globals = Globals::new(file, &request);
    let mut gathered = Gathered::default();
    gathered.stage(done.target, file, &done.uses, &globals);
    let mut outline = gathered.outline;
    outline.name = stage.name().map(str::to_owned);
    outline.description = stage.description.as_deref().map(plain);
    outline.arguments.sort_by(|a, b| (a.span, &a.name).cmp(&(b.span, &b.name)));
    outline.secrets.sort_by(|a, b| (a.span, &a.id).cmp(&(b.span, &b.id)));
    outline.ssh.sort_by(|a, b| (a.span, &a.id).cmp(&(b.span, &b.id)));
    outline.caches.sort_by(|a, b| (a.span, &a.id).cmp(&(b.span, &b.id)));
    Ok(Outlining::Done(outline))
}

/// The `ARG`s above the first `FROM`.
struct Globals {
    arguments: BTreeMap<String, ArgumentUse>,
    /// For each, the names in its default.
    within: BTreeMap<String, BTreeSet<String>>,
    values: Variables,
}

impl Globals {
    /// Reads them once more. What cannot be expanded was an error of lowering before.
    fn new(file: &Dockerfile, request: &Request) -> Globals {
        let platform = request.target_platforms().0.remove(0);
        let target = request.target.as_deref().filter(|name| !name.is_empty());
        let target = target.or_else(|| file.stages.last().and_then(|stage| stage.name()));
        let mut globals = Globals {
            arguments: BTreeMap::new(),
            within: BTreeMap::new(),
            values: predefined(request, &platform, target),
        };
        for node in &file.global_args {
            for arg in &node.value.names {
                globals.add(arg, request, file, node.span);
            }
        }
        globals
    }

    fn add(&mut self, arg: &ArgName, request: &Request, file: &Dockerfile, span: Span) {
        let name = &arg.name.text;
        let mut within = BTreeSet::new();
        let value = match (request.build_args.get(name), &arg.value) {
            (Some(value), _) => Some(value.clone()),
            (None, Some(default)) => {
                let lookup = |name: &str| self.values.get(name).map(str::to_owned);
                let expanded = expand::word(&default.text, file.escape, &lookup).unwrap_or_default();
                within = expanded.used;
                Some(expanded.text)
            }
            (None, None) => None,
        };
        if let Some(value) = &value {
            self.values.set(name, value);
        }
        self.arguments.insert(name.clone(), ArgumentUse::new(arg, value.as_deref(), span));
        self.within.insert(name.clone(), within);
    }

    /// The names in the `FROM` of a stage.
    fn in_from(&self, file: &Dockerfile, stage: usize) -> BTreeSet<String> {
        let from = &file.stages[stage].from.value;
        let lookup = |name: &str| self.values.get(name).map(str::to_owned);
        let used = |word: &dockerfile_parser::Word| {
            expand::word(&word.text, file.escape, &lookup).unwrap_or_default().used
        };
        from.platform.iter().chain([&from.image]).flat_map(used).collect()
    }
}

/// An outline in the making, with the stages and names that are in it.
#[derive(Default)]
struct Gathered {
    outline: Outline,
    stages: BTreeSet<usize>,
    arguments: BTreeSet<String>,
    secrets: BTreeSet<String>,
    ssh: BTreeSet<String>,
    caches: BTreeSet<String>,
}

impl Gathered {
    /// Adds a stage, then those that it needs. Where two say the same name, the one that is nearer to the target counts.
    fn stage(&mut self, target: usize, file: &Dockerfile, uses: &Uses, globals: &Globals) {
        let mut waiting = vec![target];
        while let Some(index) = waiting.pop() {
            // A stage that a named context replaces asks for nothing.
            let (true, Some(stage)) = (self.stages.insert(index), uses.get(&index)) else { continue };
            self.arguments(stage, globals.in_from(file, index), globals);
            add(&stage.secrets, &mut self.secrets, &mut self.outline.secrets);
            add(&stage.ssh, &mut self.ssh, &mut self.outline.ssh);
            add(&stage.caches, &mut self.caches, &mut self.outline.caches);
            waiting.extend(stage.stages.iter().rev());
        }
    }

    /// Adds the arguments of a stage: its own, those in its `FROM`, and those in their defaults.
    fn arguments(&mut self, stage: &StageUses, in_from: BTreeSet<String>, globals: &Globals) {
        let mut waiting: Vec<&String> = in_from.iter().chain(&stage.names).collect();
        let mut met = BTreeSet::new();
        let mut found = BTreeMap::new();
        while let Some(name) = waiting.pop() {
            if !met.insert(name) {
                continue;
            }
            let own = stage.arguments.get(name);
            if own.is_none() {
                waiting.extend(globals.within.get(name).into_iter().flatten());
            }
            found
                .extend(own.or_else(|| globals.arguments.get(name)).map(|used| (name.clone(), used.clone())));
        }
        add(&found, &mut self.arguments, &mut self.outline.arguments);
    }
}

/// Adds what is not known by its name.
fn add<T: Clone>(found: &BTreeMap<String, T>, known: &mut BTreeSet<String>, list: &mut Vec<T>) {
    for (name, used) in found {
        if known.insert(name.clone()) {
            list.push(used.clone());
        }
    }
}

#[cfg(test)]
mod tests;
