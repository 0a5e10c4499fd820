//! A new connection to a host of an upstream: by itself, or through the proxy that is set for it.
//!
//! Names are resolved and the address rules kept here; all of it ends within `timeouts.connect`.
//! Whether a pooled connection will do is Pingora's question, and was asked before.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    net::{TcpStream, UnixStream},
    sync::OnceCell,
    time::timeout,
};
use url::Url;

use super::{
    race::{order, race},
    tunnel::Gateway,
    wire::{self, authority, port, unreachable},
};
use crate::{
    config,
    upstream::{
        Failure,
        address::{Class, Resolver},
        trust::Trust,
    },
};

/// What it takes to connect to any host of one upstream.
#[derive(Debug)]
pub(super) struct Dialer {
    pub(super) trust: Trust,
    registry: Url,
    /// How far the configured registry itself is; asked for once.
    home: OnceCell<Class>,
    resolver: Resolver,
    gateway: Gateway,
    proxy: config::Proxy,
    patience: Duration,
}

/// One host to connect to, for one request.
#[derive(Debug)]
pub(super) struct Dial {
    dialer: Arc<Dialer>,
    url: Url,
    host: Arc<str>,
    progress: Mutex<Progress>,
}

/// Where the addresses of the host stand.
#[derive(Debug, Default)]
struct Progress {
    /// The one that was connected to last.
    connected: Option<SocketAddr>,
    /// Connected to, and of no use after that.
    useless: Vec<SocketAddr>,
    /// Those that may still be tried.
    others: Vec<SocketAddr>,
}

/// How requests to a URL travel.
#[derive(Debug, Clone, Copy)]
pub(super) enum Way<'a> {
    Direct,
    /// A plain request is handed to the proxy as a whole: many proxies tunnel to port 443 alone.
    Relayed(&'a config::ProxyServer),
    /// What TLS hides goes through a tunnel (CONNECT).
    Tunnelled(&'a config::ProxyServer),
}

/// What bytes go over.
#[derive(Debug)]
pub(super) enum Socket {
    Tcp(TcpStream),
    /// To a task that speaks TLS with the proxy.
    Local(UnixStream),
}

// === impl Dialer ===

impl Dialer {
    pub(super) fn new(
        config: &config::Upstream,
        registry: Url,
        resolver: Resolver,
    ) -> Result<Arc<Self>, String> {
        Ok(Arc::new(Self {
            trust: Trust::new(config),
            registry,
            home: OnceCell::new(),
            resolver,
            gateway: Gateway::new(config)?,
            proxy: config.proxy.clone(),
            patience: config.timeouts.connect,
        }))
    }

    pub(super) fn dial(self: &Arc<Self>, url: &Url, host: &Arc<str>) -> Arc<Dial> {
        Arc::new(Dial {
            dialer: Arc::clone(self),
            url: url.clone(),
            host: Arc::clone(host),
            progress: Mutex::default(),
        })
    }

    pub(super) fn way(&self, url: &Url) -> Way<'_> {
        match self.proxy.for_url(url) {
            None => Way::Direct,
            Some(proxy) if url.scheme() == "https" => Way::Tunnelled(proxy),
            Some(proxy) => Way::Relayed(proxy),
        }
    }

    /// Credentials may go in plain text to what runs on this machine, but not through a proxy that
    /// runs elsewhere (P5).
    pub(super) fn may_see_credentials(&self, url: &Url) -> Result<(), Failure> {
        let Some(proxy) = self.proxy.exposes(url) else { return Ok(()) };
        let proxy = proxy.authority();
        let problem = format!(
            "credentials would go to the proxy {proxy} in plain text; write proxy: none for what runs on this machine"
        );
        Err(Failure::Untrusted { problem })
    }

    /// Whether `url` is the registry's own, so that what is for the registry may be sent there.
    pub(super) fn is_registry(&self, url: &Url) -> bool {
        url.scheme() == self.registry.scheme() && authority(url) == authority(&self.registry)
    }

    /// Whether a host may have any address, since the operator named it.
    pub(super) fn may_be_anywhere(&self, url: &Url) -> bool {
        authority(url) == authority(&self.registry) || self.trust.is_named(url)
    }

    /// Those of a host's addresses that may be connected to; an error if none may.
    async fn allowed(&self, url: &Url, found: &[IpAddr]) -> Result<Vec<IpAddr>, Failure> {
        if self.may_be_anywhere(url) {
            return Ok(found.to_vec());
        }
        let home = self.home().await;
        let mut refused = None;
        let mut allowed = found.to_vec();
        allowed.retain(|ip| match self.trust.address(url, *ip, home) {
            Ok(()) => true,
            Err(problem) => {
                tracing::warn!(
                    host = url.host_str(), address = %ip, %problem,
                    remedy = "if upstream may send us there, name the host under redirect_hosts",
                    "an address is not connected to"
                );
                refused = Some(problem);
                false
            }
        });
        match refused {
            Some(problem) if allowed.is_empty() => Err(Failure::Untrusted { problem }),
            _ => Ok(allowed),
        }
    }

    /// What a proxy resolves, it may resolve to anything: a name is left to it, and to its own
    /// rules. A host that is written as an address is held to ours.
    async fn allowed_by_name(&self, url: &Url) -> Result<(), Failure> {
        let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
        match host.parse::<IpAddr>() {
            Ok(ip) => self.allowed(url, &[ip]).await.map(|_| ()),
            Err(_) => Ok(()),
        }
    }

    /// An upstream that can't be resolved counts as public: the strict rule. So does one that a
    /// proxy resolves, for its address is not ours to know.
    async fn home(&self) -> Class {
        let name = self.registry.host_str().unwrap_or_default();
        let is_name = name.trim_matches(['[', ']']).parse::<IpAddr>().is_err();
        if is_name && !matches!(self.way(&self.registry), Way::Direct) {
            return Class::Public;
        }
        let class = self.home.get_or_try_init(|| async {
            let found = self.resolver.resolve(name, port(&self.registry)).await?;
            Ok::<_, std::io::Error>(found.first().map_or(Class::Public, |a| Class::of(a.ip())))
        });
        class.await.copied().unwrap_or(Class::Public)
    }
}

