//! Local tokens that were ended before they expire, by a logout. They are kept in this process only,
//! until they expire.
//!
//! To look one up takes no lock. What is kept is bounded: beyond that, the token that expires next
//! makes room.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;

use super::UnverifiedToken;

/// Over how many maps the tokens are spread: to add one copies one map.
const SHARDS: usize = 64;

/// How many tokens a map holds at most.
const MOST: usize = 512;

/// The first characters of a token's signature, which nobody can choose.
type Mark = [u8; 16];

/// The tokens, each with the time at which it expires anyway.
#[derive(Debug)]
pub struct Revoked([ArcSwap<HashMap<Mark, SystemTime>>; SHARDS]);

impl Default for Revoked {
    fn default() -> Revoked {
        Revoked(std::array::from_fn(|_| ArcSwap::default()))
    }
}

impl Revoked {
    /// Ends `token`, which holds at `now`.
    pub fn revoke(&self, token: &UnverifiedToken<'_>, now: SystemTime) {
        let Some(mark) = mark(token) else { return };
        self.shard(mark).rcu(|kept| {
            let alive = kept.iter().filter(|(_, expires)| **expires > now);
            let mut kept: HashMap<Mark, SystemTime> = alive.map(|(m, at)| (*m, *at)).collect();
            while kept.len() >= MOST {
                let next = kept.iter().min_by_key(|(_, expires)| **expires);
                let Some(next) = next.map(|(mark, _)| *mark) else {
                    break;
                };
                kept.remove(&next);
            }
            kept.insert(mark, token.expires);
            Arc::new(kept)
        });
    }

    /// Whether `token` was ended.
    #[must_use]
    pub fn contains(&self, token: &UnverifiedToken<'_>) -> bool {
        mark(token).is_some_and(|mark| self.shard(mark).load().contains_key(&mark))
    }

    fn shard(&self, mark: Mark) -> &ArcSwap<HashMap<Mark, SystemTime>> {
        // two characters, for one of base64 has 6 bits in which cases cluster
        let nth = usize::from(mark[0]).wrapping_mul(31) + usize::from(mark[1]);
        &self.0[nth % SHARDS]
    }
}

fn mark(token: &UnverifiedToken<'_>) -> Option<Mark> {
    token.mac.as_bytes().first_chunk().copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local_token::{Key, Subject};
    use crate::secret::Secret;
    use std::time::Duration;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn token(nonce: u64, expires: u64) -> Secret {
        let key = Key::of(&Secret::from("k".to_owned()));
        key.sign(Subject::App("lineage"), at(expires), nonce)
    }

    #[test]
    fn a_revoked_token_is_known_and_no_other() {
        let revoked = Revoked::default();
        let (one, other) = (token(1, 1_000), token(2, 1_000));
        let (one, other) = (
            UnverifiedToken::parse(one.expose()).unwrap(),
            UnverifiedToken::parse(other.expose()).unwrap(),
        );
        assert!(!revoked.contains(&one));
        revoked.revoke(&one, at(0));
        assert!(revoked.contains(&one));
        assert!(!revoked.contains(&other), "same app, same second");
    }

    #[test]
    fn what_is_kept_is_bounded_and_the_next_to_expire_makes_room() {
        let revoked = Revoked::default();
        let many = (SHARDS * MOST) as u64;
        let last = token(2 * many, 9_999);
        for nonce in 0..2 * many {
            let token = token(nonce, 1_000);
            revoked.revoke(&UnverifiedToken::parse(token.expose()).unwrap(), at(0));
        }
        let last = UnverifiedToken::parse(last.expose()).unwrap();
        revoked.revoke(&last, at(0));
        let kept = || {
            let maps = revoked.0.iter().map(|map| map.load().len());
            maps.sum::<usize>()
        };
        assert!(
            kept() <= SHARDS * MOST && kept() > SHARDS * MOST / 2,
            "{}",
            kept()
        );
        for nonce in 0..8 {
            let token = token(10 * many + nonce, 9_999);
            revoked.revoke(&UnverifiedToken::parse(token.expose()).unwrap(), at(0));
        }
        assert!(revoked.contains(&last));
        // what has expired is forgotten
        for nonce in 0..many {
            let token = token(3 * many + nonce, 3_000);
            revoked.revoke(&UnverifiedToken::parse(token.expose()).unwrap(), at(2_000));
        }
        let expired = token(0, 1_000);
        assert!(!revoked.contains(&UnverifiedToken::parse(expired.expose()).unwrap()));
    }
}
