//! The state of the authorization server: clients, their pools, and issued tokens.
//!
//! Pure: it gets the time and new tokens as arguments.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use super::Config;
use super::clock::Reading;
use super::pool::Pool;
use super::state::ClientState;

/// The state of a token.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// The API accepts it.
    Live,
    /// It was issued here and has expired.
    Ended,
    /// It was not issued here.
    Unknown,
}

/// A registered client.
pub(super) struct Client {
    /// The name under which it was registered.
    pub(super) name: String,
    /// When it was registered, in seconds since the Unix epoch.
    pub(super) registered: u64,
    /// The grants it may use (RFC 7591, section 2).
    pub(super) grant_types: Vec<String>,
    /// The secret.
    pub(super) secret: String,
    pool: Pool,
    counts: ClientState,
}

struct Issued {
    client: String,
    ends: Instant,
}

/// The state of the authorization server. Expired tokens are kept, to tell them from unknown ones.
pub(super) struct Issuer {
    capacity: u32,
    refill: Duration,
    lifetime: Duration,
    clients: BTreeMap<String, Client>,
    tokens: HashMap<String, Issued>,
}

impl Issuer {
    /// Returns an issuer without clients, with the pools and lifetimes of `config`.
    pub(super) fn new(config: &Config) -> Self {
        Self {
            capacity: config.pool,
            refill: config.refill,
            lifetime: config.lifetime,
            clients: BTreeMap::new(),
            tokens: HashMap::new(),
        }
    }

    /// Adds a client with a full pool.
    pub(super) fn add(&mut self, id: String, secret: String, name: String, now: Reading) {
        let client = Client {
            name,
            registered: now.wall.as_secs(),
            grant_types: vec!["client_credentials".to_owned()],
            secret,
            pool: Pool::full(self.capacity, self.refill, now.steady),
            counts: ClientState::default(),
        };
        self.clients.insert(id, client);
    }

    /// Removes a client and revokes its tokens.
    pub(super) fn remove(&mut self, id: &str, now: Instant) -> bool {
        self.revoke(Some(id), now);
        self.clients.remove(id).is_some()
    }

    /// The client with this id.
    pub(super) fn client(&self, id: &str) -> Option<&Client> {
        self.clients.get(id)
    }

    /// The client with this id, mutably.
    pub(super) fn client_mut(&mut self, id: &str) -> Option<&mut Client> {
        self.clients.get_mut(id)
    }

    /// All clients and their ids.
    pub(super) fn clients(&self) -> impl Iterator<Item = (&String, &Client)> {
        self.clients.iter()
    }

    /// Counts a token request of `id` that was refused with 400 or 401.
    pub(super) fn count_refusal(&mut self, id: &str) {
        if let Some(client) = self.clients.get_mut(id) {
            client.counts.refused += 1;
        }
    }

    /// Takes a token from the pool of the client `id`, which exists, and makes `token` valid.
    ///
    /// # Errors
    /// If the pool is empty: how long until it is not. The request is counted and takes nothing.
    pub(super) fn issue(&mut self, id: &str, token: &str, now: Instant) -> Result<(), Duration> {
        if let Some(client) = self.clients.get_mut(id) {
            let taken = client.pool.take(now);
            taken.inspect_err(|_| client.counts.rate_limited += 1)?;
            client.counts.issued += 1;
        }
        let issued = Issued {
            client: id.to_owned(),
            ends: now + self.lifetime,
        };
        self.tokens.insert(token.to_owned(), issued);
        Ok(())
    }

    /// The state of a token.
    pub(super) fn standing(&self, token: &str, now: Instant) -> Standing {
        match self.tokens.get(token) {
            Some(issued) if now < issued.ends => Standing::Live,
            Some(_) => Standing::Ended,
            None => Standing::Unknown,
        }
    }

    /// Revokes the tokens of one client or of all; returns how many were valid.
    pub(super) fn revoke(&mut self, client: Option<&str>, now: Instant) -> usize {
        let chosen = self.tokens.values_mut().filter(|issued| {
            now < issued.ends && client.is_none_or(|client| client == issued.client)
        });
        chosen.map(|issued| issued.ends = now).count()
    }

