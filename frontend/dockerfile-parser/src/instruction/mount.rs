//! `RUN --mount=<options>`
//!
//! Options are read from left to right, and some are judged by the type that was named so far: `required` and `size`
//! before `type=` are errors. Values are expanded one by one, after the line was split at its commas, so a comma in a
//! variable splits nothing.

use crate::csv;
use crate::error::{ErrorKind, ParseError};
use crate::span::Span;
use crate::suggest::nearest;
use crate::word::{Word, has_variable};

/// A mount as written: its values are not expanded, and so not judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawMount {
    /// The options, comma-separated.
    pub text: Word,
}

/// A mount of a `RUN`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// What is mounted.
    pub kind: MountKind,
    /// Where it is written.
    pub span: Span,
}

/// The types of mounts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MountKind {
    /// `type=bind`, the default: files of the context, of a stage or of an image.
    Bind(BindMount),
    /// `type=cache`: a folder that outlives the build.
    Cache(CacheMount),
    /// `type=tmpfs`: an empty folder in memory.
    Tmpfs(TmpfsMount),
    /// `type=secret`: a file or variable that stays in no layer.
    Secret(SecretMount),
    /// `type=ssh`: a socket of an ssh agent.
    Ssh(SshMount),
}

/// Files of the context, of a stage or of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BindMount {
    /// The mount point as written, see [`Mount::target_in`].
    pub target: String,
    /// The path in `from`; empty for all of it.
    pub source: String,
    /// A stage's name, a named context or an image; `None` for the build context.
    pub from: Option<String>,
    /// Whether writing is refused; where not, what is written is thrown away.
    pub readonly: bool,
}

/// A folder that outlives the build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheMount {
    /// The mount point as written, see [`Mount::target_in`].
    pub target: String,
    /// The cache's name; `None` for the cleaned target.
    pub id: Option<String>,
    /// Who else may use it meanwhile.
    pub sharing: Sharing,
    /// The folder's permissions where it is made; `None` for 0755.
    pub mode: Option<u32>,
    /// The folder's owner where it is made; `None` for 0.
    pub uid: Option<u32>,
    /// The folder's group where it is made; `None` for 0.
    pub gid: Option<u32>,
    /// What is in it in the beginning: a stage's name, a named context or an image.
    pub from: Option<String>,
    /// The path in `from`; empty for all of it.
    pub source: String,
    /// Whether writing is refused.
    pub readonly: bool,
}

/// Who may use a cache at one time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Sharing {
    /// Any number of steps at once.
    #[default]
    Shared,
    /// One step; another one gets a cache of its own.
    Private,
    /// One step; another one waits.
    Locked,
}

/// An empty folder in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TmpfsMount {
    /// The mount point as written, see [`Mount::target_in`].
    pub target: String,
    /// How much it may hold; `None` for no limit of its own.
    pub size_bytes: Option<u64>,
    /// Whether writing is refused.
    pub readonly: bool,
}

/// A file or variable that stays in no layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretMount {
    /// Which secret: `id` or `source`, or else the last part of the target.
    pub id: String,
    /// The file: what is written, or `/run/secrets/<last part of id>`; `None` where only a variable was asked for.
    pub target: Option<String>,
    /// The variable that gets the value.
    pub env: Option<String>,
    /// Whether the step fails where there is no such secret; else it goes without.
    pub required: bool,
    /// The file's permissions; 0400 where nothing is said.
    pub mode: u32,
    /// The file's owner.
    pub uid: u32,
    /// The file's group.
    pub gid: u32,
}

/// A socket of an ssh agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SshMount {
    /// Which agent; `default` where nothing is said.
    pub id: String,
    /// The socket; `None` for `/run/buildkit/ssh_agent.<number>`.
    pub target: Option<String>,
    /// Whether the step fails where there is no such agent; else it goes without.
    pub required: bool,
    /// The socket's permissions; 0600 where nothing is said.
    pub mode: u32,
    /// The socket's owner.
    pub uid: u32,
    /// The socket's group.
    pub gid: u32,
}

