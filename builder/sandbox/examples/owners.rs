//! Runs a command in an overlay on a folder as a step with one id does, and says whose what it wrote is.
//!
//! ```text
//! cargo run -p sandbox --example owners -- ROOT LIKE STATE UID[:GID] COMMAND…
//! ```
//!
//! `ROOT` is a folder with a root file system, all of it owned by who runs this; `LIKE` is a file with the
//! owners that they seem to have, by `find ROOT -printf '%U %G %T@ %P\n'` of the same files. `STATE` is an existing folder for upper and work folders. `KILN_PLAIN=1` emulates nothing.

use std::collections::BTreeMap;
use std::error::Error;
use std::ffi::OsString;
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use sandbox::emulate::{Below, Emulation, Owner, Owners, Records};
use sandbox::{CapabilitySet, Mode, Network, Rootfs, Spec, Stdio, User, Writable, start};

/// The owners in the layers below.
#[derive(Debug, Default)]
struct Like(BTreeMap<Vec<u8>, Below>);

impl Like {
    /// Lines of `find ROOT -printf '%U %G %T@ %P\n'`.
    fn read(list: &str) -> Option<Like> {
        let entry = |line: &str| {
            let mut words = line.splitn(4, ' ');
            let owner =
                Owner { uid: words.next()?.parse().ok()?, gid: words.next()?.parse().ok()?, device: None };
            let (seconds, fraction) = words.next()?.split_once('.')?;
            let modified = (seconds.parse().ok()?, fraction.get(..9)?.parse().ok()?);
            Some((words.next()?.as_bytes().to_vec(), Below { owner, modified }))
        };
        list.lines().map(entry).collect::<Option<_>>().map(Like)
    }
}

impl Owners for Like {
    fn of(&self, path: &[u8]) -> Option<Below> {
        self.0.get(path).copied()
    }

    fn foreign(&self) -> Option<Vec<(Vec<u8>, Below)>> {
        let is_foreign = |(_, below): &(&Vec<u8>, &Below)| below.owner != Owner::ROOT;
        Some(self.0.iter().filter(is_foreign).map(|(path, below)| (path.clone(), *below)).collect())
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let [root, like, state, user, command @ ..] = arguments.as_slice() else {
        return Err("usage: owners ROOT LIKE STATE UID[:GID] COMMAND…".into());
    };
    let user = user.to_str().unwrap_or_default();
    let (uid, gid) = user.split_once(':').unwrap_or((user, user));
    let user = User { uid: uid.parse()?, gid: gid.parse()?, additional_gids: vec![gid.parse()?] };
    let plain = std::env::var_os("KILN_PLAIN").is_some();
    let records = Arc::new(Records::default());
    let owners = Arc::new(Like::read(&fs::read_to_string(like)?).ok_or("LIKE has a line that is wrong")?);
    let folder = fs::canonicalize(state)?.join(format!("step-{}", std::process::id()));
    for name in ["upper", "work", "empty"] {
        fs::create_dir_all(folder.join(name))?;
    }
    let upper = folder.join("upper");
    let spec = Spec {
        mode: if std::env::var_os("KILN_SINGLE").is_some() { Mode::SINGLE } else { Mode::ROOT },
        rootfs: Rootfs::Overlay {
            lowers: vec![fs::canonicalize(root)?],
            writable: Writable { upper: upper.clone(), work: folder.join("work") },
        },
        empty: folder.join("empty"),
        readonly_root: false,
        mounts: vec![],
        argv: command.to_vec(),
        env: vec![
            ("PATH".into(), Spec::DEFAULT_PATH.into()),
            ("DEBIAN_FRONTEND".into(), "noninteractive".into()),
        ],
        secret_env: Vec::new(),
        cwd: "/".into(),
        user,
        hostname: "owners".into(),
        network: Network::Host,
        capabilities: CapabilitySet::docker_default(),
        protect_kernel_paths: true,
        filter_calls: true,
        shm_size_bytes: Spec::DEFAULT_SHM_SIZE_BYTES,
        limits: vec![],
        groups: vec![],
        emulation: (!plain).then(|| Emulation { owners, records: records.clone(), mounts: BTreeMap::new() }),
    };
    let began = std::time::Instant::now();
    let report = start(&spec, Stdio::Inherit)?.wait()?;
    eprintln!(
        "{:?} in {:.0} ms, user {:?}, system {:?}",
        report.status,
        began.elapsed().as_secs_f64() * 1e3,
        report.user_time,
        report.system_time
    );
    if std::env::var_os("KILN_LIST").is_some() {
        list(&upper, &upper, &records)?;
    }
    fs::remove_dir_all(folder)?;
    Ok(())
}

/// Prints whose everything below a folder is.
fn list(top: &Path, folder: &Path, records: &Records) -> Result<(), Box<dyn Error>> {
    let opened = fs::File::open(folder)?;
    let mut names: Vec<OsString> =
        fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name())).collect::<Result<_, std::io::Error>>()?;
    names.sort();
    for name in names {
        let path = folder.join(&name);
        let found = fs::symlink_metadata(&path)?;
        let owner = records.of(opened.as_fd(), &name.clone().into_vec())?;
        let owner = owner.map_or(format!("{}:{}", found.uid(), found.gid()), |owner| owner.encode());
        println!("{:o} {owner} {}", found.mode(), path.strip_prefix(top)?.display());
        if found.is_dir() {
            list(top, &path, records)?;
        }
    }
    Ok(())
}
