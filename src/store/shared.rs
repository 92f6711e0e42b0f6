//! What the server-backed stores have in common: a client's stored [`Entry`], the
//! [`VersionTracker`] of its content, compare-and-swap under a lease ([`publish`]), and a process's
//! name in the fleet ([`MemberId`]).

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use ring::digest;
use tokio::sync::watch;
use tracing::warn;

use super::key::Key;
use super::locked;
use super::record::{self, Replacement};
use crate::clock::Clock;
use crate::token::ports::{Record, StoreError};

/// How often a compare-and-swap is retried.
const TRIES: u32 = 8;

/// A client's stored entry.
#[derive(Debug)]
pub(super) struct Entry {
    /// The client's name in the configuration.
    pub(super) client: Box<str>,
    pub(super) key: Key,
    pub(super) clock: Arc<dyn Clock>,
    /// Where the entry is, for messages.
    pub(super) place: String,
    /// The digest of the content whose flaw was reported last.
    reported: Mutex<Option<digest::Digest>>,
}

impl Entry {
    pub(super) fn new(client: &str, key: Key, clock: Arc<dyn Clock>, place: String) -> Entry {
        Entry {
            client: client.into(),
            key,
            clock,
            place,
            reported: Mutex::default(),
        }
    }

    /// Decodes `bytes`. A flaw is reported once per content, because it is read often.
    pub(super) fn open(&self, bytes: &[u8]) -> Option<Record> {
        let opened = record::open(&self.key, bytes, self.clock.wall());
        if let Some(flaw) = opened.flaw {
            let digest = digest::digest(&digest::SHA256, bytes);
            let before = locked(&self.reported).replace(digest);
            if before.is_none_or(|before| before.as_ref() != digest.as_ref()) {
                warn!(
                    client = %self.client, place = %self.place,
                    "the stored record is not usable as it is: {flaw}"
                );
            }
        }
        opened.record
    }

    /// Returns the bytes that replace `before` when `record` is stored.
    ///
    /// # Errors
    /// As [`record::supersede`].
    pub(super) fn supersede(
        &self,
        record: &Record,
        before: &[u8],
    ) -> Result<Replacement, StoreError> {
        record::supersede(&self.key, record, before, self.clock.wall(), &self.place)
    }
}

/// A store that can replace its content atomically, for [`publish`].
pub(super) trait CompareAndSwap {
    /// Identifies the content that was loaded, so that only it is replaced.
    type Loaded;

    /// Loads the content, if `owner` still holds the lease.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] if another process holds it.
    async fn load(&self, owner: &str) -> Result<(Self::Loaded, Vec<u8>), StoreError>;

    /// Replaces the content identified by `before`, under the same lease. Returns whether it was
    /// still in place.
    ///
    /// # Errors
    /// As [`CompareAndSwap::load`].
    async fn swap(
        &self,
        owner: &str,
        before: Self::Loaded,
        next: &Replacement,
    ) -> Result<bool, StoreError>;
}

/// Stores `record`, if `owner` holds the lease and nothing newer is stored.
///
/// # Errors
/// [`StoreError::Conflict`] if not, otherwise [`StoreError::Unavailable`].
pub(super) async fn publish(
    store: &impl CompareAndSwap,
    entry: &Entry,
    owner: &str,
    record: &Record,
) -> Result<(), StoreError> {
    for _ in 0..TRIES {
        let (before, bytes) = store.load(owner).await?;
        let next = entry.supersede(record, &bytes)?;
        if store.swap(owner, before, &next).await? {
            return Ok(());
        }
    }
    Err(StoreError::Unavailable(format!(
        "another program keeps writing to {}; find it and make it write elsewhere",
        entry.place
    )))
}

/// The error of a process whose lease expired.
pub(super) fn lease_lost() -> StoreError {
    StoreError::Conflict("the lease expired and another replica holds it".to_owned())
}

/// A process's name in a fleet, derived from the machine's name and the process id. A restarted
/// container gets the same name, and with it its predecessor's place.
#[derive(Debug)]
pub(super) struct MemberId {
    name: String,
    client: String,
    nth: u32,
}

/// The names in use in this process: one for each store of a client.
static IN_USE: Mutex<BTreeSet<(String, u32)>> = Mutex::new(BTreeSet::new());

impl MemberId {
    /// Returns a name for a store of the client of `key`.
    pub(super) fn new(key: &Key) -> MemberId {
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
        MemberId {
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

impl Drop for MemberId {
    fn drop(&mut self) {
        locked(&IN_USE).remove(&(std::mem::take(&mut self.client), self.nth));
    }
}

/// A version of the stored content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Version<T> {
    /// The server was unavailable.
    Unavailable,
    /// The content, or a value that identifies it.
    Content(T),
}

/// Compares the server's latest version with the one that the engine has observed.
#[derive(Debug)]
pub(super) struct VersionTracker<T> {
    /// The latest version found by polling or notifications.
    latest: watch::Sender<Option<Version<T>>>,
    /// The version that the engine last read or wrote.
    observed: Mutex<Version<T>>,
}

impl<T: Clone + PartialEq> VersionTracker<T> {
    pub(super) fn new() -> VersionTracker<T> {
        VersionTracker {
            latest: watch::Sender::new(None),
            observed: Mutex::new(Version::Unavailable),
        }
    }

    /// Polling found `now`.
    pub(super) fn polled(&self, now: Version<T>) {
        self.latest.send_if_modified(|last| {
            let differs = last.as_ref() != Some(&now);
            *last = Some(now);
            differs
        });
    }

    /// The engine has observed `now`: it need not be notified of it.
    pub(super) fn observed(&self, now: Version<T>) {
        *locked(&self.observed) = now.clone();
        self.latest.send_replace(Some(now));
    }

    /// Forgets the observed version before an operation that may fail or time out. If it does, the
    /// server's return must count as a change. Returns the version, for [`VersionTracker::restore`]
    /// after a success.
    pub(super) fn invalidate(&self) -> Version<T> {
        std::mem::replace(&mut *locked(&self.observed), Version::Unavailable)
    }

    /// Restores the observed version.
    pub(super) fn restore(&self, before: Version<T>) {
        *locked(&self.observed) = before;
    }

    /// Returns whether the last poll found the server unavailable.
    pub(super) fn is_unavailable(&self) -> bool {
        *self.latest.borrow() == Some(Version::Unavailable)
    }

    /// Waits until the latest version differs from the observed one.
    pub(super) async fn changed(&self) {
        let mut latest = self.latest.subscribe();
        // read once: a concurrent reader must not hide a change from this waiter
        let observed = locked(&self.observed).clone();
        let differs = |now: &Option<Version<T>>| now.as_ref().is_some_and(|now| *now != observed);
        if latest.wait_for(differs).await.is_err() {
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
        let first = MemberId::new(&key("of this test"));
        let second = MemberId::new(&key("of this test"));
        assert_ne!(first.name(), second.name());
        let name = first.name().to_owned();
        drop(first);
        assert_eq!(MemberId::new(&key("of this test")).name(), name);
        assert!(name.len() == 32 && name.bytes().all(|b| b.is_ascii_hexdigit()));
    }
}
