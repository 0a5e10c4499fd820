//! `roadstead doctor client`: do this host's clients really go through Roadstead.
//!
//! A client whose mirror fails goes to the registry itself and says nothing. So its settings are
//! read, a tag is pulled as it would pull it, and the server's counters are watched meanwhile.

mod image;
mod judge;
mod program;
mod pull;
mod settings;
mod witness;

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, ValueEnum};
use tokio::runtime::Builder;

use super::{
    finding::{Check, Finding, Group, Level},
    server::Admin,
    told,
};
use crate::{
    cli::{FAILED, Source, WRONG_USAGE, client::survey::Surveyed, complain},
    config::{BaseUrl, Config, Refusal},
};
use image::Image;
use judge::judge;
use program::find;
use pull::{By, Chosen, Settings};
use settings::Known;
use witness::Witness;

const ABOUT: &str = "\
Without a name, those that are here are looked at (containerd beside docker, without crictl and nerdctl, \
is docker's own). The pull is real: a tag that is cached costs \
nothing, any other one costs one pull of Roadstead's budget, and of this host's own where the client \
goes past Roadstead. What the client did not have before is taken away again. Run it as a user who may \
pull (root, mostly).

On a host without the server, say with --mirror where clients reach it, and with --admin where its \
admin listener is reached (ssh -L 5001:127.0.0.1:5001 SERVER brings it here).

Exit codes: 0 nothing is wrong (a warning says what could not be proved); 1 a client goes another way, \
or something else is wrong; 2 wrong usage.";

/// Find out whether this host's clients really go through Roadstead
#[derive(Debug, Args)]
#[command(after_help = ABOUT)]
pub(super) struct Client {
    /// Which clients
    #[arg(value_name = "CLIENT")]
    clients: Vec<Name>,
    /// The server's configuration, if it is here
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A registry that the server caches, where its configuration is not here; the first is the default
    #[arg(long = "upstream", value_name = "[NAME=]URL")]
    upstreams: Vec<String>,
    /// Where clients reach Roadstead: http(s)://HOST[:PORT]
    #[arg(long, value_name = "URL", value_parser = base_url)]
    mirror: Option<BaseUrl>,
    /// Where its admin listener is: http(s)://HOST[:PORT]
    #[arg(long, value_name = "URL", value_parser = base_url)]
    admin: Option<BaseUrl>,
    /// The tag that is pulled [default: the smallest that is cached, or hello-world]
    #[arg(long, value_name = "IMAGE")]
    probe: Option<Image>,
    /// The authority (PEM) behind the mirror's certificate, where this system does not know it
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Read the clients' files below this directory instead of /
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
    /// Read settings alone, and pull nothing
    #[arg(long)]
    no_pull: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// A client, as it is named on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Name {
    Docker,
    Containerd,
    Podman,
}

/// What every client is asked about.
#[derive(Debug)]
struct Asking {
    config: Config,
    file: Option<PathBuf>,
    upstreams: Vec<String>,
    mirror: Option<BaseUrl>,
    ca: Option<PathBuf>,
    root: PathBuf,
    image: Image,
}

fn base_url(text: &str) -> Result<BaseUrl, String> {
    let text = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    text.parse().map_err(|refusal: Refusal| refusal.to_string())
}

const ALL: [Surveyed; 3] = [Surveyed::Docker, Surveyed::Containerd, Surveyed::Podman];

fn group(surveyed: Surveyed) -> Group {
    match surveyed {
        Surveyed::Docker => Group::Docker,
        Surveyed::Containerd => Group::Containerd,
        Surveyed::Podman => Group::Podman,
    }
}

/// As `roadstead client` takes it.
fn name(surveyed: Surveyed) -> &'static str {
    group(surveyed).as_str()
}

/// Its programs, of which one is enough for it to be here.
fn programs(surveyed: Surveyed) -> &'static [&'static str] {
    match surveyed {
        Surveyed::Docker => &["dockerd", "docker"],
        Surveyed::Containerd => &["containerd", "ctr", "crictl", "nerdctl"],
        Surveyed::Podman => &["podman", "skopeo", "buildah"],
    }
}

fn is_here(surveyed: Surveyed) -> bool {
    let is_any = |programs: &[&str]| programs.iter().any(|program| find(program).is_some());
    match surveyed {
        Surveyed::Docker => find("dockerd").is_some() || find("docker").is_some_and(is_docker),
        // Docker brings it, and asks it for no image.
        Surveyed::Containerd if is_here(Surveyed::Docker) => is_any(&["crictl", "nerdctl"]),
        Surveyed::Containerd | Surveyed::Podman => is_any(programs(surveyed)),
    }
}

/// podman-docker is a script of that name, which runs podman.
fn is_docker(program: PathBuf) -> bool {
    let is_short = fs::metadata(&program).is_ok_and(|it| it.len() < 4096);
    !is_short || !fs::read_to_string(&program).is_ok_and(|text| text.contains("podman"))
}

// === impl Client ===

