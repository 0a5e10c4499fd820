//! Whose credentials an upstream sees, and where the operator's own come from.
//!
//! What stands in the configuration or the environment is read here, once; what
//! lies in files or comes from a helper is read when it is needed, and again
//! when it changes. A password leaves a `Secret` only through `expose`, and is
//! never printed.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::base_url::BaseUrl;
use super::files::unopenable;
use super::nearest::choose;
use super::preset::Preset;
use super::problem::{Refusal, Scope, quoted};
use super::quantity::print_duration;
use super::raw::{RawAccount, RawCredentials, Scalar};
use super::secret::Secret;

/// How long a credential helper may take.
const HELPER_TIMEOUT: Duration = Duration::from_secs(10);

/// What docker itself calls Docker Hub, in its configuration and before helpers.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";

/// How requests to an upstream are authorised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// Whose credentials are used. Default: shared.
    pub mode: Mode,
    /// The operator's accounts; none means anonymous pulls. Empty in client mode.
    pub accounts: Vec<Account>,
    /// Whether upstream is asked without an account when every account is spent or fails.
    /// Default: true.
    pub anonymous: bool,
}

/// Whose credentials an upstream sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Ours, for every allowed client; a client's own are dropped.
    Shared,
    /// The client's, which upstream re-authorises.
    Client,
}

/// A login at a registry, by where it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Account {
    /// In the configuration, or in the environment when it was read.
    Password {
        /// Never empty, without `:` (RFC 7617 §2).
        username: String,
        /// A password or an access token; never empty.
        password: Secret,
    },
    /// The password in a file.
    File {
        /// As above.
        username: String,
        /// The file, without a final line break the password.
        path: PathBuf,
    },
    /// In docker's own configuration.
    DockerConfig {
        /// `config.json`.
        path: PathBuf,
        /// What docker calls the registry, in the order in which it is looked for.
        servers: Vec<String>,
    },
    /// Told by a docker credential helper.
    Helper {
        /// A path, or a name to be found in `PATH`.
        program: String,
        /// What it is asked for.
        server: String,
        /// How long it may take.
        timeout: Duration,
    },
}

const MODES: [(&str, Mode); 2] = [("shared", Mode::Shared), ("client", Mode::Client)];

// === impl Credentials ===

impl Default for Credentials {
    fn default() -> Self {
        Self { mode: Mode::Shared, accounts: Vec::new(), anonymous: true }
    }
}

impl Credentials {
    /// Whether any credential may travel to the upstream.
    pub fn is_anonymous(&self) -> bool {
        self.mode == Mode::Shared && self.accounts.is_empty()
    }

    /// Those for the registry `name` at `url`.
    pub(super) fn read(
        scope: &Scope<'_>,
        raw: RawCredentials,
        name: Option<&str>,
        url: Option<&BaseUrl>,
    ) -> Self {
        let mode = raw.mode.and_then(|word| scope.at("mode").check(choose(&word, &MODES)));
        let mode = mode.unwrap_or(Mode::Shared);
        let scope = scope.at("accounts");
        let raw_accounts = raw.accounts.unwrap_or_default();
        if mode == Mode::Client && !raw_accounts.is_empty() {
            scope.refuse(
                "clients bring their own credentials in this mode, this account would never be used",
                "remove it, or set mode: shared",
            );
        }
        let mut accounts: Vec<Account> = Vec::new();
        for (index, raw) in raw_accounts.into_iter().enumerate() {
            let scope = scope.item(index);
            let Some(account) = Account::read(&scope, raw, &servers(name, url)) else { continue };
            if accounts.iter().any(|other| other.label() == account.label()) {
                scope.refuse(
                    format!("{} is listed before", quoted(&account.label())),
                    "keep one of them",
                );
            }
            accounts.push(account);
        }
        Self { mode, accounts, anonymous: raw.anonymous.unwrap_or(true) }
    }

    pub(super) fn to_raw(&self) -> RawCredentials {
        let mode = MODES.iter().find(|(_, mode)| *mode == self.mode);
        RawCredentials {
            mode: mode.map(|(name, _)| (*name).to_owned()),
            accounts: Some(self.accounts.iter().map(Account::to_raw).collect()),
            anonymous: Some(self.anonymous),
        }
    }
}

/// What docker may call a registry in its configuration: the names that it is known by only where
/// it is the well-known one, and no mirror or stand-in of that name, which must not get its logins.
fn servers(name: Option<&str>, url: Option<&BaseUrl>) -> Vec<String> {
    let mut servers: Vec<String> = Vec::new();
    let preset = name.and_then(Preset::named);
    let preset = preset.filter(|preset| url.is_none_or(|url| preset.url == url.to_string()));
    if preset.is_some_and(|preset| preset.name == "docker.io") {
        servers.push(DOCKER_HUB.to_owned());
    }
    servers.extend(url.map(BaseUrl::authority));
    servers.extend(preset.map(|preset| preset.name.to_owned()));
    servers.dedup();
    servers
}

// === impl Account ===

impl Account {
    /// For logs and metrics; unique among the accounts of an upstream.
    pub fn label(&self) -> String {
        match self {
            Self::Password { username, .. } | Self::File { username, .. } => username.clone(),
            Self::DockerConfig { path, .. } => path.display().to_string(),
            Self::Helper { program, .. } => format!("helper {program}"),
        }
    }

