//! What all stores have in common, whatever they talk to: what is kept of a client and how its flaws
//! are reported ([`Kept`]), what of it the engine has seen ([`Sight`]), how it is replaced under a
//! lease ([`publish`]), and the name by which a process takes part ([`Identity`]).

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use ring::digest;
use tokio::sync::watch;
use tracing::warn;

use super::key::Key;
use super::locked;
use super::record::{self, Successor};
use crate::clock::Clock;
use crate::token::ports::{Record, StoreError};

/// How often what changes while it is replaced is read again.
const TRIES: u32 = 8;

/// A client, and what is kept of it.
#[derive(Debug)]
pub(super) struct Kept {
    /// Its name in the configuration.
    pub(super) client: Box<str>,
    pub(super) key: Key,
    pub(super) clock: Arc<dyn Clock>,
    /// Where it is kept, for people.
    pub(super) place: String,
    /// The digest of the content whose flaw was reported last.
    reported: Mutex<Option<digest::Digest>>,
}

impl Kept {
    pub(super) fn new(client: &str, key: Key, clock: Arc<dyn Clock>, place: String) -> Kept {
        Kept {
            client: client.into(),
            key,
            clock,
            place,
            reported: Mutex::default(),
        }
    }

    /// What `bytes` hold. What is wrong with them is said once, for they are read often.
    pub(super) fn open(&self, bytes: &[u8]) -> Option<Record> {
        let opened = record::open(&self.key, bytes, self.clock.wall());
        if let Some(flaw) = opened.flaw {
            let digest = digest::digest(&digest::SHA256, bytes);
            let before = locked(&self.reported).replace(digest);
            if before.is_none_or(|before| before.as_ref() != digest.as_ref()) {
                warn!(
                    client = %self.client, place = %self.place,
                    "what is stored cannot be used as it is: {flaw}"
                );
            }
        }
        opened.record
    }

    /// What takes the place of `before` when `record` is kept.
    ///
    /// # Errors
    /// As [`record::supersede`].
    pub(super) fn supersede(
        &self,
        record: &Record,
        before: &[u8],
    ) -> Result<Successor, StoreError> {
        record::supersede(&self.key, record, before, self.clock.wall(), &self.place)
    }
}

/// What a store has to be able to do for [`publish`].
pub(super) trait Replace {
    /// What was read, as far as it takes to replace nothing else.
    type Before;

    /// What is kept, and its bytes, if `owner` still has the right to ask.
    ///
    /// # Errors
    /// [`StoreError::Overtaken`] if another has it.
    async fn before(&self, owner: &str) -> Result<(Self::Before, Vec<u8>), StoreError>;

    /// Puts `next` in the place of `before`, under the same right. Whether it still was there.
    ///
    /// # Errors
    /// As [`Replace::before`].
    async fn replace(
        &self,
        owner: &str,
        before: Self::Before,
        next: &Successor,
    ) -> Result<bool, StoreError>;
}

/// Keeps `record`, if `owner` has the right to ask, and nothing newer is kept.
///
/// # Errors
/// [`StoreError::Overtaken`] if not, and otherwise [`StoreError::Away`].
pub(super) async fn publish(
    store: &impl Replace,
    kept: &Kept,
    owner: &str,
    record: &Record,
) -> Result<(), StoreError> {
    for _ in 0..TRIES {
        let (before, bytes) = store.before(owner).await?;
        let next = kept.supersede(record, &bytes)?;
        if store.replace(owner, before, &next).await? {
            return Ok(());
        }
    }
    Err(StoreError::Away(format!(
        "something else writes to {} all the time; find it and give it another place",
        kept.place
    )))
}

/// The right to ask is another's by now.
pub(super) fn lost() -> StoreError {
    StoreError::Overtaken("the lease expired and another replica holds it".to_owned())
}

/// The name by which a process takes part in a fleet. It is made of the machine's name and the
/// process's number, so that a container that is started again in its place has the same one, and
/// with it the place of the process before it.
#[derive(Debug)]
pub(super) struct Identity {
    name: String,
    client: String,
    nth: u32,
}

