//! The main context in its forms.
//!
//! One that is not a folder must be there before the Dockerfile can be read, which is in it: [`context_graph`] is the
//! graph of the context alone. The graph of the build has the same vertices, so that what was made for the one is known
//! to the other. Nothing is left out of such a context: it has no ignore file, as BuildKit has it.

use graph::{About, ActionInput, Copy, Edge, FileAction, FileOp, Graph, Http, Op, Source};

use crate::{
    MainContext, Request,
    draft::{Drafts, Tree},
    git::{GitAddress, go_bool, shown},
    stage::git_source,
};

/// What an archive is called in the folder that holds nothing else, and a downloaded context in its tree.
pub const CONTEXT_FILE: &str = "context";

/// The graph of the main context, and the edge of its tree; `None` where it is a folder.
pub fn context_graph(request: &Request) -> Option<(Graph, Edge)> {
    if request.context == MainContext::Local {
        return None;
    }
    let mut drafts = Drafts::default();
    let tree = drafts.main_context(request);
    let (graph, edges) = drafts.finish();
    Some((graph, edges.of(tree)))
}

/// The graph of one file over http, called `name` in the root of its tree. `progress` is what people see.
pub fn file_graph(url: &str, name: &str, progress: &str) -> (Graph, Edge) {
    let mut drafts = Drafts::default();
    let about = About { name: progress.to_owned(), ..About::default() };
    let tree = drafts.add(Op::Source(http(url, name)), Vec::new(), about);
    let (graph, edges) = drafts.finish();
    (graph, edges.of(tree))
}

impl Drafts {
    /// The tree of the main context.
    pub(crate) fn main_context(&mut self, request: &Request) -> Tree {
        let about = |name: String| About { name, ..About::default() };
        match &request.context {
            MainContext::Local => self.local_context(&request.ignore),
            MainContext::Git(address) => {
                let about = about(format!("[internal] load git source {}", shown(&address.remote)));
                self.add(Op::Source(git(address, request)), Vec::new(), about)
            }
            MainContext::HttpFile(url) => self.download(url),
            MainContext::HttpArchive(url) => {
                let archive = self.download(url);
                self.unpack(archive)
            }
            MainContext::Archive => {
                let archive = self.local_context(&[]);
                self.reach(archive, &format!("/{CONTEXT_FILE}"));
                self.unpack(archive)
            }
        }
    }

    fn local_context(&mut self, ignore: &[String]) -> Tree {
        self.context("context", ignore, "[internal] load build context")
    }

    fn download(&mut self, url: &str) -> Tree {
        let about = About { name: DOWNLOAD.to_owned(), ..About::default() };
        self.add(Op::Source(http(url, CONTEXT_FILE)), Vec::new(), about)
    }

    /// Owners and modes are the archive's: it is unpacked onto nothing, like a layer.
    fn unpack(&mut self, archive: Tree) -> Tree {
        let copy = Box::new(Copy {
            source: format!("/{CONTEXT_FILE}"),
            destination: "/".to_owned(),
            owner: None,
            chmod: None,
            follow_symlink: false,
            contents_only: false,
            unpack: Some(true),
            create_destination: true,
            wildcard: false,
            allow_empty_wildcard: false,
            parents: false,
            exclude: Vec::new(),
        });
        let action = FileAction::Copy { on: ActionInput::Scratch, from: ActionInput::Input(0), copy };
        let about = About { name: "[internal] unpack build context".to_owned(), ..About::default() };
        self.add(Op::File(FileOp { actions: vec![action] }), vec![archive], about)
    }
}

/// What progress calls the download of a main context.
pub const DOWNLOAD: &str = "[internal] load remote build context";

/// The source that the main context comes from; `None` for a folder, which has no time of its own.
pub(crate) fn source(request: &Request) -> Option<Source> {
    match &request.context {
        MainContext::Local => None,
        MainContext::Git(address) => Some(git(address, request)),
        MainContext::HttpArchive(url) | MainContext::HttpFile(url) => Some(http(url, CONTEXT_FILE)),
        MainContext::Archive => Some(Source::Local(graph::Local {
            name: "context".to_owned(),
            reaches: [format!("/{CONTEXT_FILE}")].into(),
            ignore: Vec::new(),
        })),
    }
}

fn git(address: &GitAddress, request: &Request) -> Source {
    let asked = request.build_args.get("BUILDKIT_CONTEXT_KEEP_GIT_DIR").and_then(|text| go_bool(text));
    let keep = asked.unwrap_or(false) || address.keep_git_dir.unwrap_or(false);
    git_source(address, None, keep)
}

/// A file over http.
pub(crate) fn http(url: &str, file_name: &str) -> Source {
    Source::Http(Http { url: url.to_owned(), checksum: None, file_name: file_name.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(context: MainContext) -> Request {
        Request { context, ..Request::new("linux/amd64".parse().expect("a platform")) }
    }

    fn address(text: &str) -> MainContext {
        MainContext::Git(GitAddress::parse(text).expect("git").expect("well-formed"))
    }

    fn printed(context: MainContext) -> String {
        let (graph, _) = context_graph(&request(context)).expect("no folder");
        crate::print::graph(&graph)
    }

    #[test]
    fn a_folder_needs_no_graph_of_its_own() {
        assert!(context_graph(&request(MainContext::Local)).is_none());
    }

    #[test]
    fn archives_are_unpacked_onto_nothing() {
        let local = printed(MainContext::Archive);
        assert!(local.contains("local context\n    reaches /context\n"), "{local}");
        assert!(local.contains("copy 0:/context to -:/"), "{local}");
        let remote = printed(MainContext::HttpArchive("https://h/a.tar".to_owned()));
        assert!(remote.contains("https://h/a.tar") && remote.contains("copy 0:/context to -:/"), "{remote}");
        let file = printed(MainContext::HttpFile("https://h/Dockerfile".to_owned()));
        assert!(file.contains("https://h/Dockerfile") && !file.contains("copy"), "{file}");
    }

    #[test]
    fn the_git_folder_is_kept_by_argument_or_address() {
        let kept = |address_text: &str, argument: Option<&str>| {
            let mut request = request(address(address_text));
            let argument = argument.map(|text| ("BUILDKIT_CONTEXT_KEEP_GIT_DIR".to_owned(), text.to_owned()));
            request.build_args.extend(argument);
            let Some(Source::Git(git)) = source(&request) else { panic!("a repository") };
            git.keep_git_dir
        };
        assert!(!kept("git://h/x", None));
        assert!(!kept("git://h/x", Some("no")));
        assert!(kept("git://h/x", Some("1")));
        assert!(kept("git://h/x?keep-git-dir", Some("0")));
    }
}
