//! The configurations that we ship are ones that we accept.

use std::path::Path;

use roadstead::config::Config;

fn shipped(name: &str) -> Config {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf").join(name);
    Config::load(&path).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn the_commented_configuration_shows_the_defaults() {
    assert_eq!(shipped("roadstead.yaml"), Config::parse("", "test").unwrap());
}

#[test]
fn the_docker_hub_configuration_is_for_docker_hub() {
    let config = shipped("docker-hub.yaml");
    assert!(config.upstreams.iter().all(|upstream| upstream.is_docker_hub()));
}
