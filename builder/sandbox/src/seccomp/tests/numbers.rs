//! The numbers against the headers that this machine has.

use std::collections::BTreeMap;
use std::fs;

use super::super::table::ROWS;
use super::super::{Abi, X32_BIT};

/// Where Linux distributions keep the headers of each ABI. Those of arm come with its compilers only; its numbers were
/// compared by hand with Debian's linux-libc-dev-armhf-cross 6.1.
const HEADERS: [(Abi, &[&str]); 4] = [
    (Abi::X86_64, &["/usr/include/x86_64-linux-gnu/asm/unistd_64.h", "/usr/include/asm/unistd_64.h"]),
    (Abi::I386, &["/usr/include/x86_64-linux-gnu/asm/unistd_32.h", "/usr/include/asm/unistd_32.h"]),
    (Abi::X32, &["/usr/include/x86_64-linux-gnu/asm/unistd_x32.h", "/usr/include/asm/unistd_x32.h"]),
    (Abi::Arm64, &["/usr/include/asm-generic/unistd.h"]),
];

/// Calls whose numbers are smaller than those of older calls.
const FILLED: [&str; 1] = ["uretprobe"];

#[test]
fn they_are_in_order_and_each_is_a_call_somewhere() {
    assert!(ROWS.is_sorted_by(|one, next| one.name < next.name));
    for row in &ROWS {
        let abis = [Abi::X86_64, Abi::I386, Abi::X32, Abi::Arm64, Abi::Arm];
        assert!(abis.iter().any(|abi| row.number(*abi).is_some()), "{}", row.name);
    }
}

#[test]
fn they_are_those_of_the_headers() {
    for (abi, paths) in HEADERS {
        let Some(text) = paths.iter().find_map(|path| fs::read_to_string(path).ok()) else {
            println!("SKIP seccomp::numbers::{abi:?}: there is no {}", paths[0]);
            continue;
        };
        let header = defined(&text);
        // Above are x32's second forms of old calls.
        let newest = header.values().copied().filter(|number| *number < 512).max().unwrap_or(0);
        assert!(newest > 400, "{abi:?} has {} numbers", header.len());
        let mut compared = 0;
        for row in &ROWS {
            let name = row.name;
            match (row.number(abi), header.get(name)) {
                (Some(ours), Some(theirs)) => {
                    assert_eq!(ours, *theirs, "{name} of {abi:?}");
                    compared += 1;
                }
                // The header is older than the list, or has the call under a name that depends on the word.
                (Some(ours), None) => {
                    let elsewhere = abi == Abi::Arm64 || FILLED.contains(&name);
                    assert!(ours > newest || elsewhere, "{name} is no call of {abi:?}");
                }
                // The generic header has the calls of 32-bit machines too.
                (None, Some(theirs)) => assert_eq!(abi, Abi::Arm64, "{name} is {theirs} of {abi:?}"),
                (None, None) => {}
            }
        }
        assert!(compared > 250, "only {compared} names of {abi:?} were compared");
    }
}

/// `#define __NR_name number`, where the number may be a sum, or a name of such a line.
fn defined(text: &str) -> BTreeMap<&str, u32> {
    let mut defined = BTreeMap::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let (Some("#define"), Some(name)) = (words.next(), words.next()) else { continue };
        let value = words.collect::<Vec<_>>().join(" ");
        let value = value.trim_matches(['(', ')']);
        let last = value.rsplit(['+', ' ']).next().unwrap_or("").trim();
        let number = last.parse().ok().or_else(|| defined.get(last).copied());
        if let Some(number) = number {
            // The first of two is that of 64-bit machines.
            defined.entry(name).or_insert(number & !X32_BIT);
        }
    }
    defined.into_iter().filter_map(|(name, number)| Some((name.strip_prefix("__NR_")?, number))).collect()
}
