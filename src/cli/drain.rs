//! `drain`: asks a running proxy to finish requests in flight and exit, and waits until it has
//! exited.

use std::ops::ControlFlow;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;

use super::admin_client::{AdminClient, Answer};
use super::polling::{PollArgs, Polling};
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

/// Carries the command out. Says nothing if the proxy is gone in time.
///
/// # Errors
/// If nothing answers, if the proxy refuses, or if it still runs at the timeout.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    drain(&args.proxy.begin()?).await?;
    Ok(ExitCode::SUCCESS)
}

async fn drain(proxy: &Polling) -> anyhow::Result<()> {
    let admin = &proxy.admin;
    let answer = admin.post("/drain", proxy.left()).await?;
    let (address, status) = (admin.address(), answer.status);
    match status {
        202 => {}
        403 => bail!("{address} refuses: {}", answer.text.trim_end()),
        _ => bail!(
            "{address} answers {status} to /drain; is this the proxy's admin address (--admin)?"
        ),
    }
    let still = || {
        format!(
            "the proxy at {address} is still draining after {}; it continues until its server.drain is over",
            proxy.timeout()
        )
    };
    let look = async |left| match is_gone(admin, left).await {
        true => Ok(ControlFlow::Break(())),
        false => Ok(ControlFlow::Continue(still())),
    };
    proxy.poll(look).await
}

/// Whether the draining proxy has exited, or another one has taken its address.
async fn is_gone(admin: &AdminClient, left: Duration) -> bool {
    match admin.get("/api/status", left).await {
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
        let drained = drain(&Polling::new(admin, timeout)).await;
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
    async fn a_missing_proxy_is_a_failure() {
        let nobody = Polling::new(nobody().await, MINUTE);
        let error = drain(&nobody).await.unwrap_err();
        assert!(
            error.to_string().starts_with("nothing answers at"),
            "{error}"
        );
    }
}
