//! What the first bytes of a program say of it: for messages about programs that the kernel refused.

/// Bytes of an ELF header up to and with `e_machine`.
const LEAST: usize = 20;

/// What an ELF file is for, by the name that platforms have for it; by its number where they have none. None where it is
/// no ELF file.
///
/// # Source
/// The System V ABI's gABI, chapter 4; the numbers are Linux' `elf-em.h`.
pub(super) fn architecture(head: &[u8]) -> Option<String> {
    let head = head.get(..LEAST)?;
    let (wide, little) = match (head.strip_prefix(b"\x7fELF")?, head[4], head[5]) {
        (_, 1 | 2, 1 | 2) => (head[4] == 2, head[5] == 1),
        _ => return None,
    };
    let number = [head[18], head[19]];
    let number = if little { u16::from_le_bytes(number) } else { u16::from_be_bytes(number) };
    let name = match (number, wide, little) {
        (3, ..) => "386",
        (62, ..) => "amd64",
        (40, _, true) => "arm",
        (40, _, false) => "armbe",
        (183, _, true) => "arm64",
        (183, _, false) => "arm64be",
        (8, false, false) => "mips",
        (8, false, true) => "mipsle",
        (8, true, false) => "mips64",
        (8, true, true) => "mips64le",
        (20, ..) => "ppc",
        (21, _, false) => "ppc64",
        (21, _, true) => "ppc64le",
        (22, false, _) => "s390",
        (22, true, _) => "s390x",
        (243, false, _) => "riscv",
        (243, true, _) => "riscv64",
        (258, ..) => "loong64",
        (43, ..) => "sparc64",
        (number, ..) => return Some(format!("the ELF machine {number}")),
    };
    Some(name.to_owned())
}

/// The interpreter of a script: what stands behind `#!`, without its argument.
pub(super) fn interpreter(head: &[u8]) -> Option<&[u8]> {
    let line = head.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    let mut words = line.split(|byte| matches!(byte, b' ' | b'\t'));
    words.find(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header with this class (1 is 32 bit), order (1 is little endian) and machine.
    fn head(class: u8, order: u8, machine: u16) -> Vec<u8> {
        let mut head = b"\x7fELF".to_vec();
        head.extend([class, order, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0]);
        head.extend(if order == 1 { machine.to_le_bytes() } else { machine.to_be_bytes() });
        head
    }

    #[test]
    fn programs_are_told_apart() {
        for (class, order, machine, name) in [
            (2, 1, 62, "amd64"),
            (1, 1, 3, "386"),
            (2, 1, 183, "arm64"),
            (1, 1, 40, "arm"),
            (2, 2, 22, "s390x"),
            (2, 1, 243, "riscv64"),
            (2, 1, 21, "ppc64le"),
            (2, 2, 21, "ppc64"),
            (2, 1, 258, "loong64"),
            (1, 1, 8, "mipsle"),
            (2, 1, 50, "the ELF machine 50"),
        ] {
            assert_eq!(architecture(&head(class, order, machine)).as_deref(), Some(name));
        }
        for text in [&b""[..], b"\x7fELF", b"#!/bin/sh\n", &head(3, 1, 62), &head(2, 1, 62)[..19]] {
            assert_eq!(architecture(text), None, "{text:?}");
        }
    }

    #[test]
    fn scripts_name_their_interpreter() {
        for (text, found) in [
            ("#!/bin/sh\necho", Some("/bin/sh")),
            ("#! /usr/bin/env -S sh\n", Some("/usr/bin/env")),
            ("#!/bin/a", Some("/bin/a")),
            ("#!\n/bin/sh", None),
            ("#/bin/sh", None),
            ("", None),
        ] {
            assert_eq!(interpreter(text.as_bytes()), found.map(str::as_bytes), "{text:?}");
        }
    }
}