impl Client {
    pub(super) fn run(&self) -> ExitCode {
        let (config, upstreams) = (self.config.clone(), self.upstreams.clone());
        let source = Source { config, listen: None, admin: None, upstreams, data: None };
        let config = match source.load() {
            Ok(config) => config,
            Err(error) => return complain(&error, WRONG_USAGE),
        };
        let runtime = match Builder::new_multi_thread().worker_threads(2).enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return complain(&format!("nothing can be started: {error}"), FAILED),
        };
        let findings = runtime.block_on(self.check(config));
        runtime.shutdown_background();
        told(&findings, self.json)
    }

    async fn check(&self, config: Config) -> Vec<Finding> {
        let admin = match &self.admin {
            Some(base) => Admin::at(base),
            None => Admin::configured(&config.admin),
        };
        let (asking, counters, admin) = self.prepare(config, admin).await;
        let mut findings = vec![counters];
        let clients = self.clients();
        if clients.is_empty() {
            findings.push(Check(Group::Server, "clients").note(
                "this host",
                "no docker, containerd or podman is found in PATH",
                "name one, to have it asked as that client would: roadstead doctor client docker",
            ));
        }
        // One after the other: all move the same counters.
        for surveyed in clients {
            findings.extend(self.look_at(surveyed, &asking, admin.as_ref()).await);
        }
        findings
    }

    /// What to ask for, and whether the counters can be watched.
    async fn prepare(
        &self,
        config: Config,
        admin: Result<Admin, String>,
    ) -> (Asking, Finding, Option<Admin>) {
        let probe = self.probe.clone();
        let work = move || {
            let watched = admin.and_then(|admin| admin.metrics().map(|_| admin));
            let chosen = probe.unwrap_or_else(|| Image::choose(watched.as_ref().ok()));
            let finding = counters(&watched, &chosen);
            (chosen, finding, watched.ok())
        };
        let (image, finding, admin) = match tokio::task::spawn_blocking(work).await {
            Ok(prepared) => prepared,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        };
        let asking = Asking {
            config,
            file: self.config.clone(),
            upstreams: self.upstreams.clone(),
            mirror: self.mirror.clone(),
            ca: self.ca.clone(),
            root: self.root.clone(),
            image,
        };
        (asking, finding, admin)
    }

    /// Those that are asked for, or else that are here.
    fn clients(&self) -> Vec<Surveyed> {
        let is_asked = |surveyed: &Surveyed| match self.clients.as_slice() {
            [] => is_here(*surveyed),
            names => names.iter().any(|name| name.surveyed() == *surveyed),
        };
        ALL.into_iter().filter(is_asked).collect()
    }

    async fn look_at(
        &self,
        surveyed: Surveyed,
        asking: &Asking,
        admin: Option<&Admin>,
    ) -> Vec<Finding> {
        if surveyed == Surveyed::Docker && asking.image.registry != "docker.io" {
            let found = format!("mirrors docker.io alone, and {} is not of it", asking.image);
            let remedy = "pull a tag of Docker Hub's (--probe)";
            return vec![Check(Group::Docker, "pull").note("dockerd", found, remedy)];
        }
        let known = settings::check(surveyed, asking).await;
        let pulled = match self.no_pull {
            true => None,
            false => Some(pull(surveyed, asking, &known, admin).await),
        };
        known.findings.into_iter().chain(pulled).collect()
    }
}

// === impl Name ===

impl Name {
    fn surveyed(self) -> Surveyed {
        match self {
            Self::Docker => Surveyed::Docker,
            Self::Containerd => Surveyed::Containerd,
            Self::Podman => Surveyed::Podman,
        }
    }
}

// === impl Asking ===

impl Asking {
    /// The command that writes a client's files.
    fn apply(&self, client: &str, base: &BaseUrl) -> String {
        let mut words = format!("roadstead client {client} --apply --address {base}");
        let config = self.file.iter().map(|file| format!(" --config {}", file.display()));
        let upstreams = self.upstreams.iter().map(|upstream| format!(" --upstream {upstream}"));
        let ca = self.ca.iter().map(|ca| format!(" --ca {}", ca.display()));
        words.extend(config.chain(upstreams).chain(ca));
        if self.root != Path::new("/") {
            words.push_str(&format!(" --root {}", self.root.display()));
        }
        words
    }
}

fn counters(watched: &Result<Admin, String>, image: &Image) -> Finding {
    let check = Check(Group::Server, "counters");
    match watched {
        Ok(admin) => check.ok(admin.base(), format!("the counters can be watched; {image} is pulled")),
        Err(problem) => check
            .warning(
                "admin listener",
                format!("the server's counters can't be watched: {problem}"),
                "say with --admin where its admin listener is; on another host, bring it here first",
            )
            .run("ssh -fNL 5001:127.0.0.1:5001 SERVER"),
    }
}

/// Pulls while the counters are watched.
async fn pull(
    surveyed: Surveyed,
    asking: &Asking,
    known: &Known,
    admin: Option<&Admin>,
) -> Finding {
    let image = &asking.image;
    let Chosen { by, problem } = By::choose(surveyed).await;
    let ca = asking.ca.as_ref().and_then(|path| fs::read_to_string(path).ok());
    let settings =
        Settings { mirrors: &known.mirrors, hosts: known.hosts.as_deref(), ca: ca.as_deref() };
    let witness = match admin {
        Some(admin) => Witness::new(admin, image).await.ok(),
        None => None,
    };
    let outcome = by.pull(image, settings).await;
    let testimony = match &witness {
        Some(witness) => witness.testify().await.ok(),
        None => None,
    };
    let shown = by.shown(image);
    let judged = judge(surveyed, &shown, known.ours.is_some(), outcome.as_ref().err(), testimony);
    match problem {
        // What stands in for the client proves nothing of it.
        Some(problem) if judged.level == Level::Ok => Check(group(surveyed), "pull").warning(
            shown,
            format!("{}; but the client itself can't be asked: {problem}", judged.found),
            "run this as root or who may pull, and see that the client's daemon runs",
        ),
        _ => judged,
    }
}
