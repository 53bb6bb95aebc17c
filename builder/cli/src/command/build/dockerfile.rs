//! Which Dockerfile, which context, which ignore file.
//!
//! | Context | `-f` is not given | `-f PATH` | `-f -` | `-f URL` |
//! |---|---|---|---|---|
//! | a folder | in the folder | anywhere, from where the command is run | standard input | there |
//! | `-`, an archive | in the archive | in the archive | cannot be | there |
//! | `-`, a Dockerfile | that | cannot be | cannot be | cannot be |
//! | a repository or URL | in it | in it; an absolute path is one of this machine | standard input | there |
//!
//! Only a folder has an ignore file, as BuildKit has it.

use std::{
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
};

use ::dockerfile::GitAddress;
use engine::{ContextFrom, DockerfileFrom};
use image::detect::{ARCHIVE_START, begins_archive};

use super::ignore_patterns;
use crate::{arguments::Build, failure::Failure, machine};

/// A Dockerfile is read up to this many bytes.
const LONGEST: u64 = 16 << 20;

/// Where the Dockerfile and the context are, with what of them is on this machine.
#[derive(Debug)]
pub struct Inputs {
    /// The Dockerfile.
    pub dockerfile: DockerfileFrom,
    /// The main context.
    pub context: ContextFrom,
    /// The folder of the context; none where the Dockerfile came alone.
    pub folder: Option<PathBuf>,
    /// What was read already of the archive on standard input, if that is the context.
    pub archive: Option<Vec<u8>>,
    /// Patterns of the folder's ignore file.
    pub ignore: Vec<String>,
}

