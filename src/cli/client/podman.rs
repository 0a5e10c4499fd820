//! podman, skopeo, buildah and CRI-O: mirrors in `registries.conf`.
//!
//! They name no registry in their requests, so each mirror's location ends with it. Of two
//! `[[registry]]` for one prefix the one that is read last counts whole, so where somebody has
//! written one, ours goes into it.

use std::fs;
use std::path::{Path, PathBuf};

use toml_edit::{ArrayOfTables, DocumentMut, Item, Table};

use super::plan::{File, Plan, Problem};
use super::reach::Reach;
use super::root::Root;
use super::survey;
use super::table;

const MAIN: &str = "/etc/containers/registries.conf";
const DROP_INS: &str = "/etc/containers/registries.conf.d";
const OURS: &str = "/etc/containers/registries.conf.d/roadstead.conf";

const HEAD: &str = "# Written by `roadstead client podman --apply`, which writes all of it anew.\n";

/// One registry and its mirror.
#[derive(Debug, Clone)]
struct Mirror {
    prefix: String,
    location: String,
    insecure: bool,
}

pub(super) fn plan(reach: &Reach, root: &Root) -> Result<Plan, Problem> {
    let mut plan = Plan::default();
    let mut ours = Vec::new();
    let mut theirs: Vec<(PathBuf, Vec<Mirror>)> = Vec::new();
    let written = written(root)?;
    for registry in &reach.registries {
        let Some(location) = reach.by_name(registry) else {
            plan.notes.push(format!(
                "{} can't stand in a path: give it `hosts`, or a `name` without a colon.",
                registry.registry
            ));
            continue;
        };
        let prefix = registry.registry.clone();
        let mirror = Mirror { location, insecure: reach.is_plain(), prefix };
        // The last one to be read.
        let found = written.iter().rev().find_map(|(path, document)| {
            entry_for(document, &mirror.prefix).map(|entry| (path, entry))
        });
        match found {
            None => ours.push(mirror),
            Some((path, entry)) => {
                plan.notes.extend(passed_by(entry, &mirror).map(|key| {
                    format!(
                        "{}: `{key}` keeps a part of {}'s images from Roadstead; take it out if all \
                         are to come through it.",
                        path.display(),
                        mirror.prefix
                    )
                }));
                match theirs.iter_mut().find(|(other, _)| other == path) {
                    Some((_, mirrors)) => mirrors.push(mirror),
                    None => theirs.push((path.clone(), vec![mirror])),
                }
            }
        }
    }
    plan.files.extend(
        theirs
            .into_iter()
            .map(|(path, mirrors)| File::new(path, move |text| with_mirrors(text, &mirrors))),
    );
    // Read after the main file, what an earlier run wrote there would count instead of what is there.
    if !ours.is_empty() || !root.read(Path::new(OURS))?.is_empty() {
        plan.files.push(File::whole(OURS, whole(&ours)));
    }
    let hosts = Reach::authorities(reach.registries.iter().filter_map(|it| reach.by_name(it)));
    plan.files.extend(reach.authority_files("/etc/containers/certs.d", &hosts));
    plan.then
        .push("systemctl reload crio, where CRI-O runs; the others read it each time".to_owned());
    plan.notes.extend(notes(reach, &hosts));
    Ok(plan)
}

/// The mirrors of `registry`, out of all files or of the one that is read `instead`.
pub(super) fn mirrors(
    registry: &str,
    root: &Root,
    instead: Option<&Path>,
) -> Result<Vec<survey::Mirror>, Problem> {
    let documents = match instead {
        Some(path) => {
            let text = fs::read_to_string(path).map_err(|error| {
                Problem::about(path, format!("can't be read: {error}; check it"))
            })?;
            let document = table::parse(&text).map_err(|what| Problem::about(path, what))?;
            vec![document]
        }
        None => {
            let mut paths = vec![PathBuf::from(MAIN)];
            paths.extend(root.files(Path::new(DROP_INS), "conf")?);
            let parse = |path: &PathBuf| {
                table::parse(&root.read(path)?).map_err(|what| Problem::about(path, what))
            };
            paths.iter().map(parse).collect::<Result<_, _>>()?
        }
    };
    // The one that is read last counts whole.
    let entry = documents.iter().rev().find_map(|document| entry_for(document, registry));
    let mirrors = entry.and_then(|it| it.get("mirror")).and_then(Item::as_array_of_tables);
    let mirrors = mirrors.into_iter().flat_map(ArrayOfTables::iter).filter_map(|mirror| {
        let location = mirror.get("location").and_then(Item::as_str)?;
        let insecure = mirror.get("insecure").and_then(Item::as_bool) == Some(true);
        let what = mirror.get("pull-from-mirror").and_then(Item::as_str);
        let serves_all = what.is_none_or(|what| what == "all");
        let scheme = if insecure { "http" } else { "https" };
        Some(survey::Mirror::new(location, scheme, serves_all))
    });
    Ok(mirrors.collect())
}

