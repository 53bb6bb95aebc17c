//! From PID 1 to the running command.
//!
//! The seccomp filter goes right before [`Call::SetIds`]: without `no_new_privs`, which would break `sudo`, installing
//! one needs CAP_SYS_ADMIN, and everything after it must be allowed by it.

use std::ffi::{CString, OsStr};
use std::os::unix::ffi::OsStrExt;

use super::{Planner, absolute, c_string};
use crate::emulate::{self, Emulated};
use crate::{Call, CapabilitySet, Error, Filter, Ids, Resource, ResourceLimit, Spec};

/// What new files do not get, whatever the caller's mask is.
pub(super) const MASK: u32 = 0o022;

impl Planner<'_> {
    pub(super) fn add_process(&mut self) -> Result<(), Error> {
        let spec = self.spec;
        let (uid, gid) = (self.on_disk(spec.user.uid), self.on_disk(spec.user.gid));
        self.calls.push(Call::SetHostName { name: spec.hostname.clone() });
        let emulated = spec.emulates() == Some(Emulated::Owners);
        if self.terminal.is_none() && uid != 0 {
            self.calls.push(Call::OwnStreams { uid });
        }
        self.calls.extend([
            Call::JoinSessionKeyring,
            Call::Spawn,
            Call::NewSession { terminal: self.terminal.is_some() },
            Call::PlaceStreams,
            Call::EnterWorkingDirectory { path: absolute("the working directory", &spec.cwd)? },
        ]);
        // They are the step's, not its first process's, which needs a few descriptors; raising one needs a capability.
        // Where owners are emulated one of them says who a process is, see there.
        let is_free = |limit: &&ResourceLimit| !emulated || limit.resource != Resource::Rttime;
        self.calls.extend(spec.limits.iter().filter(is_free).map(|limit| Call::Limit(*limit)));
        self.calls.push(Call::BoundCapabilities { keep: spec.capabilities });
        // Who has one id may neither take groups nor drop them.
        if spec.mode.ids != Ids::Single {
            self.calls.push(Call::SetGroups { gids: spec.user.additional_gids.clone() });
        }
        if spec.filter_calls && self.kernel.seccomp {
            let filter = Filter::docker_default(spec.capabilities);
            self.calls.extend(filter.map(|filter| Call::InstallFilter { filter }));
        }
        if emulated {
            // From here on calls about ids are answered, as of the step's user. What the kernel knows is root, whose
            // capabilities are bounded when the program starts.
            let filter = emulate::filter(spec.user.uid == 0);
            let filter =
                filter.ok_or(Error::Unsupported { what: "seccomp user notification", since: "5.19" })?;
            self.calls.push(Call::InstallListener { filter, optional: false });
        } else {
            if spec.emulates() == Some(Emulated::Devices) {
                let filter = emulate::devices::filter();
                self.calls.extend(filter.map(|filter| Call::InstallListener { filter, optional: true }));
            }
            self.set_ids(uid, gid);
        }
        self.calls.extend([Call::SetMask { mask: MASK }, Call::CloseOthers, exec(spec)?]);
        Ok(())
    }

    fn set_ids(&mut self, uid: u32, gid: u32) {
        let spec = self.spec;
        self.calls.push(Call::SetIds { uid, gid });
        if uid == 0 {
            let is_root = spec.user.uid == 0;
            let keep = if is_root { spec.capabilities } else { CapabilitySet::EMPTY };
            self.calls.push(Call::SetCapabilities { keep });
        }
    }
}

pub(super) fn exec(spec: &Spec) -> Result<Call, Error> {
    let program = spec.argv.first().ok_or(Error::NoCommand)?;
    let secret = spec.secret_env.iter().rev().find(|(name, _)| name == "PATH");
    let plain = spec.env.iter().rev().find(|(name, _)| name == "PATH");
    let search = secret
        .map(|(_, value)| OsStr::from_bytes(value))
        .or_else(|| plain.map(|(_, value)| value.as_os_str()));
    let argv =
        spec.argv.iter().map(|argument| c_string("an argument", argument)).collect::<Result<_, _>>()?;
    let plain = spec.env.iter().map(|(name, value)| variable(name, value.as_bytes()));
    let secret = spec.secret_env.iter().map(|(name, value)| variable(name, value));
    Ok(Call::Exec {
        candidates: candidates(program, search)?,
        argv,
        env: plain.chain(secret).collect::<Result<_, _>>()?,
    })
}

/// A variable as a program gets it. Its value, which may be a secret, is copied once, and told in no error.
fn variable(name: &OsStr, value: &[u8]) -> Result<CString, Error> {
    let nul = || Error::Nul { what: "the value of environment variable", value: format!("{name:?}") };
    if value.contains(&0) {
        return Err(nul());
    }
    // With room for the `=` and the NUL: what grows, or shrinks, leaves a copy behind.
    let mut text = Vec::with_capacity(name.len() + value.len() + 2);
    text.extend(name.as_bytes());
    text.push(b'=');
    text.extend(value);
    CString::new(text).map_err(|_| nul())
}

/// Where the program may be: itself with a slash in it, otherwise each folder of the search path.
fn candidates(program: &OsStr, search: Option<&OsStr>) -> Result<Vec<CString>, Error> {
    if program.is_empty() || program.as_bytes().contains(&b'/') {
        return Ok(vec![c_string("the command", program)?]);
    }
    let search = search.unwrap_or(OsStr::new(Spec::DEFAULT_PATH));
    search
        .as_bytes()
        .split(|byte| *byte == b':')
        .map(|folder| {
            let mut path = if folder.is_empty() { b".".to_vec() } else { folder.to_vec() };
            path.push(b'/');
            path.extend(program.as_bytes());
            c_string("the command", OsStr::from_bytes(&path))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_search_path_is_used_only_without_a_slash() {
        let table: [(&str, Option<&str>, &[&str]); 5] = [
            ("sh", Some("/a:/b"), &["/a/sh", "/b/sh"]),
            ("sh", Some("/a::b"), &["/a/sh", "./sh", "b/sh"]),
            ("./sh", Some("/a"), &["./sh"]),
            ("/bin/sh", None, &["/bin/sh"]),
            ("", Some("/a"), &[""]),
        ];
        for (program, search, expected) in table {
            let found = candidates(program.as_ref(), search.map(OsStr::new)).expect("there is no NUL");
            let found: Vec<&str> = found.iter().map(|path| path.to_str().expect("UTF-8")).collect();
            assert_eq!(found, expected, "{program} in {search:?}");
        }
        assert_eq!(candidates("sh".as_ref(), None).expect("there is no NUL").len(), 6);
    }
}
