//! Apps that send 50 calls a second through the proxy, over 10 connections.

use std::net::SocketAddr;
use std::time::Duration;

use crate::support::load::{self, Pace};

pub(super) use crate::support::load::Outcome as Got;

const PACE: Pace = Pace {
    callers: 10,
    every: Duration::from_millis(200),
    fresh: 0,
    catches_up: false,
    patience: Duration::from_secs(10),
};

/// Running apps.
pub(super) struct Load(load::Load);

/// The results of all apps.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) answers: u64,
    pub(super) others: Vec<Got>,
}

impl Load {
    pub(super) fn begin(proxy: &str) -> Load {
        Load(load::Load::start(&[address(proxy)], PACE))
    }

    /// Waits until the apps got this many answers, for which a busy machine takes longer.
    pub(super) async fn is_answered(&self, least: u64) -> bool {
        self.0.is_answered(least).await
    }

    /// Stops the apps after their current calls.
    pub(super) async fn end(self) -> Tally {
        let mut tally = Tally::default();
        for call in self.0.stop().await {
            match call.outcome {
                Got::Answered => tally.answers += 1,
                other => tally.others.push(other),
            }
        }
        tally
    }
}

/// Sends one request, and classifies the response.
pub(super) async fn call(proxy: &str) -> Got {
    load::call(address(proxy), PACE.patience).await
}

fn address(url: &str) -> SocketAddr {
    url.strip_prefix("http://").unwrap().parse().unwrap()
}
