//! `kiln info`: what this machine offers, and how Kiln would build here. All of it is tried, not guessed.

use std::path::{Path, PathBuf};

use engine::{IdMap, Resources};
use rustix::{
    fs::{Access, StatVfsMountFlags, access, statfs, statvfs},
    system::uname,
};
use sandbox::{
    Cgroups, Kernel, Mode, Wish,
    net::{Networks, Way},
    userns::{self, Offer},
};
use serde::Serialize;

use super::images::print;
use crate::{
    arguments::Info,
    failure::Failure,
    machine,
    place::{Place, state_folder},
    progress::bytes,
};

/// What is told, in the order in which it is told.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Told {
    version: &'static str,
    platform: String,
    user: u32,
    kernel: String,
    mode: Tried<String>,
    asked: String,
    notes: Vec<String>,
    modes: Vec<ToldMode>,
    state_folder: ToldFolder,
    features: Vec<Feature>,
    network: Tried<&'static str>,
    limits: Tried<&'static str>,
}

/// Something that is, or why it is not.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Tried<T> {
    value: Option<T>,
    why_not: Option<String>,
    fix: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ToldMode {
    name: &'static str,
    offered: bool,
    snapshots: Option<&'static str>,
    why_not: Option<String>,
    errno: Option<i32>,
    fix: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ToldFolder {
    path: PathBuf,
    exists: bool,
    id_map: Option<String>,
    file_system: String,
    writable: bool,
    noexec: bool,
    free_bytes: u64,
}

/// Something that the kernel has or has not.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Feature {
    name: &'static str,
    present: bool,
    otherwise: &'static str,
}

/// Tells it.
pub fn info(arguments: &Info, root: Option<PathBuf>, wish: Wish) -> Result<(), Failure> {
    let is_json = match arguments.format.as_str() {
        "text" => false,
        "json" => true,
        other => {
            let message = format!("--format {other}: there is no such format");
            return Err(Failure::usage_with(message, "--format text or --format json"));
        }
    };
    let told = told(state_folder(root)?, wish);
    if is_json {
        let text = serde_json::to_string_pretty(&told).expect("JSON can be written");
        return print(&[text]);
    }
    print(&lines(&told))
}

fn told(root: PathBuf, wish: Wish) -> Told {
    let user = rustix::process::geteuid().as_raw();
    // Before anything is made there.
    let exists = root.exists();
    // In processes of their own; this one enters the mode that is taken, and then tells what there is in that.
    let modes = userns::offers(&root, machine::variable("USER").as_deref());
    let entered = Place::enter(root.clone(), wish);
    let notes = entered.iter().flat_map(|place| place.notes.iter().map(ToString::to_string)).collect();
    let mode = entered.as_ref().ok().map(|place| place.mode);
    let system = uname();
    Told {
        version: env!("CARGO_PKG_VERSION"),
        platform: oci::Platform::host().to_string(),
        user,
        kernel: system.release().to_string_lossy().into_owned(),
        mode: match &entered {
            Ok(place) => Tried::is(place.mode.to_string()),
            Err(failure) => {
                let (why_not, fix) = failure.in_words();
                Tried { value: None, why_not: Some(why_not), fix }
            }
        },
        asked: asked(wish),
        notes,
        modes: modes.into_iter().map(told_mode).collect(),
        state_folder: folder(root, exists),
        features: features(mode),
        network: network(),
        limits: limits(),
    }
}

impl<T> Tried<T> {
    fn is(value: T) -> Tried<T> {
        Tried { value: Some(value), why_not: None, fix: None }
    }
}

fn asked(wish: Wish) -> String {
    match wish {
        Wish { mode: Some(mode), .. } => mode.to_string(),
        Wish { mode: None, copy: true } => "auto,copy".to_owned(),
        Wish { mode: None, copy: false } => "auto".to_owned(),
    }
}

fn told_mode(offer: Offer) -> ToldMode {
    let snapshots = |mode: &Mode| match mode.snapshots {
        sandbox::Snapshots::Overlay => "overlay",
        sandbox::Snapshots::Copy => "copy",
    };
    let refused = offer.offered.as_ref().err();
    ToldMode {
        name: offer.mode.name(),
        offered: refused.is_none(),
        snapshots: offer.offered.as_ref().ok().map(snapshots),
        why_not: refused.map(|refused| refused.why.clone()),
        errno: refused.and_then(|refused| refused.errno),
        fix: refused.and_then(|refused| refused.fix.clone()),
    }
}

fn folder(path: PathBuf, exists: bool) -> ToldFolder {
    let nearest = path.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("/"));
    let found = statvfs(nearest).ok();
    #[allow(clippy::unnecessary_cast, reason = "f_type has another width on other architectures")]
    let magic = statfs(nearest).map_or(0, |found| found.f_type as i64);
    ToldFolder {
        exists,
        id_map: IdMap::of_folder(&path).map(|map| map.to_string()),
        file_system: file_system(magic),
        writable: access(nearest, Access::WRITE_OK | Access::EXEC_OK).is_ok(),
        noexec: found.as_ref().is_some_and(|found| found.f_flag.contains(StatVfsMountFlags::NOEXEC)),
        free_bytes: found.as_ref().map_or(0, |found| found.f_bavail * found.f_frsize),
        path,
    }
}

