//! `wait`: returns as soon as a running proxy is ready, for scripts that start apps after it.

use std::ops::ControlFlow;
use std::process::ExitCode;

use super::polling::{PollArgs, Polling};

/// Wait until a running proxy is ready: until every client holds a usable token
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    proxy: PollArgs,
}

/// Carries the command out. Says nothing if the proxy is ready in time.
///
/// # Errors
/// If it is not; the message holds what it said last.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    wait(&args.proxy.begin()?).await?;
    Ok(ExitCode::SUCCESS)
}

/// Polls until the proxy is ready, at least once. The error says what was seen last.
async fn wait(proxy: &Polling) -> anyhow::Result<()> {
    let (admin, timeout) = (&proxy.admin, proxy.timeout());
    let look = async |left| {
        let seen = match admin.get("/readyz?verbose", left).await {
            Ok(answer) if answer.status == 200 => return Ok(ControlFlow::Break(())),
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
        Ok(ControlFlow::Continue(format!(
            "not ready after {timeout}: {seen}"
        )))
    };
    proxy.poll(look).await
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::admin_client::AdminClient;
    use super::super::admin_client::tests::{answering, nobody};
    use super::*;

    fn says(status: u16, body: &str) -> (u16, String) {
        (status, body.to_owned())
    }

    async fn waited(admin: AdminClient, timeout: Duration) -> Result<(), String> {
        let waited = wait(&Polling::new(admin, timeout)).await;
        waited.map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn returns_as_soon_as_the_proxy_is_ready() {
        let admin = answering(vec![
            says(503, "not ready"),
            says(503, "not ready"),
            says(200, "ready"),
        ])
        .await;
        assert_eq!(waited(admin, Duration::from_secs(60)).await, Ok(()));
    }

    #[tokio::test]
    async fn polls_once_even_with_a_zero_timeout() {
        let admin = answering(vec![says(200, "ready")]).await;
        assert_eq!(waited(admin, Duration::ZERO).await, Ok(()));
    }

    #[tokio::test]
    async fn a_timeout_reports_the_last_answer() {
        let admin = answering(vec![says(503, "dev: has no token yet\n")]).await;
        let expected = format!(
            "not ready after 0s: {} says\ndev: has no token yet",
            admin.address()
        );
        assert_eq!(waited(admin, Duration::ZERO).await, Err(expected));

        let other = answering(vec![says(404, "who?")]).await;
        let said = waited(other, Duration::ZERO).await.unwrap_err();
        assert!(said.contains("answers 404"), "{said}");
    }

    #[tokio::test]
    async fn a_timeout_reports_a_missing_proxy() {
        let waited = waited(nobody().await, Duration::from_millis(250)).await;
        let said = waited.unwrap_err();
        assert!(
            said.starts_with("not ready after 250ms: nothing answers at"),
            "{said}"
        );
    }
}
