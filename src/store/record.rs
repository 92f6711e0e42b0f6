//! A client's stored record: a JSON document with a clear part (generation and pool) and a sealed
//! part (the token).
//!
//! The token is sealed with ChaCha20-Poly1305, under a key that HKDF-SHA-256 derives from the
//! client's secret. Only the processes that share the client know that secret. The seal is bound to
//! the instance, the client id, the generation and the token's lifetime.
//!
//! The clear part does not depend on the secret: the pool belongs to the client id and outlives a
//! rotation. A digest ties it to instance and id and detects damage. The digest does not stop an
//! attacker who can write to the store; [`open`] limits what such a record can do.
//!
//! During a rotation some processes have the new secret and some the old one, and neither can open
//! the other's token. **The rule:** nobody discards a token that they cannot open. A writer keeps
//! up to two tokens that other secrets sealed, the newest ones, until they expire by their own
//! metadata ([`seal_beside`]). A reader takes the first that opens. Each token keeps the generation
//! it was sealed with. So both sides continue with their own token, number generations together,
//! and share one pool. A process with a wrong secret destroys nothing.
//!
//! Guarantees: [`open`] never panics. It returns only tokens that were sealed for this client with
//! this secret. It ignores times more than a day ahead.

use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::aead::{Aad, NONCE_LEN, Nonce};
use ring::digest;
use ring::rand::{SecureRandom, SystemRandom};
use secrecy::zeroize::Zeroizing;
use serde::{Deserialize, Serialize};

use super::key::Key;
use crate::clock::millis;
use crate::secret::Secret;
use crate::token::ports::{Record, StoreError, StoredPool, StoredToken};

/// The document's version; no other is read.
pub const VERSION: u32 = 1;

/// The largest document in bytes: a token of at most 64 KiB, one third more in base64, and the
/// rest.
pub const LARGEST: usize = 128 * 1024;

/// The longest lifetime of a token, and the furthest a time may be ahead, in milliseconds.
const DAY: u64 = 24 * 60 * 60 * 1000;

/// How many tokens of other secrets are kept: one for a rotation in progress, and one for a process
/// with a wrong secret.
const MOST_OTHERS: usize = 2;

/// The highest plausible generation. A forged one above it would leave no room to count up.
const MOST_GENERATIONS: u64 = 1 << 53;

/// The result of opening a document.
#[derive(Clone, Debug)]
pub struct Opened {
    /// The record for this client, as far as it could be read and validated.
    pub record: Option<Record>,
    /// What is wrong with the document, if anything.
    pub flaw: Option<Flaw>,
}

/// A flaw in a document; the message says what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// The document is not one of this program.
    #[error(
        "it is damaged, or something else wrote it; it will be replaced, and if this comes back, see what else writes there"
    )]
    Damaged,
    /// The document has another version.
    #[error(
        "another version of this program wrote it; run the same version everywhere, and it will be replaced"
    )]
    Version,
    /// The clear part is not this client's, or was changed.
    #[error(
        "it was written for another instance or client id, or it is damaged; it will be replaced, and if this comes back, store each client in its own place"
    )]
    Client,
    /// The token cannot be opened.
    #[error(
        "its token was sealed with another client secret, or it is damaged; this is normal after a rotation of the secret; otherwise see that all proxies that share the client have the same secret"
    )]
    Token,
    /// A number is implausible.
    #[error(
        "it has an implausible generation or lifetime, or a time more than a day ahead, which is ignored; see that the clocks of all proxies that share the client are right, and what else writes there"
    )]
    Absurd,
}

/// Seals `record` as a document. Times are in milliseconds, rounded so that a token lives no longer
/// and a pool holds no more.
///
/// # Errors
/// [`StoreError`] if the system has no random numbers.
pub fn seal(key: &Key, record: &Record) -> Result<Vec<u8>, StoreError> {
    seal_beside(key, record, b"", SystemTime::UNIX_EPOCH)
}

