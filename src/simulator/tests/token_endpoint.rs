//! The token endpoint against what its OpenAPI document and RFC 6749 say.

use std::time::Duration;

use super::*;

const FORM: &str = "Content-Type: application/x-www-form-urlencoded";
const TOKEN: &str = "POST /rest/oauth/v2/token";

#[tokio::test]
async fn a_token_has_the_documented_form() {
    let simulator = simulator(Config::default()).await;
    let answer = ask(&simulator).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let json = answer.json();
    assert_eq!(fields(&json), ["access_token", "expires_in", "token_type"]);
    assert!(
        json["access_token"]
            .as_str()
            .is_some_and(|token| token.len() >= 64)
    );
    assert_eq!(json["token_type"], "Bearer");
    assert_eq!(json["expires_in"].as_i64(), Some(299));
}

#[tokio::test]
async fn both_ways_to_authenticate_work_and_one_at_a_time() {
    let simulator = simulator(Config::default()).await;
    let body = format!("{GRANT}&client_id={ENCODED_ID}&client_secret={ENCODED_SECRET}");
    let by_post = send(&simulator, TOKEN, &[FORM], &body).await;
    assert_eq!(by_post.status, 200);
    let both = send(
        &simulator,
        TOKEN,
        &[FORM, &basic(ENCODED_ID, ENCODED_SECRET)],
        &body,
    )
    .await;
    assert_eq!(
        (both.status, both.json()["error"].as_str()),
        (400, Some("invalid_request"))
    );
    let named = format!("{GRANT}&client_id={ENCODED_ID}");
    let named = send(
        &simulator,
        TOKEN,
        &[FORM, &basic(ENCODED_ID, ENCODED_SECRET)],
        &named,
    )
    .await;
    assert_eq!(named.status, 200);
}

#[tokio::test]
async fn refusals_have_the_documented_form_and_draw_nothing() {
    let simulator = simulator(Config::default()).await;
    let right = basic(ENCODED_ID, ENCODED_SECRET);
    let bare = basic(DEMO_CLIENT_ID, DEMO_CLIENT_SECRET);
    let bare_id = basic(DEMO_CLIENT_ID, ENCODED_SECRET);
    let wrong = basic(ENCODED_ID, "wrong");
    let json = "Content-Type: application/json";
    let scope = format!("{GRANT}&scope=all");
    let twice = format!("{GRANT}&{GRANT}");
    let by_post = format!("{GRANT}&client_id={ENCODED_ID}&client_secret=wrong");
    let cases: [(&[&str], &str, u16, &str); 12] = [
        (&[FORM, &bare], GRANT, 401, "invalid_client"),
        (&[FORM, &bare_id], GRANT, 401, "invalid_client"),
        (&[FORM, &wrong], GRANT, 401, "invalid_client"),
        (
            &[FORM, "Authorization: Bearer stale"],
            GRANT,
            401,
            "invalid_client",
        ),
        (&[FORM], GRANT, 401, "invalid_client"),
        (&[FORM], &by_post, 401, "invalid_client"),
        (&[FORM, &right, &right], GRANT, 400, "invalid_request"),
        (&[FORM, &right], "", 400, "invalid_request"),
        (&[FORM, &right], &twice, 400, "invalid_request"),
        (&[json, &right], GRANT, 400, "invalid_request"),
        (
            &[FORM, &right],
            "grant_type=password",
            400,
            "unsupported_grant_type",
        ),
        (&[FORM, &right], &scope, 400, "invalid_scope"),
    ];
    for (headers, body, status, error) in cases {
        let answer = send(&simulator, TOKEN, headers, body).await;
        let json = answer.json();
        let case = format!("{headers:?} {body}");
        assert_eq!(
            (answer.status, json["error"].as_str()),
            (status, Some(error)),
            "{case}"
        );
        assert_eq!(
            fields(&json),
            ["error", "error_description", "error_uri"],
            "{case}"
        );
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{case}");
        let challenged = answer
            .header("www-authenticate")
            .is_some_and(|it| it.starts_with("Basic"));
        assert_eq!(challenged, status == 401 && headers.len() == 2, "{case}");
    }
    let by_get = send(&simulator, "GET /rest/oauth/v2/token", &[&right], "").await;
    assert_eq!((by_get.status, by_get.header("allow")), (405, Some("POST")));
    let state = simulator.state();
    let client = &state.clients[DEMO_CLIENT_ID];
    assert_eq!(
        (client.issued, client.rate_limited, client.refused),
        (0, 0, 5)
    );
    assert!((client.pool_available - 5.0).abs() < 1e-9);
    assert_eq!(state.token_requests, 13);
}

#[tokio::test]
async fn an_empty_pool_answers_429_and_says_when_only_if_told_to() {
    for (retry_after, expected) in [(false, None), (true, Some("60"))] {
        let simulator = simulator(Config {
            retry_after,
            ..Config::default()
        })
        .await;
        for _ in 0..5 {
            assert_eq!(ask(&simulator).await.status, 200);
        }
        let answer = ask(&simulator).await;
        assert_eq!(
            (answer.status, answer.header("retry-after")),
            (429, expected)
        );
        assert_eq!(
            fields(&answer.json()),
            ["error", "error_description", "error_uri"]
        );
        let client = &simulator.state().clients[DEMO_CLIENT_ID];
        assert_eq!(
            (client.issued, client.rate_limited, client.live_tokens),
            (5, 1, 5)
        );
    }
}

#[tokio::test]
async fn speed_divides_every_duration() {
    let lifetime = Duration::from_secs(299);
    let simulator = simulator(Config {
        speed: 200.0,
        lifetime,
        ..Config::default()
    })
    .await;
    let answer = ask(&simulator).await;
    // 1.495 seconds, reported as 1
    assert_eq!(answer.json()["expires_in"], 1);
    assert_eq!(simulator.state().clients[DEMO_CLIENT_ID].live_tokens, 1);
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let client = &simulator.state().clients[DEMO_CLIENT_ID];
    assert_eq!(client.live_tokens, 0);
    assert!((client.pool_available - 5.0).abs() < 1e-9);
}

#[tokio::test]
async fn a_start_that_cannot_be_is_refused() {
    let refused = |config| async { start(config).await.err().map(|error| error.to_string()) };
    let too_fast = Config {
        speed: 300.0,
        ..Config::default()
    };
    assert!(
        refused(too_fast)
            .await
            .is_some_and(|why| why.contains("lower speed"))
    );
    let no_pool = Config {
        pool: 0,
        ..Config::default()
    };
    assert!(
        refused(no_pool)
            .await
            .is_some_and(|why| why.contains("pool"))
    );
    let backwards = Config {
        speed: -1.0,
        ..Config::default()
    };
    assert!(
        refused(backwards)
            .await
            .is_some_and(|why| why.contains("speed"))
    );
    let first = simulator(Config::default()).await;
    let second = Config {
        listen: first.address(),
        ..Config::default()
    };
    assert!(
        refused(second)
            .await
            .is_some_and(|why| why.contains("cannot listen on 127.0.0.1:"))
    );
}
