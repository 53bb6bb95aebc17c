//! The ids and capabilities of a process, and how its calls change them: the rules of `kernel/sys.c` and
//! `security/commoncap.c`, on a value.

use rustix::io::Errno;

/// Ids and capabilities, as the step's process believes to have them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Credentials {
    pub user: Ids,
    pub group: Ids,
    /// Supplementary groups, sorted as the kernel sorts them.
    pub groups: Vec<u32>,
    pub permitted: u64,
    pub effective: u64,
    pub inheritable: u64,
    pub bounding: u64,
    pub keeps_capabilities: bool,
}

/// The four ids that a process has of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ids {
    pub real: u32,
    pub effective: u32,
    pub saved: u32,
    pub file_system: u32,
}

/// "Leave it": -1.
const SAME: u32 = u32::MAX;
/// The most supplementary groups (`NGROUPS_MAX`).
pub(crate) const GROUPS: usize = 65536;

pub(crate) const CHOWN: u64 = 1 << 0;
pub(crate) const DAC_OVERRIDE: u64 = 1 << 1;
pub(crate) const DAC_READ_SEARCH: u64 = 1 << 2;
pub(crate) const FOWNER: u64 = 1 << 3;
const FSETID: u64 = 1 << 4;
const SETGID: u64 = 1 << 6;
const SETUID: u64 = 1 << 7;
const SETPCAP: u64 = 1 << 8;
const LINUX_IMMUTABLE: u64 = 1 << 9;
pub(crate) const SYS_CHROOT: u64 = 1 << 18;
pub(crate) const MKNOD: u64 = 1 << 27;
const MAC_OVERRIDE: u64 = 1 << 32;
/// What depends on the user for files (`CAP_FS_SET`).
const OF_FILES: u64 =
    CHOWN | DAC_OVERRIDE | DAC_READ_SEARCH | FOWNER | FSETID | LINUX_IMMUTABLE | MKNOD | MAC_OVERRIDE;

impl Ids {
    /// All four the same.
    pub fn all(id: u32) -> Ids {
        Ids { real: id, effective: id, saved: id, file_system: id }
    }

    fn any_is(&self, id: u32) -> bool {
        [self.real, self.effective, self.saved].contains(&id)
    }

    /// `setuid`, `setgid`.
    fn set(self, id: u32, may: bool) -> Result<Ids, Errno> {
        match id {
            SAME => Err(Errno::INVAL),
            _ if may => Ok(Ids::all(id)),
            _ if id == self.real || id == self.saved => Ok(Ids { effective: id, file_system: id, ..self }),
            _ => Err(Errno::PERM),
        }
    }

    /// `setreuid`, `setregid`.
    fn set_two(self, real: u32, effective: u32, may: bool) -> Result<Ids, Errno> {
        let mut new = self;
        if real != SAME {
            if !may && real != self.real && real != self.effective {
                return Err(Errno::PERM);
            }
            new.real = real;
        }
        if effective != SAME {
            if !may && !self.any_is(effective) {
                return Err(Errno::PERM);
            }
            new.effective = effective;
        }
        if real != SAME || effective != SAME && effective != self.real {
            new.saved = new.effective;
        }
        new.file_system = new.effective;
        Ok(new)
    }

    /// `setresuid`, `setresgid`.
    fn set_three(self, wanted: [u32; 3], may: bool) -> Result<Ids, Errno> {
        if !may && wanted.iter().any(|id| *id != SAME && !self.any_is(*id)) {
            return Err(Errno::PERM);
        }
        let [real, effective, saved] = wanted;
        let or = |wanted, before| if wanted == SAME { before } else { wanted };
        let effective = or(effective, self.effective);
        Ok(Ids { real: or(real, self.real), effective, saved: or(saved, self.saved), file_system: effective })
    }
}

/// The file that is executed, as far as it changes who does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Program {
    /// Its owner, if it is a set-user-id file.
    pub user: Option<u32>,
    /// Its group, if it is a set-group-id file.
    pub group: Option<u32>,
}

impl Credentials {
    /// Of a step that runs as this user with these capabilities at most.
    pub fn of_step(uid: u32, gid: u32, groups: &[u32], bounding: u64) -> Credentials {
        let own = if uid == 0 { bounding } else { 0 };
        let mut groups = groups.to_vec();
        groups.sort_unstable();
        Credentials {
            user: Ids::all(uid),
            group: Ids::all(gid),
            groups,
            permitted: own,
            effective: own,
            inheritable: 0,
            bounding,
            keeps_capabilities: false,
        }
    }

