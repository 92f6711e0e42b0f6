//! The id that Collibra assigned to a registered client.

use std::fmt;
use std::sync::Arc;

/// A client id: one or more visible ASCII characters or spaces (RFC 6749, appendix A.1). It is not
/// a secret, but long; print it with [`fmt::Display`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientId(Arc<str>);

/// Why a text is not a client id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidClientId {
    /// It is empty.
    #[error("the client id is empty")]
    Empty,
    /// It contains a character that RFC 6749 does not allow.
    #[error(
        "the client id has a character that is not printable ASCII, at position {0}; copy the id from the OAuth settings page again"
    )]
    Character(usize),
}

impl ClientId {
    /// Parses a client id from a file, a variable or the configuration. Whitespace at both ends is
    /// trimmed.
    ///
    /// # Errors
    /// [`InvalidClientId`] if nothing is left or a character is not allowed.
    pub fn parse(text: &str) -> Result<ClientId, InvalidClientId> {
        let text = text.trim();
        if text.is_empty() {
            return Err(InvalidClientId::Empty);
        }
        match text.chars().position(|c| !matches!(c, ' '..='~')) {
            Some(position) => Err(InvalidClientId::Character(position + 1)),
            None => Ok(ClientId(text.into())),
        }
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newline_at_the_end_of_a_file_is_no_part_of_the_id() {
        assert_eq!(
            ClientId::parse("urn:sys:env:1\n").unwrap().as_str(),
            "urn:sys:env:1"
        );
    }

    #[test]
    fn what_is_not_printable_is_refused() {
        assert_eq!(ClientId::parse(" \n"), Err(InvalidClientId::Empty));
        assert_eq!(
            ClientId::parse("ab\u{e9}"),
            Err(InvalidClientId::Character(3))
        );
    }
}
