//! The server that runs: is it this one, is it ready, and what holds it back.

use super::{
    finding::{Check, Finding, Group},
    server::{Admin, Metrics, label},
};
use crate::{config::Config, inventory};

const RUNS: Check = Check(Group::Server, "running");
const READY: Check = Check(Group::Server, "ready");
const UPSTREAM: Check = Check(Group::Server, "upstream");
const BREAKER: Check = Check(Group::Server, "breaker");
const ACCOUNT: Check = Check(Group::Server, "account");

/// What is known of the server with this configuration's admin address.
#[derive(Debug)]
pub(super) struct Running {
    /// It uses this configuration's directory.
    pub(super) is_ours: bool,
    /// Bytes that its store takes.
    pub(super) used: Option<u64>,
    pub(super) findings: Vec<Finding>,
}

/// Asks it. `None` where nothing answers, and then the finding says so.
pub(super) fn ask(config: &Config, admin: &Admin) -> Result<Running, Finding> {
    let about = admin.base();
    let server = match admin.server() {
        Ok(server) => server,
        Err(problem) => return Err(absent(config, admin, &problem)),
    };
    let own = inventory::directory_id(&config.store.directory);
    let is_ours = own.is_some() && own == server.directory_id;
    let directory = server.directory.display();
    let mut findings = vec![match is_ours {
        true => RUNS.ok(about, format!("roadstead {} runs, for {directory}", server.version)),
        false => RUNS.warning(
            about,
            format!(
                "roadstead {} runs, for {directory}: another store than store.directory",
                server.version
            ),
            "give this the configuration that the server runs with (--config), or its --data",
        ),
    }];
    let own = env!("CARGO_PKG_VERSION");
    if server.version != own {
        findings.push(Check(Group::Server, "version").note(
            about,
            format!("the server is {}, this program is {own}", server.version),
            "restart the server once the new program is to be used (SIGQUIT hands over without a gap)",
        ));
    }
    findings.push(ready(admin));
    let metrics = admin.metrics().ok();
    findings.extend(upstreams(admin));
    findings.extend(metrics.iter().flat_map(breakers_and_accounts));
    let used = metrics.and_then(|page| page.sum("roadstead_store_bytes", &[("state", "used")]));
    Ok(Running { is_ours, used: used.map(|bytes| bytes as u64), findings })
}

/// It can't be asked, because of what is wrong on our side.
pub(super) fn unasked(config: &Config, problem: &str) -> Finding {
    let (what, remedy) = problem.rsplit_once("; ").unwrap_or((problem, "mend what it names"));
    RUNS.fault(config.admin.address, format!("can't be asked: {what}"), remedy)
}

fn absent(config: &Config, admin: &Admin, problem: &str) -> Finding {
    let is_free = std::net::TcpListener::bind(config.admin.address).is_ok();
    if is_free {
        let remedy = "nothing, if it is not to run now; else start it";
        return RUNS.note(admin.base(), "no server runs with this admin address", remedy);
    }
    if problem.contains("asks for a login") {
        let remedy = "give this the login (a user of admin.htpasswd), and ask again";
        return RUNS.warning(admin.base(), problem, remedy);
    }
    // It may well be ours: it is who we are, or what we believe, that keeps it from telling.
    if let Some(remedy) = missing_certificate(problem) {
        return RUNS.warning(admin.base(), problem, remedy);
    }
    RUNS.fault(
        admin.base(),
        format!("something listens there that is not this Roadstead's admin listener: {problem}"),
        "end what listens there, or give Roadstead another admin.address",
    )
    .run(format!("ss -ltnp 'sport = :{}'", config.admin.address.port()))
}

/// What to do where a certificate is missing: the server's among those that are believed, or ours.
fn missing_certificate(problem: &str) -> Option<&'static str> {
    // As rustls says it of the server's; what a server finds wrong with ours comes as an alert.
    if problem.contains("invalid peer certificate") {
        return Some(
            "put the authority's certificate behind the server's own in admin.tls.certificate; a \
             self-signed one must not be an authority's (openssl req -x509 … -addext \
             basicConstraints=critical,CA:FALSE)",
        );
    }
    (problem.contains("answers 403") || problem.contains("CertificateRequired")).then_some(
        "show a certificate: ROADSTEAD_ADMIN_CLIENT_CERTIFICATE and ROADSTEAD_ADMIN_CLIENT_KEY, or \
         add the name to admin.hosts",
    )
}

