//! The dashboard and the alerts fit the program: every metric that they name is exported, every
//! expression finds series in a real Prometheus, and every alert is tested and has a runbook.

mod expressions;
mod live;
mod prometheus;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::support::process::run;
use expressions::{Expression, alerts, dashboard, metrics, rules};

const RUNBOOKS: &str = "docs/runbooks.md";

fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn text(path: &str) -> String {
    fs::read_to_string(top().join(path)).unwrap()
}

fn array(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn assert_none(faults: &[String]) {
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

/// The name and kind of each metric that the program exports, as its documentation lists them;
/// tests/it/metrics.rs holds that list against the program.
fn exported() -> BTreeMap<String, String> {
    let page = text("docs/metrics.md");
    let rows = page.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| `")?.split(" | ");
        let name = cells.next()?.trim_end_matches('`');
        Some((name.to_owned(), cells.next()?.to_owned()))
    });
    rows.collect()
}

/// Whether a metric of this name is among those.
fn is_exported(name: &str, exported: &BTreeMap<String, String>) -> bool {
    let histogram = ["_bucket", "_sum", "_count"]
        .iter()
        .filter_map(|series| name.strip_suffix(series))
        .any(|name| exported.get(name).is_some_and(|kind| kind == "histogram"));
    // those of the process are the library's
    histogram || exported.contains_key(name) || name.starts_with("process_")
}

#[test]
fn every_metric_is_exported_or_recorded() {
    let (rules, exported) = (rules(), exported());
    assert!(exported.len() > 20, "{exported:?}");
    let recorded: BTreeSet<&str> = rules
        .iter()
        .filter_map(|rule| rule["record"].as_str())
        .collect();
    // Prometheus makes these
    let own = ["up", "ALERTS"];
    let mut faults = Vec::new();
    for Expression { place, text } in expressions::all() {
        let named = metrics(&text);
        if named.is_empty() {
            faults.push(format!("{place}: no metric in {text}"));
        }
        for name in named {
            let known =
                own.contains(&&*name) || recorded.contains(&*name) || is_exported(&name, &exported);
            if !known {
                faults.push(format!("{place}: nothing exports {name}"));
            }
        }
    }
    assert_none(&faults);
}

#[test]
fn promtool_accepts_the_rules_and_their_tests() {
    for (check, file) in [("check", "rules.yaml"), ("test", "rules_test.yaml")] {
        let path = top().join("deploy/prometheus").join(file);
        let ended = run(Command::new("promtool").args([check, "rules"]).arg(path));
        assert_eq!(ended.status, 0, "{file}:\n{}\n{}", ended.out, ended.err);
    }
}

#[test]
fn every_alert_is_tested_to_fire_and_not_to_fire() {
    let tests: Value = serde_saphyr::from_str(&text("deploy/prometheus/rules_test.yaml")).unwrap();
    let mut seen = BTreeMap::<&str, [bool; 2]>::new();
    for case in array(&tests["tests"]).flat_map(|test| array(&test["alert_rule_test"])) {
        let fires = array(&case["exp_alerts"]).next().is_some();
        let name = case["alertname"].as_str().unwrap();
        seen.entry(name).or_default()[usize::from(fires)] = true;
    }
    let alerts = alerts();
    let named: BTreeSet<&str> = alerts
        .iter()
        .map(|alert| alert["alert"].as_str().unwrap())
        .collect();
    assert_eq!(named, seen.keys().copied().collect());
    for (name, [quiet, fires]) in seen {
        assert!(quiet && fires, "{name}: fires {fires}, quiet {quiet}");
    }
}

