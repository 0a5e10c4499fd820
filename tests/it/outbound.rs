//! The way out: through proxies, with certificates, past dead addresses, within limits.

mod gate;
mod tinyproxy;
pub(crate) mod tls;

use std::env;
use std::time::Duration;

use bytes::Bytes;
use hub::{Action, Fault, Hub, Image, ImageSpec, Kind, Options, Target};
use serde_json::json;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, timeout};

use self::gate::{Gate, Then};
use self::tinyproxy::Tinyproxy;
use self::tls::{Authority, Clients, TlsFront};
use crate::client::{Reply, get};
use crate::pull::{blob_path, get_manifest, pull};
use crate::roadstead::{Roadstead, Setup, together};

const NAME: &str = "library/alpine";
const PASSWORD: &str = "correct-horse-battery";
const REFUSAL: &str = "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"corp\"\r\nContent-Length: 0\r\n\r\n";

fn push(hub: &Hub) -> Image {
    hub.push(&ImageSpec::new(NAME).tag("latest").layer_size(64 << 10))
}

/// A hub whose registry answers by itself, without tokens and CDN.
async fn plain_hub() -> Hub {
    let options = Options { require_token: false, redirect_blobs: false, ..Options::default() };
    Hub::start_with(options).await.unwrap()
}

/// Roadstead in front of the registry at `url`, whose certificates `authority` has signed.
fn over_tls(hub: &Hub, url: &str, authority: &Authority) -> Setup {
    Setup::upstream(url, &hub.token_realm())
        .with("ca_file", authority.file().display().to_string())
        .with("redirect_hosts", json!([hub.cdn().to_string()]))
}

async fn get_latest(roadstead: &Roadstead) -> Reply {
    get_manifest(roadstead.at(), NAME, "latest").send().await
}

// === through a proxy that others wrote ===

/// With a login that it wants; `None` where it is not installed and need not be.
async fn tinyproxy(login: Option<(&str, &str)>) -> Option<Tinyproxy> {
    let proxy = Tinyproxy::start(login).await;
    let is_required = env::var_os("ROADSTEAD_REQUIRE").is_some();
    assert!(proxy.is_some() || !is_required, "tinyproxy is not installed");
    proxy
}

#[tokio::test]
async fn plain_requests_of_every_kind_go_through_tinyproxy() {
    let Some(proxy) = tinyproxy(None).await else { return };
    let hub = Hub::start().await;
    let image = push(&hub);
    let setup = Setup::of(&hub).with("proxy", format!("http://{}", proxy.at()));
    let roadstead = setup.start().await;
    let pulled = pull(roadstead.at(), NAME, "latest").await;
    assert_eq!(pulled.digest, image.digest);
    // What Pingora forwards goes the same way.
    let tags = get(roadstead.at(), format!("/v2/{NAME}/tags/list?n=5")).send().await;
    assert_eq!((tags.status, tags.json()["tags"][0].as_str()), (200, Some("latest")));
    let through = |part: String| proxy.seen(&format!(" http://{part}"));
    assert_eq!(through(format!("{}/v2/{NAME}/tags/list?n=5", hub.registry())), 1);
    let all = hub.requests();
    assert_eq!(proxy.seen("Request ("), all.len(), "some went past the proxy");
    for (kind, host) in
        [(Kind::Token, hub.token()), (Kind::CdnGet, hub.cdn()), (Kind::ManifestGet, hub.registry())]
    {
        assert!(all.iter().any(|request| request.kind == kind), "no {kind:?}");
        assert!(through(host.to_string()) > 0, "no {kind:?} through the proxy");
    }
}

