//! What is looked up at each scrape, because it changes without an event: a token expires, a pool
//! refills, a certificate is replaced, an app leaves the configuration.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use super::families::Families;

/// Takes the levels of one scrape. What is not set is not shown: the series of a client, an app or a
/// certificate that is gone ends.
#[derive(Debug)]
pub struct Levels<'a>(pub(super) &'a Families);

/// A client's token and pool.
#[derive(Clone, Copy, Debug)]
pub struct ClientLevels {
    /// Whether the token may be sent.
    pub usable: bool,
    /// The token, dead or alive, if there ever was one.
    pub held: Option<TokenTimes>,
    /// When the next token request is due; now, while one is in flight.
    pub next_request: SystemTime,
    /// How many token requests have failed in a row.
    pub failures: u32,
    /// What the issuer's pool holds, as mirrored here, in tokens.
    pub pool_available: f64,
    /// What the pool holds when it is full.
    pub pool_capacity: u32,
}

/// A token's number and life, by the wall clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenTimes {
    /// The generation: the client's tokens are numbered from 1.
    pub generation: u64,
    /// When it was requested.
    pub issued: SystemTime,
    /// When it expires.
    pub expires: SystemTime,
}

/// An app's limits, as far as it has any, and how near it is.
#[derive(Clone, Copy, Debug)]
pub struct AppLevels {
    /// Requests in flight.
    pub in_flight: u64,
    /// The most that may be in flight at once.
    pub max_in_flight: Option<u64>,
    /// The most requests a second.
    pub requests_per_second: Option<f64>,
}

/// Whose certificate it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CertificateKind {
    /// A listener's own.
    Listener,
    /// An instance's, as it was last shown.
    Instance,
    /// The one that the proxy shows to an instance.
    Client,
}

/// When a certificate expires, shared between the connections that see it and the metrics. To the
/// second.
#[derive(Clone, Debug, Default)]
pub struct Expiry(Arc<AtomicU64>);

impl Expiry {
    /// The certificate expires `at`; unknown if that is no time after 1970.
    #[must_use]
    pub fn at(at: SystemTime) -> Expiry {
        let expiry = Expiry::default();
        expiry.set(at);
        expiry
    }

    /// The certificate, which may be another one now, expires `at`.
    pub fn set(&self, at: SystemTime) {
        let since = at.duration_since(SystemTime::UNIX_EPOCH);
        let seconds = since.map_or(0, |since| since.as_secs());
        self.0.store(seconds, Ordering::Relaxed);
    }

    /// When it expires, if a certificate was seen.
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
    /// The token and the pool of `client`.
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

    /// The limits of `app`.
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

    /// The most connections that `listener` may have open.
    pub fn listener(&self, listener: &str, connections_max: usize) {
        let max = self.0.connections_max.with_label_values(&[listener]);
        max.set(i64::try_from(connections_max).unwrap_or(i64::MAX));
    }

    /// When the certificate of `name` expires.
    pub fn certificate(&self, kind: CertificateKind, name: &str, expires: SystemTime) {
        let family = &self.0.certificate_expiry;
        let certificate = family.with_label_values(&[kind.label(), name]);
        certificate.set(unix_seconds(expires));
    }
}

/// To the millisecond: the wall-clock time of a moment is computed anew for each scrape, and would
/// differ in every one if it were more precise.
pub(super) fn unix_seconds(at: SystemTime) -> f64 {
    at.duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0.0, |since| (since.as_secs_f64() * 1e3).round() / 1e3)
}
