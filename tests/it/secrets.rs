//! P5: credentials stay home: in no log, with no stranger.

use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hub::{Account, Action, Fault, Hub, ImageSpec, Options, Target};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::client::get;
use crate::pull::{Puller, blob_path, get_manifest, manifest_path};
use crate::roadstead::{Roadstead, Setup};

const NAME: &str = "acme/secret";
const PASSWORD: &str = "correct-horse-battery";

async fn hub() -> Hub {
    let options = Options {
        accounts: vec![Account::new("alice", PASSWORD)],
        private: vec![NAME.to_owned()],
        ..Options::default()
    };
    let hub = Hub::start_with(options).await.unwrap();
    hub.push(&ImageSpec::new(NAME).tag("latest"));
    hub
}

fn setup(hub: &Hub) -> Setup {
    let account = json!([{ "username": "alice", "password": PASSWORD }]);
    Setup::of(hub).with("credentials.accounts", account)
}

/// A stranger's server: it keeps every head that is sent to it.
async fn stranger() -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let heads = Arc::new(Mutex::new(Vec::new()));
    let kept = heads.clone();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let kept = kept.clone();
            tokio::spawn(async move {
                let mut head = vec![0; 16 << 10];
                let read = socket.read(&mut head).await.unwrap_or(0);
                let head = String::from_utf8_lossy(&head[..read]).into_owned();
                kept.lock().unwrap().push(head);
                let answer = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n";
                let _ = socket.write_all(answer.as_bytes()).await;
            });
        }
    });
    (format!("http://{at}"), heads)
}

fn assert_no_credentials(heads: &Mutex<Vec<String>>) {
    for head in heads.lock().unwrap().iter() {
        assert!(!head.to_lowercase().contains("authorization:"), "{head}");
        assert!(!head.contains(PASSWORD), "{head}");
    }
}

#[tokio::test]
async fn a_realm_that_a_stranger_names_is_not_even_asked() {
    let hub = hub().await;
    let (url, heads) = stranger().await;
    let roadstead = setup(&hub).start().await;
    let realm = Fault::new(Target::manifests(), Action::Realm(format!("{url}/token")));
    hub.fault(realm);
    let reply = get_manifest(roadstead.at(), NAME, "latest").send().await;
    assert!(matches!(reply.status, 401 | 502), "{reply:?}");
    reply.error_code();
    assert!(heads.lock().unwrap().is_empty(), "{heads:?}");
    // Nor is what it said remembered.
    hub.clear_faults();
    let reply = get_manifest(roadstead.at(), NAME, "latest").send().await;
    assert_eq!(reply.status, 200);
    assert!(heads.lock().unwrap().is_empty(), "{heads:?}");
}

#[tokio::test]
async fn redirect_targets_see_no_credentials() {
    let hub = hub().await;
    let (url, heads) = stranger().await;
    let roadstead = setup(&hub).start().await;
    let elsewhere = Action::Redirect(format!("{url}/elsewhere"));
    hub.fault(Fault::new(Target::redirect().authorized(), elsewhere.clone()));
    hub.fault(Fault::new(Target::manifests().authorized(), elsewhere.clone()));
    hub.fault(Fault::new(Target::tags().authorized(), elsewhere));
    let blob = hub::sha256(b"absent");
    for path in [
        blob_path(NAME, &blob),
        manifest_path(NAME, "latest"),
        manifest_path(NAME, &blob),
        format!("/v2/{NAME}/tags/list"),
    ] {
        get(roadstead.at(), path).send().await;
    }
    assert_no_credentials(&heads);
}

#[tokio::test]
async fn a_token_server_that_redirects_takes_no_password_along() {
    let hub = hub().await;
    let (url, heads) = stranger().await;
    let roadstead = setup(&hub).start().await;
    hub.fault(Fault::new(Target::token(), Action::Redirect(format!("{url}/token"))));
    let reply = get_manifest(roadstead.at(), NAME, "latest").send().await;
    assert_ne!(reply.status, 200);
    assert_no_credentials(&heads);
}

/// A token of the hub's, as a client in `client` mode brings it.
async fn bearer(hub: &Hub, password: Option<&str>) -> String {
    let path = format!("/token?service=registry.docker.io&scope=repository:{NAME}:pull");
    let mut request = get(hub.token(), path);
    if let Some(password) = password {
        let basic = STANDARD.encode(format!("alice:{password}"));
        request = request.header("Authorization", format!("Basic {basic}"));
    }
    let token = request.send().await.json()["token"].as_str().unwrap().to_owned();
    format!("Bearer {token}")
}

