//! A local authority: it signs a certificate for a host at the moment when a client asks for that
//! host, and only ever for the hosts that it was given.
//!
//! Its clients trust its word for every name that its certificate allows, so its key must be
//! nobody else's to read.

use std::{
    collections::{HashMap, HashSet},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use time::OffsetDateTime;
use tokio_rustls::rustls::{ServerConfig, crypto::ring, sign::CertifiedKey};
use x509_parser::{
    certificate::X509Certificate,
    extensions::{GeneralName, GeneralSubtree},
};

use super::{files, kept::Kept, protocols};
use crate::config::KeyFiles;

/// A certificate holds for this long before and after it is made: clients' clocks differ.
const BEFORE: Duration = Duration::from_secs(12 * 3600);
const AFTER: Duration = Duration::from_secs(72 * 3600);

/// From here on a client gets another one.
const RENEW: Duration = Duration::from_secs(24 * 3600);

/// For an authority that is none, or not for this.
const REMEDY: &str = "make one with `roadstead client ca`";

/// The longest common name of X.509 (RFC 5280, ub-common-name).
const LONGEST_COMMON_NAME: usize = 64;

/// The authority as its files have it.
pub type Authority = Kept<Signer>;

/// One authority's key, and what it has signed.
pub struct Signer {
    issuer: Issuer<'static, KeyPair>,
    /// Its certificate, and what leads to a root that clients know.
    chain: Vec<CertificateDer<'static>>,
    expires: OffsetDateTime,
    hosts: HashSet<String>,
    /// By host, so there are never more than hosts.
    leaves: Mutex<HashMap<String, Leaf>>,
}

/// What one host's clients are shown.
struct Leaf {
    config: Arc<ServerConfig>,
    made: SystemTime,
}

impl Authority {
    /// Reads the files that `ca` names; it signs for `hosts`. The error says what is wrong.
    pub fn of(ca: &KeyFiles, hosts: &[&str]) -> Result<Self, String> {
        let files = vec![ca.certificate.clone(), ca.key.clone()];
        let ca = ca.clone();
        let hosts: HashSet<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        Self::open("authority", files, move || Signer::read(&ca, &hosts))
    }
}

// === impl Signer ===

impl Signer {
    fn read(ca: &KeyFiles, hosts: &HashSet<String>) -> Result<Self, String> {
        files::refuse_public(&ca.key)?;
        let chain = files::chain(&ca.certificate)?;
        let key = files::key(&ca.key)?;
        let certificate = chain.first().ok_or("there is no certificate")?;
        let expires = check(&ca.certificate, certificate, hosts)?;
        CertifiedKey::from_der(chain.clone(), key.clone_key(), &ring::default_provider()).map_err(
            |error| {
                let what = format!("is not the key of {} ({error})", ca.certificate.display());
                files::told(&ca.key, &what)
            },
        )?;
        let pair = KeyPair::try_from(&key).map_err(|error| {
            let remedy = "write it as PKCS #8 (openssl pkcs8 -topk8 -nocrypt -in KEY -out NEW)";
            files::told(&ca.key, &format!("can't sign ({error}); {remedy}"))
        })?;
        let issuer = Issuer::from_ca_cert_der(certificate, pair)
            .map_err(|error| files::told(&ca.certificate, &format!("can't be read ({error})")))?;
        let hosts = hosts.clone();
        let signer = Self { issuer, chain, expires, hosts, leaves: Mutex::default() };
        match signer.is_named_right() {
            Ok(true) => Ok(signer),
            Ok(false) => {
                let what = "has a subject that what it signs can't repeat (with one attribute twice, such as DC=corp, DC=com)";
                Err(files::told(&ca.certificate, &format!("{what}; {REMEDY}")))
            }
            Err(error) => Err(files::told(&ca.certificate, &format!("can't sign ({error})"))),
        }
    }

    /// Whether clients would find the authority by the name that its certificates give it, which
    /// must be the same to the byte (RFC 5280 §4.1.2.4). What is read of a name may be less than
    /// the name.
    fn is_named_right(&self) -> Result<bool, String> {
        let said = |error: &dyn std::fmt::Display| error.to_string();
        let leaf = self.leaf("probe.invalid", SystemTime::now()).map_err(|e| said(&e))?.0;
        let (_, leaf) = x509_parser::parse_x509_certificate(&leaf).map_err(|e| said(&e))?;
        let own = self.chain.first().ok_or("there is no certificate")?;
        let (_, own) = x509_parser::parse_x509_certificate(own).map_err(|e| said(&e))?;
        Ok(leaf.issuer().as_raw() == own.subject().as_raw())
    }

    /// What a client that asks for `host` is shown.
    pub fn server(&self, host: &str) -> Result<Arc<ServerConfig>, String> {
        self.server_at(host, SystemTime::now())
    }

    fn server_at(&self, host: &str, now: SystemTime) -> Result<Arc<ServerConfig>, String> {
        if !self.hosts.contains(host) {
            return Err(format!("{host} is no host of an upstream"));
        }
        let mut leaves = self.leaves.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(leaf) = leaves.get(host).filter(|leaf| leaf.is_fresh(now)) {
            return Ok(Arc::clone(&leaf.config));
        }
        let config = Arc::new(self.sign(host, now)?);
        let leaf = Leaf { config: Arc::clone(&config), made: now };
        leaves.insert(host.to_owned(), leaf);
        Ok(config)
    }

    fn sign(&self, host: &str, now: SystemTime) -> Result<ServerConfig, String> {
        if OffsetDateTime::from(now) >= self.expires {
            return Err("the authority has expired; make another with `roadstead client ca`".into());
        }
        let signed = self.leaf(host, now).map_err(|error| error.to_string())?;
        let (leaf, key) = signed;
        let mut chain = vec![leaf];
        chain.extend(self.chain.iter().cloned());
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(|error| error.to_string())?;
        config.alpn_protocols = protocols();
        Ok(config)
    }

    fn leaf(
        &self,
        host: &str,
        now: SystemTime,
    ) -> Result<(CertificateDer<'static>, PrivateKeyDer<'static>), rcgen::Error> {
        let mut params = CertificateParams::new([host.to_owned()])?;
        params.not_before = OffsetDateTime::from(now - BEFORE);
        params.not_after = OffsetDateTime::from(now + AFTER).min(self.expires);
        params.distinguished_name = DistinguishedName::new();
        if host.len() <= LONGEST_COMMON_NAME {
            params.distinguished_name.push(DnType::CommonName, host);
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        Ok((certificate.der().clone(), key))
    }
}

// === impl Leaf ===

impl Leaf {
    /// A clock that was wrong may have made it in what is the future now.
    fn is_fresh(&self, now: SystemTime) -> bool {
        now.duration_since(self.made).is_ok_and(|age| age < RENEW)
    }
}

/// An authority that may sign for all of `hosts`; answers when it ends.
fn check(
    path: &Path,
    certificate: &CertificateDer<'_>,
    hosts: &HashSet<String>,
) -> Result<OffsetDateTime, String> {
    let refused = |what: &str| Err(files::told(path, &format!("{what}; {REMEDY}")));
    let Ok((_, parsed)) = x509_parser::parse_x509_certificate(certificate) else {
        return refused("holds a broken certificate");
    };
    let is_ca = parsed.basic_constraints().ok().flatten().is_some_and(|found| found.value.ca);
    let may_sign = match parsed.key_usage() {
        Ok(usage) => usage.is_none_or(|usage| usage.value.key_cert_sign()),
        Err(_) => false,
    };
    if !is_ca || !may_sign {
        return refused("is no authority's certificate");
    }
    let expires = parsed.validity().not_after.to_datetime();
    if expires <= OffsetDateTime::now_utc() {
        return refused(&format!("has expired at {expires}"));
    }
    let mut not_allowed: Vec<&str> =
        hosts.iter().map(String::as_str).filter(|host| !allows(&parsed, host)).collect();
    not_allowed.sort_unstable();
    if not_allowed.is_empty() {
        return Ok(expires);
    }
    refused(&format!("may not vouch for {}", not_allowed.join(", ")))
}

/// RFC 5280 §4.2.1.10, for DNS names.
fn allows(authority: &X509Certificate<'_>, host: &str) -> bool {
    let Ok(constraints) = authority.name_constraints() else { return false };
    let Some(constraints) = constraints.map(|found| found.value) else { return true };
    let names = |subtrees: &Option<Vec<GeneralSubtree<'_>>>| -> Vec<String> {
        let bases = subtrees.iter().flatten().map(|subtree| &subtree.base);
        let name = |base: &GeneralName<'_>| match base {
            GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
            _ => None,
        };
        bases.filter_map(name).collect()
    };
    let within = |base: &String| {
        let base = base.trim_start_matches('.');
        base.is_empty() || host == base || host.strip_suffix(base).is_some_and(|h| h.ends_with('.'))
    };
    let (permitted, excluded) =
        (names(&constraints.permitted_subtrees), names(&constraints.excluded_subtrees));
    (permitted.is_empty() || permitted.iter().any(within)) && !excluded.iter().any(within)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use base64::prelude::{BASE64_STANDARD, Engine as _};

    use super::super::{Limits, make_authority};
    use super::*;

    fn made(folder: &Path, hosts: &[&str]) -> KeyFiles {
        let made = make_authority(folder, Limits::Hosts(hosts)).unwrap();
        KeyFiles { certificate: made.certificate, key: made.key }
    }

    fn refused(ca: &KeyFiles, hosts: &[&str]) -> String {
        Authority::of(ca, hosts).map(|_| ()).unwrap_err()
    }

    #[test]
    fn it_signs_for_its_hosts_alone_and_once_a_day() {
        let folder = tempfile::tempdir().unwrap();
        let ca = made(folder.path(), &["ghcr.io", "registry.corp"]);
        let authority = Authority::of(&ca, &["ghcr.io", "registry.corp"]).unwrap();
        let signer = authority.get();
        let first = signer.server("ghcr.io").unwrap();
        assert!(Arc::ptr_eq(&first, &signer.server("ghcr.io").unwrap()));
        assert!(!Arc::ptr_eq(&first, &signer.server("registry.corp").unwrap()));
        assert!(signer.server("example.com").unwrap_err().contains("no host of an upstream"));
        assert_eq!(signer.leaves.lock().unwrap().len(), 2);
    }

    #[test]
    fn a_clock_that_is_set_back_gets_another_certificate() {
        let folder = tempfile::tempdir().unwrap();
        let ca = made(folder.path(), &["ghcr.io"]);
        let signer = Authority::of(&ca, &["ghcr.io"]).unwrap().get();
        let now = SystemTime::now();
        let ahead = signer.server_at("ghcr.io", now + RENEW * 3).unwrap();
        let right = signer.server_at("ghcr.io", now).unwrap();
        assert!(!Arc::ptr_eq(&ahead, &right));
        for (later, is_same) in [(RENEW - Duration::from_secs(1), true), (RENEW, false)] {
            let then = signer.server_at("ghcr.io", now + later).unwrap();
            assert_eq!(Arc::ptr_eq(&right, &then), is_same, "{later:?}");
        }
    }

    #[test]
    fn an_authority_whose_name_can_not_be_repeated_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let ca = KeyFiles { certificate: path("crt"), key: path("key") };
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "corp");
        params.distinguished_name.push(DnType::OrganizationalUnitName, "com");
        let mut der = params.self_signed(&key).unwrap().der().to_vec();
        fs::write(&ca.key, key.serialize_pem()).unwrap();
        fs::set_permissions(&ca.key, fs::Permissions::from_mode(0o600)).unwrap();
        let write = |der: &[u8]| {
            let text = BASE64_STANDARD.encode(der);
            let pem = format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n");
            fs::write(&ca.certificate, pem).unwrap();
        };
        write(&der);
        assert!(Authority::of(&ca, &["ghcr.io"]).is_ok());
        // Two organizations, where the unit was another kind of name.
        let (organization, unit) = ([0x55, 4, 10], [0x55, 4, 11]);
        while let Some(at) = der.windows(3).position(|oid| oid == unit) {
            der[at..at + 3].copy_from_slice(&organization);
        }
        write(&der);
        assert!(
            refused(&ca, &["ghcr.io"]).contains("has a subject that what it signs can't repeat")
        );
    }

    #[test]
    fn an_authority_that_may_not_vouch_for_a_host_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let ca = made(folder.path(), &["ghcr.io"]);
        assert!(Authority::of(&ca, &["ghcr.io", "a.ghcr.io"]).is_ok());
        let told = refused(&ca, &["ghcr.io", "quay.io", "notghcr.io"]);
        assert!(told.contains("may not vouch for notghcr.io, quay.io; make one with"), "{told}");
    }

    #[test]
    fn a_key_that_all_may_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let ca = made(folder.path(), &["ghcr.io"]);
        fs::set_permissions(&ca.key, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(refused(&ca, &["ghcr.io"]).contains("can be read by everybody"));
    }

    #[test]
    fn what_is_no_authority_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let made_one = rcgen::generate_simple_self_signed(["ghcr.io".to_owned()]).unwrap();
        let path = |name: &str| folder.path().join(name);
        let ca = KeyFiles { certificate: path("crt"), key: path("key") };
        fs::write(&ca.certificate, made_one.cert.pem()).unwrap();
        fs::write(&ca.key, made_one.signing_key.serialize_pem()).unwrap();
        fs::set_permissions(&ca.key, fs::Permissions::from_mode(0o600)).unwrap();
        assert!(refused(&ca, &[]).contains("is no authority's certificate"));
        let other = made(&path("other"), &["ghcr.io"]);
        let mixed = KeyFiles { certificate: other.certificate, key: ca.key };
        assert!(refused(&mixed, &[]).contains("is not the key of "));
    }
}
