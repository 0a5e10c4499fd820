//! Whom an upstream is asked as, and where: what the repositories of a cache were found to have is
//! known on these terms.

use serde::{Deserialize, Serialize};

use super::{Account, BaseUrl, Credentials, Mode, Upstream};
use crate::protocol::Repository;

/// The places that an upstream stands for, and the logins that are shown there. It holds no secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// URLs and prefixes, of mirrors too.
    places: Vec<String>,
    /// Clients show their own logins.
    is_clients: bool,
    /// Ours, and where they are shown.
    logins: Vec<String>,
}

// === impl Standing ===

impl Standing {
    /// Whether all clients may still see what was found on the terms of `before`: without a login;
    /// with logins that are still everybody's; or where each client is asked for there.
    pub fn covers(&self, before: &Self) -> bool {
        let has = |all: &[String], some: &[String]| some.iter().all(|one| all.contains(one));
        let is_open = !before.is_clients && before.logins.is_empty();
        let is_ours = !before.is_clients && has(&self.logins, &before.logins);
        is_open || is_ours || (self.is_clients && has(&self.places, &before.places))
    }
}

// === impl Upstream ===

impl Upstream {
    /// Whom it is asked as, and where.
    pub fn standing(&self) -> Standing {
        let own = (&self.url, self.prefix.as_ref(), &self.credentials);
        let mirrors = self.mirrors.iter();
        let mirrors = mirrors.map(|it| &it.registry);
        let mirrors = mirrors.map(|it| (&it.url, it.prefix.as_ref(), &it.credentials));
        let (mut places, mut logins) = (Vec::new(), Vec::new());
        for (url, prefix, credentials) in std::iter::once(own).chain(mirrors) {
            let place = place(url, prefix);
            logins.extend(shown_at(&place, credentials));
            places.push(place);
        }
        Standing { places, is_clients: self.credentials.mode == Mode::Client, logins }
    }
}

fn place(url: &BaseUrl, prefix: Option<&Repository>) -> String {
    match prefix {
        Some(prefix) => format!("{url} {prefix}"),
        None => url.to_string(),
    }
}

fn shown_at<'a>(place: &'a str, credentials: &'a Credentials) -> impl Iterator<Item = String> + 'a {
    let login = |account: &Account| match account {
        Account::Password { username, .. } => format!("as {username}"),
        Account::File { username, path } => format!("as {username} of {}", path.display()),
        Account::DockerConfig { path, servers } => {
            format!("of {} for {}", path.display(), servers.join(" "))
        }
        Account::Helper { program, server, .. } => format!("of {program} for {server}"),
    };
    credentials.accounts.iter().map(move |account| format!("{place} {}", login(account)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn standing(keys: &str) -> Standing {
        let text = format!("upstreams: [{{ name: docker.io, {keys} }}]");
        Config::parse(&text, "test").unwrap().upstreams[0].standing()
    }

    fn accounts(names: &[&str]) -> String {
        let account = |name: &&str| format!("{{ username: {name}, password: hunter2 }}");
        let accounts: Vec<_> = names.iter().map(account).collect();
        format!("credentials: {{ accounts: [{}] }}", accounts.join(", "))
    }

    #[test]
    fn another_login_shows_more_and_one_less_shows_less() {
        let (none, one, both) =
            (standing(""), standing(&accounts(&["one"])), standing(&accounts(&["one", "two"])));
        assert!(one.covers(&none) && both.covers(&one) && both.covers(&both));
        assert!(!none.covers(&one) && !one.covers(&both));
        let two = standing(&accounts(&["two"]));
        assert!(!two.covers(&one), "another's");
    }

    #[test]
    fn what_clients_saw_with_logins_of_their_own_is_not_everybody_s() {
        let (ours, theirs) = (standing(""), standing("credentials: { mode: client }"));
        assert!(theirs.covers(&ours), "each is asked for");
        assert!(!ours.covers(&theirs));
    }

    #[test]
    fn a_login_shows_nothing_of_another_place() {
        for keys in [accounts(&["one"]), "credentials: { mode: client }".to_owned()] {
            let here = standing(&keys);
            for place in ["url: 'https://mirror.corp'", "prefix: hub"] {
                let there = standing(&format!("{keys}, {place}"));
                assert!(!there.covers(&here) && !here.covers(&there), "{keys}, {place}");
            }
        }
    }

    #[test]
    fn what_needed_no_login_is_everybody_s() {
        let here = standing("");
        for keys in ["url: 'https://registry.invalid'", "prefix: hub", &accounts(&["one"])] {
            assert!(standing(keys).covers(&here), "{keys}");
        }
        let mirror =
            "url: 'https://mirror.corp', credentials: { accounts: [{ username: a, password: p }] }";
        let mirrored = standing(&format!("mirrors: [{{ {mirror} }}]"));
        assert!(mirrored.covers(&here) && !here.covers(&mirrored));
    }

    #[test]
    fn it_holds_no_secret() {
        let text = serde_json::to_string(&standing(&accounts(&["one"]))).unwrap();
        assert!(text.contains("one") && !text.contains("hunter2"), "{text}");
    }
}
