//! The store in a directory: the processes of one host share a token by it, and a restart finds it
//! again.
//!
//! A client has one file, replaced as a whole, and a lock file beside it. The lock is the kernel's
//! (`flock`): it is gone when its process is, however that ends. A process that stands still with the
//! lock (`SIGSTOP`, a frozen container) loses it once it has had it for its time, by the clock of a
//! process that waits for it: that one puts another file in its place, and what the old one locks no
//! longer counts. The files are
//! named for instance and client id, and not for the name that the configuration gives a client:
//! whoever has the same id at the same instance drinks from the same pool, whatever it is called.

mod disk;

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use ring::digest;
use tokio::task::AbortHandle;
use tracing::warn;

use crate::clock::{Clock, Instant};
use crate::store::key::Key;
use crate::store::{locked, random_name, record};
use crate::token::ports::{Lease, Record, StoreError, TokenStore};
use disk::{Content, Disk, Lock, Stamp};

/// How often the file is looked at. Asking for its state costs some microseconds, works on every
/// file system, also where another host writes, and needs nothing of the system to be set up;
/// a notification by the kernel has none of these, and what it would save is a fifth of a second
/// of the two minutes and a half for which a token has been good when the next one comes.
const POLL: Duration = Duration::from_millis(200);

/// One client's token, kept in a directory.
#[derive(Debug)]
pub struct FileStore(Arc<Inner>);

/// The directory cannot be used.
#[derive(Debug, thiserror::Error)]
#[error(
    "the store's directory {} cannot be used: {cause}; create it, owned by this program's user, mode 0700, or name another",
    directory.display()
)]
pub struct Unusable {
    /// The directory.
    pub directory: PathBuf,
    /// The system's reason.
    pub cause: io::Error,
}

impl FileStore {
    /// The store of `client`, which is its name in messages, in `directory`. That is made if there
    /// is none.
    ///
    /// # Errors
    /// [`Unusable`] if it cannot be made or is no directory.
    pub fn new(
        directory: PathBuf,
        client: &str,
        key: Key,
        clock: Arc<dyn Clock>,
    ) -> Result<FileStore, Unusable> {
        let disk = Disk::new(directory.clone(), &file_name(&key));
        match disk.prepare() {
            Ok(false) => {}
            Ok(true) => warn!(
                directory = %directory.display(),
                "other users of this machine can read or write the store's directory; chmod o-rwx it (systemd: StateDirectoryMode=0700)"
            ),
            Err(cause) => return Err(Unusable { directory, cause }),
        }
        Ok(FileStore(Arc::new(Inner {
            client: client.into(),
            key,
            disk,
            clock,
            seen: Mutex::default(),
            looked: Mutex::new(Instant::ORIGIN),
            held: Mutex::default(),
            reported: Mutex::default(),
            exposure_reported: AtomicBool::new(false),
        })))
    }
}

#[async_trait]
impl TokenStore for FileStore {
    async fn read(&self) -> Result<Option<Record>, StoreError> {
        let (stamp, content) = self.0.blocking(|inner| inner.disk.read()).await?;
        // only now, for a reader who has given up has not seen it; and also if it cannot be read,
        // for trying again before it changes brings nothing
        *locked(&self.0.seen) = stamp;
        let Some(content) = content? else {
            return Ok(None);
        };
        let (record, news) = self.0.judge(&content);
        for problem in news {
            warn!(client = %self.0.client, file = %self.0.disk.record().display(), "{problem}");
        }
        Ok(record)
    }

    async fn lease(&self, length: Duration) -> Result<Option<Box<dyn Lease>>, StoreError> {
        let lock = self.0.blocking(move |inner| inner.lock(length)).await??;
        let Some(lock) = lock else { return Ok(None) };
        Ok(Some(Box::new(FileLease::new(&self.0, lock, length))))
    }

    async fn changed(&self) {
        // taken once: a reader beside this one must not make it miss what it has not seen
        let seen = *locked(&self.0.seen);
        loop {
            // counted from the last look, whoever's it was, so that a caller who gives up and
            // comes again neither looks more often nor never
            let due = *locked(&self.0.looked) + POLL;
            tokio::time::sleep(due.since(self.0.clock.now())).await;
            let stamp = self.0.blocking(|inner| inner.disk.stamp()).await;
            *locked(&self.0.looked) = self.0.clock.now();
            if stamp.is_ok_and(|stamp| stamp != seen) {
                return;
            }
        }
    }
}

