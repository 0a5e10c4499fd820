//! What clients make of a listener's certificate: for whom it is, and whether they know who signed it.

use rustls_pki_types::{CertificateDer, pem::PemObject};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::X509Certificate;

const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";

/// Whether clients trust a certificate as they are.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Trust {
    /// An authority signed it that this system trusts, as clients likely do.
    Known,
    /// They must be given this (PEM).
    Needed(String),
    /// They must be given an authority that is in none of our files.
    Missing,
}

/// The leaf's host names and addresses that a client can connect to, as it writes them.
pub(super) fn names(chain: &str) -> Vec<String> {
    all_names(chain).into_iter().filter(|name| !name.starts_with('*')).collect()
}

/// Whether a client that connects to `host` finds it in the leaf: an asterisk stands for one label
/// (RFC 6125 §6.4.3).
pub(super) fn covers(chain: &str, host: &str) -> bool {
    let host = host.trim_matches(['[', ']']);
    let above = host.split_once('.').map(|(_, above)| above);
    all_names(chain).iter().any(|name| match name.strip_prefix("*.") {
        Some(domain) => above.is_some_and(|above| above.eq_ignore_ascii_case(domain)),
        None => name.eq_ignore_ascii_case(host),
    })
}

fn all_names(chain: &str) -> Vec<String> {
    let Some(leaf) = certificates(chain).into_iter().next() else { return Vec::new() };
    let Ok((_, leaf)) = x509_parser::parse_x509_certificate(&leaf) else { return Vec::new() };
    let Ok(Some(names)) = leaf.subject_alternative_name() else { return Vec::new() };
    names.value.general_names.iter().filter_map(name).collect()
}

fn name(name: &GeneralName<'_>) -> Option<String> {
    let address = |address: std::net::IpAddr| address.to_string();
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => {
            let v4 = <[u8; 4]>::try_from(*bytes).map(|bytes| address(bytes.into()));
            let v6 = <[u8; 16]>::try_from(*bytes).map(|bytes| address(bytes.into()));
            v4.or(v6).ok()
        }
        _ => None,
    }
}

/// Judges a chain as a listener's file has it, the leaf first.
pub(super) fn of(chain: &str) -> Trust {
    let certificates = certificates(chain);
    let Some(last) = certificates.last() else { return Trust::Missing };
    let Ok((_, top)) = x509_parser::parse_x509_certificate(last) else { return Trust::Missing };
    if is_signed_by_the_system(&top) {
        return Trust::Known;
    }
    // The names alone don't tell: some make an authority and its certificates with one name.
    match top.issuer() == top.subject() && top.verify_signature(None).is_ok() {
        true => last_pem(chain).map_or(Trust::Missing, Trust::Needed),
        false => Trust::Missing,
    }
}

fn is_signed_by_the_system(top: &X509Certificate<'_>) -> bool {
    let Ok(system) = rustls_native_certs::load_native_certs() else { return false };
    system.iter().any(|der| {
        let root = x509_parser::parse_x509_certificate(der);
        root.is_ok_and(|(_, root)| {
            let itself = root.subject() == top.subject() && root.public_key() == top.public_key();
            let signed = || top.verify_signature(Some(root.public_key())).is_ok();
            itself || (root.subject() == top.issuer() && signed())
        })
    })
}

/// How many certificates a text has; none may be broken.
pub(super) fn count(text: &str) -> usize {
    certificates(text).iter().filter(|der| x509_parser::parse_x509_certificate(der).is_ok()).count()
}

fn certificates(text: &str) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(text.as_bytes()).filter_map(Result::ok).collect()
}

/// The last certificate, byte for byte as it is written.
fn last_pem(text: &str) -> Option<String> {
    let start = text.rfind(BEGIN)?;
    let rest = text.get(start..)?;
    let end = rest.find(END)? + END.len();
    Some(format!("{}\n", rest.get(..end)?))
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

    use super::*;

    fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    }

    fn leaf(authority: &CertifiedIssuer<'static, KeyPair>) -> String {
        let names = ["*.corp", "mirror.corp", "10.0.0.5"].map(String::from);
        let params = CertificateParams::new(names).unwrap();
        params.signed_by(&KeyPair::generate().unwrap(), authority).unwrap().pem()
    }

    #[test]
    fn a_private_authority_in_the_chain_is_what_clients_need() {
        let authority = authority("ours");
        let chain = format!("{}{}", leaf(&authority), authority.pem());
        let Trust::Needed(pem) = of(&chain) else { panic!("{:?}", of(&chain)) };
        assert_eq!(pem.trim(), authority.pem().trim().replace('\r', ""));
        assert_eq!(of(&leaf(&authority)), Trust::Missing);
        assert_eq!(of("no certificate"), Trust::Missing);
    }

    #[test]
    fn names_are_hosts_that_can_be_connected_to() {
        assert_eq!(names(&leaf(&authority("ours"))), ["mirror.corp", "10.0.0.5"]);
    }
    #[test]
    fn a_certificate_is_for_its_names_and_one_label_under_its_wildcards() {
        let chain = leaf(&authority("ours"));
        for host in ["mirror.corp", "Other.corp", "10.0.0.5"] {
            assert!(covers(&chain, host), "{host}");
        }
        for host in ["corp", "a.b.corp", "10.0.0.6", "mirror.example.com"] {
            assert!(!covers(&chain, host), "{host}");
        }
    }
}
