//! What goes wrong as told, seen on the wire.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hub::{Action, Fault, Hub, ImageSpec, Options, Target};
use tokio::io::AsyncReadExt as _;

use crate::client::{Reply, connect, get, send};

const NAME: &str = "library/alpine";
const SIZE: usize = 3 << 20;

/// A hub that asks for no tokens, and a blob at the registry: faults without the dance.
struct Stage {
    hub: Hub,
    digest: String,
    path: String,
    body: Bytes,
}

impl Stage {
    async fn set() -> Self {
        let options = Options { require_token: false, redirect_blobs: false, ..Options::default() };
        let hub = Hub::start_with(options).await.unwrap();
        hub.push(&ImageSpec::new(NAME).tag("latest").layers(1));
        let body: Bytes = (0..SIZE).map(|at| (at % 251) as u8).collect::<Vec<_>>().into();
        let digest = hub.put_blob(NAME, body.clone());
        let path = format!("/v2/{NAME}/blobs/{digest}");
        Self { hub, digest, path, body }
    }

    async fn with(action: Action) -> Self {
        let stage = Self::set().await;
        stage.hub.fault(Fault::new(Target::blob(&stage.digest), action).times(1));
        stage
    }

    fn at(&self) -> SocketAddr {
        self.hub.registry()
    }

    async fn get(&self) -> Reply {
        get(self.at(), &self.path, &[]).await
    }

    async fn manifest(&self, action: Action) -> Reply {
        self.hub.fault(Fault::new(Target::manifests(), action).times(1));
        get(self.at(), &format!("/v2/{NAME}/manifests/latest"), &[]).await
    }
}

#[tokio::test]
async fn a_cut_body_ends_at_its_byte_and_short_of_its_length_once() {
    for bytes in [0, 1000, 2_500_000] {
        let stage = Stage::with(Action::CutAfter(bytes)).await;
        let cut = stage.get().await;
        assert_eq!((cut.length(), cut.body.len() as u64), (SIZE as u64, bytes));
        assert_eq!(cut.body, stage.body[..bytes as usize]);
        assert_eq!(stage.get().await.body, stage.body);
        assert_eq!(stage.hub.blob_gets(&stage.digest), 2);
        assert_eq!(stage.hub.requests()[0].bytes_sent, bytes);
    }
}

#[tokio::test]
async fn a_dropped_connection_has_no_answer() {
    let stage = Stage::with(Action::Drop).await;
    assert!(send(stage.at(), "GET", &stage.path, &[], "").await.is_none());
    assert_eq!(stage.get().await.status, 200);
}

#[tokio::test]
async fn a_flipped_byte_is_the_only_wrong_one() {
    let stage = Stage::with(Action::FlipByte(SIZE as u64 - 1)).await;
    let flipped = stage.get().await.body;
    assert_eq!(flipped[..SIZE - 1], stage.body[..SIZE - 1]);
    assert_ne!(flipped[SIZE - 1], stage.body[SIZE - 1]);
}

#[tokio::test]
async fn a_hanging_body_stops_and_its_connection_stays() {
    let stage = Stage::with(Action::HangBodyAfter(1000)).await;
    let mut socket = connect(stage.at(), "GET", &stage.path, &[], "").await;
    let mut got = Vec::new();
    while !got.ends_with(&stage.body[990..1000]) {
        socket.read_buf(&mut got).await.unwrap();
    }
    let more = tokio::time::timeout(Duration::from_millis(100), socket.read_buf(&mut got)).await;
    assert!(more.is_err(), "{more:?}");
}

#[tokio::test]
async fn a_hanging_request_is_booked_and_never_answered() {
    let stage = Stage::with(Action::Hang).await;
    let mut socket = connect(stage.at(), "GET", &stage.path, &[], "").await;
    let wait = tokio::time::timeout(Duration::from_millis(100), socket.read_u8()).await;
    assert!(wait.is_err());
    assert_eq!((stage.hub.blob_gets(&stage.digest), stage.hub.requests()[0].status), (1, 0));
}

#[tokio::test]
async fn a_length_can_be_wrong_either_way_or_missing() {
    let long = Stage::with(Action::Length(10)).await.get().await;
    assert_eq!((long.length(), long.body.len()), (SIZE as u64 + 10, SIZE));
    let short = Stage::with(Action::Length(-10)).await.get().await;
    assert_eq!((short.length(), short.body.len()), (SIZE as u64 - 10, SIZE - 10));
    let none = Stage::with(Action::NoLength).await.get().await;
    assert_eq!(none.header("content-length"), None);
    assert_eq!(none.header("transfer-encoding"), Some("chunked"));
    let early = Stage::with(Action::EndEarlyWithoutLength(5)).await.get().await;
    assert_eq!(early.body, b"5\r\n\x00\x01\x02\x03\x04\r\n0\r\n\r\n");
}

