//! containerd: a `hosts.toml` for each registry, and `config_path`, which its CRI side needs to read
//! them.
//!
//! containerd itself adds `?ns=REGISTRY` to what it asks a mirror, so one address serves all.

use std::path::{Path, PathBuf};

use toml_edit::{Array, DocumentMut, Item, Table};

use super::plan::{File, Plan, Problem};
use super::reach::{AUTHORITY, Reach, Registry};
use super::root::Root;
use super::survey::Mirror;
use super::table;

pub(super) const CONFIG: &str = "/etc/containerd/config.toml";

/// Where hosts.toml files are unless `config_path` names another directory.
const HOSTS: &str = "/etc/containerd/certs.d";

pub(super) fn plan(reach: &Reach, root: &Root) -> Result<Plan, Problem> {
    let config = Path::new(CONFIG);
    let present = root.read(config)?;
    let document = table::parse(&present).map_err(|what| Problem::about(config, what))?;
    let hosts = hosts_directory(&document);
    let mut plan = Plan::default();
    for registry in &reach.registries {
        plan.files.extend(host_files(reach, registry, &hosts));
    }
    plan.files.push(File::new(CONFIG, with_config_path));
    plan.then.push(
        "systemctl restart containerd, where config.toml has changed; hosts.toml is read at each \
         pull"
            .to_owned(),
    );
    plan.notes.extend(notes(reach, &document, &hosts));
    Ok(plan)
}

fn notes(reach: &Reach, document: &DocumentMut, hosts: &Path) -> Vec<String> {
    let mut notes = vec![
        "In a config.toml of version 3 (containerd 2) the section is \
         [plugins.\"io.containerd.cri.v1.images\".registry]; containerd 2 also reads version 2."
            .to_owned(),
        format!(
            "config_path is for Kubernetes, crictl and what else comes by CRI. ctr takes \
             --hosts-dir {0}; nerdctl reads {HOSTS} by itself.",
            hosts.display()
        ),
    ];
    let disabled = document.get("disabled_plugins").and_then(Item::as_array);
    let is_cri = |name: &str| name == "cri" || name == "io.containerd.grpc.v1.cri";
    if disabled.is_some_and(|list| list.iter().filter_map(|it| it.as_str()).any(is_cri)) {
        notes.push(format!("{CONFIG} disables CRI; nothing but --hosts-dir counts there."));
    }
    if reach.login {
        notes.push(
            "access.htpasswd is set: each [host] needs [host.\"…\".header] with Authorization = \
             \"Basic …\", and its file mode 0600."
                .to_owned(),
        );
    }
    notes
}

// === hosts.toml ===

/// What one registry's directory must hold.
pub(super) fn host_files(reach: &Reach, registry: &Registry, hosts: &Path) -> Vec<File> {
    let directory = hosts.join(&registry.registry);
    let (url, origin) = (reach.base.to_string(), registry.origin.clone());
    let has_authority = reach.ca.is_some();
    let hosts = File::new(directory.join("hosts.toml"), move |text| {
        with_host(text, &url, &origin, has_authority)
    });
    let authority = reach.ca.clone().map(|ca| File::whole(directory.join(AUTHORITY), ca));
    std::iter::once(hosts).chain(authority).collect()
}

/// Ours comes first: containerd asks hosts in the order in which they are written.
fn with_host(text: &str, url: &str, origin: &str, has_authority: bool) -> Result<String, String> {
    let mut document = table::parse(text)?;
    if document.is_empty() {
        table::first(&mut document, "server", origin);
    }
    let hosts = table::child(document.as_table_mut(), "host")?;
    let (is_new, has_others) = (!hosts.contains_key(url), !hosts.is_empty());
    let host = table::child(hosts, url)?;
    if is_new {
        host.set_implicit(false);
        if has_others {
            host.set_position(Some(0));
            host.decor_mut().set_prefix("\n");
        }
        host.insert("capabilities", Item::Value(Array::from_iter(["pull", "resolve"]).into()));
    } else if host.contains_key("capabilities") {
        // Without the key it has all of them.
        for capability in ["resolve", "pull"] {
            table::list(host, "capabilities", capability)?;
        }
    }
    if has_authority {
        table::set(host, "ca", AUTHORITY);
    }
    Ok(table::print(document))
}