#[derive(Debug)]
struct Inner {
    client: Box<str>,
    key: Key,
    disk: Disk,
    clock: Arc<dyn Clock>,
    /// What was read or written last.
    seen: Mutex<Stamp>,
    /// When a change was last looked for.
    looked: Mutex<Instant>,
    /// Who has the lock, and since when that is known.
    held: Mutex<Option<(String, Instant)>>,
    /// The digest of the content whose flaw was reported last.
    reported: Mutex<Option<Vec<u8>>>,
    exposure_reported: AtomicBool,
}

impl Inner {
    /// Does `work` where it may block.
    async fn blocking<T: Send + 'static>(
        self: &Arc<Inner>,
        work: impl FnOnce(&Inner) -> T + Send + 'static,
    ) -> Result<T, StoreError> {
        let inner = Arc::clone(self);
        let done = tokio::task::spawn_blocking(move || work(&inner)).await;
        done.map_err(|_ended| {
            let problem = "the work on its files was ended by an internal error or a shutdown";
            StoreError::Away(problem.to_owned())
        })
    }

    /// Takes the lock, which nobody has for longer than `length`.
    fn lock(&self, length: Duration) -> Result<Option<Lock>, StoreError> {
        let me = random_name()?;
        if let Some(lock) = self.disk.lock(&me)? {
            *locked(&self.held) = None;
            return Ok(Some(lock));
        }
        let owner = self.disk.owner();
        let now = self.clock.now();
        let since = {
            let mut held = locked(&self.held);
            match &*held {
                Some((known, since)) if *known == owner => *since,
                _ => {
                    *held = Some((owner.clone(), now));
                    now
                }
            }
        };
        if now.since(since) < length {
            return Ok(None);
        }
        let lock = self.disk.take_over(&owner, &me)?;
        *locked(&self.held) = None;
        if lock.is_some() {
            warn!(
                client = %self.client, file = %self.disk.record().display(),
                "a process held the lock beside this file beyond its end, so that it was taken over; see which of those that share the file is stopped or frozen"
            );
        }
        Ok(lock)
    }

    /// What `content` holds, and what is to be said of it: each thing once, for it is read often.
    fn judge(&self, content: &Content) -> (Option<Record>, Vec<String>) {
        let mut news = Vec::new();
        if content.exposed && !self.exposure_reported.swap(true, Ordering::Relaxed) {
            let problem =
                "other users of this machine can read or write what is stored; chmod it 0600";
            news.push(problem.to_owned());
        }
        let opened = record::open(&self.key, &content.bytes, self.clock.wall());
        if let Some(flaw) = opened.flaw {
            let digest = digest::digest(&digest::SHA256, &content.bytes)
                .as_ref()
                .to_vec();
            if locked(&self.reported).replace(digest.clone()) != Some(digest) {
                news.push(format!("what is stored cannot be used as it is: {flaw}"));
            }
        }
        (opened.record, news)
    }

    fn publish(&self, lock: &Lock, record: &Record) -> Result<(), StoreError> {
        let (_, content) = self.disk.read();
        let now = self.clock.wall();
        let before = content?.map(|content| content.bytes).unwrap_or_default();
        let place = self.disk.record().display();
        let next = record::supersede(&self.key, record, &before, now, place)?;
        // what is written here need not be read again
        *locked(&self.seen) = self.disk.replace(lock, &next.bytes)?;
        Ok(())
    }
}

/// The lock, which is given up after the lease's length, when this is dropped, or when the process
/// ends, whatever comes first.
#[derive(Debug)]
struct FileLease {
    inner: Arc<Inner>,
    held: Arc<Mutex<Option<Arc<Lock>>>>,
    expiry: AbortHandle,
}

impl FileLease {
    fn new(inner: &Arc<Inner>, lock: Lock, length: Duration) -> FileLease {
        let held = Arc::new(Mutex::new(Some(Arc::new(lock))));
        let expiring = Arc::clone(&held);
        let expiry = tokio::spawn(async move {
            tokio::time::sleep(length).await;
            locked(&expiring).take();
        });
        FileLease {
            inner: Arc::clone(inner),
            held,
            expiry: expiry.abort_handle(),
        }
    }
}

#[async_trait]
impl Lease for FileLease {
    async fn publish(&mut self, record: &Record) -> Result<(), StoreError> {
        let Some(lock) = locked(&self.held).clone() else {
            let problem = "the right to ask has run out before the token was there to be kept";
            return Err(StoreError::Overtaken(problem.to_owned()));
        };
        let record = record.clone();
        // the work holds the lock too, so that it ends under it even if nobody waits any more
        self.inner
            .blocking(move |inner| inner.publish(&lock, &record))
            .await?
    }
}

impl Drop for FileLease {
    fn drop(&mut self) {
        self.expiry.abort();
        locked(&self.held).take();
    }
}

/// The instance's host, for people, and the client's fingerprint.
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
