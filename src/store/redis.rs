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
mod primary;
mod scripts;

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use redis::{FromRedisValue, ScriptInvocation};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use crate::clock::{Clock, millis};
use crate::random::{Jitter, ThreadJitter};
use crate::secret::Secret;
use crate::store::key::Key;
use crate::store::shared::{
    self, CompareAndSwap, Entry, Replacement, VersionTracker, lease_lost, member_name,
};
use crate::store::{locked, random_name};
use crate::tls::{self, CaFile};
use crate::token::ports::{Lease, Membership, Record, StoreError, TokenStore};
use link::Link;
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
    watcher: AbortOnDropHandle<()>,
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
        let inner = Arc::new(Inner {
            member: member_name(),
            entry: Entry::new(client, key, clock, keys.record.clone()),
            link: Link::new(config, &keys)?,
            keys,
            scripts: Scripts::new(),
            tracker: VersionTracker::new(),
            membership: Mutex::new(Membership::Unknown),
        });
        let watcher = AbortOnDropHandle::new(tokio::spawn(Arc::clone(&inner).watch()));
        Ok(RedisStore { inner, watcher })
    }
}

#[async_trait]
impl TokenStore for RedisStore {
    async fn read(&self) -> Result<Option<Record>, StoreError> {
        let fetched = self.inner.fetch().await;
        // only now: a cancelled reader has observed nothing
        let version = fetched.as_ref().ok().map(|(_, version)| version.clone());
        self.inner.tracker.observed(version);
        let (content, _) = fetched?;
        Ok(content.and_then(|content| self.inner.entry.open(&content)))
    }

    async fn lease(&self, length: Duration) -> Result<Option<Box<dyn Lease>>, StoreError> {
        let inner = &self.inner;
        let owner = random_name();
        let mut lease = inner.scripts.lease.key(&inner.keys.lock);
        lease.arg(&owner).arg(milliseconds(length));
        let free: bool = inner.run(&lease).await?;
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
        let mut leave = inner.scripts.leave.key(&inner.keys.members);
        leave.key(&inner.keys.seen).arg(&inner.member);
        leave.arg(&inner.keys.channel);
        // if this fails, the membership expires
        let _ = inner.link.run::<()>(&leave).await;
    }

    fn membership(&self) -> Membership {
        *locked(&self.inner.membership)
    }
}

#[derive(Debug)]
struct Inner {
    member: String,
    entry: Entry,
    keys: Keys,
    scripts: Scripts,
    link: Link,
    /// By the version of the record.
    tracker: VersionTracker,
    membership: Mutex<Membership>,
}

impl Inner {
    /// Polls the server while the store is in use.
    async fn watch(self: Arc<Inner>) {
        let mut versions = self.link.notices.version.subscribe();
        loop {
            versions.mark_unchanged();
            let came = self.heartbeat().await;
            let is_available = came.is_ok();
            self.tracker.polled(came.ok());
            if is_available && self.link.is_subscribed() {
                let pause = POLL.mul_f64(0.95 + 0.1 * ThreadJitter.next());
                let following = self.follow(&mut versions);
                // at its end the next poll is due
                let _ = tokio::time::timeout(pause, following).await;
            } else {
                let pause = POLL_UNSUBSCRIBED.mul_f64(0.75 + 0.5 * ThreadJitter.next());
                tokio::time::sleep(pause).await;
            }
        }
    }

    /// Handles notifications until the server must be polled.
    async fn follow(&self, versions: &mut watch::Receiver<String>) {
        tokio::time::sleep(MIN_POLL_PAUSE).await;
        loop {
            tokio::select! {
                () = self.link.notices.poll.notified() => return,
                Ok(()) = versions.changed() => {}
            }
            tokio::time::sleep(self.read_delay()).await;
            // later notifications are newer
            let version = versions.borrow_and_update().clone();
            self.tracker.polled(Some(version));
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
        let mut heartbeat = self.scripts.heartbeat.key(&self.keys.record);
        heartbeat.key(&self.keys.members).key(&self.keys.seen);
        heartbeat
            .arg(&self.member)
            .arg(milliseconds(MEMBER_TIMEOUT));
        heartbeat.arg(&self.keys.channel);
        let (version, before, all) = self.link.run(&heartbeat).await?;
        *locked(&self.membership) = Membership::Member { before, all };
        Ok(version)
    }

    /// Runs `script`, unless the last poll found the server unavailable: the engine does not wait
    /// for what the next poll will find out.
    async fn run<T: FromRedisValue>(&self, script: &ScriptInvocation<'_>) -> Result<T, StoreError> {
        let seen = self.tracker.invalidate();
        if self.tracker.is_unavailable() {
            return Err(StoreError::Unavailable(self.link.last_problem()));
        }
        let done = self.link.run(script).await;
        if done.is_ok() {
            self.tracker.restore(seen);
        }
        done
    }

    /// The record and its version.
    async fn fetch(&self) -> Result<(Option<Vec<u8>>, String), StoreError> {
        self.run(&self.scripts.read.key(&self.keys.record)).await
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
        let published = shared::publish(&*self, &self.inner.entry, record).await;
        self.has_published = true;
        published
    }
}

impl CompareAndSwap for RedisLease {
    /// The version of the record.
    type Loaded = String;

    async fn load(&self) -> Result<(String, Vec<u8>), StoreError> {
        // the server checks the lock's owner in the same step that replaces the record
        let (before, version) = self.inner.fetch().await?;
        Ok((version, before.unwrap_or_default()))
    }

    async fn swap(
        &self,
        before: String,
        next: &Replacement,
        record: &Record,
    ) -> Result<bool, StoreError> {
        let inner = &*self.inner;
        // only a request's result is announced: the others need not know of its booking before they
        // make a request themselves, and a large fleet would read it all at once
        let channel = match self.has_published || next.is_newer {
            true => inner.keys.channel.as_str(),
            false => "",
        };
        let retention = retention_of(record, inner.entry.clock.wall());
        let mut publish = inner.scripts.publish.key(&inner.keys.lock);
        publish.key(&inner.keys.record);
        publish.arg(&self.owner).arg(&before).arg(&next.bytes);
        publish.arg(milliseconds(retention)).arg(channel);
        let (became, version): (String, String) = inner.run(&publish).await?;
        match became.as_str() {
            "kept" => {
                inner.tracker.observed(Some(version));
                Ok(true)
            }
            "lost" => Err(lease_lost()),
            _changed => Ok(false),
        }
    }
}

impl Drop for RedisLease {
    fn drop(&mut self) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        let inner = Arc::clone(&self.inner);
        let owner = std::mem::take(&mut self.owner);
        runtime.spawn(async move {
            let mut unlock = inner.scripts.unlock.key(&inner.keys.lock);
            // if this fails, the lock expires
            inner.run::<()>(unlock.arg(owner)).await
        });
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
    millis(span).max(1)
}
