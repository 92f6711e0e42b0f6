//! Every kind of response as a table, and random bytes.

use http::{HeaderMap, HeaderValue};
use proptest::prelude::*;

use super::*;
use crate::clock::Instant;
use crate::oauth::testing;
use crate::token::token::Token;

const SECRET: &str = "canary+secret";
const GOOD: &str = r#"{"access_token":"abc.DEF","token_type":"Bearer","expires_in":299}"#;

fn ask(status: u16, headers: &[(&str, &str)], body: &str) -> Result<Grant, RequestError> {
    ask_bytes(status, headers, body.as_bytes())
}

fn ask_bytes(status: u16, headers: &[(&str, &str)], body: &[u8]) -> Result<Grant, RequestError> {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(
            http::HeaderName::try_from(*name).unwrap(),
            HeaderValue::try_from(*value).unwrap(),
        );
    }
    let answer = Answer {
        status: StatusCode::from_u16(status).unwrap(),
        headers: map,
        body: body.to_vec(),
    };
    parse(&answer, &issuer(), wall())
}

fn issuer() -> Issuer {
    Issuer::new(&testing::config("urn:sys:env:1", SECRET))
}

/// Sun, 06 Nov 1994 08:49:37 GMT, the date of RFC 9110's examples.
fn wall() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777)
}

#[test]
fn the_documented_answer_is_a_token() {
    let grant = ask(200, &[("content-type", "application/json")], GOOD).unwrap();
    assert_eq!(grant.access_token.expose(), "abc.DEF");
    assert_eq!(grant.expires_in, Duration::from_secs(299));
}

#[test]
fn lenient_where_the_meaning_is_plain() {
    for (expires_in, seconds) in [
        ("299", 299),
        ("\"299\"", 299),
        ("299.0", 299),
        ("299.9", 299),
        ("1.5", 1),
        ("2.99e2", 299),
        ("1", 1),
        ("86400", 86_400),
        ("86401", 86_400),
        ("18446744073709551615", 86_400),
        ("18446744073709551616", 86_400),
        ("\"99999999999999999999999\"", 86_400),
        ("1e300", 86_400),
    ] {
        for token_type in ["Bearer", "bearer", "BEARER"] {
            let body = format!(
                r#" {{"scope":null,"token_type":"{token_type}","expires_in":{expires_in},"access_token":"t"}} "#
            );
            // a wrong Content-Type does not invalidate a good token
            let grant = ask(201, &[("content-type", "text/html")], &body).unwrap();
            assert_eq!(grant.expires_in.as_secs(), seconds, "{expires_in}");
        }
    }
}

#[test]
fn a_request_that_comes_back_to_the_proxy_brings_no_token() {
    use crate::local_token::{Key, Subject};

    let error = ask(508, &[], "{}").unwrap_err();
    assert_eq!(error.outcome, Outcome::Loop);
    assert!(error.message.contains("lead back"), "{}", error.message);

    let key = Key::of(&SECRET.to_owned().into());
    let answered = |subject| {
        let token = key.sign(subject, wall() + Duration::from_secs(60), 1);
        ask(200, &[], &GOOD.replace("abc.DEF", token.expose()))
    };
    let error = answered(Subject::Client("catalog")).unwrap_err();
    assert_eq!(error.outcome, Outcome::Loop);
    assert!(error.message.contains("local token"), "{}", error.message);
    assert!(!error.message.contains("cap1"), "{}", error.message);
    // of a proxy that this one is an app of
    answered(Subject::App("edge")).unwrap();
    answered(Subject::Anyone).unwrap();
}

