//! What can be opened, what cannot, and what is kept.

use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use proptest::prelude::*;

use super::*;
use crate::client_id::ClientId;

const INSTANCE: &str = "https://acme.example";
const CLIENT: &str = "urn:sys:env:2eeadf60-1a11-5170-7e57-000000000000:i:1cnxtsn";
const SECRET: &str = "s3cr+t/=%&x y~!*";
const TOKEN: &str = "an.access-token";
const NOW: u64 = 1_800_000_000_000;

fn key(instance: &str, id: &str, secret: &str) -> Key {
    let id = ClientId::parse(id).unwrap();
    Key::new(instance, &id, &Secret::from(secret.to_owned()))
}

fn ours() -> Key {
    key(INSTANCE, CLIENT, SECRET)
}

fn now() -> SystemTime {
    time(NOW)
}

fn sample() -> Record {
    Record {
        generation: 7,
        token: Some(StoredToken {
            generation: 7,
            access_token: Secret::from(TOKEN.to_owned()),
            asked: now(),
            lifetime: Duration::from_secs(299),
        }),
        pool: StoredPool {
            full_at: time(NOW + 120_000),
            not_before: time(NOW + 60_000),
        },
    }
}

fn without_token() -> Record {
    Record {
        token: None,
        ..sample()
    }
}

type Parts = (u64, StoredPool, Option<(String, SystemTime, Duration)>);

/// A record in a comparable form.
fn parts(record: &Record) -> Parts {
    let token = record.token.as_ref().map(|token| {
        let text = token.access_token.expose().to_owned();
        (text, token.asked, token.lifetime)
    });
    (record.generation, record.pool, token)
}

/// The record in `bytes`, in a comparable form, and the flaw.
fn opened(key: &Key, bytes: &[u8]) -> (Option<Parts>, Option<Flaw>) {
    let opened = open(key, bytes, now());
    (opened.record.as_ref().map(parts), opened.flaw)
}

/// A document with a valid check, whatever its content.
fn document(generation: u64, full_at: u64, not_before: u64, token: Option<Sealed>) -> Vec<u8> {
    let pool = Pool {
        full_at,
        not_before,
    };
    serde_json::to_vec(&Document {
        version: VERSION,
        generation,
        check: check(&ours(), generation, &pool),
        pool,
        token,
        others: Vec::new(),
    })
    .unwrap()
}

#[test]
fn what_is_sealed_opens() {
    for record in [sample(), without_token()] {
        let bytes = seal(&ours(), &record).unwrap();
        assert_eq!(opened(&ours(), &bytes), (Some(parts(&record)), None));
    }
}

/// The document of this version, built independently from its description. It detects a change of
/// the format that forgot to increase the version.
#[test]
fn a_document_made_elsewhere_opens() {
    let bytes = br#"{
        "version": 1,
        "generation": 7,
        "pool": {"full_at": 1800000120000, "not_before": 1800000060000},
        "check": "rWdChDUiIFiVO7aJ9G5x28GRCmXtWJ+TQOf0hMpESug=",
        "token": {
            "asked": 1800000000000,
            "lifetime": 299000,
            "nonce": "AAECAwQFBgcICQoL",
            "sealed": "6QYwMlJospAfIz/cfq+bZNYkc0bW81KfvzRq3LKT3A=="
        }
    }"#;
    assert_eq!(opened(&ours(), bytes), (Some(parts(&sample())), None));
}

#[test]
fn two_seals_of_one_record_differ() {
    let seal = || seal(&ours(), &sample()).unwrap();
    assert_ne!(seal(), seal());
}

#[test]
fn a_changed_byte_never_gives_another_token_pool_or_generation() {
    let key = ours();
    let bytes = seal(&key, &sample()).unwrap();
    let (whole, bare) = (parts(&sample()), parts(&without_token()));
    let mut without = 0;
    for at in 0..bytes.len() {
        for change in (0..8).map(|bit| 1 << bit).chain([0xff]) {
            let mut changed = bytes.clone();
            changed[at] ^= change;
            let (record, flaw) = opened(&key, &changed);
            if let Some(record) = record {
                assert!(record == whole || record == bare, "byte {at} ^ {change}");
                assert_eq!(record == bare, flaw == Some(Flaw::Token));
                without += usize::from(record == bare);
            } else {
                assert!(flaw.is_some());
            }
        }
    }
    // the nonce and the sealed text have some 60 characters
    assert!(without > 200, "{without}");
}

