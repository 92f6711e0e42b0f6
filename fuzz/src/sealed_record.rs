//! Fuzz target: a stored record, which anyone with access to the store may have written.
//!
//! The clear part of a record has a digest. Anyone can compute it, but no fuzzer will find it by
//! chance. So each input that resembles a record is also opened with its correct digest.

use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use collibra_auth_proxy::store::key::Key;
use collibra_auth_proxy::store::record::{self, Flaw, Opened};
use collibra_auth_proxy::token::ports::{Record, StoredPool};
use serde_json::{Value, json};

const INSTANCE: &str = "https://acme.example";

/// Generation, token, request time and lifetime of the valid records in the corpus. Nothing else
/// was ever sealed with [`KEY`].
const SEALED: (u64, &str, u64, Duration) = (
    7,
    "an.access-token",
    1_800_000_000_000,
    Duration::from_secs(299),
);

/// The highest generation that leaves room to count up.
const MOST_GENERATIONS: u64 = 1 << 53;

static KEY: LazyLock<Key> = LazyLock::new(|| {
    Key::new(
        INSTANCE,
        &super::client_id(),
        &super::secret("s3cr+t/=%&x y~!*"),
    )
});

static ROTATED: LazyLock<Key> =
    LazyLock::new(|| Key::new(INSTANCE, &super::client_id(), &super::secret("another")));

static FOREIGN: LazyLock<Key> = LazyLock::new(|| {
    Key::new(
        "https://dev.example",
        &super::client_id(),
        &super::secret("s3cr+t/=%&x y~!*"),
    )
});

/// Opens `input`.
///
/// # Panics
/// If it returns a token that was not sealed, an impossible record, or nothing and no flaw.
pub fn check(input: &[u8]) {
    check_as_it_stands(input);
    if let Some(mended) = mended(input) {
        check_as_it_stands(&mended);
        let opened = record::open(&KEY, &mended, super::now());
        assert_ne!(opened.flaw, Some(Flaw::Client), "the digest was mended");
    }
}

fn check_as_it_stands(bytes: &[u8]) {
    let ours = record::open(&KEY, bytes, super::now());
    judge(&ours);
    if let Some(record) = &ours.record {
        assert_sealed_again(record);
    }

    let rotated = record::open(&ROTATED, bytes, super::now());
    judge(&rotated);
    let token = rotated.record.as_ref().and_then(|it| it.token.as_ref());
    assert!(token.is_none(), "a token opens with another secret");
    assert_eq!(
        rotated.record.map(|it| (it.generation, it.pool)),
        ours.record.as_ref().map(|it| (it.generation, it.pool)),
        "generation and pool depend on the secret"
    );

    let foreign = record::open(&FOREIGN, bytes, super::now());
    judge(&foreign);
    assert!(
        foreign.record.is_none() || ours.record.is_none(),
        "a record is two clients'"
    );
}

fn judge(opened: &Opened) {
    let Some(record) = &opened.record else {
        assert!(opened.flaw.is_some(), "neither a record nor a flaw");
        return;
    };
    assert!(record.generation <= MOST_GENERATIONS);
    let horizon = super::now() + super::DAY;
    assert!(record.pool.full_at <= horizon, "{record:?}");
    assert!(record.pool.not_before <= horizon, "{record:?}");
    if let Some(token) = &record.token {
        assert!(!token.lifetime.is_zero() && token.lifetime <= super::DAY);
        assert!(token.asked <= horizon);
        let (generation, text, asked, lifetime) = SEALED;
        assert_eq!(token.access_token.expose(), text, "nobody sealed this");
        assert_eq!(
            (token.generation, token.asked, token.lifetime),
            (generation, at(asked), lifetime),
            "the seal came from another record"
        );
        assert!(
            generation <= record.generation,
            "a token that is yet to come"
        );
    }
    assert!(!format!("{opened:?}").contains(SEALED.1), "{opened:?}");
}

/// Asserts that a sealed record opens unchanged.
fn assert_sealed_again(record: &Record) {
    let bytes = record::seal(&KEY, record).expect("there is randomness");
    assert!(bytes.len() <= record::LARGEST);
    let again = record::open(&KEY, &bytes, super::now());
    assert_eq!(again.flaw, None);
    let again = again.record.expect("it was just sealed");
    assert_eq!(
        (again.generation, again.pool),
        (record.generation, record.pool)
    );
    let tokens = [record, &again].map(|record| {
        let token = record.token.as_ref()?;
        Some((&token.access_token, token.asked, token.lifetime))
    });
    assert_eq!(tokens[0], tokens[1]);
}

/// Returns `input` with the digest of its own clear part, if it has one.
fn mended(input: &[u8]) -> Option<Vec<u8>> {
    let mut document: Value = serde_json::from_slice(input).ok()?;
    let number = |path| document.pointer(path).and_then(Value::as_u64);
    let clear = Record {
        generation: number("/generation")?,
        token: None,
        pool: StoredPool {
            full_at: at(number("/pool/full_at")?),
            not_before: at(number("/pool/not_before")?),
        },
    };
    let sealed = record::seal(&KEY, &clear).expect("it is written to memory");
    let sealed: Value = serde_json::from_slice(&sealed).expect("it was just written");
    document["version"] = json!(record::VERSION);
    document["check"] = sealed["check"].clone();
    serde_json::to_vec(&document).ok()
}

fn at(milliseconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(milliseconds)
}
