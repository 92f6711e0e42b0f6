//! One access token: its lifetime, and the header value that is built once and attached to every
//! call.

use std::time::{Duration, SystemTime};

use http::HeaderValue;

use crate::clock::Instant;
use crate::secret::Secret;
use crate::token::ports::StoredToken;

/// The share of its lifetime before expiry at which a token is no longer sent: 3 s of 5 minutes. A
/// call in transit then still arrives with a valid token.
const TRANSIT_SHARE: f64 = 0.01;

/// An access token, ready to be attached to requests.
#[derive(Clone, Debug)]
pub struct Token {
    /// Marked as sensitive, so that printing shows nothing of it.
    authorization: HeaderValue,
    generation: u64,
    issued: Instant,
    expires: Instant,
    usable_until: Instant,
}

/// The text cannot be sent as a bearer token (RFC 6750, section 2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the access token is empty or has characters that a bearer token cannot have")]
pub struct NotABearerToken;

impl Token {
    /// Returns a token requested at `asked`. Its `lifetime` counts from then. The issuer's clock
    /// started later, so the token expires no earlier than computed here.
    ///
    /// # Errors
    /// [`NotABearerToken`] if `access_token` is empty or has anything but visible ASCII in it.
    pub fn new(
        access_token: &Secret,
        generation: u64,
        asked: Instant,
        lifetime: Duration,
    ) -> Result<Token, NotABearerToken> {
        let text = access_token.expose();
        if text.is_empty() || !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(NotABearerToken);
        }
        let mut authorization =
            HeaderValue::try_from(format!("Bearer {text}")).map_err(|_| NotABearerToken)?;
        authorization.set_sensitive(true);
        let expires = asked + lifetime;
        Ok(Token {
            authorization,
            generation,
            issued: asked,
            expires,
            usable_until: expires - lifetime.mul_f64(TRANSIT_SHARE),
        })
    }

    /// Returns the same token under another generation.
    #[must_use]
    pub(crate) fn renumbered(&self, generation: u64) -> Token {
        Token {
            generation,
            ..self.clone()
        }
    }

    /// The value of the `Authorization` header: `Bearer` and the token.
    #[must_use]
    pub fn authorization(&self) -> &HeaderValue {
        &self.authorization
    }

    /// The bare access token.
    #[must_use]
    pub fn access_token(&self) -> &str {
        let value = self.authorization.to_str().unwrap_or_default();
        value.strip_prefix("Bearer ").unwrap_or_default()
    }

    /// The token as stored; `wall_at` converts to wall-clock time.
    pub(crate) fn stored(&self, wall_at: impl Fn(Instant) -> SystemTime) -> StoredToken {
        StoredToken {
            generation: self.generation,
            access_token: Secret::from(self.access_token().to_owned()),
            asked: wall_at(self.issued),
            lifetime: self.lifetime(),
        }
    }

    /// The generation: the client's tokens are numbered from 1.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// When the token was requested.
    #[must_use]
    pub fn issued(&self) -> Instant {
        self.issued
    }

    /// Its lifetime from then.
    #[must_use]
    pub fn lifetime(&self) -> Duration {
        self.expires.since(self.issued)
    }

    /// When the token expires.
    #[must_use]
    pub fn expires(&self) -> Instant {
        self.expires
    }

    /// The last moment at which the token may be sent, shortly before it expires.
    #[must_use]
    pub fn usable_until(&self) -> Instant {
        self.usable_until
    }

    /// Returns whether the token may be sent at `now`.
    #[must_use]
    pub fn is_usable(&self, now: Instant) -> bool {
        now < self.usable_until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> Secret {
        Secret::from(text.to_owned())
    }

    #[test]
    fn is_usable_until_shortly_before_its_end() {
        let asked = Instant::ORIGIN + Duration::from_secs(7);
        let token = Token::new(&secret("abc"), 1, asked, Duration::from_secs(300)).unwrap();
        assert!(token.is_usable(asked + Duration::from_secs(296)));
        assert!(!token.is_usable(asked + Duration::from_secs(297)));
        assert_eq!(token.expires(), asked + Duration::from_secs(300));
    }

    #[test]
    fn a_short_life_is_used_nearly_whole() {
        let token = Token::new(&secret("abc"), 1, Instant::ORIGIN, Duration::from_secs(3)).unwrap();
        assert!(token.is_usable(Instant::ORIGIN + Duration::from_millis(2_960)));
    }

    #[test]
    fn what_could_split_a_header_is_no_token() {
        for text in ["", "a b", "a\r\nX: y", "t\u{f6}ken"] {
            let made = Token::new(&secret(text), 1, Instant::ORIGIN, Duration::from_secs(9));
            assert_eq!(made.unwrap_err(), NotABearerToken, "{text:?}");
        }
    }

    #[test]
    fn printing_shows_nothing_of_it() {
        let token = Token::new(
            &secret("canary-91"),
            1,
            Instant::ORIGIN,
            Duration::from_secs(9),
        )
        .unwrap();
        assert!(!format!("{token:?} {:?}", token.authorization()).contains("canary"));
    }
}
