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
//! **What lies there.** One key in the Secret for each client, sealed by [`record`], named by a
//! digest over instance and client id. Both objects are the operator's: this program creates none,
//! because the right to create cannot be narrowed to a name.

pub mod access;
mod api;
mod object;
mod roster;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::rand::{SecureRandom, SystemRandom};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tracing::{info, warn};

use crate::clock::{Clock, Instant};
use crate::random::{Jitter, ThreadJitter};
use crate::store::key::Key;
use crate::store::record;
use crate::token::ports::{Lease, Rank, Record, StoreError, TokenStore};
use access::Access;
use api::{Api, Kind, Replaced, Watch};
use object::{annotate, annotation, members_of, version};
use roster::Roster;

/// How often the Secret is read if no watch tells of a change, on average.
const POLL: Duration = Duration::from_secs(30);

/// The same where there is no watch.
const POLL_ALONE: Duration = Duration::from_secs(5);

/// How often the Lease is looked at for a seat, on average.
const ATTEND: Duration = Duration::from_secs(15);

/// The pause before a server that is away is tried again: the first, and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(2));

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
    inner: Arc<Inner>,
    watching: AbortHandle,
}

impl KubernetesStore {
    /// The store of `client`, which is its name in messages. Returns at once, whether the server
    /// can be reached or not. Call it on a runtime.
    #[must_use]
    pub fn new(config: &Config, client: &str, key: Key, clock: Arc<dyn Clock>) -> KubernetesStore {
        let fingerprint = key.fingerprint();
        let inner = Arc::new(Inner {
            client: client.into(),
            data: format!("token-{fingerprint}"),
            holder: format!("collibra-auth-proxy/holder-{fingerprint}"),
            members: format!("collibra-auth-proxy/members-{fingerprint}"),
            key,
            api: Api::new(config, Arc::clone(&clock)),
            clock,
            looked: watch::Sender::new(None),
            seen: Mutex::new(Seen::Away),
            rank: Mutex::new(Rank::Unknown),
            held: Mutex::default(),
            reported: Mutex::default(),
        });
        let watching = tokio::spawn(Arc::clone(&inner).watch()).abort_handle();
        KubernetesStore { inner, watching }
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
        let inner = &self.inner;
        // that it is there after all is a change to whoever fails here, or gives up waiting
        *locked(&inner.seen) = Seen::Away;
        let fetched = inner.api.get(Kind::Secret).await;
        let content = fetched.map(|secret| inner.content(&secret));
        inner.saw(match &content {
            Ok(content) => Seen::Content(content.clone()),
            Err(_) => Seen::Away,
        });
        Ok(content?.and_then(|content| inner.judge(&content)))
    }

    async fn lease(&self, length: Duration) -> Result<Option<Box<dyn Lease>>, StoreError> {
        let inner = &self.inner;
        let owner = random_name()?;
        for _ in 0..TRIES {
            let mut lease = inner.api.get(Kind::Lease).await?;
            if inner.is_held(&lease, length) {
                return Ok(None);
            }
            let value = format!("{owner} {}", length.as_millis().max(1));
            annotate(&mut lease, &inner.holder, Some(value));
            inner.show(&mut lease, &owner, length);
            if let Replaced::Done = inner.api.replace(Kind::Lease, &lease).await? {
                let inner = Arc::clone(inner);
                return Ok(Some(Box::new(KubernetesLease { inner, owner })));
            }
            breathe().await;
        }
        // so many others want it that one of them will have it
        Ok(None)
    }

    async fn changed(&self) {
        let mut looked = self.inner.looked.subscribe();
        // taken once: a reader beside this one must not make it miss what it has not seen
        let seen = locked(&self.inner.seen).clone();
        let differs = |now: &Option<Seen>| now.as_ref().is_some_and(|now| *now != seen);
        if looked.wait_for(differs).await.is_err() {
            std::future::pending().await
        }
    }

    fn rank(&self) -> Rank {
        *locked(&self.inner.rank)
    }
}

/// What was there at a look.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    /// The server could not be used.
    Away,
    /// The client's key in the Secret has this value.
    Content(Option<String>),
}