fn ready(admin: &Admin) -> Finding {
    let about = format!("{}/readyz", admin.base());
    match admin.readiness() {
        Ok((200, text)) if !text.contains("degraded") => READY.ok(about, text),
        Ok((200, text)) => READY.fault(
            about,
            text,
            "look at the disk: meanwhile all is passed on and nothing stored; \
             it is used again once it works",
        ),
        Ok((status, text)) => READY.warning(
            about,
            format!("{status}: {text}"),
            "wait a moment, and look into its log if this stays",
        ),
        Err(problem) => READY.fault(about, problem, "look into the server's log"),
    }
}

fn upstreams(admin: &Admin) -> Vec<Finding> {
    let states = match admin.upstreams() {
        Ok(states) => states,
        Err(problem) => {
            let remedy = "use the doctor of the server's own version";
            return vec![UPSTREAM.warning(admin.base(), problem, remedy)];
        }
    };
    let mut findings = Vec::new();
    for state in states {
        let remedy = "it is probed, and asked again as soon as it answers";
        if state.offline {
            let switch = "curl -X POST -H 'X-Roadstead: 1' -d '{\"offline\": false}'";
            findings.push(
                UPSTREAM
                    .warning(
                        &state.name,
                        "is switched offline: only what is cached is served",
                        "switch it on again, unless it is to be so",
                    )
                    .run(format!("{switch} {}/api/v1/offline", admin.base())),
            );
        } else {
            findings.push(match &state.held_back {
                Some(why) => UPSTREAM.fault(&state.name, format!("is held back: {why}"), remedy),
                None => UPSTREAM.ok(&state.name, "is asked as usual"),
            });
        }
        for mirror in state.mirrors {
            let why = mirror.held_back.filter(|_| !state.offline);
            let found = why.map(|why| format!("is held back: {why}"));
            findings.extend(found.map(|found| UPSTREAM.warning(&mirror.url, found, remedy)));
        }
    }
    findings
}

fn breakers_and_accounts(metrics: &Metrics) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (sample, value) in metrics.family("roadstead_breaker_open") {
        if value > 0.0 {
            findings.push(BREAKER.warning(
                label(sample, "host").unwrap_or("a host"),
                "is not asked, because it failed (its breaker is open)",
                "look whether this machine reaches it; it is probed until it answers",
            ));
        }
    }
    for (sample, value) in metrics.family("roadstead_account_usable") {
        if value == 0.0 {
            let account = label(sample, "account").unwrap_or("an account");
            let upstream = label(sample, "upstream").unwrap_or("an upstream");
            findings.push(ACCOUNT.warning(
                format!("{upstream} as {account}"),
                "stands aside: it was refused, or its login can't be had",
                "look at its name and password; it is tried again every minute, and when its login changes",
            ));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;

    #[test]
    fn a_server_that_wants_or_shows_another_certificate_may_be_ours() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut config = Config::parse("", "test").unwrap();
        config.admin.address = listener.local_addr().unwrap();
        let admin = Admin::at("https://127.0.0.1:1").unwrap();
        for (problem, level, remedy) in [
            (
                "rustls: invalid peer certificate: UnknownIssuer",
                Level::Warning,
                "in admin.tls.certificate",
            ),
            (
                "io: invalid peer certificate: Other(OtherError(CaUsedAsEndEntity))",
                Level::Warning,
                "basicConstraints=critical,CA:FALSE",
            ),
            (
                "it answers 403 to /api/v1/",
                Level::Warning,
                "ROADSTEAD_ADMIN_CLIENT_CERTIFICATE and ROADSTEAD_ADMIN_CLIENT_KEY",
            ),
            ("it answers 404 to /api/v1/", Level::Fault, "another admin.address"),
        ] {
            let finding = absent(&config, &admin, problem);
            assert_eq!(finding.level, level, "{finding:?}");
            assert!(finding.remedy.as_ref().unwrap().contains(remedy), "{finding:?}");
        }
    }
}
