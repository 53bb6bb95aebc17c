//! Programs of other architectures: headers that look like one, Debian's busybox, and an emulator registered with the
//! kernel for as long as a test runs.
//!
//! What is registered with binfmt_misc holds for the whole machine. An entry of a test has a name of its own and goes when
//! it is dropped; one that a killed test left is removed by the next.

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use tempfile::TempDir;

use crate::{machine, program::workspace};

/// Where the system mounts the kernel's entries.
const USUAL: &str = "/proc/sys/fs/binfmt_misc";

/// Where a test's entries begin.
const PREFIX: &str = "kiln-test-";

/// The first bytes of a program for an architecture: what the kernel and emulators know it by.
///
/// # Panics
/// Nobody has written the architecture down here.
pub fn header(architecture: &str) -> Vec<u8> {
    let (class, order, machine): (u8, u8, u16) = match architecture {
        "arm64" => (2, 1, 183),
        "riscv64" => (2, 1, 243),
        "s390x" => (2, 2, 22),
        other => panic!("which number has {other}?"),
    };
    let half = |number: u16| if order == 1 { number.to_le_bytes() } else { number.to_be_bytes() };
    let mut header = vec![0x7f, b'E', b'L', b'F', class, order, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    header.extend(half(2));
    header.extend(half(machine));
    header.resize(64, 0);
    header
}

/// Whether this machine starts programs of an architecture, by itself or through an emulator.
pub fn runs(architecture: &str) -> bool {
    let mut file = tempfile::NamedTempFile::new().expect("there is a folder for temporary files");
    file.write_all(&header(architecture)).expect("there is room for a header");
    let path = file.into_temp_path();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("it is our file");
    let started = Command::new(&path).stdout(Stdio::null()).stderr(Stdio::null()).status();
    !started.is_err_and(|error| error.raw_os_error() == Some(8 /* ENOEXEC */))
}

/// Debian's busybox for an architecture, fetched once.
///
/// # Errors
/// What the script that fetches it said.
pub fn busybox(architecture: &str) -> Result<PathBuf, String> {
    let path = machine::made().join(format!("busybox-{architecture}"));
    if path.exists() {
        return Ok(path);
    }
    let script = workspace().join("tests/foreign.sh");
    let fetched = Command::new("bash").arg(script).arg(architecture).arg(&path).output();
    let fetched = fetched.map_err(|error| format!("bash: {error}"))?;
    match fetched.status.success() {
        true => Ok(path),
        false => Err(String::from_utf8_lossy(&fetched.stderr).trim().to_owned()),
    }
}

/// An emulator that the kernel knows, until this is dropped.
pub struct Emulator {
    name: String,
    entries: Entries,
}

impl Emulator {
    /// Registers Debian's QEMU for an architecture; with flag `F` steps have it as well.
    ///
    /// # Errors
    /// Why this machine cannot.
    pub fn register(architecture: &str, flags: &str) -> Result<Emulator, String> {
        let qemu = format!(
            "/usr/bin/qemu-{}-static",
            if architecture == "arm64" { "aarch64" } else { architecture }
        );
        if !Path::new(&qemu).exists() {
            return Err(format!("no {qemu} (Debian: qemu-user-static)"));
        }
        let name = format!("{PREFIX}{}-{architecture}", std::process::id());
        let escaped = |bytes: &[u8]| bytes.iter().map(|byte| format!("\\x{byte:02x}")).collect::<String>();
        let magic = escaped(&header(architecture)[..20]);
        // Neither the ABI nor whether the program may lie anywhere in memory matters.
        let mut mask = [0xff; 20];
        mask[7] = 0;
        mask[if header(architecture)[5] == 1 { 16 } else { 17 }] = 0xfe;
        let line = format!(":{name}:M::{magic}:{}:{qemu}:{flags}", escaped(&mask));
        let entries = Entries::open()?;
        remove_left_over(entries.folder());
        fs::write(entries.folder().join("register"), line).map_err(said)?;
        Ok(Emulator { name, entries })
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        // Where it cannot be removed any more, the next test does it.
        let _removed = fs::write(self.entries.folder().join(&self.name), "-1");
    }
}

fn remove_left_over(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        if owner.is_some_and(|id| !Path::new("/proc").join(id).exists()) {
            let _gone_already = fs::write(entry.path(), "-1");
        }
    }
}

/// The kernel's folder of entries. They last as long as it is mounted somewhere, so what was mounted for a test stays until
/// its emulator goes.
enum Entries {
    /// Where the system has it.
    Usual,
    /// Mounted here.
    Mounted(TempDir),
}

impl Entries {
    fn open() -> Result<Entries, String> {
        if Path::new(USUAL).join("register").exists() {
            return Ok(Entries::Usual);
        }
        let folder = TempDir::new().map_err(said)?;
        let arguments = ["-t", "binfmt_misc", "none"];
        let output = Command::new("mount").args(arguments).arg(folder.path()).output().map_err(said)?;
        match output.status.success() {
            true => Ok(Entries::Mounted(folder)),
            false => Err(format!("binfmt_misc: {}", String::from_utf8_lossy(&output.stderr).trim())),
        }
    }

    fn folder(&self) -> &Path {
        match self {
            Entries::Usual => Path::new(USUAL),
            Entries::Mounted(folder) => folder.path(),
        }
    }
}

impl Drop for Entries {
    fn drop(&mut self) {
        if let Entries::Mounted(folder) = self {
            // What is still mounted is seen in the list of mounts; a test cannot do more.
            let _unmounted = Command::new("umount").arg(folder.path()).status();
        }
    }
}

fn said(error: io::Error) -> String {
    format!("binfmt_misc: {error}")
}