#[test]
fn a_success_without_a_usable_token_says_what_is_wrong() {
    let body = |access_token: &str, token_type: &str, expires_in: &str| {
        format!(
            r#"{{"access_token":{access_token},"token_type":{token_type},"expires_in":{expires_in}}}"#
        )
    };
    let expires = |value: &str| body("\"t\"", "\"Bearer\"", value);
    let large = format!("{{\"x\":\"{}\"}}", "x".repeat(MAX_BODY));
    let cases: Vec<(String, &str)> = vec![
        (String::new(), "its body is empty"),
        (" \r\n".into(), "its body is empty"),
        ("<!DOCTYPE html><p>Log in".into(), "is HTML, not JSON"),
        ("\n <html>".into(), "is HTML, not JSON"),
        (GOOD[..40].into(), "truncated"),
        ("{".into(), "truncated"),
        ("access_token=t".into(), "not JSON"),
        (format!("{GOOD}{GOOD}"), "not JSON"),
        ("[1]".into(), "not an object"),
        ("null".into(), "not an object"),
        ("[".repeat(60_000), "not JSON"),
        (large, "larger than 64 KiB"),
        ("{}".into(), "no `access_token`"),
        (
            r#"{"error":"server_error","error_description":"later"}"#.into(),
            "no `access_token` but an error (server_error: later)",
        ),
        (
            body("null", "\"Bearer\"", "9"),
            "`access_token` is not a string",
        ),
        (body("\"\"", "\"Bearer\"", "9"), "`access_token` is empty"),
        (body("\"a b\"", "\"Bearer\"", "9"), "characters"),
        (body("\"a\\r\\nX: y\"", "\"Bearer\"", "9"), "characters"),
        (body("\"\u{f6}\"", "\"Bearer\"", "9"), "characters"),
        (
            body("\"t\"", "\"mac\"", "9"),
            "`token_type` is `mac`; only Bearer",
        ),
        (body("\"t\"", "7", "9"), "`token_type` is not a string"),
        (
            r#"{"access_token":"t","token_type":"Bearer"}"#.into(),
            "no `expires_in`",
        ),
        (expires("0"), "already expired"),
        (expires("\"0\""), "already expired"),
        (expires("0.0"), "already expired"),
        (expires("0.9"), "already expired"),
        (expires("-1"), "negative (-1)"),
        (expires("-0.5"), "negative"),
        (expires("\"-1\""), "not a number"),
        (expires("\"299s\""), "not a number"),
        (expires("\"\""), "not a number"),
        (expires("null"), "not a number"),
        (expires("true"), "not a number"),
    ];
    for (body, what) in cases {
        let error = ask(200, &[], &body).unwrap_err();
        let shown = &body[..body.len().min(60)];
        assert_eq!(error.outcome, Outcome::Malformed, "{shown}");
        assert!(
            error
                .message
                .starts_with("acme.example answered 200 without a usable token: "),
            "{}",
            error.message
        );
        assert!(error.message.contains(what), "{shown}: {}", error.message);
    }
    for (header, what) in [
        (("content-encoding", "gzip"), "encoded (gzip)"),
        (("content-encoding", "br"), "encoded (br)"),
        (("content-type", "text/HTML; charset=utf-8"), "HTML"),
    ] {
        let error = ask(200, &[header], "\u{1f}~").unwrap_err();
        assert!(error.message.contains(what), "{}", error.message);
    }
    assert!(ask_bytes(200, &[], b"\xff\xfe{").is_err());
    assert!(ask(204, &[], "").is_err());
}

#[test]
fn an_answer_that_is_written_oddly_is_a_token_all_the_same() {
    let without_type = r#"{"access_token":"abc.DEF","expires_in":299}"#;
    let of_latin_1 = b"{\"name\":\"J\xfcrgen\","
        .iter()
        .chain(&GOOD.as_bytes()[1..]);
    let bodies = [
        without_type.as_bytes().to_vec(),
        format!("\u{feff}{GOOD}").into_bytes(),
        of_latin_1.copied().collect(),
    ];
    for body in &bodies {
        for gzip in [false, true] {
            let grant = if gzip {
                ask_bytes(200, &[("content-encoding", "GZIP")], &gzipped(body))
            } else {
                ask_bytes(200, &[], body)
            };
            let grant = grant.unwrap();
            assert_eq!(grant.access_token.expose(), "abc.DEF");
            assert_eq!(grant.expires_in, Duration::from_secs(299));
        }
    }
}

