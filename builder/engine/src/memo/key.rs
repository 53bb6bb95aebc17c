//! The key of a whole build: all of its request that can change what it makes or shows.
//!
//! Every field is named, with no `..`: a new one does not compile until someone has decided here whether it goes into the
//! key, or keeps a build from being remembered. When in doubt, the latter.
//!
//! | What is asked                                                    | |
//! |------------------------------------------------------------------|---|
//! | Dockerfile, ignore files, arguments, labels, platforms, flags, folders of contexts, names, form of the images | in the key |
//! | where an archive is written to                                   | not in the key: looked at each time |
//! | secrets that count in keys                                       | by their marks in the key |
//! | other secrets, agents                                            | not in the key: they are in no step's |
//! | `--no-cache`, `--pull`                                           | not remembered: they ask for work |
//! | Dockerfiles and contexts that are not here, layouts              | not remembered: nobody tells when they change |
//! | pushes, folders, tars of files, standard output, a Docker Engine | not remembered: what is there is not known |

use std::{fmt::Debug, os::unix::ffi::OsStrExt, path::Path};

use dockerfile::{NamedContext, NoCache, Request};
use oci::{Digest, Hasher};
use store::SecretKey;

use super::Remember;
use crate::{
    client::Client,
    request::{
        Asking, BuildRequest, ContextFrom, Destination, DockerfileFrom, ImageForm, Output, PullPolicy,
    },
    secrets::memo_part,
};

/// Raise it when an answer is written or read another way.
const VERSION: &[u8] = b"kiln whole build 1";

/// The parts of a key. Each stands behind its name and its length.
struct Parts(Hasher);

impl Parts {
    fn bytes(&mut self, name: &str, value: &[u8]) {
        self.0.field(name.as_bytes());
        self.0.field(value);
    }

    /// A value by its derived text, which names all that is in it.
    fn value(&mut self, name: &str, value: &impl Debug) {
        self.bytes(name, format!("{value:?}").as_bytes());
    }

    fn path(&mut self, name: &str, path: &Path) {
        self.bytes(name, path.as_os_str().as_bytes());
    }
}

/// The key of a build; none for one that is not to be remembered.
///
/// `secret_key` is that of the state folder; it is asked for where secrets count.
pub(super) fn key(
    request: &BuildRequest,
    client: &dyn Client,
    secret_key: impl FnOnce() -> Option<SecretKey>,
) -> Option<Digest> {
    let BuildRequest {
        dockerfile,
        context,
        frontend,
        layouts,
        tags,
        outputs,
        keyed_secrets,
        explain,
        asking: Asking { pull, fresh_seconds },
        remember,
    } = request;
    let Remember { program, folder, limits } = remember.as_ref()?;
    let (DockerfileFrom::Text { name, bytes }, ContextFrom::Folder) = (dockerfile, context) else {
        return None;
    };
    if !layouts.is_empty() || !matches!(pull, PullPolicy::Missing | PullPolicy::Never) {
        return None;
    }
    let mut parts = Parts(Hasher::new());
    parts.0.field(VERSION);
    parts.bytes("program", program.as_bytes());
    parts.path("folder", folder);
    parts.bytes("limits", limits.as_bytes());
    parts.bytes("dockerfile name", name.as_bytes());
    parts.bytes("dockerfile", bytes);
    parts.value("tags", tags);
    if !keyed_secrets.is_empty() {
        let marks = memo_part(&secret_key()?, keyed_secrets, client).ok()?;
        parts.value("marks of secrets", &marks);
    }
    parts.value("explain", explain);
    parts.value("pull", pull);
    parts.value("fresh seconds", fresh_seconds);
    add_frontend(&mut parts, frontend, client)?;
    for output in outputs {
        add_output(&mut parts, output)?;
    }
    Some(parts.0.finish())
}

fn add_frontend(parts: &mut Parts, request: &Request, client: &dyn Client) -> Option<()> {
    let Request {
        build_args,
        target,
        platforms,
        build_platform,
        labels,
        named_contexts,
        context,
        ignore,
        no_cache,
        network,
        allow,
        extra_hosts,
        ulimits,
        shm_size_bytes,
        resources,
        hostname,
    } = request;
    if *no_cache != NoCache::None {
        return None;
    }
    parts.value("build arguments", build_args);
    parts.value("target", target);
    parts.value("platforms", platforms);
    parts.value("build platform", build_platform);
    parts.value("labels", labels);
    parts.value("context", context);
    parts.value("ignore", ignore);
    parts.value("network", network);
    parts.value("allow", allow);
    parts.value("extra hosts", extra_hosts);
    parts.value("ulimits", ulimits);
    parts.value("shm size", shm_size_bytes);
    parts.value("resources", resources);
    parts.value("hostname", hostname);
    if let Some(folder) = client.context("context").ok()? {
        parts.path("context folder", &folder);
    }
    for (name, context) in named_contexts {
        parts.bytes("named context", name.as_bytes());
        parts.value("of", context);
        match context {
            NamedContext::Local { ignore: _in_its_text } => parts.path("at", &client.context(name).ok()??),
            NamedContext::Scratch | NamedContext::Image(_) => {}
            NamedContext::OciLayout { .. } | NamedContext::Git(_) | NamedContext::Http(_) => return None,
        }
    }
    Some(())
}

