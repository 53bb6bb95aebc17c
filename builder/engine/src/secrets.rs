//! Marks of secrets: what stands for a secret in the keys of the steps that see it, where that was asked for
//! ([`BuildRequest::keyed_secrets`](crate::BuildRequest::keyed_secrets)).
//!
//! A mark is an HMAC of the id and the bytes under the key of the state folder. Whoever has the mark and not the key can
//! neither compute nor check a guess; a bare digest of a short password would be found by trying. See
//! docs/decisions/0024-marks-of-secrets.md.

use std::{collections::BTreeSet, io};

use graph::{Exec, Ingredient};
use hmac::{Hmac, KeyInit, Mac};
use oci::Digest;
use sha2::Sha256;
use store::SecretKey;

use crate::{client::Client, effect::Effects, error::Cause};

/// What is hashed before all else: two programs that have one key by accident make different marks of it.
const PURPOSE: &[u8] = b"kiln secret 1\0";

/// What stands for a client that has no secret of an id. An empty secret is another one.
const ABSENT: &str = "absent";

/// The mark of a secret: 64 hexadecimal digits, or [`ABSENT`].
pub(crate) fn mark(key: &SecretKey, id: &str, secret: Option<&[u8]>) -> String {
    let Some(bytes) = secret else { return ABSENT.to_owned() };
    let mut mac = Hmac::<Sha256>::new_from_slice(key.bytes()).expect("HMAC takes keys of any length");
    mac.update(PURPOSE);
    mac.update(&(id.len() as u64).to_be_bytes());
    mac.update(id.as_bytes());
    mac.update(bytes);
    let mark: [u8; 32] = mac.finalize().into_bytes().into();
    mark.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What a memo's key has of the secrets that count: their ids and marks, by way of one more digest, because the key names
/// a file. None where a secret cannot be read: whoever needs it says why.
pub(crate) fn memo_part(key: &SecretKey, ids: &BTreeSet<String>, client: &dyn Client) -> io::Result<Digest> {
    let mut hasher = oci::Hasher::new();
    for id in ids {
        let secret = client.secret(id)?;
        hasher.field(id.as_bytes());
        hasher.field(mark(key, id, secret.as_deref()).as_bytes());
    }
    Ok(hasher.finish())
}

impl Effects {
    /// The marks of those of a step's secrets that count, each once, in the order of their ids. Nothing is read of the
    /// others.
    pub(crate) fn secret_marks(&self, exec: &Exec) -> Result<Vec<Ingredient>, Cause> {
        let ids: BTreeSet<&str> = exec.secret_ids().filter(|id| self.keyed_secrets.contains(*id)).collect();
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let key = self.store.secret_key()?;
        let marked = ids.into_iter().map(|id| {
            let secret = self.client.secret(id).map_err(Cause::io("read", format!("the secret {id}")))?;
            let mark = mark(&key, id, secret.as_deref());
            Ok(Ingredient::new(format!("secret {id}"), mark))
        });
        marked.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_of_the_key_the_id_and_the_content() {
        let folder = tempfile::tempdir().expect("a folder");
        let key = |name: &str| {
            let options =
                store::Options::new(folder.path().join(name), store::Clock::new(|| std::time::UNIX_EPOCH));
            store::Store::open(options).and_then(|store| store.secret_key()).expect("a key")
        };
        let (one, other) = (key("one"), key("other"));
        assert_eq!(one.bytes(), key("one").bytes());
        let marks = [
            mark(&one, "id", Some(b"content")),
            mark(&other, "id", Some(b"content")),
            mark(&one, "i", Some(b"dcontent")),
            mark(&one, "id", Some(b"conten")),
            mark(&one, "id", Some(b"")),
            mark(&one, "id", None),
        ];
        assert_eq!(BTreeSet::from_iter(&marks).len(), marks.len());
        assert_eq!(mark(&one, "id", Some(b"content")), marks[0]);
        assert!(marks[..5].iter().all(|mark| mark.len() == 64));
        // Everybody may know these digests, and could try passwords with them.
        let digests =
            [Digest::of(b"content"), Digest::of(b"idcontent")].map(|digest| digest.hex().to_string());
        assert!(!digests.contains(&marks[0]));
        assert_eq!(format!("{one:?}"), "SecretKey");
    }
}
