//! `roadstead client`: what a client of this configuration must be told, and where.
//!
//! Prints it, or writes it into what is there already: everything else in those files stays as it
//! is, a backup is kept, and a second run changes nothing. All files are read and merged before the
//! first is written.

mod apply;
mod buildkit;
mod ca;
mod containerd;
mod docker;
mod json;
mod k3s;
mod kubeadm;
mod plan;
mod podman;
mod print;
mod reach;
mod root;
pub(super) mod survey;
mod table;
#[cfg(test)]
mod testing;
mod trust;

use std::{io, path::PathBuf, process::ExitCode};

use clap::{Args, Subcommand};

use super::{FAILED, Source, WRONG_USAGE, complain};
use crate::config::BaseUrl;
use plan::{Plan, Problem};
use reach::Reach;
pub(super) use reach::outward;
use root::Root;

const ABOUT: &str = "\
Examples:
  roadstead client docker
      what daemon.json needs, for a Roadstead with default settings
  roadstead client containerd --config roadstead.yaml --apply
      writes it, keeping the rest of those files and a backup
  roadstead client podman --address https://mirror.example.com --ca corp.pem
      behind a TLS terminator whose authority clients don't know

Each prints files and what they must hold, and changes nothing unless --apply is given. Run it on \
the machine that runs Roadstead; to write another machine's files, run it there with --address and \
the --upstream flags or the --config of the server.

Exit codes: 0 done, also where nothing was to be changed; 1 a file could not be written, and those \
that were are printed; 2 wrong usage, or a file that can't be merged with. Then nothing was written.";

/// Print or write what container clients must be told
#[derive(Debug, Args)]
#[command(after_help = ABOUT)]
pub(super) struct Client {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The docker daemon: daemon.json
    Docker(Settings),
    /// containerd, and what runs on it: hosts.toml of each registry
    Containerd(Settings),
    /// podman, skopeo, buildah and CRI-O: registries.conf
    #[command(visible_aliases = ["skopeo", "buildah", "cri-o"])]
    Podman(Settings),
    /// BuildKit: buildkitd.toml
    Buildkit(Settings),
    /// k3s: registries.yaml
    K3s(Settings),
    /// kubeadm: the containerd of its nodes, its images' registry
    Kubeadm(Settings),
    /// Make the authority of a transparent listener, and say where each system wants it
    Ca(ca::Ca),
}

/// What every client's subcommand takes.
#[derive(Debug, Args)]
struct Settings {
    #[command(flatten)]
    source: Source,
    /// Where clients reach Roadstead, if not where it listens: http(s)://HOST[:PORT]
    #[arg(long, value_name = "URL", value_parser = address)]
    address: Option<BaseUrl>,
    /// The authority (PEM) behind the certificate at that address, where clients don't know it
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Write the files
    #[arg(long)]
    apply: bool,
    /// Write them below this directory instead of /
    #[arg(long, value_name = "DIR", requires = "apply")]
    root: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What one client needs; `Root` is where its present files are.
type Planned = fn(&Reach, &Root) -> Result<Plan, Problem>;

fn address(text: &str) -> Result<BaseUrl, String> {
    text.parse().map_err(|refusal: crate::config::Refusal| refusal.to_string())
}

// === impl Client ===

impl Client {
    pub(super) fn run(&self) -> ExitCode {
        let (settings, planned): (_, Planned) = match &self.command {
            Command::Docker(settings) => (settings, docker::plan),
            Command::Containerd(settings) => (settings, containerd::plan),
            Command::Podman(settings) => (settings, podman::plan),
            Command::Buildkit(settings) => (settings, buildkit::plan),
            Command::K3s(settings) => (settings, k3s::plan),
            Command::Kubeadm(settings) => (settings, kubeadm::plan),
            Command::Ca(ca) => return ca.run(),
        };
        settings.run(planned)
    }
}

// === impl Settings ===

impl Settings {
    fn run(&self, planned: Planned) -> ExitCode {
        let config = match self.source.load() {
            Ok(config) => config,
            Err(error) => return complain(&error, WRONG_USAGE),
        };
        let reach = match Reach::of(&config, self.address.as_ref(), self.ca.as_deref()) {
            Ok(reach) => reach,
            Err(problem) => return complain(&problem, WRONG_USAGE),
        };
        let root = match self.apply {
            true => Root::at(self.root.clone().unwrap_or_else(|| "/".into())),
            false => Root::unseen(),
        };
        let merged = planned(&reach, &root).and_then(|plan| {
            let files = plan.files.iter().map(|file| apply::merge(file, &root));
            let files = files.collect::<Result<Vec<_>, _>>()?;
            Ok((plan, files))
        });
        let (plan, mut files) = match merged {
            Ok(merged) => merged,
            Err(problem) => return complain(&problem, WRONG_USAGE),
        };
        let (printed, written) = match self.apply {
            true => {
                let (done, written) = apply::write_all(&mut files);
                (print::applied(&reach, &plan, &files, &done, self.json), written)
            }
            false => (print::planned(&reach, &plan, &files, self.json), Ok(())),
        };
        if let Err(problem) = written {
            return complain(&problem, FAILED);
        }
        match printed {
            Ok(()) => ExitCode::SUCCESS,
            // Who read the output has seen enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
            Err(error) => complain(&format!("the output can't be written: {error}"), FAILED),
        }
    }
}