/// The hosts that are asked for images of `registry`.
pub(super) fn mirrors(registry: &str, root: &Root) -> Result<Vec<Mirror>, Problem> {
    let hosts = hosts_in(root)?;
    let mut path = hosts.join(registry).join("hosts.toml");
    if root.read(&path)?.is_empty() {
        // It is for all registries that have no directory.
        path = hosts.join("_default/hosts.toml");
    }
    let document = table::parse(&root.read(&path)?);
    let document = document.map_err(|what| Problem::about(&path, what))?;
    let found = document.get("host").and_then(Item::as_table_like);
    let found = found.into_iter().flat_map(toml_edit::TableLike::iter);
    Ok(found.map(|(url, host)| Mirror::new(url, "https", serves_all(host))).collect())
}

/// Without the key it can do everything.
fn serves_all(host: &Item) -> bool {
    let Some(capabilities) = host.get("capabilities").and_then(Item::as_array) else {
        return true;
    };
    ["pull", "resolve"].iter().all(|what| capabilities.iter().any(|it| it.as_str() == Some(what)))
}

// === config.toml ===

/// The directory of hosts.toml files.
pub(super) fn hosts_in(root: &Root) -> Result<PathBuf, Problem> {
    let path = Path::new(CONFIG);
    let document = table::parse(&root.read(path)?);
    Ok(hosts_directory(&document.map_err(|what| Problem::about(path, what))?))
}

/// The section that CRI reads registries from. A file without a version is of the first.
fn section(version: Option<i64>) -> [&'static str; 3] {
    match version {
        Some(3..) => ["plugins", "io.containerd.cri.v1.images", "registry"],
        Some(2) => ["plugins", "io.containerd.grpc.v1.cri", "registry"],
        _ => ["plugins", "cri", "registry"],
    }
}

fn version(document: &DocumentMut) -> Option<i64> {
    document.get("version").and_then(Item::as_integer)
}

/// The first directory of `config_path`, where it is set.
fn hosts_directory(document: &DocumentMut) -> PathBuf {
    let section = section(version(document));
    let registry = section.iter().try_fold(document.as_item(), |item, key| item.get(key));
    let path = registry.and_then(|item| item.get("config_path")).and_then(Item::as_str);
    let first = path.and_then(|path| path.split(':').next()).filter(|path| path.starts_with('/'));
    PathBuf::from(first.unwrap_or(HOSTS))
}

fn with_config_path(text: &str) -> Result<String, String> {
    let mut document = table::parse(text)?;
    if document.is_empty() {
        table::first(&mut document, "version", 2);
    }
    let section = section(version(&document));
    let mut registry = document.as_table_mut();
    for key in section {
        registry = table::child(registry, key)?;
    }
    refuse_old_mirrors(registry, &section.join("."))?;
    if registry.get("config_path").and_then(Item::as_str).unwrap_or_default().is_empty() {
        registry.set_implicit(false);
        table::set(registry, "config_path", HOSTS);
    }
    Ok(table::print(document))
}

