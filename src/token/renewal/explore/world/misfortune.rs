//! Random faults, one at a time.

use super::{Choice, Mode, REPLICAS, UnderWay, World};

impl World {
    /// A random step or fault that is possible now, including those of [`World::choices`].
    pub(in super::super) fn misfortune(&self, random: &mut impl FnMut() -> f64) -> Choice {
        let mut below = |n: usize| (random() * n as f64) as usize;
        let nth = below(REPLICAS);
        let modes = [Mode::Reads, Mode::Leases, Mode::Publications, Mode::All];
        let lasts = [1_000, 4_000, 30_000, 120_000, 600_000][below(5)];
        let is_fair = self.mode.0 == Mode::Fair;
        let is_up = self.replicas[nth].down_until.is_none();
        match below(13) {
            0 | 1 if is_fair => Choice::Set(modes[below(4)], lasts),
            2 | 3 if is_fair => Choice::SetFor(nth, modes[below(4)], lasts),
            4 if is_up => Choice::Slow(nth, [500, 1_900, 4_900][below(3)]),
            5 => Choice::Step(nth, [-1_500, 0, 1_500][below(3)]),
            6 => Choice::RollBack,
            7 => Choice::Wipe,
            8 => Choice::Revoke,
            9 if is_up => Choice::Kill(nth),
            10 if is_up => Choice::Restart(nth),
            11 if is_up && matches!(self.replicas[nth].under_way, UnderWay::Wait(_)) => {
                Choice::Rotate(nth)
            }
            _ => {
                let choices = World {
                    faults: 1,
                    ..self.clone()
                }
                .choices();
                choices[below(choices.len())]
            }
        }
    }
}
