//! The status as tables for people: a pure function of the report.

use std::time::Duration;

use crate::admin::report::{ClientReport, NextKind, StatusReport};
use crate::telemetry::printable::clean;

/// The tables: clients, what failed last and why, apps, listeners.
pub(super) fn render(report: &StatusReport) -> String {
    let state = if report.draining {
        "draining"
    } else if report.ready {
        "ready"
    } else {
        "not ready"
    };
    let mut text = format!(
        "collibra-auth-proxy {}, up {}: {state}\n",
        report.version,
        duration(report.uptime_seconds)
    );
    if let Some(refused) = &report.refused_configuration {
        let ago = duration(refused.seconds_ago);
        text.push_str(&format!(
            "\nconfiguration refused for {ago}, the one before stays in force:\n"
        ));
        for fault in &refused.faults {
            text.push_str(&format!("  {fault}\n"));
        }
    }
    if !report.clients.is_empty() {
        text.push('\n');
        text.push_str(&table(
            &[
                "CLIENT",
                "TOKEN",
                "LEFT",
                "NEXT REQUEST",
                "POOL",
                "REQUESTS",
                "IN FLIGHT",
                "API, 5 MIN",
                "LAST FAILURE",
            ],
            report.clients.iter().map(client),
        ));
    }
    for client in &report.clients {
        if let Some(failure) = &client.failure {
            let ago = duration(failure.seconds_ago);
            text.push_str(&format!(
                "\n{}, {ago} ago: {}\n",
                client.name, failure.message
            ));
        }
    }
    for client in &report.clients {
        let api = client.api.as_ref();
        if let Some((api, seconds)) = api.and_then(|api| Some((api, api.failing_seconds?))) {
            let (name, instance) = (&client.name, &client.instance);
            let last = api.last_failure.as_ref().map_or("", |last| &*last.message);
            text.push_str(&format!(
                "\n{name}: calls of {instance} have been failing for {}: {last}\n",
                duration(seconds)
            ));
        }
    }
    for client in &report.clients {
        let problem = client.store.as_ref().and_then(|s| s.problem.as_deref());
        if let Some(problem) = problem {
            let name = &client.name;
            text.push_str(&format!("\n{name} goes on without its store: {problem}\n"));
        }
    }
    if !report.apps.is_empty() {
        text.push('\n');
        text.push_str(&table(
            &["APP", "CLIENT", "REQUESTS", "LOCAL TOKENS"],
            report.apps.iter().map(|app| {
                [
                    app.name.clone(),
                    app.client.clone().unwrap_or_else(|| "-".to_owned()),
                    app.requests.to_string(),
                    app.local_tokens.to_string(),
                ]
            }),
        ));
    }
    if !report.listeners.is_empty() {
        text.push('\n');
        text.push_str(&table(
            &["LISTENER", "ADDRESS", "CLIENT", "CONNECTIONS"],
            report.listeners.iter().map(|listener| {
                [
                    listener.name.clone(),
                    listener.address.clone(),
                    listener.client.clone(),
                    listener.connections.to_string(),
                ]
            }),
        ));
    }
    text
}

/// A client's row.
fn client(client: &ClientReport) -> [String; 9] {
    let (token, left) = match &client.token {
        None => ("none yet".to_owned(), "-".to_owned()),
        Some(token) if token.usable => (
            format!("{}, usable", token.generation),
            duration(token.seconds_left),
        ),
        Some(token) => (format!("{}, ended", token.generation), "-".to_owned()),
    };
    let next = match (client.next.kind, client.next.in_seconds) {
        (NextKind::Answer, _) => "under way".to_owned(),
        (NextKind::Request, None | Some(0)) => "now".to_owned(),
        (NextKind::Request, Some(seconds)) => format!("in {}", duration(seconds)),
    };
    let failure = match &client.failure {
        None => "-".to_owned(),
        Some(failure) if failure.in_a_row > 1 => {
            format!("{}, {} in a row", failure.outcome, failure.in_a_row)
        }
        Some(failure) => failure.outcome.clone(),
    };
    let api = client.api.as_ref();
    let api = match api.and_then(|api| Some((api.failed, api.failed_share()?))) {
        None => "-".to_owned(),
        Some((0, _)) => "ok".to_owned(),
        Some((_, share)) => format!("{share} failed"),
    };
    [
        client.name.clone(),
        token,
        left,
        next,
        format!("{:.1} of {}", client.pool.available, client.pool.capacity),
        client.requests.total.to_string(),
        client.requests.in_flight.to_string(),
        api,
        failure,
    ]
}

fn duration(seconds: u64) -> String {
    humantime::format_duration(Duration::from_secs(seconds)).to_string()
}