fn gzipped(body: &[u8]) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    std::io::Write::write_all(&mut gzip, body).unwrap();
    gzip.finish().unwrap()
}

#[test]
fn a_body_that_grows_beyond_measure_is_not_read_to_its_end() {
    let header = ("content-encoding", "gzip");
    let bomb = gzipped(&vec![b' '; 64 * 1024 * 1024]);
    assert!(bomb.len() < 2 * MAX_BODY);
    let error = ask_bytes(200, &[header], &bomb).unwrap_err();
    assert!(
        error.message.contains("larger than 64 KiB"),
        "{}",
        error.message
    );
    let refused = ask_bytes(429, &[header], &bomb).unwrap_err();
    assert_eq!(refused.outcome, Outcome::RateLimited);
}

#[test]
fn every_status_has_its_outcome() {
    use Outcome::{InvalidClient, InvalidRequest, RateLimited, ServerError};
    let error = |name: &str| format!(r#"{{"error":"{name}","error_description":"why"}}"#);
    let cases = [
        (
            400,
            error("invalid_client"),
            InvalidClient,
            "(invalid_client: why)",
        ),
        (
            400,
            error("invalid_request"),
            InvalidRequest,
            "(invalid_request: why)",
        ),
        (
            400,
            error("unauthorized_client"),
            InvalidRequest,
            "registration",
        ),
        (
            400,
            error("invalid_scope"),
            InvalidRequest,
            "leave scope out",
        ),
        (400, String::new(), InvalidRequest, "400:"),
        (400, "<html>".into(), InvalidRequest, "HTML page"),
        (400, r#"{"error":7}"#.into(), InvalidRequest, "400:"),
        (
            401,
            error("invalid_client"),
            InvalidClient,
            "(invalid_client: why)",
        ),
        (401, String::new(), InvalidClient, "id and secret"),
        (
            401,
            error("invalid_request"),
            InvalidClient,
            "id and secret",
        ),
        (403, String::new(), InvalidRequest, "IP allowlist"),
        (404, String::new(), InvalidRequest, "token_path"),
        (405, String::new(), InvalidRequest, "token_path"),
        (407, String::new(), InvalidRequest, "proxy"),
        (408, String::new(), ServerError, "408"),
        (415, String::new(), InvalidRequest, "415"),
        (425, String::new(), ServerError, "425"),
        (429, String::new(), RateLimited, "pool"),
        (429, error("invalid_client"), RateLimited, "pool"),
        (499, String::new(), InvalidRequest, "499"),
        (
            500,
            error("server_error"),
            ServerError,
            "(server_error: why)",
        ),
        (503, "<html>".into(), ServerError, "503"),
        (599, String::new(), ServerError, "599"),
        (999, String::new(), ServerError, "999"),
        (101, String::new(), ServerError, "101"),
        (304, String::new(), ServerError, "redirect (304), which"),
    ];
    for (status, body, outcome, what) in cases {
        let failed = ask(status, &[], &body).unwrap_err();
        assert_eq!(failed.outcome, outcome, "{status} {body}");
        assert!(failed.message.contains(what), "{}", failed.message);
        assert!(failed.message.starts_with("acme.example answered"));
        assert_eq!(failed.retry_after, None);
    }
}

#[test]
fn a_large_error_body_leaves_the_status_its_meaning() {
    let failed = ask(429, &[], &"x".repeat(MAX_BODY + 1)).unwrap_err();
    assert_eq!(failed.outcome, Outcome::RateLimited);
}

#[test]
fn a_redirect_says_where_to_without_the_query() {
    let location = ("location", "https://sso.example/login?state=canary");
    let failed = ask(302, &[location], "").unwrap_err();
    assert_eq!(failed.outcome, Outcome::ServerError);
    assert!(
        failed.message.contains("(302), pointing to sso.example,"),
        "{}",
        failed.message
    );
    assert!(!failed.message.contains("canary"));
}

#[test]
fn what_an_answer_repeats_of_the_secret_is_not_shown() {
    let body = r#"{"error":"invalid_client canary+secret","error_description":"not canary%2Bsecret\u0007 or \u0063anary+secret"}"#;
    for status in [200, 400, 401, 429, 500] {
        let failed = ask(status, &[], body).unwrap_err();
        assert!(!failed.message.contains("canary"), "{}", failed.message);
        assert!(failed.message.contains("[redacted]"), "{}", failed.message);
    }
}

#[test]
fn retry_after_is_seconds_or_a_date() {
    for (value, seconds) in [
        ("0", Some(0)),
        ("7", Some(7)),
        (" 7 ", Some(7)),
        ("3600", Some(3600)),
        ("3601", Some(3600)),
        ("99999999999999999999999", Some(3600)),
        ("Sun, 06 Nov 1994 08:50:37 GMT", Some(60)),
        ("Sunday, 06-Nov-94 08:50:37 GMT", Some(60)),
        ("Sun Nov  6 08:50:37 1994", Some(60)),
        ("Sun, 06 Nov 1994 08:49:37 GMT", Some(0)),
        ("Mon, 01 Jan 1990 00:00:00 GMT", Some(0)),
        ("Fri, 31 Dec 9999 23:59:59 GMT", Some(3600)),
        ("", None),
        ("-1", None),
        ("1.5", None),
        ("soon", None),
        ("Sun, 99 Nov 1994 08:50:37 GMT", None),
    ] {
        for status in [302, 429, 503] {
            let failed = ask(status, &[("retry-after", value)], "").unwrap_err();
            let wait = failed.retry_after.map(|wait| wait.as_secs());
            assert_eq!(wait, seconds, "{value:?}");
        }
    }
}

#[test]
fn printing_an_answer_shows_nothing_of_its_body() {
    let answer = Answer {
        status: StatusCode::OK,
        headers: HeaderMap::new(),
        body: b"canary".to_vec(),
    };
    assert!(!format!("{answer:?}").contains("canary"));
    let granted = ask(200, &[], &GOOD.replace("abc.DEF", "canary"));
    assert!(!format!("{granted:?}").contains("canary"));
}

/// JSON close enough to a response that its fields are parsed.
fn nearly_an_answer() -> impl Strategy<Value = Vec<u8>> {
    let value = prop_oneof![
        Just("\"Bearer\"".to_owned()),
        any::<i64>().prop_map(|n| n.to_string()),
        any::<f64>().prop_map(|n| n.to_string()),
        "\"[ -~]{0,9}\"",
        "[\\[{\"0-9a-z}\\]]{0,6}",
        any::<String>().prop_map(|text| Value::from(text).to_string()),
    ];
    prop::collection::vec(value, 3).prop_map(|v| {
        format!(
            r#"{{"access_token":{},"token_type":{},"expires_in":{}}}"#,
            v[0], v[1], v[2]
        )
        .into_bytes()
    })
}

proptest! {
    #[test]
    fn no_bytes_panic_or_yield_an_unusable_token(
        status in 100u16..1000,
        success in any::<bool>(),
        body in prop_oneof![prop::collection::vec(any::<u8>(), 0..300), nearly_an_answer()],
        header in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let mut headers = HeaderMap::new();
        if let Ok(value) = HeaderValue::from_bytes(&header) {
            headers.insert(RETRY_AFTER, value.clone());
            headers.insert(LOCATION, value);
        }
        let status = StatusCode::from_u16(if success { 200 } else { status }).unwrap();
        let answer = Answer { status, headers, body };
        match parse(&answer, &issuer(), wall()) {
            Ok(grant) => {
                prop_assert!(status.is_success());
                prop_assert!(grant.expires_in > Duration::ZERO && grant.expires_in <= MAX_LIFETIME);
                let token = Token::new(&grant.access_token, 1, Instant::ORIGIN, grant.expires_in);
                prop_assert!(token.is_ok());
            }
            Err(failed) => {
                prop_assert!(!failed.message.chars().any(char::is_control));
                prop_assert!(failed.retry_after.is_none_or(|wait| wait <= MAX_RETRY_AFTER));
            }
        }
    }
}
