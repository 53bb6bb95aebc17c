//! Which certificate authorities are trusted, and who we are.

use std::path::{Path, PathBuf};

use reqwest::{Certificate, Client, Identity};

use crate::{
    error::Fault,
    settings::{ClientCertificate, Roots},
};

/// Where distributions keep the bundle: Debian, Alpine and Gentoo; Fedora; OpenSUSE; older Fedora; Alpine's
/// link, BSDs.
const FILES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Where they keep one file for each.
const FOLDERS: [&str; 2] = ["/etc/ssl/certs", "/etc/pki/tls/certs"];

/// Reads the trusted authorities. None at all is no error: plain HTTP needs none.
///
/// # Errors
/// [`Fault::Ca`] when `roots` names a file or folder that cannot be read. What the system has is read as far
/// as it can be.
pub(crate) fn load(roots: &Roots) -> Result<Vec<Certificate>, Fault> {
    if roots.file.is_none() && roots.folders.is_empty() {
        return Ok(usable(of_the_system()));
    }
    let mut certificates = Vec::new();
    if let Some(file) = &roots.file {
        certificates.extend(bundle(file)?);
    }
    for folder in &roots.folders {
        certificates.extend(in_folder(folder)?);
    }
    Ok(usable(certificates))
}

/// The authorities of a PEM file that a person named for one registry.
///
/// # Errors
/// [`Fault::Ca`] when it cannot be read, has no certificate, or one that is none.
pub(crate) fn named(path: &Path) -> Result<Vec<Certificate>, Fault> {
    let certificates = bundle(path)?;
    let bad = |why: &str| Fault::Ca { path: path.to_owned(), why: why.to_owned() };
    if certificates.is_empty() {
        return Err(bad("it holds no PEM certificate"));
    }
    if !builds(certificates.clone()) {
        return Err(bad("one of its certificates cannot be read"));
    }
    Ok(certificates)
}

/// Who we are: a certificate with its key.
///
/// # Errors
/// [`Fault::Client`] when one of the files cannot be read, or they do not hold a certificate and its key.
pub(crate) fn identity(client: &ClientCertificate) -> Result<Identity, Fault> {
    let ClientCertificate { certificate, key } = client;
    let bad = |why: String| Fault::Client { certificate: certificate.clone(), key: key.clone(), why };
    let read = |path: &Path| std::fs::read(path).map_err(|error| bad(format!("{}: {error}", path.display())));
    let mut pem = read(certificate)?;
    if key != certificate {
        pem.push(b'\n');
        pem.extend(read(key)?);
    }
    let identity = Identity::from_pem(&pem)
        .map_err(|_| bad("they hold no PEM certificate with a key that is not encrypted".to_owned()))?;
    // That the two belong together shows when they are used.
    let built = Client::builder().no_proxy().tls_certs_only([]).identity(identity.clone()).build();
    built.map_err(|error| {
        let why = crate::transport::deepest(&error);
        // `openssl x509 -req` makes such, unless it is told an extension.
        let old = why.contains("UnsupportedCertVersion");
        bad(if old { "it is a certificate of X.509 version 1, and 3 is needed".to_owned() } else { why })
    })?;
    Ok(identity)
}

fn of_the_system() -> Vec<Certificate> {
    let files = FILES.iter().filter_map(|file| bundle(Path::new(file)).ok());
    let folders = FOLDERS.iter().filter_map(|folder| in_folder(Path::new(folder)).ok());
    files.chain(folders).find(|certificates| !certificates.is_empty()).unwrap_or_default()
}

fn bundle(path: &Path) -> Result<Vec<Certificate>, Fault> {
    let bad = |why: String| Fault::Ca { path: path.to_owned(), why };
    let bytes = std::fs::read(path).map_err(|error| bad(error.to_string()))?;
    Certificate::from_pem_bundle(&bytes).map_err(|_| bad("it is not PEM".to_owned()))
}

/// The certificates of a folder's files. A folder of certificates may hold a README, so a file that is no
/// PEM is passed over.
fn in_folder(folder: &Path) -> Result<Vec<Certificate>, Fault> {
    let bad = |error: std::io::Error| Fault::Ca { path: folder.to_owned(), why: error.to_string() };
    let entries = std::fs::read_dir(folder).map_err(bad)?;
    // Each certificate is often there under two names, one of them a link.
    let mut files: Vec<PathBuf> = entries
        .flatten()
        .filter_map(|entry| entry.path().canonicalize().ok())
        .filter(|path| path.is_file())
        .collect();
    files.sort();
    files.dedup();
    Ok(files.iter().filter_map(|file| bundle(file).ok()).flatten().collect())
}

/// Without those that the TLS library cannot read: one such certificate would make it refuse them all.
fn usable(certificates: Vec<Certificate>) -> Vec<Certificate> {
    if builds(certificates.clone()) {
        return certificates;
    }
    certificates.into_iter().filter(|certificate| builds([certificate.clone()])).collect()
}

fn builds(certificates: impl IntoIterator<Item = Certificate>) -> bool {
    Client::builder().no_proxy().tls_certs_only(certificates).build().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_file_must_hold_certificates() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("ca.pem");
        assert!(matches!(named(&path), Err(Fault::Ca { .. })));
        std::fs::write(&path, "no certificate").expect("written");
        assert!(named(&path).is_err_and(|fault| fault.to_string().contains("no PEM certificate")));
        let empty = "-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n";
        std::fs::write(&path, empty).expect("written");
        assert!(named(&path).is_err_and(|fault| fault.to_string().contains("cannot be read")));
        // The same bytes in a list of many are passed over.
        let roots = Roots { file: Some(path), folders: vec![folder.path().to_owned()] };
        assert!(load(&roots).is_ok_and(|certificates| certificates.is_empty()));
        let missing = Roots { file: None, folders: vec![folder.path().join("missing")] };
        assert!(load(&missing).is_err());
    }
}
