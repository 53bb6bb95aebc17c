//! Machines that are made otherwise: the same build works there, or says what is wrong.

use std::fs;

use kiln_tests::mode::TestMode;
use kiln_tests::program::said;

use crate::place::{Place, of_root};
use crate::{MODES, cannot};

const DOCKERFILE: &str = "FROM busybox
RUN echo 1 > /1 && chown 5:6 /1 && mkdir /d && grep -q ^Name /proc/self/status && ls -d /proc/$$ > /dev/null
COPY --chown=7:8 Dockerfile /d/
RUN rm -r /d && mkdir /d && touch /d/new
";

/// A machine, and what is warned of there.
const MACHINES: [(&str, &str); 7] = [
    ("mount -t proc -o hidepid=2 proc /proc", ""),
    // The kernel looks at all that are in sight, wherever they are mounted.
    (
        "awk '$3 == \"proc\" && $2 != \"/proc\" { print $2 }' /proc/mounts | xargs -r umount -l; mount --bind /dev/null /proc/keys",
        "steps see the /proc of this container",
    ),
    (
        "for folder in /sys/fs/cgroup /sys/fs/cgroup/*/; do mountpoint -q $folder && mount -o remount,bind,ro $folder || :; done",
        "",
    ),
    ("mount -t tmpfs -o noexec none {place}/mount", ""),
    ("mount -t tmpfs none {place}/mount", ""),
    ("mount -t ramfs none {place}/mount", "setxattr(user.overlay.opaque) fails with Operation not supported"),
    (
        "mkdir {place}/out/l {place}/out/u {place}/out/w; mount -t overlay -o lowerdir={place}/out/l,upperdir={place}/out/u,workdir={place}/out/w none {place}/mount",
        "mount(overlay) fails with Invalid argument",
    ),
];

/// Whether a tmpfs has attributes of users, without which layers are copied: since Linux 6.6.
fn tmpfs_keeps_attributes() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("it says so");
    let mut numbers = release.split(['.', '-']).map_while(|number| number.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(6), Some(6))
}

/// Makes what was mounted the user's.
fn owned(change: &str) -> String {
    format!("{change}; chown 61183:61183 {{place}}/mount")
}

#[test]
fn the_same_image_everywhere() {
    if cannot("surroundings::the_same_image_everywhere") {
        return;
    }
    let expected = of_root(DOCKERFILE);
    let has_old_tmpfs = !tmpfs_keeps_attributes();
    for mode in MODES {
        for (change, mut warned) in MACHINES {
            if has_old_tmpfs && change.contains("-t tmpfs") {
                if change.contains("noexec") {
                    println!(
                        "SKIP rootless::surroundings::noexec: before Linux 6.6 layers are copied into a tmpfs"
                    );
                    continue;
                }
                warned = "setxattr(user.overlay.opaque) fails with Operation not supported";
            }
            let place = Place::new(mode, DOCKERFILE);
            let (digest, words) = place.built(&place.at("mount/root"), &owned(change), &[]);
            assert_eq!(digest, expected, "{mode:?}: {change}");
            assert_eq!(words.contains("warning: "), !warned.is_empty(), "{change}: {words}");
            assert!(words.contains(warned), "{change}: {words}");
        }
    }
}

/// Owners set, kept, taken over by what is changed and moved, and gone with what is replaced.
const OWNERS: &str = "FROM busybox
RUN mkdir -p /a/b && echo 1 > /a/b/c && echo 2 > /a/b/t && chown -R 5:6 /a
RUN echo more >> /a/b/c && touch /a/b/new && mkfifo /a/p && chown 9:9 /a/p && ln -s c /a/b/l && chown -h 3:4 /a/b/l
RUN chmod 700 /a/b && touch -d @1000 /a/b/t && ln /a/b/c /a/h
COPY --chown=7:8 Dockerfile /a/b/d
RUN mv /a/b/d /a/b/e && cp -a /a/b/e /a/f && chmod 600 /a/f
RUN rm -r /a/b && mkdir /a/b && echo x > /a/b/c && stat -c '%n %u:%g' /a /a/[fhp] > /listed
USER 5:6
RUN echo mine >> /a/h && touch /a/mine
";

