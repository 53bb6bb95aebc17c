//! What digests are made of.
//!
//! An operation is written as a list of named [`Ingredient`]s; the same list makes the digest and tells people why a
//! step ran again. Every field is named, with no `..`: a new field does not compile until someone has
//! decided here whether it changes the result. When in doubt, it does.
//!
//! | Ingredient                                             | in the digest |
//! |--------------------------------------------------------|---------------|
//! | operation, arguments, environment, folder, user        | yes           |
//! | platform of a process; not of files that are copied    | yes           |
//! | manifest digest of a base, and the platform asked for  | yes           |
//! | the name that a base was asked by                      | no            |
//! | ids of secrets, agents and caches                      | yes           |
//! | whether a cache is shared                              | no            |
//! | proxies, addresses of extra hosts, limits              | no            |
//! | line numbers, stage names, instruction texts           | no            |

use std::fmt;

use oci::{Digest, Hasher};

use crate::{
    ActionInput, Chmod, ChmodOperator, Copy, Exec, FileAction, FileOp, Git, GitMtime, Http, Local, Mount,
    MountKind, Network, OciLayout, Op, Owner, OwnerName, Security, Source,
};

/// One thing that a digest depends on: a name for people and a value that is unambiguous.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ingredient {
    /// `command`, `env CC`, `mount /src`, ….
    pub name: String,
    /// The value as text.
    pub value: String,
}

impl Ingredient {
    /// An ingredient of these two.
    pub fn new(name: impl Into<String>, value: impl Into<String>) -> Ingredient {
        Ingredient { name: name.into(), value: value.into() }
    }

    /// The digest of a list: names and values, each behind its length.
    pub fn digest(list: &[Ingredient]) -> Digest {
        let mut hasher = Hasher::new();
        for ingredient in list {
            hasher.field(ingredient.name.as_bytes());
            hasher.field(ingredient.value.as_bytes());
        }
        hasher.finish()
    }
}

/// Names what was asked: an operation and all that is below it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VertexDigest(Digest);

/// Names an operation, whatever its inputs are.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OpDigest(Digest);

impl VertexDigest {
    /// The digest of an operation on these (vertex, output) inputs.
    pub fn of(op: &Op, inputs: &[(VertexDigest, u32)]) -> VertexDigest {
        let mut hasher = Hasher::new();
        hasher.field(OpDigest::of(op).0.raw());
        for (vertex, output) in inputs {
            hasher.field(vertex.0.raw());
            hasher.field(&output.to_be_bytes());
        }
        VertexDigest(hasher.finish())
    }

    /// The bare digest.
    pub fn digest(&self) -> Digest {
        self.0
    }
}

impl OpDigest {
    /// The digest of an operation.
    pub fn of(op: &Op) -> OpDigest {
        OpDigest(Ingredient::digest(&ingredients(op)))
    }

    /// The bare digest.
    pub fn digest(&self) -> Digest {
        self.0
    }
}

impl fmt::Debug for VertexDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VertexDigest({})", self.0.short())
    }
}

impl fmt::Display for VertexDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for OpDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OpDigest({})", self.0.short())
    }
}

/// All that an operation depends on, besides its inputs.
pub fn ingredients(op: &Op) -> Vec<Ingredient> {
    // Raise the number when the meaning of a field changes: old records then miss.
    let kind = |name: &str| vec![Ingredient::new("operation", format!("{name} 1"))];
    match op {
        Op::Source(source) => {
            let mut list = kind("source");
            list.push(Ingredient::new("source", source_line(source)));
            list
        }
        Op::Exec(exec) => {
            let mut list = kind("exec");
            add_exec(&mut list, exec);
            list
        }
        Op::File(FileOp { actions }) => {
            let mut list = kind("file");
            let numbered = actions.iter().enumerate();
            list.extend(
                numbered.map(|(i, action)| Ingredient::new(format!("action {i}"), action_line(action))),
            );
            list
        }
        Op::Merge => kind("merge"),
        Op::Diff => kind("diff"),
    }
}

