//! Whose a record is, and what its token is sealed with.

use ring::aead::{CHACHA20_POLY1305, LessSafeKey, UnboundKey};
use ring::{digest, hkdf};

use crate::client_id::ClientId;
use crate::secret::Secret;

/// What a client's token is sealed with, and whose it is.
#[derive(Debug)]
pub struct Key {
    pub(super) sealing: LessSafeKey,
    instance: Box<str>,
    client_id: ClientId,
}

impl Key {
    /// The key of the client `client_id` of `instance`, which is an address like
    /// `https://acme.collibra.com`, written alike by every sharer.
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

    /// 16 hexadecimal digits that stand for instance and client id, whatever the secret: a part of
    /// the name under which a record is kept.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let statement = self.statement(b"collibra-auth-proxy store client", &[]);
        let digest = digest::digest(&digest::SHA256, &statement);
        let start = digest.as_ref().iter().take(8);
        start.map(|byte| format!("{byte:02x}")).collect()
    }

    /// What is said of this client by `parts` for `purpose`, as bytes that no other client, parts
    /// or purpose give.
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

/// `parts`, each after its length: no two lists of parts give the same bytes.
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
        // the border between the two counts
        assert_ne!(ours, key("https://a.exampl", "eid", "s").fingerprint());
    }

    #[test]
    fn printing_shows_nothing_of_the_secret() {
        let shown = format!("{:?}", key("https://a.example", "id", "k4n4ri-8c1f"));
        assert!(!shown.contains("k4n4ri"), "{shown}");
    }
}
