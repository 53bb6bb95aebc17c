//! The states of vertices and the way from one to the next.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    num::NonZeroUsize,
};

use graph::{Graph, Ingredient, Op, Source, Vertex, VertexDigest};
use oci::Digest;

use crate::{
    Action, Event, Id, Key, Outcome, Via,
    key::{self, InputKey},
    room::{Answer, Room},
    state::{KeyState, State},
};

/// A build graph on its way to results. See the crate's documentation.
#[derive(Debug)]
pub struct Solver<R> {
    nodes: Vec<Node<R>>,
    by_digest: BTreeMap<VertexDigest, Id>,
    actions: VecDeque<Action<R>>,
    /// Vertices in [`State::Ready`], the one with the longest way ahead last.
    ready: BTreeSet<(u32, std::cmp::Reverse<Id>)>,
    room: Room,
    jobs: Option<usize>,
}

#[derive(Debug)]
struct Node<R> {
    vertex: Vertex,
    digest: VertexDigest,
    inputs: Vec<(Id, u32)>,
    users: Vec<Id>,
    /// Length of the longest chain of vertices above.
    height: u32,
    /// It, or something below, must not be answered by its definition key.
    tainted: bool,
    key: KeyState,
    fingerprint: Option<(Vec<Digest>, Vec<Ingredient>)>,
    state: State<R>,
    /// How many roots and users need its result.
    demand: usize,
}

impl<R: Clone> Solver<R> {
    /// A solver that starts at most `jobs` processes at once; `None` is no limit.
    pub fn new(jobs: Option<usize>) -> Solver<R> {
        Solver {
            nodes: Vec::new(),
            by_digest: BTreeMap::new(),
            actions: VecDeque::new(),
            ready: BTreeSet::new(),
            room: Room::default(),
            jobs,
        }
    }

    /// Takes in a graph. Vertices that are known by their digest are the ones that are there.
    /// Gives the ids of the graph's vertices, indexed by [`graph::VertexId::index`].
    pub fn add(&mut self, graph: &Graph) -> Vec<Id> {
        let heights = graph.heights();
        let mut ids: Vec<Id> = Vec::with_capacity(graph.len());
        for vertex_id in graph.ids() {
            let digest = graph.digest(vertex_id);
            let vertex = graph.vertex(vertex_id);
            let height = heights[vertex_id.index()];
            if let Some(known) = self.by_digest.get(&digest).copied() {
                self.raise(known, height);
                ids.push(known);
                continue;
            }
            let inputs: Vec<(Id, u32)> =
                vertex.inputs.iter().map(|e| (ids[e.vertex.index()], e.output)).collect();
            let tainted =
                vertex.about.ignore_cache || inputs.iter().any(|(input, _)| self.node(*input).tainted);
            let id = Id(self.nodes.len());
            for (input, _) in &inputs {
                let users = &mut self.nodes[input.0].users;
                if users.last() != Some(&id) {
                    users.push(id);
                }
            }
            self.nodes.push(Node {
                vertex: vertex.clone(),
                digest,
                inputs,
                users: Vec::new(),
                height,
                tainted,
                key: KeyState::Unknown,
                fingerprint: None,
                state: State::Idle,
                demand: 0,
            });
            self.by_digest.insert(digest, id);
            ids.push(id);
        }
        ids
    }

    /// Says that somebody wants the result of a vertex. Each want is ended by a [`Solver::release`].
    pub fn want(&mut self, id: Id) {
        self.demand(id);
    }

    /// Says that one who wanted a vertex does so no more.
    pub fn release(&mut self, id: Id) {
        self.undemand(id);
    }

