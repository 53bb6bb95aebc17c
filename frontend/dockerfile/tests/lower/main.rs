//! Lowering as its users see it: text in, graph, configs and errors out.

mod conformance;
mod facts;
mod graphs;
mod properties;
mod refusals;
mod support;
