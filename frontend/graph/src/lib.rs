//! The build graph: what was asked, in LLB's shape.
//!
//! A vertex is an operation on the outputs of other vertices; an edge is (vertex, output index). Dockerfiles
//! lower to these operations and to nothing else, and BuildKit's definitions can be converted into them without loss.
//! The graph is acyclic because it cannot be made otherwise: [`Graph::add`] hands out ids, and a vertex
//! can name only ids already handed out.
//!
//! `petgraph` holds the vertices and edges; no type of it appears outside this crate.
//!
//! Pure: no file, socket, clock or environment.

mod chmod;
mod encode;
mod exec;
mod file;
mod source;
mod vertex;

pub use chmod::{Chmod, ChmodClause, ChmodOperator};
pub use encode::{Ingredient, OpDigest, VertexDigest, ingredients};
pub use exec::{
    CacheSharing, Exec, ExtraHost, Mount, MountKind, Network, Resources, SecretEnv, Security, Ulimit,
};
pub use file::{ActionInput, Copy, FileAction, FileOp, Owner, OwnerName};
pub use source::{Git, GitMtime, Http, Local, OciLayout, Source};
pub use vertex::{About, Edge, Graph, Op, SourceRange, UnknownInput, Vertex, VertexId};
