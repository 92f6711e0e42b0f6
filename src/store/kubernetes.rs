//! The store in Kubernetes itself: the proxies of a cluster share a token by a Secret and a Lease.
//!
//! **Who asks.** One process at a time has its name in the Lease, in an annotation for each client.
//! The Lease is replaced only as it was read (`resourceVersion`), so of several that try one wins.
//! A name that has stood there unchanged for its time, by the clock of whoever looks, may be
//! replaced: no clocks are compared. What is kept is replaced in the same way, and only by who
//! still has its name there after reading it: a process that was stopped meanwhile changes nothing,
//! and a generation never goes back.
//!
//! **Who is told.** Each process watches the Secret, and reads it every half a minute in any case; a
//! watch that did not tell what such a reading finds is begun anew.
//!
//! **Who goes on alone.** The four that came first have a seat in the Lease (`roster`).
//!
//! **What lies there.** One key in the Secret for each client, sealed by
//! [`record`](crate::store::record), named by a digest over instance and client id. Both objects
//! are the operator's: this program creates none, because the right to create cannot be narrowed to
//! a name.

pub mod access;
mod api;
mod object;
mod roster;
mod shared;
mod watching;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use crate::clock::Clock;
use crate::random::{Jitter, ThreadJitter};
use crate::store::key::Key;
use crate::store::shared::{self as common, Identity, Kept, Seen, Sight};
use crate::store::{locked, random_name};
use crate::token::ports::{Lease, Rank, Record, StoreError, TokenStore};
use access::Access;
use api::{Api, Kind, Replaced};
use object::annotate;
use shared::Shared;
use watching::Watching;

/// How often an object that changes while it is replaced is read again.
const TRIES: u32 = 8;

/// Where the objects are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The way to the API server.
    pub access: Access,
    /// The namespace of both.
    pub namespace: String,
    /// The Secret's name.
    pub secret: String,
    /// The Lease's name.
    pub lease: String,
}

/// One client's token, kept in a cluster.
#[derive(Debug)]
pub struct KubernetesStore {
    shared: Arc<Shared>,
    watching: AbortHandle,
}

impl KubernetesStore {
    /// The store of `client`, which is its name in messages. Returns at once, whether the server
    /// can be reached or not. Call it on a runtime.
    #[must_use]
    pub fn new(config: &Config, client: &str, key: Key, clock: Arc<dyn Clock>) -> KubernetesStore {
        let fingerprint = key.fingerprint();
        let data = format!("token-{fingerprint}");
        let place = format!("the Secret {} with {data}", config.secret);
        let shared = Arc::new(Shared {
            identity: Identity::new(&key),
            kept: Kept::new(client, key, Arc::clone(&clock), place),
            data,
            holder: format!("collibra-auth-proxy/holder-{fingerprint}"),
            members: format!("collibra-auth-proxy/members-{fingerprint}"),
            api: Api::new(config, clock),
            doubt: Notify::new(),
            sight: Sight::new(),
            rank: Mutex::new(Rank::Unknown),
            held: Mutex::default(),
        });
        let watching = tokio::spawn(Watching::new(Arc::clone(&shared)).run()).abort_handle();
        KubernetesStore { shared, watching }
    }
}

impl KubernetesStore {
    async fn take(&self, length: Duration) -> Result<Option<Box<dyn Lease>>, StoreError> {
        let shared = &self.shared;
        let owner = random_name()?;
        for _ in 0..TRIES {
            let mut lease = shared.api.get(Kind::Lease).await?;
            if shared.is_held(&lease, length) {
                return Ok(None);
            }
            let value = format!("{owner} {}", length.as_millis().max(1));
            annotate(&mut lease, &shared.holder, Some(value));
            shared.show(&mut lease, &owner, length);
            if let Replaced::Done = shared.api.replace(Kind::Lease, &lease).await? {
                let shared = Arc::clone(shared);
                return Ok(Some(Box::new(KubernetesLease { shared, owner })));
            }
            breathe().await;
        }
        // so many others want it that one of them will have it
        Ok(None)
    }
}

impl Drop for KubernetesStore {
    fn drop(&mut self) {
        self.watching.abort();
    }
}

#[async_trait]
impl TokenStore for KubernetesStore {
    async fn read(&self) -> Result<Option<Record>, StoreError> {
        let shared = &self.shared;
        // whoever fails here has seen nothing
        shared.sight.risks();
        let doubt = shared.doubt();
        let fetched = shared.api.get(Kind::Secret).await;
        doubt.settle(&fetched);
        let content = fetched.map(|secret| shared.content(&secret));
        shared.sight.saw(match &content {
            Ok(content) => Seen::Content(content.clone()),
            Err(_) => Seen::Away,
        });
        Ok(content?.and_then(|content| shared.open(&content)))
    }

    async fn lease(&self, length: Duration) -> Result<Option<Box<dyn Lease>>, StoreError> {
        let doubt = self.shared.doubt();
        let taken = self.take(length).await;
        doubt.settle(&taken);
        taken
    }

    async fn changed(&self) {
        self.shared.sight.changed().await;
    }

    async fn leave(&self) {
        self.watching.abort();
        // otherwise its seat expires
        let _ = self.shared.leave().await;
    }

    fn rank(&self) -> Rank {
        *locked(&self.shared.rank)
    }
}

/// The right to ask. It is given up when this is dropped; if that fails, it ends by itself.
#[derive(Debug)]
struct KubernetesLease {
    shared: Arc<Shared>,
    owner: String,
}

#[async_trait]
impl Lease for KubernetesLease {
    async fn publish(&mut self, record: &Record) -> Result<(), StoreError> {
        let doubt = self.shared.doubt();
        let shared = &*self.shared;
        let published = common::publish(shared, &shared.kept, &self.owner, record).await;
        doubt.settle(&published);
        published
    }
}

impl Drop for KubernetesLease {
    fn drop(&mut self) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        let shared = Arc::clone(&self.shared);
        let owner = std::mem::take(&mut self.owner);
        runtime.spawn(async move { shared.give_up(&owner).await });
    }
}

/// Lets others by who replace the same object.
async fn breathe() {
    let pause = Duration::from_millis(40).mul_f64(ThreadJitter.next());
    tokio::time::sleep(pause).await;
}

fn spread(span: Duration) -> Duration {
    span.mul_f64(0.75 + 0.5 * ThreadJitter.next())
}
