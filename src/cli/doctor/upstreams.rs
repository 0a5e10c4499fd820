//! Upstreams: do they answer, by which way, is our clock theirs, do they take our accounts, what is
//! left of their budgets.
//!
//! Nothing that is asked is counted; see `upstream::examine`.

use std::time::{Duration, SystemTime};

use super::finding::{Check, Finding, Group, Level};
use crate::{
    config::{self, Config, Mode, Scheme},
    upstream::{Answer, Error, Examination, Examined, Failure, Upstream, Verdict},
};

/// How long each question may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(15);

/// An answer that takes longer makes every miss slow.
const SLOW: Duration = Duration::from_secs(2);

/// A `Date` is whole seconds, and answers take time.
const CLOCK_DIFFERS: Duration = Duration::from_secs(30);

/// Tokens and certificates are refused.
const CLOCK_IS_WRONG: Duration = Duration::from_secs(300);

const REACH: Check = Check(Group::Upstreams, "reach");
const CLOCK: Check = Check(Group::Clock, "date");
const ACCOUNT: Check = Check(Group::Credentials, "token");
const LEFT: Check = Check(Group::Budget, "left");

/// One upstream, with its mirrors.
pub(super) async fn check(config: &Config, upstream: config::Upstream) -> Vec<Finding> {
    let client = match Upstream::new(upstream.clone(), config.fill.max_manifest) {
        Ok(client) => client,
        Err(problem) => {
            let remedy = "mend what it names, and look again (roadstead check)";
            return vec![REACH.fault(&upstream.name, problem, remedy)];
        }
    };
    let mut findings = Vec::new();
    for examination in client.examine(PATIENCE).await {
        findings.push(reach(&upstream, &examination));
        if let Ok(answer) = &examination.answer {
            findings.extend(clock(&examination.place, answer));
        }
        if is_out_of_reach(&examination) {
            findings.push(ACCOUNT.note(
                &examination.place,
                "its accounts were not tried: it is not asked, or not reached",
                "see to that first (upstreams)",
            ));
            continue;
        }
        for account in &examination.accounts {
            findings.push(credentials(&upstream, &examination, account));
            findings.extend(budget(&upstream, account));
        }
    }
    others_pay(&mut findings);
    if upstream.credentials.mode == Mode::Client {
        findings
            .push(ACCOUNT.ok(&upstream.name, "clients bring their own (credentials.mode: client)"));
    }
    findings
}

// === reaching it ===

fn reach(upstream: &config::Upstream, examination: &Examination) -> Finding {
    let way = match upstream.proxy_server() {
        Some(proxy) => format!(" through the proxy {proxy}"),
        None => String::new(),
    };
    let about = match upstream.url.to_string() == examination.place {
        true => format!("{} at {}", upstream.name, examination.place),
        false => format!("{}'s mirror {}", upstream.name, examination.place),
    };
    match &examination.answer {
        Ok(answer) => answered(upstream, &about, &way, answer),
        Err(error) => unreached(upstream, &about, &way, error),
    }
}

fn answered(upstream: &config::Upstream, about: &str, way: &str, answer: &Answer) -> Finding {
    let tls = match upstream.url.scheme {
        Scheme::Https => ", its certificate is good",
        Scheme::Http => ", without TLS",
    };
    let took = answer.took.as_millis();
    let found = format!("answers {} within {took} ms{way}{tls}", answer.status.as_u16());
    let status = answer.status;
    if status.is_success() || status == http::StatusCode::UNAUTHORIZED {
        return match answer.took > SLOW {
            false => REACH.ok(about, found),
            true => REACH.warning(
                about,
                found,
                "look at the way there (DNS, proxy, a broken IPv6 route): every miss waits for it",
            ),
        };
    }
    let remedy = "is that a registry's address? GET /v2/ must answer 200 or 401";
    let finding = match status.is_server_error() || status.as_u16() == 429 {
        true => REACH.fault(about, found, "wait, or ask whoever runs it: it is in trouble itself"),
        false => REACH.fault(about, found, remedy),
    };
    finding.run(format!("curl -sv {}/v2/", upstream.url))
}

