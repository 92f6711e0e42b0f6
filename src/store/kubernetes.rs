//! The store in a Kubernetes Secret and Lease, shared by the proxies of a cluster.
//!
//! **Lease.** One process at a time has its name in an annotation of the Lease, one annotation per
//! client. The Lease is replaced only in the version that was read (`resourceVersion`), so one of
//! several processes wins. A name that stays unchanged for the lease time, by the clock of the
//! process that reads it, may be replaced: clocks are never compared. The Secret is replaced in the
//! same way, and only by a process that still has its name in the Lease after reading the Secret. A
//! process that stood still meanwhile changes nothing, and a generation never decreases.
//!
//! **Notifications.** Each process watches the Secret, and also reads it once a minute. A watch
//! that missed what such a read finds is restarted.
//!
//! **Membership.** The first four processes register in the Lease (`heartbeats`) and continue
//! without the store.
//!
//! **Content.** One key in the Secret per client, named by a digest of instance and client id and
//! sealed by [`record`](crate::store::record). The operator creates both objects: the permission to
//! create cannot be limited to a name.

pub mod access;
mod api;
mod heartbeats;
mod object;
mod shared;
mod watcher;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio_util::task::AbortOnDropHandle;

use crate::clock::Clock;
use crate::random::{Jitter, ThreadJitter};
use crate::store::key::Key;
use crate::store::record::Replacement;
use crate::store::shared::{
    self as common, CompareAndSwap, Entry, HolderTracker, Version, VersionTracker, lease_lost,
    member_name,
};
use crate::store::{locked, random_name};
use crate::token::ports::{Lease, Membership, Record, StoreError, TokenStore};
use access::Access;
use api::{Api, Kind, Replaced};
use object::{annotate, members_of};
use shared::Shared;
use watcher::Watcher;

/// How often a replacement is retried after a conflict.
const TRIES: u32 = 8;

/// Where the objects are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// How to reach the API server.
    pub access: Access,
    /// The namespace of both objects.
    pub namespace: String,
    /// The Secret's name.
    pub secret: String,
    /// The Lease's name.
    pub lease: String,
}

/// One client's token, stored in a cluster.
#[derive(Debug)]
pub struct KubernetesStore {
    shared: Arc<Shared>,
    watcher: AbortOnDropHandle<()>,
}

impl KubernetesStore {
    /// Returns the store of `client`, its name in messages. Connects in the background, so it
    /// returns at once. Call it on a runtime.
    #[must_use]
    pub fn new(config: &Config, client: &str, key: Key, clock: Arc<dyn Clock>) -> KubernetesStore {
        let fingerprint = key.fingerprint();
        let data = format!("token-{fingerprint}");
        let place = format!("the Secret {} with {data}", config.secret);
        let shared = Arc::new(Shared {
            member: member_name(),
            entry: Entry::new(client, key, Arc::clone(&clock), place),
            data,
            holder: format!("collibra-auth-proxy/holder-{fingerprint}"),
            members: format!("collibra-auth-proxy/members-{fingerprint}"),
            api: Api::new(config, clock),
            recheck: Notify::new(),
            tracker: VersionTracker::new(),
            membership: Mutex::new(Membership::Unknown),
            held: HolderTracker::default(),
        });
        let watcher = Watcher::new(Arc::clone(&shared)).run();
        let watcher = AbortOnDropHandle::new(tokio::spawn(watcher));
        KubernetesStore { shared, watcher }
    }
}

impl KubernetesStore {
    async fn take(&self, length: Duration) -> Result<Option<Box<dyn Lease>>, StoreError> {
        let shared = &self.shared;
        let owner = random_name();
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
            jittered_pause().await;
        }
        // so many others compete that one of them will get it
        Ok(None)
    }
}

#[async_trait]
impl TokenStore for KubernetesStore {
    async fn read(&self) -> Result<Option<Record>, StoreError> {
        let shared = &self.shared;
        // if this call fails or is cancelled, the server's return must count as a change
        shared.tracker.invalidate();
        let guard = shared.recheck_unless_settled();
        let fetched = shared.api.get(Kind::Secret).await;
        guard.settle(&fetched);
        let content = fetched.map(|secret| shared.content(&secret));
        shared.tracker.observed(match &content {
            Ok(content) => Version::Content(content.clone()),
            Err(_) => Version::Unavailable,
        });
        Ok(content?.and_then(|content| shared.open(&content)))
    }

    async fn lease(&self, length: Duration) -> Result<Option<Box<dyn Lease>>, StoreError> {
        let guard = self.shared.recheck_unless_settled();
        let taken = self.take(length).await;
        guard.settle(&taken);
        taken
    }

    async fn changed(&self) {
        self.shared.tracker.changed().await;
    }

    async fn leave(&self) {
        self.watcher.abort();
        // if this fails, the standby place expires
        let _ = self.shared.leave().await;
    }

    fn membership(&self) -> Membership {
        *locked(&self.shared.membership)
    }
}

/// The held lease. Dropping it releases it; if that fails, it expires.
#[derive(Debug)]
struct KubernetesLease {
    shared: Arc<Shared>,
    owner: String,
}

#[async_trait]
impl Lease for KubernetesLease {
    async fn publish(&mut self, record: &Record) -> Result<(), StoreError> {
        let guard = self.shared.recheck_unless_settled();
        let published = common::publish(&*self, &self.shared.entry, record).await;
        guard.settle(&published);
        published
    }
}

impl CompareAndSwap for KubernetesLease {
    /// The Secret.
    type Loaded = Value;

    async fn load(&self) -> Result<(Value, Vec<u8>), StoreError> {
        let shared = &*self.shared;
        let secret = shared.api.get(Kind::Secret).await?;
        if secret.get("immutable") == Some(&json!(true)) {
            return Err(StoreError::Unavailable(
                "the Secret is immutable, so no token can be stored in it; delete it and create it again without `immutable`".to_owned(),
            ));
        }
        // in this order: a process that takes the lease later finds the content that was read here
        // replaced
        let lease = shared.api.get(Kind::Lease).await?;
        if !shared.is_of(&lease, &self.owner) {
            return Err(lease_lost());
        }
        let before = shared.content(&secret).unwrap_or_default();
        Ok((secret, STANDARD.decode(before).unwrap_or_default()))
    }

    async fn swap(
        &self,
        mut secret: Value,
        next: &Replacement,
        _record: &Record,
    ) -> Result<bool, StoreError> {
        let shared = &*self.shared;
        let content = STANDARD.encode(&next.bytes);
        members_of(&mut secret, "data").insert(shared.data.clone(), json!(content));
        if let Replaced::Done = shared.api.replace(Kind::Secret, &secret).await? {
            shared.tracker.observed(Version::Content(Some(content)));
            return Ok(true);
        }
        jittered_pause().await;
        Ok(false)
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

/// Pauses so that others can replace the same object.
async fn jittered_pause() {
    let pause = Duration::from_millis(40).mul_f64(ThreadJitter.next());
    tokio::time::sleep(pause).await;
}

fn jittered(span: Duration) -> Duration {
    span.mul_f64(0.75 + 0.5 * ThreadJitter.next())
}
