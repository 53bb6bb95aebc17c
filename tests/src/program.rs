//! The program under test, and one run of it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use serde::Deserialize;

use crate::mode::TestMode;

/// The path of the `kiln` that is tested: `KILN_BIN` where set, otherwise what `cargo build -p kiln` makes now, in the
/// profile of the running test.
///
/// # Panics
/// With cargo's own words where the program cannot be built: no test of it can say anything then.
pub fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| std::env::var_os("KILN_BIN").map_or_else(build_program, PathBuf::from))
}

/// Kiln, with nothing of this machine and of this process's environment that changes what it does or says: no settings, no
/// logins, no engine of Docker's.
pub fn kiln() -> Command {
    let mut command = Command::new(program());
    quiet(&mut command);
    command
}

/// As [`kiln`], started in a mode, on a machine that a script has changed: [`TestMode::command_on`].
pub fn kiln_in(mode: TestMode, change: &str) -> Command {
    let mut command = mode.command_on(program(), change);
    quiet(&mut command);
    command
}

/// Another program, which starts Kiln as [`kiln`] does.
pub fn like_kiln(other: &str) -> Command {
    let mut command = Command::new(other);
    quiet(&mut command);
    command
}

/// What a program wrote to standard error.
pub fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Runs another program with words, which must succeed. What it wrote to standard output.
///
/// # Panics
/// Where it failed.
pub fn run(program: &str, words: &str) -> String {
    let output = Command::new(program).args(words.split(' ')).output().expect(program);
    assert!(output.status.success(), "{program} {words}: {}", said(&output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Takes away what changes what Kiln does or says.
fn quiet(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        let ours = ["KILN_", "BUILDKIT_", "DOCKER_", "CONTAINERS_", "XDG_"]
            .iter()
            .any(|start| text.starts_with(start));
        if ours || ["SOURCE_DATE_EPOCH", "REGISTRY_AUTH_FILE"].contains(&text.as_ref()) {
            command.env_remove(name);
        }
    }
    // What stands for /etc, and for the user's own settings and logins.
    command
        .env("KILN_ETC", "/nonexistent")
        .env("XDG_CONFIG_HOME", "/nonexistent")
        .env("DOCKER_CONFIG", "/nonexistent");
}

fn build_program() -> PathBuf {
    let test = std::env::current_exe().expect("a running program has a path");
    // <target>/<triple>/<profile>/deps/<test>
    let profile = test.ancestors().nth(2).expect("cargo puts tests two folders below the profile's");
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--quiet", "--locked", "-p", "kiln"]).current_dir(workspace());
    if profile.ends_with("release") {
        cargo.arg("--release");
    }
    let built = cargo.output().expect("cargo runs the tests, so it is there");
    assert!(built.status.success(), "cargo build -p kiln:\n{}", String::from_utf8_lossy(&built.stderr));
    profile.join("kiln")
}

/// The top of the checkout.
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests are one folder below the top")
}

/// How a vertex of the build ended, as `--progress rawjson` tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// An earlier result was taken.
    Cached,
    /// It ran to its end.
    Ran,
    /// It ended with an error.
    Failed,
    /// It had not ended when the build did.
    Unfinished,
}

/// A vertex of the build.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Step {
    /// As the progress shows it: `[build 2/3] RUN make`.
    pub name: String,
    /// How it ended.
    pub outcome: Outcome,
}

impl Step {
    /// Whether an instruction of the Dockerfile stands behind it, other than `FROM`: what a user calls a step.
    pub fn is_instruction(&self) -> bool {
        // `[build 2/3] RUN make`; but neither `[internal] …` nor `[context base] …`.
        let Some((stage, instruction)) = self.name.split_once("] ") else { return false };
        let place = stage.rsplit([' ', '[']).next().unwrap_or_default();
        let is_place = place
            .split_once('/')
            .is_some_and(|(n, of)| n.parse::<u32>().is_ok() && of.parse::<u32>().is_ok());
        is_place && !instruction.starts_with("FROM ")
    }
}

/// What one run of the program said.
#[derive(Debug)]
pub struct Run {
    /// The exit status; none when a signal ended it.
    pub status: Option<i32>,
    /// All of standard output.
    pub stdout: String,
    /// Standard error without the progress events.
    pub stderr: String,
    /// The vertices of the build, by name.
    pub steps: Vec<Step>,
}

impl Run {
    /// The instructions that ran, by name: neither cached nor unfinished.
    pub fn ran(&self) -> Vec<&str> {
        let ran =
            |step: &&Step| step.is_instruction() && matches!(step.outcome, Outcome::Ran | Outcome::Failed);
        self.steps.iter().filter(ran).map(|step| step.name.as_str()).collect()
    }
}

/// A build to be run.
pub struct Build {
    /// The state folder.
    pub root: PathBuf,
    /// The context: a folder, or an address.
    pub context: PathBuf,
    /// A file that is standard input.
    pub stdin: Option<PathBuf>,
    /// Flags, before the context.
    pub arguments: Vec<OsString>,
    /// Capabilities that the program is started without, as `setpriv` names them: `dac_override`.
    pub without_capabilities: Vec<String>,
    /// Variables that the program is given.
    pub env: BTreeMap<String, String>,
    /// As whom it is started.
    pub mode: TestMode,
}