// === impl Dial ===

impl Dial {
    pub(super) async fn connect(&self) -> Result<Socket, Failure> {
        {
            let mut progress = self.progress();
            progress.connected = None;
            progress.others.clear();
        }
        match self.dialer.way(&self.url) {
            Way::Direct => self.direct().await.map(Socket::Tcp),
            Way::Relayed(proxy) => self.to_proxy(proxy, false).await,
            Way::Tunnelled(proxy) => self.to_proxy(proxy, true).await,
        }
    }

    async fn direct(&self) -> Result<TcpStream, Failure> {
        let (name, port) = (self.url.host_str().unwrap_or_default(), port(&self.url));
        let work = async {
            let found = self.dialer.resolver.resolve(name, port).await;
            let found = found.map_err(|error| unreachable(&self.host, &error.to_string()))?;
            let ips: Vec<_> = found.iter().map(SocketAddr::ip).collect();
            let allowed = self.dialer.allowed(&self.url, &ips).await?;
            self.race(name, port, &allowed).await
        };
        let outcome = match timeout(self.dialer.patience, work).await {
            Ok(outcome) => outcome,
            Err(_) => Err(wire::timeout(&self.host, "a connection")),
        };
        if matches!(&outcome, Err(Failure::Unreachable { .. } | Failure::Timeout { .. })) {
            self.dialer.resolver.forget(name, port).await;
        }
        outcome
    }

