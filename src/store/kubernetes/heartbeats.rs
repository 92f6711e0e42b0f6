//! The standby list: an annotation of the Lease names the few processes that continue without the
//! server, in the order in which they joined. Pure.
//!
//! At most [`MAX_STANDBYS`] processes may request tokens without a store, so the list needs no more
//! names, and the writes do not grow with the fleet. Each listed process increments its counter as
//! a heartbeat. A process whose counter does not change for [`EXPIRY`], by the clock of the process
//! that reads it, is dropped.

use std::time::Duration;

use crate::clock::Instant;
use crate::token::ports::Membership;

/// The length of the standby list.
const MAX_STANDBYS: usize = 4;

/// How long an unchanged counter keeps its place.
const EXPIRY: Duration = Duration::from_secs(15);

/// The heartbeats that a process has observed.
#[derive(Debug, Default)]
pub(super) struct Heartbeats {
    /// Each process with its counter, and since when that is unchanged.
    observed: Vec<(String, u64, Instant)>,
}

impl Heartbeats {
    /// Updates the standby list `text` for the process `me` at `now`. Returns the new list and the
    /// resulting membership. The list is `None` if `me` has no place and finds none: there is
    /// nothing to write.
    pub(super) fn heartbeat(
        &mut self,
        text: &str,
        me: &str,
        now: Instant,
    ) -> (Option<String>, Membership) {
        let since = |name: &str, count: u64| {
            let mut observed = self.observed.iter();
            let known = observed.find(|(other, known, _)| other == name && *known == count);
            known.map_or(now, |(.., since)| *since)
        };
        // expired ones too: they stay expired until one write has removed them
        self.observed = parse(text)
            .take(MAX_STANDBYS)
            .map(|(name, count)| (name.to_owned(), count, since(name, count)))
            .collect();
        let mut standbys: Vec<_> = { self.observed.iter() }
            .filter(|(name, _, since)| name == me || now.since(*since) < EXPIRY)
            .map(|(name, count, _)| (&**name, *count))
            .collect();
        let mut own = standbys.iter().position(|(name, _)| *name == me);
        if own.is_none() && standbys.len() < MAX_STANDBYS {
            own = Some(standbys.len());
            standbys.push((me, 0));
        }
        if let Some((_, count)) = own.and_then(|own| standbys.get_mut(own)) {
            *count = count.wrapping_add(1);
        }
        let others = usize::from(own.is_none());
        let membership = Membership::Member {
            before: u32::try_from(own.unwrap_or(standbys.len())).unwrap_or(u32::MAX),
            all: u32::try_from(standbys.len() + others).unwrap_or(u32::MAX),
        };
        let written = own.is_some().then(|| {
            let all = standbys
                .iter()
                .map(|(name, count)| format!("{name}:{count}"));
            all.collect::<Vec<_>>().join(" ")
        });
        (written, membership)
    }
}

/// Returns whether both lists have the same processes in the same order.
pub(super) fn is_same(before: &str, after: &str) -> bool {
    let names = |text| parse(text).map(|(name, _)| name).collect::<Vec<_>>();
    names(before) == names(after)
}

/// The list without `me`; `None` if it is not listed.
pub(super) fn without(text: &str, me: &str) -> Option<String> {
    let others = |standby: &&str| standby.split_once(':').is_none_or(|(name, _)| name != me);
    let left: Vec<&str> = text.split(' ').filter(others).collect();
    (left.len() < text.split(' ').count()).then(|| left.join(" "))
}

fn parse(text: &str) -> impl Iterator<Item = (&str, u64)> {
    text.split(' ').filter_map(|standby| {
        let (name, count) = standby.split_once(':')?;
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
        let mut last = Heartbeats::default();
        for (nth, name) in ["a", "b", "c", "d"].into_iter().enumerate() {
            let (written, membership) = Heartbeats::default().heartbeat(&text, name, start);
            text = written.unwrap();
            let before = u32::try_from(nth).unwrap();
            assert_eq!(
                membership,
                Membership::Member {
                    before,
                    all: before + 1
                }
            );
        }
        assert_eq!(text, "a:1 b:1 c:1 d:1");
        let not_standby = Membership::Member { before: 4, all: 5 };
        assert_eq!(last.heartbeat(&text, "e", start), (None, not_standby));
        assert_eq!(
            last.heartbeat(&text, "e", start + EXPIRY / 2),
            (None, not_standby)
        );
        let (written, membership) = last.heartbeat("a:1 b:2 c:2 d:2", "e", start + EXPIRY);
        assert_eq!(written.unwrap(), "b:2 c:2 d:2 e:1");
        assert_eq!(membership, Membership::Member { before: 3, all: 4 });
    }

    #[test]
    fn the_silent_stay_expired_while_nobody_has_removed_them() {
        let mut last = Heartbeats::default();
        let dead = "a:1 b:1 c:1 d:1";
        last.heartbeat(dead, "e", Instant::ORIGIN);
        for _ in 0..2 {
            let (written, _) = last.heartbeat(dead, "e", Instant::ORIGIN + EXPIRY);
            assert_eq!(written.as_deref(), Some("e:1"));
        }
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
            Heartbeats::default().heartbeat("x:1 : a b:-1 c:2 \u{e9}:1", "d", Instant::ORIGIN);
        assert_eq!(written.unwrap(), "c:2 d:1");
    }
}