#[tokio::test]
async fn tls_goes_through_tinyproxy_in_a_tunnel() {
    let Some(proxy) = tinyproxy(Some(("me", PASSWORD))).await else { return };
    let (hub, authority) = (Hub::start().await, Authority::new());
    let image = push(&hub);
    let front = TlsFront::start(&authority, "localhost", Clients::Anonymous, hub.registry()).await;
    let url = format!("https://localhost:{}", front.at.port());
    let login = format!("http://me:{PASSWORD}@{}", proxy.at());
    let roadstead = over_tls(&hub, &url, &authority).with("proxy", login).start().await;
    let pulled = pull(roadstead.at(), NAME, "latest").await;
    assert_eq!(pulled.digest, image.digest);
    let tags = get(roadstead.at(), format!("/v2/{NAME}/tags/list")).send().await;
    assert_eq!(tags.status, 200);
    let tunnels = proxy.seen(&format!("CONNECT localhost:{}", front.at.port()));
    assert_eq!(tunnels, front.connections());
    let asked = hub.requests().iter().filter(|request| request.kind != Kind::CdnGet).count();
    assert!(tunnels < asked, "a tunnel is used more than once: {tunnels} for {asked}");
}

/// tinyproxy answers 401 to a wrong password, as no proxy should: on a relayed request that can't be
/// told from the registry's own word.
#[tokio::test]
async fn a_bad_login_at_tinyproxy_is_told_and_the_password_is_not() {
    let Some(proxy) = tinyproxy(Some(("me", "another"))).await else { return };
    let (hub, authority) = (Hub::start().await, Authority::new());
    push(&hub);
    let front = TlsFront::start(&authority, "localhost", Clients::Anonymous, hub.registry()).await;
    let (none, wrong) =
        (format!("http://{}", proxy.at()), format!("http://me:{PASSWORD}@{}", proxy.at()));
    let tunnelled = format!("https://localhost:{}", front.at.port());
    for (url, login, status, told) in [
        (hub.registry_url(), &none, 502, "refused the request: 407"),
        (hub.registry_url(), &wrong, 401, "401"),
        (tunnelled.clone(), &none, 502, "refused the tunnel: 407"),
        (tunnelled, &wrong, 502, "refused the tunnel: 401"),
    ] {
        let setup = over_tls(&hub, &url, &authority).with("proxy", login.as_str());
        let roadstead = setup.log("trace").start().await;
        let reply = get_latest(&roadstead).await;
        assert_eq!(reply.status, status, "{login}: {}", reply.text());
        assert!(reply.text().contains(told), "{told}: {}", reply.text());
        if status == 502 {
            assert!(reply.text().contains(&format!("the proxy {} ", proxy.at())));
        }
        get(roadstead.at(), format!("/v2/{NAME}/tags/list")).send().await;
        assert_silent(&roadstead.whole_log().await);
    }
    assert!(hub.requests().is_empty());
}

fn assert_silent(log: &str) {
    use base64::Engine as _;
    let pair = base64::engine::general_purpose::STANDARD.encode(format!("me:{PASSWORD}"));
    assert!(log.contains("roadstead"), "nothing is logged");
    for secret in [PASSWORD, pair.as_str()] {
        let line = log.lines().find(|line| line.contains(secret));
        assert_eq!(line, None, "a secret is logged");
    }
}

// === through a proxy that does as it is told ===

#[tokio::test]
async fn the_proxy_resolves_the_name_and_tunnels_are_kept() {
    let (hub, authority) = (plain_hub().await, Authority::new());
    let image = push(&hub);
    let front =
        TlsFront::start(&authority, "registry.test", Clients::Anonymous, hub.registry()).await;
    for over_tls_to_the_proxy in [false, true] {
        let tls = authority.acceptor("localhost", Clients::Anonymous);
        let tls = over_tls_to_the_proxy.then_some(tls);
        let scheme = if tls.is_some() { "https" } else { "http" };
        let gate = Gate::start(Then::Tunnel(front.at), tls).await;
        let proxy = format!("{scheme}://me:{PASSWORD}@localhost:{}", gate.at.port());
        let setup = over_tls(&hub, "https://registry.test:5443", &authority);
        let roadstead = setup.with("proxy", proxy).start().await;
        hub.reset_stats();
        let pulled = pull(roadstead.at(), NAME, "latest").await;
        assert_eq!(pulled.digest, image.digest);
        let heads = gate.heads();
        assert!(heads.len() < hub.requests().len(), "{heads:?}");
        for head in heads {
            assert!(head.starts_with("CONNECT registry.test:5443 HTTP/1.1\r\n"), "{head}");
            assert!(head.contains("\r\nProxy-Authorization: Basic bWU6"), "{head}");
        }
        assert_silent(&roadstead.whole_log().await);
    }
}