fn add_output(parts: &mut Parts, output: &Output) -> Option<()> {
    match output {
        Output::Image { store, push: None, form } => {
            parts.value("image", store);
            add_form(parts, form);
        }
        Output::Oci { to: Destination::Path(_looked_at), archive: true, form } => {
            parts.bytes("oci archive", b"");
            add_form(parts, form);
        }
        Output::Docker { to: Destination::Path(_looked_at), form } => {
            parts.bytes("docker archive", b"");
            add_form(parts, form);
        }
        Output::CacheOnly => parts.bytes("cache only", b""),
        Output::Image { push: Some(_), .. }
        | Output::Oci { .. }
        | Output::Docker { .. }
        | Output::DockerEngine { .. }
        | Output::Local { .. }
        | Output::Tar { .. } => return None,
    }
    Some(())
}

fn add_form(parts: &mut Parts, form: &ImageForm) {
    let ImageForm {
        codec,
        force_compression,
        names,
        dangling,
        annotations,
        dialect,
        epoch,
        rewrite_timestamp,
        prefer_foreign_layers,
    } = form;
    parts.value("codec", codec);
    parts.value("force compression", force_compression);
    parts.value("names", names);
    parts.value("dangling", dangling);
    parts.value("annotations", annotations);
    parts.value("dialect", dialect);
    parts.value("epoch", epoch);
    parts.value("rewrite timestamp", rewrite_timestamp);
    parts.value("prefer foreign layers", prefer_foreign_layers);
}

#[cfg(test)]
mod tests {
    use std::{
        io::{self, Read},
        path::PathBuf,
    };

    use dockerfile::{GitAddress, MainContext};
    use graph::{ExtraHost, Network};
    use image::compress::Codec;
    use oci::{Epoch, Platform, Reference};

    use super::*;
    use crate::SecretBytes;
    use crate::request::{DanglingName, OutputEpoch, Push};