/// Columns as wide as their widest cell, two spaces apart. A cell has what a terminal shows, and
/// nothing that it obeys.
pub(super) fn table<const N: usize>(
    heads: &[&str; N],
    rows: impl Iterator<Item = [String; N]>,
) -> String {
    let mut lines = vec![heads.map(str::to_owned)];
    lines.extend(rows.map(|row| row.map(|cell| clean(&cell).into_owned())));
    let widths: [usize; N] = std::array::from_fn(|column| {
        let cells = lines.iter().map(|line| line[column].chars().count());
        cells.max().unwrap_or(0)
    });
    let mut text = String::new();
    for line in &lines {
        let mut padded = String::new();
        for (cell, width) in line.iter().zip(widths) {
            padded.push_str(&format!("{cell:<width$}  "));
        }
        text.push_str(padded.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn report(ready: bool, draining: bool, clients: serde_json::Value) -> StatusReport {
        let listeners = json!([{
            "name": "local", "address": "127.0.0.1:8080", "client": "catalog", "connections": 12
        }]);
        serde_json::from_value(json!({
            "version": "0.1.0", "started": "2027-01-15T08:00:00Z", "uptime_seconds": 11_524,
            "ready": ready, "draining": draining, "clients": clients, "listeners": listeners,
            "apps": [{ "name": "lineage", "client": null, "requests": 48_000, "local_tokens": 2 }],
        }))
        .unwrap()
    }

    fn holds(name: &str) -> serde_json::Value {
        json!({
            "name": name, "instance": "https://acme.collibra.com", "client_id": "urn:1",
            "token": {
                "usable": true, "generation": 128, "seconds_left": 212,
                "issued": "2027-01-15T11:10:36Z", "expires": "2027-01-15T11:15:36Z",
            },
            "next": {"kind": "request", "at": "2027-01-15T11:13:06Z", "in_seconds": 62},
            "failure": null,
            "pool": {"available": 4.04, "capacity": 5},
            "requests": {"total": 48_211, "in_flight": 3},
            "api": {
                "answered": 900, "failed": 0, "failing_since": null, "failing_seconds": null,
                "last_failure": null,
            },
        })
    }

    #[test]
    fn a_proxy_in_good_health() {
        let report = report(true, false, json!([holds("catalog")]));
        insta::assert_snapshot!(render(&report), @r"
        collibra-auth-proxy 0.1.0, up 3h 12m 4s: ready

        CLIENT   TOKEN        LEFT    NEXT REQUEST  POOL      REQUESTS  IN FLIGHT  API, 5 MIN  LAST FAILURE
        catalog  128, usable  3m 32s  in 1m 2s      4.0 of 5  48211     3          ok          -

        APP      CLIENT  REQUESTS  LOCAL TOKENS
        lineage  -       48000     2

        LISTENER  ADDRESS         CLIENT   CONNECTIONS
        local     127.0.0.1:8080  catalog  12
        ");
    }

    #[test]
    fn a_proxy_in_trouble() {
        let mut failing = holds("a-client-with-a-long-name");
        failing["token"]["usable"] = json!(false);
        failing["next"]["in_seconds"] = json!(0);
        failing["pool"]["available"] = json!(0.0);
        failing["failure"] = json!({
            "outcome": "rate_limited", "in_a_row": 3, "seconds_ago": 75,
            "at": "2027-01-15T11:10:49Z",
            "message": "acme.collibra.com says that the pool is empty; who else uses this client?",
        });
        failing["store"] =
            json!({"kind": "redis", "problem": "redis://redis:6379 does not answer"});
        failing["api"] = json!({
            "answered": 30, "failed": 10, "failing_since": "2027-01-15T11:09:00Z",
            "failing_seconds": 184,
            "last_failure": {
                "kind": "connect", "at": "2027-01-15T11:12:00Z", "seconds_ago": 4,
                "message": "acme.collibra.com refused the connection; check the instance's url",
            },
        });
        let mut fresh = holds("dev");
        fresh["api"] = json!(null);
        fresh["token"] = json!(null);
        fresh["next"] = json!({"kind": "answer", "at": null, "in_seconds": null});
        let report = report(false, false, json!([failing, fresh, holds("catalog")]));
        insta::assert_snapshot!(render(&report), @r"
        collibra-auth-proxy 0.1.0, up 3h 12m 4s: not ready

        CLIENT                     TOKEN        LEFT    NEXT REQUEST  POOL      REQUESTS  IN FLIGHT  API, 5 MIN     LAST FAILURE
        a-client-with-a-long-name  128, ended   -       now           0.0 of 5  48211     3          25.0 % failed  rate_limited, 3 in a row
        dev                        none yet     -       under way     4.0 of 5  48211     3          -              -
        catalog                    128, usable  3m 32s  in 1m 2s      4.0 of 5  48211     3          ok             -

        a-client-with-a-long-name, 1m 15s ago: acme.collibra.com says that the pool is empty; who else uses this client?

        a-client-with-a-long-name: calls of https://acme.collibra.com have been failing for 3m 4s: acme.collibra.com refused the connection; check the instance's url

        a-client-with-a-long-name goes on without its store: redis://redis:6379 does not answer

        APP      CLIENT  REQUESTS  LOCAL TOKENS
        lineage  -       48000     2

        LISTENER  ADDRESS         CLIENT   CONNECTIONS
        local     127.0.0.1:8080  catalog  12
        ");
    }

    #[test]
    fn a_refused_configuration_stands_first() {
        let mut report = report(true, false, json!([]));
        report.refused_configuration = serde_json::from_value(json!({
            "since": "2027-01-15T11:10:49Z", "seconds_ago": 75,
            "faults": ["proxy.toml:3: a.b: this key is unknown; write `c`"],
        }))
        .unwrap();
        let text = render(&report);
        insta::assert_snapshot!(text.split("\nAPP").next().unwrap(), @r"
        collibra-auth-proxy 0.1.0, up 3h 12m 4s: ready

        configuration refused for 1m 15s, the one before stays in force:
          proxy.toml:3: a.b: this key is unknown; write `c`
        ");
    }

    #[test]
    fn a_proxy_without_clients_on_its_way_out() {
        let text = render(&report(false, true, json!([])));
        assert!(text.starts_with("collibra-auth-proxy 0.1.0, up 3h 12m 4s: draining\n\nAPP"));
    }
}
