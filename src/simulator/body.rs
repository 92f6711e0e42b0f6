//! Reads request bodies without keeping them in memory.

use axum::body::Body;
use bytes::Bytes;
use http_body_util::BodyExt;
use serde::de::DeserializeOwned;
use simd_adler32::Adler32;

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

/// The measures of a body that was read and discarded.
pub(super) struct Drained {
    /// The length in bytes.
    pub(super) bytes: u64,
    /// The Adler-32 checksum (RFC 1950, section 8.2), which zlib can verify in every language.
    pub(super) adler32: u32,
    /// Whether it arrived completely.
    pub(super) whole: bool,
}

/// Reads a body to its end.
pub(super) async fn drain(mut body: Body) -> Drained {
    let (mut bytes, mut sum, mut whole) = (0, Adler32::new(), true);
    while let Some(frame) = body.frame().await {
        match frame.map(|frame| frame.into_data()) {
            Ok(Ok(piece)) => {
                bytes += piece.len() as u64;
                sum.write(&piece);
            }
            Ok(Err(_trailers)) => {}
            Err(_) => {
                whole = false;
                break;
            }
        }
    }
    let adler32 = sum.finish();
    Drained {
        bytes,
        adler32,
        whole,
    }
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
