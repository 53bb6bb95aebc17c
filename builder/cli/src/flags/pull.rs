//! `--pull`: Docker's flag, and the words that buildah has for it.

use engine::PullPolicy;

use super::BadFlag;

/// When registries are asked for base images.
pub fn pull(text: &str) -> Result<PullPolicy, BadFlag> {
    Ok(match text.to_lowercase().as_str() {
        "true" | "t" | "1" | "always" => PullPolicy::Always,
        "false" | "f" | "0" | "missing" | "ifmissing" => PullPolicy::Missing,
        "newer" | "ifnewer" => PullPolicy::Newer,
        "never" => PullPolicy::Never,
        _ => {
            let why = "expected always, missing, newer or never, or true or false as Docker has it";
            return Err(BadFlag::new("--pull", text, why, "--pull=always"));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dockers_and_buildahs_words_are_read() {
        for (text, policy) in [
            ("true", PullPolicy::Always),
            ("always", PullPolicy::Always),
            ("False", PullPolicy::Missing),
            ("missing", PullPolicy::Missing),
            ("newer", PullPolicy::Newer),
            ("never", PullPolicy::Never),
        ] {
            assert_eq!(pull(text), Ok(policy), "{text}");
        }
        for text in ["", "maybe", "always,never"] {
            assert!(pull(text).is_err(), "{text}");
        }
    }
}
