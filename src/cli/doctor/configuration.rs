//! The configuration itself: is it valid, and which of its settings are a risk.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, time::Duration};

use super::finding::{Check, Finding, Group};
use crate::{
    admin::Operators,
    config::{
        Account, Address, Config, ConfigError, Listen, Mode, Others, Scheme, Upstream, Writes,
    },
    filter::Access,
};

const VALID: Check = Check(Group::Configuration, "valid");
const RISK: Check = Check(Group::Configuration, "risk");

/// What is wrong with one that can't be used.
pub(super) fn invalid(error: &ConfigError) -> Vec<Finding> {
    match error {
        ConfigError::Unreadable { origin, refusal, .. } => {
            vec![VALID.fault(origin, &refusal.what, &refusal.remedy)]
        }
        ConfigError::Invalid(problems) => {
            let finding = |problem: &crate::config::Problem| {
                let about = match problem.key.is_empty() {
                    true => problem.origin.clone(),
                    false => format!("{}: {}", problem.origin, problem.key),
                };
                VALID.fault(about, &problem.refusal.what, &problem.refusal.remedy)
            };
            problems.iter().map(finding).collect()
        }
    }
}

/// One that can be used, from `file` if there is one.
pub(super) fn check(config: &Config, file: Option<&Path>) -> Vec<Finding> {
    let upstreams: Vec<_> = config.upstreams.iter().map(|it| it.name.as_str()).collect();
    let upstreams = upstreams.join(", ");
    let valid = match file {
        Some(path) => VALID.ok(path.display(), format!("is valid; upstreams: {upstreams}")),
        None => VALID.ok("defaults and flags", format!("are valid; upstreams: {upstreams}")),
    };
    let mut findings = vec![valid];
    findings.extend(users(config));
    findings.extend(file.and_then(|file| readable_passwords(config, file)));
    findings.extend(config.listen.iter().filter_map(|listen| plain_passwords(config, listen)));
    findings.extend(config.listen.iter().filter_map(|listen| open_tunnel(config, listen)));
    findings.extend(shared_accounts(config));
    findings.extend(trusts_everybody(config));
    findings.extend(config.upstreams.iter().flat_map(upstream));
    if config.store.directory.is_relative() {
        let shown = config.store.directory.display();
        let absolute = std::path::absolute(&config.store.directory);
        let absolute = absolute.unwrap_or_else(|_| config.store.directory.clone());
        findings.push(RISK.note(
            format!("store.directory {shown}"),
            "is another directory wherever Roadstead is started from",
            format!("write it from the root on: {}", absolute.display()),
        ));
    }
    findings
}

/// Files of users that can't be used.
fn users(config: &Config) -> impl Iterator<Item = Finding> {
    let clients = Access::new(&config.access).err();
    let operators = Operators::load(&config.admin).err();
    [clients, operators].into_iter().flatten().map(|problem| {
        let (about, found) = problem.split_once(": ").unwrap_or(("htpasswd", &problem));
        let remedy = "Roadstead does not start with it: let its user read it, with a line from \
                      `htpasswd -nB USER` for each user";
        VALID.fault(about, found, remedy)
    })
}

/// Passwords in the file, and a file that everybody can read.
fn readable_passwords(config: &Config, file: &Path) -> Option<Finding> {
    let accounts = |it: &Upstream| it.credentials.accounts.clone();
    let mirrors = config.upstreams.iter().flat_map(|it| &it.mirrors);
    let mut accounts = (config.upstreams.iter().flat_map(accounts))
        .chain(mirrors.flat_map(|mirror| accounts(&mirror.registry)));
    let has_password = accounts.any(|account| matches!(account, Account::Password { .. }));
    let mode = fs::metadata(file).ok()?.permissions().mode();
    if !has_password || mode & 0o007 == 0 {
        return None;
    }
    let shown = file.display();
    let remedy = "let its owner alone read it, or keep passwords in files (password_file)";
    let found = "may hold passwords, and everybody on this machine can read it";
    Some(RISK.warning(&shown, found, remedy).run(format!("chmod 0640 {shown}")))
}

/// Whether others than this machine can connect.
fn is_public(listen: &Listen) -> bool {
    matches!(listen.address, Address::Tcp(socket) if !socket.ip().is_loopback())
}

fn plain_passwords(config: &Config, listen: &Listen) -> Option<Finding> {
    let is_plain = listen.tls.is_none() && listen.transparent.is_none() && is_public(listen);
    let forwards = config.upstreams.iter().any(|it| it.writes == Writes::Forward);
    let clients = config.upstreams.iter().any(|it| it.credentials.mode == Mode::Client);
    let why = match (config.access.htpasswd.is_some(), forwards, clients) {
        (true, ..) => "access.htpasswd asks for passwords",
        (_, true, _) => "writes: forward has clients send their passwords",
        (.., true) => "credentials.mode: client has clients send their passwords",
        _ => return None,
    };
    // One that is behind a TLS terminator is plain by design.
    if !is_plain || !config.trusted_proxies.is_empty() {
        return None;
    }
    Some(RISK.warning(
        format!("listener {}", listen.address),
        format!("{why}, and here they go over the network in the clear"),
        "give the listener a certificate (listen[].tls), or put a TLS terminator before it",
    ))
}

fn open_tunnel(config: &Config, listen: &Listen) -> Option<Finding> {
    let transparent = listen.transparent.as_ref()?;
    let is_open = transparent.others == Others::Tunnel && is_public(listen) && lets_all_in(config);
    is_open.then(|| {
        RISK.warning(
            format!("listener {}", listen.address),
            "others: tunnel passes everybody on to any public host",
            "say under access.allow whose networks may come here",
        )
    })
}

