//! Looking for a secret in whatever it may have been turned into on its way.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use base64::{
    Engine,
    engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD},
};
use flate2::read::GzDecoder;
use memchr::memmem;

/// How deep archives lie in archives.
const DEPTH: usize = 4;
/// No archive of a test unpacks to more, in bytes.
const LARGEST_BYTES: u64 = 256 << 20;

/// A secret, and the forms in which it may be found.
pub struct Needle {
    forms: Vec<(&'static str, Vec<u8>)>,
}

impl Needle {
    /// Of a secret that is long enough to be nothing else.
    ///
    /// # Panics
    /// Where it is not.
    pub fn new(secret: &[u8]) -> Needle {
        assert!(secret.len() >= 16, "a short secret is found where it is not");
        let mut forms = vec![("raw", secret.to_vec())];
        forms.push(("hex", secret.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into_bytes()));
        forms.push(("HEX", secret.iter().map(|byte| format!("{byte:02X}")).collect::<String>().into_bytes()));
        for offset in 0..3 {
            // What came before and comes behind is in the first and last digits too.
            let shifted = [vec![0; offset], secret.to_vec()].concat();
            let digits = (offset * 8).div_ceil(6)..shifted.len() * 8 / 6;
            forms.push(("base64", STANDARD_NO_PAD.encode(&shifted).as_bytes()[digits.clone()].to_vec()));
            forms.push(("base64url", URL_SAFE_NO_PAD.encode(&shifted).as_bytes()[digits].to_vec()));
        }
        Needle { forms }
    }

    /// How it is in some bytes, or in what is compressed in them; nothing where it is not.
    pub fn found_in(&self, bytes: &[u8]) -> Option<String> {
        self.found(bytes, DEPTH)
    }

    fn found(&self, bytes: &[u8], depth: usize) -> Option<String> {
        let has = |(_, form): &&(&str, Vec<u8>)| memmem::find(bytes, form).is_some();
        if let Some((name, _)) = self.forms.iter().find(has) {
            return Some((*name).to_owned());
        }
        if depth == 0 {
            return None;
        }
        let starts: Vec<usize> = memmem::find_iter(bytes, b"\x1f\x8b\x08").collect();
        starts.into_iter().find_map(|start| {
            let mut inside = Vec::new();
            // What breaks off in the middle has said something before that.
            let _broke_off = GzDecoder::new(&bytes[start..]).take(LARGEST_BYTES).read_to_end(&mut inside);
            self.found(&inside, depth - 1).map(|how| format!("{how} in gzip"))
        })
    }

    /// Every file and folder below `folder`, by name or content, that has it, and how. Links are not followed.
    pub fn found_below(&self, folder: &Path) -> Vec<(PathBuf, String)> {
        let mut found = Vec::new();
        let mut left = vec![folder.to_owned()];
        while let Some(path) = left.pop() {
            if let Some(how) = self.found_in(path.as_os_str().as_encoded_bytes()) {
                found.push((path.clone(), format!("{how}, in its name")));
            }
            let Ok(kind) = path.symlink_metadata().map(|found| found.file_type()) else { continue };
            if kind.is_dir() {
                let entries = fs::read_dir(&path).into_iter().flatten().flatten();
                left.extend(entries.map(|entry| entry.path()));
            } else if kind.is_file() {
                let how = fs::read(&path).ok().and_then(|bytes| self.found_in(&bytes));
                found.extend(how.map(|how| (path, how)));
            }
        }
        found
    }
}
