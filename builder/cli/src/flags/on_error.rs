//! `--on-error`: what is done when a step fails.

use super::BadFlag;

/// What is done when a step fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnError {
    /// The build does, too.
    Fail,
    /// A shell is opened in it before.
    Shell,
}

/// Reads a value of `--on-error`.
pub fn on_error(text: &str) -> Result<OnError, BadFlag> {
    match text {
        "fail" => Ok(OnError::Fail),
        "shell" => Ok(OnError::Shell),
        _ => Err(BadFlag::new("--on-error", text, "expected fail or shell", "--on-error=shell")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_words_are_read_and_no_others() {
        assert_eq!(on_error("fail"), Ok(OnError::Fail));
        assert_eq!(on_error("shell"), Ok(OnError::Shell));
        for text in ["", "Shell", "shell:bash", "continue"] {
            assert!(on_error(text).is_err(), "{text}");
        }
    }
}
