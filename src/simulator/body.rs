//! Reads request bodies without keeping them in memory.

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
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

/// The length and checksum of a body.
#[derive(Clone, Copy)]
pub(super) struct Drained {
    /// The length in bytes.
    pub(super) bytes: u64,
    /// The Adler-32 checksum (RFC 1950, section 8.2).
    pub(super) adler32: u32,
}

/// Reads a body to its end and counts its bytes, also if it is truncated.
pub(super) async fn count(body: Incoming) -> u64 {
    let mut bytes = 0;
    each_piece(body, |piece| bytes += piece.len() as u64).await;
    bytes
}

/// Reads a body to its end; returns its length and checksum.
pub(super) async fn drain(body: Incoming) -> Drained {
    let (mut bytes, mut sum) = (0, Adler32::default());
    each_piece(body, |piece| {
        bytes += piece.len() as u64;
        sum.add(&piece);
    })
    .await;
    Drained {
        bytes,
        adler32: sum.value(),
    }
}

/// Passes every piece of a body to `take`; `false` if the body was truncated.
pub(super) async fn each_piece(mut body: Incoming, mut take: impl FnMut(Bytes)) -> bool {
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return false };
        if let Ok(piece) = frame.into_data() {
            take(piece);
        }
    }
    true
}

/// Reads a small body into memory.
///
/// # Errors
/// [`Unusable::Unread`].
pub(super) async fn keep(body: Incoming) -> Result<Bytes, Unusable> {
    let kept = Limited::new(body, KEPT)
        .collect()
        .await
        .map_err(|_| Unusable::Unread)?;
    Ok(kept.to_bytes())
}

/// Reads a small JSON body.
///
/// # Errors
/// [`Unusable`].
pub(super) async fn json<T: DeserializeOwned>(body: Incoming) -> Result<T, Unusable> {
    Ok(serde_json::from_slice(&keep(body).await?)?)
}

/// Adler-32, which zlib can verify in every language.
struct Adler32 {
    low: u32,
    high: u32,
}

impl Default for Adler32 {
    fn default() -> Self {
        Self { low: 1, high: 0 }
    }
}

impl Adler32 {
    const MODULUS: u32 = 65_521;
    /// How many bytes can be added before a sum could overflow (zlib's NMAX).
    const STEP: usize = 5552;

    fn add(&mut self, bytes: &[u8]) {
        for step in bytes.chunks(Self::STEP) {
            for byte in step {
                self.low += u32::from(*byte);
                self.high += self.low;
            }
            self.low %= Self::MODULUS;
            self.high %= Self::MODULUS;
        }
    }

    fn value(&self) -> u32 {
        self.high << 16 | self.low
    }
}

#[cfg(test)]
mod tests {
    use super::Adler32;

    #[test]
    fn adler_32_agrees_with_its_well_known_example() {
        let mut sum = Adler32::default();
        sum.add(b"Wiki");
        sum.add(b"pedia");
        assert_eq!(sum.value(), 0x11e6_0398);
    }

    #[test]
    fn adler_32_does_not_overflow() {
        let mut sum = Adler32::default();
        for _ in 0..10 {
            sum.add(&[0xff; 100_000]);
        }
        assert_ne!(sum.value(), 0);
    }
}
