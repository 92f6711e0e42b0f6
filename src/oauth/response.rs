//! Interprets the response: a token, or a failure whose cost the engine can account for. Pure,
//! because it parses untrusted input.
//!
//! Guarantees: never a token that cannot be sent, never a guessed lifetime, no secret in a message.

use std::borrow::Cow;
use std::io::Read;
use std::time::{Duration, SystemTime};

use flate2::read::GzDecoder;
use http::StatusCode;
use http::header::{CONTENT_ENCODING, LOCATION, RETRY_AFTER};
use serde_json::{Map, Value};

use super::issuer::Issuer;
use crate::outgoing::client::Answer;
use crate::secret::Secret;
use crate::token::ports::{Grant, Outcome, RequestError};

/// The largest body: a token response has 1 to 4 KiB.
pub const MAX_BODY: usize = 64 * 1024;

/// The longest lifetime of a token, whatever the response says.
pub const MAX_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);

/// The longest `Retry-After`: a mistyped date must not stop all attempts.
pub const MAX_RETRY_AFTER: Duration = Duration::from_secs(60 * 60);

/// What to do about a token request that leads back to the proxy.
const LOOP: &str = "requests for the instance lead back to the proxy; set the instance's url (COLLIBRA_URL) to Collibra's own address, or its address if that name leads to the proxy on this machine";

/// Interprets the response of `issuer`; `now` is the wall-clock time, for dates in `Retry-After`.
///
/// # Errors
/// [`RequestError`] for anything but a usable token: see [`Outcome`].
pub fn parse(answer: &Answer, issuer: &Issuer, now: SystemTime) -> Result<Grant, RequestError> {
    let (outcome, message) = if answer.status.is_success() {
        match grant(answer, issuer) {
            Ok(grant) if issuer.is_own(&grant.access_token) => (
                Outcome::Loop,
                format!(
                    "{} answered with a local token of this proxy and not with one of Collibra's: {LOOP}",
                    issuer.authority()
                ),
            ),
            Ok(grant) => return Ok(grant),
            Err(defect) => (
                Outcome::Malformed,
                format!(
                    "{} answered {} without a usable token: {defect}",
                    issuer.authority(),
                    answer.status.as_u16()
                ),
            ),
        }
    } else {
        refusal(answer, issuer)
    };
    Err(RequestError {
        outcome,
        retry_after: retry_after(answer, now),
        message,
    })
}

/// The token in a success response (RFC 6749, section 5.1), or what is wrong with it.
fn grant(answer: &Answer, issuer: &Issuer) -> Result<Grant, String> {
    let mut fields = object(answer, issuer)?;
    let access_token = match fields.remove("access_token") {
        Some(Value::String(token)) => Secret::from(token),
        Some(_) => return Err("`access_token` is not a string".to_owned()),
        None => {
            return Err(match oauth_error(&fields, issuer) {
                Some(error) => format!("it has no `access_token` but an error ({error})"),
                None => "it has no `access_token`".to_owned(),
            });
        }
    };
    if access_token.expose().is_empty() {
        return Err("`access_token` is empty".to_owned());
    }
    if !access_token.expose().bytes().all(|b| b.is_ascii_graphic()) {
        return Err("`access_token` has characters that a bearer token must not have".to_owned());
    }
    match fields.get("token_type") {
        Some(Value::String(kind)) if kind.eq_ignore_ascii_case("bearer") => {}
        Some(Value::String(kind)) => {
            return Err(format!(
                "`token_type` is `{}`; only Bearer is supported",
                issuer.quote(kind)
            ));
        }
        Some(_) => return Err("`token_type` is not a string".to_owned()),
        // required by RFC 6749, section 5.1, but the client credentials grant has no other type
        None => {}
    }
    Ok(Grant {
        access_token,
        expires_in: lifetime(fields.get("expires_in"))?,
    })
}

/// The JSON object in the body, or what the body is instead.
fn object(answer: &Answer, issuer: &Issuer) -> Result<Map<String, Value>, String> {
    let body = match decoded(answer) {
        Ok(body) => body,
        Err(encoding) => {
            let encoding = issuer.quote(encoding);
            return Err(format!(
                "its body is encoded ({encoding}), which was not asked for"
            ));
        }
    };
    if body.len() > MAX_BODY {
        return Err(format!("its body is larger than {} KiB", MAX_BODY / 1024));
    }
    if body.trim_ascii().is_empty() {
        return Err("its body is empty".to_owned());
    }
    match serde_json::from_str(&text_of(&body)) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(_) => Err("its body is JSON, but not an object".to_owned()),
        Err(_) if answer.is_html() => Err(
            "its body is HTML, not JSON; the instance's url or token_path is wrong, or a login or error page answers instead"
                .to_owned(),
        ),
        Err(error) if error.is_eof() => Err("its body is truncated JSON".to_owned()),
        Err(_) => Err("its body is not JSON".to_owned()),
    }
}

/// Decodes the body, up to a little more than [`MAX_BODY`], or returns the unsupported encoding.
/// Some gateways send gzip unrequested.
fn decoded(answer: &Answer) -> Result<Cow<'_, [u8]>, &str> {
    let encoding = answer.header(&CONTENT_ENCODING).unwrap_or_default();
    match &*encoding.to_ascii_lowercase() {
        "" | "identity" => Ok(Cow::Borrowed(&answer.body)),
        "gzip" | "x-gzip" => {
            let mut body = Vec::new();
            let limit = MAX_BODY as u64 + 1;
            let mut decoder = GzDecoder::new(&*answer.body).take(limit);
            let read = decoder.read_to_end(&mut body);
            read.map(|_| Cow::Owned(body)).map_err(|_| encoding)
        }
        _ => Err(encoding),
    }
}