impl MountKind {
    /// The names of the types.
    pub const NAMES: [&'static str; 5] = ["bind", "cache", "secret", "ssh", "tmpfs"];
}

impl RawMount {
    /// # Errors
    /// Options that are not comma-separated, and a variable in `from`.
    pub(super) fn new(text: Word) -> Result<RawMount, ParseError> {
        for field in fields(&text)? {
            if let Some((key, value)) = field.text.split_once('=')
                && key.eq_ignore_ascii_case("from")
                && has_variable(value)
            {
                let span = text.span_at(field.range.start, field.range.end);
                return Err(ParseError::new(ErrorKind::MountFromVariable, span));
            }
        }
        Ok(RawMount { text })
    }

    /// Expands each value and reads the options.
    ///
    /// # Errors
    /// What `expand` fails with, or a [`ParseError`] at the option that is wrong.
    pub fn resolve<E>(&self, expand: &mut dyn FnMut(&Word) -> Result<String, E>) -> Result<Mount, E>
    where
        E: From<ParseError>,
    {
        let mut options = Options::default();
        for field in fields(&self.text)? {
            let span = self.text.span_at(field.range.start, field.range.end);
            let (key, value) = match field.text.split_once('=') {
                None => (&*field.text, None),
                Some((key, value)) => {
                    // A field that is not quoted stands in the line letter by letter.
                    let start = field.range.end - value.len();
                    let place = if field.range.len() == field.text.len() {
                        self.text.span_at(start, field.range.end)
                    } else {
                        span
                    };
                    (key, Some(expand(&Word { text: value.to_owned(), span: place })?))
                }
            };
            options.set(&key.to_lowercase(), value).map_err(|kind| ParseError::new(kind, span))?;
        }
        let kind = options.finish().map_err(|kind| ParseError::new(kind, self.text.span))?;
        Ok(Mount { kind, span: self.text.span })
    }
}

fn fields(text: &Word) -> Result<Vec<csv::Field>, ParseError> {
    csv::fields(&text.text)
        .map_err(|reason| ParseError::new(ErrorKind::Csv { flag: "mount", reason }, text.span))
}

impl Mount {
    /// Reads options in which nothing is left to expand.
    ///
    /// # Errors
    /// The option that is wrong, at `span`.
    pub fn parse(text: &str, span: Span) -> Result<Mount, ParseError> {
        let raw = RawMount { text: Word { text: text.to_owned(), span } };
        raw.resolve(&mut |word| Ok(word.text.clone()))
    }

    /// The absolute, cleaned mount point: a relative one is below `workdir`, and so is an empty one. `None` for a
    /// secret or ssh mount that names none.
    ///
    /// # Errors
    /// A mount point that is `/`.
    pub fn target_in(&self, workdir: &str) -> Result<Option<String>, ParseError> {
        let target = match &self.kind {
            MountKind::Bind(BindMount { target, .. })
            | MountKind::Cache(CacheMount { target, .. })
            | MountKind::Tmpfs(TmpfsMount { target, .. }) => target,
            MountKind::Secret(SecretMount { target, .. }) | MountKind::Ssh(SshMount { target, .. }) => {
                match target {
                    Some(target) => target,
                    None => return Ok(None),
                }
            }
        };
        let mut parts: Vec<&str> = Vec::new();
        let below = if target.starts_with('/') { "" } else { workdir };
        for part in below.split('/').chain(target.split('/')) {
            match part {
                "" | "." => {}
                ".." => drop(parts.pop()),
                part => parts.push(part),
            }
        }
        if parts.is_empty() {
            return Err(ParseError::new(ErrorKind::MountTargetRoot, self.span));
        }
        Ok(Some(format!("/{}", parts.join("/"))))
    }
}

/// What was read so far. An option that is given twice counts the second time.
#[derive(Default)]
struct Options {
    kind: Kind,
    target: String,
    source: String,
    from: String,
    id: String,
    env: Option<String>,
    readonly: Option<bool>,
    required: bool,
    sharing: Option<Sharing>,
    size_bytes: Option<u64>,
    mode: Option<u32>,
    uid: Option<u32>,
    gid: Option<u32>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Kind {
    #[default]
    Bind,
    Cache,
    Tmpfs,
    Secret,
    Ssh,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Bind => "bind",
            Kind::Cache => "cache",
            Kind::Tmpfs => "tmpfs",
            Kind::Secret => "secret",
            Kind::Ssh => "ssh",
        }
    }
}

