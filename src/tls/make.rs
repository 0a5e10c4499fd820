//! Makes a local authority: a key that its owner alone may read, and a certificate for clients to
//! trust.
//!
//! The certificate is limited to the hosts that it is made for, so whoever steals the key can play
//! these registries to those who trust it, and no bank.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DistinguishedName, DnType, GeneralSubtree,
    IsCa, KeyPair, KeyUsagePurpose, NameConstraints,
};
use time::OffsetDateTime;

/// How long clients may trust it.
const HOLDS: Duration = Duration::from_secs(5 * 365 * 24 * 3600);

/// Clients' clocks differ.
const BEFORE: Duration = Duration::from_secs(24 * 3600);

/// The files of an authority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    /// For clients to trust.
    pub certificate: PathBuf,
    /// For Roadstead alone: mode 0600.
    pub key: PathBuf,
}

/// Whom an authority may vouch for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limits<'a> {
    /// Every name there is.
    Any,
    /// These hosts and the names below them; at least one.
    Hosts(&'a [&'a str]),
}

/// Makes `roadstead-ca.crt` and `roadstead-ca.key` in `directory`, which is made if it is missing.
/// Files that are there already are never touched. The error says what is wrong.
pub fn make_authority(directory: &Path, limits: Limits<'_>) -> Result<Made, String> {
    if limits == Limits::Hosts(&[]) {
        // A certificate says "nobody" and "everybody" alike: by no list.
        return Err("an authority that may vouch for no host is of no use; name one".to_owned());
    }
    let made = Made {
        certificate: directory.join("roadstead-ca.crt"),
        key: directory.join("roadstead-ca.key"),
    };
    for path in [&made.certificate, &made.key] {
        if fs::symlink_metadata(path).is_ok() {
            return Err(format!(
                "{} is there already, and clients may trust it; name another directory, or remove it",
                path.display()
            ));
        }
    }
    let (certificate, key) = sign(limits).map_err(|error| format!("it can't be made: {error}"))?;
    let failed = |path: &Path| {
        let path = path.display().to_string();
        move |error: io::Error| format!("{path} can't be written: {error}")
    };
    fs::create_dir_all(directory).map_err(failed(directory))?;
    write_new(&made.key, &key, 0o600).map_err(failed(&made.key))?;
    let written = write_new(&made.certificate, &certificate, 0o644);
    if written.is_err() {
        // A key without its certificate is of no use, and would be in the way.
        let _ = fs::remove_file(&made.key);
    }
    written.map_err(failed(&made.certificate))?;
    Ok(made)
}

/// Certificate and key in PEM.
fn sign(limits: Limits<'_>) -> Result<(String, String), rcgen::Error> {
    let now = SystemTime::now();
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(Vec::new())?;
    params.not_before = OffsetDateTime::from(now - BEFORE);
    params.not_after = OffsetDateTime::from(now + HOLDS);
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "Roadstead");
    // Several may be trusted side by side, and are told apart by name.
    let name = format!("Roadstead local CA {:08x}", fastrand::u32(..));
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    if let Limits::Hosts(hosts) = limits {
        let name = |host: &&str| GeneralSubtree::DnsName((*host).to_owned());
        params.name_constraints = Some(NameConstraints {
            permitted_subtrees: hosts.iter().map(name).collect(),
            excluded_subtrees: vec![
                GeneralSubtree::IpAddress(CidrSubnet::V4([0; 4], [0; 4])),
                GeneralSubtree::IpAddress(CidrSubnet::V6([0; 16], [0; 16])),
            ],
        });
    }
    let certificate = params.self_signed(&key)?;
    Ok((certificate.pem(), key.serialize_pem()))
}

fn write_new(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_key_is_its_owner_s_alone_and_nothing_is_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let directory = folder.path().join("deep/ca");
        let made = make_authority(&directory, Limits::Hosts(&["ghcr.io"])).unwrap();
        let mode = fs::metadata(&made.key).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let before = (fs::read(&made.key).unwrap(), fs::read(&made.certificate).unwrap());
        let told = make_authority(&directory, Limits::Hosts(&["ghcr.io"])).unwrap_err();
        assert!(told.contains("roadstead-ca.crt is there already"), "{told}");
        fs::remove_file(&made.certificate).unwrap();
        let told = make_authority(&directory, Limits::Hosts(&["ghcr.io"])).unwrap_err();
        assert!(told.contains("roadstead-ca.key is there already"), "{told}");
        assert_eq!(fs::read(&made.key).unwrap(), before.0);
    }

    #[test]
    fn it_is_limited_to_its_hosts() {
        let (pem, _) = sign(Limits::Hosts(&["ghcr.io", "docker.io"])).unwrap();
        let (_, pem) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).unwrap();
        let certificate = pem.parse_x509().unwrap();
        let constraints = certificate.name_constraints().unwrap().unwrap();
        assert!(constraints.critical);
        assert_eq!(constraints.value.permitted_subtrees.as_ref().unwrap().len(), 2);
        let (pem, _) = sign(Limits::Any).unwrap();
        let (_, pem) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).unwrap();
        assert!(pem.parse_x509().unwrap().name_constraints().unwrap().is_none());
    }

    #[test]
    fn no_hosts_are_never_all_of_them() {
        let folder = tempfile::tempdir().unwrap();
        let told = make_authority(folder.path(), Limits::Hosts(&[])).unwrap_err();
        assert!(told.contains("may vouch for no host"), "{told}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
