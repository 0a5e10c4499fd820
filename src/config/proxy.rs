//! The proxy through which an upstream is reached: the key `proxy`, else the environment.
//!
//! The environment is read once, with the configuration. Its password is a `Secret`, like any
//! other, and no error repeats a proxy's URL.

use std::fmt;

use percent_encoding::percent_decode_str;
use url::Url;

use super::base_url::{Scheme, is_loopback_host};
use super::no_proxy::NoProxy;
use super::problem::{Refusal, Scope};
use super::secret::Secret;

/// What the key says for "no proxy, whatever the environment says".
const NONE: &str = "none";

const REMEDY: &str = "write http://[USER:PASSWORD@]HOST:PORT, https://…, or none";

/// Where requests to an upstream's hosts go first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proxy {
    /// To the hosts themselves.
    None,
    /// To this proxy, whichever the host.
    Server(ProxyServer),
    /// Where the environment said when the configuration was read. Default.
    Environment(Environment),
}

/// One proxy; printed without its password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyServer {
    /// Https: TLS to the proxy itself.
    pub scheme: Scheme,
    /// Lower-case name or IP address; an IPv6 address is without its brackets.
    pub host: String,
    /// The port written, or the scheme's own.
    pub port: u16,
    /// Sent as Basic in `Proxy-Authorization`.
    pub login: Option<ProxyLogin>,
}

/// A user of a proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyLogin {
    /// Without `:` (RFC 7617 §2).
    pub username: String,
    /// May be empty.
    pub password: Secret,
}

/// What the environment's variables say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Environment {
    http: Option<ProxyServer>,
    https: Option<ProxyServer>,
    except: NoProxy,
}

// === impl Proxy ===

impl Proxy {
    /// The proxy for a request to `url`; `None`: it goes there by itself.
    pub fn for_url(&self, url: &Url) -> Option<&ProxyServer> {
        match self {
            Self::None => None,
            Self::Server(server) => Some(server),
            Self::Environment(environment) => environment.for_url(url),
        }
    }

    /// The proxy that would read a request to `url`, which was to stay on this machine.
    pub fn exposes(&self, url: &Url) -> Option<&ProxyServer> {
        let host = url.host_str()?.trim_matches(['[', ']']);
        let is_plain = url.scheme() == "http" && is_loopback_host(host);
        self.for_url(url).filter(|proxy| is_plain && !proxy.is_loopback())
    }

    /// Every proxy that may be used.
    pub fn servers(&self) -> Vec<&ProxyServer> {
        match self {
            Self::None => Vec::new(),
            Self::Server(server) => vec![server],
            Self::Environment(environment) => {
                let both = [&environment.https, &environment.http];
                both.into_iter().flatten().collect()
            }
        }
    }

    /// The key's value, or the process's environment.
    pub(super) fn read(scope: &Scope<'_>, raw: Option<&str>) -> Self {
        match raw {
            None => scope.check(Environment::read(process)).map(Self::Environment),
            Some(NONE) => Some(Self::None),
            Some(text) => scope.check(ProxyServer::parse(text)).map(Self::Server),
        }
        .unwrap_or(Self::None)
    }

    pub(super) fn to_raw(&self) -> Option<String> {
        match self {
            Self::None => Some(NONE.to_owned()),
            Self::Server(server) => Some(server.to_string()),
            Self::Environment(_) => None,
        }
    }
}

fn process(variable: &str) -> Option<String> {
    std::env::var(variable).ok()
}

// === impl ProxyServer ===

impl ProxyServer {
    fn parse(text: &str) -> Result<Self, Refusal> {
        // Nothing of the text is repeated: a password may stand anywhere in a mistyped one.
        let refusal = |what: &str| Refusal::new(what, REMEDY);
        let url = Url::parse(text).map_err(|_| refusal("is not a URL"))?;
        let scheme = match url.scheme() {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            _ => return Err(refusal("is no http or https proxy (SOCKS is not spoken)")),
        };
        if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
            return Err(refusal("has something after the port"));
        }
        let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let port = url.port().unwrap_or(scheme.default_port());
        Ok(Self { scheme, host, port, login: ProxyLogin::of(&url)? })
    }

    /// Whether it runs on this machine: nothing on the way to it can listen.
    pub fn is_loopback(&self) -> bool {
        is_loopback_host(&self.host)
    }

    /// `host:port`, IPv6 in brackets.
    pub fn authority(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }
}

