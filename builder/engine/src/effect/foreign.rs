//! Steps for other platforms than this machine's.
//!
//! Nothing is decided before a program is started: the kernel knows best what it can run, by itself (386 on amd64), or
//! through an emulator that is registered with binfmt_misc. Only when it refused is the program looked at, to say what it
//! is for and what to do. One thing the kernel does not refuse is checked first: a processor without the instructions
//! of a step for `amd64/v3` ends it with a signal somewhere.

use std::{io::Read, path::Path};

use oci::Platform;
use rustix::io::Errno;
use sandbox::{Ids, Spec};
use tree::LayerPath;

use super::{Effects, elf, layers::open_beneath};
use crate::{
    error::Cause,
    result::{Mounted, VertexResult},
};

/// Scripts whose interpreter is a script, this many times: as the kernel has it.
const MOST_INTERPRETERS: usize = 5;

/// How much of a program is looked at.
const HEAD_BYTES: u64 = 256;

/// Why this machine cannot run a program.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CannotRun {
    /// It is for another architecture, and so is the step.
    #[error(
        "cannot run `{program}`: it is a program for {architecture}, this machine is {machine}, and no emulator is \
         registered for it (the step is for {step})"
    )]
    NoEmulator {
        /// The program.
        program: String,
        /// What it is for.
        architecture: String,
        /// What the step is for.
        step: Platform,
        /// This machine.
        machine: Platform,
    },
    /// An emulator is registered, and by a path that the step does not have.
    #[error(
        "cannot run `{program}`: it is a program for {architecture}, and the emulator registered for it is looked for in \
         the step's own files, where it is not (binfmt_misc entry without flag F; the step is for {step})"
    )]
    EmulatorUnseen {
        /// The program.
        program: String,
        /// What it is for.
        architecture: String,
        /// What the step is for.
        step: Platform,
    },
    /// It is for another architecture, and the step is for this machine's.
    #[error(
        "cannot run `{program}`: it is a program for {architecture}, although the step is for {step}, as is this machine"
    )]
    NotOfStep {
        /// The program.
        program: String,
        /// What it is for.
        architecture: String,
        /// What the step is for.
        step: Platform,
    },
    /// Its system calls have numbers of their own, which nobody answers.
    #[error(
        "cannot run `{program}`: it is a program for {architecture}, whose system calls have other numbers than this \
         machine's, so that owners cannot be emulated for it"
    )]
    NotEmulated {
        /// The program.
        program: String,
        /// What it is for.
        architecture: String,
    },
    /// It is neither a program nor a script.
    #[error(
        "cannot run `{program}`: it is no program that Linux knows, and no script, as it does not begin with `#!`"
    )]
    NoProgram {
        /// The file.
        program: String,
    },
    /// The step is for another system.
    #[error("cannot run `{program}`: the step is for {step}, and this machine runs Linux")]
    OtherSystem {
        /// The program.
        program: String,
        /// What the step is for.
        step: Platform,
    },
    /// This machine's processor is too old.
    #[error(
        "no support for running processes with {step} platform: this machine's processor is {best} at best"
    )]
    Processor {
        /// What the step is for.
        step: Platform,
        /// The best that it can run.
        best: Platform,
    },
}

impl CannotRun {
    /// A stable name.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            CannotRun::NoProgram { .. } => "exec-format",
            _ => "foreign-platform",
        }
    }

    /// What mends it.
    pub(crate) fn help(&self) -> String {
        match self {
            CannotRun::NoEmulator { architecture, .. } => format!(
                "apt-get install qemu-user-static, or `docker run --privileged --rm tonistiigi/binfmt --install \
                 {architecture}`; or, if the stage makes files that run anywhere: FROM --platform=$BUILDPLATFORM"
            ),
            CannotRun::EmulatorUnseen { architecture, .. } => format!(
                "register it with flag F: `docker run --privileged --rm tonistiigi/binfmt --uninstall qemu-* && docker \
                 run --privileged --rm tonistiigi/binfmt --install {architecture}`, or apt-get install --reinstall \
                 qemu-user-static"
            ),
            CannotRun::NotOfStep { architecture, step, .. } => {
                format!("take it for {step}, or build for what it is: --platform linux/{architecture}")
            }
            CannotRun::NotEmulated { .. } => {
                "build with --sandbox=subids, or as root, in another state folder (--root)".to_owned()
            }
            CannotRun::NoProgram { .. } => "begin it with the line `#!/bin/sh`".to_owned(),
            CannotRun::OtherSystem { .. } => "FROM --platform=$BUILDPLATFORM, for stages with RUN".to_owned(),
            CannotRun::Processor { best, .. } => format!("--platform {best}"),
        }
    }

    /// As a shell has it.
    pub(crate) fn exit_code(&self) -> u8 {
        126
    }
}

