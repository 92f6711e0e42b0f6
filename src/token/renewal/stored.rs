//! What the store keeps and what is in hand: which of them counts, and one as the other.

use std::sync::Arc;
use std::time::SystemTime;

use super::{Note, Renewal, Seen};
use crate::clock::Instant;
use crate::secret::Secret;
use crate::token::ports::{Record, StoredPool, StoredToken};
use crate::token::token::Token;

/// By this share of its life a token has to be younger than another to count for the younger one,
/// whatever their generations: clocks differ.
const CLEARLY: u32 = 10;

impl Renewal {
    /// Takes over the pool, the generation, and the token if it is newer than the one in hand.
    pub(super) fn take_over(&mut self, record: &Record, seen: &Seen) {
        let Seen { now, wall, .. } = *seen;
        let until = |at: SystemTime| now + at.duration_since(wall).unwrap_or_default();
        self.schedule.restore_pool(
            until(record.pool.full_at),
            until(record.pool.not_before),
            now,
        );
        let before = self.generation;
        self.generation = self.generation.max(record.generation);
        let Some(kept) = &record.token else { return };
        // a wall clock that was set back must not lengthen a token's life
        let age = wall.duration_since(kept.asked).unwrap_or_default();
        let (issued, clearly) = (now - age, kept.lifetime / CLEARLY);
        let held = self.token.as_ref().filter(|_| !self.of_another);
        let generation = match held {
            // one that counted further than the others while it was cut off from the store: here or
            // there, the younger token goes on, under a generation above both
            Some(held)
                if kept.generation < held.generation() && issued > held.issued() + clearly =>
            {
                before + 1
            }
            Some(held)
                if kept.generation > held.generation()
                    && held.issued() > issued + clearly
                    && self.offered(now).is_some() =>
            {
                self.generation += 1;
                self.token = Some(Arc::new(held.renumbered(self.generation)));
                return;
            }
            Some(held) if kept.generation <= held.generation() => return,
            Some(_) => kept.generation,
            // in the store of another client generations began anew; here they go on counting
            None if self.of_another => kept.generation.max(before + 1),
            None => kept.generation,
        };
        let token = Token::new(&kept.access_token, generation, issued, kept.lifetime);
        let Ok(token) = token else { return };
        if !token.is_usable(now) {
            return;
        }
        let token = Arc::new(token);
        self.schedule.adopted(
            token.issued(),
            kept.lifetime,
            token.usable_until(),
            seen.jitter,
        );
        self.notes.push(Note::TakenOver {
            token: Arc::clone(&token),
            left: token.usable_until().since(now),
            ahead: self.ahead(now),
        });
        self.holds(token);
        self.has_considered(seen);
    }

    /// Whether what is in hand is newer than `record`, and good.
    pub(super) fn is_newer_than(&self, record: Option<&Record>, now: Instant) -> bool {
        let kept = record.map_or(0, |record| record.generation);
        let held = self.token.as_ref().filter(|token| token.is_usable(now));
        held.is_some_and(|held| !self.of_another && held.generation() > kept)
    }

    /// What is kept: the token in hand, and the pool.
    pub(super) fn record(&self, seen: &Seen) -> Record {
        let wall_at = |at: Instant| {
            if at >= seen.now {
                seen.wall + at.since(seen.now)
            } else {
                seen.wall - seen.now.since(at)
            }
        };
        let (full_at, not_before) = self.schedule.pool().times();
        let token = self.token.as_ref().filter(|_| !self.of_another);
        Record {
            generation: self.generation,
            token: token.map(|token| StoredToken {
                generation: token.generation(),
                access_token: Secret::from(token.access_token().to_owned()),
                asked: wall_at(token.issued()),
                lifetime: token.expires().since(token.issued()),
            }),
            pool: StoredPool {
                full_at: wall_at(full_at),
                not_before: wall_at(not_before),
            },
        }
    }
}
