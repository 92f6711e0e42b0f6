//! The store in a directory: shared by the processes of one host, and kept across restarts.
//!
//! Each client has one file, replaced as a whole, and a lock file. The kernel releases the lock
//! (`flock`) when the process ends, in whatever way.
//!
//! A process that stands still (`SIGSTOP`, a frozen container) loses the lock after the lease time,
//! by the clock of a waiting process. The waiting process replaces the lock file, and the old
//! file's lock no longer counts.
//!
//! The files are named after instance and client id, not after the client's name in the
//! configuration: every process with that id uses the same pool.

mod disk;

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tokio_util::task::AbortOnDropHandle;
use tracing::warn;

use crate::clock::Clock;
use crate::store::key::Key;
use crate::store::shared::{Entry, HolderTracker, VersionTracker};
use crate::store::{locked, random_name};
use crate::token::ports::{Lease, Record, StoreError, TokenStore};
use disk::{Disk, Lock};

/// The polling interval. Reading a file's metadata takes microseconds, works on every file system,
/// even if another host writes, and needs no setup. Kernel notifications do not, and would save a
/// fifth of a second of the two and a half minutes until a renewed token is needed.
const POLL: Duration = Duration::from_millis(200);

/// One client's token, stored in a directory.
#[derive(Debug)]
pub struct FileStore {
    inner: Arc<Inner>,
    _watcher: AbortOnDropHandle<()>,
}

/// The directory is unusable.
#[derive(Debug, thiserror::Error)]
#[error(
    "the store's directory {} cannot be used: {cause}; create it, owned by this program's user, mode 0700, or name another",
    directory.display()
)]
pub struct Unusable {
    /// The directory.
    pub directory: PathBuf,
    /// The operating system's error.
    pub cause: io::Error,
}

impl FileStore {
    /// Returns the store of `client`, its name in messages, in `directory`. Creates the directory
    /// if it does not exist. Call it on a runtime.
    ///
    /// # Errors
    /// [`Unusable`] if it cannot be created or is not a directory.
    pub fn new(
        directory: PathBuf,
        client: &str,
        key: Key,
        clock: Arc<dyn Clock>,
    ) -> Result<FileStore, Unusable> {
        let disk = Disk::new(directory.clone(), &file_name(&key));
        let is_exposed = disk.prepare().map_err(|cause| Unusable {
            directory: directory.clone(),
            cause,
        })?;
        if is_exposed {
            warn!(
                directory = %directory.display(),
                "other users of this machine can read or write the store's directory; chmod o-rwx it (systemd: StateDirectoryMode=0700)"
            );
        }
        let inner = Arc::new(Inner {
            entry: Entry::new(client, key, clock, disk.record().display().to_string()),
            disk,
            tracker: VersionTracker::new(),
            holder: HolderTracker::default(),
            exposure_reported: AtomicBool::new(false),
        });
        let _watcher = AbortOnDropHandle::new(tokio::spawn(Arc::clone(&inner).watch()));
        Ok(FileStore { inner, _watcher })
    }
}

#[async_trait]
impl TokenStore for FileStore {
    async fn read(&self) -> Result<Option<Record>, StoreError> {
        let inner = &self.inner;
        let (version, content) = inner.blocking(|inner| inner.disk.read()).await?;
        // only now: a cancelled reader has observed nothing. Also after a failed read, because
        // retrying before the file changes is useless
        inner.tracker.observed(Some(version));
        let Some(content) = content? else {
            return Ok(None);
        };
        let Entry { client, place, .. } = &inner.entry;
        if content.exposed && !inner.exposure_reported.swap(true, Ordering::Relaxed) {
            warn!(
                %client, file = %place,
                "other users of this machine can read or write the stored record; chmod it 0600"
            );
        }
        let (record, flaw) = inner.entry.inspect(&content.bytes);
        if let Some(flaw) = flaw {
            warn!(%client, file = %place, "the stored record is not usable as it is: {flaw}");
        }
        Ok(record)
    }

    async fn lease(&self, length: Duration) -> Result<Option<Box<dyn Lease>>, StoreError> {
        let locked = self.inner.blocking(move |inner| inner.lock(length));
        let Some(lock) = locked.await?? else {
            return Ok(None);
        };
        Ok(Some(Box::new(FileLease::new(&self.inner, lock, length))))
    }

