//! kubeadm: its images come like all others through the containerd of the nodes.
//!
//! `imageRepository` renames them instead, which ties the cluster to Roadstead's address and loses
//! the way round it, so it is only shown.

use std::fmt::Write as _;

use super::containerd;
use super::plan::{Plan, Problem, Snippet};
use super::reach::Reach;
use super::root::Root;

pub(super) fn plan(reach: &Reach, root: &Root) -> Result<Plan, Problem> {
    let mut plan = containerd::plan(reach, root)?;
    plan.notes.insert(0, "All of it goes to every node, before kubeadm init or join.".to_owned());
    let Some(kubernetes) = reach.registries.iter().find(|it| it.registry == "registry.k8s.io")
    else {
        plan.notes.insert(
            1,
            "registry.k8s.io, where kubeadm's own images are, is not among the upstreams: add \
             `- name: registry.k8s.io` there."
                .to_owned(),
        );
        return Ok(plan);
    };
    if let Some(location) = reach.by_name(kubernetes) {
        plan.snippets.push(snippet(reach, &location));
    }
    plan.then.push("kubeadm config images pull".to_owned());
    Ok(plan)
}

fn snippet(reach: &Reach, location: &str) -> Snippet {
    let mut text = String::from(
        "# Before Kubernetes 1.31: kubeadm.k8s.io/v1beta3\napiVersion: kubeadm.k8s.io/v1beta4\n\
         kind: ClusterConfiguration\n",
    );
    // With a repository of one's own kubeadm leaves out the `coredns/` that the registry has.
    let _ =
        write!(text, "imageRepository: {location}\ndns:\n  imageRepository: {location}/coredns\n");
    let name = reach.as_registry();
    let title = format!(
        "for kubeadm init --config, only where the nodes' runtime knows no mirrors: images are then \
         named {name}/…, pulled from nowhere else, and the runtime must be told how to reach {name}"
    );
    Snippet { title, text }
}

#[cfg(test)]
mod tests {
    use super::super::testing::reach;
    use super::*;

    #[test]
    fn the_images_of_kubeadm_need_their_registry() {
        let plan = |config| plan(&reach(config, "http://m.corp:5000"), &Root::unseen()).unwrap();
        let without = plan("");
        assert!(without.notes[1].contains("- name: registry.k8s.io"), "{:?}", without.notes);
        assert!(without.snippets.is_empty());
        let with = plan("upstreams: [{ name: docker.io }, { name: registry.k8s.io }]");
        let text = &with.snippets[0].text;
        let value: serde_json::Value = serde_yaml::from_str(text).unwrap();
        assert_eq!(value["apiVersion"], "kubeadm.k8s.io/v1beta4");
        assert_eq!(value["imageRepository"], "m.corp:5000/registry.k8s.io");
        assert_eq!(value["dns"]["imageRepository"], "m.corp:5000/registry.k8s.io/coredns");
        assert!(with.files.iter().any(|file| file.path.ends_with("registry.k8s.io/hosts.toml")));
    }
}
