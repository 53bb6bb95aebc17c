//! What is looked at of secrets before a build begins.

use std::{fs, io};

use crate::{failure::Failure, flags::SecretSource};

/// Whether a secret's file is there: a build that needs it last would say so last.
pub fn check(flag: &str, source: &SecretSource) -> Result<(), Failure> {
    let SecretSource::File(path) = source else { return Ok(()) };
    let help = "--secret id=token,src=token.txt";
    let why = match fs::metadata(path) {
        Ok(found) if found.is_dir() => format!("{} is a folder", path.display()),
        Ok(_) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            format!("there is no file {}", path.display())
        }
        Err(error) => format!("cannot look at {}: {error}", path.display()),
    };
    Err(Failure::usage_with(format!("--secret {flag}: {why}"), help))
}