/// Refuses a step that would start and then end at some instruction that the processor lacks.
///
/// # Errors
/// [`CannotRun::Processor`].
pub(crate) fn check_processor(step: &Platform) -> Result<(), Box<CannotRun>> {
    let machine = Platform::host();
    let wanted = step.variant.as_deref().and_then(|variant| variant.strip_prefix('v')?.parse::<u32>().ok());
    let best = amd64_level();
    if step.os != "linux" || step.architecture != "amd64" || machine.architecture != "amd64" {
        return Ok(());
    }
    if wanted.unwrap_or(1) <= best {
        return Ok(());
    }
    let best = Platform::new("linux", "amd64", Some(&format!("v{best}")));
    Err(Box::new(CannotRun::Processor { step: step.clone(), best }))
}

/// Which of the x86-64 psABI's levels the processor is of, 1 to 4.
#[cfg(target_arch = "x86_64")]
fn amd64_level() -> u32 {
    use std::arch::is_x86_feature_detected as has;
    let second = has!("cmpxchg16b")
        && has!("popcnt")
        && has!("sse3")
        && has!("sse4.1")
        && has!("sse4.2")
        && has!("ssse3");
    let third = second
        && has!("avx")
        && has!("avx2")
        && has!("bmi1")
        && has!("bmi2")
        && has!("f16c")
        && has!("fma")
        && has!("lzcnt")
        && has!("movbe")
        && has!("xsave");
    let fourth = third
        && has!("avx512f")
        && has!("avx512bw")
        && has!("avx512cd")
        && has!("avx512dq")
        && has!("avx512vl");
    1 + [second, third, fourth].into_iter().map(u32::from).sum::<u32>()
}

/// Which of the x86-64 psABI's levels the processor is of: an emulator's business here.
#[cfg(not(target_arch = "x86_64"))]
fn amd64_level() -> u32 {
    u32::MAX
}

impl Effects {
    /// As [`Effects::not_started`], for a command in an image.
    pub(crate) fn refused(
        &self,
        error: sandbox::Error,
        image: &VertexResult,
        spec: &Spec,
        own: &Platform,
    ) -> Cause {
        match self.mounted(image) {
            Ok(below) => self.not_started(error, &below, spec, own),
            Err(_) => error.into(),
        }
    }

    /// Why a process was not started, better than the kernel says it.
    pub(crate) fn not_started(
        &self,
        error: sandbox::Error,
        below: &Mounted,
        spec: &Spec,
        step: &Platform,
    ) -> Cause {
        let sandbox::Error::Exec { argv0, errno, exists } = &error else { return error.into() };
        if step.os != "linux" {
            return CannotRun::OtherSystem { program: argv0.clone(), step: step.clone() }.into();
        }
        let refused = Errno::from_raw_os_error(*errno);
        let unseen = refused == Errno::NOENT && *exists;
        if !unseen && refused != Errno::NOEXEC {
            return error.into();
        }
        let found = self.program(below, spec, argv0);
        let machine = Platform::host();
        if self.mode.ids == Ids::Single
            && let Some(Program { head, path }) = &found
            && let Some(architecture) = elf::architecture(head).filter(|other| runs_too(&machine, other))
        {
            return CannotRun::NotEmulated { program: path.clone(), architecture }.into();
        }
        match found.and_then(|found| why(&found, unseen, step, &machine)) {
            Some(cannot) => cannot.into(),
            None => error.into(),
        }
    }

    /// The file that the kernel would have had to run; behind a script its interpreter. None where it is not in a layer,
    /// but mounted over it.
    fn program(&self, below: &Mounted, spec: &Spec, argv0: &str) -> Option<Program> {
        let mut path = candidates(spec, argv0).into_iter().find(|path| self.head(below, path).is_some())?;
        for _ in 0..MOST_INTERPRETERS {
            let head = self.head(below, &path)?;
            match elf::interpreter(&head) {
                Some(interpreter) => path = String::from_utf8_lossy(interpreter).into_owned(),
                None => return Some(Program { head, path }),
            }
        }
        None
    }

    /// The beginning of a file of a tree.
    fn head(&self, below: &Mounted, path: &str) -> Option<Vec<u8>> {
        let path = LayerPath::clamp(path.as_bytes()).ok()?;
        let path = below.stack.resolve(&path, true).ok()?;
        let (layer, node) = below.stack.lookup(&path)?;
        if !matches!(node.kind, tree::Kind::File { .. }) {
            return None;
        }
        let file = open_beneath(&below.folders[layer], node.hardlink.as_ref().unwrap_or(&path)).ok()?;
        let mut head = Vec::new();
        file.take(HEAD_BYTES).read_to_end(&mut head).ok()?;
        Some(head)
    }
}