#[derive(Debug)]
struct Inner {
    client: Box<str>,
    key: Key,
    /// The client's key in the Secret.
    data: String,
    /// The Lease's annotation with who asks for the client.
    holder: String,
    /// The Lease's annotation with the seats.
    members: String,
    api: Api,
    clock: Arc<dyn Clock>,
    /// What was there last.
    looked: watch::Sender<Option<Seen>>,
    /// What was there when the engine last read or wrote.
    seen: Mutex<Seen>,
    rank: Mutex<Rank>,
    /// Who asks, and since when that is known.
    held: Mutex<Option<(String, Instant)>>,
    /// The content whose flaw was reported last.
    reported: Mutex<Option<String>>,
}

impl Inner {
    /// Looks at the Secret and the Lease for as long as the store is in use.
    async fn watch(self: Arc<Inner>) {
        let mut watching: Option<Watch> = None;
        let mut known = String::new();
        let mut pause = PAUSE.0;
        let mut roster = Roster::default();
        let mut me = None;
        let mut attend_at = self.clock.now();
        let mut told = false;
        loop {
            let secret = match self.api.get(Kind::Secret).await {
                Ok(secret) => secret,
                Err(_) => {
                    self.look_is(Seen::Away);
                    watching = None;
                    tokio::time::sleep(spread(pause)).await;
                    pause = (pause * 2).min(PAUSE.1);
                    continue;
                }
            };
            pause = PAUSE.0;
            self.look_is(Seen::Content(self.content(&secret)));
            let now = version(&secret).unwrap_or_default();
            if now != known {
                // whatever watch there was has not told of it
                watching = None;
                now.clone_into(&mut known);
            }
            if watching.is_none() {
                match self.api.watch(&known).await {
                    Ok(begun) => watching = Some(begun),
                    Err(problem) if !std::mem::replace(&mut told, true) => {
                        info!(client = %self.client, "the store is looked at by reading alone: {problem}");
                    }
                    Err(_) => {}
                }
            }
            if self.clock.now() >= attend_at {
                self.attend(&mut roster, &mut me).await;
                attend_at = self.clock.now() + spread(ATTEND);
            }
            let poll = if watching.is_some() { POLL } else { POLL_ALONE };
            let poll_at = self.clock.now() + spread(poll);
            while self.clock.now() < poll_at {
                let next = poll_at.min(attend_at).since(self.clock.now());
                let event = async {
                    match &mut watching {
                        Some(watch) => watch.next().await,
                        None => std::future::pending().await,
                    }
                };
                match tokio::time::timeout(next, event).await {
                    Ok(Some(secret)) => {
                        if let Some(now) = version(&secret) {
                            now.clone_into(&mut known);
                        }
                        self.look_is(Seen::Content(self.content(&secret)));
                    }
                    Ok(None) => {
                        watching = None;
                        // one that ends at once must not make a storm
                        tokio::time::sleep(spread(PAUSE.0)).await;
                        break;
                    }
                    Err(_elapsed) if self.clock.now() >= attend_at => {
                        self.attend(&mut roster, &mut me).await;
                        attend_at = self.clock.now() + spread(ATTEND);
                    }
                    Err(_elapsed) => {}
                }
            }
        }
    }

    /// Gives a sign of life in the Lease, if there is a seat to be had, and learns the rank.
    async fn attend(&self, roster: &mut Roster, me: &mut Option<String>) {
        if me.is_none() {
            *me = random_name().ok();
        }
        let Some(me) = me else { return };
        for _ in 0..TRIES {
            let Ok(mut lease) = self.api.get(Kind::Lease).await else {
                return;
            };
            self.is_held(&lease, Duration::MAX);
            let text = annotation(&lease, &self.members).unwrap_or_default();
            let (written, rank) = roster.attend(text, me, self.clock.now());
            if written.is_some() {
                annotate(&mut lease, &self.members, written);
                match self.api.replace(Kind::Lease, &lease).await {
                    Ok(Replaced::Done) => {}
                    Ok(Replaced::Conflict) => {
                        breathe().await;
                        continue;
                    }
                    Err(_) => return,
                }
            }
            *locked(&self.rank) = rank;
            return;
        }
    }

    fn look_is(&self, now: Seen) {
        self.looked.send_if_modified(|last| {
            let differs = last.as_ref() != Some(&now);
            *last = Some(now);
            differs
        });
    }

    /// The engine has seen `now`: no change of it need be told.
    fn saw(&self, now: Seen) {
        *locked(&self.seen) = now.clone();
        self.looked.send_replace(Some(now));
    }

    /// The client's part of the Secret, in base64.
    fn content(&self, secret: &Value) -> Option<String> {
        let content = secret.get("data")?.get(&self.data)?.as_str()?;
        Some(content.to_owned())
    }

