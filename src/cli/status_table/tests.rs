//! The output of the status at any size of the screen.

use super::*;
use serde_json::{Value, json};
use unicode_width::UnicodeWidthStr;

fn report(ready: bool, draining: bool, clients: Value) -> StatusReport {
    let listeners = json!([{
        "name": "local", "address": "127.0.0.1:8080", "client": "catalog", "connections": 12,
        "max_connections": 10_000,
    }]);
    serde_json::from_value(json!({
        "version": "0.1.0", "at": "2027-01-15T11:12:04Z",
        "started": "2027-01-15T08:00:00Z", "uptime_seconds": 11_524,
        "ready": ready, "draining": draining, "clients": clients, "listeners": listeners,
        "apps": [{
            "name": "lineage", "client": null, "requests": 48_000, "local_tokens": 2,
            "failed": 3, "in_flight": 2, "max_in_flight": 32, "rate": 4.25, "max_rate": 50.0,
            "last_seen": "2027-01-15T11:11:59Z",
        }],
    }))
    .unwrap()
}

fn holds(name: &str) -> Value {
    json!({
        "name": name, "instance": "https://acme.collibra.com", "client_id": "urn:1",
        "token": {
            "usable": true, "generation": 128, "seconds_left": 212,
            "issued": "2027-01-15T11:10:36Z", "expires": "2027-01-15T11:15:36Z",
        },
        "next": {"kind": "request", "at": "2027-01-15T11:13:06Z", "in_seconds": 62},
        "failure": null,
        "pool": {"available": 4.04, "capacity": 5},
        "requests": {
            "total": 48_211, "in_flight": 3, "failed": 7,
            "lately": {
                "requests": 1_501, "failed": 1,
                "p50_milliseconds": 12.0, "p95_milliseconds": 81.4,
            },
        },
        "token_requests": [
            {"at": "2027-01-15T11:10:36Z", "outcome": "ok", "milliseconds": 80},
            {"at": "2027-01-15T10:52:04Z", "outcome": "timeout", "milliseconds": 10_000},
        ],
    })
}

fn failing(name: &str) -> Value {
    let mut client = holds(name);
    client["token"]["usable"] = json!(false);
    client["next"]["in_seconds"] = json!(0);
    client["pool"]["available"] = json!(0.0);
    client["failure"] = json!({
        "outcome": "rate_limited", "in_a_row": 3, "seconds_ago": 75,
        "at": "2027-01-15T11:10:49Z",
        "message": "acme.collibra.com says that the pool is empty; who else uses this client?",
    });
    client["store"] = json!({"kind": "redis", "problem": "redis://redis:6379 does not answer"});
    client
}

/// Returns a report with 100 apps, of which the last ones are the busiest.
fn busy() -> StatusReport {
    let mut report = report(true, false, json!([holds("catalog"), failing("dev")]));
    let app = report.apps[0].clone();
    report.apps = (0..100_u32)
        .map(|nth| AppReport {
            name: format!("app-{nth:02}"),
            rate: f64::from(nth) / 10.0,
            ..app.clone()
        })
        .collect();
    report
}