/// The files that are read besides ours, in the order in which they are.
fn written(root: &Root) -> Result<Vec<(PathBuf, DocumentMut)>, Problem> {
    let mut paths = vec![PathBuf::from(MAIN)];
    paths.extend(root.files(Path::new(DROP_INS), "conf")?);
    let others = paths.into_iter().filter(|path| path != Path::new(OURS));
    let read = |path: PathBuf| {
        let document = table::parse(&root.read(&path)?);
        let document = document.map_err(|what| Problem::about(&path, what))?;
        match document.get("registry").is_none_or(Item::is_array_of_tables) {
            true => Ok((path, document)),
            false => {
                Err(Problem::about(&path, "`registry` is not written as [[registry]]; write it so"))
            }
        }
    };
    others.map(read).collect()
}

fn notes(reach: &Reach, hosts: &[String]) -> Vec<String> {
    let mut notes = vec![
        "Where CONTAINERS_REGISTRIES_CONF or ~/.config/containers/registries.conf is used, it \
         stands in the place of these files."
            .to_owned(),
    ];
    if reach.login {
        let logins = hosts.iter().map(|host| format!("podman login {host}"));
        let logins: Vec<_> = logins.collect();
        notes.push(format!("access.htpasswd is set: {}.", logins.join(", ")));
    }
    notes
}

fn whole(mirrors: &[Mirror]) -> String {
    let entries = mirrors.iter().map(|mirror| {
        let mut document = DocumentMut::new();
        let mut entries = ArrayOfTables::new();
        entries.push(entry(mirror));
        document.insert("registry", Item::ArrayOfTables(entries));
        document.to_string()
    });
    let entries: Vec<_> = entries.collect();
    format!("{HEAD}\n{}", entries.join("\n"))
}

fn entry(mirror: &Mirror) -> Table {
    let mut entry = Table::new();
    entry.insert("prefix", toml_edit::value(&mirror.prefix));
    entry.insert("location", toml_edit::value(&mirror.prefix));
    let mut mirrors = ArrayOfTables::new();
    mirrors.push(mirror_table(mirror));
    entry.insert("mirror", Item::ArrayOfTables(mirrors));
    entry
}

fn mirror_table(mirror: &Mirror) -> Table {
    let mut table = Table::new();
    table.insert("location", toml_edit::value(&mirror.location));
    if mirror.insecure {
        table.insert("insecure", toml_edit::value(true));
    }
    table
}

/// Whether an entry is for this prefix, which is its location where it has none.
fn is_for(entry: &Table, prefix: &str) -> bool {
    let key = if entry.contains_key("prefix") { "prefix" } else { "location" };
    entry.get(key).and_then(Item::as_str) == Some(prefix)
}

fn entry_for<'a>(document: &'a DocumentMut, prefix: &str) -> Option<&'a Table> {
    let entries = document.get("registry").and_then(Item::as_array_of_tables)?;
    entries.iter().find(|entry| is_for(entry, prefix))
}

/// The key, if any, because of which some images are not asked of our mirror in this entry.
fn passed_by(entry: &Table, mirror: &Mirror) -> Option<&'static str> {
    if entry.get("mirror-by-digest-only").and_then(Item::as_bool) == Some(true) {
        return Some("mirror-by-digest-only");
    }
    let mirrors = entry.get("mirror").and_then(Item::as_array_of_tables)?;
    let ours = mirrors.iter().find(|table| is_at(table, &mirror.location))?;
    let what = ours.get("pull-from-mirror").and_then(Item::as_str)?;
    (what != "all").then_some("pull-from-mirror")
}

fn is_at(mirror: &Table, location: &str) -> bool {
    mirror.get("location").and_then(Item::as_str) == Some(location)
}