#[tokio::test]
async fn the_environment_names_the_proxy_where_the_key_does_not() {
    let gate = Gate::start(Then::Say(REFUSAL), None).await;
    let setup = Setup::upstream("https://registry.test", "https://registry.test/token")
        .with("breaker.retries_percent", 0)
        .variable("HTTPS_PROXY", format!("http://me:{PASSWORD}@{}", gate.at));
    for (setup, through) in [
        (setup.clone(), 1),
        (setup.clone().variable("NO_PROXY", ".example, registry.test:443"), 1),
        (setup.clone().with("proxy", "none"), 1),
        (setup, 2),
    ] {
        let roadstead = setup.start().await;
        assert_eq!(get_latest(&roadstead).await.status, 502);
        assert_eq!(gate.heads().len(), through);
        assert_silent(&roadstead.whole_log().await);
    }
    // What is on this machine is not behind it.
    let hub = Hub::start().await;
    let image = push(&hub);
    let nobody = format!("http://{}", crate::roadstead::free_address());
    let roadstead = Setup::of(&hub).variable("ALL_PROXY", nobody).start().await;
    assert_eq!(pull(roadstead.at(), NAME, "latest").await.digest, image.digest);
}

#[tokio::test]
async fn plain_requests_go_over_tls_to_a_proxy_that_wants_it() {
    let answer = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n";
    let authority = Authority::new();
    let tls = authority.acceptor("localhost", Clients::Anonymous);
    let gate = Gate::start(Then::Say(answer), Some(tls)).await;
    let setup = Setup::upstream("http://registry.test:5000", "https://registry.test/token")
        .with("ca_file", authority.file().display().to_string())
        .with("proxy", format!("https://localhost:{}", gate.at.port()));
    let roadstead = setup.start().await;
    assert_eq!(get_latest(&roadstead).await.status, 404);
    let head = gate.heads().remove(0);
    let line = format!("HEAD http://registry.test:5000/v2/{NAME}/manifests/latest HTTP/1.1\r\n");
    assert!(head.starts_with(&line), "{head}");
    assert!(head.to_lowercase().contains("\r\nhost: registry.test:5000\r\n"), "{head}");
}

#[tokio::test]
async fn what_the_proxy_does_is_told_as_its_doing() {
    let refuses = |url: &'static str, told: &'static str| async move {
        let gate = Gate::start(Then::Say(REFUSAL), None).await;
        let setup = Setup::upstream(url, "https://registry.test/token").impatient();
        let roadstead = setup.with("proxy", format!("http://{}", gate.at)).start().await;
        let reply = get_latest(&roadstead).await;
        assert_eq!(reply.status, 502);
        let told = format!("the proxy {} refused {told}: 407", gate.at);
        assert!(reply.text().contains(&told), "{}", reply.text());
        let tags = get(roadstead.at(), format!("/v2/{NAME}/tags/list")).send().await;
        assert!(matches!(tags.status, 502 | 503), "{tags:?}");
        assert_eq!(tags.header("proxy-authenticate"), None);
    };
    let hangs = |url: &'static str| async move {
        let gate = Gate::start(Then::Hang, None).await;
        let setup = Setup::upstream(url, "https://registry.test/token").impatient();
        let roadstead = setup.with("proxy", format!("http://{}", gate.at)).start().await;
        let reply = get_latest(&roadstead).await;
        assert_eq!(reply.status, 504, "{}", reply.text());
        assert!(reply.took < Duration::from_secs(10), "{:?}", reply.took);
    };
    tokio::join!(
        refuses("http://registry.test", "the request"),
        refuses("https://registry.test", "the tunnel"),
        hangs("http://registry.test"),
        hangs("https://registry.test"),
    );
}

#[tokio::test]
async fn a_proxy_that_is_not_there_or_no_proxy_is_named() {
    let nobody = crate::roadstead::free_address();
    let ssh = Gate::start(Then::Say("SSH-2.0-OpenSSH_9.2\r\n\r\n"), None).await;
    for (at, told) in [(nobody, "is not there: "), (ssh.at, "does not speak HTTP")] {
        let setup = Setup::upstream("https://registry.test", "https://registry.test/token");
        let roadstead = setup.with("proxy", format!("http://{at}")).start().await;
        let reply = get_latest(&roadstead).await;
        assert_eq!(reply.status, 502);
        assert!(reply.text().contains(&format!("the proxy {at} {told}")), "{}", reply.text());
    }
}

