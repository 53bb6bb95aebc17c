//! Owners emulated: the same commands, as real root and as a step with one id, say the same; and what they left is recorded.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use sandbox::emulate::{Below, Device, Emulation, Owner, Owners, Records, is_offered};
use sandbox::{Mode, User};

use crate::support::Step;

/// Commands that say whose things are. Of a busybox, which is called by name: the layer has links for few of its programs.
const SAY: [&str; 10] = [
    "b=busybox; id; touch /a; $b chown 33:34 /a; stat -c '%u:%g %a' /a; chmod 6755 /a; $b chown 1:1 /a; stat -c '%u:%g %a' /a",
    "b=busybox; mkdir /d; $b chown 5:6 /d; chmod 2775 /d; touch /d/f; mkdir /d/s; stat -c '%n %u:%g %a' /d /d/f /d/s",
    "b=busybox; ln -s x /l; $b chown -h 7:8 /l; stat -c '%u:%g' /l; $b mkfifo /p; $b chown 9:9 /p; stat -c '%u:%g' /p",
    "b=busybox; touch /a; $b chown 33:34 /a; ln /a /b; mv /a /c; stat -c '%u:%g %h' /b /c; rm /b /c; touch /b; stat -c '%u:%g' /b",
    "b=busybox; mknod /n b 8 300; stat -c '%F %t:%T %u:%g' /n; rm /n; mknod /n p; stat -c %F /n",
    "b=busybox; mkdir /o; $b start-stop-daemon -S -c user -x /bin/sh -- -c \
     'id; touch /tmp/f; mkdir /tmp/d; ln -s q /tmp/l; touch /no; mkdir /o/no; echo x > /tmp/d/e; $b chown 0 /tmp/f; \
     test -w /o && echo writable; (id -u) & wait'; stat -c '%n %u:%g %a' /tmp/f /tmp/d /tmp/d/e /tmp/l",
    "b=busybox; mkdir /t /u; touch /t/1 /t/2; $b chown 11:12 /t/1; $b chown -R 13:14 /t; $b tar -cf /x -C /t .; \
     $b tar -xf /x -C /u; stat -c '%n %u:%g' /u /u/1 /u/2",
    "b=busybox; $b cp -p /bin/busybox /s; $b chown 3:4 /s; chmod 6755 /s; /s id; /s sh -c '/bin/busybox id'; ulimit -r",
    "b=busybox; mkdir /c; $b cp -a /bin /c; cd /c; $b chown 2:2 bin; stat -c '%u:%g' bin ./bin ../c/bin /c/../c/bin; \
     $b chroot /c/bin ./busybox stat -c '%u:%g' /busybox /",
    "b=busybox; mknod /w c 0 0; ls /w; mkdir /o; chmod 777 /o; ln -s o/made /link; ln -s link /twice; ln -s /dev/stdout /out; \
     echo $b id > /bad; chmod 4755 /bad; touch /tmp/roots; $b start-stop-daemon -S -c user -x /bin/sh -- -c \
     'echo x > /twice; touch /tmp/users; mv -f /tmp/users /tmp/roots; /bad'; stat -c '%n %u:%g' /o/made /tmp/*; \
     $b chown 3 /out && echo given",
];

/// A step whose owners are emulated, if it is wanted.
fn step(emulated: bool) -> Option<Step> {
    let mut step = Step::but_in(
        &[Mode::SUBIDS, Mode::SINGLE],
        "what is emulated is compared with what real root does, devices among it",
    )?;
    if emulated {
        if !is_offered() {
            println!("SKIP owners: needs seccomp user notification of Linux 5.19");
            return None;
        }
        let emulation = Emulation { owners: Arc::new(()), records: Arc::default(), mounts: BTreeMap::new() };
        step.spec.emulation = Some(emulation);
    }
    use std::os::unix::fs::PermissionsExt;
    step.write("base/etc/passwd", "root:x:0:0::/:/bin/sh\nuser:x:1000:1001::/:/bin/sh\n");
    step.write("base/etc/group", "root:x:0:\nuser:x:1001:\n");
    let open = std::fs::Permissions::from_mode(0o1777);
    std::fs::set_permissions(step.at("base/tmp"), open).expect("it is the test's");
    Some(step)
}