fn unreached(upstream: &config::Upstream, about: &str, way: &str, error: &Error) -> Finding {
    let found = format!("{error}{way}");
    let Error::Trouble(failure) = error else {
        return REACH.fault(about, found, "is that a registry's address? see upstreams[].url");
    };
    let remedy = match failure {
        Failure::Offline => {
            let remedy = "take `offline` out of its configuration to have it asked again";
            return REACH.note(about, "is not asked: it is configured offline", remedy);
        }
        _ if is_certificate(&found) => {
            "give its authority as upstreams[].ca_file; if none is your own, look whether this \
             machine's clock is right and ca-certificates are installed"
        }
        Failure::Timeout { .. } => {
            "look whether a firewall swallows what goes there, or name the proxy to go through \
             (upstreams[].proxy, HTTPS_PROXY)"
        }
        Failure::Unreachable { .. } if way.is_empty() => {
            "look whether the name, the port and the network are right, or name the proxy to go \
             through (upstreams[].proxy, HTTPS_PROXY)"
        }
        Failure::Unreachable { .. } => {
            "look whether the proxy is right (upstreams[].proxy, HTTPS_PROXY, NO_PROXY) and lets \
             this through"
        }
        Failure::RateLimited { .. } => "wait: it asks to be left alone for now",
        _ => "try it by hand, and look at upstreams[].url",
    };
    REACH.fault(about, found, remedy).run(format!("curl -sv {}/v2/", upstream.url))
}

fn is_certificate(problem: &str) -> bool {
    let problem = problem.to_ascii_lowercase();
    ["certificate", "unknownissuer", "tlshandshake", "tls handshake"]
        .iter()
        .any(|word| problem.contains(word))
}

// === the clock ===

fn clock(place: &str, answer: &Answer) -> Option<Finding> {
    let date = answer.date?;
    let (difference, is_ahead) = match answer.at.duration_since(date) {
        Ok(ahead) => (ahead, true),
        Err(error) => (error.duration(), false),
    };
    let about = format!("against {place}");
    let seconds = difference.as_secs();
    if difference < CLOCK_DIFFERS {
        return Some(CLOCK.ok(about, format!("differs by {seconds} s at most")));
    }
    let way = if is_ahead { "ahead of" } else { "behind" };
    let found = format!("this machine's clock is {seconds} s {way} it");
    let level = if difference > CLOCK_IS_WRONG { Level::Fault } else { Level::Warning };
    let remedy =
        "set the clock, and have it kept right: tokens and certificates hold for spans of time";
    Some(CLOCK.at(level, about, found, remedy).run("timedatectl set-ntp true"))
}

// === accounts ===

/// Accounts of a registry that can't be asked are no second fault.
fn is_out_of_reach(examination: &Examination) -> bool {
    let failed = |account: &Examined| matches!(account.verdict, Verdict::Failed(_));
    let accounts = &examination.accounts;
    examination.answer.is_err() && !accounts.is_empty() && accounts.iter().all(failed)
}

