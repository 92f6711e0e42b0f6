//! The token and pool that a process hands off to its successor. The successor then needs no new
//! token, even if the store has none.
//!
//! They are sealed like a stored record ([`record`]). A successor with another client or another
//! secret cannot open them.

use std::time::SystemTime;

use super::key::Key;
use super::{Client, record};
use crate::token::ports::{Record, StoreError};

/// Seals the `record` of a client for the successor.
///
/// # Errors
/// As for [`record::seal`].
pub fn seal(client: Client<'_>, record: &Record) -> Result<Vec<u8>, StoreError> {
    record::seal(&key(client), record)
}

/// Opens a client's handed-off record, as far as it can be read at `now`.
#[must_use]
pub fn open(client: Client<'_>, handed: &[u8], now: SystemTime) -> Option<Record> {
    record::open(&key(client), handed, now).record
}

fn key(client: Client<'_>) -> Key {
    Key::new(client.instance, client.id, client.secret)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client_id::ClientId;
    use crate::secret::Secret;
    use crate::token::ports::{StoredPool, StoredToken};
    use std::time::Duration;

    const NOW: SystemTime = SystemTime::UNIX_EPOCH;

    fn record() -> Record {
        Record {
            generation: 3,
            token: Some(StoredToken {
                generation: 3,
                access_token: Secret::from("canary".to_owned()),
                asked: NOW,
                lifetime: Duration::from_secs(300),
            }),
            pool: StoredPool {
                full_at: NOW,
                not_before: NOW,
            },
        }
    }

    /// What a client with the secret `b` can read of a handoff by one with the secret `a`.
    fn handed(a: &str, b: &str) -> Record {
        let id = ClientId::parse("id").unwrap();
        let [a, b] = [a, b].map(|secret| Secret::from(secret.to_owned()));
        let client = |secret| Client {
            name: "catalog",
            instance: "https://acme.example",
            id: &id,
            secret,
        };
        let sealed = seal(client(&a), &record()).unwrap();
        assert!(!String::from_utf8_lossy(&sealed).contains("canary"));
        open(client(&b), &sealed, NOW).unwrap()
    }

    #[test]
    fn a_successor_takes_the_token_over() {
        let record = handed("s", "s");
        assert_eq!(record.generation, 3);
        assert_eq!(record.token.unwrap().access_token.expose(), "canary");
    }

    #[test]
    fn a_token_of_another_secret_is_not_taken_over() {
        assert!(handed("s", "another").token.is_none());
    }
}
