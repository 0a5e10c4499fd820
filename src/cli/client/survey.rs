//! What a client's files say, beside what they must say: nothing is written.

use std::path::{Path, PathBuf};

use super::{Planned, apply, containerd, docker, plan::Problem, podman, reach::Reach, root::Root};
use crate::config::{BaseUrl, Config};

/// A client that can be surveyed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum Surveyed {
    Docker,
    Containerd,
    Podman,
}

/// What is found in its files.
#[derive(Debug)]
pub(in crate::cli) struct Survey {
    /// Where it is to find Roadstead.
    pub(in crate::cli) base: BaseUrl,
    pub(in crate::cli) files: Vec<Surveying>,
    /// What must be run once a file has changed.
    pub(in crate::cli) then: Vec<String>,
}

/// One file that must say something.
#[derive(Debug)]
pub(in crate::cli) struct Surveying {
    /// Where it really is.
    pub(in crate::cli) path: PathBuf,
    pub(in crate::cli) says: Says,
}

/// Whether a file says what it must.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::cli) enum Says {
    AllOfIt,
    SomethingElse,
    /// It is not there.
    Nothing,
    /// What is wrong with it, and what to do.
    Nonsense(String),
}

/// A mirror that a client's files name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli) struct Mirror {
    /// Scheme and authority.
    pub(in crate::cli) base: String,
    /// What stands between `/v2/` and a repository's name, without slashes at its ends.
    pub(in crate::cli) path: String,
    /// Tags are resolved there, and content pulled.
    pub(in crate::cli) serves_all: bool,
}

// === impl Surveyed ===

impl Surveyed {
    fn planned(self) -> Planned {
        match self {
            Self::Docker => docker::plan,
            Self::Containerd => containerd::plan,
            Self::Podman => podman::plan,
        }
    }

    /// Compares the files below `root` with what Roadstead at `address`, or else at the listener of
    /// `config`, needs them to say.
    pub(in crate::cli) fn survey(
        self,
        config: &Config,
        address: Option<&BaseUrl>,
        ca: Option<&Path>,
        root: &Path,
    ) -> Result<Survey, String> {
        let told = |problem: Problem| problem.to_string();
        let reach = Reach::of(config, address, ca).map_err(told)?;
        let root = Root::at(root.to_owned());
        let plan = self.planned()(&reach, &root).map_err(told)?;
        let files = plan.files.iter().map(|file| {
            let place = root.place(&file.path).ok().flatten();
            let says = match (root.read(&file.path), apply::merge(file, &root)) {
                (_, Err(problem)) | (Err(problem), _) => Says::Nonsense(problem.to_string()),
                (Ok(_), Ok(merged)) if !merged.is_changed() => Says::AllOfIt,
                (Ok(text), Ok(_)) if text.is_empty() => Says::Nothing,
                (Ok(_), Ok(_)) => Says::SomethingElse,
            };
            Surveying { path: place.unwrap_or_else(|| file.path.clone()), says }
        });
        let files = files.collect();
        Ok(Survey { base: reach.base, files, then: plan.then })
    }

    /// The mirrors of `registry` that its files name, in the order in which they are asked.
    /// `instead` is the one file that is read in the place of podman's own.
    pub(in crate::cli) fn mirrors(
        self,
        registry: &str,
        root: &Path,
        instead: Option<&Path>,
    ) -> Result<Vec<Mirror>, String> {
        let root = Root::at(root.to_owned());
        let mirrors = match self {
            // It mirrors no other.
            Self::Docker if registry != "docker.io" => Ok(Vec::new()),
            Self::Docker => docker::mirrors(&root),
            Self::Containerd => containerd::mirrors(registry, &root),
            Self::Podman => podman::mirrors(registry, &root, instead),
        };
        mirrors.map_err(|problem| problem.to_string())
    }
}

/// The directory of containerd's hosts.toml files.
pub(in crate::cli) fn hosts_directory(root: &Path) -> Option<PathBuf> {
    let root = Root::at(root.to_owned());
    root.place(&containerd::hosts_in(&root).ok()?).ok()?
}

// === impl Mirror ===

impl Mirror {
    /// As a daemon names it.
    pub(in crate::cli) fn named(url: &str) -> Self {
        Self::new(url, "https", true)
    }