impl fmt::Display for ProxyServer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}://", self.scheme.as_str())?;
        if let Some(login) = &self.login {
            let user = percent_encoding::NON_ALPHANUMERIC;
            let user = percent_encoding::utf8_percent_encode(&login.username, user);
            write!(out, "{user}:{}@", login.password)?;
        }
        out.write_str(&self.authority())
    }
}

// === impl ProxyLogin ===

impl ProxyLogin {
    fn of(url: &Url) -> Result<Option<Self>, Refusal> {
        if url.username().is_empty() && url.password().is_none() {
            return Ok(None);
        }
        let decoded = |text: &str| {
            let text = percent_decode_str(text).decode_utf8().ok()?;
            (!text.contains(char::is_control)).then(|| text.into_owned())
        };
        let username = decoded(url.username()).filter(|name| !name.contains(':'));
        let password = decoded(url.password().unwrap_or_default());
        let refusal = || {
            let remedy = "write them percent-encoded, as UTF-8, and no `:` in the name";
            Refusal::new("has a user or password that can't be sent", remedy)
        };
        let (username, password) = username.zip(password).ok_or_else(refusal)?;
        Ok(Some(Self { username, password: Secret::new(password) }))
    }
}

// === impl Environment ===

impl Environment {
    /// As Go reads it, upper case before lower case, and `ALL_PROXY` as curl does, for what has no
    /// variable of its own.
    fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Self, Refusal> {
        let first = |names: &[&str]| {
            let values = names.iter().filter_map(|name| Some((name.to_string(), variable(name)?)));
            values.into_iter().find(|(_, value)| !value.trim().is_empty())
        };
        let server = |names: &[&str]| match first(names) {
            Some((name, value)) => Self::server(&name, value.trim()).map(Some),
            None => Ok(None),
        };
        let except = first(&["NO_PROXY", "no_proxy"]);
        Ok(Self {
            http: server(&["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"])?,
            https: server(&["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"])?,
            except: except.map(|(_, list)| NoProxy::parse(&list)).unwrap_or_default(),
        })
    }

    /// In the environment a proxy may be written without its scheme.
    fn server(name: &str, value: &str) -> Result<ProxyServer, Refusal> {
        let url = match value.contains("://") {
            true => value.to_owned(),
            false => format!("http://{value}"),
        };
        ProxyServer::parse(&url).map_err(|refusal| {
            let remedy = format!("correct the variable, or set this key: {}", refusal.remedy);
            Refusal::new(format!("the environment's {name} {}", refusal.what), remedy)
        })
    }

