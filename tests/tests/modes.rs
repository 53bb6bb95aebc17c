//! The same Dockerfile has the same layers in every mode that root has: stacked, copied, in a chroot, and there without what a container
//! takes away.

use std::fs;
use std::process::Command;

use kiln_tests::image::Image;
use kiln_tests::machine;
use kiln_tests::program::Build;

/// What steps do to a root, by the name of what is special about it.
const CASES: [(&str, &str); 12] = [
    (
        "files",
        "RUN mkdir -p /a/b && echo 1 > /a/b/c && chown 5:6 /a/b/c && chmod 4755 /a/b/c\nRUN rm /a/b/c && echo 2 > /a/b/d",
    ),
    (
        "replaced",
        "RUN mkdir /d && echo 1 > /d/x && echo 1 > /f\nRUN rm -r /d /f && mkdir /d /f && echo 2 > /d/y",
    ),
    ("untouched", "RUN echo 1 > /f\nRUN chmod 644 /f; touch -r /f /f; mkdir /tmp/x && rmdir /tmp/x"),
    ("links", "RUN echo 1 > /a && ln /a /b && ln -s a /c\nRUN ln /a /d && rm /b\nRUN echo more >> /d"),
    ("copies", "RUN echo 1 > /one\nCOPY Dockerfile /etc/here/\nRUN rm /etc/here/Dockerfile && echo 2 > /one"),
    ("folder", "WORKDIR /made/here\nRUN pwd > p\nWORKDIR deeper\nRUN pwd > p"),
    (
        "mounts",
        "RUN --mount=type=cache,target=/c --mount=type=tmpfs,target=/etc/t --mount=type=bind,target=/x/y \
                echo 1 > /c/f; cp /x/y/Dockerfile /etc/t/; cp /etc/t/Dockerfile /here\nRUN --mount=type=cache,target=/c cp /c/f /g",
    ),
    (
        "special",
        "RUN mkfifo /p && mknod /n c 1 3 && echo x > /n\nRUN rm /p; echo > /dev/null; head -c 4 /dev/zero > /z",
    ),
    (
        "stages",
        "RUN echo 1 > /1\nFROM busybox AS other\nRUN echo 2 > /2\nRUN --mount=type=bind,from=busybox,source=/bin,target=/b ls /b | head -1 > /3",
    ),
    (
        "proc",
        "RUN echo piped | cat /dev/stdin > /1; readlink /proc/self/exe > /2; cat /proc/self/comm /proc/$$/comm > /3; \
                sh -c 'echo x > /dev/fd/3' 3> /4; cat /proc/sys/kernel/ostype > /5; stat -c %F /proc/self /proc/self/exe > /6; \
                echo said > /dev/stdout; test -e /proc/self/fd/1 && test ! -e /proc/self/fd/77 && echo open > /7; \
                tr '\\0' ' ' < /proc/self/cmdline > /8; (echo x > /proc/version) 2> /dev/null || echo refused > /9; readlink /proc/self/cwd >> /9; readlink /proc/self/root >> /9",
    ),
    (
        "proc-of-a-user",
        "RUN chmod 777 /tmp\nUSER 1234:5\nRUN readlink /proc/self/exe > /tmp/2; grep -E '^(Name|Uid|Gid):' /proc/self/status > /tmp/3; \
                sh -c 'echo x > /dev/fd/3' 3> /tmp/4; cat /proc/self/environ > /tmp/5; (cat /etc/shadow || echo refused) 2> /dev/null > /tmp/6",
    ),
    (
        "secrets",
        "RUN --mount=type=secret,id=s cat /run/secrets/s > /1; cd /run && cat secrets/s > /2; stat -c '%F %a %u:%g %s' /run/secrets/s > /3; \
                ls -l /run/secrets | grep -c ' 5 .* s$' > /4; (echo x > /run/secrets/s) 2>/dev/null || echo ro > /5; cp /run/secrets/s /6\n\
         RUN --mount=type=secret,id=s,target=/etc/passwd cat /etc/passwd > /7\nRUN ls -d /run/* > /8; wc -l < /etc/passwd > /9; chmod 777 /tmp\n\
         USER 7\nRUN --mount=type=secret,id=s,mode=0440,uid=7 cat /run/secrets/s > /tmp/1\n\
         RUN --mount=type=secret,id=s (cat /run/secrets/s || echo refused) 2> /dev/null > /tmp/2",
    ),
];

