//! The check `RewrittenFiles`: a `RUN` that changes mode or owner of files of earlier layers stores them a second time.
//!
//! A layer holds whole files, so `chown -R` of 200 MB adds 200 MB. Overlayfs copies them up, the new layer's manifest has
//! them with the content that they have below, and that is all that is looked at. Steps whose layer is in no image
//! (those of other stages) cost nobody anything and are left out. What is found is told when the step runs; a result
//! from the cache is not looked at again. Where the file makes broken rules errors, the step fails, so that its result is not
//! in the cache.

use std::collections::BTreeSet;

use dockerfile::{Lowered, Policy, lint::REWRITTEN_FILES};
use dockerfile_parser::Span;
use graph::Op;
use oci::Digest;
use tree::{Kind, Layer, Stack};

use super::{Effects, Job, stack::is_base};
use crate::{
    error::Cause,
    progress::{Event, Warning},
};

/// Less than this is not worth a word.
const THRESHOLD_BYTES: u64 = 1 << 20;

/// Which checks a build makes of its steps.
pub(crate) struct Checks {
    policy: Policy,
    /// The vertices whose layers are in an image.
    in_images: BTreeSet<Digest>,
}

impl Checks {
    /// What the Dockerfile wants.
    pub(crate) fn new(lowered: &Lowered) -> Checks {
        let graph = &lowered.graph;
        let mut waiting: Vec<_> =
            lowered.images.values().filter_map(|image| image.edge).map(|edge| edge.vertex).collect();
        let mut in_images = BTreeSet::new();
        while let Some(id) = waiting.pop() {
            if in_images.insert(graph.digest(id).digest()) {
                let vertex = graph.vertex(id);
                let inputs = vertex.inputs.iter().enumerate();
                waiting
                    .extend(inputs.filter(|(at, _)| is_base(&vertex.op, *at)).map(|(_, edge)| edge.vertex));
            }
        }
        Checks { policy: lowered.checks.clone(), in_images }
    }
}

impl Effects {
    /// Tells of a `RUN` that stores files of `below` again.
    ///
    /// # Errors
    /// It does, and the Dockerfile makes that an error.
    pub(crate) fn check_rewritten(&self, job: &Job, layer: &Layer, below: &Stack) -> Result<(), Cause> {
        let (Some(checks), Some(place)) = (self.checks.get(), job.vertex.about.source) else { return Ok(()) };
        let wanted = || checks.policy.wants(&REWRITTEN_FILES, Span::new(place.start, place.end));
        if !matches!(job.vertex.op, Op::Exec(_)) || !checks.in_images.contains(&job.digest) || !wanted() {
            return Ok(());
        }
        let Some(found) = Rewritten::find(layer, below) else { return Ok(()) };
        let rule = REWRITTEN_FILES.name.to_owned();
        self.sink.event(Event::Warning(Warning {
            vertex: Some(job.digest),
            code: rule.clone(),
            message: found.message(),
            source: Some(place),
        }));
        if checks.policy.fails() { Err(Cause::Checks { rule }) } else { Ok(()) }
    }
}

/// Files that a layer has with the content that they have below it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Rewritten {
    files: usize,
    bytes: u64,
    /// The new owners of those that got one.
    owners: BTreeSet<(u32, u32)>,
    /// The new modes of those that got one.
    modes: BTreeSet<u32>,
    /// Whether one of those could be executed before.
    was_executable: bool,
}

impl Rewritten {
    fn find(layer: &Layer, below: &Stack) -> Option<Rewritten> {
        if layer.size_bytes() < THRESHOLD_BYTES {
            return None;
        }
        let mut found = Rewritten::default();
        // The other names of a file take no more room.
        for (path, now) in layer.entries.iter().filter(|(_, node)| node.hardlink.is_none()) {
            let Kind::File { size, .. } = now.kind else { continue };
            let Some((_, before)) = below.lookup(path).filter(|(_, before)| before.kind == now.kind) else {
                continue;
            };
            let owner = (now.uid, now.gid) != (before.uid, before.gid);
            let mode = now.mode != before.mode;
            if owner || mode || now.xattrs != before.xattrs {
                found.files += 1;
                found.bytes += size;
                found.owners.extend(owner.then_some((now.uid, now.gid)));
                found.modes.extend(mode.then_some(now.mode));
                found.was_executable |= mode && before.mode & 0o111 != 0;
            }
        }
        (found.bytes >= THRESHOLD_BYTES).then_some(found)
    }

    fn message(&self) -> String {
        let megabytes = self.bytes as f64 / 1e6;
        let (stored, its, are_copied, them) = match self.files {
            1 => (format!("1 file of an earlier layer ({megabytes:.1} MB) is"), "its", "it is copied", "it"),
            files => {
                let stored = format!("{files} files of earlier layers ({megabytes:.1} MB) are");
                (stored, "their", "they are copied", "them")
            }
        };
        let what = match (self.owners.is_empty(), self.modes.is_empty()) {
            (false, true) => "owner",
            (true, false) => "mode",
            (false, false) => "owner and mode",
            (true, true) => "extended attributes",
        };
        let flags: Vec<String> = self.owner_flag().into_iter().chain(self.mode_flag()).collect();
        let copied = match flags.is_empty() {
            true => String::new(),
            false => format!("write `COPY {}` where {are_copied}, or ", flags.join(" ")),
        };
        format!(
            "{stored} stored a second time, because this step changes {its} {what}; {copied}change {them} in the `RUN` that makes {them}"
        )
    }

