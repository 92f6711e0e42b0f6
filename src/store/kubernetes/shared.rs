//! What a store and its look at the server have in common: the two objects, and what is known of
//! them.

use std::sync::Mutex;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::api::{Api, Kind, Replaced};
use super::object::{annotate, annotation, members_of};
use super::{TRIES, breathe, roster};
use crate::clock::Instant;
use crate::store::locked;
use crate::store::record::Successor;
use crate::store::shared::{Identity, Kept, Replace, Seen, Sight, lost};
use crate::token::ports::{Rank, Record, StoreError};

/// Whether the server is there is in doubt until this is settled.
pub(super) struct Doubt<'a>(&'a Notify);

impl Doubt<'_> {
    /// A call has come to this.
    pub(super) fn settle<T>(self, end: &Result<T, StoreError>) {
        if !matches!(end, Err(StoreError::Away(_))) {
            std::mem::forget(self);
        }
    }
}

impl Drop for Doubt<'_> {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

/// What one store knows.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) identity: Identity,
    pub(super) kept: Kept,
    /// The client's key in the Secret.
    pub(super) data: String,
    /// The Lease's annotation with who asks for the client.
    pub(super) holder: String,
    /// The Lease's annotation with the seats.
    pub(super) members: String,
    pub(super) api: Api,
    /// A call has failed: whoever looks should see for themselves.
    pub(super) doubt: Notify,
    /// By the value of the client's key in the Secret.
    pub(super) sight: Sight<Option<String>>,
    pub(super) rank: Mutex<Rank>,
    /// Who asks, and since when that is known.
    pub(super) held: Mutex<Option<(String, Instant)>>,
}

impl Shared {
    /// Has the server be looked at at once unless what is begun here comes to an end that is told to
    /// [`Doubt::settle`]: whoever calls may give up before that.
    pub(super) fn doubt(&self) -> Doubt<'_> {
        Doubt(&self.doubt)
    }

    /// The client's part of the Secret, in base64.
    pub(super) fn content(&self, secret: &Value) -> Option<String> {
        let content = secret.get("data")?.get(&self.data)?.as_str()?;
        Some(content.to_owned())
    }

    /// Whether another has the right to ask, which nobody takes for longer than `length`.
    pub(super) fn is_held(&self, lease: &Value, length: Duration) -> bool {
        let mut held = locked(&self.held);
        let Some(holder) = annotation(lease, &self.holder) else {
            *held = None;
            return false;
        };
        let now = self.kept.clock.now();
        let since = match &*held {
            Some((known, since)) if known == holder => *since,
            _ => {
                *held = Some((holder.to_owned(), now));
                now
            }
        };
        let said = holder.split_once(' ').and_then(|(_, ms)| ms.parse().ok());
        let long = said.map_or(length, Duration::from_millis).min(length);
        now.since(since) < long
    }

    /// Shows in the Lease's own fields who asked last, for people; only annotations decide.
    pub(super) fn show(&self, lease: &mut Value, owner: &str, length: Duration) {
        let now = jiff::Timestamp::try_from(self.kept.clock.wall()).unwrap_or_default();
        // MicroTime: six digits, neither more nor fewer
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

    /// What the client's part of the Secret holds.
    pub(super) fn open(&self, content: &str) -> Option<Record> {
        // what is no base64 is no record
        self.kept
            .open(&STANDARD.decode(content).unwrap_or_default())
    }

    fn is_of(&self, lease: &Value, owner: &str) -> bool {
        let holder = annotation(lease, &self.holder).and_then(|holder| holder.split_once(' '));
        holder.is_some_and(|(name, _)| name == owner)
    }

    /// Gives this process's seat back.
    pub(super) async fn leave(&self) -> Result<(), StoreError> {
        for _ in 0..TRIES {
            let mut lease = self.api.get(Kind::Lease).await?;
            let text = annotation(&lease, &self.members).unwrap_or_default();
            let Some(left) = roster::without(text, self.identity.name()) else {
                return Ok(());
            };
            annotate(&mut lease, &self.members, Some(left));
            if let Replaced::Done = self.api.replace(Kind::Lease, &lease).await? {
                return Ok(());
            }
            breathe().await;
        }
        Ok(())
    }

    /// Gives back the right to ask, if `owner` still has it.
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
                // not an empty one, which not every version of the server takes
                spec.remove("holderIdentity");
            }
            if let Replaced::Done = self.api.replace(Kind::Lease, &lease).await? {
                return Ok(());
            }
            breathe().await;
        }
        Ok(())
    }
}

impl Replace for Shared {
    /// The Secret.
    type Before = Value;

    async fn before(&self, owner: &str) -> Result<(Value, Vec<u8>), StoreError> {
        let secret = self.api.get(Kind::Secret).await?;
        if secret.get("immutable") == Some(&json!(true)) {
            return Err(StoreError::Away(
                "the Secret is immutable, so that nothing can be kept in it; delete it, and create it anew without that".to_owned(),
            ));
        }
        // in this order: whoever took the right later finds what was read here replaced
        let lease = self.api.get(Kind::Lease).await?;
        if !self.is_of(&lease, owner) {
            return Err(lost());
        }
        let before = self.content(&secret).unwrap_or_default();
        Ok((secret, STANDARD.decode(before).unwrap_or_default()))
    }

    async fn replace(
        &self,
        _owner: &str,
        mut secret: Value,
        next: &Successor,
    ) -> Result<bool, StoreError> {
        let content = STANDARD.encode(&next.bytes);
        members_of(&mut secret, "data").insert(self.data.clone(), json!(content));
        if let Replaced::Done = self.api.replace(Kind::Secret, &secret).await? {
            self.sight.saw(Seen::Content(Some(content)));
            return Ok(true);
        }
        breathe().await;
        Ok(false)
    }
}
