//! OpenSSH's own form of private keys: PROTOCOL.key.

use zeroize::Zeroizing;

use crate::{
    key::{BadKey, Parts},
    wire::Reader,
};

const MAGIC: &[u8] = b"openssh-key-v1\0";

/// What the first key of such a file is made of, and its comment.
pub(crate) fn read(bytes: &[u8]) -> Result<(Parts, String), BadKey> {
    let mut from = Reader(bytes.strip_prefix(MAGIC).ok_or(BadKey::Damaged)?);
    let mut header = || Some((from.string()?, from.string()?, from.string()?, from.number()?));
    let (cipher, _kdf, _options, count) = header().ok_or(BadKey::Damaged)?;
    if cipher != b"none" {
        return Err(BadKey::Encrypted);
    }
    let _public = from.string().filter(|_| count == 1).ok_or(BadKey::Damaged)?;
    let mut from = Reader(from.string().ok_or(BadKey::Damaged)?);
    let checks = (from.number(), from.number());
    if checks.0.is_none() || checks.0 != checks.1 {
        return Err(BadKey::Damaged);
    }
    let kind = from.string().ok_or(BadKey::Damaged)?;
    let parts = match kind {
        b"ssh-ed25519" => ed25519(&mut from),
        b"ssh-rsa" => rsa(&mut from),
        _ if kind.starts_with(b"ecdsa-sha2-") => ecdsa(&mut from),
        other => return Err(BadKey::Kind(String::from_utf8_lossy(other).into_owned())),
    };
    let parts = parts.ok_or(BadKey::Damaged)?;
    let comment = String::from_utf8_lossy(from.string().unwrap_or_default()).into_owned();
    Ok((parts, comment))
}

fn ed25519(from: &mut Reader<'_>) -> Option<Parts> {
    let public = from.string()?.to_vec();
    // The seed, and the public key once more.
    let seed = from.string()?.get(..32)?.to_vec();
    Some(Parts::Ed25519 { public, seed: Zeroizing::new(seed) })
}

fn ecdsa(from: &mut Reader<'_>) -> Option<Parts> {
    let curve = String::from_utf8(from.string()?.to_vec()).ok()?;
    let public = from.string()?.to_vec();
    let secret = Zeroizing::new(from.integer()?.to_vec());
    Some(Parts::Ecdsa { curve, public, secret })
}

fn rsa(from: &mut Reader<'_>) -> Option<Parts> {
    let (modulus, exponent) = (from.integer()?.to_vec(), from.integer()?.to_vec());
    let mut secret = || from.integer().map(|bytes| Zeroizing::new(bytes.to_vec()));
    let (private, inverse, p, q) = (secret()?, secret()?, secret()?, secret()?);
    Some(Parts::Rsa { modulus, exponent, private, inverse, p, q })
}
