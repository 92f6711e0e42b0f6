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
//! **Membership.** The first four processes register in the Lease (`standby`) and continue
//! without the store.
//!
//! **Content.** One key in the Secret per client, named by a digest of instance and client id and
//! sealed by [`record`](crate::store::record). The operator creates both objects: the permission to
//! create cannot be limited to a name.

pub mod access;
mod api;
mod heartbeats;
mod object;
mod standby;
mod watcher;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio_util::task::AbortOnDropHandle;

use crate::clock::Clock;
use crate::random::{Jitter, ThreadJitter};
use crate::store::key::Key;
use crate::store::shared::{
    self as common, CompareAndSwap, Entry, HolderTracker, Replacement, VersionTracker, lease_lost,
    member_name,
};
use crate::store::{locked, random_name};
use crate::token::ports::{Lease, Membership, Record, StoreError, TokenStore};
use access::Access;
use api::{Api, Kind};
use object::{annotate, annotation, members_of};

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
    inner: Arc<Inner>,
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
        let inner = Arc::new(Inner {
            member: member_name(),
            entry: Entry::new(client, key, Arc::clone(&clock), place),
            data,
            holder: format!("collibra-auth-proxy/holder-{fingerprint}"),
            members: format!("collibra-auth-proxy/members-{fingerprint}"),
            api: Api::new(config, clock),
            tracker: VersionTracker::new(),
            membership: Mutex::new(Membership::Unknown),
            held: HolderTracker::default(),
        });
        let watching = Arc::clone(&inner);
        let watcher = tokio::spawn(async move {
            tokio::join!(watcher::watch(&watching), standby::keep_place(&watching));
        });
        let watcher = AbortOnDropHandle::new(watcher);
        KubernetesStore { inner, watcher }
    }
}

#[async_trait]
impl TokenStore for KubernetesStore {
    async fn read(&self) -> Result<Option<Record>, StoreError> {
        let inner = &self.inner;
        // if this call is cancelled, the server's return must count as a change
        inner.tracker.invalidate();
        let fetched = inner.api.get(Kind::Secret).await;
        let content = fetched.map(|secret| inner.content(&secret));
        inner.tracker.observed(content.as_ref().ok().cloned());
        let content = content?;
        // a value that is not base64 is not a record
        let open = || {
            inner
                .entry
                .open(&STANDARD.decode(&content).unwrap_or_default())
        };
        Ok((!content.is_empty()).then(open).flatten())
    }

    async fn lease(&self, length: Duration) -> Result<Option<Box<dyn Lease>>, StoreError> {
        let inner = &self.inner;
        let owner = random_name();
        let taken = inner.change_lease(|lease| {
            if inner.is_held(lease, length) {
                return None;
            }
            let value = format!("{owner} {}", length.as_millis().max(1));
            annotate(lease, &inner.holder, Some(value));
            inner.show(lease, &owner, length);
            Some(())
        });
        // if so many others compete that every try conflicts, one of them will get it
        let is_taken = taken.await?;
        let inner = Arc::clone(inner);
        Ok(is_taken.then(|| Box::new(KubernetesLease { inner, owner }) as Box<dyn Lease>))
    }

    async fn changed(&self) {
        self.inner.tracker.changed().await;
    }

    async fn leave(&self) {
        self.watcher.abort();
        let Inner {
            members, member, ..
        } = &*self.inner;
        let left = self.inner.change_lease(|lease| {
            let standbys = annotation(lease, members).unwrap_or_default();
            let left = heartbeats::without(standbys, member)?;
            annotate(lease, members, Some(left));
            Some(())
        });
        // if this fails, the standby place expires
        let _ = left.await;
    }

    fn membership(&self) -> Membership {
        *locked(&self.inner.membership)
    }
}

/// What a store shares with its watcher.
#[derive(Debug)]
struct Inner {
    member: String,
    entry: Entry,
    /// The client's key in the Secret.
    data: String,
    /// The Lease's annotation that names the lease holder.
    holder: String,
    /// The Lease's annotation with the standby list.
    members: String,
    api: Api,
    /// By the value of the client's key in the Secret.
    tracker: VersionTracker,
    membership: Mutex<Membership>,
    held: HolderTracker,
}

impl Inner {
    /// The client's value in the Secret, in base64; empty if there is none.
    fn content(&self, secret: &Value) -> String {
        let content = secret["data"][&*self.data].as_str();
        content.unwrap_or_default().to_owned()
    }

