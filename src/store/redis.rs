//! The store in a Redis or Valkey server, shared by the proxies of a fleet.
//!
//! **Lease.** One process at a time holds the lock, a key with a random owner and an expiry by the
//! server's clock. The record is replaced in one step on the server: only by the lock's owner, and
//! only if it still is the one that was read. A process that stood still beyond its lock's expiry
//! changes nothing, and a generation never decreases.
//!
//! **Notifications.** The server notifies every process that a token came, or that a request
//! failed. The processes then read the record within a delay that grows with their number, so that
//! they do not all read at once. Each also polls every 11 s, which is its heartbeat too. If the
//! user may not subscribe to channels, it polls every second.
//!
//! **Membership.** Each heartbeat registers the process, and the server orders the live ones by
//! when they joined. When the server becomes unavailable, every process knows how many joined
//! before it. The engine decides by that which ones may still request tokens ([`Membership`]).
//!
//! **Content.** One record per client, sealed by [`record`](super::record), under a key made of the
//! prefix and a digest of instance and client id; `scripts.rs` has the names. It expires an hour
//! after the last time in it.
//!
//! **Servers.** A named server, the primary that sentinels report, or the cluster's primary for the
//! client's keys, which share one slot. It is looked up whenever a connection is made. A connection
//! to a server that turns out to be the wrong one is closed.

mod bounded;
mod link;
mod notices;
mod primary;
mod scripts;

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use tokio::task::AbortHandle;

use crate::clock::Clock;
use crate::random::{Jitter, ThreadJitter};
use crate::secret::Secret;
use crate::store::key::Key;
use crate::store::record::Replacement;
use crate::store::shared::{
    self, CompareAndSwap, Entry, MemberId, Version, VersionTracker, lease_lost,
};
use crate::store::{locked, random_name};
use crate::tls::{self, CaFile};
use crate::token::ports::{Lease, Membership, Record, StoreError, TokenStore};
use link::Link;
use notices::{Notice, Notices};
use scripts::{Keys, Scripts};

/// The polling interval while notifications work.
const POLL: Duration = Duration::from_secs(11);

/// The same without notifications, or while the server is unavailable.
const POLL_UNSUBSCRIBED: Duration = Duration::from_secs(1);

/// The most reads per second that a notification causes in the whole fleet.
const MAX_READS_PER_SECOND: u32 = 4_000;

/// The shortest pause between two polls.
const MIN_POLL_PAUSE: Duration = Duration::from_millis(20);

/// How long a member may be silent before it is dropped; longer than the polling interval.
const MEMBER_TIMEOUT: Duration = Duration::from_secs(15);

/// How long a record is kept beyond the last time in it.
const RETENTION: Duration = Duration::from_secs(3600);

/// The longest time for which a record is kept, whatever its times.
const MAX_RETENTION: Duration = Duration::from_secs(48 * 3600);

/// How to reach the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The server.
    pub server: Server,
    /// The user to log in as; the server's default user if `None`.
    pub user: Option<String>,
    /// Its password.
    pub password: Option<Secret>,
    /// The database number.
    pub database: u32,
    /// The prefix of every key.
    pub key_prefix: String,
}

/// The server's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Server {
    /// Plain TCP.
    Tcp {
        /// A name or an address.
        host: String,
        /// The port.
        port: u16,
    },
    /// Verified TLS.
    Tls {
        /// A name or an address, which the certificate must match.
        host: String,
        /// The port.
        port: u16,
        /// Authorities to trust besides the system's.
        ca_file: Option<CaFile>,
    },
    /// A unix socket.
    Unix {
        /// The socket's path.
        path: PathBuf,
    },
    /// The primary that sentinels report.
    Sentinel {
        /// The sentinels and their ports.
        nodes: Vec<(String, u16)>,
        /// The primary's name at the sentinels.
        primary: String,
        /// TLS for the connections to sentinels and servers.
        tls: Option<Trust>,
    },
    /// The cluster's primary for the client's keys.
    Cluster {
        /// Some of the nodes and their ports.
        nodes: Vec<(String, u16)>,
        /// TLS for the connections to the nodes.
        tls: Option<Trust>,
    },
}

/// What to trust besides the system's authorities.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trust {
    /// The authorities.
    pub ca_file: Option<CaFile>,
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Server::Tcp { host, port } => write!(f, "redis://{host}:{port}"),
            Server::Tls { host, port, .. } => write!(f, "rediss://{host}:{port}"),
            Server::Unix { path } => write!(f, "unix://{}", path.display()),
            Server::Sentinel {
                nodes,
                primary,
                tls,
            } => {
                let s = if tls.is_some() { "s" } else { "" };
                write!(f, "redis{s}+sentinel://{}/{primary}", listed(nodes))
            }
            Server::Cluster { nodes, tls } => {
                let s = if tls.is_some() { "s" } else { "" };
                write!(f, "redis{s}+cluster://{}", listed(nodes))
            }
        }
    }
}

fn listed(nodes: &[(String, u16)]) -> String {
    let nodes = nodes.iter().map(|(host, port)| format!("{host}:{port}"));
    nodes.collect::<Vec<_>>().join(",")
}

