//! `roadstead client`: what it prints is what each client reads, and what it writes harms nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::{Value, json};
use tempfile::TempDir;
use toml_edit::DocumentMut;

use crate::roadstead::BINARY;

const CONFIG: &str = "\
listen: [{ address: 10.0.0.5:5000 }]
upstreams:
  - name: docker.io
  - name: registry.k8s.io
  - { name: corp, url: 'https://registry.corp:5443' }
";

const CLIENTS: [&str; 6] = ["docker", "containerd", "podman", "buildkit", "k3s", "kubeadm"];

/// A configuration, and a directory that stands for `/`.
struct Stage {
    folder: TempDir,
}

// === impl Stage ===

impl Stage {
    fn set(config: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("roadstead.yaml"), config).unwrap();
        fs::create_dir(folder.path().join("root")).unwrap();
        Self { folder }
    }

    fn run(&self, client: &str, more: &[&str]) -> Output {
        let config = self.folder.path().join("roadstead.yaml");
        let mut command = Command::new(BINARY);
        command.args(["client", client, "--config"]).arg(config).args(more);
        command.env_remove("RUST_LOG").output().unwrap()
    }

    fn told(&self, client: &str, more: &[&str]) -> String {
        let output = self.run(client, more);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn refused(&self, client: &str, more: &[&str], words: &[&str]) {
        let output = self.run(client, more);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        for word in words {
            assert!(said.contains(word), "no {word:?} in {said}");
        }
    }

    /// The files of `--json`, by path.
    fn files(&self, client: &str, more: &[&str]) -> Vec<(String, String)> {
        let more: Vec<_> = more.iter().copied().chain(["--json"]).collect();
        let document: Value = serde_json::from_str(&self.told(client, &more)).unwrap();
        let text = |file: &Value, key: &str| file[key].as_str().unwrap().to_owned();
        let files = document["files"].as_array().unwrap();
        files.iter().map(|file| (text(file, "path"), text(file, "content"))).collect()
    }

    fn apply(&self, client: &str, more: &[&str]) -> String {
        let root = self.root();
        let all = ["--apply", "--root", root.to_str().unwrap()];
        self.told(client, &all.iter().chain(more).copied().collect::<Vec<_>>())
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }

    fn put(&self, path: &str, text: &str) {
        let path = self.root().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.root().join(path)).unwrap()
    }

    /// Every file below the root with its text, by path.
    fn tree(&self) -> Vec<(PathBuf, String)> {
        fn walk(folder: &Path, found: &mut Vec<(PathBuf, String)>) {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                match path.is_dir() {
                    true => walk(&path, found),
                    false => found.push((path.clone(), fs::read_to_string(&path).unwrap())),
                }
            }
        }
        let mut found = Vec::new();
        walk(&self.root(), &mut found);
        found.sort();
        found
    }
}

/// A parser for each kind of file; the value is JSON's.
fn parse(path: &str, text: &str) -> Value {
    match Path::new(path).extension().and_then(|extension| extension.to_str()) {
        Some("json") => serde_json::from_str(text).unwrap(),
        Some("yaml") => serde_yaml::from_str(text).unwrap(),
        Some("toml" | "conf") => {
            text.parse::<DocumentMut>().unwrap();
            Value::String(text.to_owned())
        }
        other => panic!("{path}: {other:?}"),
    }
}

#[test]
fn what_is_printed_is_what_each_client_reads() {
    let stage = Stage::set(CONFIG);
    for (client, path, words) in [
        ("docker", "/etc/docker/daemon.json", ["http://10.0.0.5:5000", "insecure-registries"]),
        (
            "containerd",
            "/etc/containerd/certs.d/registry.corp:5443/hosts.toml",
            ["[host.\"http://10.0.0.5:5000\"]", "server = \"https://registry.corp:5443\""],
        ),
        (
            "podman",
            "/etc/containers/registries.conf.d/roadstead.conf",
            ["location = \"10.0.0.5:5000/corp\"", "prefix = \"registry.corp:5443\""],
        ),
        (
            "buildkit",
            "/etc/buildkit/buildkitd.toml",
            ["[registry.\"registry.corp:5443\"]", "[registry.\"10.0.0.5:5000\"]\nhttp = true"],
        ),
        (
            "k3s",
            "/etc/rancher/k3s/registries.yaml",
            ["registry.corp:5443:", "http://10.0.0.5:5000"],
        ),
        (
            "kubeadm",
            "/etc/containerd/certs.d/registry.k8s.io/hosts.toml",
            ["[host.\"http://10.0.0.5:5000\"]", "server = \"https://registry.k8s.io\""],
        ),
    ] {
        let files = stage.files(client, &[]);
        for (path, text) in &files {
            parse(path, text);
        }
        let (_, text) = files.iter().find(|(found, _)| found == path).unwrap();
        let printed = stage.told(client, &[]);
        assert!(printed.contains(&format!("# --- {path}\n{text}")), "{printed}");
        for word in words {
            assert!(text.contains(word), "no {word} in {text}");
        }
    }
    assert!(
        stage.told("kubeadm", &[]).contains("imageRepository: 10.0.0.5:5000/registry.k8s.io\n")
    );
    assert!(stage.told("docker", &[]).contains("docker pull 10.0.0.5:5000/corp/…"));
    assert!(stage.tree().is_empty(), "printing has written something");
}

