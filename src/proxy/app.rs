//! The apps: found by their credentials, and held to their limits.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use ring::digest::{SHA256, SHA256_OUTPUT_LEN, digest};

use super::client::Client;
use super::config;
use crate::local_token;
use crate::policy::limit::Limiter;
use crate::telemetry::AppMetrics;

/// An app.
#[derive(Debug)]
pub struct App {
    pub(super) config: Arc<config::App>,
    /// Its own client, if it has one.
    pub(super) client: Option<Arc<Client>>,
    /// The key that signs its local tokens, if it has a key.
    pub(super) signing: Option<local_token::Key>,
    /// Limits its requests.
    pub(super) limiter: Arc<Limiter>,
    /// Limits its local tokens.
    pub(super) tokens: Arc<Limiter>,
    pub(super) metrics: Arc<AppMetrics>,
}

/// How many local tokens an app may request per second.
const TOKENS_PER_SECOND: f64 = 20.0;

/// All apps. If there are none, callers need not authenticate.
#[derive(Debug, Default)]
pub struct Apps {
    by_name: BTreeMap<Arc<str>, Arc<App>>,
    by_key: HashMap<KeyDigest, Arc<App>>,
    /// If several apps share a certificate name, the first.
    by_certificate: HashMap<Box<str>, Arc<App>>,
}

/// The SHA-256 of a key. Apps are looked up by it: the time of a lookup depends on the digest of
/// the presented key, which reveals nothing about the right one.
type KeyDigest = [u8; SHA256_OUTPUT_LEN];

impl App {
    /// Returns an app with its own client, if any, and its metrics. It continues the counts of
    /// `before` if the limits are the same.
    #[must_use]
    pub fn new(
        config: Arc<config::App>,
        client: Option<Arc<Client>>,
        metrics: Arc<AppMetrics>,
        before: Option<&App>,
    ) -> App {
        let same = before.filter(|before| before.limiter.limits() == config.limits);
        App {
            client,
            signing: config.key.as_ref().map(local_token::Key::of),
            limiter: match same {
                Some(before) => Arc::clone(&before.limiter),
                None => Arc::new(Limiter::new(config.limits)),
            },
            tokens: match before {
                Some(before) => Arc::clone(&before.tokens),
                None => Arc::new(Limiter::per_second(TOKENS_PER_SECOND)),
            },
            metrics,
            config,
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.config.name
    }
}

impl Apps {
    /// Indexes `apps`. The configuration rules out two apps with one key.
    #[must_use]
    pub fn new(apps: impl IntoIterator<Item = App>) -> Apps {
        let named = |app: App| (Arc::clone(app.name()), Arc::new(app));
        let by_name: BTreeMap<Arc<str>, Arc<App>> = apps.into_iter().map(named).collect();
        let keyed = |app: &Arc<App>| {
            let key = app.config.key.as_ref()?;
            Some((key_digest(key.expose().as_bytes()), Arc::clone(app)))
        };
        // of several with one name, the last that is inserted stays
        let certified = by_name.values().rev().map(|app| {
            let name = app.config.certificate.as_str();
            (name.into(), Arc::clone(app))
        });
        Apps {
            by_key: by_name.values().filter_map(keyed).collect(),
            by_certificate: certified.collect(),
            by_name,
        }
    }

    /// Returns whether there are no apps.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// The app with this name.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<&Arc<App>> {
        self.by_name.get(name)
    }

    /// The app with this key.
    pub(super) fn with_key(&self, key: &[u8]) -> Option<&Arc<App>> {
        self.by_key.get(&key_digest(key))
    }

    /// The app with this name, if this is its key.
    pub(super) fn with_name_and_key(&self, name: &str, key: &[u8]) -> Option<&Arc<App>> {
        self.with_key(key).filter(|app| **app.name() == *name)
    }

    /// The app that has one of these certificate names; of several, the first by name.
    pub(super) fn on_certificate(&self, names: &[String]) -> Option<&Arc<App>> {
        let apps = names.iter();
        let apps = apps.filter_map(|name| self.by_certificate.get(name.as_str()));
        apps.min_by(|one, other| one.name().cmp(other.name()))
    }
}

fn key_digest(key: &[u8]) -> KeyDigest {
    let mut bytes = KeyDigest::default();
    bytes.copy_from_slice(digest(&SHA256, key).as_ref());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::limit::Limits;
    use crate::telemetry::Metrics;

    fn app(name: &str, certificate: &str) -> App {
        let config = config::App {
            name: name.into(),
            key: None,
            certificate: certificate.to_owned(),
            client: None,
            allow: None,
            limits: Limits::default(),
        };
        let metrics = Metrics::new("0.0.0").app(name);
        App::new(Arc::new(config), None, metrics, None)
    }

    #[test]
    fn a_certificate_belongs_to_the_first_app_that_has_one_of_its_names() {
        let apps = Apps::new([
            app("catalog", "shared"),
            app("billing", "shared"),
            app("lineage", "lineage"),
        ]);
        let on = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(ToString::to_string).collect();
            apps.on_certificate(&names)
                .map(|app| app.name().to_string())
        };
        assert_eq!(on(&["lineage"]).as_deref(), Some("lineage"));
        assert_eq!(on(&["shared"]).as_deref(), Some("billing"));
        for both in [["lineage", "shared"], ["shared", "lineage"]] {
            assert_eq!(on(&both).as_deref(), Some("billing"));
        }
        assert_eq!(on(&["nobody", "lineage"]).as_deref(), Some("lineage"));
        assert_eq!(on(&["catalog"]), None);
        assert_eq!(on(&[]), None);
    }
}
