//! The state that a store shares with its watcher: the two objects, and what is known of them.

use std::sync::Mutex;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::api::{Api, Kind, Replaced};
use super::object::{annotate, annotation, members_of};
use super::{TRIES, heartbeats, jittered_pause};
use crate::store::shared::{Entry, HolderTracker, VersionTracker};
use crate::token::ports::{Membership, Record, StoreError};

/// Makes the watcher re-read the server when dropped unsettled.
pub(super) struct RecheckGuard<'a>(&'a Notify);

impl RecheckGuard<'_> {
    /// Settles the guard, unless the call found the server unavailable.
    pub(super) fn settle<T>(self, end: &Result<T, StoreError>) {
        if !matches!(end, Err(StoreError::Unavailable(_))) {
            std::mem::forget(self);
        }
    }
}

impl Drop for RecheckGuard<'_> {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

/// The shared state of one store.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) member: String,
    pub(super) entry: Entry,
    /// The client's key in the Secret.
    pub(super) data: String,
    /// The Lease's annotation that names the lease holder.
    pub(super) holder: String,
    /// The Lease's annotation with the standby list.
    pub(super) members: String,
    pub(super) api: Api,
    /// A call failed: the watcher should re-read the server.
    pub(super) recheck: Notify,
    /// By the value of the client's key in the Secret.
    pub(super) tracker: VersionTracker<Option<String>>,
    pub(super) membership: Mutex<Membership>,
    pub(super) held: HolderTracker,
}

impl Shared {
    /// Returns a guard. Unless [`RecheckGuard::settle`] is called first, dropping it makes the
    /// watcher re-read the server at once. Covers callers that time out.
    pub(super) fn recheck_unless_settled(&self) -> RecheckGuard<'_> {
        RecheckGuard(&self.recheck)
    }

    /// The client's value in the Secret, in base64.
    pub(super) fn content(&self, secret: &Value) -> Option<String> {
        let content = secret.get("data")?.get(&self.data)?.as_str()?;
        Some(content.to_owned())
    }

    /// Returns whether another process holds the lease. No lease is longer than `length`.
    pub(super) fn is_held(&self, lease: &Value, length: Duration) -> bool {
        let holder = annotation(lease, &self.holder).unwrap_or_default();
        let known_for = self.held.known_for(holder, self.entry.clock.now());
        let said = holder.split_once(' ').and_then(|(_, ms)| ms.parse().ok());
        let long = said.map_or(length, Duration::from_millis).min(length);
        !holder.is_empty() && known_for < long
    }

    /// Shows the last holder in the Lease's own fields, for humans; only annotations decide.
    pub(super) fn show(&self, lease: &mut Value, owner: &str, length: Duration) {
        let now = jiff::Timestamp::try_from(self.entry.clock.wall()).unwrap_or_default();
        // MicroTime has exactly six digits
        let now = now.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string();
        let spec = members_of(lease, "spec");
        let before = spec.get("leaseTransitions").and_then(Value::as_i64);
        let transitions = before.unwrap_or(0).saturating_add(1);
        spec.insert("holderIdentity".to_owned(), json!(owner));
        spec.insert(
            "leaseDurationSeconds".to_owned(),
            json!(length.as_secs().clamp(1, 3600)),
        );
        spec.insert("acquireTime".to_owned(), json!(now));
        spec.insert("renewTime".to_owned(), json!(now));
        let transitions = i32::try_from(transitions).unwrap_or(0);
        spec.insert("leaseTransitions".to_owned(), json!(transitions));
    }

    /// Decodes the client's value in the Secret.
    pub(super) fn open(&self, content: &str) -> Option<Record> {
        // a value that is not base64 is not a record
        self.entry
            .open(&STANDARD.decode(content).unwrap_or_default())
    }

    pub(super) fn is_of(&self, lease: &Value, owner: &str) -> bool {
        let holder = annotation(lease, &self.holder).and_then(|holder| holder.split_once(' '));
        holder.is_some_and(|(name, _)| name == owner)
    }

    /// Gives up this process's standby place.
    pub(super) async fn leave(&self) -> Result<(), StoreError> {
        for _ in 0..TRIES {
            let mut lease = self.api.get(Kind::Lease).await?;
            let text = annotation(&lease, &self.members).unwrap_or_default();
            let Some(left) = heartbeats::without(text, &self.member) else {
                return Ok(());
            };
            annotate(&mut lease, &self.members, Some(left));
            if let Replaced::Done = self.api.replace(Kind::Lease, &lease).await? {
                return Ok(());
            }
            jittered_pause().await;
        }
        Ok(())
    }

    /// Releases the lease, if `owner` still holds it.
    pub(super) async fn give_up(&self, owner: &str) -> Result<(), StoreError> {
        for _ in 0..TRIES {
            let mut lease = self.api.get(Kind::Lease).await?;
            if !self.is_of(&lease, owner) {
                return Ok(());
            }
            annotate(&mut lease, &self.holder, None);
            let spec = members_of(&mut lease, "spec");
            if spec
                .get("holderIdentity")
                .is_some_and(|holder| holder == owner)
            {
                // remove it, because not every version of the server accepts an empty one
                spec.remove("holderIdentity");
            }
            if let Replaced::Done = self.api.replace(Kind::Lease, &lease).await? {
                return Ok(());
            }
            jittered_pause().await;
        }
        Ok(())
    }
}