    /// The next thing to do, if there is one now. What has the longest way ahead of it comes first.
    pub fn next_action(&mut self) -> Option<Action<R>> {
        if let Some(action) = self.actions.pop_front() {
            return Some(action);
        }
        let full = self.jobs.is_some_and(|jobs| self.room.running() >= jobs.max(1));
        let mut chosen = None;
        for next in self.ready.iter().rev() {
            let id = next.1.0;
            if is_process(&self.nodes[id.0].vertex) {
                if full {
                    continue;
                }
                match self.room.may_start(id) {
                    Answer::Start => self.room.started(id),
                    Answer::Wait => continue,
                    Answer::Weigh(vertex) => return Some(Action::Weigh { vertex }),
                    Answer::Measure => return Some(Action::Measure),
                }
            }
            chosen = Some(*next);
            break;
        }
        let next = chosen?;
        self.ready.remove(&next);
        let id = next.1.0;
        self.nodes[id.0].state = State::Running;
        Some(Action::Run { vertex: id, inputs: self.input_results(id) })
    }

    /// Takes in what happened. Answers that come after nobody wants them any more are let go.
    pub fn handle(&mut self, event: Event<R>) {
        match event {
            Event::Fingerprinted { vertex, inputs, own } => {
                self.nodes[vertex.0].fingerprint = Some((inputs, own));
                self.derive_keys(vertex);
            }
            Event::Found { vertex, result } => match self.node(vertex).state {
                State::LookingUp => self.done(vertex, result, Via::Definition),
                State::LookingUpContent => self.done(vertex, result, Via::Content),
                _ => self.actions.push_back(Action::Release { vertex, result }),
            },
            Event::Missing { vertex, operation_known } => match self.node(vertex).state {
                State::LookingUp => self.need_inputs(vertex, operation_known),
                State::LookingUpContent => self.make_ready(vertex),
                _ => {}
            },
            Event::Identified { vertex, inputs } => {
                if matches!(self.node(vertex).state, State::Identifying) {
                    self.nodes[vertex.0].state = State::LookingUpContent;
                    let key =
                        Key::Content(key::content(&self.node(vertex).vertex, &inputs, self.own(vertex)));
                    self.actions.push_back(Action::LookUp { vertex, key });
                }
            }
            Event::Weighed { vertex, bytes } => self.room.weighed(vertex, bytes),
            Event::Measured { bytes } => self.room.measured(bytes),
            Event::Finished { vertex, result } => {
                self.leave_process(vertex);
                let source = matches!(self.node(vertex).vertex.op, Op::Source(_));
                self.done(vertex, result, if source { Via::Source } else { Via::Run });
            }
            Event::Failed { vertex } => {
                self.leave_process(vertex);
                self.fail(vertex);
            }
            Event::Cancelled { vertex } => {
                self.leave_process(vertex);
                self.drop_inputs(vertex);
                self.nodes[vertex.0].state = State::Cancelled;
                if self.node(vertex).demand > 0 {
                    // Somebody wanted it again while it was stopping.
                    self.begin(vertex);
                }
            }
        }
    }

