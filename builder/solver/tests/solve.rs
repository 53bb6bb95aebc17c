//! The solver against a world made of lists: no disk, no process, no clock.

use std::collections::{BTreeMap, BTreeSet};

use graph::{About, ActionInput, Edge, FileAction, FileOp, Graph, Local, Op, Source, Vertex, VertexId};
use oci::Digest;
use proptest::prelude::*;
use solver::{Action, Event, Id, Key, Outcome, Solver, Via};

fn make(graph: &mut Graph, name: &str, inputs: &[VertexId]) -> VertexId {
    let action = FileAction::MakeFile {
        on: ActionInput::Scratch,
        path: format!("/{name}"),
        mode: 0o644,
        data: Vec::new(),
        owner: None,
    };
    let inputs = inputs.iter().map(|vertex| Edge { vertex: *vertex, output: 0 }).collect();
    let about = About { name: name.to_owned(), ..About::default() };
    let op = Op::File(FileOp { actions: vec![action] });
    graph.add(Vertex { op, inputs, about }).expect("inputs are in the graph")
}

fn local(graph: &mut Graph) -> VertexId {
    let source = Local { name: "context".to_owned(), reaches: BTreeSet::new(), ignore: Vec::new() };
    let about = About { name: "context".to_owned(), ..About::default() };
    graph.add(Vertex { op: Op::Source(Source::Local(source)), inputs: Vec::new(), about }).expect("no inputs")
}

/// A cache and the contents that steps make. A result is its content.
#[derive(Default)]
struct World {
    definitions: BTreeMap<Digest, String>,
    contents: BTreeMap<Digest, String>,
    operations: BTreeSet<String>,
    /// What a step makes instead of its own name.
    makes: BTreeMap<String, String>,
    fails: BTreeSet<String>,
    files: String,
    ran: Vec<String>,
}

impl World {
    fn answer(&mut self, solve: &Solver<String>, action: Action<String>) -> Option<Event<String>> {
        let name = |id: Id| solve.vertex(id).about.name.clone();
        Some(match action {
            Action::Fingerprint { vertex, inputs } => Event::Fingerprinted {
                vertex,
                inputs: inputs.iter().map(|_| Digest::of(self.files.as_bytes())).collect(),
                own: Vec::new(),
            },
            Action::LookUp { vertex, key } => {
                let found = match key {
                    Key::Definition(key) => self.definitions.get(&key.digest()),
                    Key::Content(key) => self.contents.get(&key.digest()),
                };
                match found {
                    Some(result) => Event::Found { vertex, result: result.clone() },
                    None => {
                        Event::Missing { vertex, operation_known: self.operations.contains(&name(vertex)) }
                    }
                }
            }
            Action::Identify { vertex, inputs } => Event::Identified {
                vertex,
                inputs: inputs.iter().map(|(r, _)| Digest::of(r.as_bytes())).collect(),
            },
            Action::Run { vertex, inputs } => self.run(solve, vertex, &inputs),
            Action::Weigh { vertex } => Event::Weighed { vertex, bytes: 0 },
            Action::Measure => Event::Measured { bytes: 0 },
            Action::Cancel { .. } | Action::Release { .. } => return None,
        })
    }

    fn run(&mut self, solve: &Solver<String>, vertex: Id, inputs: &[(String, u32)]) -> Event<String> {
        let name = solve.vertex(vertex).about.name.clone();
        assert_eq!(inputs.len(), solve.inputs(vertex).len(), "{name} runs with all its inputs");
        if matches!(solve.vertex(vertex).op, Op::Source(_)) {
            return Event::Finished { vertex, result: self.files.clone() };
        }
        self.ran.push(name.clone());
        if self.fails.contains(&name) {
            return Event::Failed { vertex };
        }
        let result = self.makes.get(&name).unwrap_or(&name).clone();
        let (definition, _) = solve.definition(vertex).expect("a running vertex has its key");
        self.definitions.insert(definition.digest(), result.clone());
        let digests: Vec<Digest> = inputs.iter().map(|(r, _)| Digest::of(r.as_bytes())).collect();
        let content = solver::key::content(solve.vertex(vertex), &digests, solve.own(vertex));
        self.contents.insert(content.digest(), result.clone());
        self.operations.insert(name);
        Event::Finished { vertex, result }
    }
}

/// Builds `target` and gives the steps that ran and how the target stands.
fn build(world: &mut World, graph: &Graph, target: VertexId) -> (Vec<String>, Option<Via>) {
    world.ran.clear();
    let mut solve = Solver::new(None);
    let ids = solve.add(graph);
    let target = ids[target.index()];
    solve.want(target);
    while !solve.is_finished() {
        let action =
            solve.next_action().expect("an unfinished solver without anything running has something to do");
        if let Some(event) = world.answer(&solve, action) {
            solve.handle(event);
        }
    }
    let via = match solve.outcome(target) {
        Outcome::Done(_, via) => Some(via),
        _ => None,
    };
    (world.ran.clone(), via)
}

#[test]
fn a_second_build_asks_for_the_target_alone() {
    let mut graph = Graph::new();
    let a = make(&mut graph, "a", &[]);
    let b = make(&mut graph, "b", &[a]);
    let mut world = World::default();
    assert_eq!(build(&mut world, &graph, b), (vec!["a".to_owned(), "b".to_owned()], Some(Via::Run)));
    assert_eq!(build(&mut world, &graph, b), (vec![], Some(Via::Definition)));
}

