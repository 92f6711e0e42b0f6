//! The state of the schedule that the exploration of the renewal reads and changes.

use super::*;

impl Schedule {
    /// Everything that determines the next steps, as seen at `now`, to tell states apart.
    pub(crate) fn digest(&self, now: Instant, into: &mut Vec<i64>) {
        let ahead = |at: Instant| i64::try_from(at.since(now).as_millis()).unwrap_or(i64::MAX);
        let (full_at, not_before) = self.budget.times();
        into.extend([full_at, not_before, self.due, self.deferred_until].map(ahead));
        let ago = |at: Instant| i64::try_from(now.since(at).as_millis()).unwrap_or(i64::MAX);
        into.push(self.asked.map_or(-1, ago));
        into.push(self.usable_until.map_or(-1, ahead));
        into.push(
            self.replaced
                .map_or(-1, |at| ahead(at + self.config.pool.refill)),
        );
        into.extend([self.failures.min(6), self.deferrals.min(6)].map(i64::from));
        into.extend([self.free_refusals.min(1), self.contended].map(i64::from));
        into.push(i64::from(self.refusals_charged) * 2 + i64::from(self.is_outdated));
        let (charged, until) = self.peers_charged;
        let longest = i64::try_from(self.config.pool.refill.as_millis() * 8);
        into.extend([ago(charged).min(longest.unwrap_or(i64::MAX)), ahead(until)]);
        into.push(ahead(self.share_ready_at));
        let Some(without) = &self.without_store else {
            return into.push(-2);
        };
        into.push(match without.membership {
            Membership::Single | Membership::Unknown => -1,
            Membership::Member { before, all } => i64::from(before * 8 + all),
        });
        into.push(ahead(without.not_before));
        into.push(i64::from(without.requesters));
        into.push(without.ready_at.map_or(-1, ahead));
    }

    /// Until when the renewal is delayed because the store is unavailable.
    pub(crate) fn deferral(&self) -> Option<Instant> {
        self.without_store.map(|without| without.not_before)
    }

    /// Delays the next request, as an earlier design did after an outage.
    pub(crate) fn delay(&mut self, until: Instant) {
        self.due = self.due.max(until);
    }
}