    /// Replaces the Lease by what `change` makes of it, unless that is `None`. Returns whether it
    /// was replaced.
    async fn change_lease(
        &self,
        change: impl Fn(&mut Value) -> Option<()>,
    ) -> Result<bool, StoreError> {
        for _ in 0..TRIES {
            let mut lease = self.api.get(Kind::Lease).await?;
            if change(&mut lease).is_none() {
                return Ok(false);
            }
            if self.api.replace(Kind::Lease, &lease).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Returns whether another process holds the lease. No lease is longer than `length`.
    fn is_held(&self, lease: &Value, length: Duration) -> bool {
        let holder = annotation(lease, &self.holder).unwrap_or_default();
        let known_for = self.held.known_for(holder, self.entry.clock.now());
        let said = holder.split_once(' ').and_then(|(_, ms)| ms.parse().ok());
        let long = said.map_or(length, Duration::from_millis).min(length);
        !holder.is_empty() && known_for < long
    }

    /// Shows the last holder in the Lease's own fields, for humans; only annotations decide.
    fn show(&self, lease: &mut Value, owner: &str, length: Duration) {
        let now = jiff::Timestamp::try_from(self.entry.clock.wall()).unwrap_or_default();
        // MicroTime has exactly six digits
        let now = now.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string();
        let before = lease["spec"]["leaseTransitions"].as_i64().unwrap_or(0);
        let transitions = i32::try_from(before.saturating_add(1)).unwrap_or(0);
        let spec = members_of(lease, "spec");
        for (name, value) in [
            ("holderIdentity", json!(owner)),
            (
                "leaseDurationSeconds",
                json!(length.as_secs().clamp(1, 3600)),
            ),
            ("acquireTime", json!(now)),
            ("renewTime", json!(now)),
            ("leaseTransitions", json!(transitions)),
        ] {
            spec.insert(name.to_owned(), value);
        }
    }

    fn is_of(&self, lease: &Value, owner: &str) -> bool {
        let holder = annotation(lease, &self.holder).and_then(|holder| holder.split_once(' '));
        holder.is_some_and(|(name, _)| name == owner)
    }

    /// Releases the lease, if `owner` still holds it.
    async fn release(&self, owner: &str) {
        let released = self.change_lease(|lease| {
            if !self.is_of(lease, owner) {
                return None;
            }
            annotate(lease, &self.holder, None);
            if lease["spec"]["holderIdentity"] == owner {
                // remove it, because not every version of the server accepts an empty one
                members_of(lease, "spec").remove("holderIdentity");
            }
            Some(())
        });
        // if this fails, the lease expires
        let _ = released.await;
    }
}

/// The held lease. Dropping it releases it.
#[derive(Debug)]
struct KubernetesLease {
    inner: Arc<Inner>,
    owner: String,
}

#[async_trait]
impl Lease for KubernetesLease {
    async fn publish(&mut self, record: &Record) -> Result<(), StoreError> {
        common::publish(&*self, &self.inner.entry, record).await
    }
}

impl CompareAndSwap for KubernetesLease {
    /// The Secret.
    type Loaded = Value;

    async fn load(&self) -> Result<(Value, Vec<u8>), StoreError> {
        let inner = &*self.inner;
        let secret = inner.api.get(Kind::Secret).await?;
        if secret["immutable"] == true {
            return Err(StoreError::Unavailable(
                "the Secret is immutable, so no token can be stored in it; delete it and create it again without `immutable`".to_owned(),
            ));
        }
        // in this order: a process that takes the lease later finds the content that was read here
        // replaced
        let lease = inner.api.get(Kind::Lease).await?;
        if !inner.is_of(&lease, &self.owner) {
            return Err(lease_lost());
        }
        let before = STANDARD.decode(inner.content(&secret));
        Ok((secret, before.unwrap_or_default()))
    }

    async fn swap(
        &self,
        mut secret: Value,
        next: &Replacement,
        _record: &Record,
    ) -> Result<bool, StoreError> {
        let inner = &*self.inner;
        let content = STANDARD.encode(&next.bytes);
        members_of(&mut secret, "data").insert(inner.data.clone(), json!(content));
        let is_replaced = inner.api.replace(Kind::Secret, &secret).await?;
        if is_replaced {
            inner.tracker.observed(Some(content));
        }
        Ok(is_replaced)
    }
}

impl Drop for KubernetesLease {
    fn drop(&mut self) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        let inner = Arc::clone(&self.inner);
        let owner = std::mem::take(&mut self.owner);
        runtime.spawn(async move { inner.release(&owner).await });
    }
}

fn jittered(span: Duration) -> Duration {
    span.mul_f64(0.75 + 0.5 * ThreadJitter.next())
}