/// What `-f` names.
enum File<'a> {
    Usual,
    Stdin,
    Url(&'a str),
    Path(&'a Path),
}

impl Inputs {
    /// Finds what the arguments name, and reads the Dockerfile if it is on this machine.
    pub fn find(arguments: &Build) -> Result<Inputs, Failure> {
        let file = match arguments.file.as_deref() {
            None => File::Usual,
            Some(path) if path == Path::new("-") => File::Stdin,
            Some(path) => match path.to_str().filter(|text| is_url(text)) {
                Some(url) => File::Url(url),
                None => File::Path(path),
            },
        };
        let context = &*arguments.context;
        match remote(context)? {
            _ if context == "-" => Inputs::on_stdin(&file),
            Some(remote) => Inputs::in_remote(&file, remote),
            None => Inputs::in_folder(&file, local_context(context)?),
        }
    }

    fn of(dockerfile: DockerfileFrom, context: ContextFrom) -> Inputs {
        Inputs { dockerfile, context, folder: None, archive: None, ignore: Vec::new() }
    }

    /// `kiln build -`: an archive, or a Dockerfile without a context.
    fn on_stdin(file: &File<'_>) -> Result<Inputs, Failure> {
        if matches!(file, File::Stdin) {
            return Err(Failure::usage_with(
                "the context and the Dockerfile cannot both be standard input",
                "kiln build -f - .",
            ));
        }
        let mut start = Vec::new();
        let reading = io::stdin().lock().take(ARCHIVE_START as u64).read_to_end(&mut start);
        reading.map_err(|error| Failure::usage(format!("standard input cannot be read: {error}")))?;
        if begins_archive(&start) {
            let inputs = Inputs::of(in_context(file)?, ContextFrom::Archive);
            return Ok(Inputs { archive: Some(start), ..inputs });
        }
        if !matches!(file, File::Usual) {
            return Err(Failure::usage_with(
                "standard input is no archive, so it is the Dockerfile, and `-f` names another one",
                "kiln build - <Dockerfile, or kiln build -f PATH - <CONTEXT.tar",
            ));
        }
        let whole = io::Cursor::new(start).chain(io::stdin().lock());
        Ok(Inputs::of(text("-", read_all(whole, "standard input")?), ContextFrom::Folder))
    }

    fn in_remote(file: &File<'_>, context: ContextFrom) -> Result<Inputs, Failure> {
        let dockerfile = match file {
            File::Stdin => from_stdin()?,
            File::Path(path) if path.is_absolute() => from_path(path, None)?,
            file => in_context(file)?,
        };
        Ok(Inputs::of(dockerfile, context))
    }

    fn in_folder(file: &File<'_>, folder: PathBuf) -> Result<Inputs, Failure> {
        let (dockerfile, own_ignore) = match file {
            File::Stdin => (from_stdin()?, None),
            File::Url(url) => (DockerfileFrom::Url((*url).to_owned()), None),
            File::Path(path) => (from_path(path, Some(&folder))?, Some((*path).to_owned())),
            File::Usual => {
                let path = default_file(&folder)?;
                (from_path(&path, None)?, Some(path))
            }
        };
        let ignore = ignore_of(&folder, own_ignore.as_deref())?;
        let inputs = Inputs::of(dockerfile, ContextFrom::Folder);
        Ok(Inputs { folder: Some(folder), ignore, ..inputs })
    }
}

/// A Dockerfile of a context that is no folder.
fn in_context(file: &File<'_>) -> Result<DockerfileFrom, Failure> {
    Ok(match file {
        File::Url(url) => DockerfileFrom::Url((*url).to_owned()),
        File::Path(path) => {
            let path = path.to_str().ok_or_else(|| {
                Failure::usage(format!("-f {}: a path in a context is UTF-8", path.display()))
            })?;
            DockerfileFrom::Context { path: Some(path.to_owned()) }
        }
        File::Usual | File::Stdin => DockerfileFrom::Context { path: None },
    })
}

fn text(name: &str, bytes: Vec<u8>) -> DockerfileFrom {
    DockerfileFrom::Text { name: name.to_owned(), bytes }
}

fn from_stdin() -> Result<DockerfileFrom, Failure> {
    Ok(text("-", read_all(io::stdin().lock(), "standard input")?))
}

fn from_path(path: &Path, folder: Option<&Path>) -> Result<DockerfileFrom, Failure> {
    let shown = shown(path);
    let file = fs::File::open(path).map_err(|error| missing(path, folder, &error))?;
    Ok(text(&shown, read_all(file, &shown)?))
}

fn is_url(text: &str) -> bool {
    text.starts_with("http://") || text.starts_with("https://")
}

/// A context elsewhere; `None` for what is a path. A folder of this machine may have any name.
fn remote(text: &str) -> Result<Option<ContextFrom>, Failure> {
    if machine::is_folder(Path::new(text)) {
        return Ok(None);
    }
    match GitAddress::parse_context(text) {
        Some(Ok(address)) => Ok(Some(ContextFrom::Git(address))),
        Some(Err(error)) => Err(Failure::usage(format!("the context `{text}`: {error}"))),
        None if is_url(text) => Ok(Some(ContextFrom::Http(text.to_owned()))),
        None => Ok(None),
    }
}

fn local_context(text: &str) -> Result<PathBuf, Failure> {
    let path = PathBuf::from(text);
    if machine::is_folder(&path) {
        return Ok(path);
    }
    if let Some((scheme, _)) = text.split_once("://") {
        return Err(Failure::usage_with(
            format!("a context cannot be fetched by `{scheme}`"),
            "an address of git://, ssh://, http:// or https://, or git@HOST:PATH",
        ));
    }
    match fs::metadata(&path) {
        Ok(_) => Err(Failure::usage_with(
            format!("the context `{text}` is no folder"),
            format!("an archive goes to standard input: kiln build - <{text}"),
        )),
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

/// A path of `-f` begins where the command is run, not in the context: who meant the latter is told.
fn missing(path: &Path, folder: Option<&Path>, error: &io::Error) -> Failure {
    let message = format!("the Dockerfile {} cannot be read: {error}", path.display());
    let inside = folder.map(|folder| folder.join(path)).filter(|inside| inside.is_file());
    match inside {
        Some(inside) => Failure::usage_with(message, format!("-f {}", shown(&inside))),
        None => Failure::usage(message),
    }
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
    let mut bytes = Vec::with_capacity(8 << 10);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contexts_are_told_apart() {
        let is_remote = |text: &str| remote(text).map(|remote| remote.is_some()).unwrap_or_default();
        for text in ["https://h/a.tar", "http://h/Dockerfile", "git@h:a/b", "github.com/a/b", "ssh://h/a#b:c"]
        {
            assert!(is_remote(text), "{text}");
        }
        for text in [".", "/", "a.tar", "a.git", "ftp://h/a.tar"] {
            assert!(!is_remote(text), "{text}");
        }
        assert!(matches!(remote("https://h/a.git#x"), Ok(Some(ContextFrom::Git(_)))));
        assert!(matches!(remote("https://h/a.git?what=x"), Err(failure) if failure.status == 2));
    }

    #[test]
    fn what_is_no_context_is_told() {
        for (text, why) in
            [("ftp://h/a", "fetched by `ftp`"), ("/etc/passwd", "no folder"), ("/nowhere", "cannot be read")]
        {
            let failure = local_context(text).expect_err(text);
            let shown = failure.render(&Default::default(), false, 120);
            assert!(shown.contains(why) && failure.status == 2, "{shown}");
        }
    }
}
