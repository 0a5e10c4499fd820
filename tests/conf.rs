//! The configurations that we ship are ones that we accept.

use std::collections::BTreeSet;
use std::path::Path;

use roadstead::config::Config;
use serde_json::Value;

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

/// The keys of every object that a schema describes.
fn keys<'a>(schema: &'a Value, found: &mut BTreeSet<&'a str>) {
    match schema {
        Value::Object(object) => {
            let own = object.get("properties").and_then(Value::as_object);
            found.extend(own.into_iter().flatten().map(|(key, _)| key.as_str()));
            object.values().for_each(|value| keys(value, found));
        }
        Value::Array(array) => array.iter().for_each(|value| keys(value, found)),
        _ => {}
    }
}

#[test]
fn the_commented_configuration_has_every_key() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf");
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    let schema = serde_json::from_str(&read("roadstead.schema.json")).unwrap();
    let text = read("roadstead.yaml");
    let mut all = BTreeSet::new();
    keys(&schema, &mut all);
    assert!(all.len() > 90, "the keys were not found: {all:?}");
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    for key in all {
        // A key is not the end of a longer one.
        let key = format!("{key}:");
        let mut places = text.match_indices(&key);
        assert!(places.any(|(at, _)| !text[..at].ends_with(is_word)), "{key} is missing");
    }
}

/// What an editor says of the configurations that we ship, by the schema that we ship.
#[test]
fn the_schema_is_current_and_every_configuration_that_we_ship_fits_it() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf");
    let committed = std::fs::read_to_string(folder.join("roadstead.schema.json")).unwrap();
    let current = format!("{:#}\n", roadstead::config::schema());
    let remedy = "cargo run -- check --schema > conf/roadstead.schema.json";
    assert!(committed == current, "it is outdated; {remedy}");
    let schema: serde_json::Value = serde_json::from_str(&committed).unwrap();
    let schema = jsonschema::validator_for(&schema).unwrap();
    for name in ["roadstead.yaml", "docker-hub.yaml"] {
        let text = std::fs::read_to_string(folder.join(name)).unwrap();
        assert!(text.contains("# yaml-language-server: $schema="), "{name} names no schema");
        let value: serde_json::Value = serde_yaml::from_str(&text).unwrap();
        let wrong: Vec<_> = schema.iter_errors(&value).map(|error| error.to_string()).collect();
        assert!(wrong.is_empty(), "{name}: {wrong:#?}");
    }
    for wrong in [
        serde_json::json!({ "lisen": [] }),
        serde_json::json!({ "store": { "disk": "100Gi" } }),
        serde_json::json!({ "upstreams": [{ "writes": "maybe" }] }),
        serde_json::json!({ "shutdown": { "drain": 30 } }),
    ] {
        assert!(!schema.is_valid(&wrong), "{wrong}");
    }
}
