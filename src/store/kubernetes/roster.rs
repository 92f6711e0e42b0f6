//! Who goes on alone when the server is away: a few seats in an annotation of the Lease, taken in
//! the order of coming. Pure.
//!
//! At most [`SEATS`] processes may ask without a store, so no more need be known by name, and what
//! a fleet writes does not grow with it. Who has a seat counts up there now and then; who has
//! not done so for [`GONE`], by the clock of whoever looks, has lost it.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::clock::Instant;
use crate::token::ports::Rank;

/// As many as ever go on alone.
const SEATS: usize = 4;

/// After so long without a sign a member's seat is another's: three signs missed.
const GONE: Duration = Duration::from_secs(15);

/// What a process has seen of the seats.
#[derive(Debug, Default)]
pub(super) struct Roster {
    /// The count of each, and since when it is that.
    seen: BTreeMap<String, (u64, Instant)>,
}

impl Roster {
    /// What becomes of the seats in `text` when `me` looks at them at `now`, and the rank of `me`
    /// if that is written there. `None` for who has no seat and finds none, who writes nothing.
    pub(super) fn attend(&mut self, text: &str, me: &str, now: Instant) -> (Option<String>, Rank) {
        let mut seats = Vec::new();
        for (name, count) in parse(text).take(SEATS) {
            let last = self.seen.get(name).copied();
            let since = match last {
                Some((known, since)) if known == count => since,
                _ => now,
            };
            if name == me || now.since(since) < GONE {
                seats.push((name.to_owned(), count, since));
            }
        }
        let own = seats.iter().position(|(name, ..)| name == me);
        let own = own.or_else(|| {
            (seats.len() < SEATS).then(|| {
                seats.push((me.to_owned(), 0, now));
                seats.len() - 1
            })
        });
        if let Some((_, count, _)) = own.and_then(|own| seats.get_mut(own)) {
            *count = count.wrapping_add(1);
        }
        let others = usize::from(own.is_none());
        let rank = Rank::Among {
            before: u32::try_from(own.unwrap_or(seats.len())).unwrap_or(u32::MAX),
            all: u32::try_from(seats.len() + others).unwrap_or(u32::MAX),
        };
        let seated = own.is_some().then(|| {
            let all = seats
                .iter()
                .map(|(name, count, _)| format!("{name}:{count}"));
            all.collect::<Vec<_>>().join(" ")
        });
        self.seen = seats
            .into_iter()
            .map(|(name, count, since)| (name, (count, since)))
            .collect();
        (seated, rank)
    }
}

/// Whether the same processes have seats in both, in the same order.
pub(super) fn is_same(before: &str, after: &str) -> bool {
    let names = |text| parse(text).map(|(name, _)| name).collect::<Vec<_>>();
    names(before) == names(after)
}

/// The seats in `text` without that of `me`; `None` if it has none.
pub(super) fn without(text: &str, me: &str) -> Option<String> {
    let others = |seat: &&str| seat.split_once(':').is_none_or(|(name, _)| name != me);
    let left: Vec<&str> = text.split(' ').filter(others).collect();
    (left.len() < text.split(' ').count()).then(|| left.join(" "))
}

fn parse(text: &str) -> impl Iterator<Item = (&str, u64)> {
    text.split(' ').filter_map(|seat| {
        let (name, count) = seat.split_once(':')?;
        let is_name = (1..=32).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_hexdigit());
        is_name.then_some((name, count.parse().ok()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_have_seats_and_the_silent_lose_theirs() {
        let start = Instant::ORIGIN;
        let mut text = String::new();
        let mut last = Roster::default();
        for (nth, name) in ["a", "b", "c", "d"].into_iter().enumerate() {
            let (written, rank) = Roster::default().attend(&text, name, start);
            text = written.unwrap();
            let before = u32::try_from(nth).unwrap();
            assert_eq!(
                rank,
                Rank::Among {
                    before,
                    all: before + 1
                }
            );
        }
        assert_eq!(text, "a:1 b:1 c:1 d:1");
        let unseated = Rank::Among { before: 4, all: 5 };
        assert_eq!(last.attend(&text, "e", start), (None, unseated));
        assert_eq!(last.attend(&text, "e", start + GONE / 2), (None, unseated));
        let (written, rank) = last.attend("a:1 b:2 c:2 d:2", "e", start + GONE);
        assert_eq!(written.unwrap(), "b:2 c:2 d:2 e:1");
        assert_eq!(rank, Rank::Among { before: 3, all: 4 });
    }

    #[test]
    fn who_leaves_gives_its_seat_back() {
        assert_eq!(without("a:1 b:2 c:3", "b").as_deref(), Some("a:1 c:3"));
        assert_eq!(without("a:1", "a").as_deref(), Some(""));
        assert_eq!(without("a:1", "b"), None);
        assert_eq!(without("", "a"), None);
    }

    #[test]
    fn what_cannot_be_read_is_no_seat() {
        let (written, _) =
            Roster::default().attend("x:1 : a b:-1 c:2 \u{e9}:1", "d", Instant::ORIGIN);
        assert_eq!(written.unwrap(), "c:2 d:1");
    }
}
