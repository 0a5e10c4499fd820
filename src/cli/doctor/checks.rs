//! All checks, at the same time, each with its deadline.

use std::{sync::Arc, time::Duration};

use tokio::{runtime::Builder, task::JoinHandle, time::timeout};

use super::{
    certificates, directory, files,
    finding::{Check, Finding, Group},
    listeners, names,
    server::Admin,
    state, upstreams,
};
use crate::config::Config;

/// How long any check may take; what asks upstream has less for each question.
const PATIENCE: Duration = Duration::from_secs(45);

/// Looks at everything that `config` names; `again` is the command that does it once more. The
/// findings are sorted by group.
pub(super) fn run(config: Config, again: String) -> std::io::Result<Vec<Finding>> {
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let mut findings = runtime.block_on(all(Arc::new(config), again));
    // What hangs in the system is not waited for.
    runtime.shutdown_background();
    findings.sort_by_key(|finding| finding.group);
    Ok(findings)
}

async fn all(config: Arc<Config>, again: String) -> Vec<Finding> {
    let mut checks: Vec<(Group, String, JoinHandle<Vec<Finding>>)> = Vec::new();
    let mut begin = |group, about: &str, task| checks.push((group, about.to_owned(), task));

    let its = Arc::clone(&config);
    begin(Group::Server, "server", blocking(move || server(&its, again)));
    let its = Arc::clone(&config);
    begin(Group::Files, "limits", blocking(move || vec![files::check(&its)]));
    let its = Arc::clone(&config);
    begin(Group::Certificates, "certificates", blocking(move || certificates::check(&its)));
    for (host, is_ours) in names::hosts(&config) {
        let task = {
            let host = host.clone();
            async move { vec![names::check(host, is_ours).await] }
        };
        begin(Group::Dns, &host, tokio::spawn(task));
    }
    for upstream in config.upstreams.clone() {
        let (its, name) = (Arc::clone(&config), upstream.name.clone());
        let task = async move { upstreams::check(&its, upstream).await };
        begin(Group::Upstreams, &name, tokio::spawn(task));
    }

    let mut findings = Vec::new();
    for (group, about, task) in checks {
        findings.extend(done(group, &about, task).await);
    }
    findings
}

/// What depends on whether a server runs: its state, its listeners, and how its disk is counted.
fn server(config: &Arc<Config>, again: String) -> Vec<Finding> {
    let admin = Admin::configured(&config.admin);
    let running = admin.map_err(|problem| state::unasked(config, &problem));
    let running = running.and_then(|admin| state::ask(config, &admin));
    let runs = running.is_ok();
    let used = running.as_ref().ok().filter(|running| running.is_ours).and_then(|it| it.used);
    // A disk that hangs does not keep listeners from being told of.
    let its = Arc::clone(config);
    let directory = std::thread::spawn(move || directory::check(&its.store, used, &again));
    let mut findings = match running {
        Ok(running) => running.findings,
        Err(finding) => vec![finding],
    };
    findings.extend(std::thread::scope(|scope| {
        let check = |listen| scope.spawn(move || listeners::check(config, listen, runs));
        let threads: Vec<_> = config.listen.iter().map(check).collect();
        threads.into_iter().flat_map(|it| it.join().unwrap_or_default()).collect::<Vec<_>>()
    }));
    findings.extend(finished(directory, config));
    findings
}

/// What a thread came to, if it comes to something in time.
fn finished(thread: std::thread::JoinHandle<Vec<Finding>>, config: &Config) -> Vec<Finding> {
    let deadline = std::time::Instant::now() + PATIENCE / 2;
    while !thread.is_finished() && std::time::Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(20));
    }
    match thread.is_finished() {
        true => thread.join().unwrap_or_default(),
        false => vec![late(Group::Directory, &config.store.directory.display().to_string())],
    }
}

fn blocking(check: impl FnOnce() -> Vec<Finding> + Send + 'static) -> JoinHandle<Vec<Finding>> {
    tokio::task::spawn_blocking(check)
}

async fn done(group: Group, about: &str, task: JoinHandle<Vec<Finding>>) -> Vec<Finding> {
    match timeout(PATIENCE, task).await {
        Ok(Ok(findings)) => findings,
        Ok(Err(error)) => {
            let remedy = "report it: that is a fault of this program";
            vec![Check(group, "ended").fault(
                about,
                format!("the check ended halfway: {error}"),
                remedy,
            )]
        }
        Err(_) => vec![late(group, about)],
    }
}

fn late(group: Group, about: &str) -> Finding {
    Check(group, "deadline").fault(
        about,
        "the check did not come to an end in time",
        "look whether the disk or the network hangs: whatever it waits for, Roadstead waits for too",
    )
}
