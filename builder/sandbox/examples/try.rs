//! Runs a command some times in an overlay on a folder, and says how long a step takes.
//!
//! ```text
//! cargo run --release -p sandbox --example try -- ROOT STATE TIMES COMMAND…
//! ```
//!
//! `ROOT` is a folder with a root file system, `STATE` an existing folder for upper and work folders.
//! `TIMES` 0 prints the plan and runs nothing. With `KILN_TRY_MEGABYTES=500` the program holds that
//! much memory meanwhile, as a big build would.

use std::error::Error;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use sandbox::{CapabilitySet, Kernel, Mode, Network, Rootfs, Spec, Stdio, User, Writable, plan, start};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let [root, state, times, command @ ..] = arguments.as_slice() else {
        return Err("usage: try ROOT STATE TIMES COMMAND…".into());
    };
    let times: usize = times.to_str().unwrap_or_default().parse()?;
    let megabytes: usize =
        std::env::var("KILN_TRY_MEGABYTES").unwrap_or_default().parse().unwrap_or_default();
    let ballast = vec![1_u8; megabytes << 20];
    let kernel = Kernel::get();
    if times == 0 {
        println!("{kernel:?}");
        let spec = step(Path::new(root), &fresh(Path::new(state), 0)?, command);
        plan(&spec, None, kernel)?.iter().for_each(|call| println!("{call}"));
        return Ok(());
    }
    let mut milliseconds = Vec::new();
    for number in 0..times {
        let folder = fresh(Path::new(state), number)?;
        let spec = step(Path::new(root), &folder, command);
        let begin = Instant::now();
        let running = start(&spec, Stdio::Inherit)?;
        let started = begin.elapsed().as_secs_f64() * 1e3;
        let report = running.wait()?;
        milliseconds.push((begin.elapsed().as_secs_f64() * 1e3, started));
        if number == 0 {
            eprintln!("{report:?}");
        }
        fs::remove_dir_all(folder)?;
    }
    milliseconds.sort_by(|one, other| one.0.total_cmp(&other.0));
    let (median, started) = milliseconds[times / 2];
    let (fastest, _) = milliseconds[0];
    eprintln!(
        "{times} steps with {} MB held: median {median:.2} ms ({started:.2} ms until execve), fastest {fastest:.2} ms",
        ballast.len() >> 20
    );
    Ok(())
}

/// A new folder for one step.
fn fresh(state: &Path, number: usize) -> Result<PathBuf, std::io::Error> {
    let folder = fs::canonicalize(state)?.join(format!("step-{}-{number}", std::process::id()));
    for name in ["upper", "work", "empty"] {
        fs::create_dir_all(folder.join(name))?;
    }
    Ok(folder)
}

fn step(root: &Path, folder: &Path, command: &[OsString]) -> Spec {
    Spec {
        mode: Mode::ROOT,
        rootfs: Rootfs::Overlay {
            lowers: vec![fs::canonicalize(root).unwrap_or_else(|_| root.to_path_buf())],
            writable: Writable { upper: folder.join("upper"), work: folder.join("work") },
        },
        empty: folder.join("empty"),
        readonly_root: false,
        mounts: vec![],
        argv: command.to_vec(),
        env: vec![("PATH".into(), Spec::DEFAULT_PATH.into())],
        secret_env: Vec::new(),
        cwd: "/".into(),
        user: User::default(),
        hostname: "try".into(),
        network: Network::Host,
        capabilities: CapabilitySet::docker_default(),
        protect_kernel_paths: true,
        filter_calls: true,
        shm_size_bytes: Spec::DEFAULT_SHM_SIZE_BYTES,
        limits: vec![],
        groups: vec![],
        emulation: None,
    }
}