/// What a container's root has not, by default.
const NOT_IN_A_CONTAINER: [&str; 27] = [
    "dac_read_search",
    "linux_immutable",
    "net_broadcast",
    "net_admin",
    "ipc_lock",
    "ipc_owner",
    "sys_module",
    "sys_rawio",
    "sys_ptrace",
    "sys_pacct",
    "sys_admin",
    "sys_boot",
    "sys_nice",
    "sys_resource",
    "sys_time",
    "sys_tty_config",
    "lease",
    "audit_control",
    "mac_override",
    "mac_admin",
    "syslog",
    "wake_alarm",
    "block_suspend",
    "audit_read",
    "perfmon",
    "bpf",
    "checkpoint_restore",
];

/// The digest of the manifest that a build in a mode makes, started without these capabilities.
fn built(mode: &str, without: &[&str], instructions: &str) -> String {
    let folder = tempfile::Builder::new().prefix("kiln-modes-").tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    fs::create_dir(at("context")).expect("it is empty");
    fs::write(at("context/Dockerfile"), format!("FROM busybox\n{instructions}\n"))
        .expect("it can be written");
    let out = format!("type=oci,rewrite-timestamp=true,dest={}", at("image.tar").display());
    let base = machine::base_argument().expect("the test asked for it");
    let mut build = Build::new(&at("root"), &at("context"));
    for word in ["--sandbox", mode, "--build-context", &base, "-o", &out, "--secret", "id=s,env=CONFIDED"] {
        build = build.argument(word);
    }
    build.without_capabilities = without.iter().map(|name| (*name).to_owned()).collect();
    build.env.insert("CONFIDED".into(), "truth".into());
    build.env.insert("SOURCE_DATE_EPOCH".into(), "1700000000".into());
    let run = build.run();
    assert_eq!(run.status, Some(0), "{mode}: {instructions}\n{}", run.stderr);
    let left: Vec<_> = fs::read_dir(at("root/tmp")).expect("it is there").collect();
    assert!(left.is_empty(), "{mode}: {left:?} is left");
    Image::read(&at("image.tar")).expect("an image").manifest
}

#[test]
fn a_step_makes_the_same_layer_in_every_mode() {
    if machine::cannot(
        "a_step_makes_the_same_layer_in_every_mode",
        ["root: it is about the modes that root has", "busybox"],
    ) {
        return;
    }
    for (name, instructions) in CASES {
        let stacked = built("root", &[], instructions);
        for (mode, without) in [("root,copy", &[][..]), ("chroot", &[]), ("chroot", &NOT_IN_A_CONTAINER)] {
            let made = built(mode, without, instructions);
            assert_eq!(made, stacked, "{name} in mode {mode}, without {} capabilities", without.len());
        }
    }
}

#[test]
fn a_secret_is_not_on_the_disk_of_a_chroot() {
    if machine::cannot(
        "a_secret_is_not_on_the_disk_of_a_chroot",
        ["root: it is about a mode that root has", "busybox", "program:grep"],
    ) {
        return;
    }
    let folder = tempfile::Builder::new().prefix("kiln-modes-").tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    fs::create_dir(at("context")).expect("it is empty");
    // What looks at the disk is another program, while the step has the secret open.
    let step = "RUN --mount=type=secret,id=s exec 3< /run/secrets/s; touch /in; while test ! -e /out; do sleep 0.05; done; wc -c <&3 > /n";
    fs::write(at("context/Dockerfile"), format!("FROM busybox\n{step}\n")).expect("it can be written");
    let base = machine::base_argument().expect("the test asked for it");
    let mut build = Build::new(&at("root"), &at("context"));
    for word in ["--sandbox", "chroot", "--build-context", &base, "--secret", "id=s,env=CONFIDED"] {
        build = build.argument(word);
    }
    build.env.insert("CONFIDED".into(), "Aq7-on-no-disk-Zx2".into());
    let mut child = build.command().spawn().expect("the program is there");
    let find = |name: &str| {
        let mut found = Command::new("find");
        found.arg(at("root/tmp")).args(["-name", name, "-type", "f"]);
        String::from_utf8(found.output().expect("find is there").stdout).expect("paths are text")
    };
    let mut looks = 0;
    let mut root = String::new();
    while root.is_empty() && looks < 600 {
        std::thread::sleep(std::time::Duration::from_millis(50));
        root = find("in").lines().next().unwrap_or_default().to_owned();
        looks += 1;
    }
    let grep = Command::new("grep").args(["-rlaF", "Aq7-on-no-disk-Zx2"]).arg(at("root")).output();
    let grep = grep.expect("grep is there");
    if !root.is_empty() {
        fs::write(root.replace("/in", "/out"), "").expect("the step waits for it");
    }
    let status = child.wait().expect("it was started");
    assert!(!root.is_empty(), "the step has not begun");
    assert_eq!(String::from_utf8_lossy(&grep.stdout), "", "files with the secret");
    assert!(status.success(), "{status}");
}