    fn owner_flag(&self) -> Option<String> {
        let mut owners = self.owners.iter();
        match (owners.next(), owners.next()) {
            (Some((uid, gid)), None) => Some(format!("--chown={uid}:{gid}")),
            (None, _) => None,
            (Some(_), Some(_)) => Some("--chown=USER:GROUP".to_owned()),
        }
    }

    /// `--chmod`, in a form that leaves folders usable.
    fn mode_flag(&self) -> Option<String> {
        let mut modes = self.modes.iter();
        match (modes.next(), modes.next()) {
            (None, _) => None,
            (Some(mode), None) if mode & 0o7111 != 0 || self.files == 1 && self.was_executable => {
                Some(format!("--chmod={mode:o}"))
            }
            // `X` would leave such a file as it is.
            (Some(mode), None) if !self.was_executable => Some(format!("--chmod={}", symbolic(*mode))),
            (Some(_), _) => Some("--chmod=MODE".to_owned()),
        }
    }
}

/// A mode without `x` for files, which folders can have too: `u=rwX,go=rX`.
fn symbolic(mode: u32) -> String {
    let class = |shift: u32| {
        let bits = mode >> shift & 7;
        let letter = |bit, letter| if bits & bit != 0 { letter } else { "" };
        format!("{}{}{}", letter(4, "r"), letter(2, "w"), letter(4, "X"))
    };
    let (user, group, others) = (class(6), class(3), class(0));
    match group == others {
        true => format!("u={user},go={group}"),
        false => format!("u={user},g={group},o={others}"),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tree::{LayerPath, Node};

    use super::*;

    fn file(content: &str, size: u64, mode: u32, owner: u32) -> Node {
        let kind = Kind::File { size, content: Digest::of(content.as_bytes()) };
        Node { uid: owner, gid: owner, ..Node::new(kind, mode) }
    }

    fn layer(nodes: &[(&str, Node)]) -> Layer {
        let path = |path: &str| LayerPath::clamp(path.as_bytes()).expect("a path");
        Layer { entries: nodes.iter().map(|(name, node)| (path(name), node.clone())).collect() }
    }

    fn found(above: &[(&str, Node)]) -> Option<String> {
        let big = 1 << 20;
        let below = [
            ("a", file("a", big, 0o644, 0)),
            ("b", file("b", big, 0o755, 0)),
            ("c", file("c", 10, 0o644, 0)),
        ];
        let below = Stack::new(vec![Arc::new(layer(&below))]);
        Rewritten::find(&layer(above), &below).map(|found| found.message())
    }

    #[test]
    fn what_changes_but_for_its_bytes() {
        let big = 1 << 20;
        let linked =
            Node { hardlink: Some(LayerPath::clamp(b"a").expect("a path")), ..file("a", big, 0o644, 7) };
        let mut attributes = file("a", big, 0o644, 0);
        attributes.xattrs.insert(b"security.capability".to_vec(), b"x".to_vec());
        let later = Node { mtime: tree::Mtime { seconds: 9, nanoseconds: 0 }, ..file("a", big, 0o644, 0) };
        let one =
            "1 file of an earlier layer (1.0 MB) is stored a second time, because this step changes its";
        let two =
            "2 files of earlier layers (2.1 MB) are stored a second time, because this step changes their";
        type Case<'a> = (&'a [(&'a str, Node)], Option<String>);
        let cases: [Case<'_>; 11] = [
            (&[], None),
            // Other bytes, another place, only the time, too little.
            (&[("a", file("new", big, 0o600, 7))], None),
            (&[("d", file("a", big, 0o600, 7))], None),
            (&[("a", later)], None),
            (&[("c", file("c", 10, 0o600, 7)), ("d", file("d", big, 0o600, 7))], None),
            (
                &[("a", file("a", big, 0o644, 7)), ("b", linked)],
                Some(format!(
                    "{one} owner; write `COPY --chown=7:7` where it is copied, or change it in the `RUN` that makes it"
                )),
            ),
            (
                &[("a", file("a", big, 0o640, 0)), ("c", file("c", 10, 0o640, 0))],
                Some(
                    "2 files of earlier layers (1.0 MB) are stored a second time, because this step changes their mode; write `COPY --chmod=u=rwX,g=rX,o=` where they are copied, or change them in the `RUN` that makes them"
                        .to_owned(),
                ),
            ),
            (
                &[("b", file("b", big, 0o644, 0))],
                Some(format!(
                    "{one} mode; write `COPY --chmod=644` where it is copied, or change it in the `RUN` that makes it"
                )),
            ),
            (
                &[("a", file("a", big, 0o750, 7)), ("b", file("b", big, 0o750, 8))],
                Some(format!(
                    "{two} owner and mode; write `COPY --chown=USER:GROUP --chmod=750` where they are copied, or change them in the `RUN` that makes them"
                )),
            ),
            (
                &[("a", file("a", big, 0o664, 0)), ("b", file("b", big, 0o775, 0))],
                Some(format!(
                    "{two} mode; write `COPY --chmod=MODE` where they are copied, or change them in the `RUN` that makes them"
                )),
            ),
            (
                &[("a", attributes)],
                Some(format!("{one} extended attributes; change it in the `RUN` that makes it")),
            ),
        ];
        for (above, expected) in cases {
            assert_eq!(found(above), expected, "{above:?}");
        }
    }
}
