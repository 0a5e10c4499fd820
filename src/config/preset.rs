//! Registries that a name alone configures.
//!
//! A preset gives the URL, and the token realms that the same-site rule would not allow or
//! that are worth pinning. It applies where the URL is its own, written or left out.

use super::base_url::BaseUrl;

/// What a well-known registry's name stands for.
pub(super) struct Preset {
    pub(super) name: &'static str,
    pub(super) url: &'static str,
    pub(super) token_realms: &'static [&'static str],
}

const PRESETS: [Preset; 8] = [
    // Hub's API and its tokens live beside its name: https://docs.docker.com/reference/api/registry/auth/
    preset("docker.io", "https://registry-1.docker.io", &["https://auth.docker.io/token"]),
    preset("ghcr.io", "https://ghcr.io", &[]),
    preset("quay.io", "https://quay.io", &[]),
    preset("registry.k8s.io", "https://registry.k8s.io", &[]),
    preset("gcr.io", "https://gcr.io", &[]),
    preset("mcr.microsoft.com", "https://mcr.microsoft.com", &[]),
    preset("public.ecr.aws", "https://public.ecr.aws", &[]),
    // LinuxServer's name is a front of GitHub's registry, and challenges with GitHub's realm.
    preset("lscr.io", "https://lscr.io", &["https://ghcr.io/token"]),
];

const fn preset(
    name: &'static str,
    url: &'static str,
    token_realms: &'static [&'static str],
) -> Preset {
    Preset { name, url, token_realms }
}

// === impl Preset ===

impl Preset {
    pub(super) fn named(name: &str) -> Option<&'static Self> {
        PRESETS.iter().find(|preset| preset.name == name)
    }

    /// The preset whose registry stands at `url`.
    pub(super) fn at(url: &BaseUrl) -> Option<&'static Self> {
        PRESETS.iter().find(|preset| preset.url == url.to_string())
    }

    /// All names, as an error lists them.
    pub(super) fn names() -> String {
        let names: Vec<&str> = PRESETS.iter().map(|preset| preset.name).collect();
        names.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_preset_finds_itself_by_name_and_by_url() {
        for preset in &PRESETS {
            let url: BaseUrl = preset.url.parse().expect("a preset's URL is valid");
            assert_eq!(Preset::at(&url).map(|found| found.name), Some(preset.name));
            assert_eq!(Preset::named(preset.name).map(|found| found.url), Some(preset.url));
        }
    }
}
