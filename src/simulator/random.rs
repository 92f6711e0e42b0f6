//! Random access tokens, ids and client secrets in Collibra's format. They protect only simulated
//! data.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// A new access token: 96 characters of Base64.
pub(super) fn token() -> String {
    base64::<72>()
}

/// A new client secret: 48 characters of Base64, so `+` and `/` occur and need encoding.
pub(super) fn secret() -> String {
    base64::<36>()
}

/// A new version 4 UUID.
pub(super) fn uuid() -> String {
    uuid::Uuid::new_v4().to_string()
}

fn base64<const N: usize>() -> String {
    let mut bytes = [0; N];
    fastrand::fill(&mut bytes);
    STANDARD.encode(bytes)
}
