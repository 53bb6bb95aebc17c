//! What every step is given in `/etc`: `hosts` and `resolv.conf`, which are generated and never in a layer. Made once for
//! all steps of a build that are given the same, because a file system takes longer to make and remove a few files than a
//! short step takes to run.

use std::{
    collections::BTreeMap,
    fs,
    net::{IpAddr, Ipv4Addr},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use graph::ExtraHost;
use sandbox::{Mount, MountKind, Rootfs, Writable, net};

use super::{Effects, resolution::resolution};
use crate::{error::Cause, result::Mounted};

/// How many layers overlayfs stacks.
const LAYERS: usize = 500;

/// The folders made so far.
#[derive(Default)]
pub(crate) struct Etc {
    /// By what the two files hold.
    files: Mutex<BTreeMap<(String, Vec<u8>), PathBuf>>,
    places: Mutex<Option<PathBuf>>,
}

impl Effects {
    /// The mounts of `/etc/hosts` and `/etc/resolv.conf`: for a step in a network of its own, else in the host's or none.
    pub(crate) fn network_files(
        &self,
        hostname: &str,
        extra: &[ExtraHost],
        own: Option<&net::Network>,
    ) -> Result<Vec<Mount>, Cause> {
        // Asked for each step: a laptop's changes with the network. A host without it has no name resolution to hand on.
        let host = fs::read("/etc/resolv.conf").unwrap_or_default();
        let resolution = match own {
            Some(own) => self.resolution(&host, own.surroundings()),
            None => host,
        };
        let gateway = own.map_or(IpAddr::from(Ipv4Addr::LOCALHOST), |own| own.surroundings().host);
        let texts = (hosts(hostname, extra, gateway), resolution);
        let mut files = self.etc.files.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = match files.get(&texts) {
            Some(folder) => folder.clone(),
            None => {
                let folder = self.lease.new_folder()?;
                write(&folder.join("hosts"), texts.0.as_bytes())?;
                write(&folder.join("resolv.conf"), &texts.1)?;
                files.insert(texts, folder.clone());
                folder
            }
        };
        let mount = |name: &str| Mount {
            target: PathBuf::from("/etc").join(name),
            kind: MountKind::Bind { root: folder.clone(), path: PathBuf::from(name), readonly: true },
        };
        Ok(vec![mount("hosts"), mount("resolv.conf")])
    }

    /// What a step in a network of its own is told of name servers. Where it reaches none of the host's, that is said once.
    fn resolution(&self, host: &[u8], around: net::Surroundings) -> Vec<u8> {
        let upstream = || fs::read_to_string("/run/systemd/resolve/resolv.conf").ok();
        let made = resolution(&String::from_utf8_lossy(host), upstream, around.has_ipv6, around.name_server);
        if !made.unreachable.is_empty() {
            let message = format!(
                "RUN steps do not reach the host's name server ({}) and ask 8.8.8.8: name one in /etc/resolv.conf that is \
                 not on the host's loopback, or build with --network=host",
                made.unreachable.join(", ")
            );
            self.warn_once("name-server-on-loopback", &message);
        }
        made.text.into_bytes()
    }

    /// The root file system of a step: its layers, and below them the mount points of the two files. Where the layers
    /// have none of their own, they would be made in the step's layer and removed from it again.
    pub(crate) fn stacked(&self, below: &Mounted, writable: Writable) -> Result<Rootfs, Cause> {
        if *self.marks.get_or_init(|| self.store.lacks_marks()) {
            return Err(Cause::LayersWithoutMarks);
        }
        let mut lowers = below.lowers();
        if lowers.len() < LAYERS {
            lowers.push(self.places()?);
        }
        Ok(Rootfs::Overlay { lowers, writable })
    }

    fn places(&self) -> Result<PathBuf, Cause> {
        let mut places = self.etc.places.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(folder) = &*places {
            return Ok(folder.clone());
        }
        let folder = self.lease.new_folder()?;
        let etc = folder.join("etc");
        fs::create_dir(&etc).map_err(Cause::io("create", &etc))?;
        fs::set_permissions(&etc, fs::Permissions::from_mode(0o755)).map_err(Cause::io("chmod", &etc))?;
        write(&etc.join("hosts"), b"")?;
        write(&etc.join("resolv.conf"), b"")?;
        *places = Some(folder.clone());
        Ok(folder)
    }
}

/// Writes a file that every user of a step reads, whatever the umask is.
fn write(path: &Path, text: &[u8]) -> Result<(), Cause> {
    fs::write(path, text).map_err(Cause::io("write", path))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).map_err(Cause::io("chmod", path))
}

fn hosts(host_name: &str, extra: &[ExtraHost], gateway: IpAddr) -> String {
    let mut text = format!("127.0.0.1\tlocalhost {host_name}\n::1\tlocalhost ip6-localhost ip6-loopback\n");
    for ExtraHost { host, ip } in extra {
        let ip = if ip == ExtraHost::GATEWAY { gateway.to_string() } else { ip.clone() };
        text.push_str(&format!("{ip}\t{host}\n"));
    }
    text
}