/// Beside them, containerd refuses `config_path` and starts without CRI.
fn refuse_old_mirrors(registry: &Table, section: &str) -> Result<(), String> {
    let filled =
        |key: &str| registry.get(key).and_then(Item::as_table_like).filter(|it| !it.is_empty());
    let tls = |item: &Item| item.get("tls").is_some();
    let configs = filled("configs").is_some_and(|it| it.iter().any(|(_, item)| tls(item)));
    if filled("mirrors").is_some() || configs {
        return Err(format!(
            "[{section}] has mirrors or configs.….tls, beside which containerd takes no \
             config_path; move them to hosts.toml files and remove them"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::testing::{edited, reach, refused};
    use super::*;

    const HUB: &str = "/etc/containerd/certs.d/docker.io/hosts.toml";
    const TWO: &str =
        "upstreams: [{ name: docker.io }, { name: corp, url: \"http://r.corp:5000\" }]";

    fn plan_of(config: &str, address: &str) -> Plan {
        plan(&reach(config, address), &Root::unseen()).unwrap()
    }

    #[test]
    fn every_registry_has_its_hosts() {
        let plan = plan_of(TWO, "http://10.0.0.5:5000");
        assert_eq!(
            edited(&plan, HUB, ""),
            "server = \"https://registry-1.docker.io\"\n\n[host.\"http://10.0.0.5:5000\"]\n\
             capabilities = [\"pull\", \"resolve\"]\n"
        );
        let corp = edited(&plan, "/etc/containerd/certs.d/r.corp:5000/hosts.toml", "");
        assert!(corp.starts_with("server = \"http://r.corp:5000\"\n"), "{corp}");
    }

    #[test]
    fn other_hosts_stay_and_come_after_ours() {
        let before = "# mine\nserver = \"https://x\"\n\n# why\n[host.\"https://a\"]\n  \
                      capabilities = [\"pull\"]\n[host.\"https://a\".header]\n  x = \"y\"\n";
        let after = edited(&plan_of("", "https://m.corp"), HUB, before);
        let (ours, theirs) = (after.find("https://m.corp").unwrap(), after.find("# why").unwrap());
        assert!(ours < theirs, "{after}");
        assert!(after.starts_with("# mine\nserver = \"https://x\"\n"), "{after}");
        assert!(after.ends_with(before.split_once("# why").unwrap().1), "{after}");
    }

    #[test]
    fn a_host_that_can_not_resolve_learns_to() {
        let before =
            "[host.\"https://m.corp\"]\n  capabilities = [\"pull\"]\n  skip_verify = false\n";
        let after = edited(&plan_of("", "https://m.corp"), HUB, before);
        assert!(
            after.contains("[\"resolve\", \"pull\"]") && after.contains("skip_verify"),
            "{after}"
        );
    }

    #[test]
    fn config_path_stands_in_the_section_of_the_file_s_version() {
        let plan = plan_of("", "https://m.corp");
        let new = edited(&plan, CONFIG, "");
        assert_eq!(
            new,
            "version = 2\n\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\n\
             config_path = \"/etc/containerd/certs.d\"\n"
        );
        for (before, section) in [
            ("version = 3\n", "[plugins.\"io.containerd.cri.v1.images\".registry]"),
            ("root = \"/x\"\n", "[plugins.cri.registry]"),
            (
                "version = 2\n[plugins]\n  [plugins.\"io.containerd.grpc.v1.cri\"]\n    a = 1\n",
                "[plugins.\"io.containerd.grpc.v1.cri\".registry]",
            ),
        ] {
            let after = edited(&plan, CONFIG, before);
            assert!(after.starts_with(before) && after.contains(section), "{after}");
        }
    }

    #[test]
    fn comments_stay_where_they_are() {
        let plan = plan_of("", "https://m.corp");
        for before in
            ["# only this\n", "version = 2\n# the end\n", "version = 2\n[debug]\n  a = 1\n# end\n"]
        {
            let after = edited(&plan, CONFIG, before);
            assert!(after.starts_with(before), "{after}");
        }
        let hub = edited(&plan, HUB, "# only this\n");
        assert!(hub.starts_with("# only this\nserver = "), "{hub}");
        let before = "server = \"https://x\"\n# the end\n";
        let hub = edited(&plan, HUB, before);
        assert!(hub.starts_with(before), "{hub}");
    }

    #[test]
    fn a_config_path_that_is_set_is_used() {
        let before = "version = 3\n[plugins.'io.containerd.cri.v1.images'.registry]\n\
                      config_path = '/srv/hosts:/etc/docker/certs.d'\n";
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("etc/containerd")).unwrap();
        std::fs::write(folder.path().join("etc/containerd/config.toml"), before).unwrap();
        let root = Root::at(folder.path().to_owned());
        let plan = plan(&reach("", "https://m.corp"), &root).unwrap();
        assert_eq!(plan.files[0].path, Path::new("/srv/hosts/docker.io/hosts.toml"));
        assert_eq!(edited(&plan, CONFIG, before), before);
    }

    #[test]
    fn mirrors_of_the_old_kind_are_refused() {
        let old = "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry.mirrors.\"docker.io\"]\n\
                   endpoint = [\"https://x\"]\n";
        let said = refused(&plan_of("", "https://m.corp"), CONFIG, old);
        assert!(said.contains("move them to hosts.toml"), "{said}");
    }
}