struct Program {
    path: String,
    head: Vec<u8>,
}

/// Where a program of this name may be, in the order in which it is looked for.
fn candidates(spec: &Spec, argv0: &str) -> Vec<String> {
    let text = |path: &Path| path.to_string_lossy().into_owned();
    if argv0.contains('/') {
        return vec![text(&spec.cwd.join(argv0))];
    }
    let path = spec.env.iter().rev().find(|(name, _)| name == "PATH");
    let path =
        path.map_or_else(|| Spec::DEFAULT_PATH.to_owned(), |(_, path)| path.to_string_lossy().into_owned());
    path.split(':').map(|folder| text(&spec.cwd.join(folder).join(argv0))).collect()
}

/// What is wrong with a program that the kernel refused; `unseen` says that it knew what to run it with and did not find
/// that. None where its loader is missing, which is nothing foreign.
fn why(program: &Program, unseen: bool, step: &Platform, machine: &Platform) -> Option<CannotRun> {
    let path = program.path.clone();
    let Some(architecture) = elf::architecture(&program.head) else {
        return (!unseen).then_some(CannotRun::NoProgram { program: path });
    };
    if architecture == machine.architecture || (unseen && runs_too(machine, &architecture)) {
        return None;
    }
    let (program, step, machine) = (path, step.clone(), machine.clone());
    Some(if unseen {
        CannotRun::EmulatorUnseen { program, architecture, step }
    } else if step.architecture == machine.architecture {
        CannotRun::NotOfStep { program, architecture, step }
    } else {
        CannotRun::NoEmulator { program, architecture, step, machine }
    })
}

/// Whether a machine's kernel runs programs of an architecture by itself.
fn runs_too(machine: &Platform, architecture: &str) -> bool {
    matches!((machine.architecture.as_str(), architecture), ("amd64", "386") | ("arm64", "arm"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(text: &str) -> Platform {
        text.parse().expect("a platform")
    }

    /// The head of an ELF file: 64 bit, the low byte first, of this machine.
    fn elf(machine: u16) -> Program {
        let mut head = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0".to_vec();
        head.extend(machine.to_le_bytes());
        head.resize(64, 0);
        Program { path: "/bin/sh".to_owned(), head }
    }

    #[test]
    fn a_refused_program_is_explained() {
        let code = |program: &Program, unseen, step: &str| {
            why(program, unseen, &platform(step), &platform("linux/amd64")).map(|cannot| cannot.to_string())
        };
        let arm64 = elf(183);
        for (program, unseen, step, part) in [
            (&arm64, false, "linux/arm64", "no emulator is registered for it (the step is for linux/arm64)"),
            (&arm64, true, "linux/arm64", "without flag F"),
            (&arm64, false, "linux/amd64", "for arm64, although the step is for linux/amd64"),
            (
                &Program { head: b"echo".to_vec(), path: "/x".into() },
                false,
                "linux/amd64",
                "does not begin with `#!`",
            ),
        ] {
            let said = code(program, unseen, step).expect(part);
            assert!(said.contains(part), "{said}");
        }
        // A loader that is missing: the message that everybody knows is right.
        assert_eq!(code(&elf(62), true, "linux/amd64"), None);
        let mut i386 = elf(3);
        i386.head[4] = 1;
        assert_eq!(code(&i386, true, "linux/386"), None);
    }

    #[test]
    fn help_can_be_pasted() {
        let step = platform("linux/arm64");
        let cannot = CannotRun::NoEmulator {
            program: "/bin/sh".to_owned(),
            architecture: "arm64".to_owned(),
            step: step.clone(),
            machine: platform("linux/amd64"),
        };
        assert!(cannot.help().contains("tonistiigi/binfmt --install arm64"), "{}", cannot.help());
        assert_eq!((cannot.code(), cannot.exit_code()), ("foreign-platform", 126));
    }

    #[test]
    fn a_processor_is_asked_for_amd64_only() {
        for text in ["linux/amd64", "linux/arm64", "linux/arm/v7", "windows/amd64/v4"] {
            assert_eq!(check_processor(&platform(text)), Ok(()), "{text}");
        }
        if cfg!(target_arch = "x86_64") {
            assert!(check_processor(&platform("linux/amd64/v9")).is_err());
        }
    }
}