    /// From a URL, or a location without a scheme that is spoken to as `scheme`.
    pub(super) fn new(text: &str, scheme: &str, serves_all: bool) -> Self {
        let (scheme, rest) = text.split_once("://").unwrap_or((scheme, text));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let path = path.trim_matches('/').to_owned();
        Self { base: format!("{scheme}://{authority}"), path, serves_all }
    }

    /// The URL of a repository's manifest there.
    pub(in crate::cli) fn manifest(&self, repository: &str, reference: &str) -> String {
        let path = if self.path.is_empty() { String::new() } else { format!("{}/", self.path) };
        format!("{}/v2/{path}{repository}/manifests/{reference}", self.base)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const CONFIG: &str = "listen: [{ address: '127.0.0.1:5000' }]";

    fn told(surveyed: Surveyed, root: &Path) -> Vec<String> {
        let mirrors = surveyed.mirrors("docker.io", root, None).unwrap();
        mirrors.iter().map(|mirror| mirror.manifest("library/a", "b")).collect()
    }

    /// Writes what `roadstead client` writes.
    fn apply(surveyed: Surveyed, config: &Config, root: &Path) {
        let reach = Reach::of(config, None, None).unwrap();
        let root = Root::at(root.to_owned());
        let plan = surveyed.planned()(&reach, &root).unwrap();
        let mut files: Vec<_> =
            plan.files.iter().map(|file| apply::merge(file, &root).unwrap()).collect();
        apply::write_all(&mut files).1.unwrap();
    }

    #[test]
    fn files_that_were_written_for_it_say_all_of_it() {
        let config = Config::parse(CONFIG, "test").unwrap();
        for (surveyed, manifest) in [
            (Surveyed::Docker, "http://127.0.0.1:5000/v2/library/a/manifests/b"),
            (Surveyed::Containerd, "http://127.0.0.1:5000/v2/library/a/manifests/b"),
            (Surveyed::Podman, "http://127.0.0.1:5000/v2/docker.io/library/a/manifests/b"),
        ] {
            let root = tempfile::tempdir().unwrap();
            let survey = surveyed.survey(&config, None, None, root.path()).unwrap();
            assert!(survey.files.iter().all(|file| file.says == Says::Nothing), "{survey:?}");
            assert!(told(surveyed, root.path()).is_empty());
            apply(surveyed, &config, root.path());
            let survey = surveyed.survey(&config, None, None, root.path()).unwrap();
            assert!(survey.files.iter().all(|file| file.says == Says::AllOfIt), "{survey:?}");
            assert_eq!(told(surveyed, root.path()), [manifest]);
            let other = "http://10.0.0.9:5000".parse().unwrap();
            let survey = surveyed.survey(&config, Some(&other), None, root.path()).unwrap();
            assert!(survey.files.iter().any(|file| file.says != Says::AllOfIt), "{survey:?}");
        }
    }

    #[test]
    fn mirrors_come_in_the_order_of_the_files() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("etc/docker/daemon.json", r#"{ "registry-mirrors": ["https://b/", "http://a:1"] }"#);
        let expected =
            ["https://b/v2/library/a/manifests/b", "http://a:1/v2/library/a/manifests/b"];
        assert_eq!(told(Surveyed::Docker, root.path()), expected);
        let hosts = "server = \"https://x\"\n[host.\"https://b\"]\ncapabilities = [\"pull\"]\n\
                     [host.\"http://a:1\"]\n";
        write("etc/containerd/certs.d/_default/hosts.toml", hosts);
        assert_eq!(told(Surveyed::Containerd, root.path()), expected);
        let mirrors = Surveyed::Containerd.mirrors("docker.io", root.path(), None).unwrap();
        assert_eq!([mirrors[0].serves_all, mirrors[1].serves_all], [false, true]);
        let entry = |mirror: &str, insecure| {
            format!(
                "[[registry]]\nprefix = \"docker.io\"\n[[registry.mirror]]\nlocation = \"{mirror}\"\n\
                 insecure = {insecure}\n"
            )
        };
        write("etc/containers/registries.conf", &entry("first", true));
        write("etc/containers/registries.conf.d/z.conf", &entry("a:1/docker.io", true));
        let expected = ["http://a:1/v2/docker.io/library/a/manifests/b"];
        assert_eq!(told(Surveyed::Podman, root.path()), expected);
        let own = root.path().join("own.conf");
        fs::write(&own, entry("b", false)).unwrap();
        let mirrors = Surveyed::Podman.mirrors("docker.io", root.path(), Some(&own)).unwrap();
        assert_eq!(mirrors[0].base, "https://b");
    }
}
