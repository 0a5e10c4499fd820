//! One pull, by the client's own program where it is here, else by HTTP as that client would ask.
//!
//! What was not there before is taken away again, and a tag that was names what it named.

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

/// What is to pull.
#[derive(Debug)]
pub(super) struct Chosen {
    pub(super) by: By,
    /// Why the client's own program does not, though it is here.
    pub(super) problem: Option<String>,
}

// === impl By ===

impl By {
    /// The first program of a client's that is here and works.
    pub(super) async fn choose(surveyed: Surveyed) -> Chosen {
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
        let mut problem = None;
        for (by, words) in candidates {
            if words.first().is_none_or(|name| find(name).is_none()) {
                continue;
            }
            match ended(run(words, QUICK).await) {
                Ok(()) => return Chosen { by: *by, problem: None },
                Err(why) => problem = problem.or(Some(format!("{}: {why}", words.join(" ")))),
            }
        }
        Chosen { by: Self::Http(surveyed), problem }
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
            Self::Docker => pulled("docker", "{{.Id}}", name).await,
            Self::Nerdctl => pulled("nerdctl", "{{.ID}}", name).await,
            Self::Podman => pulled("podman", "{{.Id}}", name).await,
            Self::Crictl => pulled_by_cri(name).await,
            Self::Skopeo => {
                let source = format!("docker://{name}");
                ended(run(&["skopeo", "inspect", "--raw", &source], PULL).await)
            }
            Self::Ctr => fetched(name, settings.hosts).await,
            Self::Http(surveyed) => asked(surveyed, image, settings).await,
        }
    }
}

/// Pulls, and leaves the program's images as they were; `id` is its template for theirs. What can't
/// be told, or does not succeed, leaves a small image more.
async fn pulled(program: &str, id: &str, name: &str) -> Result<(), String> {
    let named =
        async || named(&run(&[program, "image", "inspect", "--format", id, name], QUICK).await?);
    let before = named().await;
    ended(run(&[program, "pull", "--quiet", name], PULL).await)?;
    match before {
        Ok(None) => drop(run(&[program, "image", "rm", name], QUICK).await),
        Ok(Some(before)) => {
            if let Ok(Some(after)) = named().await
                && after != before
                && ended(run(&[program, "tag", &before, name], QUICK).await).is_ok()
            {
                let _ = run(&[program, "image", "rm", &after], QUICK).await;
            }
        }
        Err(_) => {}
    }
    Ok(())
}

/// The image that a name is of, by the program's answer; `None` if it is of none.
fn named(ran: &Ran) -> Result<Option<String>, String> {
    let said = ran.stderr.to_lowercase();
    match ran.is_success {
        true if ran.stdout.is_empty() || ran.stdout == "[]" => Ok(None),
        true => Ok(Some(ran.stdout.clone())),
        false if ["no such", "not known", "not found"].iter().any(|it| said.contains(it)) => {
            Ok(None)
        }
        false => Err(ran.last_words()),
    }
}

/// A name that is removed by CRI takes all other names of its image with it, so that only an image
/// that was not there at all is removed.
async fn pulled_by_cri(name: &str) -> Result<(), String> {
    let images = async |words: &[&str]| {
        let all = ["crictl", "images", "--quiet", "--no-trunc"];
        let words: Vec<_> = all.iter().chain(words).copied().collect();
        let ran = run(&words, QUICK).await.ok().filter(|ran| ran.is_success)?;
        Some(ran.stdout.lines().map(str::to_owned).collect::<Vec<_>>())
    };
    let before = images(&[]).await;
    ended(run(&["crictl", "pull", name], PULL).await)?;
    if let (Some(before), Some([own])) = (before, images(&[name]).await.as_deref())
        && !before.contains(own)
    {
        let _ = run(&["crictl", "rmi", own], QUICK).await;
    }
    Ok(())
}

/// ctr reads no settings: it is told where they are. It takes one platform's manifest; with
/// `--metadata-only` it would be those of all.
async fn fetched(name: &str, hosts: Option<&Path>) -> Result<(), String> {
    let platform = format!("linux/{}", architecture());
    let hosts = hosts.filter(|hosts| hosts.is_dir()).map(|hosts| hosts.display().to_string());
    let ctr = ["ctr", "--namespace", NAMESPACE];
    let fetch = ["content", "fetch", "--platform", &platform];
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_image_that_is_surely_not_there_counts_as_absent() {
        let ran = |is_success, stdout: &str, stderr: &str| {
            named(&Ran { is_success, stdout: stdout.to_owned(), stderr: stderr.to_owned() })
        };
        assert_eq!(ran(true, "sha256:aa", ""), Ok(Some("sha256:aa".to_owned())));
        for absent in [
            ran(true, "[]", ""),
            ran(true, "", ""),
            ran(false, "", "Error response from daemon: No such image: docker.io/a/b:c"),
            ran(false, "", "Error: docker.io/a/b:c: image not known"),
        ] {
            assert_eq!(absent, Ok(None));
        }
        assert!(ran(false, "", "permission denied while connecting to the daemon").is_err());
    }
}
