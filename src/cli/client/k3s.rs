//! k3s: `registries.yaml`, from which it writes the settings of its containerd at each start.
//!
//! That containerd adds `?ns=REGISTRY`, so no `rewrite` is needed.

use std::str::FromStr;

use serde_yaml::{Mapping, Value};
use yaml_edit::{Document, MappingBuilder};

use super::plan::{File, Plan, Problem};
use super::reach::Reach;
use super::root::Root;

const REGISTRIES: &str = "/etc/rancher/k3s/registries.yaml";
const AUTHORITY: &str = "/etc/rancher/k3s/roadstead-ca.crt";

/// What the file must say.
#[derive(Debug, Clone)]
struct Wanted {
    registries: Vec<String>,
    endpoint: String,
    /// The key of the endpoint under `configs`, where that is needed to trust it.
    config: Option<String>,
}

pub(super) fn plan(reach: &Reach, _: &Root) -> Result<Plan, Problem> {
    let wanted = Wanted {
        registries: reach.registries.iter().map(|it| it.registry.clone()).collect(),
        endpoint: reach.base.to_string(),
        config: reach.ca.as_ref().map(|_| reach.base.authority()),
    };
    let mut plan = Plan::default();
    plan.files.push(File::new(REGISTRIES, move |text| with(text, &wanted)).private());
    plan.files.extend(reach.ca.clone().map(|ca| File::whole(AUTHORITY, ca)));
    plan.then.push("systemctl restart k3s, or k3s-agent: it is read at each start".to_owned());
    plan.notes.extend([
        "It goes to every node. RKE2 takes the same file as /etc/rancher/rke2/registries.yaml."
            .to_owned(),
        "Where Roadstead does not answer, nodes go to the registry itself, unless they were started \
         with --disable-default-registry-endpoint."
            .to_owned(),
    ]);
    if reach.login {
        plan.notes.push(format!(
            "access.htpasswd is set: configs needs \"{}\": {{ auth: {{ username: …, password: … }} }}.",
            reach.base.authority()
        ));
    }
    Ok(plan)
}

/// Changes the text, and makes sure that it says what was there and what is wanted, and nothing
/// else: YAML can be written in too many ways to trust an edit that was not read again.
fn with(text: &str, wanted: &Wanted) -> Result<String, String> {
    let before = read(text)?;
    let mut after = before.clone();
    wanted.put_into(&mut after)?;
    if before == after {
        return Ok(text.to_owned());
    }
    let edited = if before.is_empty() { Some(fresh(text, wanted)) } else { edit(text, wanted) };
    edited.filter(|text| read(text).is_ok_and(|read| read == after)).ok_or_else(|| {
        "is written in a way that can't be changed safely; add by hand what `roadstead client k3s` \
         prints"
            .to_owned()
    })
}

/// A mapping; nothing stands for an empty one.
fn read(text: &str) -> Result<Mapping, String> {
    let value: Value = serde_yaml::from_str(text)
        .map_err(|error| format!("is not YAML: {error}; mend or remove it"))?;
    match value {
        Value::Null => Ok(Mapping::new()),
        Value::Mapping(mapping) => Ok(mapping),
        _ => Err("is not a YAML mapping; mend or remove it".to_owned()),
    }
}

/// A file without content; comments in it stay.
fn fresh(comments: &str, wanted: &Wanted) -> String {
    let mut mapping = Mapping::new();
    wanted.put_into(&mut mapping).expect("an empty mapping takes everything");
    let text = serde_yaml::to_string(&mapping).expect("text always makes YAML");
    let end = if comments.is_empty() || comments.ends_with('\n') { "" } else { "\n" };
    format!("{comments}{end}{text}")
}

/// The same change to the text.
fn edit(text: &str, wanted: &Wanted) -> Option<String> {
    let document = Document::from_str(text).ok()?;
    let root = document.as_mapping()?;
    for registry in &wanted.registries {
        let registry = registry.as_str();
        let list = || vec![wanted.endpoint.as_str()];
        let endpoints = |it: MappingBuilder| {
            it.sequence("endpoint", |it| list().into_iter().fold(it, |it, url| it.item(url)))
        };
        match root.get_mapping("mirrors") {
            None => root.set("mirrors", built(|it| it.mapping(registry, endpoints))?),
            Some(mirrors) => match mirrors.get_mapping(registry) {
                None => mirrors.set(registry, built(endpoints)?),
                Some(mirror) => match mirror.get_sequence("endpoint") {
                    None => {
                        let whole = built(endpoints)?;
                        mirror.set("endpoint", whole.get_sequence("endpoint")?);
                    }
                    Some(urls) => {
                        let is_there = urls.values().any(|url| {
                            url.to_string().trim_matches(['"', '\'']) == wanted.endpoint
                        });
                        if !is_there {
                            urls.insert(0, wanted.endpoint.as_str());
                        }
                    }
                },
            },
        }
    }
    if let Some(host) = &wanted.config {
        let host = host.as_str();
        let file = |it: MappingBuilder| it.pair("ca_file", AUTHORITY);
        let tls = |it: MappingBuilder| it.mapping("tls", file);
        match root.get_mapping("configs") {
            None => root.set("configs", built(|it| it.mapping(host, tls))?),
            Some(configs) => match configs.get_mapping(host) {
                None => configs.set(host, built(tls)?),
                Some(config) => match config.get_mapping("tls") {
                    None => config.set("tls", built(file)?),
                    Some(tls) => tls.set("ca_file", AUTHORITY),
                },
            },
        }
    }
    Some(document.to_string())
}

