//! What one configuration has otherwise than another, key by key.
//!
//! Upstreams are told apart by their names and listeners by their addresses, so that one more in
//! front of the others changes nothing about these. A secret that has changed shows as its key alone.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::Serialize;
use serde_yaml::Value;
use utoipa::ToSchema;

use super::{Config, Problem, Upstream};

/// A key that has another value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Change {
    /// Such as `upstreams[docker.io].tags.fresh_for`.
    pub key: String,
    /// Its value before, if there was one; secrets as `***`.
    pub before: Option<String>,
    /// Its value now, if there is one.
    pub now: Option<String>,
}

/// A change that waits for a new process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Pending {
    /// `before` stays in force.
    #[serde(flatten)]
    pub change: Change,
    /// What to do.
    pub remedy: &'static str,
}

/// What a reload came to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Reloaded {
    /// What holds from now on.
    pub changed: Vec<Change>,
    /// What holds from the next start on.
    pub pending: Vec<Pending>,
}

/// Reads the configuration again.
#[derive(Clone)]
pub struct Reload(Arc<dyn Fn() -> Result<Reloaded, Vec<Problem>> + Send + Sync>);

type Flat = BTreeMap<String, String>;

// === impl Reload ===

impl Reload {
    /// By these means.
    pub fn new(
        reload: impl Fn() -> Result<Reloaded, Vec<Problem>> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(reload))
    }

    /// Has what is written now hold; or says all that is wrong with it, and changes nothing. Blocks.
    pub fn run(&self) -> Result<Reloaded, Vec<Problem>> {
        (self.0)()
    }
}

impl fmt::Debug for Reload {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Reload")
    }
}

// === impl Config ===

impl Config {
    /// What `now` has otherwise, by key, sorted.
    pub fn changes(&self, now: &Self) -> Vec<Change> {
        let (before, after) = (self.flat(), now.flat());
        let mut changes: Vec<Change> = Vec::new();
        for (key, value) in &before {
            let new = after.get(key);
            if new != Some(value) {
                let (key, before) = (key.clone(), Some(value.clone()));
                changes.push(Change { key, before, now: new.cloned() });
            }
        }
        let added = after.iter().filter(|(key, _)| !before.contains_key(*key));
        changes.extend(added.map(|(key, value)| Change {
            key: key.clone(),
            before: None,
            now: Some(value.clone()),
        }));
        let mut changes = as_wholes(changes, &before, &after);
        for upstream in &now.upstreams {
            let same = self.upstreams.iter().find(|other| other.name == upstream.name);
            changes.extend(same.and_then(|same| secret(same, upstream, &changes)));
        }
        changes.extend(order(&self.upstreams, &now.upstreams));
        changes.sort_by(|one, other| one.key.cmp(&other.key));
        changes
    }

    /// Every key with its value on one line.
    fn flat(&self) -> Flat {
        let mut flat = Flat::new();
        flatten(&mut flat, String::new(), &self.tree());
        flat
    }
}

fn flatten(flat: &mut Flat, key: String, value: &Value) {
    match value {
        Value::Null => {}
        Value::Mapping(mapping) => {
            for (name, value) in mapping {
                let name = name.as_str().unwrap_or_default();
                let key = if key.is_empty() { name.to_owned() } else { format!("{key}.{name}") };
                flatten(flat, key, value);
            }
        }
        Value::Sequence(items) if items.iter().any(Value::is_mapping) => {
            for (index, item) in items.iter().enumerate() {
                let named = ["name", "address"].iter().find_map(|field| item.get(field)?.as_str());
                let name = named.map_or_else(|| index.to_string(), str::to_owned);
                flatten(flat, format!("{key}[{name}]"), item);
            }
        }
        Value::Sequence(items) => {
            let items: Vec<_> = items.iter().map(one_line).collect();
            flat.insert(key, format!("[{}]", items.join(", ")));
        }
        scalar => {
            flat.insert(key, one_line(scalar));
        }
    }
}

fn one_line(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => serde_yaml::to_string(other).unwrap_or_default().trim_end().to_owned(),
    }
}

/// Another order of the upstreams that both have: the first is the default one.
fn order(before: &[Upstream], now: &[Upstream]) -> Option<Change> {
    let names = |list: &[Upstream]| -> Vec<String> {
        list.iter().map(|upstream| upstream.name.clone()).collect()
    };
    let (before, now) = (names(before), names(now));
    let of_both = before.iter().filter(|name| now.contains(name));
    if of_both.eq(now.iter().filter(|name| before.contains(name))) {
        return None;
    }
    let printed = |names: Vec<String>| Some(format!("[{}]", names.join(", ")));
    Some(Change { key: "upstreams".to_owned(), before: printed(before), now: printed(now) })
}

