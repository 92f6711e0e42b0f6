//! Polls a running proxy, for `wait`, `renew` and `drain`.

use std::ops::ControlFlow;
use std::time::Duration;

use anyhow::bail;

use super::admin_client::{AdminAddress, AdminClient};
use crate::clock::{Clock, Instant, SystemClock};

/// The polling interval.
const INTERVAL: Duration = Duration::from_millis(100);

/// The options of a command that polls.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct PollArgs {
    #[command(flatten)]
    address: AdminAddress,

    /// How long to wait at most
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = humantime::parse_duration)]
    timeout: Duration,
}

/// A running proxy, and the deadline of the command.
pub(super) struct Polling {
    /// Its admin address.
    pub(super) admin: AdminClient,
    timeout: Duration,
    deadline: Instant,
}

impl PollArgs {
    /// Starts the timeout.
    ///
    /// # Errors
    /// As for [`AdminClient::new`].
    pub(super) fn begin(&self) -> anyhow::Result<Polling> {
        Ok(Polling::new(AdminClient::new(&self.address)?, self.timeout))
    }
}

impl Polling {
    /// For the proxy at `admin`, with a deadline `timeout` from now.
    pub(super) fn new(admin: AdminClient, timeout: Duration) -> Polling {
        Polling {
            admin,
            timeout,
            deadline: SystemClock.now() + timeout,
        }
    }

    /// The timeout, for messages.
    pub(super) fn timeout(&self) -> humantime::FormattedDuration {
        humantime::format_duration(self.timeout)
    }

    /// The remaining time; at least [`INTERVAL`], so that a proxy can answer.
    pub(super) fn left(&self) -> Duration {
        self.deadline.since(SystemClock.now()).max(INTERVAL)
    }

    /// Calls `look` with the remaining time, at least once, until it breaks with a result.
    ///
    /// # Errors
    /// The error of `look`; at the deadline, the text with which it continued last.
    pub(super) async fn poll<T>(
        &self,
        mut look: impl AsyncFnMut(Duration) -> anyhow::Result<ControlFlow<T, String>>,
    ) -> anyhow::Result<T> {
        loop {
            match look(self.left()).await? {
                ControlFlow::Break(result) => return Ok(result),
                ControlFlow::Continue(seen) if self.left() <= INTERVAL => bail!("{seen}"),
                ControlFlow::Continue(_) => tokio::time::sleep(INTERVAL).await,
            }
        }
    }
}
