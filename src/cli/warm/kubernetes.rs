//! The images of Kubernetes manifests, of whatever kind: what stands under `containers` and its kin.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use serde_yaml::Value;

use super::Found;

/// Where containers are listed.
const LISTS: [&str; 3] = ["containers", "initContainers", "ephemeralContainers"];

/// What manifests' files end in.
const ENDINGS: [&str; 3] = ["yaml", "yml", "json"];

/// Files of a folder, and folders in folders.
const MOST_FILES: usize = 10_000;
const MOST_DEEP: usize = 16;

/// The images that all documents of `text` name; the error is what is wrong, and what to do.
pub(super) fn images(text: &str) -> Result<Found, String> {
    let mut found = Found::default();
    for document in serde_yaml::Deserializer::from_str(text) {
        let mut document = Value::deserialize(document).map_err(|error| {
            format!("it is no YAML ({error}); render it first if it is a template")
        })?;
        document.apply_merge().map_err(|error| format!("{error}; correct the `<<` in it"))?;
        walk(&document, &mut found)?;
    }
    Ok(found)
}

fn walk(value: &Value, found: &mut Found) -> Result<(), String> {
    match value {
        Value::Mapping(mapping) => {
            for (key, value) in mapping {
                match key.as_str() {
                    Some(key) if LISTS.contains(&key) => of_each(value, &["image"], found)?,
                    Some("volumes") => of_each(value, &["image", "reference"], found)?,
                    _ => {}
                }
                walk(value, found)?;
            }
        }
        Value::Sequence(values) => values.iter().try_for_each(|value| walk(value, found))?,
        Value::Tagged(tagged) => walk(&tagged.value, found)?,
        _ => {}
    }
    Ok(())
}

/// What stands at `path` in each entry of a list, or of a mapping.
fn of_each(entries: &Value, path: &[&str], found: &mut Found) -> Result<(), String> {
    let in_list = entries.as_sequence().into_iter().flatten();
    let in_mapping = entries.as_mapping().into_iter().flat_map(|mapping| mapping.values());
    for entry in in_list.chain(in_mapping) {
        let image = path.iter().try_fold(entry, |value, key| value.get(*key));
        let Some(image) = image.and_then(Value::as_str).map(str::trim) else { continue };
        if image.contains(['$', '{']) {
            return Err(format!("{image:?} is a template, not an image; render it first"));
        }
        // An image that something else puts in.
        if !image.is_empty() {
            found.images.push(image.to_owned());
        }
    }
    Ok(())
}

/// The manifests' files at `path`, which may be a folder, in order; hidden ones are left out.
pub(super) fn files(path: &Path) -> io::Result<Vec<PathBuf>> {
    if !fs::metadata(path)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut found = Vec::new();
    collect(path, 0, &mut found)?;
    found.sort();
    if found.is_empty() {
        return Err(io::Error::other(format!("no file in it ends in {}", ENDINGS.join(", "))));
    }
    Ok(found)
}

fn collect(folder: &Path, depth: usize, found: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let (path, kind) = (entry.path(), entry.file_type()?);
        let is_hidden = entry.file_name().to_string_lossy().starts_with('.');
        let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
        if is_hidden {
            continue;
        }
        // A link to a folder may lead back here; one to a file is how config maps are mounted.
        if kind.is_dir() && depth < MOST_DEEP {
            collect(&path, depth + 1, found)?;
        } else if ENDINGS.contains(&ending) && path.is_file() {
            found.push(path);
        }
        if found.len() > MOST_FILES {
            return Err(io::Error::other(format!("it has more than {MOST_FILES} files")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_of_all_kinds_and_places_count() {
        let text = r#"
apiVersion: batch/v1
kind: CronJob
spec: { jobTemplate: { spec: { template: { spec: {
  initContainers: [{ name: i, image: busybox:1 }],
  containers: [{ name: a, image: "alpine:3.20" }, { name: b }],
  volumes: [{ name: v, image: { reference: quay.io/a/files:1 } }, { name: w, emptyDir: {} }] } } } } }
---
# nothing
---
kind: List
items:
  - kind: Pod
    spec: { containers: [{ image: nginx }], ephemeralContainers: [{ image: debug }] }
  - kind: ThingOfMine
    spec: { sidecar: { containers: { main: { image: ghcr.io/a/b:1 } } }, image: not-a-container }
---
{"kind": "Pod", "spec": {"containers": [{"image": "json:1"}, {"image": ""}]}}
"#;
        let found = images(text).unwrap();
        let expected = [
            "busybox:1",
            "alpine:3.20",
            "quay.io/a/files:1",
            "nginx",
            "debug",
            "ghcr.io/a/b:1",
            "json:1",
        ];
        assert_eq!(found.images, expected);
    }

    #[test]
    fn templates_and_what_is_no_yaml_are_told_of() {
        for text in [
            "spec: { containers: [{ image: \"{{ .Values.image }}\" }] }",
            "spec: { containers: [{ image: \"a:$TAG\" }] }",
            "spec:\n{{ toYaml . }}\n",
            "a: [",
        ] {
            let error = images(text).unwrap_err();
            assert!(error.contains("render it first"), "{text}: {error}");
        }
    }

    #[test]
    fn a_folder_is_searched_through_and_through() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str| {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        };
        let _ = ["b.yaml", "a/c.yml", "a/d.json", "README.md", ".git/e.yaml"].map(write);
        std::os::unix::fs::symlink(folder.path(), folder.path().join("a/loop")).unwrap();
        let found = files(folder.path()).unwrap();
        let names = found.iter().map(|path| path.strip_prefix(folder.path()).unwrap());
        let names: Vec<_> = names.map(|name| name.to_str().unwrap()).collect();
        assert_eq!(names, ["a/c.yml", "a/d.json", "b.yaml"]);
        assert_eq!(files(&folder.path().join("b.yaml")).unwrap().len(), 1);
        assert!(files(&folder.path().join("nowhere")).is_err());
        assert!(files(&folder.path().join(".git")).is_ok());
        let empty = tempfile::tempdir().unwrap();
        assert!(files(empty.path()).unwrap_err().to_string().contains("ends in yaml"));
    }
}