/// As [`seal`], and keeps tokens of `before` that other secrets sealed and that are valid at `now`,
/// as far as they fit.
///
/// # Errors
/// As [`seal`].
pub fn seal_beside(
    key: &Key,
    record: &Record,
    before: &[u8],
    now: SystemTime,
) -> Result<Vec<u8>, StoreError> {
    let mut token = None;
    let mut others = Vec::new();
    if let Some(kept) = &record.token {
        let sealed = seal_token(key, kept)?;
        if kept.generation == record.generation {
            token = Some(Sealed {
                generation: None,
                ..sealed
            });
        } else {
            others.push(sealed);
        }
    }
    let own = others.len();
    others.extend(self::others(key, before, milliseconds(now)));
    let pool = Pool {
        full_at: milliseconds_up(record.pool.full_at),
        not_before: milliseconds_up(record.pool.not_before),
    };
    let mut document = Document {
        version: VERSION,
        generation: record.generation,
        check: check(key, record.generation, &pool),
        pool,
        token,
        others,
    };
    loop {
        let bytes = serde_json::to_vec(&document)
            .map_err(|e| StoreError::Unavailable(format!("the record cannot be encoded: {e}")))?;
        if bytes.len() <= LARGEST || document.others.len() == own {
            return Ok(bytes);
        }
        document.others.pop();
    }
}

/// Opens `bytes` for the client of `key`, at `now`.
#[must_use]
pub fn open(key: &Key, bytes: &[u8], now: SystemTime) -> Opened {
    let document = match read(key, bytes) {
        Ok(document) => document,
        Err(flaw) => {
            return Opened {
                record: None,
                flaw: Some(flaw),
            };
        }
    };
    let horizon = milliseconds(now).saturating_add(DAY);
    let mut flaw = None;
    // clamping instead would keep a time ahead for ever, because it is read again and again
    let mut believed = |at: u64| {
        if at > horizon {
            flaw = Some(Flaw::Absurd);
            return now;
        }
        time(at)
    };
    let pool = StoredPool {
        full_at: believed(document.pool.full_at),
        not_before: believed(document.pool.not_before),
    };
    let generation = document.generation;
    let mut token = None;
    let mut closed = None;
    for (own, sealed) in document.tokens().take(MOST_OTHERS + 2) {
        match open_token(key, own, &sealed, horizon) {
            Ok(opened) if opened.generation <= generation => {
                token = Some(opened);
                break;
            }
            Ok(_) => closed = Some(Flaw::Absurd),
            Err(why) => closed = closed.or(Some(why)),
        }
    }
    if token.is_none() {
        flaw = closed.or(flaw);
    }
    Opened {
        record: Some(Record {
            generation,
            token,
            pool,
        }),
        flaw,
    }
}

/// The document. An unknown field is damage: additions come with a new version.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    version: u32,
    generation: u64,
    pool: Pool,
    check: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<Sealed>,
    /// Tokens of other generations or secrets: the writer's own first, then the newest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    others: Vec<Sealed>,
}

impl Document {
    /// All tokens and their generations.
    fn tokens(self) -> impl Iterator<Item = (u64, Sealed)> {
        let tokens = self.token.into_iter().chain(self.others);
        tokens.map(move |sealed| (sealed.generation.unwrap_or(self.generation), sealed))
    }
}

/// The pool, in Unix milliseconds.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Pool {
    full_at: u64,
    not_before: u64,
}

/// A token, when it was requested in Unix milliseconds, and its lifetime in milliseconds.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sealed {
    /// The token's own generation; the document's if `None`.
    #[serde(skip_serializing_if = "Option::is_none")]
    generation: Option<u64>,
    asked: u64,
    lifetime: u64,
    nonce: String,
    sealed: String,
}

impl Sealed {
    /// Returns whether the token is valid at `now` by its own metadata, which cannot be verified
    /// here.
    fn lives(&self, now: u64) -> bool {
        let soon = now.saturating_add(DAY);
        self.lifetime <= DAY && self.asked <= soon && now < self.asked.saturating_add(self.lifetime)
    }
}

/// The part that every version has.
#[derive(Deserialize)]
struct Versioned {
    version: u64,
}

fn read(key: &Key, bytes: &[u8]) -> Result<Document, Flaw> {
    if bytes.len() > LARGEST {
        return Err(Flaw::Damaged);
    }
    let versioned: Versioned = serde_json::from_slice(bytes).map_err(|_| Flaw::Damaged)?;
    if versioned.version != u64::from(VERSION) {
        return Err(Flaw::Version);
    }
    let document: Document = serde_json::from_slice(bytes).map_err(|_| Flaw::Damaged)?;
    if document.check != check(key, document.generation, &document.pool) {
        return Err(Flaw::Client);
    }
    if document.generation > MOST_GENERATIONS {
        return Err(Flaw::Absurd);
    }
    Ok(document)
}

