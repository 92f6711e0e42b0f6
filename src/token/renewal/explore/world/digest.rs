//! The digest that tells the states of the world apart.

use std::hash::{DefaultHasher, Hash, Hasher};

use super::{REFILL, SETTLED, UnderWay, World, instant, model, wall};
use crate::token::ports::{Membership, Record};
use crate::token::renewal::{Renewal, StoreState};

impl World {
    /// The digest of this state.
    pub(in super::super) fn digest(&self) -> Vec<i64> {
        let newest = self.replicas.iter().map(|r| r.machine.generation).max();
        let newest = newest.unwrap_or(0).cast_signed();
        let generation = |of: u64| of.cast_signed() - newest;
        let ahead = |at: u64| at.saturating_sub(self.now).cast_signed();
        let of_record = |record: &Option<Record>, into: &mut Vec<i64>| {
            let Some(record) = record else {
                return into.push(i64::MIN);
            };
            into.push(generation(record.generation));
            for at in [record.pool.full_at, record.pool.not_before] {
                let left = at.duration_since(wall(self.now)).unwrap_or_default();
                into.push(left.as_millis() as i64);
            }
            if let Some(token) = &record.token {
                into.push(generation(token.generation));
                let end = token.asked + token.lifetime;
                let left = end.duration_since(wall(self.now)).unwrap_or_default();
                into.push(left.as_millis() as i64);
            }
        };
        let mut replicas: Vec<Vec<i64>> = Vec::new();
        for replica in &self.replicas {
            let mut of = Vec::with_capacity(48);
            let standby = self
                .standbys
                .iter()
                .position(|standby| standby.0 == replica.name);
            of.push(standby.map_or(-1, |standby| standby as i64));
            if let Some(until) = replica.down_until {
                of.push(ahead(until));
                replicas.push(of);
                continue;
            }
            let machine = &replica.machine;
            of.push(generation(machine.generation));
            let token = machine.token.as_ref();
            of.push(token.map_or(i64::MIN, |token| generation(token.generation())));
            of.push(i64::from(machine.is_replacing) * 2 + i64::from(machine.is_revoked));
            of.push(generation(machine.last_rejection_seen).max(-3));
            of.push(i64::from(machine.failure.is_some()));
            of.push(match machine.store {
                StoreState::Usable => 0,
                StoreState::Unwritable(_) => 1,
                StoreState::Unavailable(_) => 2,
            });
            of.push(i64::from(machine.unwritten.is_some()));
            of.push(ahead(model(machine.probed.0) + REFILL / 4));
            of.push(phase(machine));
            machine.schedule.digest(instant(self.now), &mut of);
            of.push(match &replica.under_way {
                UnderWay::Wait(at) => ahead(*at),
                _ => -1,
            });
            if let UnderWay::Publish(record) = &replica.under_way {
                of_record(&Some(record.clone()), &mut of);
            }
            of.push(ahead(replica.stalled_until));
            of.push(replica.notified_at.map_or(-1, ahead));
            of.push(match self.holder {
                Some((held, _)) if replica.lease == Some(held) => 2,
                _ => i64::from(replica.lease.is_some()),
            });
            of.push(match replica.membership {
                Membership::Member { before, all } => i64::from(before * 8 + all),
                _ => -1,
            });
            of.push(generation(replica.rejections.generation).max(-3));
            of.push(i64::from(replica.unbooked) * 2 + i64::from(replica.has_new_verdict));
            of.push(i64::from(replica.store_notes));
            of.push(ahead(replica.started + SETTLED));
            replicas.push(of);
        }
        replicas.sort_unstable();
        let mut all = replicas.concat();
        of_record(&self.record, &mut all);
        of_record(&self.before, &mut all);
        all.push(self.holder.map_or(-1, |(_, end)| ahead(end)));
        for (name, sign) in &self.standbys {
            let is_living = self.replicas.iter().any(|r| r.name == *name);
            all.push(if is_living {
                -1
            } else {
                ahead(sign + self.standby_expiry())
            });
        }
        all.push(self.only.map_or(-1, |only| only as i64));
        all.extend([self.mode.0 as i64, ahead(self.mode.1), ahead(self.full_at)]);
        all.extend([i64::from(self.faults), ahead(self.excused_until)]);
        all.push(i64::from(self.forgotten.min(1)));
        all.push(generation(self.revoked).max(-3));
        all.push(ahead(self.standbys_stale_until));
        all.push(i64::from(self.settled_outage));
        all
    }
}

fn phase(machine: &Renewal) -> i64 {
    let mut hasher = DefaultHasher::new();
    machine.phase.hash(&mut hasher);
    (hasher.finish() >> 1).cast_signed()
}