/// An entry of a list that is new or gone as a whole is one change, and that the list was or is now
/// empty is none beside it.
fn as_wholes(changes: Vec<Change>, before: &Flat, after: &Flat) -> Vec<Change> {
    let entry_of = |key: &str| key.find(']').and_then(|end| key.get(..=end)).map(str::to_owned);
    let is_in = |flat: &Flat, entry: &str| {
        flat.range(entry.to_owned()..).next().is_some_and(|(key, _)| key.starts_with(entry))
    };
    let mut wholes: BTreeMap<String, Change> = BTreeMap::new();
    let mut rest = Vec::new();
    for change in changes {
        let entries = format!("{}[", change.key);
        if is_in(before, &entries) || is_in(after, &entries) {
            continue;
        }
        match entry_of(&change.key) {
            Some(key) if is_in(before, &key) != is_in(after, &key) => {
                let was_there = is_in(before, &key);
                let (before, now) = ("present".to_owned(), "present".to_owned());
                let before = was_there.then_some(before);
                let now = (!was_there).then_some(now);
                wholes.insert(key.clone(), Change { key, before, now });
            }
            _ => rest.push(change),
        }
    }
    rest.extend(wholes.into_values());
    rest
}

/// Of two upstreams that print alike and are not: where the secret is that differs.
fn secret(before: &Upstream, now: &Upstream, told: &[Change]) -> Option<Change> {
    let own = format!("upstreams[{}].", now.name);
    let key = if before.credentials != now.credentials {
        format!("{own}credentials")
    } else if before.proxy != now.proxy {
        format!("{own}proxy")
    } else if before.mirrors != now.mirrors {
        format!("{own}mirrors")
    } else {
        return None;
    };
    if told.iter().any(|change| change.key.starts_with(&key)) {
        return None;
    }
    let masked = || Some("***".to_owned());
    Some(Change { key, before: masked(), now: masked() })
}

#[cfg(test)]
mod tests {
    use super::super::testing::parsed;

    fn keys(before: &str, now: &str) -> Vec<String> {
        parsed(before).changes(&parsed(now)).into_iter().map(|change| change.key).collect()
    }

    #[test]
    fn a_configuration_is_like_itself() {
        let text = "upstreams: [{ name: docker.io }, { name: ghcr.io }]\nfill: { retries: 7 }";
        assert_eq!(keys(text, text), [""; 0]);
    }

    #[test]
    fn a_change_names_its_key_and_both_values() {
        let before = parsed("upstreams: [{ name: docker.io, deny: [a] }]\nstore: { disk: 1GiB }");
        let now = parsed("upstreams: [{ name: docker.io, deny: [a, b] }]\nstore: { disk: 2GiB }");
        let changes: Vec<_> = before
            .changes(&now)
            .into_iter()
            .map(|it| format!("{}: {} -> {}", it.key, it.before.unwrap(), it.now.unwrap()))
            .collect();
        assert_eq!(
            changes,
            ["store.disk: 1GiB -> 2GiB", "upstreams[docker.io].deny: [a] -> [a, b]"]
        );
    }

    #[test]
    fn an_upstream_that_comes_or_goes_is_one_change() {
        let (one, two) = (
            "upstreams: [{ name: docker.io }]",
            "upstreams: [{ name: ghcr.io }, { name: docker.io }]",
        );
        assert_eq!(keys(one, two), ["upstreams[ghcr.io]"]);
        assert_eq!(keys(two, one), ["upstreams[ghcr.io]"]);
    }

    #[test]
    fn another_order_of_upstreams_is_a_change() {
        let before = parsed("upstreams: [{ name: docker.io }, { name: ghcr.io }]");
        let now = parsed("upstreams: [{ name: quay.io }, { name: ghcr.io }, { name: docker.io }]");
        let changes = before.changes(&now);
        let keys: Vec<_> = changes.iter().map(|change| change.key.as_str()).collect();
        assert_eq!(keys, ["upstreams", "upstreams[quay.io]"]);
        assert_eq!(changes[0].before.as_deref(), Some("[docker.io, ghcr.io]"));
        assert_eq!(changes[0].now.as_deref(), Some("[quay.io, ghcr.io, docker.io]"));
    }

    #[test]
    fn the_first_entry_of_a_list_is_one_change() {
        let warm = "warm: [{ every: 1h, images: [alpine] }]";
        assert_eq!(keys("", warm), ["warm[0]"]);
        assert_eq!(keys(warm, ""), ["warm[0]"]);
    }

    #[test]
    fn another_password_shows_as_its_key_alone() {
        let text = |password| {
            format!(
                "upstreams: [{{ name: docker.io, credentials: {{ accounts: [{{ username: me, password: {password} }}] }} }}]"
            )
        };
        let changes = parsed(&text("hunter2")).changes(&parsed(&text("hunter3")));
        assert_eq!(changes.len(), 1);
        assert_eq!(changes[0].key, "upstreams[docker.io].credentials");
        assert!(!format!("{changes:?}").contains("hunter"));
    }
}