#[tokio::test]
async fn a_range_can_be_ignored() {
    let stage = Stage::with(Action::IgnoreRange).await;
    let whole = get(stage.at(), &stage.path, &[("Range", "bytes=5-9")]).await;
    assert_eq!((whole.status, whole.body.len()), (200, SIZE));
    let part = get(stage.at(), &stage.path, &[("Range", "bytes=5-9")]).await;
    assert_eq!((part.status, part.body.len()), (206, 5));
}

#[tokio::test]
async fn a_throttled_body_takes_its_time() {
    let rate = SIZE as u64 * 4;
    let stage = Stage::with(Action::Throttle(rate)).await;
    let begun = Instant::now();
    assert_eq!(stage.get().await.body, stage.body);
    assert!(begun.elapsed() >= Duration::from_millis(180), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_dripping_body_comes_bit_by_bit_and_whole() {
    let every = Duration::from_millis(20);
    let stage = Stage::with(Action::Drip { bytes: 1 << 20, every }).await;
    let begun = Instant::now();
    assert_eq!(stage.get().await.body, stage.body);
    assert!(begun.elapsed() >= every * 2, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_gate_holds_every_body_at_its_byte_until_it_opens() {
    let stage = Stage::set().await;
    let gate = stage.hub.gate(Target::blobs(), 1 << 20);
    let both = async { tokio::join!(stage.get(), stage.get()) };
    let test = async {
        gate.waiting_for(2).await;
        assert!(stage.hub.requests().iter().all(|request| request.bytes_sent == 1 << 20));
        gate.open();
    };
    let ((one, other), ()) = tokio::join!(both, test);
    assert_eq!((one.body, other.body), (stage.body.to_vec(), stage.body.to_vec()));
    assert_eq!(gate.paused(), 0);
}

#[tokio::test]
async fn a_dropped_gate_is_open() {
    let stage = Stage::set().await;
    drop(stage.hub.gate(Target::any(), 0));
    assert_eq!(stage.get().await.status, 200);
}

#[tokio::test]
async fn both_kinds_of_429_are_told_apart() {
    let stage = Stage::set().await;
    let spent = stage.manifest(Action::RateLimited).await;
    assert_eq!(spent.json()["errors"][0]["code"], "TOOMANYREQUESTS");
    let abuse = stage.manifest(Action::Abuse).await;
    assert_eq!((abuse.status, abuse.header("content-type")), (429, Some("text/plain")));
    assert_eq!(
        (abuse.header("retry-after"), abuse.header("connection")),
        (Some("60"), Some("close"))
    );
    assert!(abuse.body.starts_with(b"Too Many Requests (HAP429)."));
    assert_eq!((stage.hub.stats().refused_429, stage.hub.stats().counted), (2, 0));
}

#[tokio::test]
async fn headers_can_lie_or_be_missing() {
    let stage = Stage::set().await;
    let honest = stage.manifest(Action::Delay(Duration::ZERO)).await;
    let wrong = stage.manifest(Action::WrongDigestHeader).await;
    assert_ne!(wrong.header("docker-content-digest"), honest.header("docker-content-digest"));
    assert_eq!(wrong.body, honest.body);
    assert_eq!(stage.manifest(Action::NoDigestHeader).await.header("docker-content-digest"), None);
    let bad = stage.manifest(Action::BadHeaders).await;
    assert_eq!(bad.header("ratelimit-remaining"), Some(";w=21600"));
    let other = stage.manifest(Action::Substitute(Bytes::from_static(b"{}"))).await;
    assert_eq!((other.length(), &*other.body), (2, &b"{}"[..]));
    assert_eq!(other.header("docker-content-digest"), honest.header("docker-content-digest"));
}

#[tokio::test]
async fn answers_of_other_servers_can_take_the_place_of_the_right_one() {
    let stage = Stage::set().await;
    let page = stage.manifest(Action::Html).await;
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    let away = stage.manifest(Action::Redirect("http://192.0.2.1/".to_owned())).await;
    assert_eq!((away.status, away.header("location")), (307, Some("http://192.0.2.1/")));
    let mute = stage.manifest(Action::MissingAuthenticate).await;
    assert_eq!((mute.status, mute.header("www-authenticate")), (401, None));
    let realm = stage.manifest(Action::Realm("http://192.0.2.1/token".to_owned())).await;
    let challenge = realm.header("www-authenticate").unwrap();
    assert!(challenge.starts_with("Bearer realm=\"http://192.0.2.1/token\""), "{challenge}");
    assert!(challenge.ends_with("scope=\"repository:library/alpine:pull\""), "{challenge}");
}

#[tokio::test]
async fn a_fault_of_the_body_is_not_spent_on_a_head_nor_on_an_error() {
    let stage = Stage::with(Action::CutAfter(10)).await;
    assert_eq!(send(stage.at(), "HEAD", &stage.path, &[], "").await.unwrap().length(), SIZE as u64);
    assert_eq!(get(stage.at(), &stage.path, &[("Range", "bytes=9999999-")]).await.status, 416);
    assert_eq!(stage.get().await.body.len(), 10);
}