    async fn race(&self, name: &str, port: u16, allowed: &[IpAddr]) -> Result<TcpStream, Failure> {
        let allowed: Vec<_> = allowed.iter().map(|ip| SocketAddr::new(*ip, port)).collect();
        let mut addresses = order(&allowed, self.dialer.resolver.last_winner(name));
        addresses.retain(|address| !self.progress().useless.contains(address));
        let won = race(&addresses, self.dialer.patience, TcpStream::connect).await;
        let (stream, winner) = won.map_err(|error| unreachable(&self.host, &error.to_string()))?;
        if addresses.first() != Some(&winner) {
            // The next connection need not wait for the same silence again.
            self.dialer.resolver.remember_winner(name, winner.ip());
        }
        addresses.retain(|address| *address != winner);
        let mut progress = self.progress();
        progress.connected = Some(winner);
        progress.others = addresses;
        Ok(stream)
    }

    /// After a connection that came about and failed before the request was sent, in its TLS:
    /// whether another address of the host may be asked. If so, the next `connect` does.
    pub(super) fn turns_elsewhere(&self, failure: &Failure) -> bool {
        let mut progress = self.progress();
        let Some(connected) = progress.connected.take() else { return false };
        progress.useless.push(connected);
        let Some(other) = progress.others.first() else { return false };
        let name = self.url.host_str().unwrap_or_default();
        self.dialer.resolver.remember_winner(name, other.ip());
        // Where the time has been used up, the next request goes there.
        !failure.is_timeout()
    }

    async fn to_proxy(&self, proxy: &config::ProxyServer, tunnel: bool) -> Result<Socket, Failure> {
        let told = format!("the proxy {}", proxy.authority());
        let work = async {
            self.dialer.allowed_by_name(&self.url).await?;
            let target = tunnel.then_some(&*self.host);
            let opened = self.dialer.gateway.open(&self.dialer.resolver, proxy, target);
            opened.await.map_err(|problem| unreachable(&self.host, &format!("{told} {problem}")))
        };
        match timeout(self.dialer.patience, work).await {
            Ok(outcome) => outcome,
            Err(_) if tunnel => Err(wire::timeout(&told.as_str().into(), "a tunnel")),
            Err(_) => Err(wire::timeout(&told.as_str().into(), "a connection")),
        }
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpSocket};

    use super::*;

    /// A dialer for an upstream at `http://registry.test:PORT` with these addresses.
    async fn dialer(extra: &str, addresses: &[SocketAddr]) -> Arc<Dialer> {
        let port = addresses.first().map_or(80, SocketAddr::port);
        let url = format!("http://registry.test:{port}");
        let text = format!("upstreams: [{{ name: x, url: '{url}', {extra} }}]");
        let mut config = config::Config::parse(&text, "test").unwrap();
        let resolver = Resolver::knowing("registry.test", addresses).await;
        Dialer::new(&config.upstreams.remove(0), url.parse().unwrap(), resolver).unwrap()
    }

    fn dial(dialer: &Arc<Dialer>, url: &Url) -> Arc<Dial> {
        dialer.dial(url, &authority(url))
    }

    async fn reached(dial: &Dial) -> SocketAddr {
        match dial.connect().await.unwrap() {
            Socket::Tcp(tcp) => tcp.peer_addr().unwrap(),
            Socket::Local(_) => panic!("there is no proxy"),
        }
    }

    /// Listens on the same port of several loopback addresses.
    async fn listeners(ips: [&str; 2], backlogs: [u32; 2]) -> [TcpListener; 2] {
        loop {
            let first = listen(SocketAddr::new(ips[0].parse().unwrap(), 0), backlogs[0]).unwrap();
            let port = first.local_addr().unwrap().port();
            let second = SocketAddr::new(ips[1].parse().unwrap(), port);
            if let Ok(second) = listen(second, backlogs[1]) {
                return [first, second];
            }
        }
    }

