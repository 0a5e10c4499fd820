//! `roadstead client ca`: the authority of a transparent listener, and where clients want it.

use std::{fs, path::PathBuf, process::ExitCode};

use clap::Args;

use crate::{
    cli::{FAILED, WRONG_USAGE, complain},
    config::{Config, ConfigError, Intercepted, Overrides},
    tls::{Limits, Made, make_authority},
};

/// Where each system wants a further authority.
const WHERE: &str = "\
Each client must trust CERTIFICATE. As root, copy it to

  Debian, Ubuntu, Alpine   /usr/local/share/ca-certificates/roadstead.crt, then update-ca-certificates
  RHEL, Fedora, Amazon     /etc/pki/ca-trust/source/anchors/roadstead.crt, then update-ca-trust
  SUSE                     /etc/pki/trust/anchors/roadstead.crt, then update-ca-certificates
  Arch                     anywhere, then trust anchor roadstead.crt

and restart what was running, for programs read the system's authorities once. Without touching
the system, for one registry HOST:

  docker                   /etc/docker/certs.d/HOST/ca.crt, no restart (not for docker.io: there it
                           reads the system's alone)
  containerd, k3s, CRI     ca = \"FILE\" in /etc/containerd/certs.d/HOST/hosts.toml
  podman, skopeo, buildah  /etc/containers/certs.d/HOST/roadstead.crt
  BuildKit                 ca=[\"FILE\"] under [registry.\"HOST\"] in buildkitd.toml
  crane, oras, cosign      SSL_CERT_FILE=FILE, which replaces the system's

Lead the clients here: HTTPS_PROXY=http://ROADSTEAD:3128 (for dockerd or containerd in a drop-in
below /etc/systemd/system/SERVICE.service.d/, then restart it) with mode connect, or DNS and the
network with mode sni, which needs port 443.
";

const EXAMPLES: &str = "\
Run once: clients trust what it makes, and would have to trust the next one anew.

Examples:
  roadstead client ca --config roadstead.yaml --directory /etc/roadstead/ca
  roadstead client ca --upstream docker.io --host registry.corp.example";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Ca {
    /// The configuration whose upstreams it may vouch for; without one, Docker Hub
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A registry it may vouch for, in place of the configuration's; several may be given
    #[arg(long = "upstream", value_name = "[NAME=]URL")]
    upstreams: Vec<String>,
    /// A further host it may vouch for, such as that of an upstream to come
    #[arg(long = "host", value_name = "HOST")]
    hosts: Vec<String>,
    /// Let it vouch for every host; whoever gets its key can then play any site to its clients
    #[arg(long, conflicts_with = "hosts")]
    any_host: bool,
    /// Where its two files are made
    #[arg(long, value_name = "DIR", default_value = "roadstead-ca")]
    directory: PathBuf,
}

// === impl Ca ===

impl Ca {
    pub(super) fn run(&self) -> ExitCode {
        let hosts = match self.hosts() {
            Ok(hosts) => hosts,
            Err(error) => return complain(&error, WRONG_USAGE),
        };
        if let Some(bad) = hosts.iter().find(|host| !is_host_name(host)) {
            let problem = format!("--host: `{bad}` is not a host name; write it as ghcr.io");
            return complain(&problem, WRONG_USAGE);
        }
        if hosts.is_empty() && !self.any_host {
            return complain(&"no upstream has a host name; give --host HOST", WRONG_USAGE);
        }
        let hosts: Vec<&str> = hosts.iter().map(String::as_str).collect();
        let limits = if self.any_host { Limits::Any } else { Limits::Hosts(&hosts) };
        match make_authority(&self.directory, limits) {
            Ok(made) => {
                self.print(&made, &hosts);
                ExitCode::SUCCESS
            }
            Err(problem) => complain(&problem, FAILED),
        }
    }

    fn hosts(&self) -> Result<Vec<String>, ConfigError> {
        let overrides = Overrides {
            // The listeners may name the very files that are to be made.
            listen: Some("127.0.0.1:0".to_owned()),
            upstreams: self.upstreams.clone(),
            ..Overrides::default()
        };
        let config = Config::from_sources(self.config.as_deref(), &overrides)?;
        let own = Intercepted::of(&config.upstreams);
        let mut hosts: Vec<String> = own.hosts().into_iter().map(str::to_owned).collect();
        hosts.extend(self.hosts.iter().map(|host| host.to_ascii_lowercase()));
        hosts.sort_unstable();
        hosts.dedup();
        Ok(hosts)
    }

    fn print(&self, made: &Made, hosts: &[&str]) {
        let absolute = |path: &PathBuf| fs::canonicalize(path).unwrap_or_else(|_| path.clone());
        let (certificate, key) = (absolute(&made.certificate), absolute(&made.key));
        let (certificate, key) = (certificate.display(), key.display());
        let limits = match self.any_host {
            true => "every host there is".to_owned(),
            false => format!("{}, the names below them, and no other host", hosts.join(", ")),
        };
        println!(
            "{certificate}\n  for clients to trust, for five years; it can vouch for {limits}"
        );
        println!("{key}\n  for Roadstead's user alone\n");
        println!("In Roadstead's configuration:\n");
        println!("listen:\n  - address: 0.0.0.0:3128\n    transparent:\n      mode: connect");
        println!("      ca: {{ certificate: {certificate}, key: {key} }}\n");
        print!("{}", WHERE.replace("CERTIFICATE", &certificate.to_string()));
    }
}

fn is_host_name(host: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    !host.is_empty()
        && !host.starts_with(['.', '-'])
        && host.chars().all(is_plain)
        && host.parse::<std::net::IpAddr>().is_err()
}