    /// Whether a capability is in force.
    pub fn can(&self, capability: u64) -> bool {
        self.effective & capability != 0
    }

    /// Whether what it makes belongs to root, without more.
    pub fn makes_files_of_root(&self) -> bool {
        self.user.file_system == 0 && self.group.file_system == 0
    }

    /// Whether it is of this group, where files are concerned.
    pub fn is_in(&self, gid: u32) -> bool {
        self.group.file_system == gid || self.groups.binary_search(&gid).is_ok()
    }

    pub fn set_user(&self, uid: u32) -> Result<Credentials, Errno> {
        Ok(self.with_user(self.user.set(uid, self.can(SETUID))?))
    }

    pub fn set_users(&self, real: u32, effective: u32) -> Result<Credentials, Errno> {
        Ok(self.with_user(self.user.set_two(real, effective, self.can(SETUID))?))
    }

    pub fn set_all_users(&self, wanted: [u32; 3]) -> Result<Credentials, Errno> {
        Ok(self.with_user(self.user.set_three(wanted, self.can(SETUID))?))
    }

    pub fn set_group(&self, gid: u32) -> Result<Credentials, Errno> {
        Ok(Credentials { group: self.group.set(gid, self.can(SETGID))?, ..self.clone() })
    }

    pub fn set_two_groups(&self, real: u32, effective: u32) -> Result<Credentials, Errno> {
        Ok(Credentials { group: self.group.set_two(real, effective, self.can(SETGID))?, ..self.clone() })
    }

    pub fn set_all_groups(&self, wanted: [u32; 3]) -> Result<Credentials, Errno> {
        Ok(Credentials { group: self.group.set_three(wanted, self.can(SETGID))?, ..self.clone() })
    }

    /// `setgroups`.
    pub fn set_groups(&self, mut groups: Vec<u32>) -> Result<Credentials, Errno> {
        if !self.can(SETGID) {
            return Err(Errno::PERM);
        }
        groups.sort_unstable();
        Ok(Credentials { groups, ..self.clone() })
    }

    /// `setfsuid`, which does not say whether it did anything.
    pub fn set_file_user(&self, uid: u32) -> Credentials {
        let user = self.user;
        if uid == SAME || !(user.any_is(uid) || uid == user.file_system || self.can(SETUID)) {
            return self.clone();
        }
        let mut new = Credentials { user: Ids { file_system: uid, ..user }, ..self.clone() };
        if user.file_system == 0 && uid != 0 {
            new.effective &= !OF_FILES;
        }
        if user.file_system != 0 && uid == 0 {
            new.effective |= new.permitted & OF_FILES;
        }
        new
    }

    /// `setfsgid`.
    pub fn set_file_group(&self, gid: u32) -> Credentials {
        let group = self.group;
        if gid == SAME || !(group.any_is(gid) || gid == group.file_system || self.can(SETGID)) {
            return self.clone();
        }
        Credentials { group: Ids { file_system: gid, ..group }, ..self.clone() }
    }

    /// `prctl(PR_SET_KEEPCAPS)`.
    pub fn keep_capabilities(&self, keep: u64) -> Result<Credentials, Errno> {
        match keep {
            0 | 1 => Ok(Credentials { keeps_capabilities: keep == 1, ..self.clone() }),
            _ => Err(Errno::INVAL),
        }
    }

    /// `capset`.
    pub fn set_capabilities(
        &self,
        effective: u64,
        permitted: u64,
        inheritable: u64,
    ) -> Result<Credentials, Errno> {
        let exceeds = |set: u64, bound: u64| set & !bound != 0;
        if !self.can(SETPCAP) && exceeds(inheritable, self.inheritable | self.permitted)
            || exceeds(inheritable, self.inheritable | self.bounding)
            || exceeds(permitted, self.permitted)
            || exceeds(effective, permitted)
        {
            return Err(Errno::PERM);
        }
        Ok(Credentials { effective, permitted, inheritable, ..self.clone() })
    }

    /// `execve`.
    pub fn execute(&self, program: Program) -> Credentials {
        let mut new = Credentials { keeps_capabilities: false, ..self.clone() };
        new.user.effective = program.user.unwrap_or(self.user.effective);
        new.group.effective = program.group.unwrap_or(self.group.effective);
        let settle = |ids: &mut Ids| {
            ids.saved = ids.effective;
            ids.file_system = ids.effective;
        };
        settle(&mut new.user);
        settle(&mut new.group);
        new.permitted = match new.user.effective == 0 || new.user.real == 0 {
            true => self.inheritable | self.bounding,
            false => 0,
        };
        new.effective = if new.user.effective == 0 { new.permitted } else { 0 };
        new
    }