/// Text of the form `name="value" name="value"`, with quotes and backslashes escaped, so that no two lists of
/// fields give one text.
#[derive(Default)]
struct Line(String);

impl Line {
    fn start(kind: &str) -> Line {
        Line(kind.to_owned())
    }

    fn text(mut self, name: &str, value: &str) -> Line {
        let escaped = value.replace('\\', "\\\\").replace('"', "\\\"");
        self.0.push_str(&format!(" {name}=\"{escaped}\""));
        self
    }

    /// An address. Records show ingredients, so a login in front of the host is replaced by a digest: another login may be given another
    /// content.
    fn address(self, name: &str, value: &str) -> Line {
        let split = value.split_once("://").and_then(|(scheme, rest)| {
            let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
            let at = rest[..end].rfind('@')?;
            Some((scheme, &rest[..at], &rest[at + 1..]))
        });
        let web = |scheme: &str| ["http", "https"].iter().any(|web| scheme.eq_ignore_ascii_case(web));
        match split {
            Some((scheme, login, rest)) if web(scheme) || login.contains(':') => self
                .text(name, &format!("{scheme}://{rest}"))
                .text("login", &Digest::of(value.as_bytes()).to_string()),
            _ => self.text(name, value),
        }
    }

    fn number(self, name: &str, value: u64) -> Line {
        self.text(name, &value.to_string())
    }

    fn octal(self, name: &str, value: u32) -> Line {
        self.text(name, &format!("{value:o}"))
    }

    fn flag(self, name: &str, value: bool) -> Line {
        if value { self.text(name, "yes") } else { self }
    }

    fn maybe(self, name: &str, value: Option<String>) -> Line {
        match value {
            Some(value) => self.text(name, &value),
            None => self,
        }
    }

    fn list<'a>(self, name: &str, values: impl IntoIterator<Item = &'a String>) -> Line {
        values.into_iter().fold(self, |line, value| line.text(name, value))
    }
}

fn source_line(source: &Source) -> String {
    let image = |manifest: Digest, platform: &oci::Platform| {
        Line::start("image").text("manifest", &manifest.to_string()).text("platform", &platform.to_string())
    };
    let line = match source {
        Source::Image { image: pinned, platform } => image(pinned.manifest(), platform),
        // The same manifest is the same image, wherever its blobs were read.
        Source::OciLayout(OciLayout { store: _names_no_content, manifest, platform }) => {
            image(*manifest, platform)
        }
        Source::Local(Local { name, reaches, ignore }) => {
            Line::start("local").text("name", name).list("reaches", reaches).list("ignore", ignore)
        }
        Source::Git(git) => git_line(git),
        Source::Http(Http { url, checksum, file_name }) => Line::start("http")
            .address("url", url)
            .text("file", file_name)
            .maybe("checksum", checksum.map(|checksum| checksum.to_string())),
    };
    line.0
}

fn git_line(git: &Git) -> Line {
    let Git { remote, reference, commit, subfolder, keep_git_dir, submodules, mtime, fetch_by_commit } = git;
    Line::start("git")
        .address("remote", remote)
        .text("reference", reference)
        .maybe("commit", commit.clone())
        .text("subfolder", subfolder)
        .flag("keep-git-dir", *keep_git_dir)
        .flag("skip-submodules", !submodules)
        .flag("mtime-of-commit", *mtime == GitMtime::Commit)
        .flag("fetch-by-commit", *fetch_by_commit)
}

