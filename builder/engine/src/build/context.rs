//! What must be there before anything can be lowered: a main context that is no folder, and the Dockerfile.
//!
//! A context that is a repository or an archive is made as any vertex is, by a graph of its own; the build's graph has the same
//! vertices and finds what was made here. The Dockerfile is read out of the layers, its links followed inside of them.

use std::{
    fs::File,
    io::{self, Read, Write},
    path::Path,
    sync::Arc,
};

use dockerfile::{CONTEXT_FILE, DOWNLOAD, MainContext, context_graph, file_graph};
use graph::{Edge, Graph};
use image::detect::{ARCHIVE_START, begins_archive};
use solver::Solver;
use tree::{Kind, LayerPath, Stack};

use crate::{
    build::{drive::Driver, internal::Internal},
    cancel::Cancel,
    client::Client,
    effect::{Effects, layers::open_beneath},
    error::{Cause, Error},
    progress::{Definition, Event},
    request::{BuildRequest, ContextFrom, DockerfileFrom},
    result::{Mounted, VertexResult},
};

/// A Dockerfile may have this many bytes.
const LONGEST: u64 = 16 << 20;

/// What the Dockerfile is looked for as where nobody names it.
const NAMES: [&str; 3] = ["Dockerfile", "Containerfile", "dockerfile"];

/// The Dockerfile, and the request with what its context turned out to be.
pub(crate) struct Prepared {
    pub(crate) frontend: dockerfile::Request,
    pub(crate) definition: Definition,
}

/// Makes trees before there is a graph of the build.
pub(crate) struct Make<'a> {
    pub(crate) effects: &'a Arc<Effects>,
    pub(crate) jobs: Option<usize>,
    pub(crate) cancel: &'a Cancel,
}

impl Make<'_> {
    /// Finds out what the context is, makes it if the Dockerfile is in it, and reads the Dockerfile.
    ///
    /// # Errors
    /// As making a vertex; and that there is no Dockerfile, with those that are there under other names.
    pub(crate) async fn prepare(&self, request: &BuildRequest) -> Result<Prepared, Error> {
        let mut frontend = request.frontend.clone();
        frontend.context = self.context(&request.context).await?;
        let definition = match &request.dockerfile {
            DockerfileFrom::Text { name, bytes } => Definition { name: name.clone(), text: bytes.clone() },
            DockerfileFrom::Url(url) => self.downloaded(url).await?,
            DockerfileFrom::Context { path } => {
                let names = match (&frontend.context, path) {
                    // The context is the Dockerfile.
                    (MainContext::HttpFile(_), _) => vec![CONTEXT_FILE.to_owned()],
                    (_, None) => NAMES.map(str::to_owned).to_vec(),
                    (_, Some(path)) => with_lower_case(path),
                };
                let folder = || Cause::Task("a Dockerfile in a folder is read by the client".to_owned());
                let (graph, edge) = context_graph(&frontend).ok_or_else(folder)?;
                let tree = self.result(&graph, edge).await?;
                let place = place(&request.context);
                let read = move |effects: &Arc<Effects>| dockerfile(effects, &tree, &names, &place);
                self.effects.clone().blocking(read).await?
            }
        };
        self.effects.sink.event(Event::Definition(definition.clone()));
        Ok(Prepared { frontend, definition })
    }

    async fn context(&self, from: &ContextFrom) -> Result<MainContext, Error> {
        Ok(match from {
            ContextFrom::Folder => MainContext::Local,
            ContextFrom::Archive => {
                self.receive().await?;
                MainContext::Archive
            }
            ContextFrom::Git(address) => MainContext::Git(address.clone()),
            ContextFrom::Http(url) => {
                let (graph, edge) = file_graph(url, CONTEXT_FILE, DOWNLOAD);
                let tree = self.result(&graph, edge).await?;
                let start = self.effects.clone().blocking(move |effects| start_of(effects, &tree)).await?;
                match begins_archive(&start) {
                    true => MainContext::HttpArchive(url.clone()),
                    false => MainContext::HttpFile(url.clone()),
                }
            }
        })
    }

    /// The Dockerfile behind a URL.
    async fn downloaded(&self, url: &str) -> Result<Definition, Error> {
        let shown = fetch::shown(url);
        let (graph, edge) = file_graph(url, NAMES[0], "[internal] load remote Dockerfile");
        let tree = self.result(&graph, edge).await?;
        let names = vec![NAMES[0].to_owned()];
        let place = shown.clone();
        let read = self.effects.clone().blocking(move |effects| dockerfile(effects, &tree, &names, &place));
        Ok(Definition { name: shown, ..read.await? })
    }

    /// Keeps the archive that the client sends, in the build's own folder. A thread of its own reads it, because whoever
    /// sends may never end, and then must not be waited for.
    async fn receive(&self) -> Result<(), Error> {
        let shown = Internal::start(self.effects, "[internal] load build context archive");
        let (done, received) = tokio::sync::oneshot::channel();
        let folder = self.effects.lease.new_folder().map_err(Cause::from)?;
        // It holds nothing of the build but the client: what the build leaves behind goes when the build ends.
        let (client, to) = (self.effects.client.clone(), folder.join(CONTEXT_FILE));
        std::thread::spawn(move || {
            // Nobody listens any more where the build was stopped.
            let _stopped = done.send(receive(&*client, &to));
        });
        let received = tokio::select! {
            received = received => received.unwrap_or_else(|error| Err(Cause::Task(error.to_string()))),
            () = self.cancel.wait() => Err(Cause::Cancelled),
        };
        match received {
            Err(Cause::Cancelled) => {
                shown.end(Some(&"canceled"));
                return Err(Error::Cancelled);
            }
            received => {
                shown.end(received.as_ref().err());
                received?;
            }
        }
        self.effects.contexts.take_archive(folder);
        Ok(())
    }

    /// The result of an edge.
    pub(crate) async fn result(&self, graph: &Graph, edge: Edge) -> Result<VertexResult, Error> {
        let mut solve = Solver::new(self.jobs);
        let ids = solve.add(graph);
        let root = ids[edge.vertex.index()];
        let results = Driver::new(&mut solve, self.effects).make(&[root], self.cancel).await?;
        results.into_iter().next().ok_or_else(|| Cause::Task("a vertex without a result".to_owned()).into())
    }
}