    /// Changes the user, and the capabilities that depend on it (`cap_emulate_setxuid`).
    fn with_user(&self, user: Ids) -> Credentials {
        let mut new = Credentials { user, ..self.clone() };
        if self.user.any_is(0) && !user.any_is(0) && !self.keeps_capabilities {
            new.permitted = 0;
            new.effective = 0;
        }
        if self.user.effective == 0 && user.effective != 0 {
            new.effective = 0;
        }
        if self.user.effective != 0 && user.effective == 0 {
            new.effective = new.permitted;
        }
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: u64 = 0xa80425fb;

    fn root() -> Credentials {
        Credentials::of_step(0, 0, &[], ALL)
    }

    fn ids(real: u32, effective: u32, saved: u32) -> Ids {
        Ids { real, effective, saved, file_system: effective }
    }

    #[test]
    fn ids_change_as_the_kernel_has_it() {
        let user = Ids::all(1000);
        let mixed = ids(1000, 0, 0);
        let table = [
            (Ids::all(0).set(5, true), Ok(Ids::all(5))),
            (user.set(5, false), Err(Errno::PERM)),
            (user.set(SAME, true), Err(Errno::INVAL)),
            (ids(1000, 0, 7).set(7, false), Ok(ids(1000, 7, 7))),
            (mixed.set_two(SAME, 1000, false), Ok(ids(1000, 1000, 0))),
            (mixed.set_two(0, SAME, false), Ok(ids(0, 0, 0))),
            (ids(1, 2, 3).set_two(SAME, 3, false), Ok(ids(1, 3, 3))),
            (ids(1, 2, 3).set_two(3, SAME, false), Err(Errno::PERM)),
            (ids(1, 2, 3).set_three([3, 1, 2], false), Ok(ids(3, 1, 2))),
            (ids(1, 2, 3).set_three([SAME, SAME, 4], false), Err(Errno::PERM)),
            (ids(1, 2, 3).set_three([SAME, SAME, 4], true), Ok(ids(1, 2, 4))),
        ];
        for (row, (found, expected)) in table.into_iter().enumerate() {
            assert_eq!(found, expected, "row {row}");
        }
    }

    #[test]
    fn capabilities_go_with_root() {
        let gone = root().set_user(1000).expect("root may");
        assert_eq!((gone.permitted, gone.effective), (0, 0));
        assert_eq!(gone.set_user(0), Err(Errno::PERM));
        let away = root().set_all_users([SAME, 1000, SAME]).expect("root may");
        assert_eq!((away.permitted, away.effective), (ALL, 0));
        let back = away.set_all_users([SAME, 0, SAME]).expect("0 is saved");
        assert_eq!((back.permitted, back.effective), (ALL, ALL));
        let kept = root().keep_capabilities(1).and_then(|kept| kept.set_user(1000)).expect("root may");
        assert_eq!((kept.permitted, kept.effective), (ALL, 0));
        assert_eq!(root().set_file_user(1000).effective, ALL & !OF_FILES);
        assert_eq!(root().set_file_user(1000).set_file_user(0), root());
    }

    #[test]
    fn programs_change_who_runs_them() {
        let user = Credentials::of_step(1000, 1000, &[1000, 7], ALL);
        assert_eq!(user.groups, [7, 1000]);
        assert_eq!(user.execute(Program::default()), user);
        let sudo = user.execute(Program { user: Some(0), group: None });
        assert_eq!((sudo.user, sudo.effective), (ids(1000, 0, 0), ALL));
        let shadow = root().execute(Program { user: None, group: Some(42) });
        assert_eq!((shadow.group, shadow.effective), (ids(0, 42, 42), ALL));
        let man = root().execute(Program { user: Some(6), group: None });
        assert_eq!((man.permitted, man.effective), (ALL, 0));
    }

    #[test]
    fn capabilities_only_shrink() {
        assert_eq!(root().set_capabilities(1, 3, 0).map(|new| (new.effective, new.permitted)), Ok((1, 3)));
        assert_eq!(root().set_capabilities(4, 3, 0), Err(Errno::PERM));
        assert_eq!(root().set_capabilities(0, 1 << 21, 0), Err(Errno::PERM));
        let less = root().set_capabilities(1, 1, 0).expect("less than before");
        assert_eq!(less.set_capabilities(1, 3, 0), Err(Errno::PERM));
        assert_eq!(less.set_capabilities(0, 0, 2), Err(Errno::PERM));
    }
}
