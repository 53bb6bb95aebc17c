//! `STOPSIGNAL`, after expansion.

use thiserror::Error;

/// A text that names no signal.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("`{text}` is not a signal: a number from 1, or a name like `SIGTERM`")]
pub struct SignalError {
    /// The text.
    pub text: String,
}

/// Linux' names but for `RTMIN+n` and `RTMAX-n`, without `SIG`.
const NAMES: [(&str, u32); 36] = [
    ("ABRT", 6),
    ("ALRM", 14),
    ("BUS", 7),
    ("CHLD", 17),
    ("CLD", 17),
    ("CONT", 18),
    ("FPE", 8),
    ("HUP", 1),
    ("ILL", 4),
    ("INT", 2),
    ("IO", 29),
    ("IOT", 6),
    ("KILL", 9),
    ("PIPE", 13),
    ("POLL", 29),
    ("PROF", 27),
    ("PWR", 30),
    ("QUIT", 3),
    ("SEGV", 11),
    ("STKFLT", 16),
    ("STOP", 19),
    ("SYS", 31),
    ("TERM", 15),
    ("TRAP", 5),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("UNUSED", 31),
    ("URG", 23),
    ("USR1", 10),
    ("USR2", 12),
    ("VTALRM", 26),
    ("WINCH", 28),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("RTMIN", REAL_TIME.0),
];

/// The real-time signals that programs may use: the C library keeps 32 and 33.
const REAL_TIME: (u32, u32) = (34, 64);

/// Reads a signal: its number on Linux, or its name in any case, with or without `SIG`.
///
/// The image config holds the text as it was given, so the number is for who wants to know it.
///
/// # Errors
/// [`SignalError`] for any other text, and for 0.
pub fn parse(text: &str) -> Result<u32, SignalError> {
    let error = || SignalError { text: text.to_owned() };
    if let Ok(number) = text.parse::<i32>() {
        return u32::try_from(number).ok().filter(|number| *number > 0).ok_or_else(error);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some((_, number)) = NAMES.iter().find(|(known, _)| *known == name) {
        return Ok(*number);
    }
    let (first, last) = REAL_TIME;
    let number = match (name.strip_prefix("RTMIN+"), name.strip_prefix("RTMAX-")) {
        (Some(above), _) => above.parse::<u32>().ok().and_then(|above| first.checked_add(above)),
        (_, Some(below)) => below.parse::<u32>().ok().and_then(|below| last.checked_sub(below)),
        _ if name == "RTMAX" => Some(last),
        _ => None,
    };
    number.filter(|number| (first..=last).contains(number)).ok_or_else(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals() {
        for (text, number) in [
            ("9", 9),
            ("SIGTERM", 15),
            ("term", 15),
            ("sigUsr1", 10),
            ("RTMIN", 34),
            ("SIGRTMIN+3", 37),
            ("RTMAX-1", 63),
        ] {
            assert_eq!(parse(text), Ok(number), "{text}");
        }
        for text in ["", "0", "-9", "SIG", "SIGSIGTERM", "TERMINATE", "RTMIN+99", "RTMAX-40", "$S"] {
            assert_eq!(parse(text), Err(SignalError { text: text.to_owned() }), "{text}");
        }
    }
}
