//! The certificates whose expiry is watched.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use super::label::labels;

labels! {
    /// The owner of a certificate.
    pub enum CertificateKind {
        /// A listener.
        Listener = "listener",
        /// An instance; its latest certificate.
        Instance = "instance",
        /// The proxy as a TLS client of an instance.
        Client = "client",
    }
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
