//! The plan where no namespace can be made: `chroot` alone.
//!
//! The root is a folder in which everything that would be mounted lies already. The first process stays outside, where it has
//! `/proc` and finds by that what the command leaves behind, and the command's own goes in.
//!
//! - Nothing is mounted, and no namespace is new: host name, network, processes and queues are those of whoever runs Kiln.
//! - CAP_SYS_CHROOT is dropped: with it, root climbs out of a chroot by a second one.
//! - A filter for system calls needs CAP_SYS_ADMIN or `no_new_privs`, which breaks `sudo`. A command that has no use for that
//!   gets both filters: the list, and the one by which it is shown `/proc` ([`crate::procfs`], which says who that is). Another
//!   gets the list where this process may; who may not is in a container, as a rule, whose own filter holds for its steps.

use super::{MASK, Planner, absolute};
use crate::{
    Call, Capability, CapabilitySet, Error, Filter, Mount, MountKind, Namespaces, Network, Rootfs, Spec,
    procfs,
};

impl Planner<'_> {
    /// Lists all calls of a step that is kept in by `chroot`.
    pub(super) fn plan_chroot(mut self) -> Result<Vec<Call>, Error> {
        let spec = self.spec;
        let Rootfs::Directory { path } = &spec.rootfs else {
            return Err(Error::NotInChroot { what: "a root of stacked layers" });
        };
        refuse(spec)?;
        let keep = kept(spec.capabilities);
        let (uid, gid) = (spec.user.uid, spec.user.gid);
        self.calls.extend([
            Call::Clone { namespaces: Namespaces::NONE },
            Call::CloseForeign,
            Call::HideMemory,
        ]);
        self.calls.push(Call::AdoptOrphans);
        self.join_groups()?;
        match self.terminal {
            Some(size) => self.calls.push(Call::OpenTerminal { size, uid }),
            None if uid != 0 => self.calls.push(Call::OwnStreams { uid }),
            None => {}
        }
        self.calls.extend([
            Call::JoinSessionKeyring,
            Call::Spawn,
            Call::NewSession { terminal: self.terminal.is_some() },
            // Before the root is left: it has a `/dev/null` for sure.
            Call::PlaceStreams,
            Call::ChangeRoot { path: absolute("the root folder", path)? },
            Call::EnterWorkingDirectory { path: absolute("the working directory", &spec.cwd)? },
        ]);
        self.calls.extend(spec.limits.iter().map(|limit| Call::Limit(*limit)));
        self.calls.extend([
            Call::BoundCapabilities { keep },
            Call::SetGroups { gids: spec.user.additional_gids.clone() },
        ]);
        // Before the other filter, which may then be installed as well.
        if self.kernel.seccomp {
            self.calls
                .extend(procfs::filter().map(|filter| Call::InstallListener { filter, optional: false }));
        }
        if spec.filter_calls && self.kernel.seccomp {
            self.calls.extend(Filter::docker_default(keep).map(|filter| Call::InstallFilter { filter }));
        }
        self.calls.push(Call::SetIds { uid, gid });
        if uid == 0 {
            self.calls.push(Call::SetCapabilities { keep });
        }
        // After the ids: a change of them takes it back.
        self.calls.extend([Call::DieWithParent, Call::SetMask { mask: MASK }, Call::CloseOthers]);
        self.calls.push(super::process::exec(spec)?);
        Ok(self.calls)
    }
}

/// What a chroot cannot give.
fn refuse(spec: &Spec) -> Result<(), Error> {
    let not = |what| Err(Error::NotInChroot { what });
    match &spec.network {
        Network::None => return not("a step without a network"),
        Network::Namespace(_) => return not("a network of its own"),
        Network::Host => {}
    }
    // Those are given out by who answers for `/proc`.
    let is_served = |mount: &Mount| matches!(mount.kind, MountKind::File { .. });
    match spec.mounts.iter().all(is_served) {
        true if spec.readonly_root => not("a read-only root"),
        true => Ok(()),
        false => not("a mount"),
    }
}

/// The capabilities without the one that leads out.
fn kept(wanted: CapabilitySet) -> CapabilitySet {
    Capability::from_name("SYS_CHROOT").map_or(wanted, |out| wanted.without(out))
}