/// The valid tokens of the document `before` that `key` cannot open, newest first.
fn others(key: &Key, before: &[u8], now: u64) -> Vec<Sealed> {
    let document = read(key, before).ok();
    let mut kept: Vec<Sealed> = document
        .into_iter()
        .flat_map(Document::tokens)
        .filter(|(own, sealed)| {
            sealed.lives(now) && open_token(key, *own, sealed, u64::MAX).is_err()
        })
        .map(|(own, sealed)| Sealed {
            generation: Some(own),
            ..sealed
        })
        .collect();
    kept.sort_by_key(|other| std::cmp::Reverse(other.asked));
    kept.truncate(MOST_OTHERS);
    kept
}

/// The digest that ties the clear part to the client.
fn check(key: &Key, generation: u64, pool: &Pool) -> String {
    let statement = key.statement(
        b"collibra-auth-proxy store clear part",
        &[
            &VERSION.to_be_bytes(),
            &generation.to_be_bytes(),
            &pool.full_at.to_be_bytes(),
            &pool.not_before.to_be_bytes(),
        ],
    );
    STANDARD.encode(digest::digest(&digest::SHA256, &statement))
}

fn seal_token(key: &Key, token: &StoredToken) -> Result<Sealed, StoreError> {
    let asked = milliseconds(token.asked);
    let lifetime = millis(token.lifetime);
    let lifetime = lifetime.min(DAY);
    let mut nonce = [0; NONCE_LEN];
    let mut text = Zeroizing::new(token.access_token.expose().as_bytes().to_vec());
    let aad = Aad::from(bound(key, token.generation, asked, lifetime));
    // a random nonce is safe about 2^32 times under one key, and each stands for a token request:
    // eight thousand years at one a minute
    let tag = SystemRandom::new().fill(&mut nonce).and_then(|()| {
        let nonce = Nonce::assume_unique_for_key(nonce);
        let sealing = &key.sealing;
        sealing.seal_in_place_separate_tag(nonce, aad, &mut text)
    });
    let tag = tag.map_err(|_| {
        let problem = "the token cannot be sealed: the system has no random numbers";
        StoreError::Unavailable(problem.to_owned())
    })?;
    Ok(Sealed {
        generation: Some(token.generation),
        asked,
        lifetime,
        nonce: STANDARD.encode(nonce),
        sealed: STANDARD.encode([&text, tag.as_ref()].concat()),
    })
}

fn open_token(
    key: &Key,
    generation: u64,
    sealed: &Sealed,
    horizon: u64,
) -> Result<StoredToken, Flaw> {
    let decode = |text: &str| STANDARD.decode(text).map_err(|_| Flaw::Token);
    let nonce = decode(&sealed.nonce)?;
    let nonce = Nonce::try_assume_unique_for_key(&nonce).map_err(|_| Flaw::Token)?;
    let aad = Aad::from(bound(key, generation, sealed.asked, sealed.lifetime));
    let mut text = Zeroizing::new(decode(&sealed.sealed)?);
    let text = key
        .sealing
        .open_in_place(nonce, aad, &mut text)
        .map_err(|_| Flaw::Token)?;
    let text = str::from_utf8(text).map_err(|_| Flaw::Token)?;
    if sealed.asked > horizon || sealed.lifetime == 0 || sealed.lifetime > DAY {
        return Err(Flaw::Absurd);
    }
    Ok(StoredToken {
        generation,
        access_token: Secret::from(text.to_owned()),
        asked: time(sealed.asked),
        lifetime: Duration::from_millis(sealed.lifetime),
    })
}

/// The data that a token's seal is bound to.
fn bound(key: &Key, generation: u64, asked: u64, lifetime: u64) -> Vec<u8> {
    key.statement(
        b"collibra-auth-proxy store token",
        &[
            &VERSION.to_be_bytes(),
            &generation.to_be_bytes(),
            &asked.to_be_bytes(),
            &lifetime.to_be_bytes(),
        ],
    )
}

fn milliseconds(at: SystemTime) -> u64 {
    let since = at.duration_since(SystemTime::UNIX_EPOCH);
    millis(since.unwrap_or_default())
}

fn milliseconds_up(at: SystemTime) -> u64 {
    let down = milliseconds(at);
    down.saturating_add(u64::from(at > time(down)))
}

/// The time `at`; even u64::MAX is representable, 585 million years away.
fn time(at: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(at)
}

#[cfg(test)]
mod tests;