    fn read(scope: &Scope<'_>, raw: RawAccount, servers: &[String]) -> Option<Self> {
        let has_password =
            raw.password.is_some() || raw.password_file.is_some() || raw.password_env.is_some();
        let has_login = has_password || raw.username.is_some();
        match (raw.docker_config.clone(), raw.helper.clone()) {
            (None, None) => Self::read_login(scope, raw),
            (Some(path), None) if !has_login => {
                let path = scope.at("docker_config").file(Some(path))?;
                Some(Self::DockerConfig { path, servers: servers.to_vec() })
            }
            (None, Some(name)) if !has_login => {
                let program = scope.at("helper").check(parse_helper(&name))?;
                let server = raw.server.or_else(|| servers.first().cloned())?;
                let timeout = scope.wait("timeout", raw.timeout.as_ref(), HELPER_TIMEOUT);
                Some(Self::Helper { program, server, timeout })
            }
            _ => {
                scope.refuse(
                    "says in several ways where the login is",
                    "keep one of username with its password, docker_config and helper",
                );
                None
            }
        }
    }

    fn read_login(scope: &Scope<'_>, raw: RawAccount) -> Option<Self> {
        let username = scope.at("username").check(check_username(raw.username));
        let (key, password) = match (raw.password, raw.password_file, raw.password_env) {
            (Some(text), None, None) => ("password", Ok(text)),
            (None, Some(path), None) => {
                let read = read_password(&path).and_then(not_empty);
                scope.at("password_file").check(read)?;
                return Some(Self::File { username: username?, path: path.into() });
            }
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
        Some(Self::Password { username: username?, password: Secret::new(password) })
    }

    fn to_raw(&self) -> RawAccount {
        let raw = RawAccount::default();
        match self.clone() {
            Self::Password { username, password } => {
                RawAccount { username: Some(username), password: Some(password.to_string()), ..raw }
            }
            Self::File { username, path } => RawAccount {
                username: Some(username),
                password_file: Some(path.display().to_string()),
                ..raw
            },
            Self::DockerConfig { path, .. } => {
                RawAccount { docker_config: Some(path.display().to_string()), ..raw }
            }
            Self::Helper { program, server, timeout } => RawAccount {
                helper: Some(program),
                server: Some(server),
                timeout: Scalar::print(print_duration(timeout)),
                ..raw
            },
        }
    }
}

/// `NAME` for the program `docker-credential-NAME`, or a path.
fn parse_helper(text: &str) -> Result<String, Refusal> {
    if text.starts_with('/') {
        let exists = Path::new(text).is_file();
        let missing = || {
            Refusal::new(
                format!("there is no program {}", quoted(text)),
                "write its path, or its name",
            )
        };
        return exists.then(|| text.to_owned()).ok_or_else(missing);
    }
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if text.is_empty() || !text.chars().all(is_plain) {
        return Err(Refusal::new(
            format!("{} is not the name of a credential helper", quoted(text)),
            "write NAME for docker-credential-NAME, or an absolute path",
        ));
    }
    Ok(match text.starts_with("docker-credential-") {
        true => text.to_owned(),
        false => format!("docker-credential-{text}"),
    })
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
        match account {
            Account::Password { password, .. } => password.expose().to_owned(),
            Account::File { path, .. } => path.display().to_string(),
            other => panic!("{other:?} has no password"),
        }
    }

    #[test]
    fn a_password_comes_from_the_text_the_environment_or_later_from_a_file() {
        assert_eq!(password("{ username: a, password: hunter2 }"), "hunter2");
        assert_eq!(password("{ username: a, password: 0123 }"), "0123");
        let (_kept, file) = scratch_file("from a file\n");
        assert_eq!(password(&format!("{{ username: a, password_file: {file} }}")), file);
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

    fn accounts(credentials: &str) -> Vec<Account> {
        only_upstream(&yaml(credentials)).credentials.accounts
    }

    #[test]
    fn accounts_are_told_apart_by_their_names() {
        let two = "{ accounts: [{ username: a, password: b }, { username: c, password: d }] }";
        let labels: Vec<_> = accounts(two).iter().map(Account::label).collect();
        assert_eq!(labels, ["a", "c"]);
        let line = refused(&yaml(
            "{ accounts: [{ username: a, password: b }, { username: a, password: d }] }",
        ));
        assert!(line.ends_with("accounts[1]: `a` is listed before; keep one of them"), "{line}");
    }

    #[test]
    fn docker_s_own_configuration_is_looked_up_under_docker_s_own_names() {
        let (_kept, file) = scratch_file("{}");
        let [Account::DockerConfig { servers, .. }] =
            &accounts(&format!("{{ accounts: [{{ docker_config: {file} }}] }}"))[..]
        else {
            panic!("one docker_config was written");
        };
        assert_eq!(servers, &[DOCKER_HUB, "registry-1.docker.io", "docker.io"]);
        let line = refused(&yaml("{ accounts: [{ docker_config: /nowhere/config.json }] }"));
        assert!(
            line.contains("accounts[0].docker_config: `/nowhere/config.json` can't be opened"),
            "{line}"
        );
    }

    #[test]
    fn a_helper_is_named_as_docker_names_it() {
        let [Account::Helper { program, server, timeout }] =
            &accounts("{ accounts: [{ helper: pass, timeout: 3s }] }")[..]
        else {
            panic!("one helper was written");
        };
        assert_eq!((program.as_str(), server.as_str()), ("docker-credential-pass", DOCKER_HUB));
        assert_eq!(*timeout, Duration::from_secs(3));
        for (account, line) in [
            ("helper: a/b", "accounts[0].helper: `a/b` is not the name of a credential helper"),
            ("helper: /nowhere/helper", "accounts[0].helper: there is no program"),
            ("helper: pass, username: a", "accounts[0]: says in several ways where the login is"),
            ("helper: pass, timeout: 0s", "accounts[0].timeout: is zero"),
        ] {
            let found = refused(&yaml(&format!("{{ accounts: [{{ {account} }}] }}")));
            assert!(found.contains(line), "{found}");
        }
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
