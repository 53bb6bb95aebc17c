//! A plan as bytes, for the process that clones steps ([`crate::Zygote`]): the two are one program, so nothing here has a
//! version. What does not read as a plan gives `None`.

use std::ffi::CString;

use rustix::mount::MountFlags;

use crate::forget::confided_bytes;
use crate::{
    Call, CapabilitySet, Filter, Instruction, MountPoint, Namespaces, NewFileSystem, OverlayCall,
    OverlayMethod, Resource, ResourceLimit, Slot, Source, WindowSize,
};

/// A plan as bytes.
pub(crate) fn encode(calls: &[Call]) -> Vec<u8> {
    // What grows leaves copies behind, and of secrets there are to be none.
    let mut out = Vec::with_capacity((16 << 10) + 2 * confided_bytes(calls));
    put_all(calls, &mut out);
    out
}

/// The plan that these bytes are, to the last one.
pub(crate) fn decode(mut bytes: &[u8]) -> Option<Vec<Call>> {
    Vec::take(&mut bytes).filter(|_| bytes.is_empty())
}

/// What can be written as bytes and read again.
trait Wire: Sized {
    /// Adds it to what is written.
    fn put(&self, out: &mut Vec<u8>);
    /// Reads it from the beginning of what is left.
    fn take(from: &mut &[u8]) -> Option<Self>;
}

fn take_bytes<'a>(from: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, rest) = from.split_at_checked(length)?;
    *from = rest;
    Some(taken)
}

fn put_all<T: Wire>(list: &[T], out: &mut Vec<u8>) {
    list.len().put(out);
    list.iter().for_each(|item| item.put(out));
}

/// Numbers, by their bytes.
macro_rules! numbers {
    ($($kind:ty)*) => {$(
        impl Wire for $kind {
            fn put(&self, out: &mut Vec<u8>) {
                out.extend(self.to_ne_bytes());
            }

            fn take(from: &mut &[u8]) -> Option<Self> {
                take_bytes(from, size_of::<Self>())?.try_into().ok().map(Self::from_ne_bytes)
            }
        }
    )*};
}

numbers!(u8 u16 u32 u64 usize);

impl Wire for bool {
    fn put(&self, out: &mut Vec<u8>) {
        u8::from(*self).put(out);
    }

    fn take(from: &mut &[u8]) -> Option<bool> {
        u8::take(from).map(|byte| byte != 0)
    }
}

impl Wire for CString {
    fn put(&self, out: &mut Vec<u8>) {
        let bytes = self.as_bytes();
        bytes.len().put(out);
        out.extend(bytes);
    }

    fn take(from: &mut &[u8]) -> Option<CString> {
        let length = usize::take(from)?;
        CString::new(take_bytes(from, length)?).ok()
    }
}

impl Wire for String {
    fn put(&self, out: &mut Vec<u8>) {
        self.len().put(out);
        out.extend(self.as_bytes());
    }

    fn take(from: &mut &[u8]) -> Option<String> {
        let length = usize::take(from)?;
        String::from_utf8(take_bytes(from, length)?.to_vec()).ok()
    }
}

impl<T: Wire> Wire for Vec<T> {
    fn put(&self, out: &mut Vec<u8>) {
        put_all(self, out);
    }

    fn take(from: &mut &[u8]) -> Option<Vec<T>> {
        let length = usize::take(from)?;
        (0..length).map(|_| T::take(from)).collect()
    }
}

impl<A: Wire, B: Wire> Wire for (A, B) {
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
        self.1.put(out);
    }

    fn take(from: &mut &[u8]) -> Option<(A, B)> {
        Some((A::take(from)?, B::take(from)?))
    }
}

impl<T: Wire> Wire for Option<T> {
    fn put(&self, out: &mut Vec<u8>) {
        self.is_some().put(out);
        self.iter().for_each(|some| some.put(out));
    }

    fn take(from: &mut &[u8]) -> Option<Option<T>> {
        match bool::take(from)? {
            true => T::take(from).map(Some),
            false => Some(None),
        }
    }
}

impl Wire for MountFlags {
    fn put(&self, out: &mut Vec<u8>) {
        self.bits().put(out);
    }

    fn take(from: &mut &[u8]) -> Option<MountFlags> {
        u32::take(from).map(MountFlags::from_bits_retain)
    }
}

impl Wire for CapabilitySet {
    fn put(&self, out: &mut Vec<u8>) {
        self.bits().put(out);
    }

    fn take(from: &mut &[u8]) -> Option<CapabilitySet> {
        u64::take(from).map(CapabilitySet::from_bits)
    }
}

impl Wire for Namespaces {
    fn put(&self, out: &mut Vec<u8>) {
        self.bits().put(out);
    }

