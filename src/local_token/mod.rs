//! Local tokens: what apps get from the proxy, instead of Collibra's tokens, when they request a
//! token or log in.
//!
//! A local token names its bearer and its expiry. Its signing key is derived from the credential
//! that the app presented, so nothing is stored. The token is valid after a restart, and at every
//! replica that knows the same credential. A rotation of the client does not invalidate it; a
//! change of the app's key does. Collibra does not accept it.

pub mod login;
pub mod request;
mod revoked;

use std::fmt;
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::{hkdf, hmac};

pub use revoked::Revoked;

use crate::secret::Secret;

/// The bearer of a local token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject<'a> {
    /// An app, by its name in the configuration.
    App(&'a str),
    /// A caller with the credentials of the client of this name.
    Client(&'a str),
    /// Any caller: no apps are configured.
    Anyone,
}

/// The key that signs the local tokens of one credential.
#[derive(Clone)]
pub struct Key(hmac::Key);

/// A local token as presented. Trust none of it before [`UnverifiedToken::is_valid`].
#[derive(Clone, Copy)]
pub struct UnverifiedToken<'a> {
    signed: &'a str,
    mac: &'a str,
    subject: Subject<'a>,
    expires: SystemTime,
}

/// The prefix of every local token, which tells it from an app's key.
const PREFIX: &str = "cap1.";

impl Key {
    /// Derives the key of callers that present `credential`.
    #[must_use]
    pub fn of(credential: &Secret) -> Key {
        let prk = hkdf::Salt::new(hkdf::HKDF_SHA256, b"collibra-auth-proxy local token 1")
            .extract(credential.expose().as_bytes());
        let Ok(okm) = prk.expand(&[b"hmac"], hmac::HMAC_SHA256) else {
            unreachable!("HKDF-SHA-256 gives as much as 32 bytes")
        };
        Key(okm.into())
    }

    /// A local token for `subject`, whose name has no dot; good until `expires`, to the second.
    /// Another `nonce` makes it another token, which is revoked by itself.
    #[must_use]
    pub fn sign(&self, subject: Subject<'_>, expires: SystemTime, nonce: u64) -> Secret {
        let (kind, name) = match subject {
            Subject::App(name) => (APP, name),
            Subject::Client(name) => (CLIENT, name),
            Subject::Anyone => (ANYONE, ""),
        };
        let since = expires.duration_since(SystemTime::UNIX_EPOCH);
        let seconds = since.unwrap_or_default().as_secs();
        let signed = format!("{PREFIX}{kind}.{name}.{seconds}.{nonce:x}");
        let mac = URL_SAFE_NO_PAD.encode(hmac::sign(&self.0, signed.as_bytes()));
        Secret::from(format!("{signed}.{mac}"))
    }
}