fn built(fill: impl FnOnce(MappingBuilder) -> MappingBuilder) -> Option<yaml_edit::Mapping> {
    fill(MappingBuilder::new()).build_document().as_mapping()
}

// === impl Wanted ===

impl Wanted {
    fn put_into(&self, root: &mut Mapping) -> Result<(), String> {
        let mirrors = child(root, "mirrors")?;
        for registry in &self.registries {
            let mirror = child(mirrors, registry)?;
            let has_rewrite =
                mirror.get("rewrite").and_then(Value::as_mapping).is_some_and(|it| !it.is_empty());
            let endpoints =
                mirror.entry("endpoint".into()).or_insert_with(|| Value::Sequence(Vec::new()));
            let Value::Sequence(endpoints) = endpoints else {
                return Err(format!("mirrors.{registry}.endpoint is not a list; make it one"));
            };
            let is_ours = |url: &Value| url.as_str() == Some(self.endpoint.as_str());
            if !endpoints.iter().any(is_ours) {
                if has_rewrite {
                    return Err(format!(
                        "mirrors.{registry} has `rewrite`, which k3s would apply to our endpoint too and \
                         ask it for other images; take it out, or write our endpoint there yourself"
                    ));
                }
                endpoints.insert(0, self.endpoint.clone().into());
            }
        }
        if let Some(host) = &self.config {
            let tls = child(child(child(root, "configs")?, host)?, "tls")?;
            tls.insert("ca_file".into(), AUTHORITY.into());
        }
        Ok(())
    }
}

fn child<'a>(parent: &'a mut Mapping, key: &str) -> Result<&'a mut Mapping, String> {
    let value = parent.entry(key.into()).or_insert_with(|| Value::Mapping(Mapping::new()));
    if value.is_null() {
        *value = Value::Mapping(Mapping::new());
    }
    value.as_mapping_mut().ok_or_else(|| format!("`{key}` is not a mapping; make it one"))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{edited, reach, refused};
    use super::*;

    const TWO: &str = "upstreams: [{ name: docker.io }, { name: ghcr.io }]";

    fn two() -> Plan {
        plan(&reach(TWO, "http://10.0.0.5:5000"), &Root::unseen()).unwrap()
    }

    #[test]
    fn every_registry_has_the_endpoint() {
        let expected = "mirrors:\n  docker.io:\n    endpoint:\n    - http://10.0.0.5:5000\n  \
                        ghcr.io:\n    endpoint:\n    - http://10.0.0.5:5000\n";
        assert_eq!(edited(&two(), REGISTRIES, ""), expected);
        let commented = edited(&two(), REGISTRIES, "# ours");
        assert_eq!(commented, format!("# ours\n{expected}"));
    }

    #[test]
    fn what_else_is_there_stays_as_it_is_written() {
        let before = "# who: me\nmirrors:\n  docker.io: # the hub\n    endpoint:\n      - \
                      \"https://old\" # slow\n  x.io:\n    rewrite:\n      \"^a/(.*)\": \"b/$1\"\nconfigs:\n  \
                      \"old\":\n    auth: { username: a, password: b }\n";
        let after = edited(&two(), REGISTRIES, before);
        for kept in [
            "# who: me\n",
            "docker.io: # the hub",
            "\"https://old\" # slow",
            "\"^a/(.*)\": \"b/$1\"",
            "auth: { username: a, password: b }",
        ] {
            assert!(after.contains(kept), "no {kept} in\n{after}");
        }
        let value: Value = serde_yaml::from_str(&after).unwrap();
        assert_eq!(value["mirrors"]["docker.io"]["endpoint"][0], "http://10.0.0.5:5000");
        assert_eq!(value["mirrors"]["docker.io"]["endpoint"][1], "https://old");
        assert_eq!(value["mirrors"]["ghcr.io"]["endpoint"][0], "http://10.0.0.5:5000");
    }

    #[test]
    fn the_authority_stands_at_the_endpoint_s_host() {
        let mut reach = reach("", "https://m.corp:5443");
        reach.ca = Some("PEM".to_owned());
        let plan = plan(&reach, &Root::unseen()).unwrap();
        for before in [
            "",
            "configs:\n  other:\n    tls:\n      ca_file: /x\n",
            "mirrors:\n  docker.io:\n    endpoint: []\nconfigs:\n  \"m.corp:5443\":\n    auth:\n      username: a\n",
            "mirrors: {}\n",
            "mirrors:\n  docker.io: {endpoint: [\"https://x\"]}\n",
            "mirrors:\n",
        ] {
            let after = edited(&plan, REGISTRIES, before);
            let value: Value = serde_yaml::from_str(&after).unwrap();
            assert_eq!(value["configs"]["m.corp:5443"]["tls"]["ca_file"], AUTHORITY, "{after}");
            assert_eq!(
                value["mirrors"]["docker.io"]["endpoint"][0], "https://m.corp:5443",
                "{after}"
            );
        }
    }

    #[test]
    fn a_broken_file_is_refused() {
        for (text, why) in [
            ("a: [", "is not YAML"),
            ("- a\n", "is not a YAML mapping"),
            ("mirrors: [a]\n", "`mirrors` is not a mapping"),
            ("mirrors: { docker.io: { endpoint: x } }\n", "endpoint is not a list"),
            (
                "mirrors: { docker.io: { endpoint: [a], rewrite: { \"^(.*)\": \"b/$1\" } } }\n",
                "mirrors.docker.io has `rewrite`",
            ),
        ] {
            let said = refused(&two(), REGISTRIES, text);
            assert!(said.contains(why), "{said}");
        }
    }
}
