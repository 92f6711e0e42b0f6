//! Endpoints for tests of a proxy: bodies of any length, delays, statuses.

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http::header::LOCATION;
use serde_json::json;

use super::Call;
use crate::simulator::body;
use crate::simulator::reply::{self, Payload, Producer, Reply};

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
pub(super) fn producer(length: u64, piece: usize) -> Producer {
    let mut sent = 0;
    Box::new(move || {
        let left = usize::try_from(length - sent).unwrap_or(usize::MAX);
        let from = (sent % 16) as usize;
        let size = left.min(piece).min(PATTERN.len() - from);
        sent += size as u64;
        (size > 0).then(|| Bytes::from_static(&PATTERN[from..from + size]))
    })
}

/// `GET /_bytes/{n}`: n bytes. `chunked=1` omits the length, `cut=M` breaks off after M bytes,
/// `piece=N` and `pause=MILLIS` send N bytes at a time with a pause after each.
pub(super) fn send(call: &Call<'_>, length: &str) -> Reply {
    let number = |name| call.query(name).map(|value| value.parse::<u64>());
    let read = || {
        let length = length.parse::<u64>()?;
        let piece = number("piece").transpose()?.unwrap_or(u64::MAX).max(1);
        Ok((
            length,
            number("cut").transpose()?,
            piece,
            number("pause").transpose()?,
        ))
    };
    let (length, cut, piece, pause) = match read() {
        Ok(read) => read,
        Err(error) => {
            let error: std::num::ParseIntError = error;
            return super::unusable(&error);
        }
    };
    let sent = cut.map_or(length, |cut| cut.min(length));
    let producer = producer(sent, usize::try_from(piece).unwrap_or(usize::MAX));
    let body = match call.query("chunked").as_deref() {
        Some("1") => Payload::chunked(producer),
        _ => Payload::sized(length, producer),
    };
    let body = if cut.is_some() {
        body.cut(call.line.clone())
    } else {
        body
    };
    let body = body.paced(pause.map(Duration::from_millis));
    reply::of_type(StatusCode::OK, "application/octet-stream", body)
}

/// `POST /_bytes`: reads the body to its end and returns its length.
pub(super) async fn receive(call: Call<'_>) -> Reply {
    let mut received = 0_u64;
    let whole = body::each_piece(call.body, |piece| received += piece.len() as u64).await;
    let status = if whole {
        StatusCode::OK
    } else {
        StatusCode::BAD_REQUEST
    };
    reply::json(status, &json!({ "received": received }))
}

/// `GET /_sleep/{millis}`: answers after so many milliseconds of real time.
pub(super) async fn sleep(millis: &str) -> Reply {
    match millis.parse() {
        Ok(millis) => {
            tokio::time::sleep(Duration::from_millis(millis)).await;
            reply::json(StatusCode::OK, &json!({ "slept": millis }))
        }
        Err(error) => super::unusable(&error),
    }
}

/// `/_status/{code}`: that status, with a JSON error; `location=URL` adds a `Location`.
pub(super) async fn status(call: Call<'_>, code: &str) -> Reply {
    let location = call.query("location");
    body::count(call.body).await;
    let code = code.parse().ok().filter(|code| (200..=599).contains(code));
    let Some(code) = code.and_then(|code: u16| StatusCode::from_u16(code).ok()) else {
        return super::unusable(&"a status is a number from 200 to 599");
    };
    let reply = reply::api_error(code, "askedFor", "This status was requested.");
    match location {
        Some(location) => reply::with_header(reply, LOCATION, &location),
        None => reply,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_have_their_length_and_pattern_however_they_are_cut() {
        for piece in [1, 7, 65_536, usize::MAX] {
            let mut next = producer(300_001, piece);
            let mut all = Vec::new();
            while let Some(bytes) = next() {
                all.extend_from_slice(&bytes);
            }
            assert_eq!(all.len(), 300_001);
            let right = all
                .iter()
                .enumerate()
                .all(|(at, byte)| *byte == PATTERN[at % 16]);
            assert!(right, "{piece}");
        }
    }
}