/// One client's token, stored on a server.
#[derive(Debug)]
pub struct RedisStore {
    inner: Arc<Inner>,
    watcher: AbortHandle,
}

impl RedisStore {
    /// Returns the store of `client`, its name in messages. Connects in the background, so it
    /// returns at once. Call it on a runtime.
    ///
    /// # Errors
    /// [`tls::Error`] if no certificate authority is available to verify the server.
    pub fn new(
        config: &Config,
        client: &str,
        key: Key,
        clock: Arc<dyn Clock>,
    ) -> Result<RedisStore, tls::Error> {
        let keys = Keys::new(&config.key_prefix, &key);
        let (link, notices) = Link::new(config, &keys)?;
        let inner = Arc::new(Inner {
            member: MemberId::new(&key),
            entry: Entry::new(client, key, clock, keys.record.clone()),
            keys,
            scripts: Scripts::new(),
            link,
            tracker: VersionTracker::new(),
            membership: Mutex::new(Membership::Unknown),
            problem: Mutex::default(),
        });
        let watcher = tokio::spawn(Arc::clone(&inner).watch(notices)).abort_handle();
        Ok(RedisStore { inner, watcher })
    }
}

impl Drop for RedisStore {
    fn drop(&mut self) {
        self.watcher.abort();
    }
}

#[async_trait]
impl TokenStore for RedisStore {
    async fn read(&self) -> Result<Option<Record>, StoreError> {
        let fetched = self.inner.fetch().await;
        // only now: a cancelled reader has observed nothing
        self.inner.tracker.observed(match &fetched {
            Ok((_, version)) => Version::Content(version.clone()),
            Err(_) => Version::Unavailable,
        });
        let (content, _) = fetched?;
        Ok(content.and_then(|content| self.inner.entry.open(&content)))
    }

    async fn lease(&self, length: Duration) -> Result<Option<Box<dyn Lease>>, StoreError> {
        let inner = &self.inner;
        let owner = random_name()?;
        let milliseconds = milliseconds(length);
        let free: bool = inner
            .run(async |server| {
                let mut lease = inner.scripts.lease.key(&inner.keys.lock);
                lease.arg(&owner).arg(milliseconds);
                lease.invoke_async(server).await
            })
            .await?;
        let inner = Arc::clone(inner);
        let lease = || {
            Box::new(RedisLease {
                inner,
                owner,
                has_published: false,
            }) as Box<dyn Lease>
        };
        Ok(free.then(lease))
    }

    async fn changed(&self) {
        self.inner.tracker.changed().await;
    }

    async fn leave(&self) {
        self.watcher.abort();
        let inner = &self.inner;
        let left = inner.link.run(async |server| {
            let mut leave = inner.scripts.leave.key(&inner.keys.members);
            leave.key(&inner.keys.seen).arg(inner.member.name());
            leave.arg(&inner.keys.channel);
            leave.invoke_async::<()>(server).await
        });
        // if this fails, the membership expires
        let _ = left.await;
    }

    fn membership(&self) -> Membership {
        *locked(&self.inner.membership)
    }
}

#[derive(Debug)]
struct Inner {
    member: MemberId,
    entry: Entry,
    keys: Keys,
    scripts: Scripts,
    link: Link,
    /// By the version of the record.
    tracker: VersionTracker<String>,
    membership: Mutex<Membership>,
    /// Why the server was unavailable at the last poll.
    problem: Mutex<String>,
}

impl Inner {
    /// Polls the server while the store is in use.
    async fn watch(self: Arc<Inner>, notices: Arc<Notices>) {
        loop {
            notices.take();
            let came = self.heartbeat().await;
            let now = match &came {
                Ok(version) => Version::Content(version.clone()),
                Err(_) => Version::Unavailable,
            };
            if let Err(e) = &came {
                *locked(&self.problem) = e.to_string();
            }
            self.tracker.polled(now);
            let next = match came.is_ok() && self.link.is_subscribed() {
                true => POLL.mul_f64(0.95 + 0.1 * ThreadJitter.next()),
                false => POLL_UNSUBSCRIBED.mul_f64(0.75 + 0.5 * ThreadJitter.next()),
            };
            let next = tokio::time::sleep(next);
            match came {
                Ok(_) => self.follow_notices(&notices, next).await,
                Err(_) => next.await,
            }
        }
    }

    /// Handles notifications until the next poll is due or requested.
    async fn follow_notices(&self, notices: &Notices, next: tokio::time::Sleep) {
        tokio::time::sleep(MIN_POLL_PAUSE).await;
        tokio::pin!(next);
        loop {
            let notice = tokio::select! {
                () = &mut next => return,
                notice = notices.next() => notice,
            };
            let Notice::Version(version) = notice else {
                return;
            };
            tokio::time::sleep(self.read_delay()).await;
            // later notifications are newer
            let version = match notices.take() {
                Some(Notice::Poll) => return,
                Some(Notice::Version(newer)) => newer,
                None => version,
            };
            self.tracker.polled(Version::Content(version));
        }
    }

