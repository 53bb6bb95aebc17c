//! Merge and diff: a result is a list of layers, so both only cut and join lists.

use graph::{ActionInput, FileAction, Op};
use store::ResultLayer;

use super::{Effects, Job};
use crate::{error::Cause, result::VertexResult};

impl Effects {
    /// The job, with every tree that it builds on as layers: a context that is one becomes a layer.
    pub(crate) fn on_layers(&self, mut job: Job) -> Result<Job, Cause> {
        for (at, (result, _)) in job.inputs.iter_mut().enumerate() {
            if is_base(&job.vertex.op, at) {
                *result = self.with_layers(result.clone())?;
            }
        }
        Ok(job)
    }

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

/// Whether an operation builds on an input, rather than reading from it.
pub(crate) fn is_base(op: &Op, input: usize) -> bool {
    match op {
        Op::Source(_) => false,
        Op::Merge | Op::Diff => true,
        Op::Exec(exec) => exec.mounts.iter().any(|mount| mount.target == "/" && mount.input == Some(input)),
        Op::File(file) => file.actions.iter().any(|action| match action {
            FileAction::Copy { on, .. }
            | FileAction::MakeDirectory { on, .. }
            | FileAction::MakeFile { on, .. }
            | FileAction::Remove { on, .. }
            | FileAction::Symlink { on, .. } => *on == ActionInput::Input(input),
        }),
    }
}