    struct Folders(&'static str);

    impl Client for Folders {
        fn context(&self, name: &str) -> io::Result<Option<PathBuf>> {
            Ok(Some(PathBuf::from(self.0).join(name)))
        }

        fn archive(&self) -> io::Result<Box<dyn Read + Send>> {
            Err(io::ErrorKind::NotFound.into())
        }

        fn secret(&self, _: &str) -> io::Result<Option<SecretBytes>> {
            Ok(None)
        }

        fn ssh_agent(&self, _: &str) -> Option<crate::SshAgent> {
            None
        }

        fn docker_engine(&self, context: Option<&str>) -> Result<docker::Address, docker::Error> {
            docker::Address::find(context, &docker::Surroundings::default())
        }
    }

    fn name(text: &str) -> Reference {
        text.parse().expect("a name")
    }

    fn oci(form: ImageForm) -> Output {
        Output::Oci { to: Destination::Path("out".into()), archive: true, form }
    }

    fn plain() -> BuildRequest {
        BuildRequest {
            dockerfile: DockerfileFrom::Text {
                name: "Dockerfile".to_owned(),
                bytes: b"FROM scratch".to_vec(),
            },
            context: ContextFrom::Folder,
            frontend: Request::new(Platform::new("linux", "amd64", None)),
            layouts: Default::default(),
            tags: Vec::new(),
            outputs: vec![oci(ImageForm::default())],
            keyed_secrets: Default::default(),
            explain: false,
            asking: Asking { pull: PullPolicy::Missing, fresh_seconds: 600 },
            remember: Some(Remember {
                program: "kiln".to_owned(),
                folder: "/".into(),
                limits: String::new(),
            }),
        }
    }

    fn key_of(change: impl FnOnce(&mut BuildRequest)) -> Option<Digest> {
        let mut request = plain();
        change(&mut request);
        key(&request, &Folders("/contexts"), || None)
    }

    fn form(change: impl FnOnce(&mut ImageForm)) -> Option<Digest> {
        let mut form = ImageForm::default();
        change(&mut form);
        key_of(|request| request.outputs = vec![oci(form)])
    }

    #[test]
    fn whatever_changes_a_build_changes_its_key() {
        let both = |text: &str| (text.to_owned(), text.to_owned());
        let named = |context| key_of(|r| drop(r.frontend.named_contexts.insert("n".to_owned(), context)));
        let remember = |change: fn(&mut Remember)| key_of(|r| r.remember.iter_mut().for_each(change));
        let keys = [
            key_of(|_| {}),
            key(&plain(), &Folders("/elsewhere"), || None),
            remember(|r| r.program.push('2')),
            remember(|r| r.folder.push("a")),
            remember(|r| r.limits.push('x')),
            key_of(|r| {
                r.dockerfile = DockerfileFrom::Text { name: "D".to_owned(), bytes: b"FROM scratch".to_vec() }
            }),
            key_of(|r| {
                r.dockerfile =
                    DockerfileFrom::Text { name: "Dockerfile".to_owned(), bytes: b"FROM a".to_vec() }
            }),
            key_of(|r| r.tags.push(name("a"))),
            key_of(|r| r.explain = true),
            key_of(|r| r.asking.pull = PullPolicy::Never),
            key_of(|r| r.asking.fresh_seconds = 1),
            key_of(|r| r.frontend.build_args.extend([both("a")])),
            key_of(|r| r.frontend.build_args.extend([both("a"), both("b")])),
            key_of(|r| r.frontend.target = Some("a".to_owned())),
            key_of(|r| r.frontend.platforms.push(Platform::new("linux", "arm64", None))),
            key_of(|r| r.frontend.build_platform = Platform::new("linux", "arm64", None)),
            key_of(|r| r.frontend.labels.extend([both("a")])),
            key_of(|r| r.frontend.context = MainContext::Archive),
            key_of(|r| r.frontend.ignore.push("a".to_owned())),
            key_of(|r| r.frontend.network = Network::Host),
            key_of(|r| assert!(r.frontend.allow.insert(dockerfile::Entitlement::NetworkHost))),
            key_of(|r| {
                let (host, ip) = both("1.2.3.4");
                r.frontend.extra_hosts.push(ExtraHost { host, ip });
            }),
            key_of(|r| r.frontend.shm_size_bytes = Some(1)),
            key_of(|r| r.frontend.hostname = Some("h".to_owned())),
            named(NamedContext::Scratch),
            named(NamedContext::Image(name("a"))),
            named(NamedContext::Local { ignore: Vec::new() }),
            named(NamedContext::Local { ignore: vec!["a".to_owned()] }),
            key_of(|r| r.outputs = Vec::new()),
            key_of(|r| r.outputs = vec![Output::CacheOnly]),
            key_of(|r| r.outputs = vec![Output::store()]),
            key_of(|r| r.outputs.push(Output::CacheOnly)),
            key_of(|r| {
                let (to, form) = (Destination::Path("out".into()), ImageForm::default());
                r.outputs = vec![Output::Docker { to, form }];
            }),
            form(|f| f.codec = Codec::Gzip { level: Some(1) }),
            form(|f| f.force_compression = true),
            form(|f| f.names.push(name("a"))),
            form(|f| f.dangling = Some(DanglingName { prefix: name("a"), only_unnamed: false })),
            form(|f| f.epoch = OutputEpoch::At(Epoch(1))),
            form(|f| f.rewrite_timestamp = Some(true)),
            form(|f| f.prefer_foreign_layers = true),
        ];
        let mut known = std::collections::BTreeSet::new();
        for (at, key) in keys.into_iter().enumerate() {
            assert!(known.insert(key.unwrap_or_else(|| panic!("{at} has none"))), "{at} is an earlier one");
        }
        // Where to is looked at each time.
        let elsewhere = key_of(|r| {
            let (to, form) = (Destination::Path("elsewhere".into()), ImageForm::default());
            r.outputs = vec![Output::Oci { to, archive: true, form }];
        });
        assert_eq!(elsewhere, key_of(|_| {}));
    }

    #[test]
    fn what_nobody_can_know_again_has_no_key() {
        let git = || match GitAddress::parse_context("https://h/a.git") {
            Some(Ok(address)) => address,
            other => panic!("{other:?}"),
        };
        let stdout = || Destination::Stdout;
        let form = ImageForm::default;
        for (at, key) in [
            key_of(|r| r.remember = None),
            key_of(|r| r.dockerfile = DockerfileFrom::Url("http://h".to_owned())),
            key_of(|r| r.context = ContextFrom::Archive),
            key_of(|r| r.context = ContextFrom::Git(git())),
            key_of(|r| drop(r.layouts.insert("a".to_owned(), "a".into()))),
            key_of(|r| r.asking.pull = PullPolicy::Always),
            key_of(|r| r.asking.pull = PullPolicy::Newer),
            key_of(|r| r.frontend.no_cache = NoCache::All),
            key_of(|r| r.frontend.no_cache = NoCache::Stages(vec!["a".to_owned()])),
            key_of(|r| {
                drop(
                    r.frontend
                        .named_contexts
                        .insert("n".to_owned(), NamedContext::Git("https://h/a.git".to_owned())),
                )
            }),
            key_of(|r| {
                r.outputs.push(Output::Image { store: true, push: Some(Push::default()), form: form() })
            }),
            key_of(|r| r.outputs.push(Output::Oci { to: stdout(), archive: true, form: form() })),
            key_of(|r| r.outputs.push(Output::Docker { to: stdout(), form: form() })),
            key_of(|r| {
                let to = Destination::Path("a".into());
                r.outputs.push(Output::Oci { to, archive: false, form: form() });
            }),
            key_of(|r| r.outputs.push(Output::DockerEngine { context: None, form: form() })),
            key_of(|r| {
                let (to, epoch) = (stdout(), OutputEpoch::OfBuild);
                r.outputs.push(Output::Tar { to, platform_split: None, epoch });
            }),
        ]
        .into_iter()
        .enumerate()
        {
            assert_eq!(key, None, "{at}");
        }
    }
}
