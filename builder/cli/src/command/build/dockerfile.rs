//! Which Dockerfile, which context, which ignore file.

use std::{
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
};

use super::ignore_patterns;
use crate::{arguments::Build, failure::Failure, machine};

/// A Dockerfile is read up to this many bytes.
const LONGEST: u64 = 16 << 20;

/// A Dockerfile and what belongs to it.
pub struct DockerfileText {
    /// Its name in messages.
    pub shown: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// The main context; none where the Dockerfile came alone on standard input.
    pub context: Option<PathBuf>,
    /// Patterns of the context's ignore file.
    pub ignore: Vec<String>,
}

impl DockerfileText {
    /// Reads what the arguments name.
    pub fn read(arguments: &Build) -> Result<DockerfileText, Failure> {
        let from_stdin = arguments.file.as_deref() == Some(Path::new("-"));
        if arguments.context == "-" {
            return if from_stdin {
                Err(Failure::usage("the context and the Dockerfile cannot both be standard input"))
            } else {
                DockerfileText::stdin_alone(arguments)
            };
        }
        let context = local_context(&arguments.context)?;
        if from_stdin {
            let bytes = read_all(io::stdin().lock(), "standard input")?;
            let ignore = ignore_of(&context, None)?;
            return Ok(DockerfileText { shown: "-".to_owned(), bytes, context: Some(context), ignore });
        }
        let path = match &arguments.file {
            Some(path) => path.clone(),
            None => default_file(&context)?,
        };
        let shown = shown(&path);
        let file = fs::File::open(&path).map_err(|error| missing(&path, &error))?;
        let bytes = read_all(file, &shown)?;
        let ignore = ignore_of(&context, Some(&path))?;
        Ok(DockerfileText { shown, bytes, context: Some(context), ignore })
    }

    /// `kiln build -`: a Dockerfile without a context.
    fn stdin_alone(arguments: &Build) -> Result<DockerfileText, Failure> {
        if arguments.file.is_some() {
            return Err(Failure::usage("an archive as context on standard input is not supported yet"));
        }
        let bytes = read_all(io::stdin().lock(), "standard input")?;
        if bytes.starts_with(&[0x1f, 0x8b]) || bytes.get(257..262) == Some(b"ustar") {
            return Err(Failure::usage("an archive as context on standard input is not supported yet"));
        }
        Ok(DockerfileText { shown: "-".to_owned(), bytes, context: None, ignore: Vec::new() })
    }
}

fn local_context(text: &str) -> Result<PathBuf, Failure> {
    let path = PathBuf::from(text);
    if machine::is_folder(&path) {
        return Ok(path);
    }
    if text.contains("://") || text.starts_with("git@") || text.starts_with("github.com/") {
        return Err(Failure::usage(format!("a remote context (`{text}`) is not supported yet")));
    }
    match fs::metadata(&path) {
        Ok(_) => Err(Failure::usage_with(format!("the context `{text}` is no folder"), "kiln build .")),
        Err(error) => {
            Err(Failure::usage_with(format!("the context `{text}` cannot be read: {error}"), "kiln build ."))
        }
    }
}

fn default_file(context: &Path) -> Result<PathBuf, Failure> {
    let names = ["Dockerfile", "Containerfile", "dockerfile"];
    let found = names.iter().map(|name| context.join(name)).find(|path| path.exists());
    found.ok_or_else(|| {
        let message = format!("there is no Dockerfile in {}", context.display());
        Failure::usage_with(message, "kiln build -f PATH/TO/Dockerfile .")
    })
}

fn missing(path: &Path, error: &io::Error) -> Failure {
    Failure::usage(format!("the Dockerfile {} cannot be read: {error}", path.display()))
}

/// `<Dockerfile>.dockerignore` beside the Dockerfile replaces the context's own file.
fn ignore_of(context: &Path, dockerfile: Option<&Path>) -> Result<Vec<String>, Failure> {
    let specific = dockerfile.map(|path| {
        let mut name = path.as_os_str().to_owned();
        name.push(".dockerignore");
        PathBuf::from(name)
    });
    for path in specific.into_iter().chain([context.join(".dockerignore")]) {
        match fs::read(&path) {
            Ok(bytes) => return ignore_patterns(&bytes, &path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(Failure::usage(format!("{} cannot be read: {error}", path.display()))),
        }
    }
    Ok(Vec::new())
}

fn shown(path: &Path) -> String {
    let current = std::env::current_dir().ok();
    let short = current.and_then(|current| path.strip_prefix(current).ok().map(Path::to_owned));
    let shown = short.unwrap_or_else(|| path.to_owned()).display().to_string();
    shown.strip_prefix("./").map_or(shown.clone(), str::to_owned)
}

fn read_all(from: impl Read, name: &str) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    from.take(LONGEST + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| Failure::usage(format!("{name} cannot be read: {error}")))?;
    if bytes.len() as u64 > LONGEST {
        return Err(Failure::usage(format!(
            "{name} is longer than {} MiB: it is no Dockerfile",
            LONGEST >> 20
        )));
    }
    Ok(bytes)
}
