//! Vertices, edges and the graph that holds them.

use std::collections::BTreeMap;

use petgraph::{Direction, graph::NodeIndex, visit::EdgeRef};
use serde::{Deserialize, Serialize};

use crate::{Exec, FileOp, Source, VertexDigest};

/// Names a vertex of one [`Graph`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VertexId(u32);

impl VertexId {
    /// Its position: ids count from 0 in the order of [`Graph::add`].
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// One output of a vertex.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Edge {
    /// The vertex.
    pub vertex: VertexId,
    /// Which of its outputs, from 0.
    pub output: u32,
}

/// What a vertex does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Brings a tree from outside; no inputs.
    Source(Source),
    /// Runs a process.
    Exec(Box<Exec>),
    /// Changes files without a process.
    File(FileOp),
    /// Stacks the layers of its inputs, the first at the bottom.
    Merge,
    /// What the second input has on top of the first.
    Diff,
}

/// Bytes `start..end` of the Dockerfile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SourceRange {
    /// First byte.
    pub start: usize,
    /// One past the last byte.
    pub end: usize,
}

/// What people are told of a vertex. Never part of a digest or key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct About {
    /// As progress shows it: `[build 2/5] RUN make`.
    pub name: String,
    /// The instruction's text, as the history has it.
    pub instruction: String,
    /// The stage that it belongs to; empty where there is no other.
    pub stage: String,
    /// The same, also where there is no other.
    pub stage_name: String,
    /// What runs the texts of its stage's `RUN`, as `SHELL` says: the program and its arguments. Empty where it runs nothing.
    pub shell: Vec<String>,
    /// Where it was written.
    pub source: Option<SourceRange>,
    /// Whether the cache must not answer for it (`--no-cache`).
    pub ignore_cache: bool,
    /// Whether progress leaves it out.
    pub hidden: bool,
}

/// An operation on the outputs of other vertices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vertex {
    /// What it does.
    pub op: Op,
    /// What it works on, in the order that the operation counts.
    pub inputs: Vec<Edge>,
    /// What people are told of it.
    pub about: About,
}

/// A vertex names an input that the graph does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("vertex {0:?} is not in this graph")]
pub struct UnknownInput(pub VertexId);

/// Vertices by id. Equal vertices (by digest) are one.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    /// The edge weight is (position among the inputs, output of the source vertex).
    dag: petgraph::Graph<Vertex, (usize, u32)>,
    digests: Vec<VertexDigest>,
    by_digest: BTreeMap<VertexDigest, VertexId>,
}

impl Graph {
    /// An empty graph.
    pub fn new() -> Graph {
        Graph::default()
    }

    /// Adds a vertex, or finds the equal one that is there. The one that came first keeps its [`About`]; it
    /// ignores the cache if either does.
    ///
    /// # Errors
    /// [`UnknownInput`] when an input was not handed out by this graph.
    pub fn add(&mut self, vertex: Vertex) -> Result<VertexId, UnknownInput> {
        let mut inputs = Vec::with_capacity(vertex.inputs.len());
        for edge in &vertex.inputs {
            let digest = self.digests.get(edge.vertex.index()).ok_or(UnknownInput(edge.vertex))?;
            inputs.push((*digest, edge.output));
        }
        let digest = VertexDigest::of(&vertex.op, &inputs);
        if let Some(known) = self.by_digest.get(&digest) {
            let about = &mut self.dag[NodeIndex::new(known.index())].about;
            about.ignore_cache |= vertex.about.ignore_cache;
            return Ok(*known);
        }
        let edges: Vec<Edge> = vertex.inputs.clone();
        let node = self.dag.add_node(vertex);
        for (position, edge) in edges.iter().enumerate() {
            self.dag.add_edge(NodeIndex::new(edge.vertex.index()), node, (position, edge.output));
        }
        let id = VertexId(u32::try_from(node.index()).expect("petgraph's indices are 32 bits wide"));
        self.digests.push(digest);
        self.by_digest.insert(digest, id);
        Ok(id)
    }

    /// The vertex of an id that this graph handed out.
    ///
    /// # Panics
    /// When another graph handed it out.
    pub fn vertex(&self, id: VertexId) -> &Vertex {
        &self.dag[NodeIndex::new(id.index())]
    }

    /// Names what was asked: the operation and, through its inputs, all that is below it.
    ///
    /// # Panics
    /// When another graph handed the id out.
    pub fn digest(&self, id: VertexId) -> VertexDigest {
        self.digests[id.index()]
    }

    /// All vertices, each after its inputs.
    pub fn ids(&self) -> impl DoubleEndedIterator<Item = VertexId> + use<> {
        (0..u32::try_from(self.digests.len()).expect("petgraph's indices are 32 bits wide")).map(VertexId)
    }

    /// The vertices that have `id` among their inputs, each once, in id order.
    pub fn users(&self, id: VertexId) -> Vec<VertexId> {
        let edges = self.dag.edges_directed(NodeIndex::new(id.index()), Direction::Outgoing);
        let mut users: Vec<VertexId> =
            edges.map(|edge| VertexId(u32::try_from(edge.target().index()).expect("32 bits"))).collect();
        users.sort_unstable();
        users.dedup();
        users
    }

    /// How many vertices there are.
    pub fn len(&self) -> usize {
        self.digests.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.digests.is_empty()
    }

    /// Length of the longest chain of vertices from each vertex to a last one: the scheduler starts those with
    /// the longest way ahead first. Indexed by [`VertexId::index`].
    pub fn heights(&self) -> Vec<u32> {
        let mut heights = vec![0u32; self.len()];
        for id in self.ids().rev() {
            let above = heights[id.index()] + 1;
            for edge in &self.vertex(id).inputs {
                let below = &mut heights[edge.vertex.index()];
                *below = above.max(*below);
            }
        }
        heights
    }
}
