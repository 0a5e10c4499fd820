//! `roadstead doctor`: it finds what is wrong, says what to do, and costs nothing.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use hub::{Account, Action, Fault, Hub, Options, Target};
use serde_json::{Value, json};

use crate::client::request;
use crate::roadstead::{BINARY, Roadstead, Setup, free_address};

/// What a program prints, and how it ended.
struct Told {
    code: Option<i32>,
    text: String,
    document: Value,
}

// === impl Told ===

impl Told {
    fn of(output: &Output) -> Self {
        let text = String::from_utf8(output.stdout.clone()).unwrap();
        let document = serde_json::from_str(&text).unwrap_or_else(|error| {
            panic!("{error}: {text}\n{}", String::from_utf8_lossy(&output.stderr))
        });
        Self { code: output.status.code(), text, document }
    }

    fn findings(&self) -> impl Iterator<Item = &Value> {
        self.document["findings"].as_array().unwrap().iter()
    }

    fn all(&self, group: &str, check: &str) -> Vec<&Value> {
        let all = self.findings();
        all.filter(|it| it["group"] == group && it["check"] == check).collect()
    }

    /// The one finding of a check.
    fn one(&self, group: &str, check: &str) -> &Value {
        match self.all(group, check).as_slice() {
            [one] => one,
            all => panic!("{} of {group}/{check} in {}", all.len(), self.text),
        }
    }

    fn faults(&self) -> Vec<&Value> {
        self.findings().filter(|it| it["level"] == "fault").collect()
    }
}

async fn run(args: &[&str]) -> Output {
    let mut command = tokio::process::Command::new(BINARY);
    command.arg("doctor").args(args).env_remove("RUST_LOG");
    command.output().await.unwrap()
}

async fn doctor(config: &Path) -> Told {
    Told::of(&run(&["--json", "--config", config.to_str().unwrap()]).await)
}

async fn hub_with(accounts: Vec<Account>) -> Hub {
    let options = Options { accounts, limit: Some(100), ..Options::default() };
    Hub::start_with(options).await.unwrap()
}

/// A configuration that asks for what is left, as it does at Docker Hub.
fn with_probe(hub: &Hub) -> Setup {
    Setup::of(hub).with("budget.probe", "ratelimitpreview/test:latest")
}

fn account(password: &str) -> Value {
    json!([{ "username": "alice", "password": password }])
}