/// Which names are in use in this process: one for each store of a client.
static IN_USE: Mutex<BTreeSet<(String, u32)>> = Mutex::new(BTreeSet::new());

impl Identity {
    /// A name for a store of the client that `key` stands for.
    pub(super) fn new(key: &Key) -> Identity {
        let client = key.fingerprint();
        let nth = {
            let mut in_use = locked(&IN_USE);
            let is_free = |nth: &u32| !in_use.contains(&(client.clone(), *nth));
            let nth = (0..u32::MAX).find(is_free).unwrap_or(u32::MAX);
            in_use.insert((client.clone(), nth));
            nth
        };
        let machine = rustix::system::uname();
        let machine = machine.nodename().to_bytes();
        let process = std::process::id();
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(&[machine, b"\n"].concat());
        context.update(format!("{process} {nth}").as_bytes());
        let digest = context.finish();
        let name = digest.as_ref().iter().take(16);
        Identity {
            name: name.map(|byte| format!("{byte:02x}")).collect(),
            client,
            nth,
        }
    }

    /// The name: 32 hexadecimal digits.
    pub(super) fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for Identity {
    fn drop(&mut self) {
        locked(&IN_USE).remove(&(std::mem::take(&mut self.client), self.nth));
    }
}

/// What was there at a look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Seen<T> {
    /// The server could not be used.
    Away,
    /// What is kept is this, or is told from all else by this.
    Content(T),
}

/// What was seen, by whom.
#[derive(Debug)]
pub(super) struct Sight<T> {
    /// What was there last.
    looked: watch::Sender<Option<Seen<T>>>,
    /// What was there when the engine last read or wrote.
    seen: Mutex<Seen<T>>,
}

impl<T: Clone + PartialEq> Sight<T> {
    pub(super) fn new() -> Sight<T> {
        Sight {
            looked: watch::Sender::new(None),
            seen: Mutex::new(Seen::Away),
        }
    }

    /// A look has found `now`.
    pub(super) fn look_is(&self, now: Seen<T>) {
        self.looked.send_if_modified(|last| {
            let differs = last.as_ref() != Some(&now);
            *last = Some(now);
            differs
        });
    }

    /// The engine has seen `now`: no change of it need be told.
    pub(super) fn saw(&self, now: Seen<T>) {
        *locked(&self.seen) = now.clone();
        self.looked.send_replace(Some(now));
    }

    /// The engine begins what may fail, or be given up: that the server is there after all is a
    /// change to it from now on. Gives what it had seen, for [`Sight::has_seen`] if all goes well.
    pub(super) fn risks(&self) -> Seen<T> {
        std::mem::replace(&mut *locked(&self.seen), Seen::Away)
    }

    /// The engine has seen no more than this.
    pub(super) fn has_seen(&self, before: Seen<T>) {
        *locked(&self.seen) = before;
    }

    /// Whether the last look found the server away.
    pub(super) fn is_away(&self) -> bool {
        *self.looked.borrow() == Some(Seen::Away)
    }

    /// Ends once a look has found what the engine has not seen.
    pub(super) async fn changed(&self) {
        let mut looked = self.looked.subscribe();
        // taken once: a reader beside this one must not make it miss what it has not seen
        let seen = locked(&self.seen).clone();
        let differs = |now: &Option<Seen<T>>| now.as_ref().is_some_and(|now| *now != seen);
        if looked.wait_for(differs).await.is_err() {
            std::future::pending().await
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client_id::ClientId;
    use crate::secret::Secret;

    fn key(id: &str) -> Key {
        let id = ClientId::parse(id).unwrap();
        Key::new("https://acme.example", &id, &Secret::from("s".to_owned()))
    }

    #[test]
    fn a_successor_has_the_name_of_the_one_before_and_no_two_at_once_have_one() {
        let first = Identity::new(&key("of this test"));
        let second = Identity::new(&key("of this test"));
        assert_ne!(first.name(), second.name());
        let name = first.name().to_owned();
        drop(first);
        assert_eq!(Identity::new(&key("of this test")).name(), name);
        assert!(name.len() == 32 && name.bytes().all(|b| b.is_ascii_hexdigit()));
    }
}
