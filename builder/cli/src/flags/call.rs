//! `--call METHOD[,format=text|json][,ignorestatus=true]` and `--check`.

use super::{BadFlag, csv};

/// What is done with a Dockerfile instead of building it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// What is asked.
    pub method: Method,
    /// Whether the answer is JSON.
    pub json: bool,
    /// Whether broken rules leave the exit status alone.
    pub ignore_status: bool,
}

/// What can be asked of a Dockerfile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Which rules it breaks.
    Check,
    /// What the target takes.
    Outline,
    /// What can be built.
    Targets,
    /// What can be asked.
    Describe,
}

/// Reads both flags; `None` is a build.
pub fn call(check: bool, text: Option<&str>) -> Result<Option<Call>, BadFlag> {
    let bad = |why: &str| BadFlag::new("--call", text.unwrap_or_default(), why, "--call=check,format=json");
    let mut call = Call { method: Method::Check, json: false, ignore_status: false };
    let mut name: Option<String> = None;
    for field in csv::fields(text.unwrap_or_default()).map_err(|why| bad(&why))? {
        match field.split_once('=') {
            Some(("format", "json")) => call.json = true,
            Some(("format", "text" | "")) => call.json = false,
            Some(("format", other)) => return Err(bad(&format!("there is no format `{other}`: text, json"))),
            Some(("ignorestatus", value)) => match value {
                "true" | "1" => call.ignore_status = true,
                "false" | "0" => call.ignore_status = false,
                other => return Err(bad(&format!("`{other}` is neither true nor false"))),
            },
            Some((key, _)) => return Err(bad(&format!("there is no key `{key}`: format, ignorestatus"))),
            None if name.is_some() => return Err(bad("only one method can be called")),
            None => name = Some(field).filter(|name| !name.is_empty()),
        }
    }
    let method = match name.as_deref() {
        None | Some("build") => None,
        Some("check" | "lint") => Some(Method::Check),
        Some("outline") => Some(Method::Outline),
        Some("targets") => Some(Method::Targets),
        Some("subrequests.describe") => Some(Method::Describe),
        Some(other) => {
            let methods = "build, check, outline, targets, subrequests.describe";
            return Err(bad(&format!("there is no method `{other}`: {methods}")));
        }
    };
    match (check, method) {
        (true, Some(Method::Check) | None) => Ok(Some(call)),
        (true, Some(_)) => Err(bad("`--check` asks for another method")),
        (false, method) => Ok(method.map(|method| Call { method, ..call })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_and_formats() {
        let plain = |method| Some(Call { method, json: false, ignore_status: false });
        for (check, text, expected) in [
            (false, None, None),
            (false, Some(""), None),
            (false, Some("build"), None),
            (false, Some("build,format=json"), None),
            (true, None, plain(Method::Check)),
            (true, Some("build"), plain(Method::Check)),
            (false, Some("lint"), plain(Method::Check)),
            (false, Some("outline,format=text"), plain(Method::Outline)),
            (false, Some("targets"), plain(Method::Targets)),
            (false, Some("subrequests.describe"), plain(Method::Describe)),
            (
                true,
                Some("format=json,check,ignorestatus=1"),
                Some(Call { method: Method::Check, json: true, ignore_status: true }),
            ),
        ] {
            assert_eq!(call(check, text), Ok(expected), "{check} {text:?}");
        }
        for (check, text) in [
            (true, "outline"),
            (false, "nothing"),
            (false, "check,targets"),
            (false, "check,format=xml"),
            (false, "check,ignorestatus=maybe"),
            (false, "check,color=no"),
            (false, "\"check"),
        ] {
            assert!(call(check, Some(text)).is_err(), "{check} {text}");
        }
    }
}