#[test]
fn the_address_can_be_another_than_that_of_the_listener() {
    let stage = Stage::set(CONFIG);
    let files = stage.files("docker", &["--address", "https://mirror.corp"]);
    let value = parse(&files[0].0, &files[0].1);
    assert_eq!(value, json!({ "registry-mirrors": ["https://mirror.corp"] }));
    let podman = &stage.files("podman", &["--address", "https://mirror.corp"])[0].1;
    assert!(
        podman.contains("\"mirror.corp/docker.io\"") && !podman.contains("insecure"),
        "{podman}"
    );
    for bad in ["mirror.corp", "https://mirror.corp/v2/", "https://a:b@mirror.corp"] {
        let output = stage.run("docker", &["--address", bad]);
        assert_eq!(output.status.code(), Some(2));
        assert!(String::from_utf8(output.stderr).unwrap().contains("--address"));
    }
}

#[test]
fn a_second_run_changes_nothing_and_says_so() {
    for client in CLIENTS {
        let stage = Stage::set(CONFIG);
        let first = stage.apply(client, &[]);
        assert!(first.contains("created   /etc/"), "{first}");
        let written = stage.tree();
        assert!(!written.is_empty());
        let second = stage.apply(client, &[]);
        assert!(second.contains("nothing was changed") && !second.contains("created"), "{second}");
        assert_eq!(stage.tree(), written, "{client}");
        for (path, text) in written.iter() {
            parse(path.to_str().unwrap(), text);
        }
        let told: Value = serde_json::from_str(&stage.apply(client, &["--json"])).unwrap();
        assert_eq!(told["address"], "http://10.0.0.5:5000");
        let outcomes = told["files"].as_array().unwrap().iter().map(|file| &file["outcome"]);
        assert!(outcomes.into_iter().all(|outcome| outcome == "unchanged"), "{told}");
    }
}

#[test]
fn what_was_there_stays_and_is_kept_beside() {
    let stage = Stage::set(CONFIG);
    let (daemon, k3s) = ("etc/docker/daemon.json", "etc/rancher/k3s/registries.yaml");
    let before =
        "{\n  \"storage-driver\": \"overlay2\",\n  \"registry-mirrors\": [\"https://old\"]\n}\n";
    stage.put(daemon, before);
    let said = stage.apply("docker", &[]);
    assert!(said.contains("changed   /etc/docker/daemon.json (as it was: "), "{said}");
    assert!(said.contains("Then: systemctl reload docker"), "{said}");
    let after = parse(daemon, &stage.read(daemon));
    assert_eq!(after["storage-driver"], "overlay2");
    assert_eq!(after["registry-mirrors"], json!(["http://10.0.0.5:5000", "https://old"]));
    assert_eq!(stage.read("etc/docker/daemon.json.before-roadstead-1"), before);

    stage.put(k3s, "# mine\nmirrors:\n  docker.io:\n    endpoint:\n      - https://old\n");
    stage.apply("k3s", &[]);
    assert!(stage.read(k3s).starts_with("# mine\n"));
    let after = parse(k3s, &stage.read(k3s));
    let endpoints = json!(["http://10.0.0.5:5000", "https://old"]);
    assert_eq!(after["mirrors"]["docker.io"]["endpoint"], endpoints);
}

#[test]
fn a_broken_file_is_refused_and_none_is_written() {
    let stage = Stage::set(CONFIG);
    let root = stage.root();
    let apply = ["--apply", "--root", root.to_str().unwrap()];
    for (client, path, text) in [
        ("docker", "etc/docker/daemon.json", "{ \"a\": 1,"),
        ("containerd", "etc/containerd/config.toml", "version = = 2"),
        ("podman", "etc/containers/registries.conf.d/mine.conf", "[[registry"),
        ("buildkit", "etc/buildkit/buildkitd.toml", "[a"),
        ("k3s", "etc/rancher/k3s/registries.yaml", "a: [b"),
        ("kubeadm", "etc/containerd/certs.d/docker.io/hosts.toml", "server = x"),
    ] {
        fs::remove_dir_all(&root).unwrap();
        stage.put(path, text);
        let before = stage.tree();
        stage.refused(client, &apply, &[path, "mend or remove it"]);
        assert_eq!(stage.tree(), before, "{client}");
    }
    let alone = stage.run("docker", &["--root", "/x"]);
    assert!(String::from_utf8(alone.stderr).unwrap().contains("--apply"));
}

