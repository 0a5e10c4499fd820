//! The configuration as a whole: file and flags together, printing, every problem at once.
//!
//! Each key's own tests stand beside its type.

use std::path::Path;

use super::testing::{parsed, refused, scratch_file};
use super::{Config, Overrides};

fn summary(config: &Config) -> (Vec<String>, String, Vec<&str>, &Path) {
    (
        config.listen.iter().map(|listener| listener.address.to_string()).collect(),
        config.admin.address.to_string(),
        config.upstreams.iter().map(|upstream| upstream.name.as_str()).collect(),
        &config.store.directory,
    )
}

fn all_flags() -> Overrides {
    Overrides {
        listen: Some("127.0.0.1:7000".into()),
        admin: Some("127.0.0.1:7001".into()),
        upstreams: vec!["corp=https://registry.corp".into()],
        data: Some("/tmp/flag-data".into()),
    }
}

#[test]
fn without_file_and_flags_it_is_docker_hub() {
    let config = Config::from_sources(None, &Overrides::default()).expect("the defaults are valid");
    let expected = (
        vec!["0.0.0.0:5000".to_owned()],
        "127.0.0.1:5001".to_owned(),
        vec!["docker.io"],
        Path::new("./roadstead-data"),
    );
    assert_eq!(summary(&config), expected);
    assert_eq!(config, parsed(""));
}

#[test]
fn flags_win_over_the_file_and_even_over_its_faults() {
    let text = "listen: [{ address: nonsense }]\nadmin: { address: 0.0.0.0:1 }\n\
                upstreams: [{ name: quay.io }]\nstore: { directory: /tmp/file-data, disk: 7GiB }";
    let (_kept, file) = scratch_file(text);
    let config =
        Config::from_sources(Some(Path::new(&file)), &all_flags()).expect("the flags are valid");
    let expected = (
        vec!["127.0.0.1:7000".to_owned()],
        "127.0.0.1:7001".to_owned(),
        vec!["corp"],
        Path::new("/tmp/flag-data"),
    );
    assert_eq!(summary(&config), expected);
    assert_eq!(config.store.disk, 7 << 30);
}

#[test]
fn a_bad_flag_is_named() {
    let flags = Overrides {
        listen: Some("x".into()),
        admin: Some("10.0.0.1:1".into()),
        ..Overrides::default()
    };
    let lines = Config::default_with(&flags).expect_err("bad flags").to_string();
    assert!(
        lines.contains("command line: --listen: `x` is not an IP address with a port"),
        "{lines}"
    );
    assert!(lines.contains("command line: --admin: 10.0.0.1 is not a loopback address"), "{lines}");
}

#[test]
fn clients_and_operator_can_not_share_an_address() {
    assert_eq!(
        refused("listen: [{ address: 0.0.0.0:5001 }]"),
        "test.yaml: listen: 0.0.0.0:5001 is also the admin address (127.0.0.1:5001); \
         choose another port for one of them"
    );
}

#[test]
fn all_problems_are_told_at_once() {
    let lines = refused(
        "store: { disk: 0, memory: x }\nshutdown: { drain: 5 }\nupstreams: [{ name: corp }]",
    );
    let keys: Vec<&str> = lines.lines().filter_map(|line| line.split(": ").nth(1)).collect();
    assert_eq!(keys, ["store.disk", "store.memory", "upstreams[0].url", "shutdown.drain"]);
}

#[test]
fn what_is_printed_parses_to_the_same() {
    let (_kept, pem) = scratch_file("pem");
    let text = format!(
        "listen: [{{ address: \"unix:/run/r.sock\" }}, {{ address: \"[::]:443\", tls: {{ certificate: {pem}, key: {pem} }} }}]\n\
         trusted_proxies: [10.0.0.0/8]\n\
         access: {{ htpasswd: {pem} }}\n\
         upstreams:\n\
         - {{ name: docker.io, hosts: [hub.corp], tags: {{ fresh_for: 90s, immutable: [\"v[0-9]*\"], cooldown: 3d }}, ca_file: {pem} }}\n\
         - {{ name: corp, url: \"http://10.0.0.1:5000\", deny: [\"a/**\"], breaker: {{ failures: 7 }}, max_requests_per_second: 9, max_bandwidth: 3MiB }}\n\
         store: {{ disk: 1536MiB }}\n"
    );
    let config = parsed(&text);
    assert_eq!(parsed(&config.to_yaml()), config);
    assert_eq!(config.to_string(), config.to_yaml());
    assert!(config.to_yaml().contains("failures: 7\n"), "numbers are printed as numbers");
}

#[test]
fn no_printed_form_shows_a_secret() {
    let config = parsed(
        "upstreams: [{ name: docker.io, credentials: { accounts: [{ username: me, password: hunter2 }] } }]",
    );
    for printed in [config.to_yaml(), format!("{config:?}"), format!("{config:#?}")] {
        assert!(printed.contains("***") && !printed.contains("hunter2"), "{printed}");
    }
}
