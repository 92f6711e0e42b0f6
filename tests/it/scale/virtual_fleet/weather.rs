//! The events of a fleet, and when they happen.

use std::time::Duration;

/// How the token endpoint behaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Endpoint {
    /// It answers within half a second, by its pool.
    #[default]
    Fair,
    /// It answers 500 and takes nothing from the pool.
    Failing,
    /// It answers correctly after 8 s.
    Slow,
    /// It takes a token from the pool and never answers.
    Hanging,
    /// It answers 429, whatever the pool holds.
    Forging,
    /// It is unreachable.
    Away,
}

/// How the store behaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Store {
    /// It answers within milliseconds, one call after another.
    #[default]
    Fair,
    /// It is unreachable.
    Away,
    /// It accepts all bytes and never answers.
    BlackHole,
}

/// A single event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Blow {
    /// The endpoint behaves like this from now on.
    Endpoint(Endpoint),
    /// The store behaves like this from now on.
    Store(Store),
    /// The store loses all content, including the lock.
    StoreForgets,
    /// The store rolls back by five minutes.
    StoreGoesBack,
    /// The next lease holder is killed during its request, and restarted 10 s later.
    KillAsker,
    /// The next lease holder is stopped during its request for 90 s, longer than its lease.
    StopAsker,
    /// All are restarted one after the other within that time; each is down for 2 s.
    Roll(Duration),
    /// All are killed at once, and restarted within 10 s.
    PowerCut,
    /// The API rejects the current token: each proxy notices at its next request.
    TokenRefused,
}

/// An event and its time after the start.
pub(crate) type Event = (Duration, Blow);

/// A day with every event once, each in its own hour; describes the hours.
pub(crate) const HOURS: [&str; 24] = [
    "nothing",
    "the endpoint answers 500 for 2 minutes",
    "the endpoint answers after 8 s, for 10 minutes",
    "the endpoint does not answer for 2 minutes",
    "the endpoint answers 429 to everything for 2 minutes",
    "the endpoint is unreachable for 2 minutes",
    "the endpoint answers 500 for 10 minutes",
    "nothing",
    "the store is unavailable for 2 minutes",
    "the store is unavailable for 10 minutes",
    "the store accepts data but never answers for 2 minutes",
    "the store loses all data",
    "the store rolls back by 5 minutes",
    "the store and the endpoint are unavailable for 2 minutes",
    "all are restarted, one after the other within the hour",
    "five are killed (`kill -9`) during their token request",
    "three are stopped for 90 s during their token request",
    "all are killed at once and come back within 10 s",
    "nothing",
    "the API rejects the current token",
    "the endpoint does not answer for 10 minutes",
    "the store accepts data but never answers for 10 minutes",
    "the endpoint answers 500 for 2 minutes during a restart of all within 10 minutes",
    "nothing",
];

/// The events of that day.
pub(crate) fn a_bad_day() -> Vec<Event> {
    use Blow::{KillAsker, PowerCut, Roll, StopAsker, StoreForgets, StoreGoesBack, TokenRefused};
    let minutes = |n: u64| Duration::from_secs(60 * n);
    let mut events = Vec::new();
    let mut at = |hour: u64, minute: u64, blow| {
        events.push((minutes(60 * hour + minute), blow));
    };
    for (hour, how, lasts) in [
        (1, Endpoint::Failing, 2),
        (2, Endpoint::Slow, 10),
        (3, Endpoint::Hanging, 2),
        (4, Endpoint::Forging, 2),
        (5, Endpoint::Away, 2),
        (6, Endpoint::Failing, 10),
        (13, Endpoint::Away, 2),
        (20, Endpoint::Hanging, 10),
        (22, Endpoint::Failing, 2),
    ] {
        at(hour, 10, Blow::Endpoint(how));
        at(hour, 10 + lasts, Blow::Endpoint(Endpoint::Fair));
    }
    for (hour, how, lasts) in [
        (8, Store::Away, 2),
        (9, Store::Away, 10),
        (10, Store::BlackHole, 2),
        (13, Store::Away, 2),
        (21, Store::BlackHole, 10),
    ] {
        at(hour, 10, Blow::Store(how));
        at(hour, 10 + lasts, Blow::Store(Store::Fair));
    }
    at(11, 10, StoreForgets);
    at(12, 10, StoreGoesBack);
    at(14, 0, Roll(minutes(60)));
    (0..5).for_each(|n| at(15, 10 * n, KillAsker));
    (0..3).for_each(|n| at(16, 15 * n, StopAsker));
    at(17, 10, PowerCut);
    at(19, 10, TokenRefused);
    at(22, 5, Roll(minutes(10)));
    events.sort_by_key(|(when, _)| *when);
    events
}
