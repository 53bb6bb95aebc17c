//! Processes and the memory that they take: who runs beside whom.

use std::collections::BTreeMap;

use graph::{About, Exec, Graph, Op, Vertex, VertexId};
use oci::Platform;
use proptest::prelude::*;
use solver::{Action, Event, Id, Solver};

/// A process that nothing else waits for.
fn process(graph: &mut Graph, name: &str) -> VertexId {
    let exec = Exec::new(vec![name.to_owned()], Platform::new("linux", "amd64", None));
    let about = About { name: name.to_owned(), ..About::default() };
    graph.add(Vertex { op: Op::Exec(Box::new(exec)), inputs: Vec::new(), about }).expect("no inputs")
}

/// Processes with weights on a machine with some memory.
struct Machine {
    solve: Solver<()>,
    ids: Vec<Id>,
    weights: BTreeMap<Id, u64>,
    memory: u64,
    running: Vec<Id>,
    started: Vec<Id>,
    weighed: usize,
    measured: usize,
}

impl Machine {
    fn new(weights: &[u64], memory: u64, jobs: Option<usize>) -> Machine {
        let mut graph = Graph::new();
        for index in 0..weights.len() {
            process(&mut graph, &format!("{index}"));
        }
        let mut solve = Solver::new(jobs);
        let ids = solve.add(&graph);
        ids.iter().for_each(|id| solve.want(*id));
        let weights = ids.iter().copied().zip(weights.iter().copied()).collect();
        let (running, started) = (Vec::new(), Vec::new());
        Machine { solve, ids, weights, memory, running, started, weighed: 0, measured: 0 }
    }

    /// Does what is asked until nothing is.
    fn settle(&mut self) {
        while let Some(action) = self.solve.next_action() {
            let event = match action {
                Action::LookUp { vertex, .. } => Event::Missing { vertex, operation_known: false },
                Action::Weigh { vertex } => {
                    self.weighed += 1;
                    Event::Weighed { vertex, bytes: self.weights[&vertex] }
                }
                Action::Measure => {
                    self.measured += 1;
                    Event::Measured { bytes: self.memory }
                }
                Action::Run { vertex, .. } => {
                    self.starts(vertex);
                    continue;
                }
                Action::Release { .. } => continue,
                other => panic!("{other:?}"),
            };
            self.solve.handle(event);
        }
    }

    /// Checks the rule at each start.
    fn starts(&mut self, vertex: Id) {
        let claimed: u64 = self.running.iter().map(|one| self.weights[one]).sum();
        let own = self.weights[&vertex];
        assert!(own == 0 || claimed == 0 || claimed + own <= self.memory, "{own} beside {claimed}");
        self.running.push(vertex);
        self.started.push(vertex);
    }

    fn ends(&mut self, position: usize) {
        let vertex = self.running.remove(position);
        self.solve.handle(Event::Finished { vertex, result: () });
    }

    fn order(&self) -> Vec<usize> {
        let at = |id: &Id| self.ids.iter().position(|one| one == id).expect("it is one of them");
        self.started.iter().map(at).collect()
    }
}

#[test]
fn what_fits_runs_at_once() {
    let mut machine = Machine::new(&[40, 40, 20], 100, None);
    machine.settle();
    assert_eq!(machine.order(), [0, 1, 2]);
    assert_eq!((machine.weighed, machine.measured), (3, 1));
}

#[test]
fn what_does_not_fit_waits_and_is_next() {
    let mut machine = Machine::new(&[60, 50, 10, 0], 100, None);
    machine.settle();
    // 10 would fit, and would keep 50 waiting; 0 takes no room.
    assert_eq!(machine.order(), [0, 3]);
    machine.ends(1);
    machine.settle();
    assert_eq!(machine.order(), [0, 3], "nothing with a weight has ended");
    machine.ends(0);
    machine.settle();
    assert_eq!(machine.order(), [0, 3, 1, 2]);
}

#[test]
fn what_is_too_large_for_the_machine_runs_alone() {
    let mut machine = Machine::new(&[500, 500, 0], 100, None);
    machine.settle();
    assert_eq!(machine.order(), [0, 2]);
    machine.ends(0);
    machine.settle();
    assert_eq!(machine.order(), [0, 2, 1]);
}

#[test]
fn one_that_nobody_wants_any_more_holds_nobody_up() {
    let mut machine = Machine::new(&[60, 50, 10], 100, None);
    machine.settle();
    assert_eq!(machine.order(), [0]);
    machine.solve.release(machine.ids[1]);
    machine.settle();
    assert_eq!(machine.order(), [0, 2]);
}

#[test]
fn nothing_is_asked_where_one_process_runs_at_a_time() {
    let mut machine = Machine::new(&[60, 50, 10], 100, Some(1));
    while !machine.solve.is_finished() {
        machine.settle();
        machine.ends(0);
    }
    assert_eq!((machine.weighed, machine.measured), (0, 0));
}

proptest! {
    #[test]
    fn everything_runs_in_the_end(
        weights in proptest::collection::vec(prop_oneof![Just(0_u64), 1..200_u64], 1..12),
        memory in 0..300_u64,
        jobs in proptest::option::of(1..5_usize),
        ends in proptest::collection::vec(any::<proptest::sample::Index>(), 12),
        free in proptest::collection::vec(0..300_u64, 12),
    ) {
        let mut machine = Machine::new(&weights, memory, jobs);
        let mut waiting: Option<Id> = None;
        for (end, free) in ends.into_iter().zip(free) {
            let before = machine.started.len();
            machine.settle();
            if machine.solve.is_finished() {
                break;
            }
            // One that was passed over because of its weight is the next one with a weight.
            let heavy = machine.started[before..].iter().find(|id| machine.weights[id] > 0);
            if let (Some(waiting), Some(heavy)) = (waiting, heavy) {
                prop_assert_eq!(waiting, *heavy);
            }
            prop_assert!(!machine.running.is_empty(), "something always runs");
            let free_place = jobs.is_none_or(|jobs| machine.running.len() < jobs);
            waiting = machine.ids.iter().copied().find(|id| machine.weights[id] > 0 && !machine.started.contains(id));
            waiting = waiting.filter(|_| free_place);
            let position = end.index(machine.running.len());
            machine.ends(position);
            machine.memory = free;
        }
        machine.settle();
        prop_assert!(machine.solve.is_finished());
        prop_assert_eq!(machine.started.len(), weights.len());
    }
}
