//! BuildKit: `buildkitd.toml`. Like containerd, it adds `?ns=REGISTRY` to what it asks a mirror.

use toml_edit::Item;

use super::plan::{File, Plan, Problem};
use super::reach::Reach;
use super::root::Root;
use super::table;

const CONFIG: &str = "/etc/buildkit/buildkitd.toml";
const AUTHORITY: &str = "/etc/buildkit/roadstead-ca.crt";

pub(super) fn plan(reach: &Reach, _: &Root) -> Result<Plan, Problem> {
    let mirror = reach.base.authority();
    let registries: Vec<_> = reach.registries.iter().map(|it| it.registry.clone()).collect();
    let (is_plain, has_authority) = (reach.is_plain(), reach.ca.is_some());
    let mut plan = Plan::default();
    plan.files.push(File::new(CONFIG, move |text| {
        let mut document = table::parse(text)?;
        let all = table::child(document.as_table_mut(), "registry")?;
        for registry in &registries {
            table::list(table::child(all, registry)?, "mirrors", &mirror)?;
        }
        match is_plain {
            true => table::set(table::child(all, &mirror)?, "http", true),
            // It was needed while the same address had no certificate.
            false => all.get_mut(&mirror).and_then(Item::as_table_mut).into_iter().for_each(|it| {
                table::unset(it, "http");
            }),
        }
        if has_authority {
            table::list(table::child(all, &mirror)?, "ca", AUTHORITY)?;
        }
        Ok(table::print(document))
    }));
    plan.files.extend(reach.ca.clone().map(|ca| File::whole(AUTHORITY, ca)));
    plan.then.push(
        "systemctl restart buildkit; a builder of buildx is made anew: docker buildx create --use \
         --buildkitd-config /etc/buildkit/buildkitd.toml"
            .to_owned(),
    );
    plan.notes.push(
        "Without root it reads ~/.config/buildkit/buildkitd.toml. The BuildKit in dockerd (docker \
         build without a builder of its own) reads none of this, but daemon.json: roadstead client \
         docker."
            .to_owned(),
    );
    if reach.login {
        let name = reach.as_registry();
        plan.notes
            .push(format!("access.htpasswd is set: docker login {name}, where buildctl runs."));
    }
    Ok(plan)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{edited, reach, refused};
    use super::*;

    const TWO: &str = "upstreams: [{ name: docker.io }, { name: ghcr.io }]";

    #[test]
    fn every_registry_has_the_mirror_and_the_mirror_its_scheme() {
        let plan = plan(&reach(TWO, "http://10.0.0.5:5000"), &Root::unseen()).unwrap();
        let expected = "[registry.\"docker.io\"]\nmirrors = [\"10.0.0.5:5000\"]\n\n\
                        [registry.\"ghcr.io\"]\nmirrors = [\"10.0.0.5:5000\"]\n\n\
                        [registry.\"10.0.0.5:5000\"]\nhttp = true\n";
        assert_eq!(edited(&plan, CONFIG, ""), expected);
        let before = "debug = true # loud\n\n[registry.\"docker.io\"]\n  mirrors = [\"old\"]\n";
        let after = edited(&plan, CONFIG, before);
        assert!(after.starts_with("debug = true # loud\n\n[registry.\"docker.io\"]\n"), "{after}");
        assert!(after.contains("mirrors = [\"10.0.0.5:5000\", \"old\"]"), "{after}");
        assert!(
            refused(&plan, CONFIG, "[registry]\n\"docker.io\" = 1\n").contains("not a [table]")
        );
    }
    #[test]
    fn with_a_certificate_nothing_is_plain() {
        let plain = plan(&reach(TWO, "http://10.0.0.5:5000"), &Root::unseen()).unwrap();
        let tls = plan(&reach(TWO, "https://10.0.0.5:5000"), &Root::unseen()).unwrap();
        let after = edited(&tls, CONFIG, &edited(&plain, CONFIG, ""));
        assert!(!after.contains("http = true"), "{after}");
    }

    #[test]
    fn what_is_new_comes_after_all_that_was_there() {
        let plan = plan(&reach(TWO, "http://10.0.0.5:5000"), &Root::unseen()).unwrap();
        for before in [
            "debug = true\n# the end\n",
            "# nothing but this\n",
            "# no newline",
            "[registry.\"docker.io\"]\nmirrors = [\"10.0.0.5:5000\"]\n\n[worker.oci]\nenabled = true\n\n# the end\n",
        ] {
            let after = edited(&plan, CONFIG, before);
            assert!(after.starts_with(before), "{after}");
        }
    }
}