/// The text of a body, without a byte order mark (RFC 8259, section 8.1). Bytes that are not UTF-8
/// are read as Latin-1: the token itself is ASCII.
fn text_of(body: &[u8]) -> Cow<'_, str> {
    let body = body.strip_prefix("\u{feff}".as_bytes()).unwrap_or(body);
    match std::str::from_utf8(body) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => Cow::Owned(body.iter().map(|b| char::from(*b)).collect()),
    }
}

/// `expires_in` in whole seconds: a number or, as some servers write it, a string of digits. A
/// missing value is not guessed: a token used for too long fails in the app's hands.
fn lifetime(value: Option<&Value>) -> Result<Duration, String> {
    let seconds = match value {
        None => return Err("it has no `expires_in`, so the token's lifetime is unknown".to_owned()),
        Some(Value::String(digits)) if is_digits(digits) => digits.parse().ok(),
        Some(Value::Number(number)) => number.as_f64(),
        Some(_) => None,
    };
    match seconds {
        None => Err("`expires_in` is not a number of seconds".to_owned()),
        Some(negative) if negative < 0.0 => Err(format!("`expires_in` is negative ({negative})")),
        Some(none) if none < 1.0 => {
            Err("`expires_in` is 0: the token has already expired".to_owned())
        }
        // saturates above the maximum
        Some(seconds) => Ok(Duration::from_secs(seconds as u64).min(MAX_LIFETIME)),
    }
}

/// What an error response means.
fn refusal(answer: &Answer, issuer: &Issuer) -> (Outcome, String) {
    let host = issuer.authority();
    let status = answer.status.as_u16();
    if answer.status.is_redirection() {
        let target = answer
            .header(&LOCATION)
            .and_then(|location| issuer.redirect_target(location))
            .map_or_else(String::new, |target| format!(", pointing to {target}"));
        return (
            Outcome::ServerError,
            format!(
                "{host} answered the token request with a redirect ({status}){target}, which is not followed; the instance's url or token_path is probably wrong, or a login page answers instead"
            ),
        );
    }
    if answer.status == StatusCode::LOOP_DETECTED {
        let message = format!("{host} answered the token request with {status}: {LOOP}");
        return (Outcome::Loop, message);
    }
    let fields = error_body(answer).unwrap_or_default();
    let detail = match oauth_error(&fields, issuer) {
        Some(error) => format!(" ({error})"),
        None if answer.is_html() => " (with an HTML page: perhaps not Collibra itself)".to_owned(),
        None => String::new(),
    };
    let (outcome, advice) = classify(status, fields.get("error").and_then(Value::as_str));
    (
        outcome,
        format!("{host} answered the token request with {status}{detail}: {advice}"),
    )
}

/// What a status with the body's `error` means, and what to do about it.
fn classify(status: u16, error: Option<&str>) -> (Outcome, &'static str) {
    match (status, error) {
        (429, _) => (
            Outcome::RateLimited,
            "the client's token pool is empty; if this continues, another program uses the same client: point it at this proxy",
        ),
        (401, _) | (400, Some("invalid_client")) => (
            Outcome::InvalidClient,
            "it does not accept the client's id and secret; compare both, and auth_method, with the application's registration in Collibra's settings",
        ),
        (400, Some("invalid_scope")) => (
            Outcome::InvalidRequest,
            "it does not grant the configured scope; leave scope out unless Collibra asks for one",
        ),
        (403, _) => (
            Outcome::InvalidRequest,
            "it refuses the request; a network policy, such as an IP allowlist, may block it",
        ),
        (404 | 405 | 410, _) => (
            Outcome::InvalidRequest,
            "there is no token endpoint at this address; check the instance's url and token_path",
        ),
        (407, _) => (
            Outcome::InvalidRequest,
            "an HTTP proxy on the way requires its own credentials",
        ),
        (408 | 425, _) => (
            Outcome::ServerError,
            "it did not receive the request in time; if this continues, check the network path",
        ),
        (400..500, _) => (
            Outcome::InvalidRequest,
            "it refuses the request; check the client's registration, auth_method and scope",
        ),
        _ => (
            Outcome::ServerError,
            "it failed, or a gateway before it did; if this continues, check Collibra's status",
        ),
    }
}

/// The JSON object in an error response's body, if there is one.
fn error_body(answer: &Answer) -> Option<Map<String, Value>> {
    let body = decoded(answer).ok().filter(|body| body.len() <= MAX_BODY)?;
    serde_json::from_str(&text_of(&body)).ok()
}

/// `error` and `error_description` (RFC 6749, section 5.2), for a message.
fn oauth_error(fields: &Map<String, Value>, issuer: &Issuer) -> Option<String> {
    let text = |name| fields.get(name).and_then(Value::as_str);
    let quoted = match (text("error"), text("error_description")) {
        (Some(error), Some(description)) => issuer.quote(&format!("{error}: {description}")),
        (Some(only), None) | (None, Some(only)) => issuer.quote(only),
        (None, None) => return None,
    };
    (!quoted.is_empty()).then_some(quoted)
}

/// `Retry-After`: whole seconds, or a date in any of HTTP's three forms (RFC 9110, section 5.6.7).
fn retry_after(answer: &Answer, now: SystemTime) -> Option<Duration> {
    let text = answer.header(&RETRY_AFTER)?;
    let wait = if is_digits(text) {
        Duration::from_secs(text.parse().unwrap_or(u64::MAX))
    } else {
        let date = httpdate::parse_http_date(text).ok()?;
        // a date in the past allows an attempt at once
        date.duration_since(now).unwrap_or_default()
    };
    Some(wait.min(MAX_RETRY_AFTER))
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

#[cfg(test)]
mod tests;