    /// Whether another has the right to ask, which nobody takes for longer than `length`.
    fn is_held(&self, lease: &Value, length: Duration) -> bool {
        let mut held = locked(&self.held);
        let Some(holder) = annotation(lease, &self.holder) else {
            *held = None;
            return false;
        };
        let now = self.clock.now();
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
    fn show(&self, lease: &mut Value, owner: &str, length: Duration) {
        let now = jiff::Timestamp::try_from(self.clock.wall()).unwrap_or_default();
        lease["spec"] = json!({
            "holderIdentity": owner,
            "leaseDurationSeconds": length.as_secs().clamp(1, 3600),
            "renewTime": now.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string(),
        });
    }

    /// What `content` holds. What is wrong with it is said once.
    fn judge(&self, content: &str) -> Option<Record> {
        // what is no base64 is no record
        let bytes = STANDARD.decode(content).unwrap_or_default();
        let opened = record::open(&self.key, &bytes, self.clock.wall());
        if let Some(flaw) = opened.flaw
            && locked(&self.reported)
                .replace(content.to_owned())
                .as_deref()
                != Some(content)
        {
            warn!(
                client = %self.client, key = %self.data,
                "what is stored cannot be used as it is: {flaw}"
            );
        }
        opened.record
    }

    async fn publish(&self, owner: &str, record: &Record) -> Result<(), StoreError> {
        for _ in 0..TRIES {
            let mut secret = self.api.get(Kind::Secret).await?;
            // in this order: whoever took the right later finds what was read here replaced
            let lease = self.api.get(Kind::Lease).await?;
            if !self.is_of(&lease, owner) {
                let problem = "the right to ask ran out and is another's by now";
                return Err(StoreError::Overtaken(problem.to_owned()));
            }
            let before = self.content(&secret).unwrap_or_default();
            let before = STANDARD.decode(before).unwrap_or_default();
            let now = self.clock.wall();
            let kept = record::open(&self.key, &before, now).record;
            let kept = kept.map_or(0, |kept| kept.generation);
            if kept > record.generation {
                return Err(StoreError::Overtaken(format!(
                    "{} has token {kept} already, which is newer than token {}",
                    self.data, record.generation
                )));
            }
            let bytes = record::seal_beside(&self.key, record, &before, now)?;
            let content = STANDARD.encode(bytes);
            members_of(&mut secret, "data").insert(self.data.clone(), json!(content));
            if let Replaced::Done = self.api.replace(Kind::Secret, &secret).await? {
                self.saw(Seen::Content(Some(content)));
                return Ok(());
            }
            breathe().await;
        }
        Err(StoreError::Away(format!(
            "something else writes to the Secret with {} all the time; find it and give it another place",
            self.data
        )))
    }

    fn is_of(&self, lease: &Value, owner: &str) -> bool {
        let holder = annotation(lease, &self.holder).and_then(|holder| holder.split_once(' '));
        holder.is_some_and(|(name, _)| name == owner)
    }

    async fn give_up(&self, owner: &str) -> Result<(), StoreError> {
        for _ in 0..TRIES {
            let mut lease = self.api.get(Kind::Lease).await?;
            if !self.is_of(&lease, owner) {
                return Ok(());
            }
            annotate(&mut lease, &self.holder, None);
            if let Some(spec) = lease.get_mut("spec")
                && spec["holderIdentity"] == owner
            {
                *spec = json!({});
            }
            if let Replaced::Done = self.api.replace(Kind::Lease, &lease).await? {
                return Ok(());
            }
            breathe().await;
        }
        Ok(())
    }
}

/// The right to ask. It is given up when this is dropped; if that fails, it ends by itself.
#[derive(Debug)]
struct KubernetesLease {
    inner: Arc<Inner>,
    owner: String,
}

#[async_trait]
impl Lease for KubernetesLease {
    async fn publish(&mut self, record: &Record) -> Result<(), StoreError> {
        self.inner.publish(&self.owner, record).await
    }
}

impl Drop for KubernetesLease {
    fn drop(&mut self) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        let inner = Arc::clone(&self.inner);
        let owner = std::mem::take(&mut self.owner);
        runtime.spawn(async move { inner.give_up(&owner).await });
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

/// A name that nobody else has.
fn random_name() -> Result<String, StoreError> {
    let mut bytes = [0; 16];
    SystemRandom::new().fill(&mut bytes).map_err(|_| {
        StoreError::Away("the system gives no random numbers to tell processes apart by".to_owned())
    })?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
