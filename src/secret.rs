//! Text that must never be shown: redacted when printed, wiped from memory when dropped.
//!
//! Only the text in a [`Secret`] is wiped. Copies made for sending cannot be: header values, the
//! token request's form and its response, and buffers of the TLS and HTTP libraries.
//! `crate::process` hides those from other processes.

use std::fmt;

use secrecy::{ExposeSecret, SecretString};

/// A client secret, an access token or a key. Only [`Secret::expose`] reveals the text.
#[derive(Clone)]
pub struct Secret(SecretString);

/// Why a text is not a secret. Never quotes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSecret {
    /// It is empty.
    #[error("the secret is empty")]
    Empty,
    /// It contains a control character, most often a line break.
    #[error(
        "the secret has a control character (a line break?) in its middle; it should be one line"
    )]
    ControlCharacter,
}

impl Secret {
    /// Parses a secret from a file, a variable or the configuration. A line break at its end is
    /// removed; spaces are kept, because they may belong to it.
    ///
    /// # Errors
    /// [`InvalidSecret`] if nothing is left or it contains a control character.
    pub fn parse(text: &str) -> Result<Secret, InvalidSecret> {
        let text = text.trim_end_matches(['\r', '\n']);
        if text.is_empty() {
            return Err(InvalidSecret::Empty);
        }
        if text.chars().any(char::is_control) {
            return Err(InvalidSecret::ControlCharacter);
        }
        Ok(Secret(text.into()))
    }

    /// The text, for the one place that needs it.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

/// Compares in constant time: wherever two secrets of the same length differ, it takes equally
/// long.
impl PartialEq for Secret {
    fn eq(&self, other: &Secret) -> bool {
        let (one, other) = (self.expose().as_bytes(), other.expose().as_bytes());
        let pairs = one.iter().zip(other);
        one.len() == other.len() && pairs.fold(0, |sum, (a, b)| sum | (a ^ b)) == 0
    }
}

impl Eq for Secret {}

impl From<String> for Secret {
    fn from(text: String) -> Secret {
        Secret(text.into())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn printing_shows_nothing_of_it() {
        let secret = Secret::parse("canary-7f3a\n").unwrap();
        assert_eq!(format!("{secret:?}"), "[redacted]");
        assert_eq!(secret.expose(), "canary-7f3a");
    }

    #[test]
    fn secrets_are_equal_by_their_text() {
        let secret = |text: &str| Secret::from(text.to_owned());
        assert_eq!(secret("abc"), secret("abc"));
        for other in ["abd", "xbc", "ab", "abcd", ""] {
            assert_ne!(secret("abc"), secret(other));
        }
    }

    #[test]
    fn spaces_belong_to_it_and_line_breaks_do_not() {
        assert_eq!(Secret::parse(" a b \r\n").unwrap().expose(), " a b ");
        assert_eq!(Secret::parse("\n").unwrap_err(), InvalidSecret::Empty);
        assert_eq!(
            Secret::parse("a\nb").unwrap_err(),
            InvalidSecret::ControlCharacter
        );
    }
}
