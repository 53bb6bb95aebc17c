//! A private key: read from what is in its file, and used.

use std::fmt;

use aws_lc_rs::{
    rand::SystemRandom,
    rsa::{KeyPair as RsaKeyPair, KeyPairComponents, PublicKeyComponents},
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, ECDSA_P521_SHA512_FIXED_SIGNING,
        EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RSA_PKCS1_SHA512,
    },
};
use base64::{Engine, engine::general_purpose::STANDARD};
use zeroize::Zeroizing;

use crate::{
    container, der, rsa,
    wire::{put_integer, put_string, trimmed},
};

/// Flags of a request to sign: which digest an RSA signature is of.
const SHA2_256: u32 = 2;
const SHA2_512: u32 = 4;

/// Curves: the name in ssh, the algorithm.
const CURVES: [(&str, &EcdsaSigningAlgorithm); 3] = [
    ("nistp256", &ECDSA_P256_SHA256_FIXED_SIGNING),
    ("nistp384", &ECDSA_P384_SHA384_FIXED_SIGNING),
    ("nistp521", &ECDSA_P521_SHA512_FIXED_SIGNING),
];

/// How long an RSA key may be.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// Why a file is no private key that can be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadKey {
    /// It is encrypted.
    #[error("it is protected by a passphrase")]
    Encrypted,
    /// It is the public half.
    #[error("it is a public key")]
    Public,
    /// Its kind is not known here.
    #[error("keys of the kind {0} cannot be used")]
    Kind(String),
    /// It is no key.
    #[error("it is no private key")]
    NoKey,
    /// It says that it is a key, and is not.
    #[error("it is a damaged private key")]
    Damaged,
}

/// A private key. Its memory is overwritten when it is dropped.
pub struct Key {
    /// As ssh writes the public half.
    public: Vec<u8>,
    comment: String,
    pair: Pair,
}

enum Pair {
    Ed25519(Box<Ed25519KeyPair>),
    Ecdsa { curve: &'static str, pair: Box<EcdsaKeyPair> },
    Rsa(Box<RsaKeyPair>),
}

/// What OpenSSH's form of a key holds.
pub(crate) enum Parts {
    Ed25519 {
        public: Vec<u8>,
        seed: Zeroizing<Vec<u8>>,
    },
    Ecdsa {
        curve: String,
        public: Vec<u8>,
        secret: Zeroizing<Vec<u8>>,
    },
    Rsa {
        modulus: Vec<u8>,
        exponent: Vec<u8>,
        private: Zeroizing<Vec<u8>>,
        inverse: Zeroizing<Vec<u8>>,
        p: Zeroizing<Vec<u8>>,
        q: Zeroizing<Vec<u8>>,
    },
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.comment)
    }
}

impl Key {
    /// The key that a file holds: OpenSSH's own form, PKCS#8, PKCS#1 or SEC 1, in PEM. `name` is its comment where it has none.
    ///
    /// # Errors
    /// [`BadKey`].
    pub fn parse(file: &[u8], name: &str) -> Result<Key, BadKey> {
        let text = std::str::from_utf8(file).map_err(|_| BadKey::NoKey)?;
        if text.starts_with("ssh-") || text.starts_with("ecdsa-sha2-") {
            return Err(BadKey::Public);
        }
        let (label, body) = pem(text)?;
        let mut comment = name.to_owned();
        let pair = match label {
            "OPENSSH PRIVATE KEY" => {
                let (parts, own) = container::read(&body)?;
                if !own.is_empty() {
                    comment = own;
                }
                Pair::of(parts)?
            }
            "PRIVATE KEY" => Pair::pkcs8(&body)?,
            "RSA PRIVATE KEY" => {
                // The version, then the modulus.
                if let Some([_, modulus, ..]) = der::integers(&body).as_deref() {
                    check_size(trimmed(modulus))?;
                }
                Pair::Rsa(Box::new(RsaKeyPair::from_der(&body).map_err(|_| BadKey::Damaged)?))
            }
            "EC PRIVATE KEY" => Pair::ecdsa(&body).ok_or(BadKey::Damaged)?,
            "ENCRYPTED PRIVATE KEY" => return Err(BadKey::Encrypted),
            other if other.ends_with("PUBLIC KEY") => return Err(BadKey::Public),
            other if other.ends_with("PRIVATE KEY") => {
                return Err(BadKey::Kind(other.trim_end_matches(" PRIVATE KEY").to_owned()));
            }
            _ => return Err(BadKey::NoKey),
        };
        let public = pair.public().ok_or(BadKey::Damaged)?;
        Ok(Key { public, comment, pair })
    }

    /// The public half, as ssh writes it.
    pub fn public(&self) -> &[u8] {
        &self.public
    }

    /// What people call it.
    pub fn comment(&self) -> &str {
        &self.comment
    }

    /// The signature of some bytes, as ssh writes it. `None` where what the flags ask for is not made: RSA with SHA-1.
    pub(crate) fn sign(&self, data: &[u8], flags: u32) -> Option<Vec<u8>> {
        let (name, signature) = match &self.pair {
            Pair::Ed25519(pair) => ("ssh-ed25519".to_owned(), pair.sign(data).as_ref().to_vec()),
            Pair::Ecdsa { curve, pair } => {
                let signed = pair.sign(&SystemRandom::new(), data).ok()?;
                let (r, s) = signed.as_ref().split_at_checked(signed.as_ref().len() / 2)?;
                let mut both = Vec::new();
                put_integer(&mut both, r);
                put_integer(&mut both, s);
                (format!("ecdsa-sha2-{curve}"), both)
            }
            Pair::Rsa(pair) => {
                let (name, padding) = match flags {
                    _ if flags & SHA2_512 != 0 => ("rsa-sha2-512", &RSA_PKCS1_SHA512),
                    _ if flags & SHA2_256 != 0 => ("rsa-sha2-256", &RSA_PKCS1_SHA256),
                    _ => return None,
                };
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(padding, &SystemRandom::new(), data, &mut signature).ok()?;
                (name.to_owned(), signature)
            }
        };
        let mut out = Vec::new();
        put_string(&mut out, name.as_bytes());
        put_string(&mut out, &signature);
        Some(out)
    }
}