fn credentials(
    upstream: &config::Upstream,
    examination: &Examination,
    account: &Examined,
) -> Finding {
    let about = format!("{} as {}", upstream.name, account.report.account);
    let probe = upstream.budget.probe.as_ref();
    let probe = probe.map(|probe| format!("{}:{}", probe.repository, probe.tag));
    let probe = probe.as_deref().unwrap_or("/v2/");
    match &account.verdict {
        Verdict::Taken if account.has_login => {
            ACCOUNT.ok(about, format!("its login is taken (asked for {probe})"))
        }
        Verdict::Taken => ACCOUNT.ok(about, "a token is given without a login"),
        Verdict::Unasked if account.has_login => ACCOUNT.note(
            about,
            format!("{} did not ask for a login, so it was not tried", examination.place),
            "name a tag that only it may see as upstreams[].budget.probe, to have it tried",
        ),
        Verdict::Unasked => ACCOUNT.ok(about, "no login is asked for"),
        Verdict::NoProbe => ACCOUNT.note(
            about,
            format!("is let in, but {probe} is not there"),
            "name a tag that is there as upstreams[].budget.probe",
        ),
        Verdict::Denied(why) if account.has_login => ACCOUNT.warning(
            about,
            format!("may not see {probe}: {why}"),
            "name a tag that it may see as upstreams[].budget.probe; if there is none, look at what \
             the account is allowed to pull",
        ),
        Verdict::Denied(why) => ACCOUNT.note(
            about,
            format!("strangers are not let in: {why}"),
            "add an account under upstreams[].credentials.accounts, if there is none that is taken",
        ),
        Verdict::Refused(why) => ACCOUNT.fault(
            about,
            why,
            "log in anew with its name and password or access token, and write them where the \
             configuration has them from; meanwhile others are used, or none",
        ),
        Verdict::Failed(error) => ACCOUNT.fault(
            about,
            error,
            "the registry itself answers, so look at its token service: is it reached, is it trusted \
             (upstreams[].token_realms), and what does it say",
        ),
    }
}

// === budgets ===

fn budget(upstream: &config::Upstream, account: &Examined) -> Option<Finding> {
    let report = &account.report;
    let about = format!("{} as {}", upstream.name, report.account);
    if !matches!(account.verdict, Verdict::Taken | Verdict::Unasked) {
        return None;
    }
    let (Some(left), Some(limit)) = (report.remaining, report.limit) else {
        let asked = upstream.budget.probe.is_some();
        return asked.then(|| LEFT.ok(about, "no limit is told"));
    };
    let window = report.window_seconds.map(span).unwrap_or_default();
    let source = report.source.as_deref().map(|source| format!(", charged to {source}"));
    let resets = report.resets_at.map(|at| {
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(at);
        format!("; more at {} at the latest", httpdate::fmt_http_date(at))
    });
    let found = format!(
        "{left} of {limit} pulls{window} are left{}{}",
        source.unwrap_or_default(),
        resets.unwrap_or_default()
    );
    let more = match account.has_login {
        true => "add accounts under upstreams[].credentials.accounts (they take turns), or wait",
        false => {
            "add an account under upstreams[].credentials.accounts: it has a budget of its own"
        }
    };
    let reserve = upstream.budget.reserve.of(limit);
    Some(if left == 0 {
        let remedy = format!("{more}; what is cached is served all the same");
        LEFT.fault(about, found, remedy)
    } else if left <= reserve {
        let remedy = format!("{more}; below the reserve of {reserve} tags stay fresh for longer");
        LEFT.warning(about, found, remedy)
    } else {
        LEFT.ok(about, found)
    })
}

/// An account with nothing left is a fault only if no other has something left.
fn others_pay(findings: &mut [Finding]) {
    let is_left = |finding: &Finding| finding.check == LEFT.1 && finding.level < Level::Fault;
    if findings.iter().any(is_left) {
        let spent = |finding: &&mut Finding| finding.check == LEFT.1;
        findings.iter_mut().filter(spent).for_each(|it| it.level = it.level.min(Level::Warning));
    }
}

fn span(seconds: u64) -> String {
    match seconds {
        0 => String::new(),
        hours if hours % 3600 == 0 => format!(" in {} h", hours / 3600),
        seconds => format!(" in {seconds} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_judged_by_the_upstream_s_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let level = |date: SystemTime| {
            let (status, took) = (http::StatusCode::OK, Duration::ZERO);
            let answer = Answer { status, date: Some(date), at: now, took };
            clock("https://r", &answer).unwrap()
        };
        assert_eq!(level(now - Duration::from_secs(5)).level, Level::Ok);
        let ahead = level(now - Duration::from_secs(90));
        assert_eq!(ahead.level, Level::Warning);
        assert!(ahead.found.contains("90 s ahead of it"), "{ahead:?}");
        let behind = level(now + Duration::from_secs(4000));
        assert_eq!(behind.level, Level::Fault);
        assert!(behind.found.contains("4000 s behind it"), "{behind:?}");
    }
}