#[test]
fn a_step_with_one_id_says_what_root_says() {
    for script in SAY {
        let (Some(mut real), Some(mut emulated)) = (step(false), step(true)) else { return };
        let (real, emulated) = (real.run(script), emulated.run(script));
        assert_eq!(emulated.stdout, real.stdout, "{script}");
        assert_eq!(emulated.stderr, real.stderr, "{script}");
        assert!(!real.stdout.is_empty(), "{script}: {}", real.stderr);
    }
}

/// Commands that read what `/proc` says of them.
const LOOK: &str = "b=busybox; $b start-stop-daemon -S -c user -x /bin/sh -- -c \
    '$b grep -E \"^(Uid|Gid)\" /proc/self/status; $b grep Cap /proc/$$/status; (read x; read y) < /proc/self/status; $b id'; \
    $b grep -E '^(Uid|Gid)' /proc/self/status; $b ls -l /proc/self/status | cut -c1-10";

#[test]
fn the_status_of_a_process_says_what_its_calls_say() {
    let name = rustix::system::uname();
    let release = name.release().to_string_lossy();
    let mut numbers = release.split(['.', '-']).map(|number| number.parse::<u32>().unwrap_or(0));
    if (numbers.next(), numbers.next()) < (Some(6), Some(15)) {
        println!("skipped: needs mounts of what is mounted nowhere, of Linux 6.15");
        return;
    }
    let (Some(mut real), Some(mut emulated)) = (step(false), step(true)) else { return };
    let (real, emulated) = (real.run(LOOK), emulated.run(LOOK));
    assert_eq!((emulated.stdout, emulated.stderr), (real.stdout.clone(), real.stderr));
    assert!(real.stdout.contains("Uid:\t1000\t1000\t1000\t1000\n"), "{}", real.stdout);
}

#[test]
fn a_step_that_begins_as_a_user_says_what_that_user_says() {
    let script = "id; touch /tmp/f; stat -c '%u:%g' /tmp/f; touch /no; rm /etc/held; cat /etc/secret; chmod 777 /etc; \
                  busybox chown 0 /tmp/f; mknod /tmp/n c 1 3; echo end";
    let outcomes = [false, true].map(|emulated| {
        let mut step = step(emulated)?;
        step.write("base/etc/held", "");
        step.write("base/etc/secret", "secret");
        use std::os::unix::fs::PermissionsExt;
        let closed = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(step.at("base/etc/secret"), closed).expect("it is the test's");
        step.spec.user = User { uid: 1000, gid: 1001, additional_gids: vec![1001, 50] };
        let outcome = step.run(script);
        Some((outcome.stdout, outcome.stderr))
    });
    let [Some(real), Some(emulated)] = outcomes else { return };
    assert_eq!(emulated, real);
    assert!(real.0.contains("1000:1001\nend\n"), "{real:?}");
}

#[test]
fn what_a_step_did_is_recorded() {
    let Some(mut step) = step(true) else { return };
    let script = "touch /a /plain; busybox chown 33:34 /a; ln -s x /l; busybox chown -h 7:8 /l; mknod /n b 8 1; mv /a /moved";
    let outcome = step.run(script);
    assert_eq!(outcome.stderr, "");
    let records: Arc<Records> = step.spec.emulation.as_ref().expect("it is emulated").records.clone();
    let upper = File::open(step.at("upper")).expect("it is there");
    let of = |name: &str| records.of(upper.as_fd(), name.as_bytes()).expect("it is there");
    let owner = |uid, gid| Some(Owner { uid, gid, device: None });
    assert_eq!((of("moved"), of("l"), of("plain")), (owner(33, 34), owner(7, 8), None));
    assert_eq!(of("n").and_then(|owner| owner.device), Some(Device { block: true, major: 8, minor: 1 }));
}

/// The layers below, in which a few files are not root's.
#[derive(Debug)]
struct Foreign(BTreeMap<Vec<u8>, Below>);

impl Owners for Foreign {
    fn of(&self, path: &[u8]) -> Option<Below> {
        self.0.get(path).copied()
    }

    fn foreign(&self) -> Option<Vec<(Vec<u8>, Below)>> {
        Some(self.0.iter().map(|(path, below)| (path.clone(), *below)).collect())
    }
}