#[test]
fn a_step_that_comes_out_as_before_stops_the_rerun() {
    let mut graph = Graph::new();
    let context = local(&mut graph);
    let copy = make(&mut graph, "copy", &[context]);
    let compile = make(&mut graph, "compile", &[copy]);
    let link = make(&mut graph, "link", &[compile]);
    let mut world = World { files: "one".to_owned(), ..World::default() };
    build(&mut world, &graph, link);
    world.files = "two".to_owned();
    world.makes.insert("copy".to_owned(), "changed".to_owned());
    let (ran, via) = build(&mut world, &graph, link);
    assert_eq!((ran, via), (vec!["copy".to_owned(), "compile".to_owned()], Some(Via::Content)));
}

#[test]
fn a_failure_skips_what_needs_it_and_keeps_what_is_done() {
    let mut graph = Graph::new();
    let (good, bad) = (make(&mut graph, "good", &[]), make(&mut graph, "bad", &[]));
    let both = make(&mut graph, "both", &[good, bad]);
    let mut world = World { fails: BTreeSet::from(["bad".to_owned()]), ..World::default() };
    assert_eq!(build(&mut world, &graph, both).1, None);
    world.fails.clear();
    let (ran, _) = build(&mut world, &graph, both);
    assert!(!ran.contains(&"good".to_owned()) || world.definitions.len() == 3, "{ran:?}");
}

#[test]
fn ignoring_the_cache_reruns_the_step_and_asks_the_others_by_content() {
    let build_graph = |ignore: bool| {
        let mut graph = Graph::new();
        let a = make(&mut graph, "a", &[]);
        let mut vertex = graph.vertex(a).clone();
        vertex.about.ignore_cache = ignore;
        graph.add(vertex).expect("no inputs");
        let b = make(&mut graph, "b", &[a]);
        (graph, b)
    };
    let mut world = World::default();
    let (graph, b) = build_graph(false);
    build(&mut world, &graph, b);
    let (graph, b) = build_graph(true);
    assert_eq!(build(&mut world, &graph, b), (vec!["a".to_owned()], Some(Via::Content)));
}

#[test]
fn a_vertex_is_cancelled_when_its_last_want_ends() {
    let mut graph = Graph::new();
    let a = make(&mut graph, "a", &[]);
    let mut solve: Solver<String> = Solver::new(None);
    let id = solve.add(&graph)[a.index()];
    solve.want(id);
    solve.want(id);
    let Some(Action::LookUp { .. }) = solve.next_action() else { panic!("the key is looked up first") };
    solve.handle(Event::Missing { vertex: id, operation_known: false });
    assert_eq!(solve.next_action(), Some(Action::Run { vertex: id, inputs: vec![] }));
    solve.release(id);
    assert_eq!(solve.next_action(), None);
    solve.release(id);
    assert_eq!(solve.next_action(), Some(Action::Cancel { vertex: id }));
    assert!(!solve.is_finished());
    solve.handle(Event::Cancelled { vertex: id });
    assert!(solve.is_finished());
    assert_eq!(solve.outcome(id), Outcome::Cancelled);
}

proptest! {
    /// Whatever the graph, the order of answers and the failures: it ends, nothing runs twice, and a second
    /// build runs only what the first did not finish.
    #[test]
    fn every_build_ends(
        edges in proptest::collection::vec((0usize..12, 0usize..12), 0..30),
        fails in proptest::collection::btree_set(0usize..12, 0..3),
        order in proptest::collection::vec(any::<usize>(), 200),
    ) {
        let mut graph = Graph::new();
        let mut ids = vec![local(&mut graph)];
        for n in 1..12 {
            let inputs: BTreeSet<usize> = edges.iter().filter(|e| e.1 == n && e.0 < n).map(|e| e.0).collect();
            let inputs: Vec<VertexId> = inputs.into_iter().map(|i| ids[i]).collect();
            let vertex = make(&mut graph, &format!("v{n}"), &inputs);
            ids.push(vertex);
        }
        let fails = fails.into_iter().map(|n| format!("v{n}")).collect();
        let mut world = World { fails, ..World::default() };
        let mut solve = Solver::new(Some(2));
        let known = solve.add(&graph);
        known[8..].iter().for_each(|id| solve.want(*id));
        let (mut pending, mut picks) = (Vec::new(), order.into_iter().cycle());
        for _ in 0..2000 {
            while let Some(action) = solve.next_action() {
                pending.push(action);
            }
            if pending.is_empty() {
                break;
            }
            let at = picks.next().expect("endless") % pending.len();
            let action = pending.swap_remove(at);
            if let Some(event) = world.answer(&solve, action) {
                solve.handle(event);
            }
        }
        prop_assert!(solve.is_finished());
        let ran: BTreeSet<&String> = world.ran.iter().collect();
        prop_assert_eq!(ran.len(), world.ran.len(), "nothing runs twice");
        for id in &known[8..] {
            prop_assert!(!matches!(solve.outcome(*id), Outcome::Pending));
        }
    }
}
