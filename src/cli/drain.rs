//! `drain`: has a running proxy finish what is under way and exit, and waits until it is gone.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;

use super::admin_client::{AdminAddress, AdminClient, Answer};
use crate::admin::report::StatusReport;
use crate::clock::{Clock, SystemClock};

/// The polling interval.
const INTERVAL: Duration = Duration::from_millis(100);

/// Have a running proxy finish what is under way and exit, and wait until it is gone
///
/// It does what SIGTERM does: no new connections, readyz says "draining", what is under way may
/// finish for as long as server.drain says, and the proxy exits with status 0.
///
/// For a Kubernetes Job whose proxy is an ordinary container, call it when the work is done, so
/// that the pod can complete: my-job; status=$?; collibra-auth-proxy drain; exit $status. In a
/// preStop hook it waits for what is under way before SIGTERM comes; a proxy behind a Service should
/// sleep there instead, for new connections come until every node knows that the pod is gone. It
/// works from the machine (the pod) that the proxy runs on, at its loopback address or its unix
/// socket.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    address: AdminAddress,

    /// How long to wait at most; give it more than server.drain
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = humantime::parse_duration)]
    timeout: Duration,
}

/// Carries the command out. Says nothing if the proxy is gone in time.
///
/// # Errors
/// If nothing answers, if the proxy refuses, or if it is still there when the time is over.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let admin = AdminClient::new(&args.address)?;
    drain(&admin, &SystemClock, args.timeout).await?;
    Ok(ExitCode::SUCCESS)
}

async fn drain(admin: &AdminClient, clock: &dyn Clock, timeout: Duration) -> anyhow::Result<()> {
    let deadline = clock.now() + timeout;
    let answer = admin.post("/drain", timeout.max(INTERVAL)).await?;
    let (address, status) = (admin.address(), answer.status);
    match status {
        202 => {}
        403 => bail!("{address} refuses: {}", answer.text.trim_end()),
        _ => bail!(
            "{address} answers {status} to /drain; is this the proxy's admin address (--admin)?"
        ),
    }
    while !is_gone(admin, deadline.since(clock.now())).await {
        if deadline.since(clock.now()) <= INTERVAL {
            let timeout = humantime::format_duration(timeout);
            bail!(
                "the proxy at {address} still finishes what is under way after {timeout}; it goes on until its server.drain is over"
            );
        }
        tokio::time::sleep(INTERVAL).await;
    }
    Ok(())
}

/// Whether the proxy that was told to go is no longer there, or another has its place.
async fn is_gone(admin: &AdminClient, left: Duration) -> bool {
    match admin.get("/api/status", left.max(INTERVAL)).await {
        Ok(answer) => !drains(&answer),
        Err(error) => !error.is_silence(),
    }
}

/// Whether a status says that the process is on its way out.
fn drains(answer: &Answer) -> bool {
    serde_json::from_str(&answer.text).is_ok_and(|report: StatusReport| report.draining)
}

#[cfg(test)]
mod tests {
    use super::super::admin_client::tests::{answering, nobody};
    use super::*;

    async fn said(answers: &[(u16, &str)], timeout: Duration) -> Result<(), String> {
        let answers = answers
            .iter()
            .map(|(status, body)| (*status, (*body).to_owned()));
        let admin = answering(answers.collect()).await;
        let drained = drain(&admin, &SystemClock, timeout).await;
        drained.map_err(|error| error.to_string())
    }

    const MINUTE: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn returns_when_the_proxy_is_gone() {
        assert_eq!(said(&[(202, "draining")], MINUTE).await, Ok(()));
    }

    #[tokio::test]
    async fn says_why_it_was_refused() {
        let refused = said(&[(403, "not you\n")], MINUTE).await.unwrap_err();
        assert!(refused.ends_with(" refuses: not you"), "{refused}");
        let other = said(&[(404, "")], MINUTE).await.unwrap_err();
        assert!(other.contains("answers 404 to /drain"), "{other}");
    }

    #[tokio::test]
    async fn nobody_to_ask_is_a_failure() {
        let admin = nobody().await;
        let error = drain(&admin, &SystemClock, MINUTE).await.unwrap_err();
        assert!(
            error.to_string().starts_with("nothing answers at"),
            "{error}"
        );
    }
}