impl Pair {
    fn of(parts: Parts) -> Result<Pair, BadKey> {
        let made = match parts {
            Parts::Ed25519 { public, seed } => Ed25519KeyPair::from_seed_and_public_key(&seed, &public)
                .ok()
                .map(|pair| Pair::Ed25519(Box::new(pair))),
            Parts::Ecdsa { curve, public, secret } => {
                let Some((curve, algorithm)) = CURVES.into_iter().find(|(name, _)| *name == curve) else {
                    return Err(BadKey::Kind(format!("ecdsa-sha2-{curve}")));
                };
                // As long as the curve's numbers are: half of the public point, which has a byte before it.
                let length = public.len() / 2;
                let mut scalar = Zeroizing::new(vec![0; length.saturating_sub(secret.len())]);
                scalar.extend_from_slice(&secret);
                let pair = EcdsaKeyPair::from_private_key_and_public_key(algorithm, &scalar, &public).ok();
                pair.map(|pair| Pair::Ecdsa { curve, pair: Box::new(pair) })
            }
            Parts::Rsa { modulus, exponent, private, inverse, p, q } => {
                check_size(&modulus)?;
                if [&private, &inverse, &p, &q].iter().any(|number| number.len() > modulus.len()) {
                    return Err(BadKey::Damaged);
                }
                let (first, second) = (rsa::reduced(&private, &p), rsa::reduced(&private, &q));
                let components = KeyPairComponents {
                    public_key: PublicKeyComponents { n: &modulus, e: &exponent },
                    d: private.as_slice(),
                    p: p.as_slice(),
                    q: q.as_slice(),
                    dP: first.as_slice(),
                    dQ: second.as_slice(),
                    qInv: inverse.as_slice(),
                };
                RsaKeyPair::from_components(&components).ok().map(|pair| Pair::Rsa(Box::new(pair)))
            }
        };
        made.ok_or(BadKey::Damaged)
    }

    fn pkcs8(der: &[u8]) -> Result<Pair, BadKey> {
        let ed25519 =
            || Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).ok().map(|pair| Pair::Ed25519(Box::new(pair)));
        let rsa = || RsaKeyPair::from_pkcs8(der).ok().map(|pair| Pair::Rsa(Box::new(pair)));
        let found = ed25519().or_else(rsa).or_else(|| Pair::ecdsa(der));
        found.ok_or_else(|| BadKey::Kind("that this PKCS#8 file holds".to_owned()))
    }

    fn ecdsa(der: &[u8]) -> Option<Pair> {
        CURVES.into_iter().find_map(|(curve, algorithm)| {
            let pair = EcdsaKeyPair::from_private_key_der(algorithm, der).ok()?;
            Some(Pair::Ecdsa { curve, pair: Box::new(pair) })
        })
    }

    /// The public half, as ssh writes it.
    fn public(&self) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        match self {
            Pair::Ed25519(pair) => {
                put_string(&mut out, b"ssh-ed25519");
                put_string(&mut out, pair.public_key().as_ref());
            }
            Pair::Ecdsa { curve, pair } => {
                put_string(&mut out, format!("ecdsa-sha2-{curve}").as_bytes());
                put_string(&mut out, curve.as_bytes());
                put_string(&mut out, pair.public_key().as_ref());
            }
            Pair::Rsa(pair) => {
                let numbers = der::integers(pair.public_key().as_ref())?;
                let [modulus, exponent] = numbers.as_slice() else { return None };
                put_string(&mut out, b"ssh-rsa");
                put_integer(&mut out, trimmed(exponent));
                put_integer(&mut out, trimmed(modulus));
            }
        }
        Some(out)
    }
}

/// Whether an RSA key of this modulus is neither too short to be safe nor longer than what computes with it takes.
fn check_size(modulus: &[u8]) -> Result<(), BadKey> {
    let zeros = modulus.first().map_or(0, |first| first.leading_zeros() as usize);
    let bits = modulus.len() * 8 - zeros;
    match RSA_BITS.contains(&bits) {
        true => Ok(()),
        false => Err(BadKey::Kind(format!("RSA of {bits} bits"))),
    }
}

/// The label and the bytes of the first thing in a PEM file.
fn pem(text: &str) -> Result<(&str, Zeroizing<Vec<u8>>), BadKey> {
    let (_, rest) = text.split_once("-----BEGIN ").ok_or(BadKey::NoKey)?;
    let (label, rest) = rest.split_once("-----").ok_or(BadKey::NoKey)?;
    let (body, _) = rest.split_once("-----END ").ok_or(BadKey::Damaged)?;
    if body.contains("Proc-Type:") && body.contains("ENCRYPTED") {
        return Err(BadKey::Encrypted);
    }
    let digits: Zeroizing<String> =
        Zeroizing::new(body.chars().filter(|c| !c.is_ascii_whitespace()).collect());
    let bytes = STANDARD.decode(digits.as_bytes()).map_err(|_| BadKey::Damaged)?;
    Ok((label, Zeroizing::new(bytes)))
}