/// The names of all files below a directory.
fn names(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        found.push(entry.path().display().to_string());
        found.extend(names(&entry.path()));
    }
    // The server's own, written anew every ten seconds.
    found.retain(|name| !name.contains("/history."));
    found.sort();
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_is_well_and_nothing_is_spent_or_changed() {
    let hub = hub_with(vec![Account::new("alice", "sesame-42")]).await;
    let setup = with_probe(&hub).with("credentials.accounts", account("sesame-42"));
    let roadstead = setup.start().await;
    let before = names(&roadstead.data());
    let told = doctor(&roadstead.config()).await;
    assert_eq!((told.code, told.faults()), (Some(0), vec![]), "{}", told.text);
    let stats = hub.stats();
    assert_eq!(stats.counted, 0, "{stats:?}");
    assert_eq!(stats.remaining.get("alice"), Some(&200), "{stats:?}");
    assert_eq!(names(&roadstead.data()), before);
    roadstead.assert_books_are_right().await;

    assert_ne!(told.document["outcome"], "fault");
    assert_eq!(told.one("upstreams", "reach")["level"], "ok");
    assert_eq!(told.one("clock", "date")["level"], "ok");
    assert_eq!(told.all("credentials", "token").len(), 2, "alice and nobody: {}", told.text);
    let budgets = told.all("budget", "left");
    let found = |n: usize| budgets[n]["found"].as_str().unwrap().to_owned();
    assert!(found(0).starts_with("200 of 200 pulls in 6 h are left"), "{}", found(0));
    assert!(found(1).starts_with("100 of 100 pulls in 6 h are left"), "{}", found(1));
    assert_eq!(told.one("server", "ready")["level"], "ok");
    assert_eq!(told.one("server", "upstream")["found"], "is asked as usual");
    let answers = told.one("listeners", "answers")["found"].as_str().unwrap().to_owned();
    assert!(answers.starts_with("Roadstead answers"), "{answers}");
    for (group, check) in
        [("directory", "space"), ("directory", "speed"), ("directory", "fsync"), ("files", "limit")]
    {
        assert!(!told.one(group, check)["found"].as_str().unwrap().is_empty());
    }
    for finding in told.findings().filter(|it| it["level"] != "ok") {
        assert!(finding["remedy"].as_str().is_some_and(|it| it.len() > 10), "{finding}");
    }
    assert!(!told.text.contains("sesame"), "{}", told.text);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_that_is_refused_is_a_fault_and_never_shown() {
    let hub = hub_with(vec![Account::new("alice", "right-one")]).await;
    let setup = Setup::of(&hub).with("credentials.accounts", account("wrong-one"));
    let roadstead = setup.start().await;
    let told = doctor(&roadstead.config()).await;
    assert_eq!(told.code, Some(1), "{}", told.text);
    let faults = told.faults();
    assert_eq!(faults.len(), 1, "{}", told.text);
    assert_eq!(faults[0]["about"], "docker.io as alice");
    assert!(faults[0]["found"].as_str().unwrap().contains("check its password"));
    let plain = run(&["--config", roadstead.config().to_str().unwrap()]).await;
    let plain = String::from_utf8(plain.stdout).unwrap();
    for text in [&told.text, &plain] {
        assert!(!text.contains("wrong-one") && !text.contains("right-one"), "{text}");
    }
    assert!(
        plain.lines().all(|line| line.chars().count() <= 80 || !line.contains(": ")),
        "{plain}"
    );
    assert!(!plain.contains('\u{1b}') && plain.contains("→ "), "{plain}");
    assert_eq!(hub.stats().counted, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_spent_and_what_is_switched_off_is_told() {
    let hub = hub_with(Vec::new()).await;
    hub.set_budget(None, 0);
    let roadstead = with_probe(&hub).start().await;
    let told = doctor(&roadstead.config()).await;
    let budget = told.one("budget", "left");
    assert_eq!(budget["level"], "fault", "{}", told.text);
    assert!(budget["found"].as_str().unwrap().starts_with("0 of 100 pulls"), "{budget}");
    assert_eq!(told.code, Some(1));

    hub.set_budget(None, 5);
    let switch = request(roadstead.admin(), "POST", "/api/v1/offline");
    let reply = switch.header("X-Roadstead", "1").body(r#"{"offline":true}"#).send().await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let told = doctor(&roadstead.config()).await;
    assert_eq!(told.code, Some(0), "{}", told.text);
    let upstream = told.one("server", "upstream");
    assert_eq!(upstream["level"], "warning", "{}", told.text);
    assert!(upstream["commands"][0].as_str().unwrap().contains("/api/v1/offline"), "{upstream}");
    assert_eq!(told.one("budget", "left")["level"], "warning", "below the reserve: {}", told.text);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registry_that_says_nothing_is_told_within_its_time_and_beside_all_else() {
    let hub = hub_with(Vec::new()).await;
    hub.fault(Fault::new(Target::any(), Action::Hang));
    let roadstead = Setup::of(&hub).impatient().start().await;
    let began = Instant::now();
    let told = doctor(&roadstead.config()).await;
    assert!(began.elapsed() < Duration::from_secs(40), "{:?}", began.elapsed());
    let reach = told.one("upstreams", "reach");
    assert_eq!(reach["level"], "fault", "{}", told.text);
    assert!(reach["commands"][0].as_str().unwrap().starts_with("curl "), "{reach}");
    assert_eq!(told.one("directory", "space")["group"], "directory");
    assert_eq!(told.code, Some(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_that_another_program_has_is_told() {
    let hub = hub_with(Vec::new()).await;
    let mut roadstead = Roadstead::start(&hub).await;
    roadstead.terminate().await;
    let config = roadstead.config();
    let told = doctor(&config).await;
    assert_eq!(told.one("server", "running")["level"], "note", "{}", told.text);
    assert_eq!(told.one("listeners", "answers")["level"], "note", "{}", told.text);
    let _other = TcpListener::bind(roadstead.at()).unwrap();
    let told = doctor(&config).await;
    assert_eq!(told.one("listeners", "answers")["level"], "fault", "{}", told.text);
    assert_eq!(told.code, Some(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_can_not_be_used_is_told_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("roadstead.yaml");
    fs::write(&file, "{ store: { disk: much }, access: { allow: [nowhere] } }").unwrap();
    let told = doctor(&file).await;
    assert_eq!(told.code, Some(1), "{}", told.text);
    assert_eq!(told.all("configuration", "valid").len(), 2, "{}", told.text);

    let nobody = free_address();
    let config = format!(
        "{{ listen: [{{ address: '{}' }}], admin: {{ address: '{}' }}, store: {{ directory: {} }}, \
         upstreams: [{{ name: r, url: 'http://{nobody}' }}] }}",
        free_address(),
        free_address(),
        folder.path().join("data").display()
    );
    fs::write(&file, config).unwrap();
    let told = doctor(&file).await;
    assert_eq!(told.one("upstreams", "reach")["level"], "fault", "{}", told.text);
    assert_eq!(told.one("credentials", "token")["level"], "note", "{}", told.text);
    assert_eq!(told.one("directory", "exists")["level"], "note", "{}", told.text);
    assert!(!folder.path().join("data").exists());

    let output = Command::new(BINARY).args(["doctor", "--nonsense"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_admin_listener_that_wants_a_password_is_given_it() {
    let hub = hub_with(Vec::new()).await;
    let mut roadstead = Roadstead::start(&hub).await;
    let folder = tempfile::tempdir().unwrap();
    let (users, password) = (folder.path().join("htpasswd"), folder.path().join("password"));
    let hash = bcrypt::hash("open-sesame", 4).unwrap();
    fs::write(&users, format!("operator:{hash}\n")).unwrap();
    fs::write(&password, "open-sesame\n").unwrap();
    let config = roadstead.config();
    let mut text: Value = serde_json::from_str(&fs::read_to_string(&config).unwrap()).unwrap();
    text["admin"]["htpasswd"] = json!(users);
    roadstead.terminate().await;
    fs::write(&config, text.to_string()).unwrap();
    let mut server = Command::new(BINARY)
        .args(["serve", "--config", config.to_str().unwrap()])
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let is_up = || std::net::TcpStream::connect(roadstead.admin()).is_ok();
    crate::roadstead::eventually("the server", Duration::from_secs(20), is_up).await;
    let told = doctor(&config).await;
    let mut command = tokio::process::Command::new(BINARY);
    command.args(["doctor", "--json", "--config", config.to_str().unwrap()]);
    command.env("ROADSTEAD_ADMIN_USER", "operator");
    command.env("ROADSTEAD_ADMIN_PASSWORD_FILE", &password);
    let known = Told::of(&command.output().await.unwrap());
    server.kill().unwrap();
    server.wait().unwrap();
    assert_eq!(told.one("server", "running")["level"], "warning", "{}", told.text);
    assert!(told.text.contains("ROADSTEAD_ADMIN_USER"), "{}", told.text);
    assert_eq!(known.one("server", "upstream")["level"], "ok", "{}", known.text);
    assert!(!known.text.contains("sesame"), "{}", known.text);
}
