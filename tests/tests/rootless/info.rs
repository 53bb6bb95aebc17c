//! `kiln info`: what it tells, and what it and a build say where a mode cannot be had.

use kiln_tests::mode::TestMode;
use kiln_tests::program::said;
use serde_json::Value;

use crate::place::Place;
use crate::{MODES, cannot};

/// A machine that lacks something.
struct Lacking {
    /// The mode whose user starts it.
    user: TestMode,
    /// What makes it lack it.
    change: &'static str,
    /// Which mode it has not.
    refused: &'static str,
    why: &'static str,
    fix: &'static str,
    /// Which it takes instead.
    taken: Option<&'static str>,
}

const LACKING: [Lacking; 8] = [
    Lacking {
        user: TestMode::Subids,
        change: "{no-namespaces}",
        refused: "subids",
        why: "unshare(CLONE_NEWUSER) failed: No space left on device (os error 28) (found: user.max_user_namespaces = 0)",
        fix: "sudo sysctl -w user.max_user_namespaces=15000",
        taken: None,
    },
    Lacking {
        user: TestMode::Single,
        change: "{no-namespaces}",
        refused: "single",
        why: "unshare(CLONE_NEWUSER) failed: No space left on device (os error 28) (found: user.max_user_namespaces = 0)",
        fix: "sudo sysctl -w user.max_user_namespaces=15000",
        taken: None,
    },
    Lacking {
        user: TestMode::Subids,
        change: "before='setpriv --no-new-privs'",
        refused: "subids",
        why: "newuidmap gains no rights here (no_new_privs, in a container allowPrivilegeEscalation: false), and cannot give",
        fix: "kiln --sandbox=single …",
        taken: Some("single"),
    },
    Lacking {
        user: TestMode::Single,
        change: "echo other:100000:65536 > /etc/subuid; echo other:165536:65536 > /etc/subgid",
        refused: "subids",
        why: "/etc/subuid gives no sub-ids to kiln-test",
        fix: "sudo usermod --add-subuids 231072-296607 --add-subgids 231072-296607 kiln-test",
        taken: Some("single"),
    },
    Lacking {
        user: TestMode::Subids,
        change: "echo kiln-test:100000:1000 > /etc/subgid",
        refused: "subids",
        why: "/etc/subgid gives 1000 sub-ids to kiln-test, and images need 65535",
        fix: "sudo usermod --add-subuids 1065536-1131071 --add-subgids 1065536-1131071 kiln-test",
        taken: Some("single"),
    },
    Lacking {
        user: TestMode::Subids,
        change: "cp /usr/bin/newuidmap {place}/out/; mount --bind {place}/out/newuidmap /usr/bin/newuidmap",
        refused: "subids",
        why: "/usr/bin/newuidmap is neither set-user-id root nor has it capabilities",
        fix: "sudo chmod u+s /usr/bin/newuidmap",
        taken: Some("single"),
    },
    Lacking {
        user: TestMode::Subids,
        change: "mount -t tmpfs none {place}/mount; mkdir {place}/mount/u {place}/mount/w; mknod {place}/mount/u/newgidmap c 0 0; \
                 mount -t overlay -o lowerdir=/usr/bin,upperdir={place}/mount/u,workdir={place}/mount/w none /usr/bin",
        refused: "subids",
        why: "there is no program newgidmap, which gives a user namespace its sub-ids",
        fix: "sudo apt-get install uidmap",
        taken: Some("single"),
    },
    Lacking {
        user: TestMode::Subids,
        change: "mount --bind /usr/bin /usr/bin; mount -o remount,bind,nosuid /usr/bin",
        refused: "subids",
        why: "newuidmap is on a file system that is mounted nosuid",
        fix: "kiln --sandbox=single …",
        taken: Some("single"),
    },
];

/// What `kiln info --format json` tells on such a machine.
fn told(place: &Place, change: &str) -> Value {
    let output =
        place.kiln(&place.root(), change, &["info", "--format", "json"]).output().expect("it starts");
    assert!(output.status.success(), "{change}: {}", said(&output));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn mode<'a>(told: &'a Value, name: &str) -> &'a Value {
    let modes = told["modes"].as_array().expect("a list");
    modes.iter().find(|mode| mode["name"] == name).expect("each is told of")
}

#[test]
fn what_there_is() {
    if cannot("info::what_there_is") {
        return;
    }
    for (started, others) in MODES.into_iter().zip([[true, true], [false, true]]) {
        let place = Place::new(started, "FROM busybox\n");
        let info = told(&place, "");
        assert_eq!(info["mode"]["value"], started.name(), "{info}");
        assert_eq!(info["asked"], "auto");
        assert_eq!(info["notes"], Value::Array(Vec::new()));
        let offered = |name: &str| mode(&info, name)["offered"] == true;
        assert_eq!([offered("subids"), offered("single")], others, "{info}");
        assert!(!offered("root") && !offered("chroot"), "{info}");
        assert_eq!(mode(&info, "root")["fix"], "sudo kiln …");
        let folder = &info["stateFolder"];
        assert_eq!((&folder["exists"], &folder["writable"]), (&false.into(), &true.into()), "{info}");
        // What was tried left nothing.
        assert!(!place.root().exists());

        let text = place.output(&["info"]);
        for line in [
            format!("Mode          {} (asked for: auto)", started.name()),
            "  root        no: Kiln runs as user 61183 and not as root".to_owned(),
            "  single      yes".to_owned(),
            format!("State folder  {}, not there yet", place.root().display()),
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        place.built(&place.root(), "", &[]);
        let text = place.output(&["info"]);
        let owners = if started == TestMode::Single {
            "the single user 61183:61183"
        } else {
            "sub-ids from 1000000:1000000, 65535 of them"
        };
        assert!(text.contains(&format!("owners in it: {owners}")), "{text}");

        let bad = place.run(&["info", "--format", "yaml"]);
        assert_eq!(bad.status.code(), Some(2));
        assert!(said(&bad).contains("--format text or --format json"), "{}", said(&bad));
        let other = place.run(&["info", "--sandbox=root"]);
        assert!(
            String::from_utf8_lossy(&other.stdout).contains("Mode          none: Kiln runs as user"),
            "{other:?}"
        );
    }
}

#[test]
fn what_is_lacking() {
    if cannot("info::what_is_lacking") {
        return;
    }
    for Lacking { user, change, refused, why, fix, taken } in LACKING {
        let place = Place::new(user, "FROM busybox\nRUN true\n");
        let info = told(&place, change);
        let offer = mode(&info, refused);
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        assert_eq!(offer["offered"], false, "{change}: {info}");
        assert!(text(&offer["whyNot"]).contains(why), "{change}: {}", offer["whyNot"]);
        assert!(text(&offer["fix"]).contains(fix), "{change}: {}", offer["fix"]);
        assert_eq!(info["mode"]["value"].as_str(), taken, "{change}: {info}");

        // A build says the same, with the line that helps.
        let flag = format!("--sandbox={refused}");
        let output = place.build(&place.root(), change, &[&flag]).output().expect("it starts");
        let words = said(&output);
        assert_eq!(output.status.code(), Some(1), "{change}: {words}");
        // Long lines are broken where the terminal ends.
        let flat = words.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(flat.contains(why) && flat.contains(fix), "{change}: {words}");
        if taken.is_some() {
            place.built(&place.root(), change, &[]);
        }
    }
}
