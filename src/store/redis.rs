//! The store in a Redis or Valkey server: the proxies of a fleet share a token by it.
//!
//! **Who asks.** One process at a time holds the lock, a key with a random owner and an end by the
//! server's clock. What is kept is replaced in one step on the server, and only by the lock's owner
//! and in place of what it has read: a process that was stopped beyond its lock's end changes
//! nothing, and a generation never goes back.
//!
//! **Who is told.** The server tells each process that a token came, or that none did, and what it
//! keeps now is read soon after: the later, the more there are, so that they do not all come at once.
//! Beside that each looks every 11 s, which is its sign of life too. Where a user may not subscribe to
//! channels it looks once a second.
//!
//! **Who goes on alone.** At each look a process announces itself; the server orders the living by
//! when each first came. When the server goes away every process knows how many came before it, and
//! the engine settles by that who may still ask ([`Rank`]).
//!
//! **What lies there.** One record for each client, sealed by [`record`](super::record), under a key made of the
//! prefix and a digest over instance and client id; see `scripts.rs` for the names. It expires an
//! hour after the last time in it is past.
//!
//! **Which server.** One that is named, the primary that sentinels name, or the primary of a cluster
//! that has the client's keys, which lie in one slot. It is looked for again whenever a connection is
//! made; one on which a server turns out to be the wrong one is left.

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
use crate::store::record::Successor;
use crate::store::shared::{self, Identity, Kept, Replace, Seen, Sight, lost};
use crate::store::{locked, random_name};
use crate::tls::{self, CaFile};
use crate::token::ports::{Lease, Rank, Record, StoreError, TokenStore};
use link::Link;
use notices::{Notice, Notices};
use scripts::{Keys, Scripts};

/// How often the server is looked at, on average, if it does not say that something changed.
const LOOK: Duration = Duration::from_secs(11);

/// The same if it says nothing of changes, or cannot be reached.
const LOOK_ALONE: Duration = Duration::from_secs(1);

/// So many processes read in a second, at most, what they were told of.
const READERS: u32 = 4_000;

/// The shortest time from one look to the next, whatever the server says.
const PAUSE: Duration = Duration::from_millis(20);

/// After such a silence a process no longer counts as one of those who share a client; longer than
/// from one look to the next.
const SILENCE: Duration = Duration::from_secs(15);

/// How long a record is kept beyond the last time in it.
const REST: Duration = Duration::from_secs(3600);

/// A record is kept no longer than this, whatever its times.
const LONGEST: Duration = Duration::from_secs(48 * 3600);

/// Where the server is and how it is spoken to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The server.
    pub server: Server,
    /// The user to log in as; without one, the server's default user.
    pub user: Option<String>,
    /// Its password.
    pub password: Option<Secret>,
    /// The number of the database.
    pub database: u32,
    /// What every key begins with.
    pub key_prefix: String,
}

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Server {
    /// In the clear.
    Tcp {
        /// A name or an address.
        host: String,
        /// The port.
        port: u16,
    },
    /// By TLS, verified.
    Tls {
        /// A name or an address, which the certificate must have.
        host: String,
        /// The port.
        port: u16,
        /// What to trust besides the system's roots.
        ca_file: Option<CaFile>,
    },
    /// On this machine.
    Unix {
        /// The socket.
        path: PathBuf,
    },
    /// The primary that sentinels name.
    Sentinel {
        /// The sentinels, each with its port.
        nodes: Vec<(String, u16)>,
        /// What they call the primary.
        primary: String,
        /// Whether sentinels and servers are spoken to by TLS.
        tls: Option<Trust>,
    },
    /// The primary of a cluster that has the client's keys.
    Cluster {
        /// Some of its nodes, each with its port.
        nodes: Vec<(String, u16)>,
        /// Whether they are spoken to by TLS.
        tls: Option<Trust>,
    },
}

/// What to trust besides the system's roots.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trust {
    /// Authorities.
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

/// One client's token, kept on a server.
#[derive(Debug)]
pub struct RedisStore {
    inner: Arc<Inner>,
    watching: AbortHandle,
}

