//! Entering a step: a shell in the root that it left, or that it began with.

use std::{ffi::OsString, sync::Arc};

use sandbox::Spec;

use super::run::{Container, RunRequest, Terminal, started, stdio};
use crate::{
    client::Client,
    effect::{
        Effects,
        mounts::Mounts,
        scene::{SHELL, Scene},
    },
    engine::Engine,
    error::{Cause, Error},
};

/// A build that failed.
#[derive(Debug)]
pub struct Failed {
    /// Why.
    pub error: Error,
    /// What is left of the step that failed, if it was a step.
    pub step: Option<Box<FailedStep>>,
}

impl From<Error> for Failed {
    fn from(error: Error) -> Failed {
        Failed { error, step: None }
    }
}

impl Failed {
    pub(crate) fn of(error: Error, effects: &Arc<Effects>) -> Failed {
        let scene = match &error {
            Error::Vertex { digest, .. } => effects.scenes.as_ref().and_then(|scenes| scenes.take(digest)),
            _ => None,
        };
        let step = scene.map(|scene| Box::new(FailedStep { scene, effects: effects.clone() }));
        Failed { error, step }
    }
}

/// What is left of a step that failed: its root with what it wrote, its mounts, and all else that it saw. Dropped, it is
/// thrown away.
pub struct FailedStep {
    scene: Scene,
    effects: Arc<Effects>,
}

impl std::fmt::Debug for FailedStep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FailedStep").field("spec", &self.scene.spec).finish_non_exhaustive()
    }
}

impl FailedStep {
    /// Opens a shell in it: its stage's, else `/bin/sh`. Blocks until it runs.
    ///
    /// # Errors
    /// [`Cause::NoShell`] when its root has neither.
    pub fn enter(self, rows: u16, columns: u16) -> Result<Entered, Error> {
        let FailedStep { scene: Scene { spec, mounts, shell }, effects } = self;
        Ok(open_shell(&effects, spec, mounts, &shell, Terminal::New { rows, columns })?)
    }
}

/// A shell that runs in a step.
pub struct Entered {
    /// The shell.
    pub container: Container,
    /// Its command line.
    pub shell: String,
}

impl Engine {
    /// Starts a command in an image of the local store, or where none is given a shell: the image's, else `/bin/sh`.
    ///
    /// # Errors
    /// As [`Engine::start`]; [`Cause::NoShell`] when the image has no shell.
    pub async fn enter_image(&self, request: RunRequest, client: Arc<dyn Client>) -> Result<Entered, Error> {
        if let [program, arguments @ ..] = request.command.as_slice() {
            let shell = request.command.join(" ");
            let (entrypoint, command) = (Some(program.clone()), arguments.to_vec());
            let container = self.start(RunRequest { entrypoint, command, ..request }, client).await?;
            return Ok(Entered { container, shell });
        }
        let stage = self.image(&request.image)?.config.config.shell.unwrap_or_default();
        let mut tried = Vec::new();
        for argv in shells(&stage) {
            let (shell, mut command) = (argv.join(" "), argv);
            let entrypoint = Some(command.remove(0));
            match self.start(RunRequest { entrypoint, command, ..request.clone() }, client.clone()).await {
                Ok(container) => return Ok(Entered { container, shell }),
                Err(Error::Other(cause)) if matches!(*cause, Cause::Sandbox(sandbox::Error::Exec { .. })) => {
                    tried.push(shell);
                }
                Err(error) => return Err(error),
            }
        }
        Err(Cause::NoShell { tried }.into())
    }
}

/// Starts the first shell that is there.
pub(crate) fn open_shell(
    effects: &Arc<Effects>,
    mut spec: Spec,
    mounts: Mounts,
    stage: &[String],
    terminal: Terminal,
) -> Result<Entered, Cause> {
    add_terminal(&mut spec, terminal);
    let group = effects.group()?;
    spec.groups = group.as_ref().map_or_else(Vec::new, |group| group.memberships().to_vec());
    let mut tried: Vec<String> = Vec::new();
    for argv in shells(stage) {
        spec.argv = argv.iter().map(OsString::from).collect();
        effects.renew_work(&mut spec)?;
        let furnished = effects.furnish(&spec, &mounts)?;
        match sandbox::start(started(&furnished, &spec), stdio(terminal)?) {
            Ok(running) => {
                let container = Container::new(running, effects.clone(), Some(mounts)).in_group(group);
                let container = container.furnished(furnished);
                return Ok(Entered { container, shell: argv.join(" ") });
            }
            Err(sandbox::Error::Exec { .. }) => tried.push(argv.join(" ")),
            Err(error) => return Err(error.into()),
        }
    }
    Err(Cause::NoShell { tried })
}

/// Says what kind of terminal there is, where the image does not.
pub(crate) fn add_terminal(spec: &mut Spec, terminal: Terminal) {
    let is_new = matches!(terminal, Terminal::New { .. });
    if is_new && !spec.env.iter().any(|(name, _)| name == "TERM") {
        spec.env.push(("TERM".into(), "xterm".into()));
    }
}

/// The command lines of the shells to try: the stage's without its options, which are for texts (`-e` would end a shell
/// at the first mistake), and the usual one.
fn shells(stage: &[String]) -> Vec<Vec<String>> {
    let own: Vec<String> = stage.iter().take_while(|word| !word.starts_with('-')).cloned().collect();
    let mut shells: Vec<Vec<String>> = vec![own, vec![SHELL.to_owned()]];
    shells.retain(|shell| !shell.is_empty());
    shells.dedup();
    shells
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shell_of_a_stage_comes_first_without_its_options() {
        for (stage, expected) in [
            (&[][..], &["/bin/sh"][..]),
            (&["/bin/sh", "-c"], &["/bin/sh"]),
            (&["/bin/bash", "-euo", "pipefail", "-c"], &["/bin/bash", "/bin/sh"]),
            (&["/usr/bin/env", "bash", "-c"], &["/usr/bin/env bash", "/bin/sh"]),
        ] {
            let stage: Vec<String> = stage.iter().map(|word| (*word).to_owned()).collect();
            let found: Vec<String> = shells(&stage).iter().map(|shell| shell.join(" ")).collect();
            assert_eq!(found, expected);
        }
    }
}