#[test]
fn the_same_owners_in_every_mode() {
    if cannot("surroundings::the_same_owners_in_every_mode") {
        return;
    }
    let expected = of_root(OWNERS);
    for mode in MODES {
        for copy in ["", ",copy"] {
            let place = Place::new(mode, OWNERS);
            let flag = format!("--sandbox={}{copy}", mode.name());
            assert_eq!(place.built(&place.root(), "", &[&flag]).0, expected, "{flag}");
        }
    }
}

#[test]
fn what_cannot_be_built_says_why() {
    if cannot("surroundings::what_cannot_be_built_says_why") {
        return;
    }
    let table = [
        (
            "mount -t tmpfs -o noexec none {place}/mount",
            &["--sandbox=single,copy"][..],
            "mounted noexec; name another folder with --root, or `sudo mount -o remount,exec {place}/mount`",
        ),
        (
            "mount -t tmpfs -o ro none {place}/mount",
            &[],
            "help: name a folder that you can write with `--root DIR` or KILN_ROOT",
        ),
    ];
    for (change, flags, expected) in table {
        let place = Place::new(TestMode::Single, DOCKERFILE);
        let change = if change.contains("-o ro") { change.to_owned() } else { owned(change) };
        let output = place.build(&place.at("mount/root"), &change, flags).output().expect("it starts");
        assert_eq!(output.status.code(), Some(1), "{change}: {}", said(&output));
        let flat = said(&output).split_whitespace().collect::<Vec<_>>().join(" ");
        let expected = expected.replace("{place}", place.at("").display().to_string().trim_end_matches('/'));
        assert!(flat.contains(&expected), "{change}: {}", said(&output));
    }
    // `kiln info` says so too.
    let place = Place::new(TestMode::Single, DOCKERFILE);
    let read_only = "mount -t tmpfs -o ro none {place}/mount";
    let info = place.kiln(&place.at("mount/root"), read_only, &["info"]).output().expect("it starts");
    assert!(String::from_utf8_lossy(&info.stdout).contains("which cannot be written"), "{info:?}");
}

#[test]
fn a_state_folder_is_for_one_map() {
    if cannot("surroundings::a_state_folder_is_for_one_map") {
        return;
    }
    let place = Place::new(TestMode::Subids, DOCKERFILE);
    let expected = of_root(DOCKERFILE);
    let root = place.root();
    assert_eq!(place.built(&root, "", &["--sandbox=single"]).0, expected);
    // Sub-ids are to be had, and the folder is of the other mode.
    let (digest, _) = place.built(&root, "", &["--no-cache"]);
    assert_eq!(digest, expected);
    let table = [
        ("", "--sandbox=subids", "use `--sandbox=single` as user 61183"),
        (
            "echo kiln-test:2000000:65536 > /etc/subuid",
            "--sandbox=subids",
            "use `--sandbox=single` as user 61183",
        ),
    ];
    for (change, flag, expected) in table {
        let output = place.build(&root, change, &[flag, "--no-cache"]).output().expect("it starts");
        let flat = said(&output).split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(output.status.code(), Some(1), "{flat}");
        assert!(flat.contains(expected), "{flat}");
    }
    // Other sub-ids than before.
    let other = place.at("other");
    assert_eq!(place.built(&other, "", &["--sandbox=subids"]).0, expected);
    let change = "echo kiln-test:2000000:65536 > /etc/subuid";
    let output = place.build(&other, change, &["--no-cache"]).output().expect("it starts");
    let flat = said(&output).split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(flat.contains("sub-ids from 1000000:1000000, 65535 of them"), "{flat}");
    // Root cannot use a user's.
    let mut command = kiln_tests::program::kiln();
    let output = command.arg("--root").arg(&root).arg("images").output().expect("it starts");
    assert!(said(&output).contains("the single user 61183:61183"), "{}", said(&output));
}