fn receive(client: &dyn Client, path: &Path) -> Result<(), Cause> {
    let mut from = client.archive().map_err(Cause::io("read", "standard input"))?;
    let mut to = File::create_new(path).map_err(Cause::io("write", path))?;
    let mut buffer = vec![0; 1 << 17];
    loop {
        let read = match from.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            read => read.map_err(Cause::io("read", "standard input"))?,
        };
        if read == 0 {
            return Ok(());
        }
        to.write_all(&buffer[..read]).map_err(Cause::io("write", path))?;
    }
}

/// What messages call the place where a Dockerfile is missing.
fn place(context: &ContextFrom) -> String {
    match context {
        ContextFrom::Folder => "the build context".to_owned(),
        ContextFrom::Archive => "the archive on standard input".to_owned(),
        ContextFrom::Git(address) => format!("the repository {}", fetch::shown(&address.to_string())),
        ContextFrom::Http(url) => format!("the archive {}", fetch::shown(url)),
    }
}

/// A path and, as Docker has it, its spelling in lower case if its name is the usual one.
fn with_lower_case(path: &str) -> Vec<String> {
    let mut names = vec![path.to_owned()];
    if let Some(folder) =
        path.strip_suffix("Dockerfile").filter(|rest| rest.is_empty() || rest.ends_with('/'))
    {
        names.push(format!("{folder}dockerfile"));
    }
    names
}

/// The first bytes of a downloaded context.
fn start_of(effects: &Effects, tree: &VertexResult) -> Result<Vec<u8>, Cause> {
    let mounted = effects.mounted(tree)?;
    let mut start = Vec::new();
    if let Some(file) = open_file(&mounted, CONTEXT_FILE)? {
        let reading = file.take(ARCHIVE_START as u64).read_to_end(&mut start);
        reading.map_err(Cause::io("read", CONTEXT_FILE))?;
    }
    Ok(start)
}

/// The first of the names that is a file, and its text.
fn dockerfile(
    effects: &Effects,
    tree: &VertexResult,
    names: &[String],
    place: &str,
) -> Result<Definition, Cause> {
    let mounted = effects.mounted(tree)?;
    for name in names {
        let Some(file) = open_file(&mounted, name)? else { continue };
        let mut text = Vec::new();
        file.take(LONGEST + 1).read_to_end(&mut text).map_err(Cause::io("read", name))?;
        if text.len() as u64 > LONGEST {
            return Err(Cause::DockerfileTooLong { name: name.clone(), longest_bytes: LONGEST });
        }
        return Ok(Definition { name: name.clone(), text });
    }
    let name = names.first().cloned().unwrap_or_default();
    Err(Cause::NoDockerfile { name, place: place.to_owned(), near: others(&mounted.stack) })
}

/// Opens a file of a tree. Links are followed as if the tree were the root of everything.
pub(crate) fn open_file(tree: &Mounted, path: &str) -> Result<Option<File>, Cause> {
    let Ok(path) = LayerPath::clamp(&dockerfile::text::encode(path)) else { return Ok(None) };
    let Ok(path) = tree.stack.resolve(&path, true) else { return Ok(None) };
    match tree.stack.lookup(&path) {
        Some((layer, node)) if matches!(node.kind, Kind::File { .. }) => {
            Ok(Some(open_beneath(&tree.folders[layer], node.hardlink.as_ref().unwrap_or(&path))?))
        }
        _ => Ok(None),
    }
}

/// Up to three files of a tree that look like Dockerfiles by their names, the highest first.
fn others(tree: &Stack) -> Vec<String> {
    let mut found: Vec<(usize, String)> = Vec::new();
    for entry in tree.walk(&LayerPath::root()) {
        let path = entry.path.to_string();
        let name = path.rsplit('/').next().unwrap_or_default().to_lowercase();
        let is_file = matches!(entry.node.kind, Kind::File { .. });
        if is_file
            && (name.contains("dockerfile") || name.contains("containerfile"))
            && !name.ends_with("ignore")
        {
            found.push((path.matches('/').count(), path.trim_start_matches('/').to_owned()));
        }
    }
    found.sort();
    found.into_iter().take(3).map(|(_, path)| path).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_name_is_known_in_lower_case() {
        assert_eq!(with_lower_case("a/Dockerfile"), ["a/Dockerfile", "a/dockerfile"]);
        assert_eq!(with_lower_case("Dockerfile"), ["Dockerfile", "dockerfile"]);
        assert_eq!(with_lower_case("My.Dockerfile"), ["My.Dockerfile"]);
    }
}
