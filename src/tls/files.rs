//! PEM files, read whole: chains, keys, authorities. An error names the file and the remedy.

use std::{fs::File, io::Read, os::unix::fs::PermissionsExt, path::Path};

use rustls_pki_types::{
    CertificateDer, PrivateKeyDer,
    pem::{self, PemObject as _},
};
use tokio_rustls::rustls::RootCertStore;

/// The longest file that is read.
const FILE_BYTES: u64 = 1 << 20;

/// A certificate and its chain; never empty.
pub(super) fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let text = read(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match found {
        Ok(chain) if chain.is_empty() => {
            Err(told(path, "holds no certificate; write it in PEM, and its chain below it"))
        }
        Ok(chain) => Ok(chain),
        Err(_) => Err(told(path, "is not valid PEM; write the whole certificate")),
    }
}

/// A private key.
pub(super) fn key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    let text = read(path)?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|error| {
        told(
            path,
            match error {
                pem::Error::NoItemsFound => {
                    "holds no private key; write a PEM key without a passphrase"
                }
                _ => "is not valid PEM; write the whole key",
            },
        )
    })
}

/// Authorities; never empty.
pub(super) fn roots(path: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in chain(path)? {
        roots.add(certificate).map_err(|_| {
            told(path, "holds a certificate that can't be read; write the authority's own")
        })?;
    }
    Ok(roots)
}

/// A key with which anybody on the machine could become any registry is none.
pub(super) fn refuse_public(path: &Path) -> Result<(), String> {
    let file = File::open(path).and_then(|file| file.metadata());
    let mode = file.map_err(|error| unreadable(path, &error))?.permissions().mode();
    match mode & 0o007 {
        0 => Ok(()),
        _ => Err(told(path, "can be read by everybody on this machine; chmod o= it")),
    }
}

pub(super) fn told(path: &Path, what: &str) -> String {
    format!("{} {what}", path.display())
}

fn unreadable(path: &Path, error: &std::io::Error) -> String {
    format!("{} can't be read: {error}; let Roadstead's user read it", path.display())
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let mut text = Vec::new();
    File::open(path)
        .and_then(|file| file.take(FILE_BYTES + 1).read_to_end(&mut text))
        .map_err(|error| unreadable(path, &error))?;
    if text.len() as u64 > FILE_BYTES {
        return Err(told(path, "is longer than a megabyte; name a PEM file"));
    }
    Ok(text)
}