    fn take(from: &mut &[u8]) -> Option<Namespaces> {
        u32::take(from).map(Namespaces::from_bits)
    }
}

impl Wire for Filter {
    fn put(&self, out: &mut Vec<u8>) {
        put_all(self.instructions(), out);
    }

    fn take(from: &mut &[u8]) -> Option<Filter> {
        Vec::take(from).map(Filter::from_instructions)
    }
}

impl Wire for Resource {
    fn put(&self, out: &mut Vec<u8>) {
        self.number().put(out);
    }

    fn take(from: &mut &[u8]) -> Option<Resource> {
        let number = u32::take(from)?;
        Resource::ALL.into_iter().find(|resource| resource.number() == number)
    }
}

impl Wire for Slot {
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
    }

    fn take(from: &mut &[u8]) -> Option<Slot> {
        usize::take(from).map(Slot)
    }
}

/// A struct, field by field; one that is not named does not compile.
macro_rules! record {
    ($name:ident { $($field:ident),* }) => {
        impl Wire for $name {
            fn put(&self, out: &mut Vec<u8>) {
                let $name { $($field),* } = self;
                $($field.put(out);)*
            }

            fn take(from: &mut &[u8]) -> Option<$name> {
                Some($name { $($field: Wire::take(from)?),* })
            }
        }
    };
}

record!(Instruction { code, jt, jf, k });
record!(WindowSize { rows, columns });
record!(ResourceLimit { resource, soft, hard });
record!(MountPoint { path, stays });
record!(NewFileSystem { kind, name, flags, options });
record!(OverlayCall { lowers, writable, user_marks, method, keep });

/// An enum: of each variant a number and its fields. One that is not named does not compile.
macro_rules! variants {
    ($name:ident { $($number:literal $variant:ident $(($inner:ident))? $({ $($field:ident),* })?;)* }) => {
        impl Wire for $name {
            fn put(&self, out: &mut Vec<u8>) {
                match self {
                    $($name::$variant $(($inner))? $({ $($field),* })? => {
                        out.push($number);
                        $($inner.put(out);)?
                        $($($field.put(out);)*)?
                    })*
                }
            }

            fn take(from: &mut &[u8]) -> Option<$name> {
                Some(match u8::take(from)? {
                    $($number => {
                        $(let $inner = Wire::take(from)?;)?
                        $($(let $field = Wire::take(from)?;)*)?
                        $name::$variant $(($inner))? $({ $($field),* })?
                    })*
                    _ => return None,
                })
            }
        }
    };
}

variants!(OverlayMethod {
    0 Append;
    1 Options { directory, options, at };
});

variants!(Source {
    0 Kept { slot, remount_readonly };
    1 New(made);
});

