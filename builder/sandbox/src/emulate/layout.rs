//! `struct stat` and `struct statx` as bytes.

use super::record::{Device, Owner};

/// `struct statx`, as the kernel has filled it.
pub(crate) struct Stat(pub [u8; 256]);

/// Places in `struct statx`.
mod at {
    pub const LINKS: usize = 16;
    pub const UID: usize = 20;
    pub const GID: usize = 24;
    pub const MODE: usize = 28;
    pub const INODE: usize = 32;
    pub const SIZE: usize = 40;
    pub const BLOCKS: usize = 48;
    pub const BLOCK_SIZE: usize = 4;
    pub const ACCESSED: usize = 64;
    pub const CHANGED: usize = 96;
    pub const MODIFIED: usize = 112;
    pub const RDEV: usize = 128;
    pub const DEV: usize = 136;
}

impl Stat {
    /// The same with another owner, and as a device if it is one.
    pub fn correct(&mut self, owner: &Owner) {
        self.set(at::UID, &owner.uid.to_ne_bytes());
        self.set(at::GID, &owner.gid.to_ne_bytes());
        if let Some(Device { block, major, minor }) = owner.device {
            let kind = if block { libc::S_IFBLK } else { libc::S_IFCHR };
            let mode = (self.mode() & !libc::S_IFMT | kind) as u16;
            self.set(at::MODE, &mode.to_ne_bytes());
            self.set(at::RDEV, &major.to_ne_bytes());
            self.set(at::RDEV + 4, &minor.to_ne_bytes());
        }
    }

    fn mode(&self) -> u32 {
        u16::from_ne_bytes(self.get(at::MODE)).into()
    }

    /// As `struct stat` of this machine.
    pub fn old(&self) -> Vec<u8> {
        let word = |place| u32::from_ne_bytes(self.get(place));
        let long = |place| u64::from_ne_bytes(self.get(place));
        let device = |place| encode_device(word(place), word(place + 4));
        let mut out = Vec::with_capacity(144);
        let mut put = |value: u64| out.extend(value.to_ne_bytes());
        put(device(at::DEV));
        put(long(at::INODE));
        let pair = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
        if cfg!(target_arch = "aarch64") {
            put(pair(self.mode(), word(at::LINKS)));
            put(pair(word(at::UID), word(at::GID)));
            put(device(at::RDEV));
            put(0);
            put(long(at::SIZE));
            put(word(at::BLOCK_SIZE).into());
        } else {
            put(word(at::LINKS).into());
            put(pair(self.mode(), word(at::UID)));
            put(word(at::GID).into());
            put(device(at::RDEV));
            put(long(at::SIZE));
            put(word(at::BLOCK_SIZE).into());
        }
        put(long(at::BLOCKS));
        for time in [at::ACCESSED, at::MODIFIED, at::CHANGED] {
            put(long(time));
            put(word(time + 8).into());
        }
        put(0);
        if cfg!(not(target_arch = "aarch64")) {
            put(0);
            put(0);
        }
        out
    }

    fn get<const LENGTH: usize>(&self, place: usize) -> [u8; LENGTH] {
        let mut bytes = [0; LENGTH];
        bytes.copy_from_slice(&self.0[place..place + LENGTH]);
        bytes
    }

    fn set(&mut self, place: usize, bytes: &[u8]) {
        self.0[place..place + bytes.len()].copy_from_slice(bytes);
    }
}

/// `new_encode_dev`.
fn encode_device(major: u32, minor: u32) -> u64 {
    u64::from(minor & 0xff | major << 8 | (minor & !0xff) << 12)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::fs::MetadataExt;

    use super::*;
    use crate::sys::notify::statx_bytes;

    #[test]
    fn both_forms_say_the_same() {
        let file = std::fs::File::open("/proc/self/exe").expect("this program is there");
        let stat = Stat(statx_bytes(file.as_fd(), 0, 0x7ff).expect("it is open"));
        let truth = file.metadata().expect("it is open");
        let old = stat.old();
        let long = |place: usize| u64::from_ne_bytes(old[place..place + 8].try_into().expect("8 bytes"));
        assert_eq!((long(0), long(8)), (truth.dev(), truth.ino()));
        assert_eq!((long(48), long(64)), (truth.size(), truth.blocks()));
        assert_eq!((long(88), long(96)), (truth.mtime() as u64, truth.mtime_nsec() as u64));
        assert_eq!(old.len(), if cfg!(target_arch = "aarch64") { 128 } else { 144 });
    }

    #[test]
    fn a_device_is_one() {
        let mut stat = Stat([0; 256]);
        stat.set(at::MODE, &(libc::S_IFREG as u16 | 0o640).to_ne_bytes());
        let device = Some(Device { block: true, major: 8, minor: 300 });
        stat.correct(&Owner { uid: 1, gid: 6, device });
        assert_eq!(stat.mode(), libc::S_IFBLK | 0o640);
        assert_eq!(encode_device(8, 300), 0x10082c);
    }
}