fn add_exec(list: &mut Vec<Ingredient>, exec: &Exec) {
    let Exec {
        args,
        platform,
        env,
        cwd,
        user,
        hostname,
        network,
        security,
        mounts,
        secret_env,
        extra_hosts,
        proxy_env: _never_changes_a_result,
        resources: _never_change_a_result,
        ulimits: _neither,
        shm_size_bytes: _nor_this,
    } = exec;
    list.push(Ingredient::new("command", Line::default().list("arg", args).0));
    list.push(Ingredient::new("platform", platform.to_string()));
    for assignment in env {
        let (name, value) = assignment.split_once('=').unwrap_or((assignment, ""));
        list.push(Ingredient::new(format!("env {name}"), value));
    }
    list.push(Ingredient::new("folder", cwd));
    list.push(Ingredient::new("user", user));
    list.push(Ingredient::new("host name", hostname));
    let network = match network {
        Network::Default => "default",
        Network::None => "none",
        Network::Host => "host",
    };
    list.push(Ingredient::new("network", network));
    let security = match security {
        Security::Sandbox => "sandbox",
        Security::Insecure => "insecure",
    };
    list.push(Ingredient::new("security", security));
    list.extend(mounts.iter().map(|m| Ingredient::new(format!("mount {}", m.target), mount_line(m))));
    for secret in secret_env {
        let line = Line::default().text("id", &secret.id).flag("required", secret.required);
        list.push(Ingredient::new(format!("secret env {}", secret.name), line.0));
    }
    list.extend(extra_hosts.iter().map(|extra| Ingredient::new("extra host", &extra.host)));
}

fn mount_line(mount: &Mount) -> String {
    let Mount { target: _is_the_name, input, selector, readonly, kind, output } = mount;
    let line = match kind {
        MountKind::Bind => Line::start("bind"),
        MountKind::Cache { id, sharing: _not_what_is_in_it, mode, uid, gid } => {
            owned(Line::start("cache").text("id", id), *mode, *uid, *gid)
        }
        MountKind::Tmpfs { size_bytes } => {
            Line::start("tmpfs").maybe("size", size_bytes.map(|size| size.to_string()))
        }
        MountKind::Secret { id, mode, uid, gid, required } => {
            owned(Line::start("secret").text("id", id), *mode, *uid, *gid).flag("required", *required)
        }
        MountKind::Ssh { id, mode, uid, gid, required } => {
            owned(Line::start("ssh").text("id", id), *mode, *uid, *gid).flag("required", *required)
        }
    };
    line.maybe("input", input.map(|input| input.to_string()))
        .text("selector", selector)
        .flag("readonly", *readonly)
        .maybe("output", output.map(|output| output.to_string()))
        .0
}

fn owned(line: Line, mode: u32, uid: u32, gid: u32) -> Line {
    line.octal("mode", mode).number("uid", u64::from(uid)).number("gid", u64::from(gid))
}

fn action_line(action: &FileAction) -> String {
    let line = match action {
        FileAction::Copy { on, from, copy } => {
            copy_line(Line::start("copy").text("on", &input_text(*on)).text("from", &input_text(*from)), copy)
        }
        FileAction::MakeDirectory { on, path, mode, make_parents, owner } => Line::start("mkdir")
            .text("on", &input_text(*on))
            .text("path", path)
            .octal("mode", *mode)
            .flag("parents", *make_parents)
            .maybe("owner", owner.as_ref().map(owner_text)),
        FileAction::MakeFile { on, path, mode, data, owner } => Line::start("mkfile")
            .text("on", &input_text(*on))
            .text("path", path)
            .octal("mode", *mode)
            .text("data", &Digest::of(data).to_string())
            .maybe("owner", owner.as_ref().map(owner_text)),
        FileAction::Remove { on, path, allow_missing, wildcard } => Line::start("rm")
            .text("on", &input_text(*on))
            .text("path", path)
            .flag("allow-missing", *allow_missing)
            .flag("wildcard", *wildcard),
        FileAction::Symlink { on, target, path, owner } => Line::start("symlink")
            .text("on", &input_text(*on))
            .text("target", target)
            .text("path", path)
            .maybe("owner", owner.as_ref().map(owner_text)),
    };
    line.0
}