variants!(Call {
    0 Clone { namespaces };
    1 MakePrivate;
    2 MakePrivateFromChroot { through };
    3 CloneRoot;
    4 Overlay(overlay);
    5 Select { within, path };
    6 Bind { root, path, readonly, keep };
    7 FileStore { keep };
    8 File { store, name, content, mode, uid, gid, readonly, keep };
    9 EnterRoot { root };
    10 Mount { at, source, optional };
    11 MakeDirectory { path, mode };
    12 MakeDevice { path, major, minor };
    13 MakeLink { target, path };
    14 Mask { path };
    15 MakeReadOnly { path, remount };
    16 MakeRootReadOnly { remount };
    17 LoopbackUp;
    18 SetHostName { name };
    19 JoinSessionKeyring;
    20 Limit(limit);
    21 OpenTerminal { size, uid };
    22 OwnStreams { uid };
    23 Spawn;
    24 NewSession { terminal };
    25 PlaceStreams;
    26 EnterWorkingDirectory { path };
    27 BoundCapabilities { keep };
    28 SetGroups { gids };
    29 SetIds { uid, gid };
    30 SetCapabilities { keep };
    31 SetMask { mask };
    32 CloseOthers;
    33 Exec { candidates, argv, env };
    34 InstallFilter { filter };
    35 CloseForeign;
    36 HideMemory;
    37 ForbidDevices { made, usable };
    38 JoinGroup { folder, unified };
    39 EnterNetwork;
    40 AdoptOrphans;
    41 ChangeRoot { path };
    42 DieWithParent;
    43 InstallListener { filter, optional };
    44 KernelFiles { kind, readonly, keep };
});

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::emulate::Emulation;
    use crate::{
        Kernel, Membership, Mode, Mount, MountKind, Network, RootKind, Rootfs, SecretBytes, Spec, User,
        Writable, plan,
    };

    /// Plans that have every call.
    fn plans() -> Vec<Vec<Call>> {
        let mounts = vec![
            Mount {
                target: "/b".into(),
                kind: MountKind::Bind { root: "/h\u{e4}".into(), path: "sub".into(), readonly: true },
            },
            Mount {
                target: "/o".into(),
                kind: MountKind::Overlay { lowers: vec!["/l".into()], writable: None, path: "/d".into() },
            },
            Mount {
                target: "/t".into(),
                kind: MountKind::Tmpfs { size_bytes: Some(4096), mode: 0o1777, readonly: false },
            },
            Mount {
                target: "/run/secrets/k".into(),
                kind: MountKind::File {
                    content: SecretBytes::copy(&[0, 255, 7]),
                    mode: 0o400,
                    uid: 1,
                    gid: 2,
                },
            },
        ];
        let lowers = (0..3).map(|n| format!("/layers/{n}").into()).collect();
        let writable = Writable { upper: "/u".into(), work: "/w".into() };
        let user = |uid| User { uid, gid: 5, additional_gids: vec![5, 6] };
        let spec = |uid| Spec {
            mode: Mode::ROOT,
            rootfs: Rootfs::Overlay { lowers: Vec::clone(&lowers), writable: writable.clone() },
            empty: "/empty".into(),
            readonly_root: true,
            mounts: mounts.clone(),
            argv: vec!["sh".into(), "-c".into(), "".into()],
            env: vec![("PATH".into(), "/bin:/usr/bin".into())],
            secret_env: vec![("TOKEN".into(), SecretBytes::copy(b"hidden"))],
            cwd: "/w".into(),
            user: user(uid),
            hostname: "host".into(),
            network: Network::None,
            capabilities: CapabilitySet::docker_default(),
            protect_kernel_paths: true,
            filter_calls: true,
            shm_size_bytes: 1 << 20,
            limits: vec![ResourceLimit { resource: Resource::Nofile, soft: 10, hard: u64::MAX }],
            groups: vec![Membership { folder: "/sys/fs/cgroup/kiln.1.0/0".into(), unified: true }],
            emulation: None,
        };
        let new = Kernel {
            mounts_proc: true,
            mounts_sysfs: true,
            new_mount_api: true,
            mount_setattr: true,
            lowerdir_append: true,
            unified_cgroup: true,
            make_devices: true,
            filters_devices: false,
            seccomp: true,
            root: RootKind::Mount,
        };
        let old = Kernel { mount_setattr: false, lowerdir_append: false, root: RootKind::Chroot, ..new };
        let window = Some(WindowSize { rows: 24, columns: 80 });
        let namespace = std::fs::File::open("/proc/self/ns/net").expect("there is /proc");
        let namespace = std::sync::Arc::new(namespace.into());
        vec![
            plan(&spec(0), window, &new).expect("a good spec"),
            plan(&spec(1000), None, &new).expect("a good spec"),
            plan(&in_chroot(spec(1000)), None, &new).expect("a good spec"),
            plan(&emulated(spec(1000)), None, &new).expect("a good spec"),
            plan(&Spec { network: Network::Namespace(namespace), ..spec(0) }, None, &old)
                .expect("a good spec"),
        ]
    }

    fn emulated(spec: Spec) -> Spec {
        let emulation =
            Emulation { owners: Arc::new(()), records: Arc::default(), mounts: Default::default() };
        Spec { mode: Mode::SINGLE, emulation: Some(emulation), ..spec }
    }

    fn in_chroot(spec: Spec) -> Spec {
        let rootfs = Rootfs::Directory { path: "/root".into() };
        let (mounts, network) = (Vec::new(), Network::Host);
        Spec { mode: Mode::CHROOT, rootfs, mounts, network, readonly_root: false, ..spec }
    }

    #[test]
    fn a_plan_reads_as_it_was_written() {
        for calls in plans() {
            assert_eq!(decode(&encode(&calls)).as_deref(), Some(calls.as_slice()));
        }
    }

    #[test]
    fn the_plans_of_the_test_have_every_call() {
        let numbers: std::collections::BTreeSet<u8> = plans()
            .iter()
            .flatten()
            .map(|call| {
                let mut out = Vec::new();
                call.put(&mut out);
                out[0]
            })
            .collect();
        assert_eq!(numbers, (0..=44).collect());
    }

    #[test]
    fn what_is_cut_short_or_goes_on_is_no_plan() {
        for calls in plans() {
            let bytes = encode(&calls);
            for length in 0..bytes.len() {
                assert_eq!(decode(&bytes[..length]), None, "{length} of {}", bytes.len());
            }
            assert_eq!(decode(&[bytes, vec![0]].concat()), None);
        }
    }
}
