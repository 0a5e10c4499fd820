//! Every certificate that the configuration names: can it be used, does its key fit, how long does
//! it hold.

use std::{
    fs::File,
    io::Read as _,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use rustls_pki_types::{CertificateDer, pem::PemObject as _};

use super::finding::{Check, Finding, Group};
use crate::{
    config::{Config, Intercepted, Tls},
    tls::{Authority, Server},
};

/// A certificate that ends sooner is to be renewed now.
const SOON_DAYS: i64 = 30;

const DAY: i64 = 86_400;

/// The longest file that is read.
const FILE_BYTES: u64 = 4 << 20;

const FITS: Check = Check(Group::Certificates, "key");
const HOLDS: Check = Check(Group::Certificates, "expiry");

/// All of them.
pub(super) fn check(config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(tls) = &config.admin.tls {
        findings.extend(listener(&config.admin.address.to_string(), tls));
    }
    for listen in &config.listen {
        let at = listen.address.to_string();
        findings.extend(listen.tls.iter().flat_map(|tls| listener(&at, tls)));
        if let Some(transparent) = &listen.transparent {
            let hosts = Intercepted::of(&config.upstreams);
            let problem = Authority::of(&transparent.ca, &hosts.hosts()).err();
            findings.push(fits(&format!("authority of {at}"), problem));
            findings.push(holds(&transparent.ca.certificate, "which clients trust"));
        }
    }
    for upstream in &config.upstreams {
        let mirrors = upstream.mirrors.iter().map(|mirror| &mirror.registry);
        for registry in std::iter::once(upstream).chain(mirrors) {
            let place = registry.url.authority();
            let authority = registry.ca_file.as_ref();
            findings.extend(authority.map(|path| holds(path, &format!("to check {place} with"))));
            if let Some(own) = &registry.client_certificate {
                let (certificate, key) = (own.certificate.clone(), own.key.clone());
                let problem = Server::of(&Tls { certificate, key, client_ca: None }).err();
                findings.push(fits(&format!("certificate for {place}"), problem));
                findings.push(holds(&own.certificate, &format!("shown to {place}")));
            }
        }
    }
    findings
}

fn listener(at: &str, tls: &Tls) -> Vec<Finding> {
    let mut findings = vec![
        fits(&format!("listener {at}"), Server::of(tls).err()),
        holds(&tls.certificate, &format!("for the listener {at}")),
    ];
    let authority = tls.client_ca.as_ref();
    findings.extend(authority.map(|path| holds(path, "for clients' certificates")));
    findings
}

/// The loader's errors end with their remedy.
fn fits(about: &str, problem: Option<String>) -> Finding {
    let Some(problem) = problem else { return FITS.ok(about, "certificate and key fit") };
    let (what, remedy) = problem.rsplit_once("; ").unwrap_or((&problem, "look at its files"));
    FITS.fault(about, what, remedy)
}

/// How long the one of a file that ends first holds; `whose` says what for.
fn holds(path: &Path, whose: &str) -> Finding {
    let shown = path.display();
    let ends = match ends(path) {
        Ok(ends) => ends,
        Err(problem) => {
            let remedy = "write certificates there in PEM, which Roadstead's user may read";
            return HOLDS.fault(shown, format!("{problem} ({whose})"), remedy);
        }
    };
    judge(&shown.to_string(), whose, &ends, now())
}

/// One certificate's span, in seconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Span {
    subject: String,
    begins: i64,
    ends: i64,
}

fn judge(shown: &str, whose: &str, spans: &[Span], now: i64) -> Finding {
    if let Some(early) = spans.iter().find(|span| span.begins > now) {
        let found =
            format!("{} holds from {} on only ({whose})", early.subject, date(early.begins));
        return HOLDS.fault(
            shown,
            found,
            "look at this machine's clock, or use another one till then",
        );
    }
    let first = spans.iter().min_by_key(|span| span.ends);
    let Some(Span { subject, ends, .. }) = first else {
        return HOLDS.fault(shown, format!("holds no certificate ({whose})"), "write one there");
    };
    let days = (ends - now).div_euclid(DAY);
    let until = date(*ends);
    let renew = "renew it and write it to the same file: Roadstead reads it again by itself";
    if *ends <= now {
        return HOLDS.fault(shown, format!("{subject} has ended on {until} ({whose})"), renew);
    }
    let found = format!("holds until {until}, {days} days more ({whose})");
    match days < SOON_DAYS {
        true => HOLDS.warning(shown, found, renew),
        false => HOLDS.ok(shown, found),
    }
}

fn ends(path: &Path) -> Result<Vec<Span>, String> {
    let mut text = Vec::new();
    File::open(path)
        .and_then(|file| file.take(FILE_BYTES).read_to_end(&mut text))
        .map_err(|error| format!("can't be read: {error}"))?;
    let span = |der: Result<CertificateDer<'static>, _>| {
        let der = der.map_err(|_| "is not valid PEM")?;
        let (_, certificate) = x509_parser::parse_x509_certificate(&der)
            .map_err(|_| "holds a certificate that can't be read")?;
        let validity = certificate.validity();
        Ok(Span {
            subject: certificate.subject().to_string(),
            begins: validity.not_before.timestamp(),
            ends: validity.not_after.timestamp(),
        })
    };
    let spans: Result<Vec<_>, &str> = CertificateDer::pem_slice_iter(&text).map(span).collect();
    Ok(spans?)
}

fn now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_secs()).unwrap_or(i64::MAX)
}

fn date(seconds: i64) -> String {
    time::OffsetDateTime::from_unix_timestamp(seconds)
        .map_or_else(|_| "an unknown day".to_owned(), |time| time.date().to_string())
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;

    fn level(begins: i64, ends: i64) -> Level {
        let span = Span { subject: "CN=a".to_owned(), begins, ends };
        let later = Span { subject: "CN=b".to_owned(), begins: 0, ends: 1000 * DAY };
        judge("a.pem", "for x", &[later, span], 100 * DAY).level
    }

    #[test]
    fn the_first_to_end_counts() {
        assert_eq!(level(0, 131 * DAY), Level::Ok);
        assert_eq!(level(0, 129 * DAY), Level::Warning);
        assert_eq!(level(0, 100 * DAY), Level::Fault);
        assert_eq!(level(101 * DAY, 500 * DAY), Level::Fault);
        assert_eq!(judge("a.pem", "", &[], 0).level, Level::Fault);
    }

    #[test]
    fn a_file_is_read_and_what_is_wrong_with_it_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.pem");
        let made = rcgen::generate_simple_self_signed(["a".to_owned()]).unwrap();
        std::fs::write(&path, made.cert.pem()).unwrap();
        assert_eq!(holds(&path, "for x").level, Level::Ok);
        std::fs::write(&path, "no PEM").unwrap();
        assert_eq!(holds(&path, "for x").level, Level::Fault);
        let gone = holds(&folder.path().join("b.pem"), "for x");
        assert!(gone.found.contains("can't be read"), "{gone:?}");
    }
}
