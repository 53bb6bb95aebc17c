//! Lowering as its users see it: text in, graph, configs and errors out.

mod checks;
mod conformance;
mod facts;
mod graphs;
mod pages;
mod properties;
mod refusals;
mod support;
