//! Fuzz target: a response of the token endpoint. The input is a status, header lines, an empty
//! line and a body; each line of the head ends with a line feed.

use std::str;
use std::sync::LazyLock;
use std::time::Duration;

use collibra_auth_proxy::oauth::issuer::Issuer;
use collibra_auth_proxy::oauth::response::{self, MAX_BODY, MAX_RETRY_AFTER};
use collibra_auth_proxy::oauth::{AuthMethod, Config};
use collibra_auth_proxy::outgoing::client::Answer;
use collibra_auth_proxy::token::ports::{Grant, Outcome, RequestError};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

/// The longest message in characters: two quotations of 200 and the text around them.
const LONGEST_MESSAGE: usize = 800;

static ISSUER: LazyLock<Issuer> = LazyLock::new(|| {
    Issuer::new(&Config {
        token_url: "https://acme.example/rest/oauth/v2/token"
            .parse()
            .expect("it is a URL"),
        client_id: super::client_id(),
        client_secret: super::secret(super::CANARY),
        auth_method: AuthMethod::ClientSecretBasic,
        scope: None,
        timeout: Duration::from_secs(10),
        connect_timeout: Duration::from_secs(5),
        ca_file: None,
        identity: None,
        proxy: None,
        address: Vec::new(),
    })
});

/// Parses `input` as a response.
///
/// # Panics
/// If it returns an unusable token, a failure of the wrong kind, or a message that contains the
/// client's secret or unprintable characters.
pub fn check(input: &[u8]) {
    if super::spells_canary(input) {
        return;
    }
    let (head, body) = match input.windows(2).position(|two| two == b"\n\n") {
        Some(end) => (&input[..end], &input[end + 2..]),
        None => (input, &b""[..]),
    };
    let mut lines = head.split(|&byte| byte == b'\n');
    let Some(status) = lines
        .next()
        .and_then(|line| StatusCode::from_bytes(line).ok())
    else {
        return;
    };
    let headers: HeaderMap = lines.filter_map(header).collect();
    let body = match str::from_utf8(body) {
        Ok(text) => super::planted(text).into_bytes(),
        Err(_) => body.to_vec(),
    };
    let answer = Answer {
        status,
        headers,
        body,
    };
    match response::parse(&answer, &ISSUER, super::now()) {
        Ok(grant) => judge_grant(&grant, status),
        Err(error) => judge_error(&error, status),
    }
}

fn header(line: &[u8]) -> Option<(HeaderName, HeaderValue)> {
    let colon = line.iter().position(|&byte| byte == b':')?;
    let value = match str::from_utf8(&line[colon + 1..]) {
        Ok(text) => super::planted(text).into_bytes(),
        Err(_) => line[colon + 1..].to_vec(),
    };
    Some((
        HeaderName::from_bytes(&line[..colon]).ok()?,
        HeaderValue::from_bytes(value.trim_ascii()).ok()?,
    ))
}

fn judge_grant(grant: &Grant, status: StatusCode) {
    assert!(
        status.is_success(),
        "a token in a response with status {status}"
    );
    let token = grant.access_token.expose();
    assert!(!token.is_empty() && token.len() <= MAX_BODY);
    assert!(
        token.bytes().all(|byte| byte.is_ascii_graphic()),
        "a token that is invalid in a header: {token:?}"
    );
    let life = grant.expires_in;
    assert!(!life.is_zero() && life <= super::DAY, "{life:?}");
    assert!(!super::shows_canary(&format!("{grant:?}")));
}

fn judge_error(error: &RequestError, status: StatusCode) {
    match (status.as_u16(), error.outcome) {
        (200..300, outcome) => assert_eq!(outcome, Outcome::Malformed),
        (429, outcome) => assert_eq!(outcome, Outcome::RateLimited),
        (401, outcome) => assert_eq!(outcome, Outcome::InvalidClient),
        (400..500, outcome) => assert!(!matches!(
            outcome,
            Outcome::Malformed | Outcome::RateLimited
        )),
        (508, outcome) => assert_eq!(outcome, Outcome::Loop),
        (_, outcome) => assert_eq!(outcome, Outcome::ServerError),
    }
    assert!(error.retry_after.is_none_or(|wait| wait <= MAX_RETRY_AFTER));
    let message = error.to_string();
    assert!(!super::shows_canary(&message), "{message}");
    assert!(!super::shows_canary(&format!("{error:?}")));
    assert!(!message.chars().any(char::is_control), "{message:?}");
    assert!(message.chars().count() <= LONGEST_MESSAGE, "{message}");
}
