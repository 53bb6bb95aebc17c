//! What both indexes say of a member, as JSON.
//!
//! The two have the same fields: zstd:chunked took them from estargz, which took them from CRFS.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use oci::Epoch;
use serde::Serialize;
use tree::Mtime;

use super::Unindexed;
use crate::tar::{EntryKind, Member};

/// The index: what is hashed, and named by the descriptor.
#[derive(Serialize)]
pub(super) struct Toc<'a> {
    pub(super) version: u32,
    pub(super) entries: Vec<TocEntry<'a>>,
    /// Of zstd:chunked: digest of the frame that the tar can be put together from.
    #[serde(rename = "tarSplitDigest", skip_serializing_if = "Option::is_none")]
    pub(super) tar_split_digest: Option<String>,
}

/// A member, or a further piece of the member before it.
#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct TocEntry<'a> {
    pub(super) name: &'a str,
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) modtime: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) accesstime: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) changetime: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) link_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) mode: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) uid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) gid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) dev_major: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) dev_minor: Option<u32>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) xattrs: BTreeMap<&'a str, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) digest: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) offset: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) end_offset: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) chunk_offset: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) chunk_size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) chunk_digest: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) chunk_type: Option<&'static str>,
}

impl<'a> TocEntry<'a> {
    /// A member without where its contents are. [`check`] found that it can be written.
    pub(super) fn of(member: &'a Member) -> TocEntry<'a> {
        let entry = &member.entry;
        let (kind, link_name) = match &entry.kind {
            EntryKind::Directory => ("dir", None),
            EntryKind::File { .. } => ("reg", None),
            EntryKind::HardLink { target } => ("hardlink", Some(utf8(target))),
            EntryKind::Symlink { target } => ("symlink", Some(utf8(target))),
            EntryKind::CharDevice { .. } => ("char", None),
            EntryKind::BlockDevice { .. } => ("block", None),
            EntryKind::Fifo => ("fifo", None),
        };
        let device = matches!(kind, "char" | "block") || member.device != (0, 0);
        let xattrs = entry.xattrs.iter().map(|(name, value)| (utf8(name), STANDARD.encode(value)));
        TocEntry {
            name: utf8(&entry.path),
            kind,
            size: Some(member.size()).filter(|size| *size > 0),
            modtime: date(entry.mtime),
            accesstime: member.accessed.and_then(date),
            changetime: member.changed.and_then(date),
            link_name,
            mode: Some(member.mode),
            uid: Some(entry.uid),
            gid: Some(entry.gid),
            dev_major: device.then_some(member.device.0),
            dev_minor: device.then_some(member.device.1),
            xattrs: xattrs.collect(),
            ..TocEntry::default()
        }
    }
}

fn utf8(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("checked when the member came")
}

/// Whether an entry can say all of a member.
pub(super) fn check(member: &Member) -> Result<(), Unindexed> {
    let entry = &member.entry;
    let path = || String::from_utf8_lossy(&entry.path).into_owned();
    let link = match &entry.kind {
        EntryKind::HardLink { target } | EntryKind::Symlink { target } => &target[..],
        _ => b"",
    };
    let mut names = [&entry.path[..], link].into_iter().chain(entry.xattrs.keys().map(|name| &name[..]));
    if names.any(|name| std::str::from_utf8(name).is_err()) {
        return Err(Unindexed::NotUtf8 { path: entry.path.escape_ascii().to_string() });
    }
    let mut times = [Some(entry.mtime), member.accessed, member.changed].into_iter().flatten();
    if times.any(|time| date(time).is_none()) {
        return Err(Unindexed::Time { path: path() });
    }
    Ok(())
}

/// RFC 3339 in UTC, with as many digits of a second as there are; `None` outside of the years 0 to 9999.
fn date(time: Mtime) -> Option<String> {
    // Counted 25 times 400 years later, where no time is negative; the year then has five digits, a 1 first.
    const LATER: i64 = 25 * 146_097 * 86_400;
    let seconds = u64::try_from(time.seconds.checked_add(LATER)?).ok()?;
    let text = Epoch(seconds).rfc3339();
    let date = text.strip_prefix('1').filter(|date| date.len() == "0000-00-00T00:00:00Z".len())?;
    if time.nanoseconds == 0 {
        return Some(date.to_owned());
    }
    let fraction = format!("{:09}", time.nanoseconds);
    Some(format!("{}.{}Z", date.trim_end_matches('Z'), fraction.trim_end_matches('0')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_dates() {
        for (seconds, nanoseconds, text) in [
            (0, 0, Some("1970-01-01T00:00:00Z")),
            (-5, 0, Some("1969-12-31T23:59:55Z")),
            (-1, 500_000_000, Some("1969-12-31T23:59:59.5Z")),
            (1_700_000_000, 1_000, Some("2023-11-14T22:13:20.000001Z")),
            (253_402_300_799, 0, Some("9999-12-31T23:59:59Z")),
            (253_402_300_800, 0, None),
            (-62_167_219_200, 0, Some("0000-01-01T00:00:00Z")),
            (-62_167_219_201, 0, None),
            (i64::MAX, 0, None),
            (i64::MIN, 0, None),
        ] {
            assert_eq!(date(Mtime { seconds, nanoseconds }).as_deref(), text, "{seconds}");
        }
    }
}
