//! Local tokens revoked by a logout. This process keeps them in memory until they expire.
//!
//! A lookup takes no lock. The size is bounded: at the limit, the token that expires next is
//! dropped.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;

use super::UnverifiedToken;

/// The number of maps over which tokens are spread, because adding one copies its map.
const SHARDS: usize = 64;

/// The most tokens per map.
const MOST: usize = 512;

/// The first characters of a token's signature, which callers cannot choose.
type Mark = [u8; 16];

/// The revoked tokens, each with its expiry.
#[derive(Debug)]
pub struct Revoked([ArcSwap<HashMap<Mark, SystemTime>>; SHARDS]);

impl Default for Revoked {
    fn default() -> Revoked {
        Revoked(std::array::from_fn(|_| ArcSwap::default()))
    }
}

impl Revoked {
    /// Revokes `token` at `now`.
    pub fn revoke(&self, token: &UnverifiedToken<'_>, now: SystemTime) {
        let Some(mark) = mark(token) else { return };
        self.shard(mark).rcu(|kept| {
            let alive = kept.iter().filter(|(_, expires)| **expires > now);
            let mut kept: HashMap<Mark, SystemTime> = alive.map(|(m, at)| (*m, *at)).collect();
            let next = kept.iter().min_by_key(|(_, expires)| **expires);
            let next = next.map(|(mark, _)| *mark);
            if let Some(next) = next.filter(|_| kept.len() >= MOST) {
                kept.remove(&next);
            }
            kept.insert(mark, token.expires);
            Arc::new(kept)
        });
    }

    /// Returns whether `token` is revoked.
    #[must_use]
    pub fn contains(&self, token: &UnverifiedToken<'_>) -> bool {
        mark(token).is_some_and(|mark| self.shard(mark).load().contains_key(&mark))
    }

    fn shard(&self, mark: Mark) -> &ArcSwap<HashMap<Mark, SystemTime>> {
        // use two characters: one base64 character holds only 6 bits, unevenly distributed here
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
        // expired tokens are dropped
        for nonce in 0..many {
            let token = token(3 * many + nonce, 3_000);
            revoked.revoke(&UnverifiedToken::parse(token.expose()).unwrap(), at(2_000));
        }
        let expired = token(0, 1_000);
        assert!(!revoked.contains(&UnverifiedToken::parse(expired.expose()).unwrap()));
    }
}
