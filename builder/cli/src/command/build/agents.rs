//! Agents for steps: that they are there is looked at before a build begins; keys are read when it has begun.

use std::{
    fs,
    io::{self, Read},
    os::unix::fs::FileTypeExt,
    path::Path,
    sync::Arc,
};

use ssh::{BadKey, Key, Keyring};
use zeroize::Zeroizing;

use crate::{
    failure::Failure,
    flags::{self, Ssh},
    machine::{self, AgentSource, Machine},
};

/// A key file takes no more than this, in bytes, as with BuildKit.
const LARGEST_KEY_BYTES: usize = 100 << 10;

/// Adds the agents of `--ssh`.
pub fn add(machine: &mut Machine, values: &[String]) -> Result<(), Failure> {
    let default_agent = machine::variable("SSH_AUTH_SOCK");
    for value in values {
        let asked = flags::ssh(value, default_agent.as_deref())?;
        let id = asked.id.clone();
        if machine.agents.insert(id.clone(), source(value, asked)?).is_some() {
            return Err(Failure::usage(format!("--ssh {value}: there are two agents with the id {id}")));
        }
    }
    Ok(())
}

/// What an agent's paths are: one socket, or files with keys.
fn source(flag: &str, asked: Ssh) -> Result<AgentSource, Failure> {
    let bad = |why: String| {
        let help = "--ssh default, --ssh ID=SOCKET or --ssh ID=KEY,KEY…";
        Failure::usage_with(format!("--ssh {flag}: {why}"), help)
    };
    let Ssh { id: _, paths, raw } = asked;
    let mut sockets = 0;
    for path in &paths {
        let found = fs::metadata(path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => bad(format!("there is no file {}", path.display())),
            _ => bad(format!("cannot look at {}: {error}", path.display())),
        })?;
        if found.is_dir() {
            return Err(bad(format!("{} is a folder", path.display())));
        }
        sockets += usize::from(found.file_type().is_socket());
    }
    match (sockets, paths.as_slice()) {
        (1, [path]) => Ok(AgentSource::Socket { path: path.clone(), raw }),
        (0, _) if raw => Err(bad("`raw` is for the socket of an agent, not for keys".to_owned())),
        (0, _) => Ok(AgentSource::Keys(paths)),
        _ => Err(bad("it can be one socket or some keys, not several sockets, nor both".to_owned())),
    }
}

/// Reads the keys of agents. To be done when what clones the steps has been forked: they see its memory.
pub fn read_keys(machine: &mut Machine) -> Result<(), Failure> {
    for (id, source) in &machine.agents {
        if let AgentSource::Keys(paths) = source {
            let keys = paths.iter().map(|path| key(path)).collect::<Result<_, _>>()?;
            machine.keyrings.insert(id.clone(), Arc::new(Keyring::new(keys)));
        }
    }
    Ok(())
}

fn key(path: &Path) -> Result<Key, Failure> {
    let shown = path.display().to_string();
    let unreadable = |error: io::Error| Failure::usage(format!("--ssh: cannot read {shown}: {error}"));
    let mut bytes = Zeroizing::new(Vec::with_capacity(LARGEST_KEY_BYTES + 64));
    let file = fs::File::open(path).map_err(unreadable)?;
    file.take(LARGEST_KEY_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let key = match bytes.len() {
        0..=LARGEST_KEY_BYTES => Key::parse(&bytes, &name),
        _ => Err(BadKey::NoKey),
    };
    key.map_err(|why| {
        let help = match &why {
            BadKey::Encrypted => format!("eval $(ssh-agent); ssh-add {shown}; then --ssh default"),
            BadKey::Public => format!("--ssh default={}", shown.trim_end_matches(".pub")),
            BadKey::Kind(_) => "ssh-keygen -t ed25519".to_owned(),
            BadKey::NoKey | BadKey::Damaged => format!("ssh-keygen -y -f {shown}, which reads the key too"),
        };
        Failure::usage_with(format!("--ssh: cannot use {shown}: {why}"), help)
    })
}
