//! The gauges that are set at each scrape, because they change without an event: a token expires, a
//! pool refills, a certificate is replaced, an app is removed from the configuration.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use super::families::Families;

/// Sets the gauges of one scrape. A gauge that is not set is not shown, so the series of a removed
/// client, app or certificate end.
#[derive(Debug)]
pub struct Levels<'a>(pub(super) &'a Families);

/// A client's token and pool.
#[derive(Clone, Copy, Debug)]
pub struct ClientLevels {
    /// Whether the token is usable.
    pub usable: bool,
    /// The token, usable or not; `None` if there never was one.
    pub held: Option<TokenTimes>,
    /// When the next token request is due; now, while one is in flight.
    pub next_request: SystemTime,
    /// The number of consecutive failed token requests.
    pub failures: u32,
    /// The tokens in the issuer's pool, as mirrored here.
    pub pool_available: f64,
    /// The pool's capacity, in tokens.
    pub pool_capacity: u32,
}

/// A token's generation and lifetime, by the wall clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenTimes {
    /// The generation: the client's tokens are numbered from 1.
    pub generation: u64,
    /// When it was requested.
    pub issued: SystemTime,
    /// When it expires.
    pub expires: SystemTime,
}

/// An app's limits, as far as it has any, and their current use.
#[derive(Clone, Copy, Debug)]
pub struct AppLevels {
    /// Requests in flight.
    pub in_flight: u64,
    /// The most requests in flight.
    pub max_in_flight: Option<u64>,
    /// The most requests per second.
    pub requests_per_second: Option<f64>,
}

/// The owner of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CertificateKind {
    /// A listener.
    Listener,
    /// An instance; its latest certificate.
    Instance,
    /// The proxy as a TLS client of an instance.
    Client,
}

/// The expiry of a certificate to the second, shared by the connections that see it and the
/// metrics.
#[derive(Clone, Debug, Default)]
pub struct Expiry(Arc<AtomicU64>);

impl Expiry {
    /// Returns the expiry `at`; unknown if that is before 1970.
    #[must_use]
    pub fn at(at: SystemTime) -> Expiry {
        let expiry = Expiry::default();
        expiry.set(at);
        expiry
    }

    /// Replaces the expiry, as the certificate may have been renewed.
    pub fn set(&self, at: SystemTime) {
        let since = at.duration_since(SystemTime::UNIX_EPOCH);
        let seconds = since.map_or(0, |since| since.as_secs());
        self.0.store(seconds, Ordering::Relaxed);
    }

    /// The expiry; `None` if no certificate was seen.
    #[must_use]
    pub fn get(&self) -> Option<SystemTime> {
        let seconds = self.0.load(Ordering::Relaxed);
        (seconds > 0).then(|| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
    }
}

impl CertificateKind {
    /// The label's value.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            CertificateKind::Listener => "listener",
            CertificateKind::Instance => "instance",
            CertificateKind::Client => "client",
        }
    }
}

impl Levels<'_> {
    /// Sets the gauges of the token and the pool of `client`.
    pub fn client(&self, client: &str, levels: &ClientLevels) {
        let (families, label) = (self.0, &[client]);
        let held = levels.held;
        #[expect(clippy::cast_precision_loss, reason = "no client sees 2^53 tokens")]
        let generation = held.map_or(0.0, |token| token.generation as f64);
        let seconds = |at: Option<SystemTime>| at.map_or(0.0, unix_seconds);
        for (family, value) in [
            (&families.token_generation, generation),
            (
                &families.token_issued,
                seconds(held.map(|held| held.issued)),
            ),
            (
                &families.token_expiry,
                seconds(held.map(|held| held.expires)),
            ),
            (
                &families.token_next_request,
                unix_seconds(levels.next_request),
            ),
            (&families.token_pool_available, levels.pool_available),
        ] {
            family.with_label_values(label).set(value);
        }
        for (family, value) in [
            (&families.token_usable, i64::from(levels.usable)),
            (&families.token_failures, i64::from(levels.failures)),
            (
                &families.token_pool_capacity,
                i64::from(levels.pool_capacity),
            ),
        ] {
            family.with_label_values(label).set(value);
        }
    }

    /// Sets the gauges of the limits of `app`.
    pub fn app(&self, app: &str, levels: &AppLevels) {
        let (families, label) = (self.0, &[app]);
        let count = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        let in_flight = families.app_in_flight.with_label_values(label);
        in_flight.set(count(levels.in_flight));
        if let Some(most) = levels.max_in_flight {
            let max = families.app_in_flight_max.with_label_values(label);
            max.set(count(most));
        }
        if let Some(most) = levels.requests_per_second {
            families.app_rate_max.with_label_values(label).set(most);
        }
    }

    /// Sets the most connections of `listener`.
    pub fn listener(&self, listener: &str, connections_max: usize) {
        let max = self.0.connections_max.with_label_values(&[listener]);
        max.set(i64::try_from(connections_max).unwrap_or(i64::MAX));
    }

    /// Sets the expiry of the certificate of `name`.
    pub fn certificate(&self, kind: CertificateKind, name: &str, expires: SystemTime) {
        let family = &self.0.certificate_expiry;
        let certificate = family.with_label_values(&[kind.label(), name]);
        certificate.set(unix_seconds(expires));
    }
}

/// Rounds to milliseconds: each scrape converts the moment to wall-clock time again, and finer
/// values would differ each time.
pub(super) fn unix_seconds(at: SystemTime) -> f64 {
    at.duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0.0, |since| (since.as_secs_f64() * 1e3).round() / 1e3)
}
