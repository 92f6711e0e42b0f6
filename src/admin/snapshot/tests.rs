//! The form of the status report.

use super::super::view::tests::{CANARY, holds, refused, slot, view};
use super::*;
use crate::clock::Clock;
use crate::outgoing::dial::Kind;
use crate::telemetry::InFlight;
use crate::telemetry::ended::tests::ENDED;
use crate::token::cache::Status;
use std::sync::Arc;
use std::time::Duration;

#[test]
fn the_uptime_does_not_follow_the_wall_clock() {
    let (view, clock) = view();
    let mut view = Arc::into_inner(view).unwrap();
    view.started += Duration::from_secs(3_600);
    clock.advance(Duration::from_secs(160));
    assert_eq!(view.report().uptime_seconds, 160);
}

#[test]
fn the_form_that_programs_rely_on() {
    let (view, clock) = view();
    let asked = clock.now();
    clock.advance(Duration::from_millis(160_400));
    let failed = refused(holds(asked), clock.now() - Duration::from_secs(10));
    slot(&view).publish(failed);
    let lineage = view.metrics.app("lineage");
    lineage.local_token();
    InFlight::new(lineage.traffic("catalog")).count(&ENDED);
    let _open = view.metrics.listener("local").connection();
    let api = Arc::clone(&view.parts.load().clients[0].api);
    for _ in 0..3 {
        api.answered(clock.now());
    }
    let refused = "acme.collibra.com refused the connection";
    api.failed(
        clock.now() - Duration::from_secs(20),
        Kind::Connect,
        refused,
    );

    let json = serde_json::to_string_pretty(&view.report()).unwrap();
    assert!(!json.contains(CANARY));
    insta::assert_snapshot!(json, @r#"
    {
      "version": "0.0.0",
      "at": "2027-01-15T08:02:40Z",
      "started": "2027-01-15T08:00:00Z",
      "uptime_seconds": 160,
      "ready": true,
      "draining": false,
      "refused_configuration": null,
      "clients": [
        {
          "name": "catalog",
          "instance": "https://acme.collibra.com",
          "client_id": "urn:sys:env:1:i:2",
          "token": {
            "usable": true,
            "rejected": false,
            "revoked": false,
            "client_id": "urn:sys:env:1:i:2",
            "generation": 7,
            "issued": "2027-01-15T08:00:00Z",
            "expires": "2027-01-15T08:05:00Z",
            "seconds_left": 139
          },
          "next": {
            "kind": "request",
            "at": "2027-01-15T08:03:30Z",
            "in_seconds": 50
          },
          "failure": {
            "outcome": "rate_limited",
            "message": "acme.collibra.com says that the pool is empty",
            "at": "2027-01-15T08:02:30Z",
            "seconds_ago": 10,
            "in_a_row": 3
          },
          "pool": {
            "available": 0.17,
            "capacity": 5
          },
          "requests": {
            "total": 1,
            "in_flight": 0,
            "failed": 0,
            "rejected": 0,
            "lately": {
              "requests": 0,
              "failed": 0,
              "p50_milliseconds": null,
              "p95_milliseconds": null
            }
          },
          "store": {
            "kind": "redis",
            "problem": null,
            "latency_milliseconds": null,
            "replicas": 3
          },
          "token_requests": [],
          "api": {
            "answered": 3,
            "failed": 1,
            "failing_since": "2027-01-15T08:02:20Z",
            "failing_seconds": 20,
            "last_failure": {
              "kind": "connect",
              "message": "acme.collibra.com refused the connection",
              "at": "2027-01-15T08:02:20Z",
              "seconds_ago": 20
            }
          }
        }
      ],
      "apps": [
        {
          "name": "lineage",
          "client": null,
          "requests": 1,
          "local_tokens": 1,
          "failed": 0,
          "in_flight": 0,
          "max_in_flight": 32,
          "rate": 0.0,
          "max_rate": null,
          "last_seen": null
        }
      ],
      "listeners": [
        {
          "name": "local",
          "address": "127.0.0.1:8080",
          "client": "catalog",
          "connections": 1,
          "max_connections": 10000
        }
      ],
      "certificates": []
    }
    "#);
    let read: StatusReport = serde_json::from_str(&json).unwrap();
    assert_eq!(read, view.report());
}

#[test]
fn a_client_without_a_token_is_told_apart_from_one_with_a_dead_one() {
    let (view, clock) = view();
    assert_eq!(view.report().clients[0].token, None);
    slot(&view).publish(holds(clock.now()));
    assert!(view.report().ready);
    clock.advance(Duration::from_secs(298));
    let report = view.report();
    let token = report.clients[0].token.as_ref().unwrap();
    assert_eq!((token.usable, token.seconds_left), (false, 2));
    assert!(!report.ready);
}

#[test]
fn a_request_under_way_has_no_time() {
    let (view, clock) = view();
    slot(&view).publish(Status {
        next: NextAttempt::InFlight,
        ..holds(clock.now())
    });
    let next = serde_json::to_value(&view.report().clients[0].next).unwrap();
    let expected = serde_json::json!({"kind": "answer", "at": null, "in_seconds": null});
    assert_eq!(next, expected);
}