    fn for_url(&self, url: &Url) -> Option<&ProxyServer> {
        let server = match url.scheme() {
            "https" => self.https.as_ref(),
            _ => self.http.as_ref(),
        }?;
        let host = url.host_str()?.trim_matches(['[', ']']);
        // As in Go: what runs on this machine is never behind the network's proxy.
        let direct =
            is_loopback_host(host) || self.except.covers(host, url.port_or_known_default()?);
        (!direct).then_some(server)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{only_upstream, refused};
    use super::*;

    fn with(value: &str) -> String {
        format!("upstreams: [{{ name: docker.io, proxy: \"{value}\" }}]")
    }

    fn environment(variables: &[(&str, &str)]) -> Result<Environment, Refusal> {
        Environment::read(|name| {
            let found = variables.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    fn chosen(variables: &[(&str, &str)], url: &str) -> Option<String> {
        let environment = environment(variables).unwrap();
        let url = Url::parse(url).unwrap();
        environment.for_url(&url).map(ProxyServer::to_string)
    }

    #[test]
    fn the_key_is_a_url_or_none() {
        assert_eq!(only_upstream(&with("none")).proxy, Proxy::None);
        for url in ["http://10.0.0.1:3128", "https://proxy.corp:443", "http://[2001:db8::1]:80"] {
            let proxy = only_upstream(&with(url)).proxy;
            assert_eq!(proxy.to_raw().as_deref(), Some(url));
            let loopback = Url::parse("http://127.0.0.1:5000/v2/").unwrap();
            assert_eq!(proxy.for_url(&loopback).unwrap().to_string(), url, "a key holds always");
        }
        let Proxy::Server(server) = only_upstream(&with("http://proxy.corp/")).proxy else {
            panic!("a proxy was written");
        };
        assert_eq!(server.port, 80);
    }

    #[test]
    fn a_login_is_decoded_and_never_printed() {
        let upstream = only_upstream(&with("http://me%40corp:hunter%3A2@10.0.0.1:3128"));
        let printed = format!("{:?} {:?}", upstream, upstream.proxy.to_raw());
        assert!(printed.contains("http://me%40corp:***@10.0.0.1:3128"), "{printed}");
        assert!(!printed.contains("hunter"), "{printed}");
        let Proxy::Server(server) = upstream.proxy else { panic!("a proxy was written") };
        let login = server.login.unwrap();
        assert_eq!((login.username.as_str(), login.password.expose()), ("me@corp", "hunter:2"));
    }

    #[test]
    fn what_is_no_proxy_is_refused_and_not_repeated() {
        for (text, what) in [
            ("10.0.0.1:3128", "is not a URL"),
            ("hunter2@10.0.0.1", "is not a URL"),
            ("socks5://hunter2@10.0.0.1", "is no http or https proxy (SOCKS is not spoken)"),
            ("ftp://hunter2", "is no http or https proxy"),
            ("http://a:hunter2@b/x", "has something after the port"),
            ("http://a:hunter2@b:99999", "is not a URL"),
            ("http://a%3Ab:hunter2@b", "has a user or password that can't be sent"),
            ("http://a:hunter2%0A@b", "has a user or password that can't be sent"),
        ] {
            let line = refused(&with(text));
            let start = format!("test.yaml: upstreams[0].proxy: {what}");
            assert!(line.starts_with(&start) && line.contains("; write "), "{line}");
            assert!(!line.contains("hunter2"), "{line}");
        }
    }

    #[test]
    fn the_environment_names_a_proxy_for_each_scheme() {
        let both = [("HTTPS_PROXY", "http://s:1"), ("http_proxy", "p:2")];
        assert_eq!(chosen(&both, "https://a.io").unwrap(), "http://s:1");
        assert_eq!(chosen(&both, "http://a.io").unwrap(), "http://p:2");
        let all =
            [("ALL_PROXY", "http://all:1"), ("https_proxy", "https://s:2"), ("HTTPS_PROXY", " ")];
        assert_eq!(chosen(&all, "https://a.io").unwrap(), "https://s:2");
        assert_eq!(chosen(&all, "http://a.io").unwrap(), "http://all:1");
        let cases = [("HTTP_PROXY", "http://upper:1"), ("http_proxy", "http://lower:1")];
        assert_eq!(chosen(&cases, "http://a.io").unwrap(), "http://upper:1");
        assert_eq!(chosen(&[], "https://a.io"), None);
    }

    #[test]
    fn the_environment_spares_this_machine_and_what_no_proxy_lists() {
        let set = [("ALL_PROXY", "http://p:1"), ("no_proxy", "corp.example, 10.0.0.0/8")];
        for direct in [
            "http://localhost:5000",
            "https://hub.localhost",
            "http://127.0.0.2:5000",
            "http://[::1]:5000",
            "https://registry.corp.example",
            "https://10.1.2.3:5000",
        ] {
            assert_eq!(chosen(&set, direct), None, "{direct}");
        }
        assert!(chosen(&set, "https://corp.example.org").is_some());
    }

    #[test]
    fn a_bad_variable_is_named_and_not_repeated() {
        let refusal =
            environment(&[("ALL_PROXY", "socks5://me:hunter2@p")]).unwrap_err().to_string();
        assert!(refusal.starts_with("the environment's ALL_PROXY is no http"), "{refusal}");
        assert!(!refusal.contains("hunter2"), "{refusal}");
    }
}