/// Commands on files of the layers below that are not root's, and what they say.
const ON_FOREIGN: [(&str, &str); 9] = [
    ("busybox chown 5:6 /etc/passwd; ln /etc/passwd /p; rm /etc/passwd; stat -c '%u:%g' /p", "5:6"),
    (
        "ln /etc/shadow /s; chmod 600 /s; touch -d @5 /s; stat -c '%u:%g' /s /etc/shadow; rm /etc/shadow; ln /s /t; stat -c '%u:%g' /t",
        "0:42 0:42 0:42",
    ),
    ("stat -c '%u:%g' /etc/shadow /etc/passwd /f /f/in /etc/link", "0:42 0:0 9:10 9:11 7:8"),
    ("chmod 640 /etc/shadow; touch -d @5 /etc/shadow; stat -c '%u:%g %Y' /etc/shadow", "0:42 5"),
    (
        "chmod 600 /etc/two; stat -c '%u:%g' /etc/one /etc/two; echo >> /etc/one; stat -c '%u:%g' /etc/one",
        "5:6 5:6 5:6",
    ),
    ("rm /etc/shadow; touch /etc/shadow; stat -c '%u:%g' /etc/shadow", "0:0"),
    ("mv /etc/shadow /etc/moved; ln /f/in /in; stat -c '%u:%g' /etc/moved /in", "0:42 9:11"),
    (
        "touch -h -d @5 /etc/link; busybox chown 3 /f/in; chmod 700 /f; stat -c '%u:%g' /etc/link /f/in /f",
        "7:8 3:11 9:10",
    ),
    (
        "mkdir /tmp/a; cd /f; stat -c '%u:%g' in . ../etc/link /dev/stdin; exec 3< in; stat -Lc '%u:%g' /proc/self/fd/3",
        "9:11 9:10 7:8 0:0 9:11",
    ),
];

#[test]
fn files_of_the_layers_below_keep_their_owners() {
    for (script, expected) in ON_FOREIGN {
        let Some(mut step) = step(true) else { return };
        step.write("base/etc/shadow", "x");
        step.write("base/etc/one", "x");
        step.write("base/f/in", "x");
        if script.contains("two") {
            // From then on nothing is spared.
            std::fs::hard_link(step.at("base/etc/one"), step.at("base/etc/two")).expect("it is the test's");
        }
        std::os::unix::fs::symlink("one", step.at("base/etc/link")).expect("it is the test's");
        let table = [
            ("etc/shadow", 0, 42),
            ("etc/one", 5, 6),
            ("etc/two", 5, 6),
            ("etc/link", 7, 8),
            ("f", 9, 10),
            ("f/in", 9, 11),
        ];
        let below = |(path, uid, gid): (&str, u32, u32)| {
            let found = step.at("base").join(path).symlink_metadata().ok()?;
            let modified = (found.mtime(), found.mtime_nsec() as u32);
            Some((path.as_bytes().to_vec(), Below { owner: Owner { uid, gid, device: None }, modified }))
        };
        let owners = Arc::new(Foreign(table.into_iter().filter_map(below).collect()));
        step.spec.emulation = Some(Emulation { owners, records: Arc::default(), mounts: BTreeMap::new() });
        let outcome = step.run(script);
        let said: Vec<&str> = outcome.stdout.split_whitespace().collect();
        assert_eq!((said.join(" "), outcome.stderr), (expected.to_owned(), String::new()), "{script}");
    }
}

#[test]
fn a_step_with_sub_ids_makes_what_stands_for_devices() {
    let Some(mut step) = step(true).filter(|step| step.spec.mode != Mode::SINGLE) else { return };
    step.spec.mode = Mode::SUBIDS;
    let script = "mknod /n b 8 300; mknod /n c 1 3 || echo there; mknod /p p; umask 077; cd /etc; mknod u c 5 1; mv u v; \
                  stat -c '%n %F %a' /n /p v";
    let outcome = step.run(script);
    assert_eq!(
        outcome.stdout, "there\n/n regular empty file 644\n/p fifo 644\nv regular empty file 600\n",
        "{}",
        outcome.stderr
    );
    let records: Arc<Records> = step.spec.emulation.as_ref().expect("it is emulated").records.clone();
    let of = |folder: &str, name: &str| {
        let folder = File::open(step.at(folder)).expect("it is there");
        records.of(folder.as_fd(), name.as_bytes()).expect("it is there").and_then(|owner| owner.device)
    };
    assert_eq!(of("upper", "n"), Some(Device { block: true, major: 8, minor: 300 }));
    assert_eq!(of("upper/etc", "v"), Some(Device { block: false, major: 5, minor: 1 }));
    assert_eq!((of("upper", "p"), records.has_devices()), (None, true));
}