#[test]
fn a_truncated_document_is_none() {
    let bytes = seal(&ours(), &sample()).unwrap();
    for length in 0..bytes.len() {
        let truncated = opened(&ours(), &bytes[..length]);
        assert_eq!(truncated, (None, Some(Flaw::Damaged)), "{length}");
    }
    let mut longer = bytes.clone();
    longer.push(b'}');
    assert_eq!(opened(&ours(), &longer), (None, Some(Flaw::Damaged)));
}

#[test]
fn another_secret_keeps_generation_and_pool() {
    let bytes = seal(&ours(), &sample()).unwrap();
    let rotated = key(INSTANCE, CLIENT, "rotated");
    let expected = (Some(parts(&without_token())), Some(Flaw::Token));
    assert_eq!(opened(&rotated, &bytes), expected);
}

#[test]
fn another_clients_document_is_none() {
    let bytes = seal(&ours(), &sample()).unwrap();
    for other in [
        key("https://dev.example", CLIENT, SECRET),
        key("http://acme.example", CLIENT, SECRET),
        key(INSTANCE, "other", SECRET),
    ] {
        assert_eq!(opened(&other, &bytes), (None, Some(Flaw::Client)));
    }
}

#[test]
fn a_token_is_not_carried_over_to_another_clear_part() {
    let sealed = |generation| Sealed {
        generation: None,
        ..seal_token(
            &ours(),
            &StoredToken {
                generation,
                ..sample().token.unwrap()
            },
        )
        .unwrap()
    };
    let (record, flaw) = opened(&ours(), &document(8, NOW, NOW, Some(sealed(7))));
    assert_eq!((record.unwrap().2, flaw), (None, Some(Flaw::Token)));

    let longer = Sealed {
        lifetime: 300_000,
        ..sealed(8)
    };
    let (record, flaw) = opened(&ours(), &document(8, NOW, NOW, Some(longer)));
    assert_eq!((record.unwrap().2, flaw), (None, Some(Flaw::Token)));
}

#[test]
fn another_version_is_none() {
    for text in [
        r#"{"version": 2}"#,
        r#"{"version": 0, "pool": 3}"#,
        r#"{"version": 18446744073709551615, "new": []}"#,
    ] {
        let found = opened(&ours(), text.as_bytes());
        assert_eq!(found, (None, Some(Flaw::Version)), "{text}");
    }
}

#[test]
fn a_time_far_ahead_is_not_believed() {
    for (full_at, not_before) in [
        (u64::MAX, NOW + 60_000),
        (NOW + DAY + 1, NOW + 60_000),
        (NOW + 60_000, u64::MAX),
    ] {
        let (record, flaw) = opened(&ours(), &document(7, full_at, not_before, None));
        let pool = record.unwrap().1;
        assert!(pool.full_at <= time(NOW + 60_000), "{full_at}");
        assert!(pool.not_before <= time(NOW + 60_000), "{not_before}");
        assert_eq!(flaw, Some(Flaw::Absurd));
    }
    let (_, flaw) = opened(&ours(), &document(7, NOW + DAY, 0, None));
    assert_eq!(flaw, None);
}

#[test]
fn a_generation_that_leaves_no_room_is_none() {
    let found = opened(&ours(), &document(u64::MAX, NOW, NOW, None));
    assert_eq!(found, (None, Some(Flaw::Absurd)));
    let (record, flaw) = opened(&ours(), &document(MOST_GENERATIONS, NOW, NOW, None));
    assert_eq!(
        (record.unwrap().0, flaw),
        (MOST_GENERATIONS, None),
        "and one may follow"
    );
}

#[test]
fn a_token_with_an_absurd_life_is_not_believed() {
    let token = sample().token.unwrap();
    let absurd = |asked, lifetime| {
        let token = StoredToken {
            asked: time(asked),
            lifetime,
            ..token.clone()
        };
        let sealed = seal_token(&ours(), &token).unwrap();
        let (record, flaw) = opened(&ours(), &document(7, NOW, NOW, Some(sealed)));
        assert_eq!(record.unwrap().2, None);
        flaw
    };
    assert_eq!(absurd(NOW, Duration::ZERO), Some(Flaw::Absurd));
    let far = absurd(NOW + DAY + 1, Duration::from_secs(299));
    assert_eq!(far, Some(Flaw::Absurd));

    let long = StoredToken {
        lifetime: Duration::from_secs(48 * 3600),
        ..token.clone()
    };
    let sealed = seal_token(&ours(), &long).unwrap();
    assert_eq!(sealed.lifetime, DAY, "a longer life is written as a day");
}