#[test]
fn a_proxy_in_good_health() {
    let report = report(true, false, json!([holds("catalog")]));
    insta::assert_snapshot!(render(&report, None), @r"
    collibra-auth-proxy 0.1.0, up 3h 12m: ready

    CLIENT   TOKEN   LEFT    NEXT    POOL   OK 5m   P95 5m  REQUESTS  IN FLIGHT  GENERATION  LAST ERROR
    catalog  usable  3m 32s  1m 2s   4.0/5  99.93%  81ms    48211     3          128         timeout, 20m ago

    APP      CLIENT  REQ/S   IN FLIGHT  FAILED  REQUESTS  LAST SEEN   LOCAL TOKENS
    lineage  -       4.2/50  2/32       3       48000     5s ago      2

    LISTENER  ADDRESS         CLIENT   CONNECTIONS
    local     127.0.0.1:8080  catalog  12/10000
    ");
    insta::assert_snapshot!(render(&report, Some(80)), @r"
    collibra-auth-proxy 0.1.0, up 3h 12m: ready

    CLIENT   TOKEN   LEFT    NEXT    POOL   OK 5m   P95 5m  LAST ERROR
    catalog  usable  3m 32s  1m 2s   4.0/5  99.93%  81ms    timeout, 20m ago

    APP      CLIENT  REQ/S   IN FLIGHT  FAILED  REQUESTS  LAST SEEN   LOCAL TOKENS
    lineage  -       4.2/50  2/32       3       48000     5s ago      2

    LISTENER  ADDRESS         CLIENT   CONNECTIONS
    local     127.0.0.1:8080  catalog  12/10000
    ");
}

#[test]
fn a_proxy_in_trouble() {
    let mut fresh = holds("dev");
    fresh["token"] = json!(null);
    fresh["next"] = json!({"kind": "answer", "at": null, "in_seconds": null});
    let clients = json!([
        failing("a-client-with-a-long-name"),
        fresh,
        holds("catalog")
    ]);
    let mut report = report(false, false, clients);
    report.certificates = serde_json::from_value(json!([
        {"kind": "listener", "name": "tls", "expires": "2027-01-20T08:00:00Z", "days_left": 4},
        {"kind": "instance", "name": "acme", "expires": "2028-01-20T08:00:00Z", "days_left": 370},
    ]))
    .unwrap();
    insta::assert_snapshot!(render(&report, Some(80)), @r"
    collibra-auth-proxy 0.1.0, up 3h 12m: not ready

    CLIENT         TOKEN     LEFT    NEXT       POOL   OK 5m   P95 5m  LAST ERROR
    a-client-wit…  expired   -       now        0.0/5  99.93%  81ms    rate_limited…
    dev            none yet  -       in flight  4.0/5  99.93%  81ms    timeout, 20m…
    catalog        usable    3m 32s  1m 2s      4.0/5  99.93%  81ms    timeout, 20m…

    a-client-with-a-long-name, token request failed 1m 15s ago: acme.collibra.com
      says that the pool is empty; who else uses this client?

    a-client-with-a-long-name goes on without its store: redis://redis:6379 does not
      answer

    the certificate of listener tls expires in 4 days

    APP      CLIENT  REQ/S   IN FLIGHT  FAILED  REQUESTS  LAST SEEN   LOCAL TOKENS
    lineage  -       4.2/50  2/32       3       48000     5s ago      2

    LISTENER  ADDRESS         CLIENT   CONNECTIONS
    local     127.0.0.1:8080  catalog  12/10000
    ");
}

#[test]
fn an_outage_of_the_api_and_a_refused_configuration_are_told() {
    let mut client = holds("catalog");
    client["api"] = json!({
        "answered": 9, "failed": 3, "failing_since": "2027-01-15T11:11:44Z", "failing_seconds": 20,
        "last_failure": {
            "kind": "connect", "message": "acme.collibra.com refused the connection",
            "at": "2027-01-15T11:12:02Z", "seconds_ago": 2,
        },
    });
    let mut report = report(true, false, json!([client]));
    report.refused_configuration = serde_json::from_value(json!({
        "since": "2027-01-15T11:10:49Z", "seconds_ago": 75,
        "faults": ["proxy.toml:3: a.b: this key is unknown; write `c`"],
    }))
    .unwrap();
    let text = render(&report, None);
    for said in [
        "  connect, 2s ago\n",
        "\nconfiguration refused for 1m 15s, the one before stays in force:\n",
        "\nproxy.toml:3: a.b: this key is unknown; write `c`\n",
        "\ncatalog: calls of https://acme.collibra.com have been failing for 20s, 25.0 % failed in 5 minutes: \
         acme.collibra.com refused the connection\n",
    ] {
        assert!(text.contains(said), "{said}: {text}");
    }
}

#[test]
fn a_proxy_without_clients_on_its_way_out() {
    let text = render(&report(false, true, json!([])), None);
    assert!(text.starts_with("collibra-auth-proxy 0.1.0, up 3h 12m: draining\n\nAPP"));
}

#[test]
fn a_screen_has_the_clients_and_the_busiest_of_100_apps() {
    let size = Size {
        columns: 80,
        rows: 24,
    };
    insta::assert_snapshot!(screen(&busy(), None, size).join("\n"), @r"
    collibra-auth-proxy 0.1.0, up 3h 12m: ready

    CLIENT   TOKEN    LEFT    NEXT    POOL   OK 5m   P95 5m  LAST ERROR
    dev      expired  -       now     0.0/5  99.93%  81ms    rate_limited x3
    catalog  usable   3m 32s  1m 2s   4.0/5  99.93%  81ms    timeout, 20m ago
    dev, token request failed 1m 15s ago: acme.collibra.com says that the pool is
      empty; who else uses this client?
    dev goes on without its store: redis://redis:6379 does not answer

    APP     CLIENT  REQ/S   IN FLIGHT  FAILED  REQUESTS  LAST SEEN   LOCAL TOKENS
    app-99  -       9.9/50  2/32       3       48000     5s ago      2
    app-98  -       9.8/50  2/32       3       48000     5s ago      2
    app-97  -       9.7/50  2/32       3       48000     5s ago      2
    app-96  -       9.6/50  2/32       3       48000     5s ago      2
    app-95  -       9.5/50  2/32       3       48000     5s ago      2
    app-94  -       9.4/50  2/32       3       48000     5s ago      2
    app-93  -       9.3/50  2/32       3       48000     5s ago      2
    app-92  -       9.2/50  2/32       3       48000     5s ago      2
    app-91  -       9.1/50  2/32       3       48000     5s ago      2
    app-90  -       9.0/50  2/32       3       48000     5s ago      2
    app-89  -       8.9/50  2/32       3       48000     5s ago      2
    app-88  -       8.8/50  2/32       3       48000     5s ago      2
    app-87  -       8.7/50  2/32       3       48000     5s ago      2
    q quits, 87 more apps
    ");
}

#[test]
fn whatever_the_size_the_screen_is_filled_and_no_line_is_wider() {
    for columns in (1..210).step_by(7) {
        for rows in 1..60 {
            let size = Size { columns, rows };
            for notice in [None, Some("nothing answers at http://127.0.0.1:9902")] {
                let lines = screen(&busy(), notice, size);
                assert_eq!(lines.len(), rows, "{size:?}");
                let is_narrow = |line: &String| line.width() <= columns;
                assert!(lines.iter().all(is_narrow), "{size:?}: {lines:#?}");
            }
        }
        let text = render(&busy(), Some(columns));
        assert!(text.lines().all(|line| line.width() <= columns));
    }
}

#[test]
fn a_hundred_percent_is_said_only_if_nothing_failed() {
    assert_eq!(success(0, 0), "-");
    assert_eq!(success(10, 0), "100%");
    assert_eq!(success(1_000_000, 1), "99.99%");
    assert_eq!(success(3, 1), "66.66%");
    assert_eq!(success(4, 4), "0.00%");
}
