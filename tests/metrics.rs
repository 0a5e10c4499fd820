//! What is said of the metrics elsewhere, held against the metrics: the README's table, the rules and
//! alerts for Prometheus, and the dashboard for Grafana.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::{collections::BTreeSet, fs, path::Path};

use regex::Regex;
use roadstead::metrics::{Family, families, register_all};
use serde_json::Value;

fn read(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn known() -> Vec<Family> {
    register_all();
    families()
}

fn dashboard() -> Value {
    serde_json::from_str(&read("conf/grafana/roadstead.json")).unwrap()
}

/// Every string below the key `wanted`.
fn texts<'a>(value: &'a Value, wanted: &str, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(object) => {
            for (key, value) in object {
                match value {
                    Value::String(text) if key == wanted => found.push(text),
                    value => texts(value, wanted, found),
                }
            }
        }
        Value::Array(array) => array.iter().for_each(|value| texts(value, wanted, found)),
        _ => {}
    }
}

/// Names of metrics and recording rules in an expression, and the labels that it picks or groups by.
fn named(text: &str) -> (BTreeSet<String>, BTreeSet<String>) {
    let name = Regex::new(r"(?-u:\b)(?:roadstead|process)[_:][a-z0-9_:]+").unwrap();
    let label = Regex::new(r#"([a-z_]+) *(?:=~|!~|!=|=) *""#).unwrap();
    let grouped = Regex::new(r"(?-u:\b)(?:by|on|group_left) *\(([^)]*)\)").unwrap();
    let names = name.find_iter(text).map(|found| found.as_str().to_owned()).collect();
    let mut labels: BTreeSet<String> =
        label.captures_iter(text).map(|found| found[1].to_owned()).collect();
    for found in grouped.captures_iter(text) {
        labels.extend(found[1].split(',').map(|label| label.trim().to_owned()));
    }
    (names, labels)
}

/// Panics where `text` names what is no metric, label or rule.
fn assert_exists(place: &str, text: &str, rules: &BTreeSet<String>) {
    let known = known();
    let (names, labels) = named(text);
    for name in names.difference(rules) {
        let is_sample = |family: &Family| match family.kind {
            "histogram" => ["_bucket", "_sum", "_count"]
                .iter()
                .any(|suffix| name.strip_suffix(suffix) == Some(&*family.name)),
            _ => family.name == *name,
        };
        assert!(known.iter().any(is_sample), "{place} names {name}, which is no metric");
    }
    let own = ["job", "instance", "le", "alertname", "severity"];
    for label in labels {
        let is_known = known.iter().any(|family| family.labels.contains(&label));
        assert!(is_known || own.contains(&&*label), "{place} names the label {label}: {text}");
    }
}

fn rules() -> BTreeSet<String> {
    let record = Regex::new(r"record: ([a-z0-9_:]+)").unwrap();
    let text = read("conf/prometheus/rules.yaml");
    record.captures_iter(&text).map(|found| found[1].to_owned()).collect()
}

#[test]
fn the_readme_s_table_is_what_there_is() {
    let row =
        Regex::new(r"(?m)^\| `([a-z_]+)` \| (counter|gauge|histogram) \|([^|]*)\|([^|\n]+)\|$");
    let row = row.unwrap();
    let readme = read("README.md");
    let told = row.captures_iter(&readme).map(|found| {
        let labels = found[3].split(',').map(|label| label.trim().trim_matches('`').to_owned());
        let mut labels: Vec<_> = labels.filter(|label| !label.is_empty()).collect();
        labels.sort();
        assert!(found[4].trim().len() > 5, "{} is not explained", &found[1]);
        (found[1].to_owned(), found[2].to_owned(), labels)
    });
    let mut told: Vec<_> = told.collect();
    let mut there: Vec<_> = known()
        .into_iter()
        .map(|family| {
            let mut labels = family.labels;
            labels.sort();
            (family.name, family.kind.to_owned(), labels)
        })
        .collect();
    told.sort();
    there.sort();
    for row in &told {
        assert!(there.contains(row), "the README's table has {row:?}, which is no metric");
    }
    for family in &there {
        assert!(told.contains(family), "the README's table misses {family:?}");
    }
    assert_eq!(told.len(), there.len(), "the README's table says something twice");
}

#[test]
fn the_dashboard_shows_what_there_is() {
    let (dashboard, rules) = (dashboard(), rules());
    let mut expressions = Vec::new();
    texts(&dashboard, "expr", &mut expressions);
    assert!(expressions.len() > 50, "the expressions were not found");
    for expression in expressions {
        let expression = expression.replace("$__rate_interval", "5m");
        assert_exists("the dashboard", &expression, &rules);
    }
}

#[test]
fn each_panel_of_the_dashboard_can_be_read() {
    let dashboard = dashboard();
    let panels = dashboard["panels"].as_array().unwrap();
    let mut ids = BTreeSet::new();
    for panel in panels {
        let title = panel["title"].as_str().unwrap();
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title} has another's id");
        let place = &panel["gridPos"];
        let end = place["x"].as_u64().unwrap() + place["w"].as_u64().unwrap();
        assert!(end <= 24, "{title} hangs over the edge");
        if panel["type"] == "row" {
            continue;
        }
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}");
        assert!(panel["description"].as_str().is_some_and(|text| text.len() > 20), "{title}");
        let unit = &panel["fieldConfig"]["defaults"]["unit"];
        assert!(unit.is_string() || panel["options"]["yAxis"]["unit"].is_string(), "{title}");
    }
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    assert_eq!(variables[0]["type"], "datasource");
}

#[test]
fn rules_and_alerts_watch_what_there_is() {
    let rules = rules();
    let expression = Regex::new(r"(?m)^        expr: (\|\n(?: {10}.*\n)+|.*$)").unwrap();
    for file in ["conf/prometheus/rules.yaml", "conf/prometheus/alerts.yaml"] {
        let text = read(file);
        let found: Vec<_> =
            expression.captures_iter(&text).map(|found| found[1].to_owned()).collect();
        assert_eq!(found.len(), text.matches("expr:").count(), "{file}");
        found.iter().for_each(|expression| assert_exists(file, expression, &rules));
    }
}

#[test]
fn each_alert_names_its_remedy() {
    let text = read("conf/prometheus/alerts.yaml");
    let tests = read("tests/metrics/alerts.yaml");
    let alerts: Vec<_> = text.split("- alert: ").skip(1).collect();
    assert!(alerts.len() > 8);
    for alert in alerts {
        let name = alert.lines().next().unwrap();
        for word in ["severity: ", "summary: ", "description: ", "remedy: "] {
            assert!(alert.contains(word), "{name} has no {word}");
        }
        assert!(tests.contains(name), "no test of {name}");
    }
}
