//! Access lines in Apache's combined format: apart from the log, and safe whatever clients send.

use std::collections::BTreeSet;

use hub::{Hub, ImageSpec};

use crate::client::get;
use crate::pull::{accepting, manifest_path};
use crate::roadstead::Setup;

const NAME: &str = "library/alpine";

/// The lines of the log that are in the combined format.
fn combined(log: &str) -> Vec<&str> {
    log.lines().filter(|line| line.starts_with("127.0.0.1 - ")).collect()
}

#[tokio::test]
async fn lines_are_as_apache_has_them_along_either_way() {
    let hub = Hub::start().await;
    hub.push(&ImageSpec::new(NAME).tag("latest").single());
    let setup = Setup::of(&hub).with("tags.fresh_for", "1h");
    let roadstead = setup.arguments(&["serve", "--access-log", "combined"]).start().await;
    let path = manifest_path(NAME, "latest");
    let request = accepting(get(roadstead.at(), &path))
        .header("user-agent", "docker/28.5 \"x\"")
        .header("referer", "http://example.com/");
    let mut bytes = 0;
    for _ in 0..4 {
        bytes = request.clone().send().await.body.len();
    }
    assert!(roadstead.metric(&["roadstead_repeated_answers_total"]).await > 0.0);
    let log = roadstead.whole_log().await;
    let lines = combined(&log);
    let pulls: Vec<_> = lines.iter().filter(|line| line.contains(&path)).collect();
    assert_eq!(pulls.len(), 4, "{log}");
    for line in pulls {
        let (before, after) = line.split_once("] ").unwrap();
        let time = before.strip_prefix("127.0.0.1 - - [").unwrap();
        assert!(time.ends_with(" +0000") && time.len() == "06/Nov/1994:08:49:37 +0000".len());
        let end = "\"http://example.com/\" \"docker/28.5 \\\"x\\\"\"";
        assert_eq!(after, format!("\"GET {path} HTTP/1.1\" 200 {bytes} {end}"));
    }
    assert!(!log.contains("access: client="), "no line is written twice");
    assert!(log.contains("roadstead::server: ready"), "the log itself stays as it was");
}

#[tokio::test]
async fn a_hostile_path_or_agent_makes_no_line_of_its_own() {
    let hub = Hub::start().await;
    let roadstead = Setup::of(&hub).arguments(&["serve", "--access-log", "combined"]).start().await;
    let request = get(roadstead.at(), "/v2/\"%0a'\u{e9}/tags/list");
    request.header("user-agent", "a\" 200 1 \"-\" \"b\t\u{e9}").send().await;
    let log = roadstead.whole_log().await;
    let line = combined(&log).into_iter().find(|line| line.contains("/v2/")).unwrap();
    assert!(line.is_ascii() && !line.contains('\t'), "{line:?}");
    assert_eq!(line.matches(" \"").count(), 3, "{line}");
    assert!(line.ends_with('"') && line.contains("a\\\" 200 1 \\\"-\\\" \\\"b\\x09"), "{line}");
}

#[tokio::test]
async fn access_lines_may_be_json_beside_a_log_that_is_text() {
    let hub = Hub::start().await;
    let roadstead = Setup::of(&hub).arguments(&["serve", "--access-log", "json"]).start().await;
    get(roadstead.at(), "/v2/").send().await;
    let log = roadstead.whole_log().await;
    let line = log.lines().find(|line| line.contains("\"path\":\"/v2/\"")).unwrap();
    let line: serde_json::Value = serde_json::from_str(line).unwrap();
    assert_eq!((&line["status"], &line["target"]), (&200.into(), &"access".into()));
    assert!(line.get("agent").is_none() && line.get("user").is_none(), "{line}");
}

#[tokio::test]
async fn a_log_that_is_json_is_json_line_by_line() {
    let hub = Hub::start().await;
    hub.push(&ImageSpec::new(NAME).tag("latest").single());
    let roadstead = Setup::of(&hub).arguments(&["serve", "--log-format", "json"]).start().await;
    let path = manifest_path(NAME, "latest");
    assert_eq!(accepting(get(roadstead.at(), &path)).send().await.status, 200);
    let log = roadstead.whole_log().await;
    let mut targets = BTreeSet::new();
    for text in log.lines() {
        let line: serde_json::Value =
            serde_json::from_str(text).unwrap_or_else(|_| panic!("{text}"));
        let level = line["level"].as_str().unwrap_or_else(|| panic!("no level in {text}"));
        assert!(["ERROR", "WARN", "INFO", "DEBUG"].contains(&level), "{text}");
        let time = line["timestamp"].as_str().unwrap_or_else(|| panic!("no time in {text}"));
        assert!(time.parse::<jiff::Timestamp>().is_ok(), "{text}");
        targets.insert(line["target"].as_str().unwrap().to_owned());
    }
    assert!(targets.contains("access") && targets.contains("roadstead::server"), "{targets:?}");
}
