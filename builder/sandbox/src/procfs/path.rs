//! What a path of a step's means below `/proc`: decided by its text alone.

/// Something of `/proc`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Meant<'a> {
    pub of: Of,
    /// The path below that, without a slash at either end; empty is the folder itself.
    pub rest: &'a [u8],
    /// Whether the last name of the path is a link to this, and not this: `/proc/self`, `/dev/stdout`.
    pub is_link: bool,
}

/// Whose a part of `/proc` is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Of {
    /// The kernel's: the same for every process.
    Kernel,
    /// The process's that asks.
    Own,
    /// The process's that has this number.
    Process(u32),
}

/// Descriptors that have a name in `/dev`, as it is linked in every container.
const STREAMS: [(&[u8], &[u8]); 4] =
    [(b"fd", b"fd"), (b"stdin", b"fd/0"), (b"stdout", b"fd/1"), (b"stderr", b"fd/2")];

/// What an absolute path means; none for one that is not below `/proc`, or that goes up again.
pub(super) fn meant(path: &[u8]) -> Option<Meant<'_>> {
    let below = path.strip_prefix(b"/")?;
    let (first, rest) = split(below);
    let names = rest.split(|byte| *byte == b'/');
    // One that is written in another way than usual is left to the kernel, which finds copies of some files there.
    if names.clone().any(|name| name == b".." || name == b".") || rest.windows(2).any(|two| two == b"//") {
        return None;
    }
    let rest = rest.strip_suffix(b"/").unwrap_or(rest);
    let ends_with_slash = path.ends_with(b"/");
    match first {
        b"proc" => {
            let (second, below) = split(rest);
            let is_link = below.is_empty() && !ends_with_slash;
            match second {
                b"self" | b"thread-self" => Some(Meant { of: Of::Own, rest: below, is_link }),
                b"mounts" | b"net" => Some(Meant { of: Of::Own, rest, is_link }),
                _ => match number(second) {
                    Some(process) => Some(Meant { of: Of::Process(process), rest: below, is_link: false }),
                    None => Some(Meant { of: Of::Kernel, rest, is_link: false }),
                },
            }
        }
        b"dev" => {
            let stream = STREAMS.iter().find(|(name, _)| *name == rest);
            if let Some((_, descriptor)) = stream {
                return Some(Meant { of: Of::Own, rest: descriptor, is_link: !ends_with_slash });
            }
            rest.starts_with(b"fd/").then_some(Meant { of: Of::Own, rest, is_link: false })
        }
        _ => None,
    }
}

/// The first name, and what comes after it.
pub(super) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().position(|byte| *byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (path, b""),
    }
}

/// A number as `/proc` writes it.
pub(super) fn number(name: &[u8]) -> Option<u32> {
    let is_one = name.first().is_some_and(|digit| *digit != b'0' || name.len() == 1);
    let digits = name.iter().all(u8::is_ascii_digit);
    str::from_utf8(name).ok().filter(|_| is_one && digits)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whose, the path below, and whether it is a link.
    type Expected = Option<(Of, &'static str, bool)>;

    #[test]
    fn paths_below_proc_are_known_by_their_text() {
        let own = |rest: &'static str, is_link| Some((Of::Own, rest, is_link));
        let table: [(&str, Expected); 30] = [
            ("/proc", Some((Of::Kernel, "", false))),
            ("/proc/", Some((Of::Kernel, "", false))),
            ("/proc/cpuinfo", Some((Of::Kernel, "cpuinfo", false))),
            ("/proc/sys/kernel/random/uuid", Some((Of::Kernel, "sys/kernel/random/uuid", false))),
            ("/proc/self", own("", true)),
            ("/proc/self/", own("", false)),
            ("/proc/self/exe", own("exe", false)),
            ("/proc/self/fd/3", own("fd/3", false)),
            ("/proc/thread-self/comm", own("comm", false)),
            ("/proc/mounts", own("mounts", true)),
            ("/proc/net", own("net", true)),
            ("/proc/net/tcp", own("net/tcp", false)),
            ("/proc/17", Some((Of::Process(17), "", false))),
            ("/proc/17/stat", Some((Of::Process(17), "stat", false))),
            ("/proc/017/stat", Some((Of::Kernel, "017/stat", false))),
            ("/proc/99999999999/stat", Some((Of::Kernel, "99999999999/stat", false))),
            ("/dev/stdout", own("fd/1", true)),
            ("/dev/fd", own("fd", true)),
            ("/dev/fd/", own("fd", false)),
            ("/dev/fd/63", own("fd/63", false)),
            ("/dev/null", None),
            ("/dev", None),
            ("/", None),
            ("", None),
            ("proc/self", None),
            ("/procfs", None),
            ("/proc/../etc/passwd", None),
            ("/proc/self/../1/environ", None),
            ("/proc/self//root", None),
            ("//proc/self", None),
        ];
        for (path, expected) in table {
            let expected = expected.map(|(of, rest, is_link)| Meant { of, rest: rest.as_bytes(), is_link });
            assert_eq!(meant(path.as_bytes()), expected, "{path}");
        }
    }
}
