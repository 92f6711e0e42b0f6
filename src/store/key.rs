//! The key that seals a client's token, and the identity of a record.

use ring::aead::{CHACHA20_POLY1305, LessSafeKey, UnboundKey};
use ring::{digest, hkdf};

use super::hex;
use crate::client_id::ClientId;
use crate::secret::Secret;

/// Identifies a client and seals its token.
#[derive(Debug)]
pub struct Key {
    pub(super) sealing: LessSafeKey,
    instance: Box<str>,
    client_id: ClientId,
}

impl Key {
    /// Derives the key of the client `client_id` of `instance`, an address like
    /// `https://acme.collibra.com`. All processes that share the client must use the same text.
    #[must_use]
    pub fn new(instance: &str, client_id: &ClientId, client_secret: &Secret) -> Key {
        let info = framed(&[instance.as_bytes(), client_id.as_str().as_bytes()]);
        let sealing = hkdf::Salt::new(hkdf::HKDF_SHA256, b"collibra-auth-proxy store key 1")
            .extract(client_secret.expose().as_bytes())
            .expand(&[&info], &CHACHA20_POLY1305)
            .map(UnboundKey::from)
            .map(LessSafeKey::new);
        let Ok(sealing) = sealing else {
            unreachable!("HKDF-SHA-256 gives as much as 32 bytes")
        };
        Key {
            sealing,
            instance: instance.into(),
            client_id: client_id.clone(),
        }
    }

    /// The instance's address.
    #[must_use]
    pub fn instance(&self) -> &str {
        &self.instance
    }

    /// Returns 16 hexadecimal digits that identify instance and client id, independent of the
    /// secret. They are part of the stored record's name.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let statement = self.statement(b"collibra-auth-proxy store client", &[]);
        hex(&digest::digest(&digest::SHA256, &statement), 8)
    }

    /// Encodes `parts` as a statement about this client for `purpose`. No other client, parts or
    /// purpose produce the same bytes.
    pub(super) fn statement(&self, purpose: &[u8], parts: &[&[u8]]) -> Vec<u8> {
        let mut all = vec![
            purpose,
            self.instance.as_bytes(),
            self.client_id.as_str().as_bytes(),
        ];
        all.extend(parts);
        framed(&all)
    }
}

/// Prefixes each part with its length, so that no two lists of parts produce the same bytes.
fn framed(parts: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for part in parts {
        bytes.extend((part.len() as u64).to_be_bytes());
        bytes.extend_from_slice(part);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(instance: &str, id: &str, secret: &str) -> Key {
        let id = ClientId::parse(id).unwrap();
        Key::new(instance, &id, &Secret::from(secret.to_owned()))
    }

    #[test]
    fn the_fingerprint_is_the_clients_whatever_its_secret() {
        let ours = key("https://a.example", "id", "s").fingerprint();
        assert_eq!(ours.len(), 16);
        assert_eq!(ours, key("https://a.example", "id", "other").fingerprint());
        assert_ne!(ours, key("https://b.example", "id", "s").fingerprint());
        // the boundary between the two parts counts
        assert_ne!(ours, key("https://a.exampl", "eid", "s").fingerprint());
    }

    #[test]
    fn printing_shows_nothing_of_the_secret() {
        let shown = format!("{:?}", key("https://a.example", "id", "k4n4ri-8c1f"));
        assert!(!shown.contains("k4n4ri"), "{shown}");
    }
}