impl Build {
    /// A build of `context` without flags.
    pub fn new(root: &Path, context: &Path) -> Build {
        Build {
            root: root.to_owned(),
            context: context.to_owned(),
            stdin: None,
            arguments: Vec::new(),
            without_capabilities: Vec::new(),
            env: BTreeMap::new(),
            mode: TestMode::Root,
        }
    }

    /// With one more flag.
    pub fn argument(mut self, argument: impl Into<OsString>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// With an OCI archive at `path` as its output.
    pub fn to_archive(self, path: &Path) -> Self {
        self.to_archive_with(path, "")
    }

    /// With further keys of that output.
    pub fn to_archive_with(self, path: &Path, keys: &str) -> Self {
        let comma = if keys.is_empty() { "" } else { "," };
        self.argument("-o").argument(format!("type=oci,dest={}{comma}{keys}", path.display()))
    }

    /// The command line, with nothing of this process's environment that changes what a build does or says.
    pub fn command(&self) -> Command {
        let mut command = if self.without_capabilities.is_empty() {
            let mut command = self.mode.command(program());
            quiet(&mut command);
            command
        } else {
            let dropped =
                self.without_capabilities.iter().map(|name| format!("-{name}")).collect::<Vec<_>>().join(",");
            let mut command = Command::new("setpriv");
            command.arg(format!("--bounding-set={dropped}")).arg(program());
            quiet(&mut command);
            command
        };
        command.envs(&self.env);
        command.arg("--root").arg(&self.root).arg("build");
        // What ran is known only where the case does not look at another view.
        if !self.arguments.iter().any(|argument| argument == "--progress") {
            command.args(["--progress", "rawjson"]);
        }
        command.args(&self.arguments).arg(&self.context).stdin(self.stdin());
        command
    }

    /// Standard input.
    ///
    /// # Panics
    /// Where the file is not there.
    pub fn stdin(&self) -> Stdio {
        let open =
            |path: &PathBuf| File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        self.stdin.as_ref().map_or_else(Stdio::null, |path| open(path).into())
    }

    /// Runs it to its end.
    ///
    /// # Panics
    /// Where the program cannot be started.
    pub fn run(&self) -> Run {
        let output = self.command().output().expect("the program was built, so it can be started");
        let (steps, stderr) = read_progress(&String::from_utf8_lossy(&output.stderr));
        Run {
            status: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr,
            steps,
        }
    }
}

/// One line of `--progress rawjson`; fields that are of no use here are left out.
#[derive(Deserialize)]
struct Event {
    #[serde(default)]
    vertexes: Vec<Vertex>,
}

#[derive(Deserialize)]
struct Vertex {
    digest: String,
    #[serde(default)]
    name: String,
    completed: Option<String>,
    #[serde(default)]
    cached: bool,
    #[serde(default)]
    error: String,
}

/// Takes standard error apart: the vertices that its events tell of, and the lines that are no events.
pub fn read_progress(stderr: &str) -> (Vec<Step>, String) {
    let mut vertices: BTreeMap<String, Step> = BTreeMap::new();
    let mut rest = String::new();
    for line in stderr.lines() {
        let event = line.starts_with('{').then(|| serde_json::from_str::<Event>(line).ok()).flatten();
        let Some(event) = event else {
            rest.push_str(line);
            rest.push('\n');
            continue;
        };
        for vertex in event.vertexes {
            let unfinished = Step { name: vertex.name, outcome: Outcome::Unfinished };
            let step = vertices.entry(vertex.digest).or_insert(unfinished);
            if !vertex.error.is_empty() {
                step.outcome = Outcome::Failed;
            } else if vertex.cached {
                step.outcome = Outcome::Cached;
            } else if vertex.completed.is_some() && step.outcome == Outcome::Unfinished {
                step.outcome = Outcome::Ran;
            }
        }
    }
    let mut steps: Vec<Step> = vertices.into_values().collect();
    steps.sort();
    (steps, rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_taken_apart() {
        let (steps, rest) = read_progress(concat!(
            r#"{"vertexes":[{"digest":"sha256:a","name":"[1/2] RUN a","started":"t"}]}"#,
            "\nnote\n",
            r#"{"vertexes":[{"digest":"sha256:b","name":"[2/2] RUN b","cached":true,"completed":"t"}]}"#,
            "\n",
            r#"{"vertexes":[{"digest":"sha256:a","name":"[1/2] RUN a","started":"t","completed":"t"}]}"#,
            "\n{broken\n",
        ));
        assert_eq!(rest, "note\n{broken\n");
        let outcomes: Vec<_> = steps.iter().map(|step| (step.name.as_str(), step.outcome)).collect();
        assert_eq!(outcomes, [("[1/2] RUN a", Outcome::Ran), ("[2/2] RUN b", Outcome::Cached)]);
    }

    #[test]
    fn instructions_are_told_from_the_rest() {
        for (name, is) in [
            ("[1/2] RUN a", true),
            ("[build 2/2] COPY a b", true),
            ("[internal] load build context", false),
            ("[context 2/3] RUN a", true),
            ("[context base] load metadata for docker.io/library/base", false),
            ("[build 1/2] FROM docker.io/library/busybox", false),
            ("exporting to oci image format", false),
        ] {
            assert_eq!(Step { name: name.into(), outcome: Outcome::Ran }.is_instruction(), is, "{name}");
        }
    }
}