    /// Fills all pools and resets all counters. Tokens stay valid.
    pub(super) fn reset(&mut self, now: Instant) {
        for client in self.clients.values_mut() {
            client.pool.fill(now);
            client.counts = ClientState::default();
        }
    }

    /// The counters of every client.
    pub(super) fn state(&self, now: Instant) -> BTreeMap<String, ClientState> {
        let live = |id: &str| {
            let tokens = self.tokens.values();
            let live = tokens.filter(|issued| issued.client == id && now < issued.ends);
            live.count() as u64
        };
        let of = |(id, client): (&String, &Client)| {
            let state = ClientState {
                pool_available: client.pool.available(now),
                live_tokens: live(id),
                ..client.counts
            };
            (id.clone(), state)
        };
        self.clients.iter().map(of).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulator::clock;

    fn issuer() -> (Issuer, Instant) {
        let now = clock::read();
        let mut issuer = Issuer::new(&Config {
            pool: 2,
            ..Config::default()
        });
        issuer.add("a".to_owned(), "sa".to_owned(), "A".to_owned(), now);
        issuer.add("b".to_owned(), "sb".to_owned(), "B".to_owned(), now);
        (issuer, now.steady)
    }

    #[test]
    fn a_token_lives_exactly_its_lifetime() {
        let (mut issuer, now) = issuer();
        assert_eq!(issuer.issue("a", "t", now), Ok(()));
        let end = now + Duration::from_secs(299);
        assert_eq!(
            issuer.standing("t", end - Duration::from_nanos(1)),
            Standing::Live
        );
        assert_eq!(issuer.standing("t", end), Standing::Ended);
        assert_eq!(issuer.standing("u", now), Standing::Unknown);
    }

    #[test]
    fn each_client_has_a_pool_of_its_own() {
        let (mut issuer, now) = issuer();
        assert_eq!(issuer.issue("a", "1", now), Ok(()));
        assert_eq!(issuer.issue("a", "2", now), Ok(()));
        assert_eq!(issuer.issue("a", "3", now), Err(Duration::from_secs(60)));
        assert_eq!(issuer.issue("b", "4", now), Ok(()));
        let state = issuer.state(now);
        assert_eq!(
            (
                state["a"].issued,
                state["a"].rate_limited,
                state["a"].live_tokens
            ),
            (2, 1, 2)
        );
        assert_eq!(
            (
                state["b"].issued,
                state["b"].rate_limited,
                state["b"].live_tokens
            ),
            (1, 0, 1)
        );
    }

    #[test]
    fn revoking_ends_the_tokens_of_one_client_or_of_all() {
        let (mut issuer, now) = issuer();
        for (client, token) in [("a", "1"), ("a", "2"), ("b", "3")] {
            assert_eq!(issuer.issue(client, token, now), Ok(()));
        }
        assert_eq!(issuer.revoke(Some("a"), now), 2);
        assert_eq!(issuer.standing("1", now), Standing::Ended);
        assert_eq!(issuer.standing("3", now), Standing::Live);
        assert_eq!(issuer.revoke(None, now), 1);
    }

    #[test]
    fn a_client_takes_its_tokens_along() {
        let (mut issuer, now) = issuer();
        for (client, token) in [("a", "1"), ("b", "2")] {
            assert_eq!(issuer.issue(client, token, now), Ok(()));
        }
        assert!(issuer.remove("a", now));
        assert!(!issuer.remove("a", now));
        assert_eq!(issuer.standing("1", now), Standing::Ended);
        assert_eq!(issuer.standing("2", now), Standing::Live);
        assert!(issuer.client("a").is_none());
    }

    #[test]
    fn a_reset_fills_pools_and_keeps_tokens() {
        let (mut issuer, now) = issuer();
        for token in ["1", "2"] {
            assert_eq!(issuer.issue("a", token, now), Ok(()));
        }
        issuer.count_refusal("a");
        issuer.reset(now);
        let state = issuer.state(now);
        assert_eq!(
            (
                state["a"].issued,
                state["a"].refused,
                state["a"].live_tokens
            ),
            (0, 0, 2)
        );
        assert!((state["a"].pool_available - 2.0).abs() < 1e-9);
    }
}
