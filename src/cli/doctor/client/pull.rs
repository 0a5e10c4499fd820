//! One pull, by the client's own program where it is here, else by HTTP as that client would ask.
//!
//! What was not there before is taken away again.

use std::{path::Path, time::Duration};

use http::header;

use super::{
    super::http::{Http, Trust},
    image::{Image, architecture},
    program::{Ran, find, run},
};
use crate::cli::client::survey::{Mirror, Surveyed};

/// How long a pull may take.
const PULL: Duration = Duration::from_secs(120);

/// How long anything else may take.
const QUICK: Duration = Duration::from_secs(15);

/// containerd keeps namespaces apart; this one is for the probe.
const NAMESPACE: &str = "roadstead-doctor";

/// What clients take for a manifest.
const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, \
                      application/vnd.docker.distribution.manifest.list.v2+json, \
                      application/vnd.oci.image.manifest.v1+json, \
                      application/vnd.docker.distribution.manifest.v2+json";

/// How a pull is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum By {
    Docker,
    Crictl,
    Nerdctl,
    Ctr,
    Podman,
    Skopeo,
    /// As the client would.
    Http(Surveyed),
}

/// Where a client's settings lead.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settings<'a> {
    pub(super) mirrors: &'a [Mirror],
    /// containerd's hosts.toml files.
    pub(super) hosts: Option<&'a Path>,
    /// PEM, where the mirror's authority is one of our own.
    pub(super) ca: Option<&'a str>,
}

// === impl By ===

impl By {
    /// The first program of a client's that is here and works.
    pub(super) async fn choose(surveyed: Surveyed) -> Self {
        let candidates: &[(Self, &[&str])] = match surveyed {
            Surveyed::Docker => &[(Self::Docker, &["docker", "version"])],
            Surveyed::Containerd => &[
                (Self::Crictl, &["crictl", "version"]),
                (Self::Nerdctl, &["nerdctl", "version"]),
                (Self::Ctr, &["ctr", "version"]),
            ],
            Surveyed::Podman => {
                &[(Self::Podman, &["podman", "info"]), (Self::Skopeo, &["skopeo", "--version"])]
            }
        };
        for (by, words) in candidates {
            let is_there = words.first().is_some_and(|name| find(name).is_some());
            if is_there && run(words, QUICK).await.is_ok_and(|ran| ran.is_success) {
                return *by;
            }
        }
        Self::Http(surveyed)
    }

    /// What is run, or done instead.
    pub(super) fn shown(self, image: &Image) -> String {
        match self {
            Self::Docker => format!("docker pull {image}"),
            Self::Crictl => format!("crictl pull {image}"),
            Self::Nerdctl => format!("nerdctl pull {image}"),
            Self::Ctr => format!("ctr content fetch {image}"),
            Self::Podman => format!("podman pull {image}"),
            Self::Skopeo => format!("skopeo inspect docker://{image}"),
            Self::Http(Surveyed::Docker) => format!("asking as dockerd does for {image}"),
            Self::Http(Surveyed::Containerd) => format!("asking as containerd does for {image}"),
            Self::Http(Surveyed::Podman) => format!("asking as podman does for {image}"),
        }
    }

    /// Pulls; the error says why that failed.
    pub(super) async fn pull(self, image: &Image, settings: Settings<'_>) -> Result<(), String> {
        let name = image.to_string();
        let name = name.as_str();
        match self {
            Self::Docker => {
                let inspect = ["docker", "image", "inspect", name];
                let remove = ["docker", "image", "rm", name];
                pulled(&["docker", "pull", "--quiet", name], &inspect, &remove).await
            }
            Self::Crictl => {
                let (inspect, remove) = (["crictl", "inspecti", name], ["crictl", "rmi", name]);
                pulled(&["crictl", "pull", name], &inspect, &remove).await
            }
            Self::Nerdctl => {
                let inspect = ["nerdctl", "image", "inspect", name];
                let remove = ["nerdctl", "image", "rm", name];
                pulled(&["nerdctl", "pull", "--quiet", name], &inspect, &remove).await
            }
            Self::Podman => {
                let inspect = ["podman", "image", "exists", name];
                let remove = ["podman", "image", "rm", name];
                pulled(&["podman", "pull", "--quiet", name], &inspect, &remove).await
            }
            Self::Skopeo => {
                let source = format!("docker://{name}");
                ended(run(&["skopeo", "inspect", "--raw", &source], PULL).await)
            }
            Self::Ctr => fetched(name, settings.hosts).await,
            Self::Http(surveyed) => asked(surveyed, image, settings).await,
        }
    }
}

