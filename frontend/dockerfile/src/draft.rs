//! The graph while it is being thought of.
//!
//! A context's vertex says all that the whole graph takes from it, so it cannot be added before every `COPY` of
//! every stage has been seen. Until then vertices stand in a list, in the order in which they were met, and name
//! their inputs by their place in it.

use std::collections::{BTreeMap, BTreeSet};

use graph::{About, Edge, Graph, Local, Op, Source, Vertex, VertexId};

/// A tree: output 0 of a vertex of the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tree(usize);

struct Draft {
    op: Op,
    inputs: Vec<Tree>,
    about: About,
}

/// The list.
#[derive(Default)]
pub(crate) struct Drafts {
    list: Vec<Draft>,
    contexts: BTreeMap<String, Context>,
}

struct Context {
    tree: Tree,
    reaches: BTreeSet<String>,
    ignore: Vec<String>,
}

impl Drafts {
    /// Adds a vertex on the trees of earlier ones.
    pub(crate) fn add(&mut self, op: Op, inputs: Vec<Tree>, about: About) -> Tree {
        self.list.push(Draft { op, inputs, about });
        Tree(self.list.len() - 1)
    }

    /// The tree of a context; made when it is first asked for.
    pub(crate) fn context(&mut self, name: &str, ignore: &[String], progress: &str) -> Tree {
        if let Some(context) = self.contexts.get(name) {
            return context.tree;
        }
        let local = Local { name: name.to_owned(), reaches: BTreeSet::new(), ignore: Vec::new() };
        let about = About { name: progress.to_owned(), ..About::default() };
        let tree = self.add(Op::Source(Source::Local(local)), Vec::new(), about);
        let context = Context { tree, reaches: BTreeSet::new(), ignore: ignore.to_vec() };
        self.contexts.insert(name.to_owned(), context);
        tree
    }

    /// Notes that something takes `path` (absolute, clean, globs allowed) from the tree; matters for contexts only.
    pub(crate) fn reach(&mut self, tree: Tree, path: &str) {
        if let Some(context) = self.contexts.values_mut().find(|context| context.tree == tree) {
            context.reaches.insert(path.to_owned());
        }
    }

    /// The graph of the list, and the edge of each tree.
    pub(crate) fn finish(self) -> (Graph, Edges) {
        let Drafts { mut list, contexts } = self;
        for (name, Context { tree: Tree(index), reaches, ignore }) in contexts {
            // The empty set stands for everything, so that it covers each other path.
            let reaches = if reaches.contains("/") { BTreeSet::new() } else { reaches };
            list[index].op = Op::Source(Source::Local(Local { name, reaches, ignore }));
        }
        let mut graph = Graph::new();
        let mut edges = Edges(Vec::with_capacity(list.len()));
        for Draft { op, inputs, about } in list {
            let inputs = inputs.into_iter().map(|tree| edges.of(tree)).collect();
            let added = graph.add(Vertex { op, inputs, about });
            edges.0.push(added.expect("a draft names earlier drafts only, and those are in the graph"));
        }
        (graph, edges)
    }
}

/// The vertex that each draft became; equal drafts became one.
pub(crate) struct Edges(Vec<VertexId>);

impl Edges {
    /// The edge of a tree of the finished list.
    pub(crate) fn of(&self, tree: Tree) -> Edge {
        Edge { vertex: self.0[tree.0], output: 0 }
    }
}
