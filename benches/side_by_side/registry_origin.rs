//! `--origin registry`: Debian's `docker-registry` as the origin, a real registry but a slow one.
//!
//! Its storage is laid out directly, as a push would leave it, with hard links to the content: pushing 3 GiB through
//! its API would take minutes and leave the same files.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context, Result};

use crate::content::{MANIFEST_TYPE, Object};

pub(crate) fn lay_out(storage: &Path, objects: &[Object]) -> Result<()> {
    let root = storage.join("docker/registry/v2");
    for object in objects {
        store(&root, object).with_context(|| format!("storing {}", object.path))?;
    }
    Ok(())
}

pub(crate) fn configuration(address: SocketAddr, storage: &Path) -> String {
    format!(
        r#"version: 0.1
log: {{ level: error }}
storage:
  filesystem: {{ rootdirectory: "{storage}" }}
  cache: {{ blobdescriptor: inmemory }}
http: {{ addr: "{address}", secret: bench }}
"#,
        storage = storage.display(),
    )
}

/// `METHOD PATH STATUS` of each line of an access log in Apache's format; other lines are the registry's own.
pub(crate) fn requests(log: &str) -> String {
    log.lines().filter_map(request).collect()
}

fn request(line: &str) -> Option<String> {
    let mut quoted = line.split('"').skip(1);
    let (request, after) = (quoted.next()?, quoted.next()?);
    let mut words = request.split(' ');
    let (method, target) = (words.next()?, words.next()?);
    let path = target.split('?').next()?;
    Some(format!("{method} {path} {}\n", after.split_ascii_whitespace().next()?))
}

fn store(root: &Path, object: &Object) -> Result<()> {
    let hex = object.digest.strip_prefix("sha256:").context("a sha256 digest")?;
    let data = root
        .join("blobs/sha256")
        .join(hex.get(..2).context("a whole digest")?)
        .join(hex)
        .join("data");
    if !data.exists() {
        fs::create_dir_all(data.parent().context("a folder")?)?;
        fs::hard_link(&object.file, &data)?;
    }
    let path = object.path.strip_prefix("/v2/").context("a path of the registry API")?;
    let (folder, reference) = path.rsplit_once('/').context("a reference")?;
    let (repository, _) = folder.rsplit_once('/').context("a repository")?;
    let repository = root.join("repositories").join(repository);
    if object.media_type != MANIFEST_TYPE {
        return link(&repository.join("_layers/sha256").join(hex), &object.digest);
    }
    link(&repository.join("_manifests/revisions/sha256").join(hex), &object.digest)?;
    if reference != object.digest {
        let tag = repository.join("_manifests/tags").join(reference);
        link(&tag.join("current"), &object.digest)?;
        link(&tag.join("index/sha256").join(hex), &object.digest)?;
    }
    Ok(())
}

fn link(folder: &Path, digest: &str) -> Result<()> {
    fs::create_dir_all(folder)?;
    fs::write(folder.join("link"), digest)?;
    Ok(())
}
