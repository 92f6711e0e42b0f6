//! What the stores have in common: a client's stored [`Entry`], the [`VersionTracker`] of its
//! content, compare-and-swap under a lease ([`publish`]), the lease holder as observed
//! ([`HolderTracker`]), and a store's name in the fleet ([`member_name`]).

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ring::digest;
use tokio::sync::watch;
use tracing::warn;

use super::key::Key;
use super::record::{self, Flaw};
use super::{hex, locked};
use crate::clock::{Clock, Instant};
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

    /// Decodes `bytes`. Logs a flaw.
    pub(super) fn open(&self, bytes: &[u8]) -> Option<Record> {
        let (record, flaw) = self.inspect(bytes);
        if let Some(flaw) = flaw {
            warn!(
                client = %self.client, place = %self.place,
                "the stored record is not usable as it is: {flaw}"
            );
        }
        record
    }

    /// Decodes `bytes`. Returns a flaw once per content, because it is read often.
    pub(super) fn inspect(&self, bytes: &[u8]) -> (Option<Record>, Option<Flaw>) {
        let opened = record::open(&self.key, bytes, self.clock.wall());
        let is_new = |_: &Flaw| {
            let digest = digest::digest(&digest::SHA256, bytes);
            let before = locked(&self.reported).replace(digest);
            before.is_none_or(|before| before.as_ref() != digest.as_ref())
        };
        (opened.record, opened.flaw.filter(is_new))
    }

    /// Returns what replaces the document `before` when `next` is stored.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] if the generation would decrease, which it never does; otherwise as
    /// [`record::seal`].
    pub(super) fn supersede(
        &self,
        next: &Record,
        before: &[u8],
    ) -> Result<Replacement, StoreError> {
        let now = self.clock.wall();
        let kept = record::open(&self.key, before, now).record;
        let (kept, generation) = (kept.map_or(0, |kept| kept.generation), next.generation);
        if kept > generation {
            return Err(StoreError::Conflict(format!(
                "{} has token {kept} already, which is newer than token {generation}",
                self.place
            )));
        }
        Ok(Replacement {
            bytes: record::seal_beside(&self.key, next, before, now)?,
            is_newer: generation > kept,
        })
    }
}

/// What replaces a stored document.
#[derive(Debug)]
pub(super) struct Replacement {
    /// The new document.
    pub(super) bytes: Vec<u8>,
    /// Whether its token is newer.
    pub(super) is_newer: bool,
}

/// A lease under which the content can be replaced atomically, for [`publish`].
pub(super) trait CompareAndSwap {
    /// Identifies the content that was loaded, so that only it is replaced.
    type Loaded;

    /// Loads the content, if the lease is still held.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] if another process holds it.
    async fn load(&self) -> Result<(Self::Loaded, Vec<u8>), StoreError>;

    /// Replaces the content identified by `before` by `next`, the form of `record`, if the lease is
    /// still held. Returns whether that content was still in place.
    ///
    /// # Errors
    /// As [`CompareAndSwap::load`].
    async fn swap(
        &self,
        before: Self::Loaded,
        next: &Replacement,
        record: &Record,
    ) -> Result<bool, StoreError>;
}

/// Stores `record`, if the lease is still held and nothing newer is stored.
///
/// # Errors
/// [`StoreError::Conflict`] if not, otherwise [`StoreError::Unavailable`].
pub(super) async fn publish(
    lease: &impl CompareAndSwap,
    entry: &Entry,
    record: &Record,
) -> Result<(), StoreError> {
    for _ in 0..TRIES {
        let (before, bytes) = lease.load().await?;
        let next = entry.supersede(record, &bytes)?;
        if lease.swap(before, &next, record).await? {
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

/// Tells since when a lease holder is known.
#[derive(Debug, Default)]
pub(super) struct HolderTracker(Mutex<Option<(String, Instant)>>);

impl HolderTracker {
    /// Returns how long `holder`, observed at `now`, has been known to this process.
    pub(super) fn known_for(&self, holder: &str, now: Instant) -> Duration {
        let mut known = locked(&self.0);
        match &*known {
            Some((name, since)) if name == holder => now.since(*since),
            _ => {
                *known = Some((holder.to_owned(), now));
                Duration::ZERO
            }
        }
    }
}

/// How many names this process has given to its stores.
static NAMED: AtomicU32 = AtomicU32::new(0);

/// Returns a store's name in its fleet, 32 hexadecimal digits derived from the machine's name, the
/// process id and the number of names before. A restarted container has the names of its
/// predecessor, and with them its places.
pub(super) fn member_name() -> String {
    let machine = rustix::system::uname();
    let (process, nth) = (std::process::id(), NAMED.fetch_add(1, Ordering::Relaxed));
    let mut digest = digest::Context::new(&digest::SHA256);
    digest.update(machine.nodename().to_bytes());
    digest.update(format!("\n{process} {nth}").as_bytes());
    hex(&digest.finish(), 16)
}

/// A text that identifies the stored content; `None` if the server was unavailable.
pub(super) type Version = Option<String>;

/// Compares the server's latest version with the one that the engine has observed.
#[derive(Debug)]
pub(super) struct VersionTracker {
    /// The latest version found by polling or notifications, if there was any poll.
    latest: watch::Sender<Option<Version>>,
    /// The version that the engine last read or wrote.
    observed: Mutex<Version>,
}

impl VersionTracker {
    pub(super) fn new() -> VersionTracker {
        VersionTracker {
            latest: watch::Sender::new(None),
            observed: Mutex::default(),
        }
    }

    /// Polling found `now`.
    pub(super) fn polled(&self, now: Version) {
        self.latest.send_if_modified(|last| {
            let differs = last.as_ref() != Some(&now);
            *last = Some(now);
            differs
        });
    }

    /// The engine has observed `now`: it need not be notified of it.
    pub(super) fn observed(&self, now: Version) {
        locked(&self.observed).clone_from(&now);
        self.latest.send_replace(Some(now));
    }

    /// Forgets the observed version before an operation that may fail or time out. If it does, the
    /// server's return must count as a change. Returns the version, for [`VersionTracker::restore`]
    /// after a success.
    pub(super) fn invalidate(&self) -> Version {
        locked(&self.observed).take()
    }

    /// Restores the observed version.
    pub(super) fn restore(&self, before: Version) {
        *locked(&self.observed) = before;
    }

    /// Returns whether the server was unavailable when last polled or read.
    pub(super) fn is_unavailable(&self) -> bool {
        *self.latest.borrow() == Some(None)
    }

    /// Waits until the server is found unavailable.
    #[cfg(feature = "kubernetes")]
    pub(super) async fn unavailable(&self) {
        self.wait_for(Option::is_none).await;
    }

    /// Waits until the latest version differs from the observed one.
    pub(super) async fn changed(&self) {
        // read once: a concurrent reader must not hide a change from this waiter
        let observed = locked(&self.observed).clone();
        self.wait_for(|now| *now != observed).await;
    }

    async fn wait_for(&self, is_met: impl Fn(&Version) -> bool) {
        let mut latest = self.latest.subscribe();
        // never fails: the sender is this tracker's
        let _ = latest
            .wait_for(|now| now.as_ref().is_some_and(&is_met))
            .await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_stores_have_one_name() {
        let (one, other) = (member_name(), member_name());
        assert_ne!(one, other);
        assert!(one.len() == 32 && one.bytes().all(|b| b.is_ascii_hexdigit()));
    }
}
