//! `wait`: returns as soon as a running proxy is ready, for scripts that start apps after it.

use std::ops::ControlFlow;

use reqwest::Method;

use super::polling::{INTERVAL, PollArgs, poll};

/// Polls until the proxy is ready, at least once. Prints nothing if it is ready in time.
///
/// # Errors
/// If it is not; the message says what was seen last.
pub(super) async fn run(proxy: PollArgs) -> anyhow::Result<()> {
    let admin = &proxy.address.admin;
    let timeout = humantime::format_duration(proxy.timeout);
    let look = async |left| {
        let seen = match admin.ask(Method::GET, "/readyz?verbose", left).await {
            Ok(answer) if answer.status == 200 => return Ok(ControlFlow::Break(())),
            Ok(answer) if answer.status == 503 => {
                format!("{} says\n{}", admin.address, answer.text.trim_end())
            }
            Ok(answer) => admin.unexpected(answer.status, "/readyz"),
            Err(error) => error.to_string(),
        };
        Ok(ControlFlow::Continue(format!(
            "not ready after {timeout}: {seen}"
        )))
    };
    poll(proxy.deadline(), INTERVAL, look).await
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::admin_client::tests::{answering, nobody};
    use super::super::admin_client::{AdminAddress, AdminClient};
    use super::*;

    fn says(status: u16, body: &str) -> (u16, String) {
        (status, body.to_owned())
    }

    async fn waited(admin: AdminClient, timeout: Duration) -> Result<(), String> {
        let address = AdminAddress { admin };
        let waited = run(PollArgs { address, timeout }).await;
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
            admin.address
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