#[test]
fn times_are_rounded_to_the_safe_side() {
    let odd = Duration::from_micros(1_500);
    let record = Record {
        generation: 7,
        token: Some(StoredToken {
            asked: now() + odd,
            lifetime: odd,
            ..sample().token.unwrap()
        }),
        pool: StoredPool {
            full_at: now() + odd,
            not_before: SystemTime::UNIX_EPOCH - odd,
        },
    };
    let bytes = seal(&ours(), &record).unwrap();
    let (found, flaw) = opened(&ours(), &bytes);
    let (_, pool, token) = found.unwrap();
    assert_eq!(flaw, None);
    assert_eq!(pool.full_at, time(NOW + 2));
    assert_eq!(pool.not_before, SystemTime::UNIX_EPOCH);
    let token = token.unwrap();
    assert_eq!(
        (token.1, token.2),
        (time(NOW + 1), Duration::from_millis(1))
    );
}

#[test]
fn the_largest_token_fits_and_a_larger_document_is_not_read() {
    let mut record = sample();
    if let Some(token) = &mut record.token {
        token.access_token = Secret::from("t".repeat(64 * 1024));
    }
    let bytes = seal(&ours(), &record).unwrap();
    assert!(bytes.len() < LARGEST);
    assert!(opened(&ours(), &bytes).0.unwrap().2.is_some());

    let mut padded = seal(&ours(), &sample()).unwrap();
    padded.resize(LARGEST, b' ');
    assert_eq!(opened(&ours(), &padded).1, None);
    padded.push(b' ');
    assert_eq!(opened(&ours(), &padded), (None, Some(Flaw::Damaged)));
}

#[test]
fn neither_token_nor_secret_can_be_seen_in_it() {
    let token = "k4n4ri-token-8c1f";
    let secret = "k4n4ri-secret-9d2e";
    let key = key(INSTANCE, CLIENT, secret);
    let mut record = sample();
    if let Some(kept) = &mut record.token {
        kept.access_token = Secret::from(token.to_owned());
    }
    let bytes = seal(&key, &record).unwrap();
    let text = String::from_utf8(bytes.clone()).unwrap();
    for canary in [token, secret] {
        for encoded in encodings(canary) {
            assert!(!text.contains(&encoded), "{encoded}");
        }
    }
    let opened = open(&key, &bytes, now());
    let shown = format!("{opened:?} {key:?}");
    assert!(!shown.contains("k4n4ri"), "{shown}");
}

/// `text` in the forms that could leak: plain, reversed, hexadecimal, and base64 at any alignment.
fn encodings(text: &str) -> Vec<String> {
    let hex: String = text.bytes().map(|b| format!("{b:02x}")).collect();
    let mut all = vec![
        text.to_owned(),
        text.chars().rev().collect(),
        hex.to_uppercase(),
        hex,
    ];
    for skipped in 0..3 {
        // whole groups of three bytes only: the rest depends on what follows
        let whole = (text.len() - skipped) / 3 * 3;
        let part = &text[skipped..skipped + whole];
        all.push(STANDARD_NO_PAD.encode(part));
        all.push(URL_SAFE_NO_PAD.encode(part));
    }
    all
}

proptest! {
    #[test]
    fn any_bytes_are_judged(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let opened = open(&ours(), &bytes, now());
        prop_assert!(opened.record.is_none() && opened.flaw.is_some());
    }

    #[test]
    fn any_splice_is_judged(at in 0..600_usize, cut in 0..40_usize, put in "[\\PC\"{}:,0-9]{0,12}") {
        let bytes = seal(&ours(), &sample()).unwrap();
        let at = at.min(bytes.len());
        let end = (at + cut).min(bytes.len());
        let spliced = [&bytes[..at], put.as_bytes(), &bytes[end..]].concat();
        if let Some(record) = opened(&ours(), &spliced).0 {
            prop_assert!(record == parts(&sample()) || record == parts(&without_token()));
        }
    }

    #[test]
    fn any_clear_part_is_judged(
        generation in any::<u64>(), full_at in any::<u64>(), not_before in any::<u64>(), wall in any::<u64>(),
        sealed in prop::option::of((any::<u64>(), any::<u64>(), "[A-Za-z0-9+/]{16}", "[A-Za-z0-9+/]{0,64}")),
    ) {
        let sealed = sealed.map(|(asked, lifetime, nonce, sealed)| Sealed { generation: None, asked, lifetime, nonce, sealed });
        let wall = time(wall);
        let opened = open(&ours(), &document(generation, full_at, not_before, sealed), wall);
        if let Some(record) = opened.record {
            prop_assert!(record.token.is_none());
            let horizon = wall + Duration::from_millis(DAY);
            prop_assert!(record.pool.full_at <= horizon && record.pool.not_before <= horizon);
            prop_assert!(record.generation < u64::MAX / 2);
        }
    }

    #[test]
    fn what_is_sealed_opens_whatever_it_is(
        generation in 0..=MOST_GENERATIONS, token in "[!-~]{1,200}", asked in 0..=NOW, lifetime in 1..=DAY, full_at in 0..=NOW + DAY,
    ) {
        let record = Record {
            generation,
            token: Some(StoredToken {
                generation,
                access_token: Secret::from(token),
                asked: time(asked),
                lifetime: Duration::from_millis(lifetime),
            }),
            pool: StoredPool { full_at: time(full_at), not_before: now() },
        };
        let bytes = seal(&ours(), &record).unwrap();
        prop_assert_eq!(opened(&ours(), &bytes), (Some(parts(&record)), None));
    }
}

