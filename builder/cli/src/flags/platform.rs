//! `--platform OS/ARCHITECTURE[/VARIANT]`.

use dockerfile::near_platform;
use oci::Platform;

use super::BadFlag;

/// A platform; `local` is this machine's.
pub fn platform(text: &str) -> Result<Platform, BadFlag> {
    let text = text.trim();
    if text == "local" {
        return Ok(Platform::host());
    }
    text.parse().map_err(|_| {
        let meant = near_platform(text);
        let why = "expected os/architecture[/variant], or `local`";
        BadFlag::new(
            "--platform",
            text,
            why,
            format!("--platform {}", meant.as_deref().unwrap_or("linux/amd64")),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_meant_is_said() {
        assert_eq!(platform("local"), Ok(Platform::host()));
        assert_eq!(platform(" linux/arm64/v8 "), Ok(Platform::new("linux", "arm64", None)));
        for (text, help) in [
            ("amd46", "--platform linux/amd64"),
            ("linux/arm64/", "--platform linux/arm64"),
            ("linux//arm64", "--platform linux/arm64"),
            ("all of them", "--platform linux/amd64"),
        ] {
            let found = platform(text).map_err(|bad| bad.help);
            assert_eq!(found, Err(help.to_owned()), "{text}");
        }
    }
}