/// The options there are, for "did you mean".
const KEYS: [&str; 19] = [
    "destination",
    "dst",
    "env",
    "from",
    "gid",
    "id",
    "mode",
    "readonly",
    "readwrite",
    "required",
    "ro",
    "rw",
    "sharing",
    "size",
    "source",
    "src",
    "target",
    "type",
    "uid",
];

impl Options {
    /// Takes an option, its key in lower case.
    fn set(&mut self, key: &str, value: Option<String>) -> Result<(), ErrorKind> {
        let bad = |value: &str| ErrorKind::OptionValue {
            flag: "mount",
            key: key.to_owned(),
            value: value.to_owned(),
        };
        let boolean = |value: Option<String>| match value {
            None => Ok(true),
            Some(value) => csv::boolean(&value).ok_or_else(|| bad(&value)),
        };
        match key {
            "readonly" | "ro" => self.readonly = Some(boolean(value)?),
            "readwrite" | "rw" => self.readonly = Some(!boolean(value)?),
            "required" if matches!(self.kind, Kind::Secret | Kind::Ssh) => self.required = boolean(value)?,
            "required" => return Err(self.not_for_type("required")),
            _ if !KEYS.contains(&key) => {
                let suggestion = nearest(key, &KEYS).map(str::to_owned);
                return Err(ErrorKind::UnknownOption { flag: "mount", key: key.to_owned(), suggestion });
            }
            _ => {
                let missing = || ErrorKind::OptionWithoutValue { flag: "mount", key: key.to_owned() };
                self.set_value(key, value.ok_or_else(missing)?)?;
            }
        }
        Ok(())
    }

    fn set_value(&mut self, key: &str, value: String) -> Result<(), ErrorKind> {
        let bad = |value: &str| ErrorKind::OptionValue {
            flag: "mount",
            key: key.to_owned(),
            value: value.to_owned(),
        };
        let number = |radix| match value.bytes().all(|byte| byte.is_ascii_digit()) {
            true => u32::from_str_radix(&value, radix).map_err(|_| bad(&value)),
            false => Err(bad(&value)),
        };
        match key {
            "type" => self.kind = kind(value)?,
            "from" => self.from = value,
            "source" | "src" => self.source = value,
            "target" | "dst" | "destination" => self.target = value,
            "id" => self.id = value,
            "env" => self.env = Some(value),
            "sharing" => self.sharing = Some(sharing(&value).ok_or_else(|| bad(&value))?),
            "mode" => self.mode = Some(number(8)?),
            "uid" => self.uid = Some(number(10)?),
            "gid" => self.gid = Some(number(10)?),
            "size" if self.kind == Kind::Tmpfs => {
                self.size_bytes = Some(size(&value).ok_or_else(|| bad(&value))?)
            }
            "size" => return Err(self.not_for_type("size")),
            _ => return Err(bad(&value)),
        }
        Ok(())
    }

    fn not_for_type(&self, key: &'static str) -> ErrorKind {
        ErrorKind::OptionNotForType { key, kind: self.kind.name() }
    }