/// P6, with everything in the cache already.
#[tokio::test]
async fn what_a_client_s_credentials_guard_is_for_that_client() {
    let hub = hub().await;
    let setup = Setup::of(&hub).with("credentials.mode", "client");
    let roadstead = setup.start().await;
    let alice = Puller::authorized(roadstead.at(), bearer(&hub, Some(PASSWORD)).await);
    let pulled = alice.image(NAME, "latest").await.unwrap();
    roadstead.settled().await;
    let nobody = Puller::new(roadstead.at());
    let stranger = Puller::authorized(roadstead.at(), bearer(&hub, None).await);
    let forged = Puller::authorized(roadstead.at(), "Bearer forged".to_owned());
    for client in [nobody, stranger, forged] {
        for reference in ["latest", &pulled.digest, &pulled.manifest] {
            let failed = client.manifest(NAME, reference).await.unwrap_err();
            assert_eq!(failed.status, 401, "{reference}: {failed:?}");
        }
        for blob in &pulled.blobs {
            let failed = client.blob(NAME, blob).await.unwrap_err();
            assert_eq!(failed.status, 401, "{blob}: {failed:?}");
        }
    }
    // A client learns where to get its token from upstream's own challenge.
    let reply = get_manifest(roadstead.at(), NAME, "latest").send().await;
    let challenge = reply.header("www-authenticate").unwrap();
    assert!(challenge.contains(&hub.token_realm()), "{challenge}");
    assert_eq!(alice.image(NAME, "latest").await.unwrap(), pulled);
}

/// P6: what was found with a login is nobody's on the strength of that, once the login is gone.
#[tokio::test]
async fn what_a_login_showed_is_asked_for_anew_without_it() {
    for (mode, reloads) in
        [("client", true), ("client", false), ("shared", true), ("shared", false)]
    {
        let hub = hub().await;
        let accounts = json!([{ "username": "alice", "password": PASSWORD }]);
        let credentials = match mode {
            "client" => json!({ "mode": "client" }),
            _ => json!({ "accounts": accounts }),
        };
        let setup = Setup::of(&hub).with("tags.fresh_for", "1h");
        let mut roadstead = setup.with("credentials", credentials).start().await;
        let alice = Puller::authorized(roadstead.at(), bearer(&hub, Some(PASSWORD)).await);
        let pulled = alice.image(NAME, "latest").await.unwrap();
        roadstead.settled().await;
        roadstead.rewrite(|setup| setup.with("credentials", json!({ "mode": "shared" })));
        if reloads {
            assert_eq!(roadstead.reload().await.status, 200);
        } else {
            roadstead.terminate().await;
            roadstead.restart().await;
        }
        let nobody = Puller::new(roadstead.at());
        for reference in ["latest", &pulled.digest, &pulled.manifest] {
            let failed = nobody.manifest(NAME, reference).await.unwrap_err();
            assert_eq!(failed.status, 401, "{mode} {reloads} {reference}: {failed:?}");
        }
        for blob in &pulled.blobs {
            let failed = nobody.blob(NAME, blob).await.unwrap_err();
            assert_eq!(failed.status, 401, "{mode} {reloads} {blob}: {failed:?}");
        }
        // The bytes are still there: with the login nothing is fetched again.
        let counted = hub.stats().counted;
        roadstead.rewrite(|setup| setup.with("credentials", json!({ "accounts": accounts })));
        assert_eq!(roadstead.reload().await.status, 200);
        assert_eq!(nobody.image(NAME, "latest").await.unwrap(), pulled);
        assert_eq!(hub.stats().counted, counted, "{mode} {reloads}");
    }
}

/// Everything that a log may tell: good and bad, with `levels`.
async fn busy_log(levels: &str) -> String {
    let hub = hub().await;
    let roadstead: Roadstead = setup(&hub).log(levels).impatient().start().await;
    let client = "Basic Y2xpZW50OmNsaWVudC1zZWNyZXQ=";
    let get_as_client = |path: String| get(roadstead.at(), path).header("Authorization", client);
    get_as_client(manifest_path(NAME, "latest")).send().await;
    let blob = hub.put_blob(NAME, bytes::Bytes::from(vec![1; 200_000]));
    get_as_client(blob_path(NAME, &blob)).send().await;
    get_as_client(format!("/v2/{NAME}/tags/list")).send().await;
    hub.expire_tokens();
    get_as_client(manifest_path(NAME, "latest")).send().await;
    for action in [Action::Status(500), Action::Status(401), Action::Abuse, Action::Drop] {
        hub.clear_faults();
        hub.expire_tokens();
        hub.fault(Fault::new(Target::manifests().authorized(), action.clone()));
        get_as_client(manifest_path(NAME, "latest")).send().await;
        hub.fault(Fault::new(Target::token(), action));
        get_as_client(manifest_path(NAME, "other")).send().await;
    }
    let log = roadstead.whole_log().await;
    assert!(log.contains("roadstead"), "nothing is logged");
    log
}

fn assert_silent(log: &str) {
    let pair = STANDARD.encode(format!("alice:{PASSWORD}"));
    for secret in [PASSWORD, &pair, "Y2xpZW50OmNsaWVudC1zZWNyZXQ=", "client-secret"] {
        let line = log.lines().find(|line| line.contains(secret));
        assert_eq!(line, None, "a secret is logged");
    }
    // The hub's tokens: `hub.` and 48 hexadecimal digits.
    let token = log.match_indices("hub.").find(|(at, _)| {
        let rest = log[at + 4..].chars().take(48);
        rest.filter(char::is_ascii_hexdigit).count() == 48
    });
    assert_eq!(token, None, "a token is logged");
}

#[tokio::test]
async fn nothing_secret_is_logged_at_roadstead_s_most_talkative() {
    assert_silent(&busy_log("warn,roadstead=trace,access=trace").await);
}

#[tokio::test]
async fn nothing_secret_is_logged_by_anyone() {
    assert_silent(&busy_log("trace").await);
}