    fn listen(address: SocketAddr, backlog: u32) -> std::io::Result<TcpListener> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(address)?;
        socket.listen(backlog)
    }

    /// Connects until nobody accepts any more; what comes after is not answered.
    async fn fill_backlog(address: SocketAddr) -> Vec<TcpStream> {
        let mut held = Vec::new();
        while let Ok(connected) =
            timeout(Duration::from_millis(300), TcpStream::connect(address)).await
        {
            held.push(connected.unwrap());
            assert!(held.len() < 100, "the backlog has no end");
        }
        held
    }

    #[tokio::test]
    async fn an_address_that_swallows_packets_is_passed_by_and_not_begun_with_again() {
        let live = listeners(["127.0.0.2", "127.0.0.1"], [1, 1024]).await;
        let addresses = live.each_ref().map(|listener| listener.local_addr().unwrap());
        let _held = fill_backlog(addresses[0]).await;
        let dialer = dialer("", &addresses).await;
        let url = dialer.registry.clone();
        assert_eq!(reached(&dial(&dialer, &url)).await, addresses[1]);
        assert_eq!(dialer.resolver.last_winner("registry.test"), Some(addresses[1].ip()));
        assert_eq!(reached(&dial(&dialer, &url)).await, addresses[1]);
    }

    #[tokio::test]
    async fn an_address_that_connects_and_is_of_no_use_gives_way_to_the_next() {
        let live = listeners(["127.0.0.1", "127.0.0.2"], [1024, 1024]).await;
        let addresses = live.each_ref().map(|listener| listener.local_addr().unwrap());
        let dialer = dialer("", &addresses).await;
        let dial = dial(&dialer, &dialer.registry.clone());
        let failure = unreachable(&dial.host, "no TLS");
        assert!(!dial.turns_elsewhere(&failure), "nothing was connected to");
        assert_eq!(reached(&dial).await, addresses[0]);
        assert!(dial.turns_elsewhere(&failure));
        assert_eq!(reached(&dial).await, addresses[1]);
        assert!(!dial.turns_elsewhere(&failure), "there is no other");
    }

    #[tokio::test]
    async fn a_name_that_nobody_answers_for_is_looked_up_again() {
        let [one, other] = listeners(["127.0.0.1", "127.0.0.2"], [1, 1]).await;
        let addresses = [one.local_addr().unwrap(), other.local_addr().unwrap()];
        drop((one, other));
        let dialer = dialer("", &addresses).await;
        let failure = dial(&dialer, &dialer.registry.clone()).connect().await.unwrap_err();
        assert!(matches!(failure, Failure::Unreachable { .. }), "{failure}");
        // No real resolver knows it (RFC 6761 §6.2).
        let found = dialer.resolver.resolve("registry.test", addresses[0].port()).await;
        assert!(found.is_err(), "{found:?}");
    }

    #[tokio::test]
    async fn a_proxy_is_not_the_way_around_the_address_rules() {
        let nobody = "proxy: 'http://127.0.0.1:1'";
        let dialer = dialer(nobody, &[]).await;
        for inside in ["http://169.254.169.254/x", "https://[fd00::1]/x", "http://127.0.0.1:9/x"] {
            let failure = dial(&dialer, &inside.parse().unwrap()).connect().await.unwrap_err();
            assert!(matches!(failure, Failure::Untrusted { .. }), "{inside}: {failure}");
        }
        for left_to_it in ["http://inside.example/x", "http://192.88.99.1/x"] {
            let failure = dial(&dialer, &left_to_it.parse().unwrap()).connect().await.unwrap_err();
            let told = failure.to_string();
            assert!(told.contains("the proxy 127.0.0.1:1 is not there: "), "{told}");
        }
    }

    #[tokio::test]
    async fn a_proxy_elsewhere_sees_no_credentials_that_were_to_stay_here() {
        let sees = |proxy: &'static str, url: &'static str| async move {
            let dialer = dialer(&format!("proxy: '{proxy}'"), &[]).await;
            dialer.may_see_credentials(&url.parse().unwrap()).is_ok()
        };
        let here = "http://127.0.0.1:9/token";
        assert!(!sees("http://10.0.0.1:3128", here).await);
        assert!(!sees("https://10.0.0.1:3128", here).await);
        assert!(sees("http://127.0.0.1:3128", here).await);
        assert!(sees("none", here).await);
        // A tunnel hides them.
        assert!(sees("http://10.0.0.1:3128", "https://127.0.0.1:9/token").await);
    }
}