/// Pulls, and takes away what was not there before.
async fn pulled(pull: &[&str], inspect: &[&str], remove: &[&str]) -> Result<(), String> {
    let was_there = run(inspect, QUICK).await.is_ok_and(|ran| ran.is_success);
    let outcome = ended(run(pull, PULL).await);
    if outcome.is_ok() && !was_there {
        // It is no harm if it stays.
        let _ = run(remove, QUICK).await;
    }
    outcome
}

/// ctr reads no settings: it is told where they are, and fetches manifests and config alone.
async fn fetched(name: &str, hosts: Option<&Path>) -> Result<(), String> {
    let platform = format!("linux/{}", architecture());
    let hosts = hosts.filter(|hosts| hosts.is_dir()).map(|hosts| hosts.display().to_string());
    let ctr = ["ctr", "--namespace", NAMESPACE];
    let fetch = ["content", "fetch", "--metadata-only", "--platform", &platform];
    let hosts = hosts.iter().flat_map(|hosts| ["--hosts-dir", hosts.as_str()]);
    let words: Vec<_> = ctr.into_iter().chain(fetch).chain(hosts).chain([name]).collect();
    let outcome = ended(run(&words, PULL).await);
    for words in [&["images", "rm", "--sync", name][..], &["namespaces", "rm", NAMESPACE]] {
        let words: Vec<_> = ctr.iter().chain(words).copied().collect();
        let _ = run(&words, QUICK).await;
    }
    outcome
}

fn ended(ran: Result<Ran, String>) -> Result<(), String> {
    match ran? {
        ran if ran.is_success => Ok(()),
        ran => Err(ran.last_words()),
    }
}

/// One mirror after the other, as far as the client would go before the registry itself.
async fn asked(surveyed: Surveyed, image: &Image, settings: Settings<'_>) -> Result<(), String> {
    if settings.mirrors.is_empty() {
        return Err("its files name no mirror, so there is nobody to ask".to_owned());
    }
    let http = Http::new(PULL, Trust::System(settings.ca));
    let mut problems = Vec::new();
    for mirror in settings.mirrors {
        let (http, url) = (http.clone(), mirror.manifest(&image.repository, &image.tag));
        let registry = image.registry.clone();
        let asking = tokio::task::spawn_blocking(move || ask(surveyed, &http, &url, &registry));
        match asking.await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(problem)) => problems.push(format!("{}: {problem}", mirror.base)),
            Err(error) => problems.push(error.to_string()),
        }
    }
    Err(problems.join("; "))
}

/// containerd says which registry it means and resolves by HEAD; the others just get.
fn ask(surveyed: Surveyed, http: &Http, url: &str, registry: &str) -> Result<(), String> {
    let agent = match surveyed {
        Surveyed::Docker => "docker/28.0.0 roadstead-doctor",
        Surveyed::Containerd => "containerd/2.0.0 roadstead-doctor",
        Surveyed::Podman => "containers/5.0.0 roadstead-doctor",
    };
    let headers = [(header::USER_AGENT, agent), (header::ACCEPT, ACCEPT)];
    let reply = match surveyed {
        Surveyed::Containerd => {
            let url = format!("{url}?ns={registry}");
            let resolved = http.head(&url, &headers)?;
            if !resolved.is_success() {
                return Err(format!("it answers {}", resolved.status));
            }
            http.get(&url, &headers)?
        }
        Surveyed::Docker | Surveyed::Podman => http.get(url, &headers)?,
    };
    match reply.is_success() {
        true => Ok(()),
        false => Err(format!("it answers {}: {}", reply.status, reply.text())),
    }
}
