//! Docker's `config.json`: the login for a registry in it, or the helper that has it.

use std::collections::HashMap;

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Deserialize;

use crate::config::Secret;

/// Where a login is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    Login {
        username: String,
        password: Secret,
    },
    /// This program has it, under this name.
    Helper {
        program: String,
        server: String,
    },
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct File {
    auths: HashMap<String, Entry>,
    creds_store: String,
    cred_helpers: HashMap<String, String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    auth: String,
    username: String,
    password: String,
    identitytoken: String,
}

/// The login for the first of `servers` that has one. The error never quotes the file.
pub(super) fn find(json: &[u8], servers: &[String]) -> Result<Found, String> {
    let file: File = serde_json::from_slice(json)
        .map_err(|error| format!("is not docker's JSON (line {})", error.line()))?;
    // As docker does: a helper of the registry's own, the store of all, then the file itself.
    for server in servers {
        let own = file.cred_helpers.iter().find(|(key, _)| host(key) == host(server));
        if let Some((key, name)) = own {
            return helper(name, key);
        }
    }
    let entry = servers
        .iter()
        .find_map(|server| file.auths.iter().find(|(key, _)| host(key) == host(server)));
    match entry {
        Some((_, entry)) if !entry.is_empty() => entry.login(),
        // With a store, an empty entry says that the store has the login.
        Some((key, _)) if !file.creds_store.is_empty() => helper(&file.creds_store, key),
        None if !file.creds_store.is_empty() => match servers.first() {
            Some(server) => helper(&file.creds_store, server),
            None => Err("names no registry".to_owned()),
        },
        _ => {
            let names = servers.join(", ");
            Err(format!(
                "has no login for {names}; log in with `docker login`, or name another file"
            ))
        }
    }
}

fn helper(name: &str, server: &str) -> Result<Found, String> {
    if name.is_empty() || name.contains(['/', '\0']) {
        return Err("names a credential helper that can be none".to_owned());
    }
    let program = format!("docker-credential-{name}");
    Ok(Found::Helper { program, server: server.to_owned() })
}

/// The host and port of docker's many spellings: `https://index.docker.io/v1/`, `ghcr.io`.
fn host(server: &str) -> String {
    let bare = server.split_once("://").map_or(server, |(_, rest)| rest);
    bare.split('/').next().unwrap_or_default().to_ascii_lowercase()
}

// === impl Entry ===

impl Entry {
    fn is_empty(&self) -> bool {
        self.auth.is_empty() && self.password.is_empty() && self.identitytoken.is_empty()
    }

    fn login(&self) -> Result<Found, String> {
        if !self.identitytoken.is_empty() {
            return Err(
                "has an identity token, which is not supported; log in with an access token"
                    .to_owned(),
            );
        }
        let (username, password) = if self.auth.is_empty() {
            (self.username.clone(), self.password.clone())
        } else {
            let decoded = STANDARD.decode(self.auth.trim()).ok();
            let text = decoded.and_then(|bytes| String::from_utf8(bytes).ok());
            let pair = text.as_deref().and_then(|text| text.split_once(':'));
            let (username, password) =
                pair.ok_or("has an `auth` that is not base64 of NAME:PASSWORD")?;
            (username.to_owned(), password.trim_end_matches('\0').to_owned())
        };
        if username.is_empty() || password.is_empty() {
            return Err("has an empty name or password".to_owned());
        }
        Ok(Found::Login { username, password: Secret::new(password) })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hub(json: &str) -> Result<Found, String> {
        let servers = ["https://index.docker.io/v1/", "registry-1.docker.io", "docker.io"];
        find(json.as_bytes(), &servers.map(str::to_owned))
    }

    fn login(username: &str, password: &str) -> Result<Found, String> {
        Ok(Found::Login { username: username.to_owned(), password: Secret::new(password) })
    }

    fn is_helper(program: &str, server: &str) -> Result<Found, String> {
        Ok(Found::Helper { program: program.to_owned(), server: server.to_owned() })
    }

    #[test]
    fn a_login_is_found_under_any_of_docker_s_spellings() {
        let auth = STANDARD.encode("alice:a:b");
        for key in
            ["https://index.docker.io/v1/", "index.docker.io", "docker.io", "HTTPS://docker.io"]
        {
            let json =
                format!(r#"{{"auths": {{"ghcr.io": {{}}, "{key}": {{"auth": "{auth}"}}}}}}"#);
            assert_eq!(hub(&json), login("alice", "a:b"), "{key}");
        }
        let json = r#"{"auths": {"docker.io": {"username": "a", "password": "b"}}}"#;
        assert_eq!(hub(json), login("a", "b"));
    }

    #[test]
    fn a_helper_has_what_the_file_does_not() {
        let json = r#"{"auths": {"https://index.docker.io/v1/": {}}, "credsStore": "pass"}"#;
        assert_eq!(hub(json), is_helper("docker-credential-pass", "https://index.docker.io/v1/"));
        let json = r#"{"credHelpers": {"docker.io": "ecr-login"}, "credsStore": "pass"}"#;
        assert_eq!(hub(json), is_helper("docker-credential-ecr-login", "docker.io"));
        assert!(hub(r#"{"credsStore": "../../bin/sh"}"#).is_err());
    }

    #[test]
    fn what_can_not_be_used_is_told_without_being_quoted() {
        for (json, line) in [
            ("", "is not docker's JSON"),
            (r#"{"auths": {"docker.io": {"auth": "geheim"#, "is not docker's JSON (line 1)"),
            (r#"{"auths": {}}"#, "has no login for https://index.docker.io/v1/"),
            (r#"{"auths": {"docker.io": {"auth": "Z2VoZWlt"}}}"#, "is not base64 of NAME:PASSWORD"),
            (r#"{"auths": {"docker.io": {"identitytoken": "geheim"}}}"#, "identity token"),
        ] {
            let problem = hub(json).unwrap_err();
            assert!(problem.contains(line) && !problem.contains("geheim"), "{problem}");
        }
    }

    proptest! {
        #[test]
        fn no_file_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = find(&bytes, &["docker.io".to_owned()]);
        }
    }
}
