//! Apps of a fleet: each member is called continuously, and every response is counted.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::support::{Proxy, http};

/// An app's pause between two calls.
const EVERY: Duration = Duration::from_millis(50);

/// Running apps.
pub(super) struct Load {
    stop: Arc<AtomicBool>,
    apps: Vec<JoinHandle<Tally>>,
}

/// Their results.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    pub(super) answers: u64,
    /// 503 `no-token` with `Retry-After`.
    pub(super) without_token: u64,
    /// Any other failure, with its count.
    pub(super) failures: BTreeMap<String, u64>,
}

impl Load {
    /// One app per proxy.
    pub(super) fn begin<'a>(proxies: impl IntoIterator<Item = &'a Proxy>) -> Load {
        Load::every(EVERY, proxies)
    }

    /// One app per proxy, with this pause between two calls.
    pub(super) fn every<'a>(pause: Duration, proxies: impl IntoIterator<Item = &'a Proxy>) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let app = |proxy: &Proxy| {
            let (address, stop) = (proxy.address, Arc::clone(&stop));
            std::thread::spawn(move || app(address, pause, &stop))
        };
        let apps = proxies.into_iter().map(app).collect();
        Load { stop, apps }
    }

    /// The results of all apps together.
    pub(super) fn end(self) -> Tally {
        self.each().into_iter().fold(Tally::default(), Tally::and)
    }

    /// The results of each app.
    pub(super) fn each(self) -> Vec<Tally> {
        self.stop.store(true, Ordering::Relaxed);
        let apps = self.apps.into_iter();
        apps.map(|app| app.join().unwrap()).collect()
    }
}

impl Tally {
    fn and(mut self, other: Tally) -> Tally {
        self.answers += other.answers;
        self.without_token += other.without_token;
        for (failure, times) in other.failures {
            *self.failures.entry(failure).or_default() += times;
        }
        self
    }

    /// Asserts that Collibra answered every call.
    #[track_caller]
    pub(super) fn assert_all_answered(&self) {
        let failed = self.without_token > 0 || !self.failures.is_empty();
        assert!(self.answers > 0 && !failed, "{self:?}");
    }
}

fn app(address: SocketAddr, pause: Duration, stop: &AtomicBool) -> Tally {
    let mut tally = Tally::default();
    while !stop.load(Ordering::Relaxed) {
        let answer = http::get(address, "/rest/2.0/application/info");
        let reason = answer.header("x-collibra-auth-proxy");
        match (answer.status, reason, answer.header("retry-after")) {
            (200, None, _) => tally.answers += 1,
            (503, Some("no-token"), Some(_)) => tally.without_token += 1,
            (status, reason, _) => {
                let failure = format!("{status} {reason:?}");
                *tally.failures.entry(failure).or_default() += 1;
            }
        }
        std::thread::sleep(pause);
    }
    tally
}