fn lets_all_in(config: &Config) -> bool {
    config.access.allow.iter().any(|network| network.prefix_len() == 0)
}

/// What an account can see, everybody can who reaches us.
fn shared_accounts(config: &Config) -> Option<Finding> {
    let with_accounts: Vec<_> = (config.upstreams.iter())
        .filter(|it| !it.credentials.accounts.is_empty())
        .map(|it| it.name.as_str())
        .collect();
    let is_open = config.access.htpasswd.is_none() && lets_all_in(config);
    let is_open = is_open && config.listen.iter().any(is_public);
    if with_accounts.is_empty() || !is_open {
        return None;
    }
    Some(RISK.warning(
        "access",
        format!(
            "whoever can connect pulls with your accounts at {}, private repositories included",
            with_accounts.join(", ")
        ),
        "name your networks under access.allow, ask for passwords (access.htpasswd), or use accounts \
         that see public repositories alone",
    ))
}

fn trusts_everybody(config: &Config) -> Option<Finding> {
    config.trusted_proxies.iter().any(|network| network.prefix_len() == 0).then(|| {
        RISK.warning(
            "trusted_proxies",
            "everybody is believed to be a proxy, and so can say to come from any address",
            "name the proxies' own addresses alone",
        )
    })
}

fn upstream(upstream: &Upstream) -> Vec<Finding> {
    let about = format!("upstream {}", upstream.name);
    let mut findings = Vec::new();
    if upstream.url.scheme == Scheme::Http && !upstream.url.is_loopback() {
        findings.push(RISK.warning(
            &about,
            format!(
                "{} is not encrypted: whoever is on the way can say what a tag names",
                upstream.url
            ),
            "use https, with ca_file where its authority is your own",
        ));
    }
    if upstream.tags.serve_stale_for < Duration::from_secs(3600) {
        findings.push(RISK.note(
            &about,
            "tags are served for less than an hour while it is down (tags.serve_stale_for)",
            "write a longer time, such as 30d, if pulls are to outlive its outages",
        ));
    }
    if upstream.is_docker_hub() && upstream.budget.probe.is_none() {
        findings.push(RISK.note(
            &about,
            "what is left of its pulls is not known before the first one (budget.probe: none)",
            "leave budget.probe out: asking is free",
        ));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;

    fn risks(text: &str) -> Vec<String> {
        let config = Config::parse(text, "test").unwrap();
        let findings = check(&config, None);
        assert!(findings.iter().all(|it| it.level == Level::Ok || it.remedy.is_some()));
        let risks = findings.into_iter().filter(|finding| finding.check == "risk");
        risks.map(|finding| format!("{}: {}", finding.about, finding.found)).collect()
    }

    #[test]
    fn what_everybody_runs_is_no_risk() {
        assert_eq!(risks("store: { directory: /var/lib/roadstead }"), [""; 0]);
    }

    #[test]
    fn risky_settings_are_told_each() {
        let account = "upstreams: [{ name: docker.io, budget: { probe: none }, \
                       credentials: { accounts: [{ username: a, password: hunter2 }] } }]";
        let told = risks(account).join("\n");
        for words in ["store.directory", "pulls with your accounts at docker.io", "budget.probe"] {
            assert!(told.contains(words), "no {words:?} in {told}");
        }
        assert!(!told.contains("hunter2"));
        let closed = format!("access: {{ allow: [10.0.0.0/8] }}\n{account}");
        assert!(!risks(&closed).join("\n").contains("your accounts"));
        let told = risks(
            "{ trusted_proxies: [0.0.0.0/0], upstreams: [{ name: r.corp, url: 'http://r.corp' }] }",
        );
        assert!(told.iter().any(|line| line.contains("is not encrypted")), "{told:?}");
        assert!(told.iter().any(|line| line.starts_with("trusted_proxies")), "{told:?}");
        let told = risks("upstreams: [{ name: docker.io, writes: forward }]");
        assert!(told.iter().any(|line| line.contains("in the clear")), "{told:?}");
    }

    #[test]
    fn files_of_users_that_can_not_be_used_are_told_each() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| {
            let path = folder.path().join(name);
            fs::write(&path, "ann:{SHA}xyz\n").unwrap();
            path.display().to_string()
        };
        let (users, operators) = (file("users"), file("operators"));
        let text = format!(
            "{{ access: {{ htpasswd: '{users}' }}, admin: {{ htpasswd: '{operators}' }} }}"
        );
        let findings = check(&Config::parse(&text, "test").unwrap(), None);
        let faults = findings.iter().filter(|it| it.level == Level::Fault);
        let told: Vec<_> = faults.map(|it| format!("{}: {}", it.about, it.found)).collect();
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(
            told[0].starts_with(&format!("access.htpasswd: {users}: the user ann")),
            "{told:?}"
        );
        assert!(told[1].starts_with(&format!("admin.htpasswd: {operators}: ")), "{told:?}");
    }

    #[test]
    fn every_problem_of_one_that_can_not_be_used_is_told() {
        let error = Config::parse("{ store: { disk: much }, nothing: 1 }", "a.yaml").unwrap_err();
        let findings = invalid(&error);
        assert!(!findings.is_empty());
        assert!(findings.iter().all(|it| it.level == Level::Fault && it.remedy.is_some()));
    }
}
