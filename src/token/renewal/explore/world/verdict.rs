//! The invariants that hold in every state.

use super::{LIFE, Mode, REPLICAS, SETTLED, UnderWay, World, instant, model};

impl World {
    /// The violated invariant, if any.
    pub(in super::super) fn verdict(&self) -> Option<String> {
        if let Some(problem) = self.problem {
            return Some(problem.to_owned());
        }
        let up = || self.replicas.iter().filter(|r| r.down_until.is_none());
        let pool = up().map(|r| r.machine.schedule.pool().ready_at());
        let pool = pool.min().map_or(0, |at| model(at) + SETTLED);
        let excused = self.excused_until.max(pool);
        let is_fair = self.mode.0 == Mode::Fair;
        let serving = up().filter(|r| r.machine.offered(instant(self.now)).is_some());
        if !is_fair && self.settled_outage && self.now > pool && serving.count() == 0 {
            return Some("no replica continues without the store".to_owned());
        }
        for (nth, replica) in self.replicas.iter().enumerate() {
            // once down and once up, for this fault and for one that lasts
            if replica.store_notes > 4 {
                return Some(format!("replica {nth} alternates between two states"));
            }
            let is_up = replica.down_until.is_none() && replica.stalled_until <= self.now;
            let offered = replica.machine.offered(instant(self.now));
            if offered.is_some_and(|token| model(token.issued()) + LIFE <= self.now) {
                return Some(format!("replica {nth} offers an expired token"));
            }
            if offered.is_some_and(|token| token.generation() <= self.revoked)
                && replica.rejections.generation == self.revoked
                && !replica.has_new_verdict
                && !self.is_ready(nth)
            {
                return Some(format!("replica {nth} sends a revoked token"));
            }
            let late = replica.started + SETTLED;
            if let Some(token) = offered
                && is_fair
                && self.now > excused.max(late)
                && replica.machine.schedule.failures() == 0
                && model(replica.machine.schedule.pool().ready_at()) + SETTLED <= self.now
                && model(replica.machine.schedule.next_with_lease()) > self.now
                && model(replica.machine.schedule.next_with_lease())
                    > model(token.issued()) + LIFE / 2 + SETTLED
            {
                return Some(format!("replica {nth} delays its renewal"));
            }
            if is_up && offered.is_none() && self.now > excused.max(late) {
                return Some(format!("replica {nth} has no token at {} ms", self.now));
            }
        }
        let is_settled = is_fair && self.now > excused && (0..REPLICAS).all(|nth| self.rests(nth));
        let mut tokens = up().filter_map(|r| r.machine.offered(instant(self.now)));
        let first = tokens.next().map(|token| token.access_token());
        if is_settled && tokens.any(|token| Some(token.access_token()) != first) {
            return Some("the replicas hold different tokens".to_owned());
        }
        None
    }

    /// Returns whether a replica is up, has nothing to do, and had time to hear of the others.
    fn rests(&self, nth: usize) -> bool {
        let replica = &self.replicas[nth];
        replica.down_until.is_none()
            && matches!(replica.under_way, UnderWay::Wait(_))
            && self.now > replica.started + SETTLED
            && self.now >= replica.stalled_until
            && !self.is_ready(nth)
    }
}
