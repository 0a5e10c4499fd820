//! What a client's files say: do they name Roadstead, before all others, and are they in force.

use std::{
    fs,
    net::{SocketAddr, ToSocketAddrs as _},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use super::{
    super::{
        finding::{Check, Finding, Level},
        http::{Http, Trust, WHO, is_roadstead},
    },
    Asking,
    program::{daemons, run},
};
use crate::{
    cli::client::survey::{self, Mirror, Says, Survey, Surveyed},
    config::BaseUrl,
};

/// How long a mirror may take to say who it is.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is known of one client's settings.
#[derive(Debug)]
pub(super) struct Known {
    /// What it asks, in order.
    pub(super) mirrors: Vec<Mirror>,
    /// The first of them that is Roadstead.
    pub(super) ours: Option<usize>,
    /// containerd's hosts.toml files.
    pub(super) hosts: Option<PathBuf>,
    pub(super) findings: Vec<Finding>,
}

/// Reads them, and asks the mirrors that they name who they are.
pub(super) async fn check(surveyed: Surveyed, asking: &Asking) -> Known {
    let instead = instead(surveyed, asking);
    let registry = &asking.image.registry;
    let mut findings: Vec<Finding> =
        instead.iter().map(|path| reads_another(surveyed, path)).collect();
    let named = surveyed.mirrors(registry, &asking.root, instead.as_deref());
    let mut mirrors = match named {
        Ok(mirrors) => mirrors,
        Err(problem) => {
            let remedy = "mend the file: the client can't read it either";
            findings.push(check_of(surveyed, "files").fault("its files", problem, remedy));
            Vec::new()
        }
    };
    if let (Surveyed::Docker, Some(live)) = (surveyed, live_docker_mirrors().await) {
        findings.extend(in_force(&mirrors, &live));
        // What counts is what the daemon uses.
        mirrors = live;
    }
    let mut ours = None;
    for (index, mirror) in mirrors.iter().enumerate() {
        let is_ours = is_ours(mirror, asking).await;
        if is_ours && ours.is_none() {
            ours = Some(index);
        }
    }
    let base = asking.mirror.clone().or_else(|| mirrors.get(ours?)?.base.parse().ok());
    findings.extend(order(surveyed, &mirrors, ours, registry));
    if instead.is_none() {
        findings.extend(files(surveyed, asking, base.as_ref(), ours.is_some()));
    }
    let hosts = match surveyed {
        Surveyed::Containerd => survey::hosts_directory(&asking.root),
        Surveyed::Docker | Surveyed::Podman => None,
    };
    if surveyed == Surveyed::Containerd {
        findings.extend(restarted(asking));
    }
    Known { mirrors, ours, hosts, findings }
}

fn check_of(surveyed: Surveyed, check: &'static str) -> Check {
    Check(super::group(surveyed), check)
}

/// The one file that podman and its like read in the place of the system's.
fn instead(surveyed: Surveyed, asking: &Asking) -> Option<PathBuf> {
    if surveyed != Surveyed::Podman || asking.root != Path::new("/") {
        return None;
    }
    let named = std::env::var_os("CONTAINERS_REGISTRIES_CONF").filter(|it| !it.is_empty());
    let own = std::env::var_os("HOME").map(PathBuf::from);
    let own = own.map(|home| home.join(".config/containers/registries.conf"));
    named.map(PathBuf::from).or(own.filter(|path| path.is_file()))
}

fn reads_another(surveyed: Surveyed, path: &Path) -> Finding {
    check_of(surveyed, "files").note(
        path.display(),
        "is read in the place of the files under /etc/containers",
        "nothing, if that is meant so: other users' pulls go by their own files",
    )
}

/// Whether a mirror is the one that is meant, or a Roadstead anyway where none is.
async fn is_ours(mirror: &Mirror, asking: &Asking) -> bool {
    if let Some(meant) = asking.mirror.clone() {
        let base = mirror.base.clone();
        let work = move || base.parse().is_ok_and(|base: BaseUrl| is_same_place(&base, &meant));
        return tokio::task::spawn_blocking(work).await.unwrap_or(false);
    }
    let url = format!("{}{WHO}", mirror.base);
    let asked =
        tokio::task::spawn_blocking(move || Http::new(PATIENCE, Trust::Anybody).get(&url, &[]));
    asked.await.is_ok_and(|reply| reply.is_ok_and(|reply| is_roadstead(&reply)))
}

/// Two names of one host lead to the same place.
fn is_same_place(one: &BaseUrl, other: &BaseUrl) -> bool {
    let addresses = |base: &BaseUrl| -> Vec<SocketAddr> {
        let found = (base.host.as_str(), base.port).to_socket_addrs();
        found.map(Iterator::collect).unwrap_or_default()
    };
    let is_shared = || {
        let others = addresses(other);
        addresses(one).iter().any(|address| others.contains(address))
    };
    one == other || (one.scheme == other.scheme && one.port == other.port && is_shared())
}

/// What the daemon says that it asks, if it can be asked itself.
async fn live_docker_mirrors() -> Option<Vec<Mirror>> {
    let words = ["docker", "info", "--format", "{{json .RegistryConfig.Mirrors}}"];
    let ran = run(&words, PATIENCE * 2).await.ok().filter(|ran| ran.is_success)?;
    let urls: Option<Vec<String>> = serde_json::from_str(&ran.stdout).ok()?;
    // It says null for none.
    Some(urls.unwrap_or_default().iter().map(|url| Mirror::named(url)).collect())
}

/// A daemon that was not told since its file changed, or is told by its flags.
fn in_force(files: &[Mirror], live: &[Mirror]) -> Option<Finding> {
    let check = check_of(Surveyed::Docker, "restarted");
    let bases = |mirrors: &[Mirror]| {
        let bases: Vec<_> = mirrors.iter().map(|mirror| mirror.base.clone()).collect();
        if bases.is_empty() { "none".to_owned() } else { bases.join(", ") }
    };
    if files == live {
        return None;
    }
    let found =
        format!("the daemon asks the mirrors {}; its file names {}", bases(live), bases(files));
    Some(match files.is_empty() {
        true => check.note(
            "dockerd",
            found,
            "nothing, if it is told by its flags (--registry-mirror) or by another file (--config-file)",
        ),
        false => check
            .fault("dockerd", found, "have it read its file again: it has changed since")
            .run("systemctl reload docker"),
    })
}

fn order(
    surveyed: Surveyed,
    mirrors: &[Mirror],
    ours: Option<usize>,
    registry: &str,
) -> Option<Finding> {
    let check = check_of(surveyed, "mirrors");
    let about = format!("for {registry}");
    let bases: Vec<_> = mirrors.iter().map(|mirror| mirror.base.as_str()).collect();
    let Some((index, mirror)) = ours.and_then(|index| Some((index, mirrors.get(index)?))) else {
        let found = match bases.as_slice() {
            [] => "no mirror is named".to_owned(),
            bases => format!(
                "none of the mirrors is this Roadstead, or it does not answer: {}",
                bases.join(", ")
            ),
        };
        let remedy =
            "have it told (below); until then it goes to the registry itself, and says nothing";
        return Some(check.at(Level::Fault, about, found, remedy));
    };
    if !mirror.serves_all {
        let remedy = "let the mirror resolve tags and give content (capabilities; pull-from-mirror), \
                      or only a part comes through it";
        let found = format!("{} may not be asked for everything", mirror.base);
        return Some(check.at(Level::Fault, about, found, remedy));
    }
    Some(match index {
        0 => check.ok(about, format!("{} is asked first", mirror.base)),
        _ => check.warning(
            about,
            format!(
                "{} is asked after {}",
                mirror.base,
                bases.get(..index).unwrap_or_default().join(", ")
            ),
            "put Roadstead first, or what the others have does not come through it",
        ),
    })
}

/// The files, beside what `roadstead client` would write.
fn files(
    surveyed: Surveyed,
    asking: &Asking,
    base: Option<&BaseUrl>,
    is_named: bool,
) -> Vec<Finding> {
    let check = check_of(surveyed, "files");
    let survey = surveyed.survey(&asking.config, base, asking.ca.as_deref(), &asking.root);
    let Survey { base, files, then } = match survey {
        Ok(survey) => survey,
        Err(problem) => {
            let (what, remedy) = problem.rsplit_once("; ").unwrap_or((&problem, "look at it"));
            return vec![check.fault("its files", what, remedy)];
        }
    };
    let (mut findings, mut lacking) = (Vec::new(), Vec::new());
    for file in &files {
        let about = file.path.display();
        match &file.says {
            Says::AllOfIt => findings.push(check.ok(about, "says what it must")),
            Says::Nothing => lacking.push(format!("{about} (is not there)")),
            Says::SomethingElse => lacking.push(about.to_string()),
            Says::Nonsense(problem) => {
                let (what, remedy) = problem.rsplit_once("; ").unwrap_or((problem, "mend it"));
                findings.push(check.fault(about, what, remedy));
            }
        }
    }
    if !lacking.is_empty() {
        let name = super::name(surveyed);
        let found = format!("lack what `roadstead client {name}` puts there for {base}");
        let remedy = format!(
            "have it written (a backup is kept, and all else stays); then: {}",
            then.join("; ")
        );
        let level = match (is_named, surveyed) {
            (false, _) => Level::Fault,
            // ctr is told where hosts.toml is; what comes by CRI asks config_path, or goes past us.
            (true, Surveyed::Containerd) => Level::Warning,
            // Where it is asked anyway, that may be meant so, and the pull tells.
            (true, Surveyed::Docker | Surveyed::Podman) => Level::Note,
        };
        let finding = check.at(level, lacking.join(", "), found, remedy);
        findings.push(finding.run(asking.apply(name, &base)));
    }
    findings
}

/// Whether containerd runs since before its file changed; hosts.toml is read at each pull.
fn restarted(asking: &Asking) -> Option<Finding> {
    let check = check_of(Surveyed::Containerd, "restarted");
    let default = asking.root.join("etc/containerd/config.toml");
    let reads = |daemon: &super::program::Daemon| match &daemon.config {
        Some(config) => same(config, &default),
        None => asking.root == Path::new("/"),
    };
    let daemon = daemons("containerd", &["--config", "-c"]).into_iter().find(reads)?;
    let changed = fs::metadata(&default).ok()?.modified().ok()?;
    let about = format!("containerd, process {}", daemon.pid);
    // Both are told in whole seconds.
    let is_older = daemon.started? + Duration::from_secs(2) < changed;
    let ago =
        |time: SystemTime| SystemTime::now().duration_since(time).unwrap_or_default().as_secs();
    Some(match is_older {
        false => check.ok(about, "runs since its file was changed"),
        true => check
            .fault(
                about,
                format!(
                    "{} was changed {} s ago, after it was started",
                    default.display(),
                    ago(changed)
                ),
                "restart it: it reads config.toml at its start alone",
            )
            .run("systemctl restart containerd"),
    })
}

fn same(one: &Path, other: &Path) -> bool {
    one == other || one.canonicalize().ok().is_some_and(|it| other.canonicalize().ok() == Some(it))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mirror(url: &str) -> Mirror {
        Mirror::named(url)
    }

    #[test]
    fn the_first_is_asked_first() {
        let mirrors = [mirror("http://a:1"), mirror("http://b:2")];
        let level = |ours| order(Surveyed::Docker, &mirrors, ours, "docker.io").unwrap().level;
        assert_eq!(level(Some(0)), Level::Ok);
        assert_eq!(level(Some(1)), Level::Warning);
        assert_eq!(level(None), Level::Fault);
        let half = [Mirror { serves_all: false, ..mirror("http://a:1") }];
        let told = order(Surveyed::Containerd, &half, Some(0), "docker.io").unwrap();
        assert_eq!(told.level, Level::Fault);
    }

    #[test]
    fn two_names_of_one_host_are_one_place() {
        let same =
            |one: &str, other: &str| is_same_place(&one.parse().unwrap(), &other.parse().unwrap());
        assert!(same("http://localhost:5000", "http://127.0.0.1:5000"));
        assert!(!same("http://localhost:5000", "http://127.0.0.1:5001"));
        assert!(!same("http://localhost:5000", "https://127.0.0.1:5000"));
        assert!(same("https://nobody.invalid", "https://nobody.invalid:443"));
    }

    #[test]
    fn a_daemon_that_was_not_told_since_is_a_fault() {
        let (old, new) = ([mirror("http://a:1")], [mirror("http://b:2")]);
        assert_eq!(in_force(&new, &new), None);
        assert_eq!(in_force(&new, &old).unwrap().level, Level::Fault);
        assert_eq!(in_force(&[], &old).unwrap().level, Level::Note);
    }
}
