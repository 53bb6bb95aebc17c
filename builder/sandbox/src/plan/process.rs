//! From PID 1 to the running command.
//!
//! The seccomp filter goes right before [`Call::SetIds`]: without `no_new_privs`, which would break `sudo`, installing
//! one needs CAP_SYS_ADMIN, and everything after it must be allowed by it.

use std::ffi::{CString, OsStr};
use std::os::unix::ffi::OsStrExt;

use super::{Planner, absolute, c_string};
use crate::{Call, Error, Filter, Spec};

/// What new files do not get, whatever the caller's mask is.
const MASK: u32 = 0o022;

impl Planner<'_> {
    pub(super) fn add_process(&mut self) -> Result<(), Error> {
        let spec = self.spec;
        let (uid, gid) = (spec.user.uid, spec.user.gid);
        self.calls.push(Call::SetHostName { name: spec.hostname.clone() });
        self.calls.extend(spec.limits.iter().map(|limit| Call::Limit(*limit)));
        if self.terminal.is_none() && uid != 0 {
            self.calls.push(Call::OwnStreams { uid });
        }
        self.calls.extend([
            Call::JoinSessionKeyring,
            Call::Spawn,
            Call::NewSession { terminal: self.terminal.is_some() },
            Call::PlaceStreams,
            Call::EnterWorkingDirectory { path: absolute("the working directory", &spec.cwd)? },
            Call::BoundCapabilities { keep: spec.capabilities },
            Call::SetGroups { gids: spec.user.additional_gids.clone() },
        ]);
        if spec.filter_calls && self.kernel.seccomp {
            let filter = Filter::docker_default(spec.capabilities);
            self.calls.extend(filter.map(|filter| Call::InstallFilter { filter }));
        }
        self.calls.push(Call::SetIds { uid, gid });
        if uid == 0 {
            self.calls.push(Call::SetCapabilities { keep: spec.capabilities });
        }
        self.calls.extend([Call::SetMask { mask: MASK }, Call::CloseOthers, exec(spec)?]);
        Ok(())
    }
}

fn exec(spec: &Spec) -> Result<Call, Error> {
    let program = spec.argv.first().ok_or(Error::NoCommand)?;
    let search = spec.env.iter().rev().find(|(name, _)| name == "PATH").map(|(_, value)| value.as_os_str());
    let argv =
        spec.argv.iter().map(|argument| c_string("an argument", argument)).collect::<Result<_, _>>()?;
    let variable = |(name, value): &(std::ffi::OsString, std::ffi::OsString)| {
        let mut text = name.clone();
        text.push("=");
        text.push(value);
        // The value stays out of the error: it may be a secret.
        c_string("an environment variable", text)
            .map_err(|_| Error::Nul { what: "the value of environment variable", value: format!("{name:?}") })
    };
    Ok(Call::Exec {
        candidates: candidates(program, search)?,
        argv,
        env: spec.env.iter().map(variable).collect::<Result<_, _>>()?,
    })
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