impl RedisStore {
    /// The store of `client`, which is its name in messages. Returns at once, whether the server
    /// can be reached or not. Call it on a runtime.
    ///
    /// # Errors
    /// [`tls::Error`] if there is no certificate to verify the server by.
    pub fn new(
        config: &Config,
        client: &str,
        key: Key,
        clock: Arc<dyn Clock>,
    ) -> Result<RedisStore, tls::Error> {
        let keys = Keys::new(&config.key_prefix, &key);
        let (link, notices) = Link::new(config, &keys)?;
        let inner = Arc::new(Inner {
            identity: Identity::new(&key),
            kept: Kept::new(client, key, clock, keys.record.clone()),
            keys,
            scripts: Scripts::new(),
            link,
            sight: Sight::new(),
            rank: Mutex::new(Rank::Unknown),
            problem: Mutex::default(),
        });
        let watching = tokio::spawn(Arc::clone(&inner).watch(notices)).abort_handle();
        Ok(RedisStore { inner, watching })
    }
}

impl Drop for RedisStore {
    fn drop(&mut self) {
        self.watching.abort();
    }
}

#[async_trait]
impl TokenStore for RedisStore {
    async fn read(&self) -> Result<Option<Record>, StoreError> {
        let fetched = self.inner.fetch().await;
        // only now, for a reader who has given up has not seen it
        self.inner.sight.saw(match &fetched {
            Ok((_, stamp)) => Seen::Content(stamp.clone()),
            Err(_) => Seen::Away,
        });
        let (content, _) = fetched?;
        Ok(content.and_then(|content| self.inner.kept.open(&content)))
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
        self.inner.sight.changed().await;
    }

    async fn leave(&self) {
        self.watching.abort();
        let inner = &self.inner;
        let left = inner.link.run(async |server| {
            let mut leave = inner.scripts.leave.key(&inner.keys.members);
            leave.key(&inner.keys.seen).arg(inner.identity.name());
            leave.arg(&inner.keys.channel);
            leave.invoke_async::<()>(server).await
        });
        // otherwise its place expires
        let _ = left.await;
    }

    fn rank(&self) -> Rank {
        *locked(&self.inner.rank)
    }
}

#[derive(Debug)]
struct Inner {
    identity: Identity,
    kept: Kept,
    keys: Keys,
    scripts: Scripts,
    link: Link,
    /// By the stamp of what is kept.
    sight: Sight<String>,
    rank: Mutex<Rank>,
    /// Why the server could not be used when it was last looked at.
    problem: Mutex<String>,
}

impl Inner {
    /// Looks at the server for as long as the store is in use.
    async fn watch(self: Arc<Inner>, notices: Arc<Notices>) {
        loop {
            notices.take();
            let came = self.look().await;
            let now = match &came {
                Ok(stamp) => Seen::Content(stamp.clone()),
                Err(_) => Seen::Away,
            };
            if let Err(e) = &came {
                *locked(&self.problem) = e.to_string();
            }
            self.sight.look_is(now);
            let next = match came.is_ok() && self.link.listens() {
                true => LOOK.mul_f64(0.95 + 0.1 * ThreadJitter.next()),
                false => LOOK_ALONE.mul_f64(0.75 + 0.5 * ThreadJitter.next()),
            };
            let next = tokio::time::sleep(next);
            match came {
                Ok(_) => self.listen(&notices, next).await,
                Err(_) => next.await,
            }
        }
    }

    /// Takes in what the server tells, until the next look is due, or is called for.
    async fn listen(&self, notices: &Notices, next: tokio::time::Sleep) {
        tokio::time::sleep(PAUSE).await;
        tokio::pin!(next);
        loop {
            let notice = tokio::select! {
                () = &mut next => return,
                notice = notices.next() => notice,
            };
            let Notice::Kept(stamp) = notice else {
                return;
            };
            tokio::time::sleep(self.turn()).await;
            // what was told meanwhile is newer
            let stamp = match notices.take() {
                Some(Notice::Look) => return,
                Some(Notice::Kept(newer)) => newer,
                None => stamp,
            };
            self.sight.look_is(Seen::Content(stamp));
        }
    }

    /// When it is this process's turn to read what all were told of.
    fn turn(&self) -> Duration {
        let all = match *locked(&self.rank) {
            Rank::Among { all, .. } => all,
            Rank::Alone | Rank::Unknown => 1,
        };
        let longest = Duration::from_secs(1) * all / READERS;
        longest.mul_f64(ThreadJitter.next())
    }