    /// How long this process waits before it reads what everyone was notified of.
    fn read_delay(&self) -> Duration {
        let all = match *locked(&self.membership) {
            Membership::Member { all, .. } => all,
            Membership::Single | Membership::Unknown => 1,
        };
        let longest = Duration::from_secs(1) * all / MAX_READS_PER_SECOND;
        longest.mul_f64(ThreadJitter.next())
    }

    /// Polls the record's version and sends a heartbeat.
    async fn heartbeat(&self) -> Result<String, StoreError> {
        let timeout = milliseconds(MEMBER_TIMEOUT);
        let (version, before, all): (String, u32, u32) = self
            .link
            .run(async |server| {
                let mut heartbeat = self.scripts.heartbeat.key(&self.keys.record);
                heartbeat.key(&self.keys.members).key(&self.keys.seen);
                heartbeat.arg(self.member.name()).arg(timeout);
                heartbeat.arg(&self.keys.channel);
                heartbeat.invoke_async(server).await
            })
            .await?;
        *locked(&self.membership) = Membership::Member { before, all };
        Ok(version)
    }

    /// Runs `command`, unless the last poll found the server unavailable: the engine does not wait
    /// for what the next poll will find out.
    async fn run<T>(
        &self,
        command: impl AsyncFnOnce(&mut redis::aio::MultiplexedConnection) -> redis::RedisResult<T>,
    ) -> Result<T, StoreError> {
        let seen = self.tracker.invalidate();
        if self.tracker.is_unavailable() {
            return Err(StoreError::Unavailable(locked(&self.problem).clone()));
        }
        let done = self.link.run(command).await;
        if done.is_ok() {
            self.tracker.restore(seen);
        }
        done
    }

    /// The record and its version.
    async fn fetch(&self) -> Result<(Option<Vec<u8>>, String), StoreError> {
        let fetched = self.run(async |server| {
            let read = self.scripts.read.key(&self.keys.record);
            read.invoke_async(server).await
        });
        fetched
            .await
            .inspect_err(|e| *locked(&self.problem) = e.to_string())
    }

    async fn unlock(&self, owner: &str) -> Result<(), StoreError> {
        self.run(async |server| {
            let mut unlock = self.scripts.unlock.key(&self.keys.lock);
            unlock.arg(owner).invoke_async(server).await
        })
        .await
    }
}

/// One publication.
struct Publication<'a> {
    inner: &'a Inner,
    /// How long the record stays useful.
    retention: Duration,
    /// Whether to notify the others even without a newer token.
    notifies: bool,
}

impl CompareAndSwap for Publication<'_> {
    /// The version of the record.
    type Loaded = String;

    async fn load(&self, _owner: &str) -> Result<(String, Vec<u8>), StoreError> {
        // the server checks the lock's owner in the same step that replaces the record
        let (before, version) = self.inner.fetch().await?;
        Ok((version, before.unwrap_or_default()))
    }

    async fn swap(
        &self,
        owner: &str,
        before: String,
        next: &Replacement,
    ) -> Result<bool, StoreError> {
        let inner = self.inner;
        let channel = match self.notifies || next.is_newer {
            true => inner.keys.channel.as_str(),
            false => "",
        };
        let (became, version): (String, String) = inner
            .run(async |server| {
                let mut publish = inner.scripts.publish.key(&inner.keys.lock);
                publish.key(&inner.keys.record).arg(owner).arg(&before);
                publish.arg(&next.bytes).arg(milliseconds(self.retention));
                publish.arg(channel).invoke_async(server).await
            })
            .await?;
        match became.as_str() {
            "kept" => {
                inner.tracker.observed(Version::Content(version));
                Ok(true)
            }
            "lost" => Err(lease_lost()),
            _changed => Ok(false),
        }
    }
}

/// The held lock. Dropping it releases it; it expires by the server's clock in any case.
#[derive(Debug)]
struct RedisLease {
    inner: Arc<Inner>,
    owner: String,
    has_published: bool,
}

#[async_trait]
impl Lease for RedisLease {
    async fn publish(&mut self, record: &Record) -> Result<(), StoreError> {
        // only a request's result is announced: the others need not know of its booking before they
        // make a request themselves, and a large fleet would read it all at once
        let notifies = std::mem::replace(&mut self.has_published, true);
        let inner = &*self.inner;
        let publication = Publication {
            inner,
            retention: retention_of(record, inner.entry.clock.wall()),
            notifies,
        };
        shared::publish(&publication, &inner.entry, &self.owner, record).await
    }
}

impl Drop for RedisLease {
    fn drop(&mut self) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        let inner = Arc::clone(&self.inner);
        let owner = std::mem::take(&mut self.owner);
        // if this fails, the lock expires
        runtime.spawn(async move { inner.unlock(&owner).await });
    }
}

/// How long `record` stays useful from `now` on, plus a margin.
fn retention_of(record: &Record, now: SystemTime) -> Duration {
    let token = record.token.as_ref();
    let end = token.map_or(now, |token| token.asked + token.lifetime);
    let last = end.max(record.pool.full_at).max(record.pool.not_before);
    (last.duration_since(now).unwrap_or_default() + RETENTION).min(MAX_RETENTION)
}

fn milliseconds(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX).max(1)
}
