//! A graph as text, for people and for fixtures: one vertex a paragraph, stable from build to build.
//!
//! ```text
//! 1 local context
//!     reaches /src
//! 2 file on 0 1
//!     copy 1:/src to 0:/app/
//!     = [2/3] COPY src /app/
//! ```
//!
//! The number before a path is an input of the vertex, `@n` the result of an earlier action of it, `-` an empty tree.

use std::fmt::Write;

use graph::{
    ActionInput, CacheSharing, Chmod, ChmodOperator, Copy, Exec, FileAction, GitMtime, Graph, Mount,
    MountKind, Network, Op, Owner, OwnerName, Security, Source, Vertex,
};

/// The text of a whole graph, inputs before their users.
pub fn graph(graph: &Graph) -> String {
    let mut out = String::new();
    for id in graph.ids() {
        let vertex = graph.vertex(id);
        let _infallible = write!(out, "{} ", id.index());
        let body = op(vertex);
        let (head, rest) = body.split_once('\n').unwrap_or((&body, ""));
        out.push_str(head);
        if !vertex.inputs.is_empty() {
            out.push_str(" on");
            for edge in &vertex.inputs {
                let _infallible = write!(out, " {}", edge.vertex.index());
                if edge.output != 0 {
                    let _infallible = write!(out, ".{}", edge.output);
                }
            }
        }
        out.push('\n');
        for line in rest.lines() {
            let _infallible = writeln!(out, "    {line}");
        }
        let flags = if vertex.about.ignore_cache { " (ignores the cache)" } else { "" };
        let _infallible = writeln!(out, "    = {}{flags}", one_line(&vertex.about.name));
    }
    out
}

/// The operation: a line for the head, then its details.
fn op(vertex: &Vertex) -> String {
    match &vertex.op {
        Op::Source(source) => self::source(source),
        Op::Exec(exec) => self::exec(exec),
        Op::File(file) => {
            let lines: Vec<String> = file.actions.iter().map(action).collect();
            format!("file\n{}", lines.join("\n"))
        }
        Op::Merge => "merge".to_owned(),
        Op::Diff => "diff".to_owned(),
    }
}

fn source(source: &Source) -> String {
    match source {
        Source::Image { image, platform } => {
            format!("image {} {} {platform}", image.asked(), image.manifest())
        }
        Source::OciLayout(layout) => {
            format!("layout {} {} {}", layout.store, layout.manifest, layout.platform)
        }
        Source::Local(local) => {
            let mut text = format!("local {}", local.name);
            match local.reaches.is_empty() {
                true => text.push_str("\nreaches everything"),
                false => local.reaches.iter().for_each(|path| line(&mut text, "reaches", path)),
            }
            local.ignore.iter().for_each(|pattern| line(&mut text, "ignore", pattern));
            text
        }
        Source::Git(git) => {
            let mut text = format!("git {}", git.remote);
            line(&mut text, "reference", &git.reference);
            git.commit.iter().for_each(|commit| line(&mut text, "commit", commit));
            line(&mut text, "subfolder", &git.subfolder);
            if git.keep_git_dir {
                text.push_str("\nkeep .git");
            }
            if !git.submodules {
                text.push_str("\nwithout submodules");
            }
            if git.mtime == GitMtime::Commit {
                text.push_str("\ntimes of the commit");
            }
            if git.fetch_by_commit {
                text.push_str("\nnot asked for the reference");
            }
            text
        }
        Source::Http(http) => {
            let mut text = format!("http {}", http.url);
            line(&mut text, "file", &http.file_name);
            http.checksum.iter().for_each(|checksum| line(&mut text, "checksum", &checksum.to_string()));
            text
        }
    }
}

/// A text without line ends and other control characters.
fn one_line(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c.is_control() {
            true => out.extend(c.escape_debug()),
            false => out.push(c),
        }
    }
    out
}

/// Adds `name value`, unless the value is empty.
fn line(text: &mut String, name: &str, value: &str) {
    if !value.is_empty() {
        let _infallible = write!(text, "\n{name} {}", one_line(value));
    }
}

fn exec(exec: &Exec) -> String {
    let mut text = format!("exec {:?}", exec.args);
    line(&mut text, "platform", &exec.platform.to_string());
    exec.env.iter().for_each(|pair| line(&mut text, "env", pair));
    line(&mut text, "cwd", &exec.cwd);
    line(&mut text, "user", &exec.user);
    line(&mut text, "hostname", &exec.hostname);
    match exec.network {
        Network::Default => {}
        Network::None => text.push_str("\nnetwork none"),
        Network::Host => text.push_str("\nnetwork host"),
    }
    match exec.security {
        Security::Sandbox => {}
        Security::Insecure => text.push_str("\nsecurity insecure"),
    }
    exec.mounts.iter().for_each(|mount| line(&mut text, "mount", &self::mount(mount)));
    for secret in &exec.secret_env {
        let required = if secret.required { " required" } else { "" };
        line(&mut text, "secret", &format!("{} as ${}{required}", secret.id, secret.name));
    }
    exec.extra_hosts.iter().for_each(|host| line(&mut text, "host", &format!("{} {}", host.host, host.ip)));
    exec.proxy_env.iter().for_each(|(name, value)| line(&mut text, "proxy", &format!("{name}={value}")));
    exec.ulimits.iter().for_each(|u| line(&mut text, "ulimit", &format!("{}={}:{}", u.name, u.soft, u.hard)));
    exec.shm_size_bytes.iter().for_each(|size| line(&mut text, "shm", &size.to_string()));
    text
}

