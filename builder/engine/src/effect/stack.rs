//! Merge and diff: a result is a list of layers, so both only cut and join lists.

use graph::Op;
use store::ResultLayer;

use super::{Effects, Job};
use crate::{error::Cause, result::VertexResult};

impl Effects {
    /// Stacks the layers of the inputs, or takes the lower ones away from the upper.
    pub(crate) fn restack(&self, job: &Job) -> Result<VertexResult, Cause> {
        let inputs: Vec<&[ResultLayer]> = job.inputs.iter().map(|(result, _)| result.as_layers()).collect();
        match (&job.vertex.op, inputs.as_slice()) {
            (Op::Diff, [lower, upper]) => match upper.strip_prefix(*lower) {
                Some(above) => Ok(VertexResult::layers(above.to_vec())),
                None => Err(Cause::NotYet("a diff of trees that do not stand on each other".to_owned())),
            },
            _ => Ok(VertexResult::layers(inputs.concat())),
        }
    }
}
