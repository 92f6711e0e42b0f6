//! The possible steps of the world.

use super::{Choice, How, Mode, OUTAGE, REPLICAS, UnderWay, World};

impl Choice {
    /// Returns whether it is no fault.
    pub(in super::super) fn is_well(&self) -> bool {
        matches!(self, Choice::Pass | Choice::End(_, How::Well))
    }
}

impl World {
    /// The possible steps.
    pub(in super::super) fn choices(&self) -> Vec<Choice> {
        let mut choices = Vec::new();
        if self.now > self.horizon {
            return choices;
        }
        let ready: Vec<usize> = (0..REPLICAS).filter(|nth| self.is_ready(*nth)).collect();
        if ready.is_empty() {
            choices.push(Choice::Pass);
        }
        // the end of a wait affects no other replica, so the order of several is irrelevant
        let waiting = |nth: &&usize| matches!(self.replicas[**nth].under_way, UnderWay::Wait(_));
        // a recovered fleet without further faults is not explored in all orders either: the
        // exploration without faults covers them
        let has_recovered = self.had_faults && self.faults == 0 && self.now > self.excused_until;
        let first = ready.iter().find(waiting);
        let first = first.or(ready.first().filter(|_| has_recovered));
        match first {
            Some(nth) => choices.push(Choice::End(*nth, How::Well)),
            None => choices.extend(ready.iter().map(|nth| Choice::End(*nth, How::Well))),
        }
        // faults are pushed last and so explored first: a failure is found after few steps
        if self.faults > 0 && self.now > 0 {
            if self.mode.0 == Mode::Fair {
                for mode in [Mode::Reads, Mode::Leases, Mode::Publications, Mode::All] {
                    choices.extend([4_000, OUTAGE].map(|lasts| Choice::Set(mode, lasts)));
                }
                choices.push(Choice::Wipe);
            }
            choices.push(Choice::Revoke);
            let up = (0..REPLICAS).filter(|nth| self.replicas[*nth].down_until.is_none());
            let acting = up.filter(|nth| ready.is_empty() || ready.contains(nth));
            for nth in acting {
                choices.push(Choice::Kill(nth));
                match self.replicas[nth].under_way {
                    UnderWay::Wait(_) => {
                        choices.extend([Choice::Restart(nth), Choice::Rotate(nth)])
                    }
                    _ => choices.push(Choice::Stall(nth)),
                }
            }
            for &nth in &ready {
                let hows: &[How] = match self.replicas[nth].under_way {
                    UnderWay::Read => &[How::Failed, How::Stale],
                    UnderWay::Wait(_) => &[],
                    _ => &[How::Failed, How::Lost],
                };
                choices.extend(hows.iter().map(|how| Choice::End(nth, *how)));
            }
        }
        choices.retain(|choice| choice.is_well() || (self.menu)(*choice));
        choices
    }

    /// Describes a step for a failure message.
    pub(in super::super) fn describe(&self, choice: &Choice) -> String {
        match choice {
            Choice::End(nth, how) => {
                let replica = &self.replicas[*nth];
                let what = match &replica.under_way {
                    UnderWay::Publish(record) => {
                        format!("publish generation {}", record.generation)
                    }
                    UnderWay::Wait(_) if replica.notified_at.is_some() => "wait, told".to_owned(),
                    what => format!("{what:?}"),
                };
                format!("replica {nth}: {what}: {how:?} (store: {:?})", self.mode.0)
            }
            other => format!("{other:?}"),
        }
    }
}