    /// Looks once, and gives a sign of life.
    async fn look(&self) -> Result<String, StoreError> {
        let silence = milliseconds(SILENCE);
        let (stamp, before, all): (String, u32, u32) = self
            .link
            .run(async |server| {
                let mut look = self.scripts.look.key(&self.keys.record);
                look.key(&self.keys.members).key(&self.keys.seen);
                look.arg(self.identity.name()).arg(silence);
                look.arg(&self.keys.channel);
                look.invoke_async(server).await
            })
            .await?;
        *locked(&self.rank) = Rank::Among { before, all };
        Ok(stamp)
    }

    /// Has `command` carried out, unless it is known that it cannot be: the engine is not kept
    /// waiting for what the next look finds out.
    async fn run<T>(
        &self,
        command: impl AsyncFnOnce(&mut redis::aio::MultiplexedConnection) -> redis::RedisResult<T>,
    ) -> Result<T, StoreError> {
        let seen = self.sight.risks();
        if self.sight.is_away() {
            return Err(StoreError::Away(locked(&self.problem).clone()));
        }
        let done = self.link.run(command).await;
        if done.is_ok() {
            self.sight.has_seen(seen);
        }
        done
    }

    /// What is kept, and its stamp.
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
    /// How long the record is of use.
    rest: Duration,
    /// The others are told, also if there is no newer token in it.
    is_told: bool,
}

impl Replace for Publication<'_> {
    /// The stamp of what is kept.
    type Before = String;

    async fn before(&self, _owner: &str) -> Result<(String, Vec<u8>), StoreError> {
        // whether the lock is still this process's is asked in the same step as what is replaced
        let (before, stamp) = self.inner.fetch().await?;
        Ok((stamp, before.unwrap_or_default()))
    }

    async fn replace(
        &self,
        owner: &str,
        before: String,
        next: &Successor,
    ) -> Result<bool, StoreError> {
        let inner = self.inner;
        let channel = match self.is_told || next.is_newer {
            true => inner.keys.channel.as_str(),
            false => "",
        };
        let (became, stamp): (String, String) = inner
            .run(async |server| {
                let mut publish = inner.scripts.publish.key(&inner.keys.lock);
                publish.key(&inner.keys.record).arg(owner).arg(&before);
                publish.arg(&next.bytes).arg(milliseconds(self.rest));
                publish.arg(channel).invoke_async(server).await
            })
            .await?;
        match became.as_str() {
            "kept" => {
                inner.sight.saw(Seen::Content(stamp));
                Ok(true)
            }
            "lost" => Err(lost()),
            _changed => Ok(false),
        }
    }
}

/// The lock. It is given up when this is dropped, and ends by the server's clock in any case.
#[derive(Debug)]
struct RedisLease {
    inner: Arc<Inner>,
    owner: String,
    has_published: bool,
}

#[async_trait]
impl Lease for RedisLease {
    async fn publish(&mut self, record: &Record) -> Result<(), StoreError> {
        // what came of a request is told; that it is booked the others need not know before they
        // ask themselves, and all of a large fleet would read it at once
        let is_told = std::mem::replace(&mut self.has_published, true);
        let inner = &*self.inner;
        let publication = Publication {
            inner,
            rest: use_of(record, inner.kept.clock.wall()),
            is_told,
        };
        shared::publish(&publication, &inner.kept, &self.owner, record).await
    }
}

impl Drop for RedisLease {
    fn drop(&mut self) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        let inner = Arc::clone(&self.inner);
        let owner = std::mem::take(&mut self.owner);
        // if it fails, the lock ends by itself
        runtime.spawn(async move { inner.unlock(&owner).await });
    }
}

/// How long `record` is of use to anyone from `now` on, and some time more.
fn use_of(record: &Record, now: SystemTime) -> Duration {
    let token = record.token.as_ref();
    let end = token.map_or(now, |token| token.asked + token.lifetime);
    let last = end.max(record.pool.full_at).max(record.pool.not_before);
    (last.duration_since(now).unwrap_or_default() + REST).min(LONGEST)
}

fn milliseconds(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX).max(1)
}
