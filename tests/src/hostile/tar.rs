//! Archives member by member, with headers that hold whatever they are told.

/// A tar that is put together.
#[derive(Clone, Debug, Default)]
pub struct Tar(Vec<u8>);

/// One header, before its checksum is made.
#[derive(Clone)]
pub struct Header(Box<[u8; 512]>);

impl Header {
    /// A header of ustar: name, type flag, size.
    pub fn new(name: &[u8], flag: u8, size: u64) -> Header {
        let mut block = Box::new([0; 512]);
        block[..name.len().min(100)].copy_from_slice(&name[..name.len().min(100)]);
        block[156] = flag;
        block[257..265].copy_from_slice(b"ustar\x0000");
        let header = Header(block).field(100, b"0000644\0").field(108, b"0000000\0").field(116, b"0000000\0");
        header.field(124, format!("{size:011o}\0").as_bytes()).field(136, b"00000000000\0")
    }

    /// With these bytes at an offset: 100 mode, 108 uid, 116 gid, 124 size, 136 mtime, 157 link, 329 major, 337 minor.
    pub fn field(mut self, at: usize, bytes: &[u8]) -> Header {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }

    /// With a link's target.
    pub fn to(self, target: &[u8]) -> Header {
        self.field(157, target)
    }

    /// With a mode.
    pub fn mode(self, mode: u32) -> Header {
        self.field(100, format!("{mode:07o}\0").as_bytes())
    }

    fn summed(mut self) -> [u8; 512] {
        self.0[148..156].copy_from_slice(b"        ");
        let sum: u32 = self.0.iter().map(|byte| u32::from(*byte)).sum();
        self.0[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        *self.0
    }
}

impl Tar {
    /// With a header and the bytes behind it, filled to a block.
    pub fn member(mut self, header: Header, bytes: &[u8]) -> Tar {
        self.0.extend_from_slice(&header.summed());
        self.0.extend_from_slice(bytes);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    /// With a file.
    pub fn file(self, name: &str, bytes: &[u8]) -> Tar {
        self.member(Header::new(name.as_bytes(), b'0', bytes.len() as u64), bytes)
    }

    /// With a folder.
    pub fn folder(self, name: &str) -> Tar {
        self.member(Header::new(name.as_bytes(), b'5', 0).mode(0o755), b"")
    }

    /// With a symbolic link.
    pub fn symlink(self, name: &str, target: &str) -> Tar {
        self.member(Header::new(name.as_bytes(), b'2', 0).to(target.as_bytes()), b"")
    }

    /// With a hard link.
    pub fn hard_link(self, name: &str, target: &str) -> Tar {
        self.member(Header::new(name.as_bytes(), b'1', 0).to(target.as_bytes()), b"")
    }

    /// With a PAX header of these records before the next member.
    pub fn pax(self, records: &[(&str, &[u8])]) -> Tar {
        let mut all = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let mut length = rest + 1;
            while length != rest + length.to_string().len() {
                length = rest + length.to_string().len();
            }
            all.extend_from_slice(format!("{length} {key}=").as_bytes());
            all.extend_from_slice(value);
            all.push(b'\n');
        }
        self.member(Header::new(b"pax", b'x', all.len() as u64), &all)
    }

    /// The archive with its end.
    pub fn end(mut self) -> Vec<u8> {
        self.0.extend_from_slice(&[0; 1024]);
        self.0
    }

    /// The archive without its end.
    pub fn cut(self) -> Vec<u8> {
        self.0
    }
}
