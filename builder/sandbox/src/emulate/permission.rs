//! Whether a process may do something to a file, by the owner that the file seems to have: the rules of `fs/namei.c` and
//! `fs/attr.c`, on values.

use rustix::io::Errno;

use super::credentials::{CHOWN, Credentials, DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER};
use super::record::Owner;

/// Read, write, execute: as in `access(2)`.
pub(crate) const WRITE: u32 = 2;
pub(crate) const EXECUTE: u32 = 1;

const KIND: u32 = libc::S_IFMT;
const FOLDER: u32 = libc::S_IFDIR;

/// Whether all of `wanted` is allowed on a file of this owner and mode.
pub(crate) fn may_access(who: &Credentials, owner: &Owner, mode: u32, wanted: u32) -> bool {
    let shift = match () {
        () if who.user.file_system == owner.uid => 6,
        () if who.is_in(owner.gid) => 3,
        () => 0,
    };
    if wanted & !(mode >> shift) & 7 == 0 {
        return true;
    }
    let is_folder = mode & KIND == FOLDER;
    let executable = is_folder || mode & 0o111 != 0;
    if who.can(DAC_OVERRIDE) && (wanted & EXECUTE == 0 || executable) {
        return true;
    }
    let reads = if is_folder { wanted & WRITE == 0 } else { wanted & (WRITE | EXECUTE) == 0 };
    who.can(DAC_READ_SEARCH) && reads
}

/// Whether it may change mode or times as an owner does.
pub(crate) fn is_owner(who: &Credentials, owner: &Owner) -> bool {
    who.user.file_system == owner.uid || who.can(FOWNER)
}

/// Whether it may give a file to these; none stays as it is.
pub(crate) fn may_chown(who: &Credentials, owner: &Owner, uid: Option<u32>, gid: Option<u32>) -> bool {
    let owns = who.user.file_system == owner.uid;
    let user = uid.is_none_or(|uid| owns && uid == owner.uid);
    let group = gid.is_none_or(|gid| owns && (gid == owner.gid || who.is_in(gid)));
    who.can(CHOWN) || user && group
}

/// Whether it may take a name out of a folder: may write to it, and owns one of both if the folder is sticky.
pub(crate) fn may_remove(who: &Credentials, folder: (&Owner, u32), file: &Owner) -> Result<(), Errno> {
    let (owner, mode) = folder;
    if !may_access(who, owner, mode, WRITE | EXECUTE) {
        return Err(Errno::ACCESS);
    }
    let is_kept = mode & libc::S_ISVTX != 0 && !is_owner(who, owner) && !is_owner(who, file);
    if is_kept { Err(Errno::PERM) } else { Ok(()) }
}

/// Whether it may give a file another time: the one that is now also who may write to it.
pub(crate) fn may_touch(who: &Credentials, owner: &Owner, mode: u32, is_now: bool) -> Result<(), Errno> {
    match is_owner(who, owner) {
        true => Ok(()),
        false if !is_now => Err(Errno::PERM),
        false if may_access(who, owner, mode, WRITE) => Ok(()),
        false => Err(Errno::ACCESS),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(uid: u32, gid: u32) -> Owner {
        Owner { uid, gid, device: None }
    }

    #[test]
    fn access_is_by_the_first_class_that_fits() {
        let root = Credentials::of_step(0, 0, &[], 0xa80425fb);
        let user = Credentials::of_step(1000, 1000, &[50], 0xa80425fb);
        let file = libc::S_IFREG;
        let table = [
            (&user, owner(1000, 0), file | 0o077, 4, false),
            (&user, owner(1000, 0), file | 0o600, 6, true),
            (&user, owner(0, 50), file | 0o060, 6, true),
            (&user, owner(0, 50), file | 0o606, 4, false),
            (&user, owner(0, 0), file | 0o644, 2, false),
            (&user, owner(0, 0), file | 0o644, 4, true),
            (&user, owner(0, 0), file, 0, true),
            (&root, owner(1000, 1000), file, 6, true),
            (&root, owner(1000, 1000), file | 0o600, 1, false),
            (&root, owner(1000, 1000), file | 0o100, 1, true),
            (&root, owner(1000, 1000), FOLDER, 7, true),
        ];
        for (who, owner, mode, wanted, expected) in table {
            assert_eq!(may_access(who, &owner, mode, wanted), expected, "{owner:?} {mode:o} {wanted}");
        }
    }

    #[test]
    fn owners_give_away_only_to_their_groups() {
        let root = Credentials::of_step(0, 0, &[], 0xa80425fb);
        let user = Credentials::of_step(1000, 1000, &[50], 0xa80425fb);
        let mine = owner(1000, 1000);
        let table = [
            (&root, owner(5, 5), Some(7), Some(7), true),
            (&user, mine, Some(0), None, false),
            (&user, mine, Some(1000), Some(50), true),
            (&user, mine, None, Some(51), false),
            (&user, owner(0, 50), None, Some(50), false),
            (&user, owner(0, 0), None, None, true),
        ];
        for (who, owner, uid, gid, expected) in table {
            assert_eq!(may_chown(who, &owner, uid, gid), expected, "{owner:?} {uid:?} {gid:?}");
        }
    }

    #[test]
    fn a_sticky_folder_keeps_what_is_others() {
        let user = Credentials::of_step(1000, 1000, &[], 0);
        let root = owner(0, 0);
        assert_eq!(may_remove(&user, (&root, FOLDER | 0o777), &root), Ok(()));
        assert_eq!(may_remove(&user, (&root, FOLDER | 0o1777), &root), Err(Errno::PERM));
        assert_eq!(may_remove(&user, (&root, FOLDER | 0o1777), &owner(1000, 0)), Ok(()));
        assert_eq!(may_remove(&user, (&root, FOLDER | 0o755), &owner(1000, 0)), Err(Errno::ACCESS));
    }

    #[test]
    fn who_may_write_to_a_file_may_touch_it_and_not_set_its_time() {
        let (user, root) =
            (Credentials::of_step(1000, 1000, &[], 0), Credentials::of_step(0, 0, &[], FOWNER));
        let table = [
            (&user, owner(1000, 0), 0o400, Ok(()), Ok(())),
            (&user, owner(0, 0), 0o666, Ok(()), Err(Errno::PERM)),
            (&user, owner(0, 0), 0o644, Err(Errno::ACCESS), Err(Errno::PERM)),
            (&root, owner(5, 6), 0o400, Ok(()), Ok(())),
        ];
        for (who, owner, mode, now, set) in table {
            assert_eq!(may_touch(who, &owner, mode, true), now, "{owner:?} {mode:o}");
            assert_eq!(may_touch(who, &owner, mode, false), set, "{owner:?} {mode:o}");
        }
    }
}