fn copy_line(line: Line, copy: &Copy) -> Line {
    let Copy {
        source,
        destination,
        owner,
        chmod,
        follow_symlink,
        contents_only,
        unpack,
        create_destination,
        wildcard,
        allow_empty_wildcard,
        parents,
        exclude,
    } = copy;
    line.text("source", source)
        .text("destination", destination)
        .maybe("owner", owner.as_ref().map(owner_text))
        .maybe("chmod", chmod.as_ref().map(chmod_text))
        .maybe("unpack", unpack.map(|unpack| if unpack { "yes" } else { "no" }.to_owned()))
        .flag("follow-symlink", *follow_symlink)
        .flag("contents-only", *contents_only)
        .flag("create-destination", *create_destination)
        .flag("wildcard", *wildcard)
        .flag("allow-empty-wildcard", *allow_empty_wildcard)
        .flag("parents", *parents)
        .list("exclude", exclude)
}

fn input_text(input: ActionInput) -> String {
    match input {
        ActionInput::Scratch => "scratch".to_owned(),
        ActionInput::Input(index) => format!("input {index}"),
        ActionInput::Action(index) => format!("action {index}"),
    }
}

fn owner_text(owner: &Owner) -> String {
    let Owner { user, group } = owner;
    let name = |name: &OwnerName| match name {
        OwnerName::Id(id) => Line::start("id").number("id", u64::from(*id)).0,
        OwnerName::Name { name, of } => Line::start("name").text("name", name).text("of", &input_text(*of)).0,
    };
    Line::start("owner").text("user", &name(user)).maybe("group", group.as_ref().map(name)).0
}

fn chmod_text(chmod: &Chmod) -> String {
    match chmod {
        Chmod::Octal(mode) => format!("{mode:o}"),
        Chmod::Symbolic(clauses) => {
            let clause = |clause: &crate::ChmodClause| {
                let operator = match clause.operator {
                    ChmodOperator::Add => '+',
                    ChmodOperator::Remove => '-',
                    ChmodOperator::Set => '=',
                };
                format!("{}{operator}{}", clause.who, clause.permissions)
            };
            clauses.iter().map(clause).collect::<Vec<_>>().join(",")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_cannot_forge_a_field() {
        let one = Line::default().text("a", "x\" b=\"y");
        let two = Line::default().text("a", "x").text("b", "y");
        assert_ne!(one.0, two.0);
    }

    #[test]
    fn a_login_is_in_no_ingredient_but_tells_sources_apart() {
        let line = |url: &str| {
            source_line(&Source::Http(Http {
                url: url.to_owned(),
                checksum: None,
                file_name: "f".to_owned(),
            }))
        };
        for (url, shown) in [
            ("https://joe:hunter2@h/f", "url=\"https://h/f\" login="),
            ("https://hunter2@h/f?a@b", "url=\"https://h/f?a@b\" login="),
            ("https://h/f@hunter2", "url=\"https://h/f@hunter2\" file="),
        ] {
            assert!(line(url).contains(shown), "{}", line(url));
        }
        assert!(!line("https://joe:hunter2@h/f").contains("hunter2"));
        assert_ne!(line("https://joe:hunter2@h/f"), line("https://ann:hunter2@h/f"));
        assert_ne!(line("https://joe:hunter2@h/f"), line("https://h/f"));
    }

    #[test]
    fn a_changed_variable_is_named() {
        let exec = |value: &str| {
            let exec = Exec {
                args: vec!["make".to_owned()],
                platform: oci::Platform::new("linux", "amd64", None),
                env: vec![format!("CC={value}")],
                cwd: "/".to_owned(),
                user: String::new(),
                hostname: String::new(),
                network: Network::Default,
                security: Security::Sandbox,
                mounts: Vec::new(),
                secret_env: Vec::new(),
                extra_hosts: Vec::new(),
                proxy_env: std::collections::BTreeMap::new(),
                resources: crate::Resources::default(),
                ulimits: Vec::new(),
                shm_size_bytes: None,
            };
            Op::Exec(Box::new(exec))
        };
        let (before, after) = (exec("gcc"), exec("clang"));
        assert_ne!(OpDigest::of(&before), OpDigest::of(&after));
        let changed: Vec<String> = ingredients(&before)
            .into_iter()
            .zip(ingredients(&after))
            .filter_map(|(a, b)| (a != b).then_some(a.name))
            .collect();
        assert_eq!(changed, ["env CC"]);
    }
}
