//! Endpoints for tests of a proxy: bodies of any length, delays, statuses, and an echo.

use std::time::Duration;

use axum::response::IntoResponse;
use bytes::Bytes;
use http::StatusCode;
use http::header::{
    AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, LOCATION, SET_COOKIE, STRICT_TRANSPORT_SECURITY,
};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Answer, Call, unusable};
use crate::simulator::body;
use crate::simulator::reply::{self, Reply};
use crate::simulator::wire::Line;

/// The byte at `i` of every generated body is the hexadecimal digit `i % 16`.
static PATTERN: [u8; 1 << 17] = pattern();

const fn pattern() -> [u8; 1 << 17] {
    let digits = b"0123456789abcdef";
    let mut bytes = [0; 1 << 17];
    let mut at = 0;
    while at < bytes.len() {
        bytes[at] = digits[at % 16];
        at += 1;
    }
    bytes
}

/// Generates `length` bytes, `piece` at a time (at most 128 KiB), without copying.
pub(super) fn pieces(length: u64, piece: usize) -> impl Iterator<Item = Bytes> {
    let mut sent = 0;
    std::iter::from_fn(move || {
        let left = usize::try_from(length - sent).unwrap_or(usize::MAX);
        let from = (sent % 16) as usize;
        let size = left.min(piece).min(PATTERN.len() - from);
        sent += size as u64;
        (size > 0).then(|| Bytes::from_static(&PATTERN[from..from + size]))
    })
}

/// How a body is sent.
#[derive(Deserialize)]
struct Manner {
    chunked: Option<String>,
    cut: Option<u64>,
    piece: Option<usize>,
    pause: Option<u64>,
}

/// `GET /_bytes/{n}`: n bytes. `chunked=1` omits the length, `cut=M` breaks off after M bytes,
/// `piece=N` and `pause=MILLIS` send N bytes at a time with a pause after each.
pub(super) fn send(call: &Call<'_>, length: &str) -> Answer {
    let length: u64 = length.parse().map_err(unusable)?;
    let asked: Manner = call.query()?;
    let sent = asked.cut.map_or(length, |cut| cut.min(length));
    let pieces = pieces(sent, asked.piece.unwrap_or(usize::MAX).max(1));
    let cut = asked.cut.map(|_| Line::of(&call.head));
    let body = reply::generated(pieces, asked.pause.map(Duration::from_millis), cut);
    let reply = ([(CONTENT_TYPE, "application/octet-stream")], body).into_response();
    Ok(match asked.chunked.as_deref() {
        Some("1") => reply,
        _ => reply::with_header(reply, CONTENT_LENGTH, &length.to_string()),
    })
}

/// `POST /_bytes`: reads the body to its end and returns its length.
pub(super) async fn receive(call: Call<'_>) -> Reply {
    let (received, is_whole) = body::drain(call.body).await;
    let status = match is_whole {
        true => StatusCode::OK,
        false => StatusCode::BAD_REQUEST,
    };
    reply::json(status, json!({ "received": received }))
}

/// `GET /_sleep/{millis}`: answers after so many milliseconds of real time.
pub(super) async fn sleep(millis: &str) -> Answer {
    let millis = millis.parse().map_err(unusable)?;
    tokio::time::sleep(Duration::from_millis(millis)).await;
    Ok(reply::json(StatusCode::OK, json!({ "slept": millis })))
}

/// `/_status/{code}`: that status, with a JSON error; `location=URL` adds a `Location`.
pub(super) async fn status(call: Call<'_>, code: &str) -> Answer {
    let asked: Map<String, Value> = call.query()?;
    body::drain(call.body).await;
    let code = reply::status(code);
    let code = code.ok_or_else(|| unusable("a status is a number from 200 to 599"))?;
    let reply = reply::api_error(code, "askedFor", "This status was requested.");
    Ok(match asked.get("location").and_then(Value::as_str) {
        Some(location) => reply::with_header(reply, LOCATION, location),
        None => reply,
    })
}

/// Any other path: describes the request, so that a test sees what arrived. Returns method, path,
/// query and headers, with all values of a name in one list and without `Authorization`, and the
/// body's length. The response has a session, like the real service's.
pub(super) async fn echo(call: Call<'_>) -> Reply {
    let (head, (length, _)) = (call.head, body::drain(call.body).await);
    let mut headers = Map::new();
    for name in head.headers.keys().filter(|name| *name != AUTHORIZATION) {
        let values = head.headers.get_all(name).iter();
        let values = values.map(|value| String::from_utf8_lossy(value.as_bytes()));
        headers.insert(name.to_string(), values.collect());
    }
    let told = json!({
        "method": head.method.as_str(),
        "path": head.uri.path(),
        "query": head.uri.query(),
        "headers": headers,
        "body": { "length": length },
    });
    with_session(reply::json(StatusCode::OK, told))
}

/// Adds the headers that the real service adds and a proxy should remove.
pub(super) fn with_session(reply: Reply) -> Reply {
    let cookie = "JSESSIONID=5851B3A5B2D14E5D9C0F; Path=/; Secure; HttpOnly";
    let reply = reply::with_header(reply, SET_COOKIE, cookie);
    let https_only = "max-age=31536000; includeSubDomains";
    reply::with_header(reply, STRICT_TRANSPORT_SECURITY, https_only)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_have_their_length_and_pattern_however_they_are_cut() {
        for piece in [1, 7, 65_536, usize::MAX] {
            let all: Vec<u8> = pieces(300_001, piece).flatten().collect();
            assert_eq!(all.len(), 300_001);
            let right = all
                .iter()
                .enumerate()
                .all(|(at, byte)| *byte == PATTERN[at % 16]);
            assert!(right, "{piece}");
        }
    }
}
