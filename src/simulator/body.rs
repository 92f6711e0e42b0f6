//! Reads request bodies.

use axum::body::Body;
use bytes::Bytes;
use http_body_util::BodyExt;
use serde::de::DeserializeOwned;

/// The largest body that is read into memory, in bytes; larger ones are only counted.
const KEPT: usize = 4 << 20;

/// Why a body is unusable.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unusable {
    /// The connection broke, or the body is too large to keep in memory.
    #[error("the body was truncated, or is larger than {KEPT} bytes")]
    Unread,
    /// The body is not the expected JSON.
    #[error("the body is not the expected JSON: {0}")]
    NotJson(#[from] serde_json::Error),
}

/// Reads a body to its end; returns its length in bytes, and whether it arrived completely.
pub(super) async fn drain(mut body: Body) -> (u64, bool) {
    let mut bytes = 0;
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => bytes += frame.data_ref().map_or(0, Bytes::len) as u64,
            Err(_) => return (bytes, false),
        }
    }
    (bytes, true)
}

/// Reads a small body into memory.
///
/// # Errors
/// [`Unusable::Unread`].
pub(super) async fn keep(body: Body) -> Result<Bytes, Unusable> {
    axum::body::to_bytes(body, KEPT)
        .await
        .map_err(|_| Unusable::Unread)
}

/// Reads a small JSON body.
///
/// # Errors
/// [`Unusable`].
pub(super) async fn json<T: DeserializeOwned>(body: Body) -> Result<T, Unusable> {
    Ok(serde_json::from_slice(&keep(body).await?)?)
}
