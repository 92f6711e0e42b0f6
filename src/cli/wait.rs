//! `wait`: returns as soon as a running proxy is ready, for scripts that start apps after it.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;

use super::admin_client::{AdminAddress, AdminClient};
use crate::clock::{Clock, SystemClock};

/// The polling interval.
const INTERVAL: Duration = Duration::from_millis(100);

/// Wait until a running proxy is ready: until every client holds a usable token
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    address: AdminAddress,

    /// How long to wait at most
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = humantime::parse_duration)]
    timeout: Duration,
}

/// Carries the command out. Says nothing if the proxy is ready in time.
///
/// # Errors
/// If it is not; the message holds what it said last.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let admin = AdminClient::new(&args.address)?;
    let waited = wait(&admin, &SystemClock, args.timeout).await;
    if let Err(last) = waited {
        let timeout = humantime::format_duration(args.timeout);
        bail!("not ready after {timeout}: {last}");
    }
    Ok(ExitCode::SUCCESS)
}

/// Looks until the proxy is ready, at least once. The error is what was seen last.
async fn wait(admin: &AdminClient, clock: &dyn Clock, timeout: Duration) -> Result<(), String> {
    let deadline = clock.now() + timeout;
    loop {
        let left = deadline.since(clock.now());
        let seen = match admin.get("/readyz?verbose", left.max(INTERVAL)).await {
            Ok(answer) if answer.status == 200 => return Ok(()),
            Ok(answer) if answer.status == 503 => {
                format!("{} says\n{}", admin.address(), answer.text.trim_end())
            }
            Ok(answer) => format!(
                "{} answers {} to /readyz; is this the proxy's admin address (--admin)?",
                admin.address(),
                answer.status
            ),
            Err(error) => error.to_string(),
        };
        if deadline.since(clock.now()) <= INTERVAL {
            return Err(seen);
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::super::admin_client::tests::{answering, nobody};
    use super::*;

    fn says(status: u16, body: &str) -> (u16, String) {
        (status, body.to_owned())
    }

    #[tokio::test]
    async fn returns_as_soon_as_the_proxy_is_ready() {
        let admin = answering(vec![
            says(503, "not ready"),
            says(503, "not ready"),
            says(200, "ready"),
        ])
        .await;
        let waited = wait(&admin, &SystemClock, Duration::from_secs(60)).await;
        assert_eq!(waited, Ok(()));
    }

    #[tokio::test]
    async fn looks_once_even_without_time() {
        let admin = answering(vec![says(200, "ready")]).await;
        let waited = wait(&admin, &SystemClock, Duration::ZERO).await;
        assert_eq!(waited, Ok(()));
    }

    #[tokio::test]
    async fn says_what_it_was_told_last() {
        let admin = answering(vec![says(503, "dev: has no token yet\n")]).await;
        let waited = wait(&admin, &SystemClock, Duration::ZERO).await;
        let expected = format!("{} says\ndev: has no token yet", admin.address());
        assert_eq!(waited, Err(expected));

        let other = answering(vec![says(404, "who?")]).await;
        let waited = wait(&other, &SystemClock, Duration::ZERO).await;
        assert!(waited.unwrap_err().contains("answers 404"));
    }

    #[tokio::test]
    async fn says_that_nobody_is_there() {
        let admin = nobody().await;
        let waited = wait(&admin, &SystemClock, Duration::from_millis(250)).await;
        assert!(waited.unwrap_err().starts_with("nothing answers at"));
    }
}
