//! Any other path: the response describes the request, so that a test sees what arrived.

use http::StatusCode;
use http::header::{AUTHORIZATION, SET_COOKIE, STRICT_TRANSPORT_SECURITY};
use serde_json::{Map, Value, json};

use super::Call;
use crate::simulator::body;
use crate::simulator::reply::{self, Reply};

/// Returns method, path, query and headers, with all values of a name in one list and without
/// `Authorization`, and the body's length and Adler-32 checksum. The response has a `Set-Cookie`
/// and a `Strict-Transport-Security` header, like the real service's.
pub(super) async fn answer(call: Call<'_>) -> Reply {
    let (head, body) = (call.head, body::drain(call.body).await);
    let mut headers = Map::new();
    for (name, value) in head
        .headers
        .iter()
        .filter(|(name, _)| *name != AUTHORIZATION)
    {
        let values = headers.entry(name.as_str()).or_insert_with(|| json!([]));
        if let Value::Array(values) = values {
            values.push(Value::from(String::from_utf8_lossy(value.as_bytes())));
        }
    }
    let told = json!({
        "method": head.method.as_str(),
        "path": head.uri.path(),
        "query": head.uri.query(),
        "headers": headers,
        "body": { "length": body.bytes, "adler32": body.adler32 },
    });
    with_session(reply::json(StatusCode::OK, told))
}

/// Adds the headers that the real service adds and a proxy should remove.
pub(super) fn with_session(reply: Reply) -> Reply {
    let cookie = "JSESSIONID=5851B3A5B2D14E5D9C0F; Path=/; Secure; HttpOnly";
    let reply = reply::with_header(reply, SET_COOKIE, cookie);
    reply::with_header(
        reply,
        STRICT_TRANSPORT_SECURITY,
        "max-age=31536000; includeSubDomains",
    )
}
