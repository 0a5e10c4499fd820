//! dockerd: `registry-mirrors`, which are for Docker Hub's images only.
//!
//! Its requests don't say which registry they are for, and a mirror's URL can't have a path, so
//! docker.io must be what Roadstead serves at the mirror's bare address.

use super::json::{At, Json};
use super::plan::{File, Plan, Problem};
use super::reach::Reach;
use super::root::Root;

const DAEMON: &str = "/etc/docker/daemon.json";

pub(super) fn plan(reach: &Reach, _: &Root) -> Result<Plan, Problem> {
    let mut plan = Plan::default();
    let mirror = mirror(reach, &mut plan.notes);
    let insecure = reach.is_plain().then(|| reach.base.authority());
    if mirror.is_some() || insecure.is_some() {
        plan.files.push(File::new(DAEMON, move |text| {
            let json = Json::parse(text)?;
            if let Some(mirror) = &mirror {
                json.list("registry-mirrors", mirror, At::Start)?;
            }
            if let Some(insecure) = &insecure {
                json.list("insecure-registries", insecure, At::End)?;
            }
            Ok(json.into_text())
        }));
        plan.then.push("systemctl reload docker".to_owned());
    }
    if let Some(ca) = &reach.ca {
        let path = format!("/etc/docker/certs.d/{}/ca.crt", reach.base.authority());
        plan.files.push(File::whole(path, ca.clone()));
    }
    plan.notes.extend(notes(reach));
    Ok(plan)
}

/// The URL at which everything is docker.io.
fn mirror(reach: &Reach, notes: &mut Vec<String>) -> Option<String> {
    let Some(hub) = reach.registries.iter().find(|it| it.registry == "docker.io") else {
        notes.push("docker.io is not among the upstreams: dockerd mirrors no other.".to_owned());
        return None;
    };
    if hub.is_default {
        return Some(reach.base.to_string());
    }
    let Some(host) = hub.hosts.first() else {
        notes.push(
            "docker.io is not the first of the upstreams, and dockerd's requests name no registry: \
             put it first, or give it `hosts`."
                .to_owned(),
        );
        return None;
    };
    notes.push(format!("{host} is a host of docker.io's: it must lead to Roadstead."));
    Some(format!("{}://{}", reach.base.scheme.as_str(), reach.with_host(host)))
}

fn notes(reach: &Reach) -> Vec<String> {
    let mut notes = vec![
        "dockerd goes to Docker Hub silently where a mirror fails; Roadstead's own counters tell \
         whether it is used."
            .to_owned(),
        "It refuses to start if one of these keys is also one of its flags (--registry-mirror, \
         --insecure-registry)."
            .to_owned(),
    ];
    let others = reach.registries.iter().filter(|it| it.registry != "docker.io");
    let others: Vec<_> = others
        .filter_map(|it| {
            let name = reach.by_name(it)?;
            Some(format!("docker pull {name}/… for {}/…", it.registry))
        })
        .collect();
    if !others.is_empty() {
        notes.push(format!("Of other registries it has no mirrors: {}.", others.join(", ")));
    }
    if reach.login {
        notes.push(
            "access.htpasswd is set, and dockerd sends a mirror no login: it will be refused and \
             go to Docker Hub."
                .to_owned(),
        );
    }
    notes
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::testing::{edited, reach, refused};
    use super::*;

    fn daemon(config: &str, address: &str, before: &str) -> String {
        edited(&plan(&reach(config, address), &Root::unseen()).unwrap(), DAEMON, before)
    }

    #[test]
    fn the_hub_is_mirrored_at_the_bare_address() {
        let text = daemon("", "http://10.0.0.5:5000", "");
        assert_eq!(
            text,
            "{\n  \"registry-mirrors\": [\"http://10.0.0.5:5000\"],\n  \
             \"insecure-registries\": [\"10.0.0.5:5000\"]\n}\n"
        );
        let tls: Value = serde_json::from_str(&daemon("", "https://mirror.corp", "")).unwrap();
        assert_eq!(tls, json!({ "registry-mirrors": ["https://mirror.corp"] }));
    }

    #[test]
    fn what_else_is_there_stays_as_it_is_written() {
        let before =
            "{\n\t\"log-level\":  \"warn\",\n\t\"registry-mirrors\": [\"https://old/\"]\n}\n";
        let text = daemon("", "http://10.0.0.5:5000", before);
        assert!(
            text.starts_with("{\n\t\"log-level\":  \"warn\",\n\t\"registry-mirrors\""),
            "{text}"
        );
        let value: Value = serde_json::from_str(&text).unwrap();
        let expected = json!({
            "log-level": "warn",
            "registry-mirrors": ["http://10.0.0.5:5000", "https://old/"],
            "insecure-registries": ["10.0.0.5:5000"],
        });
        assert_eq!(value, expected);
        assert_eq!(daemon("", "http://10.0.0.5:5000", &text), text);
        assert_eq!(daemon("", "https://old", before), before);
    }

    #[test]
    fn a_broken_file_is_refused() {
        let plan = plan(&reach("", "http://m:5000"), &Root::unseen()).unwrap();
        for (text, why) in [
            ("{", "is not JSON"),
            ("{ \"a\": 1, }", "is not JSON"),
            ("[]", "is not a JSON object"),
            ("{ \"registry-mirrors\": \"x\" }", "`registry-mirrors` is not a list"),
        ] {
            let said = refused(&plan, DAEMON, text);
            assert!(said.contains(why) && said.contains("; "), "{said}");
        }
    }

    #[test]
    fn a_hub_that_is_not_first_needs_a_host() {
        let hosts = "upstreams: [{ name: ghcr.io }, { name: docker.io, hosts: [hub.lan] }]";
        let value: Value = serde_json::from_str(&daemon(hosts, "https://m.lan:5443", "")).unwrap();
        assert_eq!(value, json!({ "registry-mirrors": ["https://hub.lan:5443"] }));
        let none = reach("upstreams: [{ name: ghcr.io }, { name: docker.io }]", "https://m.lan");
        let plan = plan(&none, &Root::unseen()).unwrap();
        assert!(plan.files.is_empty());
        assert!(plan.notes.iter().any(|note| note.contains("put it first")), "{:?}", plan.notes);
        assert!(plan.notes.iter().any(|note| note.contains("docker pull m.lan/ghcr.io/…")));
    }
}
