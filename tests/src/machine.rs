//! What the machine has: a test that needs more says so and is skipped, never passed in silence.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::{emulator, mode, program::workspace};

/// Says that a test cannot run here and why, in the form that `tests/run.sh` collects and compares with
/// `tests/skipped.txt`.
pub fn skip(test: &str, reason: &str) {
    println!("SKIP {test}: {reason}");
}

/// Whether a test cannot run here, which is then said.
pub fn cannot<'a>(test: &str, needs: impl IntoIterator<Item = &'a str>) -> bool {
    let lack = needs.into_iter().find_map(lacks);
    if let Some(reason) = &lack {
        skip(test, reason);
    }
    lack.is_some()
}

/// Why the machine lacks `need`, or none where it has it.
///
/// Needs: `steps`, that Kiln builds for who runs the tests, `root`, with the reason behind a colon, `busybox` (the base image of the fixtures),
/// `program:NAME`, a program on the `PATH`, `file:PATH`, `cgroup:CONTROLLER`, and `tun`, the device for tunnels, `pasta`, the program where it is
/// not too old, and `refuses:ARCHITECTURE`, that programs of it are not run.
pub fn lacks(need: &str) -> Option<String> {
    match need {
        "root" => is_user().then(|| "needs root".to_owned()),
        "steps" => mode::of_user().err(),
        "busybox" => base_layout().err(),
        "tun" => {
            let opened = std::fs::OpenOptions::new().read(true).write(true).open("/dev/net/tun");
            opened.err().map(|error| format!("/dev/net/tun: {error}"))
        }
        "pasta" => {
            let help = std::process::Command::new("pasta").arg("--help").output();
            let knows = |text: &[u8]| String::from_utf8_lossy(text).contains("--map-host-loopback");
            let is_new = help.is_ok_and(|help| knows(&help.stdout) || knows(&help.stderr));
            (!is_new).then(|| "no pasta (of August 2024 or later) on the PATH".to_owned())
        }
        _ => match need.split_once(':') {
            Some(("root", why)) => is_user().then(|| format!("needs root: {why}")),
            Some(("cgroup", controller)) => no_groups(controller),
            Some(("program", name)) if on_path(name) => None,
            Some(("file", path)) if Path::new(path).is_file() => None,
            Some(("file", path)) => Some(format!("no {path}")),
            Some(("program", name)) => Some(format!("no {name} on the PATH")),
            Some(("refuses", architecture)) => {
                emulator::runs(architecture).then(|| format!("this machine runs programs for {architecture}"))
            }
            _ => Some(format!("nobody knows what `{need}` is")),
        },
    }
}

/// Whether it is not root who runs the tests.
pub fn is_user() -> bool {
    !rustix::process::geteuid().is_root()
}

/// Why no control groups with that controller can be made. One is tried: in the first group, and by a user in the own one.
fn no_groups(controller: &str) -> Option<String> {
    let first = Path::new("/sys/fs/cgroup");
    let given = std::fs::read_to_string(first.join("cgroup.subtree_control")).unwrap_or_default();
    let unified = given.split_whitespace().any(|name| name == controller);
    let above = if unified { first.to_owned() } else { first.join(controller) };
    let above = if is_user() { above.join(own_group(if unified { "" } else { controller })) } else { above };
    let group = above.join(format!(
        "kiln-tests-{}-{controller}-{:?}",
        std::process::id(),
        std::thread::current().id()
    ));
    let made = std::fs::create_dir(&group).and_then(|()| std::fs::remove_dir(&group));
    made.err().map(|error| format!("no control group for {controller} can be made: {error}"))
}

/// The group of this process in the hierarchy of a controller, or without a name in that of version 2.
fn own_group(controller: &str) -> String {
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let own = groups.lines().find_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        controllers.split(',').any(|name| name == controller).then(|| path.trim_start_matches('/').to_owned())
    });
    own.unwrap_or_default()
}

fn on_path(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(name).is_file())
}

/// A folder of made things that outlives a test run: the target folder's own.
pub fn made() -> PathBuf {
    let test = std::env::current_exe().expect("a running program has a path");
    test.ancestors()
        .nth(3)
        .expect("cargo puts tests three folders below the target folder")
        .join("kiln-tests")
}

/// An OCI layout that holds `busybox:latest`, made once from Debian's busybox-static.
///
/// # Errors
/// What is missing, or what the script that makes it said.
pub fn base_layout() -> Result<&'static Path, String> {
    static LAYOUT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    LAYOUT.get_or_init(make_base_layout).as_deref().map_err(Clone::clone)
}

fn make_base_layout() -> Result<PathBuf, String> {
    if !Path::new("/bin/busybox").exists() {
        return Err("no /bin/busybox (Debian: busybox-static)".to_owned());
    }
    let folder = made();
    let layout = folder.join("base");
    if layout.join("index.json").exists() {
        return Ok(layout);
    }
    std::fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    // Aside and renamed: another test process may be making the same.
    let aside = tempfile::tempdir_in(&folder).map_err(|error| error.to_string())?;
    let made = Command::new("bash")
        .arg(workspace().join("tests/conformance/base/make.sh"))
        .arg(aside.path().join("base"))
        .output()
        .map_err(|error| format!("bash: {error}"))?;
    if !made.status.success() {
        return Err(format!("base/make.sh: {}", String::from_utf8_lossy(&made.stderr)));
    }
    match std::fs::rename(aside.path().join("base"), &layout) {
        Err(error) if !layout.join("index.json").exists() => Err(format!("{}: {error}", layout.display())),
        _ => Ok(layout),
    }
}

/// The flag that makes `FROM busybox` mean the base image of [`base_layout`].
///
/// # Errors
/// As [`base_layout`].
pub fn base_argument() -> Result<String, String> {
    Ok(format!("busybox=oci-layout://{}:busybox:latest", base_layout()?.display()))
}