fn mount(mount: &Mount) -> String {
    let input = mount.input.map_or("-".to_owned(), |input| input.to_string());
    let kind = match &mount.kind {
        MountKind::Bind => format!("bind {input}:{}", mount.selector),
        MountKind::Cache { id, sharing, mode, uid, gid } => {
            let sharing = match sharing {
                CacheSharing::Shared => "shared",
                CacheSharing::Private => "private",
                CacheSharing::Locked => "locked",
            };
            format!("cache {id} {sharing} {mode:04o} {uid}:{gid} from {input}:{}", mount.selector)
        }
        MountKind::Tmpfs { size_bytes } => {
            size_bytes.map_or("tmpfs".to_owned(), |size| format!("tmpfs {size} bytes"))
        }
        MountKind::Secret { id, mode, uid, gid, required } => {
            format!("secret {id} {mode:04o} {uid}:{gid}{}", if *required { " required" } else { "" })
        }
        MountKind::Ssh { id, mode, uid, gid, required } => {
            format!("ssh {id} {mode:04o} {uid}:{gid}{}", if *required { " required" } else { "" })
        }
    };
    let access = if mount.readonly { "ro" } else { "rw" };
    let output = mount.output.map_or(String::new(), |output| format!(" to output {output}"));
    format!("{} {kind} {access}{output}", mount.target)
}

fn input(input: ActionInput) -> String {
    match input {
        ActionInput::Scratch => "-".to_owned(),
        ActionInput::Input(index) => index.to_string(),
        ActionInput::Action(index) => format!("@{index}"),
    }
}

fn action(action: &FileAction) -> String {
    match action {
        FileAction::Copy { on, from, copy } => self::copy(&input(*on), &input(*from), copy),
        FileAction::MakeDirectory { on, path, mode, make_parents, owner } => {
            let parents = if *make_parents { " with parents" } else { "" };
            format!("mkdir {}:{path} {mode:04o}{parents}{}", input(*on), self::owner(owner.as_ref()))
        }
        FileAction::MakeFile { on, path, mode, data, owner } => {
            let data = String::from_utf8_lossy(data);
            format!("mkfile {}:{path} {mode:04o}{} {data:?}", input(*on), self::owner(owner.as_ref()))
        }
        FileAction::Remove { on, path, allow_missing, wildcard } => {
            let missing = if *allow_missing { " if there" } else { "" };
            let wildcard = if *wildcard { " with wildcards" } else { "" };
            format!("rm {}:{path}{missing}{wildcard}", input(*on))
        }
        FileAction::Symlink { on, target, path, owner } => {
            format!("symlink {}:{path} to {target}{}", input(*on), self::owner(owner.as_ref()))
        }
    }
}

fn copy(on: &str, from: &str, copy: &Copy) -> String {
    let Copy { source, destination, owner, chmod, exclude, .. } = copy;
    let mut text = format!("copy {from}:{} to {on}:{}", one_line(source), one_line(destination));
    text.push_str(&self::owner(owner.as_ref()));
    if let Some(chmod) = chmod {
        let _infallible = write!(text, " mode {}", self::chmod(chmod));
    }
    for (set, word) in [
        (copy.follow_symlink, "follow"),
        (copy.contents_only, "contents"),
        (copy.create_destination, "create"),
        (copy.wildcard, "wildcard"),
        (copy.allow_empty_wildcard, "maybe-empty"),
        (copy.parents, "parents"),
        (copy.unpack == Some(true), "unpack"),
        (copy.unpack.is_none(), "unpack-archives"),
    ] {
        if set {
            let _infallible = write!(text, " {word}");
        }
    }
    for pattern in exclude {
        let _infallible = write!(text, " exclude {pattern:?}");
    }
    text
}

fn owner(owner: Option<&Owner>) -> String {
    let name = |name: &OwnerName| match name {
        OwnerName::Id(id) => id.to_string(),
        OwnerName::Name { name, of } => format!("{name} of {}", input(*of)),
    };
    match owner {
        None => String::new(),
        Some(Owner { user, group: None }) => format!(" owner {}", name(user)),
        Some(Owner { user, group: Some(group) }) => format!(" owner {}:{}", name(user), name(group)),
    }
}

fn chmod(chmod: &Chmod) -> String {
    match chmod {
        Chmod::Octal(mode) => format!("{mode:04o}"),
        Chmod::Symbolic(clauses) => {
            let clauses: Vec<String> = clauses
                .iter()
                .map(|clause| {
                    let operator = match clause.operator {
                        ChmodOperator::Add => '+',
                        ChmodOperator::Remove => '-',
                        ChmodOperator::Set => '=',
                    };
                    format!("{}{operator}{}", clause.who, clause.permissions)
                })
                .collect();
            clauses.join(",")
        }
    }
}