/// Proxies with the old secret, the new one, and a wrong one take turns.
#[test]
fn whoever_cannot_open_a_token_keeps_it_beside_their_own() {
    let holders = ["old", "new", "wrong"].map(|secret| key(INSTANCE, CLIENT, secret));
    let record = |generation: u64, text: &str| Record {
        generation,
        token: Some(StoredToken {
            generation,
            access_token: Secret::from(text.to_owned()),
            asked: time(NOW - 10_000 + generation),
            lifetime: Duration::from_secs(299),
        }),
        ..sample()
    };
    let token = |key: &Key, bytes: &[u8]| {
        let opened = open(key, bytes, now());
        let (record, flaw) = (opened.record.unwrap(), opened.flaw);
        let token = record.token.map(|t| t.access_token.expose().to_owned());
        (record.generation, token, flaw)
    };
    let [old, new, wrong] = &holders;
    let write = |key: &Key, record: &Record, before: &[u8]| {
        seal_beside(key, record, before, now()).unwrap()
    };
    let first = write(old, &record(7, "old 7"), b"");
    let second = write(new, &record(8, "new 8"), &first);
    assert_eq!(token(old, &second), (8, Some("old 7".to_owned()), None));
    assert_eq!(token(new, &second), (8, Some("new 8".to_owned()), None));
    assert_eq!(token(wrong, &second), (8, None, Some(Flaw::Token)));

    let olds = open(old, &second, now()).record.unwrap().token.unwrap();
    assert_eq!(olds.generation, 7, "it does not pass for a newer one");

    // a writer without a token of its own keeps everyone's
    let none = Record {
        generation: 8,
        ..without_token()
    };
    let third = write(wrong, &none, &second);
    assert_eq!(token(old, &third).1.unwrap(), "old 7");
    assert_eq!(token(new, &third).1.unwrap(), "new 8");

    // a writer's own token is replaced, not kept beside
    let fourth = write(old, &record(9, "old 9"), &third);
    assert_eq!(token(old, &fourth).1.unwrap(), "old 9");
    assert_eq!(token(new, &fourth), (9, Some("new 8".to_owned()), None));
    let text = String::from_utf8(fourth.clone()).unwrap();
    assert_eq!(text.matches("\"sealed\"").count(), 2, "{text}");

    // expired tokens are dropped, and all others but the two newest
    let later = now() + Duration::from_secs(300);
    let fifth = seal_beside(wrong, &record(10, "wrong 10"), &fourth, later).unwrap();
    assert_eq!(
        String::from_utf8_lossy(&fifth)
            .matches("\"sealed\"")
            .count(),
        1
    );
    let mut many = fourth;
    for secret in 0..5 {
        let key = key(INSTANCE, CLIENT, &secret.to_string());
        many = write(&key, &record(20 + secret, "t"), &many);
    }
    assert_eq!(
        String::from_utf8_lossy(&many).matches("\"sealed\"").count(),
        3
    );
}

#[test]
fn what_does_not_fit_beside_ones_own_is_left_out() {
    let large = |generation, secret: &str| {
        let text = "t".repeat(60 * 1024);
        let mut record = sample();
        record.generation = generation;
        let token = record.token.as_mut().unwrap();
        (token.generation, token.access_token) = (generation, Secret::from(text));
        (key(INSTANCE, CLIENT, secret), record)
    };
    let (old, first) = large(1, "old");
    let (new, second) = large(2, "new");
    let before = seal_beside(&old, &first, b"", now()).unwrap();
    let bytes = seal_beside(&new, &second, &before, now()).unwrap();
    assert!(bytes.len() <= LARGEST);
    assert!(open(&new, &bytes, now()).record.unwrap().token.is_some());
    assert!(open(&old, &bytes, now()).record.unwrap().token.is_none());
}

proptest! {
    #[test]
    fn any_bytes_may_have_been_there_before(before in prop::collection::vec(any::<u8>(), 0..300)) {
        let bytes = seal_beside(&ours(), &sample(), &before, now()).unwrap();
        prop_assert_eq!(opened(&ours(), &bytes), (Some(parts(&sample())), None));
    }
}
