//! The instructions, one file each: what they hold, and how their text is read.

mod add;
mod arg;
mod cmd;
mod command;
mod copy;
mod entrypoint;
mod env;
mod expose;
mod from;
mod healthcheck;
mod label;
mod maintainer;
mod mount;
mod onbuild;
mod run;
mod shell;
mod stopsignal;
mod user;
mod volume;
mod workdir;

pub use add::Add;
pub use arg::{Arg, ArgName};
pub use cmd::Cmd;
pub use command::{Command, Script};
pub use copy::{Copy, Source};
pub use entrypoint::Entrypoint;
pub use env::{Env, Pair};
pub use expose::Expose;
pub use from::{From, StageName};
pub use healthcheck::{Check, Healthcheck};
pub use label::Label;
pub use maintainer::Maintainer;
pub use mount::{
    BindMount, CacheMount, Mount, MountKind, RawMount, SecretMount, Sharing, SshMount, TmpfsMount,
};
pub use onbuild::Onbuild;
pub use run::{Device, Network, RawDevice, Run, Security};
pub use shell::Shell;
pub use stopsignal::Stopsignal;
pub use user::User;
pub use volume::Volume;
pub use workdir::Workdir;

use crate::error::{ErrorKind, ParseError};
use crate::statement::Statement;
use crate::suggest::nearest;

/// An instruction of a stage. `FROM` is not one: it begins a [`Stage`](crate::Stage).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Instruction {
    /// `ADD`: files, URLs, Git repositories and unpacked archives into the image.
    Add(Add),
    /// `ARG`: variables that a build sets.
    Arg(Arg),
    /// `CMD`: the default command, or the default arguments of the entry point.
    Cmd(Cmd),
    /// `COPY`: files into the image.
    Copy(Copy),
    /// `ENTRYPOINT`: the command that a container starts with.
    Entrypoint(Entrypoint),
    /// `ENV`: variables of the image.
    Env(Env),
    /// `EXPOSE`: ports that a container listens on.
    Expose(Expose),
    /// `HEALTHCHECK`: how to tell that a container works.
    Healthcheck(Healthcheck),
    /// `LABEL`: key and value pairs about the image.
    Label(Label),
    /// `MAINTAINER`: the image's author; deprecated.
    Maintainer(Maintainer),
    /// `ONBUILD`: an instruction for builds on top of this image.
    Onbuild(Onbuild),
    /// `RUN`: a command run while building.
    Run(Run),
    /// `SHELL`: what the shell form of commands is given to.
    Shell(Shell),
    /// `STOPSIGNAL`: the signal that ends a container.
    Stopsignal(Stopsignal),
    /// `USER`: who runs what follows.
    User(User),
    /// `VOLUME`: paths kept outside the image's layers.
    Volume(Volume),
    /// `WORKDIR`: the folder of what follows.
    Workdir(Workdir),
}

/// Every instruction's keyword, in upper case, sorted.
pub const KEYWORDS: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

impl Instruction {
    /// The keyword in upper case.
    pub fn keyword(&self) -> &'static str {
        match self {
            Instruction::Add(_) => "ADD",
            Instruction::Arg(_) => "ARG",
            Instruction::Cmd(_) => "CMD",
            Instruction::Copy(_) => "COPY",
            Instruction::Entrypoint(_) => "ENTRYPOINT",
            Instruction::Env(_) => "ENV",
            Instruction::Expose(_) => "EXPOSE",
            Instruction::Healthcheck(_) => "HEALTHCHECK",
            Instruction::Label(_) => "LABEL",
            Instruction::Maintainer(_) => "MAINTAINER",
            Instruction::Onbuild(_) => "ONBUILD",
            Instruction::Run(_) => "RUN",
            Instruction::Shell(_) => "SHELL",
            Instruction::Stopsignal(_) => "STOPSIGNAL",
            Instruction::User(_) => "USER",
            Instruction::Volume(_) => "VOLUME",
            Instruction::Workdir(_) => "WORKDIR",
        }
    }

    /// Reads any instruction but `FROM`, which the caller has seen to.
    pub(crate) fn parse(statement: &Statement<'_>) -> Result<Instruction, ParseError> {
        Ok(match statement.name() {
            "ADD" => Instruction::Add(Add::parse(statement)?),
            "ARG" => Instruction::Arg(Arg::parse(statement)?),
            "CMD" => Instruction::Cmd(Cmd::parse(statement)?),
            "COPY" => Instruction::Copy(Copy::parse(statement)?),
            "ENTRYPOINT" => Instruction::Entrypoint(Entrypoint::parse(statement)?),
            "ENV" => Instruction::Env(Env::parse(statement)?),
            "EXPOSE" => Instruction::Expose(Expose::parse(statement)?),
            "HEALTHCHECK" => Instruction::Healthcheck(Healthcheck::parse(statement)?),
            "LABEL" => Instruction::Label(Label::parse(statement)?),
            "MAINTAINER" => Instruction::Maintainer(Maintainer::parse(statement)?),
            "ONBUILD" => Instruction::Onbuild(Onbuild::parse(statement)?),
            "RUN" => Instruction::Run(Run::parse(statement)?),
            "SHELL" => Instruction::Shell(Shell::parse(statement)?),
            "STOPSIGNAL" => Instruction::Stopsignal(Stopsignal::parse(statement)?),
            "USER" => Instruction::User(User::parse(statement)?),
            "VOLUME" => Instruction::Volume(Volume::parse(statement)?),
            "WORKDIR" => Instruction::Workdir(Workdir::parse(statement)?),
            _ => return Err(unknown(statement)),
        })
    }
}

/// The error of a keyword that is none.
pub(crate) fn unknown(statement: &Statement<'_>) -> ParseError {
    let keyword = statement.keyword();
    let suggestion = nearest(&keyword.text, &KEYWORDS).map(str::to_owned);
    ParseError::new(ErrorKind::UnknownInstruction { name: keyword.text, suggestion }, keyword.span)
}