/// Puts each mirror before those that an entry has.
fn with_mirrors(text: &str, mirrors: &[Mirror]) -> Result<String, String> {
    let mut document = table::parse(text)?;
    let entries = document.get_mut("registry").and_then(Item::as_array_of_tables_mut);
    for entry in entries.into_iter().flat_map(ArrayOfTables::iter_mut) {
        let Some(mirror) = mirrors.iter().find(|mirror| is_for(entry, &mirror.prefix)) else {
            continue;
        };
        if entry.get("blocked").and_then(Item::as_bool) == Some(true) {
            return Err(format!(
                "blocks {}; remove `blocked` if it is to be mirrored",
                mirror.prefix
            ));
        }
        let new = || Item::ArrayOfTables(ArrayOfTables::new());
        let there = entry.entry("mirror").or_insert_with(new).as_array_of_tables_mut();
        let there = there.ok_or("`mirror` is not written as [[registry.mirror]]; write it so")?;
        let index = there.iter().position(|table| is_at(table, &mirror.location));
        match index.and_then(|index| there.get_mut(index)) {
            Some(ours) if mirror.insecure => table::set(ours, "insecure", true),
            // It was needed while the same address had no certificate.
            Some(ours) => table::unset(ours, "insecure"),
            None => put_first(there, mirror_table(mirror)),
        }
    }
    Ok(document.to_string())
}

/// A table's place in the text is kept beside its place in the list, so the two change hands.
fn put_first(tables: &mut ArrayOfTables, table: Table) {
    let position = tables.get(0).and_then(Table::position);
    let mut table = table;
    table.set_position(position);
    tables.insert(0, table);
}

#[cfg(test)]
mod tests {
    use super::super::testing::{edited, reach};
    use super::*;

    const TWO: &str =
        "upstreams: [{ name: docker.io }, { name: corp, url: \"http://r.corp:5000\" }]";

    #[test]
    fn every_mirror_s_location_ends_with_its_registry() {
        let plan = plan(&reach(TWO, "http://10.0.0.5:5000"), &Root::unseen()).unwrap();
        assert_eq!(
            edited(&plan, OURS, "anything of an earlier run"),
            format!(
                "{HEAD}\n[[registry]]\nprefix = \"docker.io\"\nlocation = \"docker.io\"\n\n\
                 [[registry.mirror]]\nlocation = \"10.0.0.5:5000/docker.io\"\ninsecure = true\n\n\
                 [[registry]]\nprefix = \"r.corp:5000\"\nlocation = \"r.corp:5000\"\n\n\
                 [[registry.mirror]]\nlocation = \"10.0.0.5:5000/corp\"\ninsecure = true\n"
            )
        );
    }