    /// Judges the options together and fills in what was not said.
    fn finish(self) -> Result<MountKind, ErrorKind> {
        let owned = [("mode", self.mode), ("uid", self.uid), ("gid", self.gid)];
        if matches!(self.kind, Kind::Bind | Kind::Tmpfs)
            && let Some((key, _)) = owned.into_iter().find(|(_, value)| value.is_some())
        {
            return Err(self.not_for_type(key));
        }
        if self.sharing.is_some() && self.kind != Kind::Cache {
            return Err(self.not_for_type("sharing"));
        }
        let some = |text: String| if text.is_empty() { None } else { Some(text) };
        Ok(match self.kind {
            Kind::Bind => MountKind::Bind(BindMount {
                target: self.target,
                source: self.source,
                from: some(self.from),
                readonly: self.readonly.unwrap_or(true),
            }),
            Kind::Cache => MountKind::Cache(CacheMount {
                target: self.target,
                id: some(self.id),
                sharing: self.sharing.unwrap_or_default(),
                mode: self.mode,
                uid: self.uid,
                gid: self.gid,
                from: some(self.from),
                source: self.source,
                readonly: self.readonly.unwrap_or(false),
            }),
            Kind::Tmpfs if names_below(&self.source) => return Err(self.not_for_type("source")),
            Kind::Tmpfs => MountKind::Tmpfs(TmpfsMount {
                target: self.target,
                // 0 is no limit, for the kernel too.
                size_bytes: self.size_bytes.filter(|bytes| *bytes > 0),
                readonly: self.readonly.unwrap_or(false),
            }),
            Kind::Secret => MountKind::Secret(self.secret()?),
            Kind::Ssh if !self.source.is_empty() => return Err(self.not_for_type("source")),
            Kind::Ssh => MountKind::Ssh(SshMount {
                id: some(self.id).unwrap_or_else(|| "default".to_owned()),
                target: some(self.target),
                required: self.required,
                mode: self.mode.unwrap_or(0o600),
                uid: self.uid.unwrap_or(0),
                gid: self.gid.unwrap_or(0),
            }),
        })
    }

    fn secret(self) -> Result<SecretMount, ErrorKind> {
        if !self.from.is_empty() {
            return Err(self.not_for_type("from"));
        }
        let id = match (&*self.source, &*self.id, &*self.target) {
            ("", "", "") => return Err(ErrorKind::SecretWithoutName),
            ("", "", target) => last_part(target).to_owned(),
            ("", id, _) => id.to_owned(),
            (source, "", _) => source.to_owned(),
            _ => return Err(ErrorKind::SecretSourceAndId),
        };
        let target = match &*self.target {
            "" if self.env.is_some() => None,
            "" => Some(format!("/run/secrets/{}", last_part(&id))),
            _ => Some(self.target),
        };
        Ok(SecretMount {
            id,
            target,
            env: self.env,
            required: self.required,
            mode: self.mode.unwrap_or(0o400),
            uid: self.uid.unwrap_or(0),
            gid: self.gid.unwrap_or(0),
        })
    }
}

fn kind(value: String) -> Result<Kind, ErrorKind> {
    Ok(match &*value.to_lowercase() {
        "bind" => Kind::Bind,
        "cache" => Kind::Cache,
        "tmpfs" => Kind::Tmpfs,
        "secret" => Kind::Secret,
        "ssh" => Kind::Ssh,
        _ => {
            let suggestion = nearest(&value, &MountKind::NAMES).map(str::to_owned);
            return Err(ErrorKind::MountType { value, suggestion });
        }
    })
}

fn sharing(value: &str) -> Option<Sharing> {
    match &*value.to_lowercase() {
        "shared" => Some(Sharing::Shared),
        "private" => Some(Sharing::Private),
        "locked" => Some(Sharing::Locked),
        _ => None,
    }
}

/// Whether a path leads below where it starts.
fn names_below(path: &str) -> bool {
    path.split('/').any(|part| !matches!(part, "" | "." | ".."))
}

/// The last part of a path (Go's `path.Base`).
fn last_part(path: &str) -> &str {
    match path.trim_end_matches('/') {
        "" => "/",
        path => path.rsplit_once('/').map_or(path, |(_, last)| last),
    }
}

/// Bytes as `docker` takes them: `1048576`, `64m`, `1.5 GiB`. Units are powers of 1024.
fn size(text: &str) -> Option<u64> {
    let end = text.rfind(|c: char| c.is_ascii_digit() || c == '.' || c == ' ')?;
    let number: f64 = text[..=end].strip_suffix(' ').unwrap_or(&text[..=end]).parse().ok()?;
    let unit = text[end + 1..].to_ascii_lowercase();
    let power = match unit.strip_suffix("ib").or(unit.strip_suffix('b')).unwrap_or(&unit) {
        "" if unit == "ib" => return None,
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return None,
    };
    let bytes = number * 1024_f64.powi(power);
    // Above this a float no longer counts single bytes, and no machine has as many.
    (0.0..=2_f64.powi(63)).contains(&bytes).then_some(bytes as u64)
}

#[cfg(test)]
#[path = "mount_tests.rs"]
mod tests;
