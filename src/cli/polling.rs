//! Polls a running proxy or Collibra until something has happened.

use std::ops::ControlFlow;
use std::time::Duration;

use anyhow::bail;

use super::admin_client::AdminAddress;
use crate::clock::{Clock, Instant, SystemClock};

/// The polling interval for a running proxy, and the least time that it gets to answer.
pub(super) const INTERVAL: Duration = Duration::from_millis(100);

/// The options of a command that polls a running proxy.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct PollArgs {
    #[command(flatten)]
    pub(super) address: AdminAddress,

    /// How long to wait at most
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = humantime::parse_duration)]
    pub(super) timeout: Duration,
}

impl PollArgs {
    /// The end of the timeout, which starts now.
    pub(super) fn deadline(&self) -> Instant {
        SystemClock.now() + self.timeout
    }
}

/// Calls `look` every `interval`, at least once, with the remaining time, until it breaks with a
/// result.
///
/// # Errors
/// The error of `look`; at the deadline, the text with which it continued last.
pub(super) async fn poll<T>(
    deadline: Instant,
    interval: Duration,
    mut look: impl AsyncFnMut(Duration) -> anyhow::Result<ControlFlow<T, String>>,
) -> anyhow::Result<T> {
    let left = || deadline.since(SystemClock.now());
    loop {
        match look(left().max(INTERVAL)).await? {
            ControlFlow::Break(result) => return Ok(result),
            ControlFlow::Continue(seen) if left() <= interval => bail!("{seen}"),
            ControlFlow::Continue(_) => tokio::time::sleep(interval).await,
        }
    }
}