#[test]
fn every_alert_says_how_bad_it_is_and_what_to_do() {
    let runbooks = text(RUNBOOKS);
    let sections: BTreeMap<&str, &str> = runbooks
        .split("\n## ")
        .skip(1)
        .filter_map(|section| section.split_once('\n'))
        .filter(|(heading, _)| heading.starts_with("CollibraAuthProxy"))
        .collect();
    let alerts = alerts();
    for alert in &alerts {
        let name = alert["alert"].as_str().unwrap();
        let severity = alert["labels"]["severity"].as_str().unwrap();
        assert!(["critical", "warning"].contains(&severity), "{name}");
        let annotations = &alert["annotations"];
        for annotation in ["summary", "description"] {
            let text = annotations[annotation].as_str().unwrap_or_default();
            assert!(text.ends_with('.'), "{name}: {annotation} is no sentence");
        }
        // as GitHub makes an anchor of a heading that is one word
        let anchor = format!("/{RUNBOOKS}#{}", name.to_lowercase());
        let url = annotations["runbook_url"].as_str().unwrap();
        assert!(url.ends_with(&anchor), "{name}: {url}");
        let section = sections
            .get(name)
            .unwrap_or_else(|| panic!("{RUNBOOKS} has no section {name}"));
        assert!(section.contains("```console"), "{name} has no commands");
    }
    assert_eq!(sections.len(), alerts.len(), "a section has no alert");
}

#[test]
fn the_copies_of_the_rules_are_the_rules() {
    let folder = tempfile::tempdir().unwrap();
    let script = "deploy/prometheus/copy.sh";
    let ended = run(Command::new(top().join(script)).arg(folder.path()));
    assert_eq!(ended.status, 0, "{}", ended.err);
    let resource = "deploy/kubernetes/components/prometheus-rule/prometheus-rule.yaml";
    for path in [resource, "deploy/helm/collibra-auth-proxy/files/rules.yaml"] {
        let written = fs::read_to_string(folder.path().join(path)).unwrap();
        assert!(written == text(path), "{path} is old: run {script}");
    }
    let plain: Value = serde_saphyr::from_str(&text(expressions::RULES)).unwrap();
    let resource: Value = serde_saphyr::from_str(&text(resource)).unwrap();
    assert_eq!(resource["spec"], plain);
}

#[test]
fn the_dashboard_can_be_imported_anywhere() {
    let dashboard = dashboard();
    let mut ids = BTreeSet::new();
    let mut cells = BTreeSet::new();
    let mut faults = Vec::new();
    for panel in array(&dashboard["panels"]) {
        let title = panel["title"].as_str().unwrap();
        if !ids.insert(panel["id"].as_u64().unwrap()) {
            faults.push(format!("{title}: its id is another panel's"));
        }
        let [x, y, w, h] = ["x", "y", "w", "h"].map(|key| panel["gridPos"][key].as_u64().unwrap());
        if x + w > 24 {
            faults.push(format!("{title}: is wider than the page"));
        }
        let places = (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y)));
        if places.filter(|place| !cells.insert(*place)).count() > 0 {
            faults.push(format!("{title}: lies upon another panel"));
        }
        let sources = array(&panel["targets"]).map(|target| &target["datasource"]);
        let own = (panel["type"] != "row").then_some(&panel["datasource"]);
        for source in sources.chain(own) {
            if source["type"] != "prometheus" || source["uid"] != "${datasource}" {
                faults.push(format!("{title}: its data source is {source}"));
            }
        }
        let mut refs = BTreeSet::new();
        if !array(&panel["targets"]).all(|target| refs.insert(target["refId"].as_str())) {
            faults.push(format!("{title}: two queries have one refId"));
        }
    }
    let variables: BTreeSet<&str> = array(&dashboard["templating"]["list"])
        .map(|variable| variable["name"].as_str().unwrap())
        .collect();
    for Expression { place, text } in expressions::of_dashboard() {
        for name in text.split('$').skip(1) {
            let end = name.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            let name = &name[..end.unwrap_or(name.len())];
            // Grafana's own begin so
            if !name.starts_with("__") && !variables.contains(name) {
                faults.push(format!("{place}: there is no variable ${name}"));
            }
        }
    }
    assert_none(&faults);
    let rows: Vec<_> = array(&dashboard["panels"])
        .filter(|panel| panel["type"] == "row")
        .map(|panel| panel["title"].as_str().unwrap())
        .collect();
    insta::assert_snapshot!(rows.join(", "), @"Tokens, Pool, Traffic, Errors, Latency, Upstream, Fleet and store, Process");
}
