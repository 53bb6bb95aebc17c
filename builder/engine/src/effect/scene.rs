//! What is different where a step is looked at, and not made: what it leaves when it fails is kept, its command is in a
//! variable, its caches are shielded.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::MetadataExt,
    path::PathBuf,
    sync::{Mutex, PoisonError},
};

use graph::Exec;
use oci::Digest;
use sandbox::{MountKind, Rootfs, Snapshots, Spec, Writable};

use super::{Effects, Job, mounts::Mounts};
use crate::error::Cause;

/// The shell of a stage that names none.
pub(crate) const SHELL: &str = "/bin/sh";

/// The variable that has a step's command, for the shell that is opened in it.
const COMMAND: &str = "KILN_COMMAND";

/// The kernel takes a variable of 128 KiB with its name and its NUL, and no longer one.
const COMMAND_BYTES: usize = 128 * 1024 - COMMAND.len() - 2;

/// A step that failed: its root with what it wrote, and its mounts.
pub(crate) struct Scene {
    pub(crate) spec: Spec,
    pub(crate) mounts: Mounts,
    /// As of [`graph::About::shell`].
    pub(crate) shell: Vec<String>,
}

/// The scenes of a build by the digests of their vertices.
#[derive(Default)]
pub(crate) struct Scenes(Mutex<BTreeMap<Digest, Scene>>);

impl Scenes {
    /// Takes one out, and lets go of all others: what they hold may be waited for.
    pub(crate) fn take(&self, vertex: &Digest) -> Option<Scene> {
        let mut all = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        all.remove(vertex)
    }
}

impl Effects {
    /// Keeps what a step left that failed, where somebody is to look at it.
    pub(crate) fn keep_scene(&self, exec: &Exec, job: &Job, spec: Spec, mounts: Mounts, cause: &Cause) {
        let Some(Scenes(scenes)) = &self.scenes else { return };
        if matches!(cause, Cause::Cancelled) {
            return;
        }
        let mut scene = Scene { spec, mounts, shell: job.vertex.about.shell.clone() };
        scene.spec.env.extend(command_variable(exec, &scene.shell));
        scenes.lock().unwrap_or_else(PoisonError::into_inner).insert(job.digest, scene);
    }

    /// Gives each overlay of a spec a new work folder: the kernel takes one once.
    pub(crate) fn renew_work(&self, spec: &mut Spec) -> Result<(), Cause> {
        let mut works: Vec<&mut PathBuf> = Vec::new();
        if let Rootfs::Overlay { writable, .. } = &mut spec.rootfs {
            works.push(&mut writable.work);
        }
        for mount in &mut spec.mounts {
            if let MountKind::Overlay { writable: Some(writable), .. } = &mut mount.kind {
                works.push(&mut writable.work);
            }
        }
        works.into_iter().try_for_each(|work| {
            *work = self.lease.new_work_folder()?;
            Ok(())
        })
    }

    /// Lays something over each cache of a spec, so that what is written there is thrown away.
    pub(crate) fn shield_caches(&self, spec: &mut Spec, mounts: &Mounts) -> Result<(), Cause> {
        let copies = self.mode.snapshots == Snapshots::Copy;
        for mount in &mut spec.mounts {
            let MountKind::Bind { root, path, readonly } = &mut mount.kind else { continue };
            if *readonly || !mounts.caches().any(|cache| cache == root) {
                continue;
            }
            if copies {
                *readonly = true;
                continue;
            }
            let writable = Writable { upper: self.lease.new_folder()?, work: self.lease.new_work_folder()? };
            // The root of an overlay looks as its upper folder does.
            let found = fs::metadata(&*root).map_err(Cause::io("read", &*root))?;
            self.chown(&writable.upper, found.uid(), found.gid())
                .and_then(|()| fs::set_permissions(&writable.upper, found.permissions()))
                .map_err(Cause::io("write", &writable.upper))?;
            mount.kind = MountKind::Overlay {
                lowers: vec![root.clone()],
                writable: Some(writable),
                path: path.clone(),
            };
        }
        Ok(())
    }
}

/// The variable with a step's command; none where that is too long for one.
///
/// `stage` is the shell of its stage, as of [`graph::About::shell`].
pub(crate) fn command_variable(
    exec: &Exec,
    stage: &[String],
) -> Option<(std::ffi::OsString, std::ffi::OsString)> {
    let command = shell_text(&exec.args, stage);
    (command.len() <= COMMAND_BYTES).then(|| (COMMAND.into(), command.into()))
}

/// A command line as a shell takes it: the text that was given to the shell that is opened, else all arguments, quoted. With
/// options of its own (`-e`, say), or given to another program (`python -c`), a text means something else.
fn shell_text(args: &[String], stage: &[String]) -> String {
    let opened = stage.first().map_or(SHELL, String::as_str);
    match args {
        [shell, flag, text] if shell == opened && flag == "-c" => text.clone(),
        args => args.iter().map(|arg| quoted(arg)).collect::<Vec<_>>().join(" "),
    }
}

fn quoted(arg: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"_-./:=@%+,".contains(&b);
    match !arg.is_empty() && arg.bytes().all(plain) {
        true => arg.to_owned(),
        false => format!("'{}'", arg.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_a_text_for_a_shell() {
        let none: &[&str] = &[];
        let bash = &["/bin/bash", "-c"];
        for (stage, args, text) in [
            (none, &["/bin/sh", "-c", "make && make install"][..], "make && make install"),
            (bash, &["/bin/bash", "-c", "a | b"], "a | b"),
            // Its own options count: with a pipe that fails, say.
            (bash, &["/bin/bash", "-euxc", "a | b"], "/bin/bash -euxc 'a | b'"),
            (bash, &["/bin/bash", "-o", "pipefail", "-c", "a | b"], "/bin/bash -o pipefail -c 'a | b'"),
            // What another program is to make of it.
            (none, &["/bin/bash", "-c", "a[1]=2"], "/bin/bash -c 'a[1]=2'"),
            (none, &["python3", "-c", "print(1)"], "python3 -c 'print(1)'"),
            (none, &["/app", "--name", "it's", "", "a b"], r"/app --name 'it'\''s' '' 'a b'"),
            (none, &["/app"], "/app"),
        ] {
            let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
            assert_eq!(shell_text(&owned(args), &owned(stage)), text);
        }
    }
}