const APP: &str = "a";
const CLIENT: &str = "c";
const ANYONE: &str = "n";

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl<'a> UnverifiedToken<'a> {
    /// Parses `text`, if it has the form of a local token.
    #[must_use]
    pub fn parse(text: &'a str) -> Option<UnverifiedToken<'a>> {
        let (signed, mac) = text.rsplit_once('.')?;
        let mut parts = signed.strip_prefix(PREFIX)?.split('.');
        let (kind, name) = (parts.next()?, parts.next()?);
        let seconds = parts.next()?.parse().ok()?;
        let subject = match kind {
            APP => Subject::App(name),
            CLIENT => Subject::Client(name),
            ANYONE => Subject::Anyone,
            _ => return None,
        };
        // earlier versions gave none
        let _nonce = parts.next();
        let expires = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))?;
        parts.next().is_none().then_some(UnverifiedToken {
            signed,
            mac,
            subject,
            expires,
        })
    }

    /// The bearer that it claims.
    #[must_use]
    pub fn subject(&self) -> Subject<'a> {
        self.subject
    }

    /// Returns whether it was signed with `key` and has not expired at `now`.
    #[must_use]
    pub fn is_valid(&self, key: &Key, now: SystemTime) -> bool {
        now < self.expires && self.is_signed(key)
    }

    /// Whether it stands for the client whose secret `key` is made from.
    #[must_use]
    pub fn is_of_client(&self, key: &Key) -> bool {
        matches!(self.subject, Subject::Client(_)) && self.is_signed(key)
    }

    fn is_signed(&self, key: &Key) -> bool {
        let mac = URL_SAFE_NO_PAD.decode(self.mac);
        mac.is_ok_and(|mac| hmac::verify(&key.0, self.signed.as_bytes(), &mac).is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(credential: &str) -> Key {
        Key::of(&Secret::from(credential.to_owned()))
    }

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn it_says_who_and_holds_until_it_ends() {
        for subject in [
            Subject::App("lineage"),
            Subject::Client("catalog-dev_2"),
            Subject::Anyone,
        ] {
            let token = key("k").sign(subject, at(1_000), 7);
            let shown = UnverifiedToken::parse(token.expose()).unwrap();
            assert_eq!(shown.subject(), subject);
            assert!(shown.is_valid(&key("k"), at(999)));
            assert!(!shown.is_valid(&key("k"), at(1_000)), "it has ended");
            assert!(!shown.is_valid(&key("other"), at(999)));
        }
    }

    #[test]
    fn one_without_a_nonce_holds() {
        let signed = "cap1.a.lineage.1000";
        let mac = URL_SAFE_NO_PAD.encode(hmac::sign(&key("k").0, signed.as_bytes()));
        let text = format!("{signed}.{mac}");
        let shown = UnverifiedToken::parse(&text).unwrap();
        assert!(shown.is_valid(&key("k"), at(999)));
    }

    #[test]
    fn a_clients_own_is_told_from_an_apps() {
        let of_client = |subject| {
            let token = key("k").sign(subject, at(1_000), 0);
            UnverifiedToken::parse(token.expose())
                .unwrap()
                .is_of_client(&key("k"))
        };
        assert!(of_client(Subject::Client("catalog")));
        assert!(!of_client(Subject::App("lineage")));
        assert!(!of_client(Subject::Anyone));
        let token = key("other").sign(Subject::Client("catalog"), at(1_000), 0);
        let shown = UnverifiedToken::parse(token.expose()).unwrap();
        assert!(!shown.is_of_client(&key("k")));
    }

    #[test]
    fn nothing_of_it_can_be_changed() {
        let token = key("k").sign(Subject::App("lineage"), at(1_000), 0);
        let token = token.expose();
        for (at_byte, _) in token.char_indices() {
            for other in ['a', 'c', 'n', '0', '9', '.', '-', 'A'] {
                let mut forged = token.to_owned();
                forged.replace_range(at_byte..=at_byte, &other.to_string());
                let Some(presented) = UnverifiedToken::parse(&forged) else {
                    continue;
                };
                // the last base64 digit has unused bits, which the decoder requires to be zero
                let valid = presented.is_valid(&key("k"), at(0));
                assert_eq!(valid, forged == token, "{forged}");
            }
        }
    }

    #[test]
    fn other_texts_are_no_local_tokens() {
        for text in [
            "",
            "cap1",
            "cap1.a.lineage.1000",
            "cap1.x.lineage.1000.AAAA",
            "cap1.a.lineage.soon.AAAA",
            "cap1.a.lineage.1000.7.7.AAAA",
            "cap1.a.line.age.1000.AAAA",
            "cap1.a.lineage.99999999999999999999.AAAA",
            "cap2.a.lineage.1000.AAAA",
            "eyJhbGciOiJub25lIn0.e30.",
        ] {
            assert!(UnverifiedToken::parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn a_key_shows_nothing_of_itself() {
        assert_eq!(format!("{:?}", key("k4n4ri")), "[redacted]");
    }
}
