//! Whose credentials an upstream sees, and where the operator's own come from.
//!
//! A password is read once, here, from the file itself, from another file or from the
//! environment. It leaves a `Secret` only through `expose`, and is never printed.

use std::path::Path;

use super::files::unopenable;
use super::nearest::choose;
use super::problem::{Refusal, Scope, quoted};
use super::raw::{RawAccount, RawCredentials};
use super::secret::Secret;

/// How requests to an upstream are authorised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// Whose credentials are used. Default: shared.
    pub mode: Mode,
    /// The operator's accounts, at most one for now; none means anonymous pulls. Empty in
    /// client mode.
    pub accounts: Vec<Account>,
}

/// Whose credentials an upstream sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Ours, for every allowed client; a client's own are dropped.
    Shared,
    /// The client's, which upstream re-authorises.
    Client,
}

/// A login at a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Never empty, without `:` (RFC 7617 §2).
    pub username: String,
    /// A password or an access token; never empty.
    pub password: Secret,
}

const MODES: [(&str, Mode); 2] = [("shared", Mode::Shared), ("client", Mode::Client)];

// === impl Credentials ===

impl Default for Credentials {
    fn default() -> Self {
        Self { mode: Mode::Shared, accounts: Vec::new() }
    }
}

impl Credentials {
    /// Whether any credential may travel to the upstream.
    pub fn is_anonymous(&self) -> bool {
        self.mode == Mode::Shared && self.accounts.is_empty()
    }

    pub(super) fn read(scope: &Scope<'_>, raw: RawCredentials) -> Self {
        let mode = raw.mode.and_then(|word| scope.at("mode").check(choose(&word, &MODES)));
        let mode = mode.unwrap_or(Mode::Shared);
        let scope = scope.at("accounts");
        let raw = raw.accounts.unwrap_or_default();
        if raw.len() > 1 {
            scope.refuse("several accounts are not available yet", "keep one");
        }
        if mode == Mode::Client && !raw.is_empty() {
            scope.refuse(
                "clients bring their own credentials in this mode, this account would never be used",
                "remove it, or set mode: shared",
            );
        }
        let accounts = raw.into_iter().enumerate();
        let accounts =
            accounts.filter_map(|(index, raw)| Account::read(&scope.item(index), raw)).collect();
        Self { mode, accounts }
    }

    pub(super) fn to_raw(&self) -> RawCredentials {
        let mode = MODES.iter().find(|(_, mode)| *mode == self.mode);
        let accounts = self.accounts.iter().map(|account| RawAccount {
            username: Some(account.username.clone()),
            password: Some(account.password.to_string()),
            password_file: None,
            password_env: None,
        });
        RawCredentials {
            mode: mode.map(|(name, _)| (*name).to_owned()),
            accounts: Some(accounts.collect()),
        }
    }
}

// === impl Account ===

impl Account {
    fn read(scope: &Scope<'_>, raw: RawAccount) -> Option<Self> {
        let username = scope.at("username").check(check_username(raw.username));
        let sources = (raw.password, raw.password_file, raw.password_env);
        let (key, password) = match sources {
            (Some(text), None, None) => ("password", Ok(text)),
            (None, Some(path), None) => ("password_file", read_password(&path)),
            (None, None, Some(name)) => ("password_env", password_from(&name)),
            (None, None, None) => {
                scope.refuse("has no password", "add password_file, password_env or password");
                return None;
            }
            _ => {
                scope.refuse(
                    "has several passwords",
                    "keep one of password, password_file and password_env",
                );
                return None;
            }
        };
        let password = scope.at(key).check(password.and_then(not_empty))?;
        Some(Self { username: username?, password: Secret::new(password) })
    }
}

fn check_username(raw: Option<String>) -> Result<String, Refusal> {
    match raw {
        Some(name) if name.contains(|c: char| c == ':' || c.is_control()) => {
            // Not quoted: `user:password` in one field is how this happens.
            Err(Refusal::new("has a `:` or a control character", "write the name alone"))
        }
        Some(name) if !name.is_empty() => Ok(name),
        _ => Err(Refusal::new("is missing", "write the account's name")),
    }
}

/// The file's text without its final line break.
fn read_password(path: &str) -> Result<String, Refusal> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        // Not quoted unless it looks like a path: the password itself may stand in its place.
        let is_path = path.starts_with(['/', '.']);
        unopenable(is_path.then_some(Path::new(path)), &error)
    })?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

