//! Apps of a fleet: each member is called continuously, on a new connection each time.

use std::net::SocketAddr;
use std::time::Duration;

use crate::support::Proxy;
use crate::support::load::{self, Pace};

pub(super) use crate::support::load::Tally;

/// Running apps.
pub(super) struct Load(load::Load);

impl Load {
    /// One app per proxy.
    pub(super) fn begin<'a>(proxies: impl IntoIterator<Item = &'a Proxy>) -> Load {
        Load::every(Pace::default().every, proxies)
    }

    /// One app per proxy, with this time between two calls.
    pub(super) fn every<'a>(every: Duration, proxies: impl IntoIterator<Item = &'a Proxy>) -> Load {
        let addresses: Vec<SocketAddr> = proxies.into_iter().map(|proxy| proxy.address).collect();
        let pace = Pace {
            every,
            fresh: 1,
            ..Pace::default()
        };
        Load(load::Load::start(&addresses, pace))
    }

    /// The results of all apps together.
    pub(super) fn end(self) -> Tally {
        self.0.tally()
    }

    /// The results of each app.
    pub(super) fn each(self) -> Vec<Tally> {
        self.0.tallies()
    }
}
