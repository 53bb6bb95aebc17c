//! What programs of a distribution do with owners, devices and capabilities: the same layers in every mode. They are this machine's, so that
//! no digest of theirs is written down; the same steps by root say what is right.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use kiln_tests::machine;
use kiln_tests::mode::TestMode;

use crate::place::Place;
use crate::{MODES, cannot};

const PROGRAMS: [&str; 15] = [
    "useradd", "usermod", "userdel", "groupadd", "install", "tar", "chown", "chmod", "cp", "mv", "ln",
    "truncate", "dd", "setcap", "getcap",
];

/// Whatever they say of what they made is in the layers too. By their paths: a shell of busybox runs its own of the same name.
const DOCKERFILE: &str = "FROM busybox
COPY tools /
ENV SOURCE_DATE_EPOCH=1700000000
RUN mkdir -p /etc/skel /home && echo hello > /etc/skel/.profile && : > /etc/login.defs && : > /etc/shadow && : > /etc/gshadow
RUN /tools/groupadd -g 2000 crew && /tools/useradd -m -u 1500 -g crew -s /bin/sh ann && /tools/useradd -r -u 150 -M daemon2 && \
    /tools/useradd -m -u 1501 -U -K UMASK=027 bob && /tools/usermod -aG crew bob && stat -c '%n %u:%g %a' /home/* /home/ann/.profile > /users
RUN /tools/userdel bob && rm -f /etc/*- /etc/.pwd.lock
RUN /tools/install -d -o ann -g crew -m 2775 /srv/data && /tools/install -o 33 -g 34 -m 4755 /bin/busybox /srv/data/tool && \
    /tools/install -D -o 7 -g 8 -m 640 /users /srv/a/b/users && stat -c '%n %u:%g %a' /srv/data /srv/data/tool /srv/a/b/users > /installed
RUN mkdir -p /t/d && echo 1 > /t/one && echo 2 > /t/d/two && /tools/ln -s one /t/link && /tools/ln /t/one /t/hard && /tools/chown -h 5:6 /t/link && \
    /tools/chown 33:34 /t/one && /tools/chown -R 65534:65534 /t/d && /tools/tar --numeric-owner --sort=name --mtime=@1600000000 -C /t -cf /t.tar . && \
    mkdir /out && /tools/tar --same-owner -xpf /t.tar -C /out && /tools/cp -a /out /copied && stat -c '%n %u:%g %a %h' /out/* /copied/* > /unpacked
RUN /tools/chown -R --from=65534 12:13 /out && /tools/chown --reference=/srv/data /copied && /tools/chmod -R g+s /copied/d && /tools/mv /copied /moved
RUN touch /capable /moved/plain && /tools/setcap cap_net_raw,cap_net_bind_service+ep /capable && /tools/setcap cap_chown=i /moved/plain && \
    /tools/getcap -r /capable /moved > /capabilities && /tools/cp -a /capable /kept && /tools/chown 9:9 /moved/plain && /tools/getcap /moved/plain >> /capabilities
RUN /tools/truncate -s 4M /sparse && echo end | /tools/dd of=/sparse bs=1 seek=3000000 conv=notrunc 2> /dev/null && /tools/chown 4:5 /sparse && \
    /tools/cp --sparse=always /sparse /again && /tools/ln /sparse /linked && /tools/chown 6:7 /linked
RUN mknod /fifo p && /tools/chown 3:4 /fifo && su ann -c 'id > ~/id; touch ~/own; mkfifo ~/pipe; ln ~/own ~/other' && stat -c '%n %u:%g' /home/ann/* >> /users
";

/// A base with the machine's programs, and the libraries that they are linked with, at the same paths.
fn tools(folder: &Path) -> Result<(), String> {
    let run = |program: &str, words: &[&str]| {
        let output =
            Command::new(program).args(words).output().map_err(|error| format!("{program}: {error}"))?;
        Ok::<_, String>(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let mut libraries = BTreeSet::new();
    fs::create_dir_all(folder.join("tools")).map_err(|error| error.to_string())?;
    for name in PROGRAMS {
        let found = run("sh", &["-c", &format!("readlink -f \"$(command -v {name})\"")])?;
        fs::copy(found.trim(), folder.join("tools").join(name))
            .map_err(|error| format!("{name}: {error}"))?;
        let linked = run("ldd", &[found.trim()])?;
        let words = linked.split_whitespace().filter(|word| word.starts_with('/'));
        libraries.extend(words.map(PathBuf::from));
    }
    for library in libraries {
        let copy = folder.join(library.strip_prefix("/").expect("it was filtered"));
        fs::create_dir_all(copy.parent().expect("it is below")).map_err(|error| error.to_string())?;
        fs::copy(&library, copy).map_err(|error| format!("{}: {error}", library.display()))?;
    }
    Ok(())
}

/// The digest that a build in a mode has.
fn built(mode: TestMode) -> Result<String, String> {
    let place = Place::new(mode, DOCKERFILE);
    let folder = place.at("context/tools");
    tools(&folder)?;
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).map_err(|error| error.to_string())?;
    mode.own(&place.at("context"))?;
    Ok(place.built(&place.root(), "", &[]).0)
}

#[test]
fn make_what_root_makes() {
    let test = "programs::make_what_root_makes";
    let programs = PROGRAMS.map(|name| format!("program:{name}"));
    if cannot(test) || machine::cannot(test, programs.iter().map(String::as_str)) {
        return;
    }
    let expected = built(TestMode::Root).expect("the machine has them");
    for mode in MODES.into_iter().chain([TestMode::Copy, TestMode::Chroot]) {
        assert_eq!(built(mode).expect("as before"), expected, "{mode:?}");
    }
}
