//! The PromQL of the dashboard, the rules and the runbooks.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{RUNBOOKS, array, text};

pub(super) const RULES: &str = "deploy/prometheus/rules.yaml";
const DASHBOARD: &str = "deploy/grafana/collibra-auth-proxy.json";

/// An expression.
pub(super) struct Expression {
    /// Where it stands: a panel, a rule, a runbook.
    pub(super) place: String,
    /// As it is written, with Grafana's variables.
    pub(super) text: String,
}

/// The dashboard.
pub(super) fn dashboard() -> Value {
    serde_json::from_str(&text(DASHBOARD)).unwrap()
}

/// Every rule, in order.
pub(super) fn rules() -> Vec<Value> {
    let file: Value = serde_saphyr::from_str(&text(RULES)).unwrap();
    let groups = array(&file["groups"]);
    groups
        .flat_map(|group| array(&group["rules"]).cloned())
        .collect()
}

/// Every rule that is an alert.
pub(super) fn alerts() -> Vec<Value> {
    let mut rules = rules();
    rules.retain(|rule| rule["alert"].is_string());
    rules
}

/// Every expression there is.
pub(super) fn all() -> Vec<Expression> {
    let mut all = of_dashboard();
    for rule in rules() {
        let name = rule["alert"].as_str().or(rule["record"].as_str()).unwrap();
        all.push(expression(name.to_owned(), &rule["expr"]));
    }
    let runbooks = text(RUNBOOKS);
    for block in runbooks.split("```promql\n").skip(1) {
        let (block, _) = block.split_once("```").unwrap();
        all.push(Expression {
            place: RUNBOOKS.to_owned(),
            text: block.to_owned(),
        });
    }
    all
}

/// Those of the dashboard: of its panels, and of its variables.
pub(super) fn of_dashboard() -> Vec<Expression> {
    let dashboard = dashboard();
    let mut found = Vec::new();
    for panel in array(&dashboard["panels"]) {
        let title = panel["title"].as_str().unwrap();
        for target in array(&panel["targets"]) {
            found.push(expression(format!("panel {title:?}"), &target["expr"]));
        }
    }
    for variable in array(&dashboard["templating"]["list"]) {
        // label_values(EXPRESSION, LABEL)
        let query = variable["query"]["query"].as_str().unwrap_or_default();
        if let Some(query) = query.strip_prefix("label_values(") {
            found.push(Expression {
                place: format!("variable {}", variable["name"]),
                text: query.rsplit_once(", ").unwrap().0.to_owned(),
            });
        }
    }
    found
}

fn expression(place: String, text: &Value) -> Expression {
    let text = text.as_str().unwrap_or_else(|| panic!("{place}: no text"));
    Expression {
        place,
        text: text.to_owned(),
    }
}

/// The expression with Grafana's variables filled in: all clients and apps, intervals of 10 s.
pub(super) fn filled_in(text: &str) -> String {
    let mut text = text.replace("$__rate_interval", "10s");
    for (variable, value) in [("$__range", "1m"), ("$datasource", "")] {
        text = text.replace(variable, value);
    }
    for variable in ["$job", "$instance", "$client", "$app"] {
        text = text.replace(variable, ".*");
    }
    text
}

/// The names of the metrics in an expression.
pub(super) fn metrics(text: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let bare = without_labels(text);
    let mut rest = bare.as_str();
    while let Some(start) = rest.find(|c: char| c.is_ascii_alphabetic() || c == '_') {
        let after = &rest[start..];
        let end = after.find(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':');
        let (word, after) = after.split_at(end.unwrap_or(after.len()));
        if word.contains("proxy")
            || word.starts_with("process_")
            || word == "up"
            || word == "ALERTS"
        {
            names.insert(word.to_owned());
        }
        rest = after;
    }
    names
}

/// The expression without label matchers and strings.
fn without_labels(text: &str) -> String {
    let mut kept = String::new();
    let (mut quoted, mut depth) = (false, 0);
    for c in text.chars() {
        match c {
            '"' => quoted = !quoted,
            '{' if !quoted => depth += 1,
            '}' if !quoted => {
                depth -= 1;
                // two names do not grow together
                kept.push(' ');
            }
            _ if !quoted && depth == 0 => kept.push(c),
            _ => {}
        }
    }
    kept
}

mod of_the_reading_itself {
    use super::*;

    #[test]
    fn metrics_are_told_from_labels_and_functions() {
        let text = r#"sum by (client) (rate(collibra_auth_proxy_x_total{app=~"collibra_auth_proxy_y", c="}"}[5m]))
            and on (job) up == 0 or a:collibra_auth_proxy_z:rate5m"#;
        let names: Vec<_> = metrics(text).into_iter().collect();
        assert_eq!(
            names,
            [
                "a:collibra_auth_proxy_z:rate5m",
                "collibra_auth_proxy_x_total",
                "up"
            ]
        );
    }
}