#[test]
fn a_private_authority_is_put_where_each_client_looks_for_it() {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(["mirror.corp".to_owned()]).unwrap();
    let leaf = leaf.signed_by(&key, &authority).unwrap();

    let stage = Stage::set("");
    let at = |name: &str| stage.folder.path().join(name).display().to_string();
    fs::write(at("tls.key"), key.serialize_pem()).unwrap();
    fs::write(at("tls.crt"), format!("{}{}", leaf.pem(), authority.pem())).unwrap();
    let config = format!(
        "listen: [{{ address: 0.0.0.0:5443, tls: {{ certificate: '{}', key: '{}' }} }}]",
        at("tls.crt"),
        at("tls.key")
    );
    fs::write(at("roadstead.yaml"), config).unwrap();
    for (client, path, named) in [
        ("docker", "etc/docker/certs.d/mirror.corp:5443/roadstead-ca.crt", None),
        (
            "containerd",
            "etc/containerd/certs.d/docker.io/roadstead-ca.crt",
            Some(("etc/containerd/certs.d/docker.io/hosts.toml", "ca = \"roadstead-ca.crt\"")),
        ),
        ("podman", "etc/containers/certs.d/mirror.corp:5443/roadstead-ca.crt", None),
        (
            "buildkit",
            "etc/buildkit/roadstead-ca.crt",
            Some(("etc/buildkit/buildkitd.toml", "ca = [\"/etc/buildkit/roadstead-ca.crt\"]")),
        ),
        (
            "k3s",
            "etc/rancher/k3s/roadstead-ca.crt",
            Some(("etc/rancher/k3s/registries.yaml", "ca_file: /etc/rancher/k3s/roadstead-ca.crt")),
        ),
    ] {
        stage.apply(client, &[]);
        let written = stage.read(path).replace('\r', "");
        assert_eq!(written.trim(), authority.pem().replace('\r', "").trim(), "{client}");
        if let Some((file, line)) = named {
            assert!(stage.read(file).contains(line), "{}", stage.read(file));
        }
    }
    assert!(stage.read("etc/docker/daemon.json").contains("https://mirror.corp:5443"));
    // Said as an address, the same name is found in the same certificate; another is not.
    let files = stage.files("docker", &["--address", "https://mirror.corp"]);
    assert!(files.iter().any(|(path, _)| path.starts_with("/etc/docker/certs.d/mirror.corp/")));
    let told = stage.told("docker", &["--address", "https://other.corp"]);
    assert!(told.contains("give it with --ca") && !told.contains("certs.d"), "{told}");
    // Without it in the chain, it must be given.
    fs::write(at("tls.crt"), leaf.pem()).unwrap();
    fs::write(at("ca.crt"), authority.pem()).unwrap();
    assert!(stage.told("docker", &[]).contains("give it with --ca"));
    let files = stage.files("docker", &["--ca", &at("ca.crt")]);
    assert!(
        files.iter().any(|(path, _)| path.ends_with("certs.d/mirror.corp:5443/roadstead-ca.crt"))
    );
    stage.refused("docker", &["--ca", &at("tls.key")], &["has no certificate in it"]);
    stage.refused("docker", &["--ca", &at("ca.crt"), "--address", "http://m"], &["leave --ca out"]);
}

#[test]
fn what_was_written_before_a_failure_is_told_and_comes_before_what_names_it() {
    let stage = Stage::set(CONFIG);
    let root = stage.root();
    // No name is left for its backup.
    let long = format!("etc/containers/registries.conf.d/{}.conf", "x".repeat(240));
    stage.put(&long, "[[registry]]\nprefix = \"docker.io\"\n");
    let output = stage.run("podman", &["--apply", "--root", root.to_str().unwrap()]);
    let out = String::from_utf8(output.stdout).unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{out}{err}");
    assert!(
        out.contains("created   /etc/containers/registries.conf.d/roadstead.conf"),
        "{out}{err}"
    );
    assert!(!out.contains("nothing was changed") && !out.contains("xxx"), "{out}");
    assert!(err.contains("can't be written"), "{err}");
    assert!(
        stage.read("etc/containers/registries.conf.d/roadstead.conf").contains("registry.k8s.io")
    );
}