    /// How a vertex stands.
    pub fn outcome(&self, id: Id) -> Outcome<'_, R> {
        match &self.node(id).state {
            State::Done { result, via } => Outcome::Done(result, *via),
            State::Failed => Outcome::Failed,
            State::Skipped => Outcome::Skipped,
            State::Cancelled => Outcome::Cancelled,
            _ => Outcome::Pending,
        }
    }

    /// Whether nothing that somebody wants is unfinished and nothing runs.
    pub fn is_finished(&self) -> bool {
        let unfinished = |node: &Node<R>| match node.state {
            State::Running | State::Stopping => true,
            State::Idle | State::Done { .. } | State::Failed | State::Skipped | State::Cancelled => false,
            _ => node.demand > 0,
        };
        self.actions.is_empty() && !self.nodes.iter().any(unfinished)
    }

    /// The vertex of an id.
    pub fn vertex(&self, id: Id) -> &Vertex {
        &self.node(id).vertex
    }

    /// The vertex's digest: what progress and logs call it.
    pub fn digest(&self, id: Id) -> VertexDigest {
        self.node(id).digest
    }

    /// Whether the cache must not answer for the vertex, or for something below it, by the definition key.
    pub fn is_tainted(&self, id: Id) -> bool {
        self.node(id).tainted
    }

    /// The inputs of a vertex.
    pub fn inputs(&self, id: Id) -> &[(Id, u32)] {
        &self.node(id).inputs
    }

    /// The definition key and what it is made of, once it is known.
    pub fn definition(&self, id: Id) -> Option<(key::DefinitionKey, &[Ingredient])> {
        match &self.node(id).key {
            KeyState::Known { key, ingredients } => Some((*key, ingredients)),
            _ => None,
        }
    }

    /// What goes into both keys of a vertex and is not in its definition; empty until that was told.
    pub fn own(&self, id: Id) -> &[Ingredient] {
        self.node(id).fingerprint.as_ref().map_or(&[], |(_, own)| own)
    }

    /// Everything below a vertex, itself last, inputs before users.
    pub fn below(&self, id: Id) -> Vec<Id> {
        let mut seen = BTreeSet::from([id]);
        let mut left = vec![id];
        while let Some(next) = left.pop() {
            let inputs = self.node(next).inputs.iter().map(|(input, _)| *input);
            left.extend(inputs.filter(|input| seen.insert(*input)));
        }
        seen.into_iter().collect()
    }

    fn raise(&mut self, id: Id, height: u32) {
        let before = self.node(id).height;
        let queued = height > before && self.ready.remove(&(before, std::cmp::Reverse(id)));
        self.nodes[id.0].height = height.max(before);
        if queued {
            self.make_ready(id);
        }
    }

    fn node(&self, id: Id) -> &Node<R> {
        &self.nodes[id.0]
    }

    fn leave_process(&mut self, id: Id) {
        if matches!(self.node(id).state, State::Running | State::Stopping) {
            self.room.ended(id);
        }
    }

    fn demand(&mut self, id: Id) {
        self.nodes[id.0].demand += 1;
        if matches!(self.node(id).state, State::Idle | State::Cancelled) {
            self.begin(id);
        }
    }

    /// Starts on a vertex that somebody needs: its key first.
    fn begin(&mut self, id: Id) {
        self.nodes[id.0].state = State::Keying;
        if matches!(self.node(id).key, KeyState::Known { .. }) || self.is_local(id) {
            self.keyed(id);
        } else {
            self.ask_key(id);
        }
    }

    /// Asks for the keys of a vertex and of all below it, and for the fingerprints that they need.
    fn ask_key(&mut self, id: Id) {
        let mut left = vec![id];
        let mut asked = Vec::new();
        while let Some(next) = left.pop() {
            if !matches!(self.node(next).key, KeyState::Unknown) || self.is_local(next) {
                continue;
            }
            self.nodes[next.0].key = KeyState::Asked;
            asked.push(next);
            left.extend(self.node(next).inputs.iter().map(|(input, _)| *input));
        }
        // Ids grow from inputs to users: in this order every key is derived in one pass.
        asked.sort_unstable();
        for next in asked {
            let local = self.local_inputs(next);
            if (!local.is_empty() || self.has_own(next)) && self.node(next).fingerprint.is_none() {
                self.actions.push_back(Action::Fingerprint { vertex: next, inputs: local });
            }
            self.derive_keys(next);
        }
    }

    /// Derives the key of a vertex if all that it needs is known, and then those of its users.
    fn derive_keys(&mut self, id: Id) {
        let mut left = vec![id];
        while let Some(next) = left.pop() {
            if !matches!(self.node(next).key, KeyState::Asked) {
                continue;
            }
            let Some((key, ingredients)) = self.definition_of(next) else { continue };
            self.nodes[next.0].key = KeyState::Known { key, ingredients };
            left.extend(self.node(next).users.iter().copied());
            if matches!(self.node(next).state, State::Keying) {
                self.keyed(next);
            }
        }
    }

    fn definition_of(&self, id: Id) -> Option<(key::DefinitionKey, Vec<Ingredient>)> {
        let node = self.node(id);
        let local = self.local_inputs(id);
        let (of_inputs, own) = match &node.fingerprint {
            Some((inputs, own)) => (inputs.as_slice(), own.as_slice()),
            None if local.is_empty() && !self.has_own(id) => (&[][..], &[][..]),
            None => return None,
        };
        let mut keys = Vec::with_capacity(node.inputs.len());
        for (position, (input, output)) in node.inputs.iter().enumerate() {
            keys.push(match local.iter().position(|local| *local == position) {
                Some(at) => InputKey::Content(*of_inputs.get(at)?),
                None => match &self.node(*input).key {
                    KeyState::Known { key, .. } => InputKey::Definition { key: *key, output: *output },
                    _ => return None,
                },
            });
        }
        Some(key::definition(&node.vertex, &keys, own))
    }

    /// A needed vertex has its key: a source is fetched, anything else is looked up.
    fn keyed(&mut self, id: Id) {
        if matches!(self.node(id).vertex.op, Op::Source(_)) {
            self.make_ready(id);
        } else if self.node(id).tainted {
            self.need_inputs(id, !self.node(id).vertex.about.ignore_cache);
        } else if let KeyState::Known { key, .. } = self.node(id).key {
            self.nodes[id.0].state = State::LookingUp;
            self.actions.push_back(Action::LookUp { vertex: id, key: Key::Definition(key) });
        }
    }

    fn need_inputs(&mut self, id: Id, operation_known: bool) {
        let inputs = self.distinct_inputs(id);
        let Some(all) = NonZeroUsize::new(inputs.len()) else {
            return self.make_ready(id);
        };
        // All count as missing until each was asked for: an input that is done at once must not find us in
        // another state.
        self.nodes[id.0].state = State::Waiting { missing: all, operation_known };
        for input in &inputs {
            self.demand(*input);
        }
        let failed = |input: &Id| matches!(self.node(*input).state, State::Failed | State::Skipped);
        if inputs.iter().any(failed) {
            return self.skip(id);
        }
        let done =
            inputs.iter().filter(|input| matches!(self.node(**input).state, State::Done { .. })).count();
        self.set_missing(id, all.get() - done, operation_known);
    }

    fn set_missing(&mut self, id: Id, missing: usize, operation_known: bool) {
        match NonZeroUsize::new(missing) {
            Some(missing) => self.nodes[id.0].state = State::Waiting { missing, operation_known },
            None => self.inputs_are_done(id, operation_known),
        }
    }

    fn inputs_are_done(&mut self, id: Id, operation_known: bool) {
        if operation_known && !self.node(id).vertex.about.ignore_cache {
            self.nodes[id.0].state = State::Identifying;
            let inputs = self.input_results(id);
            self.actions.push_back(Action::Identify { vertex: id, inputs });
        } else {
            self.make_ready(id);
        }
    }

    fn make_ready(&mut self, id: Id) {
        let height = self.node(id).height;
        self.nodes[id.0].state = State::Ready;
        self.ready.insert((height, std::cmp::Reverse(id)));
    }

    fn done(&mut self, id: Id, result: R, via: Via) {
        // An input that this vertex itself asked for is let go once it is not needed to make this one.
        let had_inputs = self.holds_inputs(id);
        self.nodes[id.0].state = State::Done { result, via };
        for user in self.node(id).users.clone() {
            if let State::Waiting { missing, operation_known } = self.node(user).state {
                self.set_missing(user, missing.get() - 1, operation_known);
            }
        }
        if had_inputs {
            self.undemand_inputs(id);
        }
        if self.node(id).demand == 0 {
            self.let_go(id);
        }
    }

    fn fail(&mut self, id: Id) {
        let had_inputs = self.holds_inputs(id);
        self.nodes[id.0].state = State::Failed;
        self.skip_users(id);
        if had_inputs {
            self.undemand_inputs(id);
        }
    }

    fn skip(&mut self, id: Id) {
        let had_inputs = self.holds_inputs(id);
        self.nodes[id.0].state = State::Skipped;
        self.skip_users(id);
        if had_inputs {
            self.undemand_inputs(id);
        }
    }

    fn skip_users(&mut self, id: Id) {
        for user in self.node(id).users.clone() {
            if matches!(self.node(user).state, State::Waiting { .. }) {
                self.skip(user);
            }
        }
    }

    /// Whether the vertex's state is one in which it has demanded its inputs.
    fn holds_inputs(&self, id: Id) -> bool {
        let state = &self.node(id).state;
        let past_inputs = matches!(
            state,
            State::Waiting { .. }
                | State::Identifying
                | State::LookingUpContent
                | State::Ready
                | State::Running
                | State::Stopping
        );
        past_inputs && !self.node(id).inputs.is_empty()
    }

    fn drop_inputs(&mut self, id: Id) {
        if self.holds_inputs(id) {
            self.undemand_inputs(id);
        }
    }

    fn undemand_inputs(&mut self, id: Id) {
        for input in self.distinct_inputs(id) {
            self.undemand(input);
        }
    }

    fn undemand(&mut self, id: Id) {
        let node = &mut self.nodes[id.0];
        node.demand = node.demand.saturating_sub(1);
        if node.demand > 0 {
            return;
        }
        match node.state {
            State::Done { .. } => self.let_go(id),
            State::Running => {
                node.state = State::Stopping;
                self.actions.push_back(Action::Cancel { vertex: id });
            }
            State::Idle | State::Stopping | State::Failed | State::Skipped | State::Cancelled => {}
            State::Ready => {
                let height = node.height;
                self.ready.remove(&(height, std::cmp::Reverse(id)));
                self.room.let_pass(id);
                self.cancel(id);
            }
            _ => self.cancel(id),
        }
    }

    fn cancel(&mut self, id: Id) {
        let held = self.holds_inputs(id);
        self.nodes[id.0].state = State::Cancelled;
        if held {
            self.undemand_inputs(id);
        }
    }

    /// Forgets a result that nobody needs; asked for again, it is looked up again.
    fn let_go(&mut self, id: Id) {
        if let State::Done { result, .. } = std::mem::replace(&mut self.nodes[id.0].state, State::Idle) {
            self.actions.push_back(Action::Release { vertex: id, result });
        }
    }

    fn input_results(&self, id: Id) -> Vec<(R, u32)> {
        let result = |(input, output): &(Id, u32)| match &self.node(*input).state {
            State::Done { result, .. } => Some((result.clone(), *output)),
            _ => None,
        };
        self.node(id).inputs.iter().filter_map(result).collect()
    }

    fn distinct_inputs(&self, id: Id) -> BTreeSet<Id> {
        self.node(id).inputs.iter().map(|(input, _)| *input).collect()
    }

    fn is_local(&self, id: Id) -> bool {
        matches!(self.node(id).vertex.op, Op::Source(Source::Local(_)))
    }

    /// Whether a vertex is a source that can change while its definition stays.
    pub fn is_remote(&self, id: Id) -> bool {
        matches!(self.node(id).vertex.op, Op::Source(Source::Git(_) | Source::Http(_)))
    }

    /// Whether something of a vertex's keys is not in its definition: a source's version, or the marks of secrets.
    fn has_own(&self, id: Id) -> bool {
        self.is_remote(id)
            || matches!(&self.node(id).vertex.op, Op::Exec(exec) if exec.secret_ids().next().is_some())
    }

    fn local_inputs(&self, id: Id) -> Vec<usize> {
        let numbered = self.node(id).inputs.iter().enumerate();
        numbered.filter(|(_, (input, _))| self.is_local(*input)).map(|(position, _)| position).collect()
    }
}

fn is_process(vertex: &Vertex) -> bool {
    matches!(vertex.op, Op::Exec(_))
}