    async fn changed(&self) {
        self.inner.tracker.changed().await;
    }
}

#[derive(Debug)]
struct Inner {
    entry: Entry,
    disk: Disk,
    tracker: VersionTracker,
    holder: HolderTracker,
    exposure_reported: AtomicBool,
}

impl Inner {
    /// Polls the file's version while the store is in use.
    async fn watch(self: Arc<Inner>) {
        loop {
            tokio::time::sleep(POLL).await;
            if let Ok(version) = self.blocking(|inner| inner.disk.version()).await {
                self.tracker.polled(Some(version));
            }
        }
    }

    /// Runs `work` on a thread that may block.
    async fn blocking<T: Send + 'static>(
        self: &Arc<Inner>,
        work: impl FnOnce(&Inner) -> T + Send + 'static,
    ) -> Result<T, StoreError> {
        let inner = Arc::clone(self);
        let done = tokio::task::spawn_blocking(move || work(&inner)).await;
        done.map_err(|_ended| {
            let problem = "the file operation was aborted by an internal error or a shutdown";
            StoreError::Unavailable(problem.to_owned())
        })
    }

    /// Acquires the lock, unless another process has held it for less than `length`.
    fn lock(&self, length: Duration) -> Result<Option<Lock>, StoreError> {
        let me = random_name();
        if let Some(lock) = self.disk.lock(&me)? {
            return Ok(Some(lock));
        }
        let owner = self.disk.owner();
        if self.holder.known_for(&owner, self.entry.clock.now()) < length {
            return Ok(None);
        }
        let lock = self.disk.take_over(&owner, &me)?;
        if lock.is_some() {
            warn!(
                client = %self.entry.client, file = %self.entry.place,
                "a process held this file's lock beyond its lease, so the lock was taken over; find the stopped or frozen process among those that share the file"
            );
        }
        Ok(lock)
    }

    fn publish(&self, lock: &Lock, record: &Record) -> Result<(), StoreError> {
        let (_, content) = self.disk.read();
        let before = content?.map(|content| content.bytes).unwrap_or_default();
        let next = self.entry.supersede(record, &before)?;
        // a version written here need not be read again
        let version = self.disk.replace(lock, &next.bytes)?;
        self.tracker.observed(Some(version));
        Ok(())
    }
}

/// The held lock. It is released after the lease's length, when this is dropped, or when the
/// process ends.
#[derive(Debug)]
struct FileLease {
    inner: Arc<Inner>,
    held: Arc<Mutex<Option<Arc<Lock>>>>,
    _expiry: AbortOnDropHandle<()>,
}

impl FileLease {
    fn new(inner: &Arc<Inner>, lock: Lock, length: Duration) -> FileLease {
        let held = Arc::new(Mutex::new(Some(Arc::new(lock))));
        let expiring = Arc::downgrade(&held);
        let expiry = async move {
            tokio::time::sleep(length).await;
            expiring.upgrade().map(|held| locked(&held).take());
        };
        FileLease {
            inner: Arc::clone(inner),
            held,
            _expiry: AbortOnDropHandle::new(tokio::spawn(expiry)),
        }
    }
}

#[async_trait]
impl Lease for FileLease {
    async fn publish(&mut self, record: &Record) -> Result<(), StoreError> {
        let Some(lock) = locked(&self.held).clone() else {
            let problem = "the lease expired before the token could be stored";
            return Err(StoreError::Conflict(problem.to_owned()));
        };
        let record = record.clone();
        // the task holds the lock too, so that a cancelled write still ends under it
        self.inner
            .blocking(move |inner| inner.publish(&lock, &record))
            .await?
    }
}

/// The instance's host, for humans, and the client's fingerprint.
fn file_name(key: &Key) -> String {
    let instance = key.instance();
    let authority = instance
        .rsplit_once("//")
        .map_or(instance, |(_, rest)| rest);
    let plain: String = authority
        .chars()
        .map(|c| match c {
            'a'..='z' | 'A'..='Z' | '0'..='9' | '.' | '-' => c,
            _ => '-',
        })
        .take(100)
        .collect();
    let host = plain.trim_start_matches(['.', '-']);
    format!("{host}-{}", key.fingerprint())
}

#[cfg(test)]
mod tests;
