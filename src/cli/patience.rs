//! Waiting for a running proxy, for the commands that do.

use std::ops::ControlFlow;
use std::time::Duration;

use anyhow::bail;

use super::admin_client::{AdminAddress, AdminClient};
use crate::clock::{Clock, Instant, SystemClock};

/// The polling interval.
const INTERVAL: Duration = Duration::from_millis(100);

/// The options of a command that waits.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct PatienceArgs {
    #[command(flatten)]
    address: AdminAddress,

    /// How long to wait at most
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = humantime::parse_duration)]
    timeout: Duration,
}

/// A running proxy, and until when it is waited for.
pub(super) struct Patience {
    /// Its admin address.
    pub(super) admin: AdminClient,
    timeout: Duration,
    deadline: Instant,
}

impl PatienceArgs {
    /// Starts to wait.
    ///
    /// # Errors
    /// As for [`AdminClient::new`].
    pub(super) fn begin(&self) -> anyhow::Result<Patience> {
        Ok(Patience::new(
            AdminClient::new(&self.address)?,
            self.timeout,
        ))
    }
}

impl Patience {
    /// Waits for the proxy at `admin` for `timeout` from now on.
    pub(super) fn new(admin: AdminClient, timeout: Duration) -> Patience {
        Patience {
            admin,
            timeout,
            deadline: SystemClock.now() + timeout,
        }
    }

    /// The whole time, for messages.
    pub(super) fn timeout(&self) -> humantime::FormattedDuration {
        humantime::format_duration(self.timeout)
    }

    /// The time that is left; never so short that no proxy could answer.
    pub(super) fn left(&self) -> Duration {
        self.deadline.since(SystemClock.now()).max(INTERVAL)
    }

    /// Calls `look` with the time that is left, at least once and until it breaks with a result.
    ///
    /// # Errors
    /// That of `look`, or what it continued with last when the time is over.
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
