//! The simulated token endpoint: one pool, written independently of the program's mirror.

use std::fmt;
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use collibra_auth_proxy::secret::Secret;
use collibra_auth_proxy::token::ports::{Grant, Outcome, RequestError, TokenEndpoint};

use super::clock::{Numbers, VirtualClock, locked};
use super::weather::Endpoint;

const CAPACITY: f64 = 5.0;
const REFILL: Duration = Duration::from_secs(60);
const LIFETIME: Duration = Duration::from_secs(299);

/// The program's timeout of a token request (`token_timeout`).
const TIMEOUT: Duration = Duration::from_secs(10);

/// Collibra's token endpoint, for one client.
pub(super) struct Issuer {
    clock: VirtualClock,
    numbers: Numbers,
    books: Mutex<Books>,
}

struct Books {
    weather: Endpoint,
    level: f64,
    at: Duration,
    /// When each token expires.
    ends: Vec<Duration>,
    under_way: u32,
    seen: Asked,
}

/// The endpoint's counters.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Asked {
    /// Requests that reached it, or were meant to.
    pub(crate) requests: u64,
    /// Tokens that were issued, including those lost in transit.
    pub(crate) tokens: u64,
    /// 429s because the pool was empty.
    pub(crate) refused: u64,
    /// The most concurrent requests.
    pub(crate) at_a_time: u32,
}

impl Issuer {
    pub(super) fn new(clock: VirtualClock, seed: u64) -> Issuer {
        Issuer {
            clock,
            numbers: Numbers::of(seed),
            books: Mutex::new(Books {
                weather: Endpoint::Fair,
                level: CAPACITY,
                at: clock.passed(),
                ends: Vec::new(),
                under_way: 0,
                seen: Asked::default(),
            }),
        }
    }

    pub(super) fn becomes(&self, weather: Endpoint) {
        locked(&self.books).weather = weather;
    }

    /// The counts since the last call.
    pub(super) fn take(&self) -> Asked {
        std::mem::take(&mut locked(&self.books).seen)
    }

    /// Returns whether a token is valid.
    pub(super) fn accepts(&self, access_token: &str) -> bool {
        let number: Option<usize> = access_token.strip_prefix('t').and_then(|n| n.parse().ok());
        let books = locked(&self.books);
        let end = number.and_then(|number| books.ends.get(number));
        end.is_some_and(|end| self.clock.passed() < *end)
    }

    /// Takes a token from the pool.
    fn draw(&self) -> Option<Grant> {
        let mut books = locked(&self.books);
        let now = self.clock.passed();
        let gained = (now - books.at).div_duration_f64(REFILL);
        books.level = (books.level + gained).min(CAPACITY);
        books.at = now;
        if books.level < 1.0 - 1e-6 {
            books.seen.refused += 1;
            return None;
        }
        books.level -= 1.0;
        books.seen.tokens += 1;
        books.ends.push(now + LIFETIME);
        Some(Grant {
            access_token: Secret::from(format!("t{}", books.ends.len() - 1)),
            expires_in: LIFETIME,
        })
    }

    async fn answer(&self) -> Result<Grant, Outcome> {
        let weather = locked(&self.books).weather;
        let (short, long) = (Duration::from_millis(20), Duration::from_millis(200));
        if weather == Endpoint::Away {
            tokio::time::sleep(short).await;
            return Err(Outcome::Connect);
        }
        tokio::time::sleep(self.numbers.between(short, long)).await;
        let answer = match weather {
            Endpoint::Fair | Endpoint::Slow => self.draw().ok_or(Outcome::RateLimited),
            Endpoint::Hanging => {
                self.draw();
                Err(Outcome::Timeout)
            }
            Endpoint::Forging => Err(Outcome::RateLimited),
            Endpoint::Failing | Endpoint::Away => Err(Outcome::ServerError),
        };
        tokio::time::sleep(match weather {
            Endpoint::Slow => Duration::from_secs(8),
            Endpoint::Hanging => TIMEOUT,
            _ => self.numbers.between(short, long),
        })
        .await;
        answer
    }
}

#[async_trait]
impl TokenEndpoint for Issuer {
    async fn request_token(&self) -> Result<Grant, RequestError> {
        {
            let mut books = locked(&self.books);
            books.under_way += 1;
            books.seen.requests += 1;
            books.seen.at_a_time = books.seen.at_a_time.max(books.under_way);
        }
        let _under_way = UnderWay(self);
        self.answer().await.map_err(|outcome| RequestError {
            outcome,
            retry_after: None,
            message: String::new(),
        })
    }
}

/// A request in flight; it also ends with the proxy that sent it.
struct UnderWay<'a>(&'a Issuer);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        locked(&self.0.books).under_way -= 1;
    }
}

impl fmt::Debug for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Issuer")
    }
}