    fn with_main(text: &str, address: &str) -> (Plan, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("etc/containers")).unwrap();
        fs::write(folder.path().join("etc/containers/registries.conf"), text).unwrap();
        let root = Root::at(folder.path().to_owned());
        (plan(&reach(TWO, address), &root).unwrap(), folder)
    }

    #[test]
    fn an_entry_that_somebody_wrote_gets_our_mirror_first() {
        let before = "unqualified-search-registries = [\"docker.io\"]\n\n[[registry]]\nlocation = \
                      \"docker.io\" # mine\n[[registry.mirror]]\nlocation = \"old\"\n\n[[registry]]\n\
                      prefix = \"x.io\"\n[[registry.mirror]]\nlocation = \"y.io\"\n";
        let (plan, _folder) = with_main(before, "https://m.corp");
        let after = edited(&plan, MAIN, before);
        let read: toml_edit::DocumentMut = after.parse().unwrap();
        let first = &read["registry"][0];
        assert_eq!(first["mirror"][0]["location"].as_str(), Some("m.corp/docker.io"));
        assert_eq!(first["mirror"][1]["location"].as_str(), Some("old"));
        assert_eq!(read["registry"][1]["mirror"][0]["location"].as_str(), Some("y.io"));
        assert!(after.starts_with(before.split_once("[[registry.mirror]]").unwrap().0), "{after}");
        assert!(!edited(&plan, OURS, "").contains("docker.io"), "only the other is ours");
    }

    #[test]
    fn an_entry_without_a_mirror_gets_one() {
        let before = "[[registry]]\nprefix = \"docker.io\"\nlocation = \"docker.io\"\n";
        let (plan, _folder) = with_main(before, "http://m.corp");
        let after = edited(&plan, MAIN, before);
        let read: toml_edit::DocumentMut = after.parse().unwrap();
        assert_eq!(read["registry"][0]["mirror"][0]["location"].as_str(), Some("m.corp/docker.io"));
        assert_eq!(read["registry"][0]["mirror"][0]["insecure"].as_bool(), Some(true));
    }

    #[test]
    fn a_blocked_registry_and_a_broken_file_are_refused() {
        let before = "[[registry]]\nprefix = \"docker.io\"\nblocked = true\n";
        let (plan, _folder) = with_main(before, "http://m.corp");
        assert!(super::super::testing::refused(&plan, MAIN, before).contains("blocks docker.io"));
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("etc/containers")).unwrap();
        fs::write(folder.path().join("etc/containers/registries.conf"), "a = ").unwrap();
        let root = Root::at(folder.path().to_owned());
        let problem = super::plan(&reach(TWO, "http://m"), &root).err().unwrap().to_string();
        assert!(problem.contains("registries.conf: line 1: is not TOML"), "{problem}");
    }
    #[test]
    fn with_a_certificate_our_mirror_is_not_insecure() {
        let before = "[[registry]]\nprefix = \"docker.io\"\n[[registry.mirror]]\nlocation = \
                      \"m.corp:5000/docker.io\"\ninsecure = true\n[[registry.mirror]]\nlocation = \
                      \"old\"\ninsecure = true\n";
        let (plan, _folder) = with_main(before, "https://m.corp:5000");
        let after = edited(&plan, MAIN, before);
        assert_eq!(after.matches("insecure").count(), 1, "{after}");
        assert!(after.ends_with("location = \"old\"\ninsecure = true\n"), "{after}");
    }

    #[test]
    fn what_an_earlier_run_wrote_does_not_count_beside_somebody_s_entries() {
        let before =
            "[[registry]]\nprefix = \"docker.io\"\n[[registry]]\nprefix = \"r.corp:5000\"\n";
        let (_, folder) = with_main(before, "https://m.corp");
        let drop_ins = folder.path().join("etc/containers/registries.conf.d");
        fs::create_dir_all(&drop_ins).unwrap();
        fs::write(drop_ins.join("roadstead.conf"), "[[registry]]\nprefix = \"docker.io\"\n")
            .unwrap();
        let plan =
            plan(&reach(TWO, "https://m.corp"), &Root::at(folder.path().to_owned())).unwrap();
        assert!(!edited(&plan, OURS, "x").contains("[[registry]]"));
        let (plan, _folder) = with_main(before, "https://m.corp");
        assert!(plan.files.iter().all(|file| file.path != Path::new(OURS)));
    }

    #[test]
    fn every_host_that_is_told_is_trusted() {
        let config = "upstreams: [{ name: docker.io }, { name: \"r:5\", url: \"http://r:5\", hosts: [r.lan] }]";
        let mut reach = reach(config, "https://m.corp:5443");
        reach.ca = Some("PEM".to_owned());
        reach.login = true;
        let plan = plan(&reach, &Root::unseen()).unwrap();
        for host in ["m.corp:5443", "r.lan:5443"] {
            let path = format!("/etc/containers/certs.d/{host}/roadstead-ca.crt");
            assert_eq!(edited(&plan, &path, ""), "PEM");
            let login = format!("podman login {host}");
            assert!(plan.notes.iter().any(|note| note.contains(&login)), "{:?}", plan.notes);
        }
    }

    #[test]
    fn what_keeps_images_from_our_mirror_is_told() {
        for (key, before) in [
            (
                "mirror-by-digest-only",
                "[[registry]]\nprefix = \"docker.io\"\nmirror-by-digest-only = true\n",
            ),
            (
                "pull-from-mirror",
                "[[registry]]\nprefix = \"docker.io\"\n[[registry.mirror]]\nlocation = \
                 \"m.corp/docker.io\"\npull-from-mirror = \"digest-only\"\n",
            ),
        ] {
            let (plan, _folder) = with_main(before, "https://m.corp");
            let told = |note: &String| note.contains(key) && note.contains("docker.io");
            assert!(plan.notes.iter().any(told), "{:?}", plan.notes);
        }
    }

    #[test]
    fn an_inline_list_of_registries_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("etc/containers")).unwrap();
        let main = folder.path().join("etc/containers/registries.conf");
        fs::write(main, "registry = [{ prefix = \"docker.io\" }]\n").unwrap();
        let root = Root::at(folder.path().to_owned());
        let problem = super::plan(&reach(TWO, "http://m"), &root).err().unwrap().to_string();
        assert!(problem.contains("not written as [[registry]]"), "{problem}");
    }
}