// === with a certificate ===

#[tokio::test]
async fn the_registry_alone_is_shown_the_certificate() {
    let (hub, authority) = (plain_hub().await, Authority::new());
    let image = push(&hub);
    let blob = hub.put_blob(NAME, Bytes::from(vec![7; 100_000]));
    let start = |clients| TlsFront::start(&authority, "localhost", clients, hub.registry());
    let (registry, cdn) = (start(Clients::MustShow).await, start(Clients::MayShow).await);
    let url = |front: &TlsFront| format!("https://localhost:{}", front.at.port());
    let (certificate, key) = authority.client("roadstead");
    let pair = json!({ "certificate": certificate, "key": key });
    let setup = over_tls(&hub, &url(&registry), &authority);

    let without = setup.clone().start().await;
    assert_eq!(get_latest(&without).await.status, 502);
    assert_eq!((registry.connections(), hub.requests().len()), (0, 0));

    // The CDN is the same name on another port, which is another authority.
    let roadstead = setup
        .with("client_certificate", pair)
        .with("redirect_hosts", json!([format!("localhost:{}", cdn.at.port())]))
        .start()
        .await;
    assert_eq!(pull(roadstead.at(), NAME, "latest").await.digest, image.digest);
    let path = blob_path(NAME, &blob);
    let redirect = Action::Redirect(format!("{}{path}", url(&cdn)));
    hub.fault(Fault::new(Target::blob(&blob), redirect).times(1));
    assert!(get(roadstead.at(), path).send().await.complete);
    let tags = get(roadstead.at(), format!("/v2/{NAME}/tags/list")).send().await;
    assert_eq!(tags.status, 200, "what Pingora forwards shows it too");
    assert_eq!(registry.shown(), registry.connections());
    assert_eq!((cdn.connections(), cdn.shown()), (1, 0));
}

// === past dead addresses ===

/// `localhost` is ::1 and 127.0.0.1 nearly everywhere; where it isn't, this shows less.
#[tokio::test]
async fn a_dead_ipv6_address_is_passed_by() {
    let hub = plain_hub().await;
    let image = push(&hub);
    let port = hub.registry().port();
    let held = silent_ipv6(port).await;
    let url = format!("http://localhost:{port}");
    let roadstead = Setup::upstream(&url, &hub.token_realm()).impatient().start().await;
    assert_eq!(pull(roadstead.at(), NAME, "latest").await.digest, image.digest);
    let tags = get(roadstead.at(), format!("/v2/{NAME}/tags/list")).send().await;
    assert_eq!(tags.status, 200, "what Pingora forwards is raced too");
    assert_eq!(roadstead.metric(&["roadstead_breaker_open"]).await, 0.0);
    drop(held);
}

/// [::1] on this port: listened on, and so full that no packet is answered.
async fn silent_ipv6(port: u16) -> Option<(tokio::net::TcpListener, Vec<TcpStream>)> {
    let address = format!("[::1]:{port}").parse().unwrap();
    let socket = TcpSocket::new_v6().ok()?;
    if socket.bind(address).is_err() {
        eprintln!("this machine has no IPv6 on loopback: nothing is silent here");
        return None;
    }
    let listener = socket.listen(1).unwrap();
    let mut held = Vec::new();
    while let Ok(connected) = timeout(Duration::from_millis(300), TcpStream::connect(address)).await
    {
        held.push(connected.unwrap());
        assert!(held.len() < 100, "the backlog has no end");
    }
    Some((listener, held))
}

#[tokio::test]
async fn connections_are_used_again_by_all_of_a_name_s_requests() {
    let (hub, authority) = (plain_hub().await, Authority::new());
    let front = TlsFront::start(&authority, "localhost", Clients::Anonymous, hub.registry()).await;
    let url = format!("https://localhost:{}", front.at.port());
    let roadstead = over_tls(&hub, &url, &authority).start().await;
    for seed in 0..10 {
        let blob = hub.put_blob(NAME, Bytes::from(vec![seed; 1000]));
        assert!(get(roadstead.at(), blob_path(NAME, &blob)).send().await.complete);
        roadstead.settled().await;
    }
    // A connection is free a moment after a blob's last byte, perhaps too late for the next one.
    assert!(front.connections() <= 5, "{} connections for 10 blobs", front.connections());
}

