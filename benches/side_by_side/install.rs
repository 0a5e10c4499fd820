//! `--install`: the missing peers, from Debian. Where that fails, the bench goes on without them and says so.

use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::server::ServerKind;

const PEERS: [(ServerKind, &str); 2] =
    [(ServerKind::Nginx, "nginx-light"), (ServerKind::DockerRegistry, "docker-registry")];

pub(crate) fn missing_peers() -> Result<()> {
    let mut packages = Vec::new();
    for (kind, package) in PEERS {
        if kind.binary()?.is_none() {
            packages.push(package);
        }
    }
    if packages.is_empty() {
        return Ok(());
    }
    if let Err(error) = install(&packages) {
        eprintln!("side_by_side: could not install {}: {error:#}", packages.join(", "));
    }
    Ok(())
}

fn install(packages: &[&str]) -> Result<()> {
    apt(&["update"])?;
    apt(&[&["install", "--yes", "--no-install-recommends"], packages].concat())
}

fn apt(arguments: &[&str]) -> Result<()> {
    let status = Command::new("apt-get")
        // Another installation may hold the lock: wait for it instead of failing.
        .args(["-o", "DPkg::Lock::Timeout=600"])
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .status()
        .context("running apt-get")?;
    ensure!(status.success(), "apt-get {} failed: {status}", arguments.join(" "));
    Ok(())
}
