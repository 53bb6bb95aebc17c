//! What a build does with the results of its vertices: known from the graph before anything is made.

use std::collections::BTreeSet;

use graph::{Graph, Op, VertexId};
use oci::Digest;

use crate::effect::{file::read_inputs, stack::is_base};

/// The vertices whose layers stand in what is exported, and those that somebody reads files of.
#[derive(Debug, Default)]
pub(crate) struct Uses {
    exported: BTreeSet<Digest>,
    read: BTreeSet<Digest>,
}

impl Uses {
    /// The uses of a graph's vertices, when `roots` are what is exported.
    pub(crate) fn of(graph: &Graph, roots: impl IntoIterator<Item = VertexId>) -> Uses {
        let mut read = Vec::new();
        for id in graph.ids() {
            let vertex = graph.vertex(id);
            let inputs = vertex.inputs.iter().enumerate();
            read.extend(inputs.filter(|(at, _)| reads(&vertex.op, *at)).map(|(_, edge)| edge.vertex));
        }
        Uses { exported: stacked(graph, roots.into_iter().collect()), read: stacked(graph, read) }
    }

    /// Whether the vertex's layers stand in what is exported.
    pub(crate) fn is_exported(&self, vertex: &Digest) -> bool {
        self.exported.contains(vertex)
    }

    /// Whether a vertex reads files of this one's layers, or might: of a vertex that is not known it is so.
    pub(crate) fn is_read(&self, vertex: &Digest) -> bool {
        self.read.contains(vertex) || !self.exported.contains(vertex)
    }
}

/// Whether an operation reads files of an input, where its manifests are not enough.
fn reads(op: &Op, input: usize) -> bool {
    match op {
        Op::Source(_) | Op::Merge | Op::Diff => false,
        Op::Exec(_) => true,
        Op::File(file) => read_inputs(file).contains(&input),
    }
}

/// The vertices whose layers stand in the results of these.
fn stacked(graph: &Graph, mut open: Vec<VertexId>) -> BTreeSet<Digest> {
    let mut found = BTreeSet::new();
    while let Some(id) = open.pop() {
        if !found.insert(graph.digest(id).digest()) {
            continue;
        }
        let vertex = graph.vertex(id);
        let inputs = vertex.inputs.iter().enumerate();
        open.extend(inputs.filter(|(at, _)| is_base(&vertex.op, *at)).map(|(_, edge)| edge.vertex));
    }
    found
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use graph::{
        About, ActionInput, Edge, Exec, FileAction, FileOp, Local, Mount, MountKind, Source, Vertex,
    };

    use super::*;

    fn add(graph: &mut Graph, op: Op, inputs: &[VertexId]) -> VertexId {
        let inputs = inputs.iter().map(|vertex| Edge { vertex: *vertex, output: 0 }).collect();
        graph.add(Vertex { op, inputs, about: About::default() }).expect("inputs of this graph")
    }

    /// `COPY . /NAME`, onto input 0 where it is not the first.
    fn copy(on: ActionInput, from: usize, name: &str) -> Op {
        let copy = graph::Copy {
            source: "/".to_owned(),
            destination: format!("/{name}"),
            owner: None,
            chmod: None,
            follow_symlink: true,
            contents_only: true,
            unpack: None,
            create_destination: true,
            wildcard: true,
            allow_empty_wildcard: true,
            parents: false,
            exclude: Vec::new(),
        };
        let from = ActionInput::Input(from);
        Op::File(FileOp { actions: vec![FileAction::Copy { on, from, copy: Box::new(copy) }] })
    }

    fn run() -> Op {
        let root = Mount {
            target: "/".to_owned(),
            input: Some(0),
            selector: String::new(),
            readonly: false,
            kind: MountKind::Bind,
            output: Some(0),
        };
        Op::Exec(Box::new(Exec {
            args: vec!["true".to_owned()],
            platform: oci::Platform::new("linux", "amd64", None),
            env: Vec::new(),
            cwd: "/".to_owned(),
            user: String::new(),
            hostname: String::new(),
            network: graph::Network::Default,
            security: graph::Security::Sandbox,
            mounts: vec![root],
            secret_env: Vec::new(),
            extra_hosts: Vec::new(),
            proxy_env: BTreeMap::new(),
            resources: graph::Resources::default(),
            ulimits: Vec::new(),
            shm_size_bytes: None,
        }))
    }

    #[test]
    fn what_a_run_stands_on_is_read_and_what_only_the_image_has_is_not() {
        let mut graph = Graph::new();
        let local = Local { name: "context".to_owned(), reaches: BTreeSet::new(), ignore: Vec::new() };
        let context = add(&mut graph, Op::Source(Source::Local(local)), &[]);
        let first = add(&mut graph, copy(ActionInput::Scratch, 0, "a"), &[context]);
        let second = add(&mut graph, copy(ActionInput::Input(0), 1, "b"), &[first, context]);
        let ran = add(&mut graph, run(), &[second]);
        let last = add(&mut graph, copy(ActionInput::Input(0), 1, "c"), &[ran, context]);
        let uses = Uses::of(&graph, [last]);
        for (id, exported, read) in [
            (context, false, true),
            (first, true, true),
            (second, true, true),
            (ran, true, false),
            (last, true, false),
        ] {
            let vertex = graph.digest(id).digest();
            assert_eq!((uses.is_exported(&vertex), uses.is_read(&vertex)), (exported, read), "{id:?}");
        }
    }

    #[test]
    fn a_stage_that_is_copied_from_is_read() {
        let mut graph = Graph::new();
        let local = Local { name: "context".to_owned(), reaches: BTreeSet::new(), ignore: Vec::new() };
        let context = add(&mut graph, Op::Source(Source::Local(local)), &[]);
        let stage = add(&mut graph, copy(ActionInput::Scratch, 0, "a"), &[context]);
        let last = add(&mut graph, copy(ActionInput::Scratch, 0, "b"), &[stage]);
        let uses = Uses::of(&graph, [last]);
        assert!(uses.is_read(&graph.digest(stage).digest()));
        assert!(!uses.is_exported(&graph.digest(stage).digest()));
        assert!(!uses.is_read(&graph.digest(last).digest()));
    }
}