fn password_from(variable: &str) -> Result<String, Refusal> {
    // Looking up a name that no environment can hold panics (std::env::var).
    if variable.is_empty() || variable.contains(['=', '\0']) {
        return Err(Refusal::new(
            "is not the name of an environment variable",
            "write the name alone",
        ));
    }
    std::env::var(variable).map_err(|error| {
        let what = match error {
            std::env::VarError::NotPresent => "is not set",
            std::env::VarError::NotUnicode(_) => "is not UTF-8",
        };
        // Not quoted unless it looks like a name: the password itself may stand in its place.
        let is_name = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
        let shown = match variable.chars().all(is_name) {
            true => quoted(variable),
            false => "named here".to_owned(),
        };
        Refusal::new(
            format!("the environment variable {shown} {what}"),
            "set it for Roadstead, or use password_file",
        )
    })
}

fn not_empty(password: String) -> Result<String, Refusal> {
    if password.is_empty() {
        return Err(Refusal::new("the password is empty", "write it, or remove the account"));
    }
    Ok(password)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{only_upstream, refused, scratch_file};
    use super::*;

    fn yaml(credentials: &str) -> String {
        format!("upstreams: [{{ name: docker.io, credentials: {credentials} }}]")
    }

    fn password(account: &str) -> String {
        let upstream = only_upstream(&yaml(&format!("{{ accounts: [{account}] }}")));
        let [account] = upstream.credentials.accounts.as_slice() else {
            panic!("one account was written");
        };
        account.password.expose().to_owned()
    }

    #[test]
    fn a_password_comes_from_the_text_a_file_or_the_environment() {
        assert_eq!(password("{ username: a, password: hunter2 }"), "hunter2");
        assert_eq!(password("{ username: a, password: 0123 }"), "0123");
        let (_kept, file) = scratch_file("from a file\n");
        assert_eq!(password(&format!("{{ username: a, password_file: {file} }}")), "from a file");
        let expected = std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it for tests");
        assert_eq!(password("{ username: a, password_env: CARGO_MANIFEST_DIR }"), expected);
    }

    #[test]
    fn a_password_that_can_not_be_had_is_refused() {
        for (account, line) in [
            (
                "password_file: /nowhere/pw",
                "accounts[0].password_file: `/nowhere/pw` can't be opened",
            ),
            (
                "password_env: ROADSTEAD_UNSET",
                "accounts[0].password_env: the environment variable `ROADSTEAD_UNSET` is not set",
            ),
            ("password_env: \"\"", "accounts[0].password_env: is not the name"),
            ("password: \"\"", "accounts[0].password: the password is empty"),
            ("password: a, password_env: HOME", "accounts[0]: has several passwords"),
            ("password: null", "accounts[0]: has no password"),
        ] {
            let found = refused(&yaml(&format!("{{ accounts: [{{ username: a, {account} }}] }}")));
            assert!(found.contains(line), "{found}");
        }
    }

    #[test]
    fn a_username_is_required_and_holds_no_colon() {
        assert!(refused(&yaml("{ accounts: [{ password: x }] }")).contains("username: is missing"));
        let line = refused(&yaml("{ accounts: [{ username: \"me:hunter2\", password: x }] }"));
        assert!(line.contains("write the name alone") && !line.contains("hunter2"), "{line}");
    }

    #[test]
    fn several_accounts_are_not_available_yet() {
        let two = "{ accounts: [{ username: a, password: b }, { username: c, password: d }] }";
        assert_eq!(
            refused(&yaml(two)),
            "test.yaml: upstreams[0].credentials.accounts: several accounts are not available yet; keep one"
        );
    }

    #[test]
    fn client_mode_takes_no_accounts() {
        assert_eq!(only_upstream(&yaml("{ mode: client }")).credentials.mode, Mode::Client);
        let line = refused(&yaml("{ mode: client, accounts: [{ username: a, password: b }] }"));
        assert!(line.contains("would never be used"), "{line}");
        assert!(
            refused(&yaml("{ mode: both }"))
                .contains("mode: `both` is not a known value; write shared or client")
        );
    }

    #[test]
    fn an_upstream_is_printed_without_its_password() {
        let upstream = only_upstream(&yaml("{ accounts: [{ username: a, password: hunter2 }] }"));
        assert!(!format!("{upstream:?}").contains("hunter2"));
    }
}
