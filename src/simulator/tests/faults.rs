//! Faults, as the client sees them.

use std::io::ErrorKind;
use std::time::Duration;

use serde_json::json;

use super::*;

const INFO: &str = "GET /rest/2.0/application/info";

#[tokio::test]
async fn connections_break_in_the_way_that_was_ordered() {
    let simulator = simulator(Config::default()).await;
    let live = bearer(&simulator).await;
    let call = async |kind: &str| {
        order(&simulator, json!({ "endpoint": "api", "kind": kind })).await;
        exchange(simulator.address(), &request(INFO, &[&live], "")).await
    };
    let (received, ended) = call("reset").await;
    assert!(received.is_empty());
    assert_eq!(
        ended.map_err(|error| error.kind()),
        Err(ErrorKind::ConnectionReset)
    );
    let (received, ended) = call("close").await;
    assert!(received.is_empty() && ended.is_ok(), "{ended:?}");
    let (received, ended) = call("truncate").await;
    let text = String::from_utf8(received).unwrap();
    assert!(
        ended.is_ok() && text.starts_with("HTTP/1.1 200 OK\r\n"),
        "{text}"
    );
    assert!(text.contains("content-length: 82\r\n"), "{text}");
    assert_eq!(
        text.split_once("\r\n\r\n").map(|(_, body)| body.len()),
        Some(41),
        "{text}"
    );
    order(&simulator, json!({ "endpoint": "api", "kind": "hang" })).await;
    let hanging = request(INFO, &[&live], "");
    let hanging = exchange(simulator.address(), &hanging);
    assert!(
        tokio::time::timeout(Duration::from_millis(200), hanging)
            .await
            .is_err()
    );
    assert_eq!(simulator.state().faulted, 4);
}

#[tokio::test]
async fn answers_are_replaced_in_the_way_that_was_ordered() {
    let simulator = simulator(Config::default()).await;
    let call = async |kind: &str| {
        order(&simulator, json!({ "endpoint": "token", "kind": kind })).await;
        ask(&simulator).await
    };
    let answer = call("status:500").await;
    assert_eq!(
        (answer.status, &answer.json()["error"]),
        (500, &json!("server_error"))
    );
    let answer = call("empty").await;
    assert_eq!((answer.status, answer.body.len()), (200, 0));
    let answer = call("html").await;
    assert_eq!(
        answer.header("content-type"),
        Some("text/html; charset=utf-8")
    );
    let answer = call("oversized").await;
    assert!(answer.status == 200 && answer.body.len() > 1 << 20 && answer.json().is_object());
    let answer = call("redirect").await;
    let location = answer.header("location");
    assert_eq!((answer.status, location), (302, Some("/moved/here")));
    let fault = json!({ "endpoint": "token", "kind": "status:429", "retry_after": 7 });
    order(&simulator, fault).await;
    let answer = ask(&simulator).await;
    assert_eq!(
        (answer.status, answer.header("retry-after")),
        (429, Some("7"))
    );
    let client = &simulator.state().clients[DEMO_CLIENT_ID];
    assert_eq!((client.issued, client.rate_limited), (0, 0));
}

#[tokio::test]
async fn a_token_with_a_wrong_answer_is_a_true_token() {
    let simulator = simulator(Config::default()).await;
    let cases = [
        ("expires_in:\"299\"", "expires_in", json!("299")),
        ("expires_in:absent", "expires_in", Value::Null),
        ("token_type:mac", "token_type", json!("mac")),
        ("slow:50", "expires_in", json!(299)),
    ];
    for (kind, field, value) in cases {
        order(&simulator, json!({ "endpoint": "token", "kind": kind })).await;
        let token = ask(&simulator).await.json();
        assert_eq!(
            token.get(field).cloned().unwrap_or_default(),
            value,
            "{kind}"
        );
        let header = format!(
            "Authorization: Bearer {}",
            token["access_token"].as_str().unwrap()
        );
        assert_eq!(
            send(&simulator, INFO, &[&header], "").await.status,
            200,
            "{kind}"
        );
    }
    assert_eq!(simulator.state().clients[DEMO_CLIENT_ID].issued, 4);
}

#[tokio::test]
async fn a_fault_draws_from_the_pool_only_if_told_to() {
    let simulator = simulator(Config::default()).await;
    let fault = json!({ "endpoint": "token", "kind": "status:502", "draws": true });
    order(&simulator, fault).await;
    let mut seen = Vec::new();
    for _ in 0..6 {
        seen.push(ask(&simulator).await.status);
    }
    assert_eq!(seen, [502, 502, 502, 502, 502, 429]);
    assert_eq!(
        send(&simulator, "POST /_simulator/reset", &[], "")
            .await
            .status,
        200
    );
    assert_eq!(ask(&simulator).await.status, 200);
    let state = simulator.state();
    let client = &state.clients[DEMO_CLIENT_ID];
    assert_eq!(
        (client.issued, client.live_tokens, state.faulted),
        (1, 6, 0)
    );
}

#[tokio::test]
async fn a_share_of_the_requests_is_hit() {
    let simulator = simulator(Config::default()).await;
    let live = bearer(&simulator).await;
    let fault = json!({ "endpoint": "api", "kind": "status:503", "share": 0.5 });
    order(&simulator, fault).await;
    let mut seen = Vec::new();
    for _ in 0..4 {
        seen.push(send(&simulator, INFO, &[&live], "").await.status);
    }
    assert_eq!(seen, [200, 503, 200, 503]);
    assert_eq!(simulator.state().faulted, 2);
}

#[tokio::test]
async fn a_body_is_cut_after_exactly_as_much_as_was_asked_for() {
    let simulator = simulator(Config::default()).await;
    let live = bearer(&simulator).await;
    for (query, announced) in [("cut=300000", true), ("cut=300000&chunked=1", false)] {
        let line = format!("GET /_bytes/1000000?{query}");
        let (received, _) = exchange(simulator.address(), &request(&line, &[&live], "")).await;
        let end = received
            .windows(4)
            .position(|window| window == b"\r\n\r\n")
            .unwrap()
            + 4;
        let head = String::from_utf8(received[..end].to_vec()).unwrap();
        assert_eq!(
            head.contains("content-length: 1000000\r\n"),
            announced,
            "{head}"
        );
        assert!(!received.ends_with(b"0\r\n\r\n"), "{query}");
        if announced {
            assert_eq!(received.len() - end, 300_000);
        }
    }
}

#[tokio::test]
async fn orders_that_cannot_be_are_refused() {
    let simulator = simulator(Config::default()).await;
    for body in ["", "{}", r#"{"endpoint":"token","kind":"explode"}"#] {
        let answer = send(&simulator, "POST /_simulator/faults", &[], body).await;
        assert_eq!(answer.status, 400, "{body}");
        assert!(answer.json()["error"].is_string(), "{body}");
    }
    let unknown = send(
        &simulator,
        "POST /_simulator/revoke",
        &[],
        r#"{"client":"x"}"#,
    )
    .await;
    assert_eq!(unknown.status, 404);
    assert_eq!(
        send(&simulator, "GET /_simulator/reset", &[], "")
            .await
            .status,
        405
    );
    assert_eq!(
        send(&simulator, "GET /_simulator/other", &[], "")
            .await
            .status,
        404
    );
}
