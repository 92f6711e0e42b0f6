//! Merges the stored record with the local state, and converts between the two.

use std::sync::Arc;
use std::time::SystemTime;

use super::{Context, Note, Renewal};
use crate::clock::Instant;
use crate::token::ports::Record;
use crate::token::token::Token;

/// By this fraction of its lifetime a token must be newer than another to win regardless of
/// generations. Clocks differ.
const CLEARLY: u32 = 10;

impl Renewal {
    /// Adopts the stored pool and generation, and the token if it is newer than the current one.
    pub(super) fn adopt(&mut self, record: &Record, context: &Context) {
        let Context { now, wall, .. } = *context;
        let until = |at: SystemTime| now + at.duration_since(wall).unwrap_or_default();
        self.schedule.restore_pool(
            until(record.pool.full_at),
            until(record.pool.not_before),
            now,
        );
        let before = self.generation;
        self.generation = self.generation.max(record.generation);
        let Some(kept) = &record.token else { return };
        // a wall clock that was set back must not extend a token's lifetime
        let age = wall.duration_since(kept.asked).unwrap_or_default();
        let (issued, clearly) = (now - age, kept.lifetime / CLEARLY);
        let held = self.token.as_ref().filter(|_| !self.is_previous_clients);
        let differs = |held: &Token| held.access_token() != kept.access_token.expose();
        let generation = match held {
            // one side counted further while it was cut off from the store: the newer token wins
            // and gets a generation above both
            Some(held)
                if kept.generation < held.generation() && issued > held.issued() + clearly =>
            {
                before + 1
            }
            // replicas that were cut off hold different tokens of one generation: one token wins
            Some(held) if kept.generation >= held.generation() && differs(held) => {
                let is_good = self.offered(now).is_some();
                if is_good && held.issued() > issued + clearly {
                    self.generation += 1;
                    self.token = Some(Arc::new(held.renumbered(self.generation)));
                    return;
                }
                match kept.generation == held.generation() && !is_good {
                    // a rejection of the one token must not count for the other
                    true => self.generation + 1,
                    false => kept.generation,
                }
            }
            Some(held) if kept.generation <= held.generation() => return,
            Some(_) => kept.generation,
            // another client's store numbers its tokens anew; here the generation continues
            None if self.is_previous_clients => kept.generation.max(before + 1),
            None => kept.generation,
        };
        let token = Token::new(&kept.access_token, generation, issued, kept.lifetime);
        let Some(token) = token.ok().filter(|token| token.is_usable(now)) else {
            return;
        };
        self.schedule.adopted(
            token.issued(),
            kept.lifetime,
            token.usable_until(),
            context.jitter,
        );
        self.notes.push(Note::Adopted);
        self.install(token);
        self.mark_rejections_seen(context);
    }

    /// Returns whether the current token is valid and newer than `record`.
    pub(super) fn is_newer_than(&self, record: Option<&Record>, now: Instant) -> bool {
        let kept = record.map_or(0, |record| record.generation);
        let held = self.token.as_ref().filter(|token| token.is_usable(now));
        held.is_some_and(|held| !self.is_previous_clients && held.generation() > kept)
    }

    /// The record to store: the current token and the pool.
    pub(super) fn record(&self, context: &Context) -> Record {
        let wall_at = |at: Instant| {
            if at >= context.now {
                context.wall + at.since(context.now)
            } else {
                context.wall - context.now.since(at)
            }
        };
        let token = self.token.as_ref().filter(|_| !self.is_previous_clients);
        Record {
            generation: self.generation,
            token: token.map(|token| token.stored(wall_at)),
            pool: self.schedule.pool().stored(wall_at),
        }
    }
}
