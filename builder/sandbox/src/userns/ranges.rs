//! Ranges of ids: which a user was given, and how a namespace maps them. Texts in, numbers out.

use std::fmt;

/// Ids inside, and what they are outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The first one inside.
    pub inside: u32,
    /// What that is outside.
    pub outside: u32,
    /// How many.
    pub count: u32,
}

impl fmt::Display for Range {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {} {}", self.inside, self.outside, self.count)
    }
}

/// How many sub-ids are enough: with the user for 0, up to 65535 (`nobody` is 65534).
pub(super) const ENOUGH: u32 = 65_535;

/// Sub-ids that a file (subuid(5)) gives somebody: the largest of the ranges that stand there under the user's name or number.
pub(super) fn sub_ids(file: &str, name: Option<&str>, uid: u32) -> Option<(u32, u32)> {
    let number = uid.to_string();
    let ours = file.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let (who, first, count) = (fields.next()?, fields.next()?, fields.next()?);
        let is_ours = Some(who) == name || who == number;
        let range = (first.parse::<u32>().ok()?, count.parse::<u32>().ok()?);
        // What does not fit into 32 bits is no range, and 0 would be root.
        let is_range = range.0 > 0 && range.1 > 0 && range.0.checked_add(range.1 - 1).is_some();
        (is_ours && is_range).then_some(range)
    });
    // Of equal ones the first, as newuidmap(1) users expect it.
    ours.rev().max_by_key(|(_, count)| *count)
}

/// Where a range begins that nobody has in these files: behind all that are there, and where useradd(8) begins.
pub(super) fn free(files: &[&str]) -> u32 {
    let end = |line: &str| {
        let mut fields = line.trim().split(':').skip(1).map(|field| field.parse::<u32>().ok());
        fields.next()??.checked_add(fields.next()??)
    };
    let lines = files.iter().flat_map(|file| file.lines()).filter(|line| !line.starts_with('#'));
    let ends = lines.filter_map(end);
    // Beyond 2^31 some programs take an id for a negative number.
    ends.filter(|end| *end < 1 << 31).fold(100_000, u32::max)
}

/// The name of a user in `passwd`.
pub(super) fn name_of(passwd: &str, uid: u32) -> Option<&str> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, number) = (fields.next()?, fields.nth(1)?);
        (number.parse() == Ok(uid)).then_some(name)
    })
}

/// What `/proc/PID/uid_map` says.
pub(super) fn parse_map(text: &str) -> Vec<Range> {
    let line = |line: &str| {
        let mut numbers = line.split_whitespace().map(str::parse);
        let mut next = || numbers.next()?.ok();
        Some(Range { inside: next()?, outside: next()?, count: next()? })
    };
    text.lines().filter_map(line).collect()
}

/// A map that gives every id of a namespace to one below it as it is.
pub(super) fn identity(own: &[Range]) -> Vec<Range> {
    own.iter().map(|range| Range { outside: range.inside, ..*range }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sub_ids_are_found_by_name_and_number() {
        let table: [(&str, Option<(u32, u32)>); 12] = [
            ("ann:100000:65536", Some((100_000, 65_536))),
            ("1000:200000:65536", Some((200_000, 65_536))),
            ("bob:1:2\nann:100000:65536\n", Some((100_000, 65_536))),
            ("ann:100000:10\nann:300000:65536", Some((300_000, 65_536))),
            ("ann:100000:65536\nann:300000:65536", Some((100_000, 65_536))),
            ("# ann:1:1\n\nanna:100000:65536", None),
            ("ann:0:65536", None),
            ("ann:100000:0", None),
            ("ann:4294967295:2", None),
            ("ann:4294967295:1", Some((u32::MAX, 1))),
            ("ann:-5:10\nann:x:10\nann:5", None),
            ("", None),
        ];
        for (file, expected) in table {
            assert_eq!(sub_ids(file, Some("ann"), 1000), expected, "{file:?}");
        }
        assert_eq!(sub_ids("ann:1:2", None, 1000), None);
    }

    #[test]
    fn a_free_range_is_behind_all_others() {
        let table: [(&[&str], u32); 6] = [
            (&["", ""], 100_000),
            (&["ann:100000:65536\n", ""], 165_536),
            (&["ann:100000:65536", "bob:165536:65536\n# bob:900000:9\n"], 231_072),
            (&["ann:5:10\nbad\nann:x:1\nann:7"], 100_000),
            (&["ann:4294967295:1\nann:4294967290:100"], 100_000),
            (&["ann:4000000000:65536"], 100_000),
        ];
        for (files, expected) in table {
            assert_eq!(free(files), expected, "{files:?}");
        }
    }

    #[test]
    fn names_and_maps_are_read() {
        let passwd = "root:x:0:0::/root:/bin/sh\n\nbad\nann:x:1000:1000::/home/ann:/bin/sh\n";
        assert_eq!((name_of(passwd, 1000), name_of(passwd, 7)), (Some("ann"), None));
        let map = parse_map("         0       1000          1\n         1     100000      65536\n");
        assert_eq!(map.iter().map(Range::to_string).collect::<Vec<_>>(), ["0 1000 1", "1 100000 65536"]);
        assert_eq!(identity(&map).iter().map(Range::to_string).collect::<Vec<_>>(), ["0 0 1", "1 1 65536"]);
        assert!(parse_map("0 x 1\n0 1").is_empty());
    }
}