// === within limits ===

#[tokio::test]
async fn requests_above_the_rate_wait_and_then_are_refused() {
    const RATE: f64 = 2.0;
    let hub = plain_hub().await;
    let blobs: Vec<_> =
        (0..20).map(|seed| hub.put_blob(NAME, Bytes::from(vec![seed; 1000]))).collect();
    let setup = Setup::of(&hub).impatient().with("max_requests_per_second", 2);
    let roadstead =
        setup.with("timeouts.response", "1s").with("timeouts.fetch", "5s").start().await;
    let begun = Instant::now();
    let mut clients = tokio::task::JoinSet::new();
    for blob in &blobs {
        clients.spawn(get(roadstead.at(), blob_path(NAME, blob)).send());
    }
    let replies = clients.join_all().await;
    let seconds = begun.elapsed().as_secs_f64();
    let refused: Vec<_> = replies.iter().filter(|reply| reply.status != 200).collect();
    for reply in &refused {
        assert_eq!((reply.status, reply.error_code().as_str()), (503, "TOOMANYREQUESTS"));
        assert!(reply.text().contains("max_requests_per_second"), "{}", reply.text());
    }
    let sent = hub.requests().len();
    assert!(sent as f64 <= RATE * (1.0 + seconds), "{sent} requests in {seconds} s");
    assert!(sent > 2, "none has waited");
    assert!(!refused.is_empty());
    let counted = roadstead.metric(&["roadstead_limited_total", "\"rate\""]).await;
    assert!(counted >= refused.len() as f64, "{counted}");
    assert_eq!(roadstead.metric(&["roadstead_breaker_open"]).await, 0.0);
}

#[tokio::test]
async fn bodies_share_the_bandwidth_and_their_wait_is_nobody_s_fault() {
    const SIZE: usize = 512 << 10;
    const RATE: f64 = 256.0 * 1024.0;
    let hub = plain_hub().await;
    let blobs = [1, 2].map(|seed| hub.put_blob(NAME, Bytes::from(vec![seed; SIZE])));
    // Each read is followed by a wait that is longer than timeouts.read.
    let setup = Setup::of(&hub).with("max_bandwidth", "256KiB").with("timeouts.read", "200ms");
    let roadstead = setup.start().await;
    let begun = Instant::now();
    let one = |blob: &str| get(roadstead.at(), blob_path(NAME, blob)).send();
    let replies = tokio::join!(one(&blobs[0]), one(&blobs[1]));
    let seconds = begun.elapsed().as_secs_f64();
    for reply in [&replies.0, &replies.1] {
        assert!(reply.complete && reply.status == 200, "{}", reply.status);
    }
    // All but a first piece each has waited for its turn.
    let least = (2 * SIZE - (256 << 10)) as f64 / RATE;
    assert!(seconds >= least, "{} bytes in {seconds} s", 2 * SIZE);
    let (first, last) = (replies.0.took.min(replies.1.took), replies.0.took.max(replies.1.took));
    assert!(first.as_secs_f64() > last.as_secs_f64() * 0.6, "unfair: {first:?} and {last:?}");
    assert_eq!((hub.blob_gets(&blobs[0]), hub.blob_gets(&blobs[1])), (1, 1), "resumed");
    assert_eq!(roadstead.metric(&["roadstead_breaker_open"]).await, 0.0);
}

#[tokio::test]
async fn small_bodies_do_not_wait_for_the_bandwidth() {
    let hub = plain_hub().await;
    push(&hub);
    let roadstead = Setup::of(&hub).with("max_bandwidth", "64KiB").start().await;
    let begun = Instant::now();
    together((0..8).map(|_| {
        let request = get_manifest(roadstead.at(), NAME, "latest");
        async move { assert_eq!(request.send().await.status, 200) }
    }))
    .await;
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
}