/// File systems by the numbers of statfs(2).
fn file_system(magic: i64) -> String {
    let known = [
        (0xEF53, "ext4"),
        (0x5846_5342, "xfs"),
        (0x9123_683E, "btrfs"),
        (0x0102_1994, "tmpfs"),
        (0x794C_7630, "overlayfs"),
        (0x6969, "nfs"),
        (0x2FC1_2FC1, "zfs"),
        (0xF2F5_2010, "f2fs"),
        (0x6573_5546, "fuse"),
        (0x8584_58F6, "ramfs"),
        (0xCA45_1A4E, "bcachefs"),
        (0xFE53_4D42, "cifs"),
    ];
    let name = known.into_iter().find(|(number, _)| *number == magic);
    name.map_or_else(|| format!("of type {magic:#x}"), |(_, name)| name.to_owned())
}

fn features(mode: Option<Mode>) -> Vec<Feature> {
    let kernel = Kernel::get();
    let feature = |name, present, otherwise| Feature { name, present, otherwise };
    let mut features = vec![
        feature("open_tree, move_mount (Linux 5.2)", kernel.new_mount_api, "only chroot works"),
        feature("mount_setattr (Linux 5.12)", kernel.mount_setattr, "read-only mounts are remounted"),
        feature(
            "overlayfs lowerdir+ (Linux 6.7)",
            kernel.lowerdir_append,
            "many long layer paths are refused",
        ),
        feature("seccomp", kernel.seccomp, "system calls are not filtered"),
        feature("unified control groups", kernel.unified_cgroup, "version 1 is used"),
    ];
    if mode.is_some_and(Mode::has_user_namespace) {
        features.push(feature("/proc can be mounted", kernel.mounts_proc, "the outer one is shown"));
        features.push(feature(
            "/sys can be mounted",
            kernel.mounts_sysfs,
            "the outer one is shown, read-only",
        ));
    }
    features
}

/// Makes a network as for a step.
fn network() -> Tried<&'static str> {
    let networks = Networks::new(PathBuf::from(engine::SHARED), machine::surroundings().path);
    match networks.announce().take(true) {
        Ok(network) => Tried::is(match network.way() {
            Way::Nat => "of its own, by address translation",
            Way::Pasta => "of its own, by pasta",
            Way::Stack => "of its own, by Kiln's own stack",
        }),
        Err(unavailable) => Tried {
            value: None,
            why_not: Some(unavailable.to_string()),
            fix: Some("--network=none where a step needs none; the host's is shared otherwise".to_owned()),
        },
    }
}

/// Makes a control group as for a step.
fn limits() -> Tried<&'static str> {
    let some = Resources { memory_bytes: Some(1 << 30), pids: Some(1000), ..Resources::default() };
    match Cgroups::open(some, None) {
        Ok(_) => Tried::is("memory, processors and processes of a step"),
        Err(error) => Tried { value: None, why_not: Some(error.to_string()), fix: error.help() },
    }
}

fn lines(told: &Told) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = |name: &str, value: &str| lines.push(format!("{name:<14}{value}").trim_end().to_owned());
    let Told { version, platform, user, kernel, .. } = told;
    line("Version", &format!("{version}, {platform}"));
    line("Kernel", kernel);
    line("User", &user.to_string());
    let chosen = |mode: &String| format!("{mode} (asked for: {})", told.asked);
    tried(&mut line, "Mode", &told.mode, chosen);
    for note in &told.notes {
        line("", &format!("note: {note}"));
    }
    for mode in &told.modes {
        match (&mode.why_not, mode.snapshots) {
            (Some(why), _) => line(&format!("  {}", mode.name), &format!("no: {why}")),
            (None, Some("copy")) => line(&format!("  {}", mode.name), "yes, layers are copied"),
            (None, _) => line(&format!("  {}", mode.name), "yes"),
        }
        if let Some(fix) = &mode.fix {
            line("", &format!("help: {fix}"));
        }
    }
    let ToldFolder { path, exists, id_map, file_system, writable, noexec, free_bytes } = &told.state_folder;
    let there = if *exists { "" } else { ", not there yet" };
    line("State folder", &format!("{}{there}", path.display()));
    if let Some(id_map) = id_map {
        line("", &format!("owners in it: {id_map}"));
    }
    let noexec = if *noexec { ", noexec" } else { "" };
    line("", &format!("on {file_system}, {} free{noexec}", bytes(*free_bytes)));
    if !writable {
        line("", "which cannot be written");
        line("", "help: name a folder that you can write with `--root DIR` or KILN_ROOT");
    }
    for (at, feature) in told.features.iter().enumerate() {
        let name = if at == 0 { "Kernel has" } else { "" };
        let state = if feature.present { "yes" } else { "no" };
        let otherwise = if feature.present { String::new() } else { format!(": {}", feature.otherwise) };
        line(name, &format!("{state:<4}{}{otherwise}", feature.name));
    }
    tried(&mut line, "Network", &told.network, |value| (*value).to_owned());
    tried(&mut line, "Limits", &told.limits, |value| (*value).to_owned());
    lines
}

/// A line of what was tried, and one of what would help.
fn tried<T>(line: &mut impl FnMut(&str, &str), name: &str, tried: &Tried<T>, shown: impl Fn(&T) -> String) {
    match (&tried.value, &tried.why_not) {
        (Some(value), _) => line(name, &shown(value)),
        (None, why_not) => line(name, &format!("none: {}", why_not.as_deref().unwrap_or_default())),
    }
    if let Some(fix) = &tried.fix {
        line("", &format!("help: {fix}"));
    }
}
