//! `drain`: asks a running proxy to finish requests in flight and exit, and waits until it has
//! exited.

use std::ops::ControlFlow;
use std::time::Duration;

use reqwest::Method;

use super::admin_client::AdminClient;
use super::polling::{INTERVAL, PollArgs, poll};
use crate::admin::report::StatusReport;

/// Have a running proxy finish requests in flight and exit, and wait until it has exited
///
/// It does what SIGTERM does: no new connections, readyz says "draining", requests in flight may
/// finish within server.drain, and the proxy exits with status 0. Set --timeout to more than that.
///
/// For a Kubernetes Job whose proxy is an ordinary container, call it when the work is done, so
/// that the pod can complete: my-job; status=$?; collibra-auth-proxy drain; exit $status. In a
/// preStop hook it lets requests in flight finish before SIGTERM is sent; a proxy behind a Service
/// should sleep there instead, because new connections arrive until every node knows that the pod
/// is gone. Call it on the machine (in the pod) of the proxy, at its loopback address or its unix
/// socket.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    proxy: PollArgs,
}

/// Requests the drain, and waits until the proxy has exited. Prints nothing then.
///
/// # Errors
/// If nothing answers, if the proxy refuses, or if it still runs at the timeout.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let (admin, timeout) = (&args.proxy.address.admin, args.proxy.timeout);
    let deadline = args.proxy.deadline();
    let patience = timeout.max(INTERVAL);
    let accepted = admin.call(Method::POST, "/drain", patience, 202, &[403]);
    accepted.await?;
    let look = async |left| {
        Ok(match is_gone(admin, left).await {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(format!(
                "the proxy at {} is still draining after {}; it continues until its server.drain is over",
                admin.address,
                humantime::format_duration(timeout)
            )),
        })
    };
    poll(deadline, INTERVAL, look).await
}

/// Whether the draining proxy has exited, or another one has taken its address.
async fn is_gone(admin: &AdminClient, left: Duration) -> bool {
    match admin.ask(Method::GET, "/api/status", left).await {
        Ok(answer) => {
            let report: Result<StatusReport, _> = serde_json::from_str(&answer.text);
            !report.is_ok_and(|report| report.draining)
        }
        Err(error) => !error.is_silence,
    }
}

#[cfg(test)]
mod tests {
    use super::super::admin_client::AdminAddress;
    use super::super::admin_client::tests::{answering, nobody};
    use super::*;

    async fn drained(admin: AdminClient, timeout: Duration) -> Result<(), String> {
        let address = AdminAddress { admin };
        let proxy = PollArgs { address, timeout };
        run(Args { proxy }).await.map_err(|error| error.to_string())
    }

    async fn said(answers: &[(u16, &str)], timeout: Duration) -> Result<(), String> {
        let answers = answers
            .iter()
            .map(|(status, body)| (*status, (*body).to_owned()));
        drained(answering(answers.collect()).await, timeout).await
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
    async fn a_missing_proxy_is_a_failure() {
        let error = drained(nobody().await, MINUTE).await.unwrap_err();
        assert!(error.starts_with("nothing answers at"), "{error}");
    }
}
