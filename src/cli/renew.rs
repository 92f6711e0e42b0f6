//! `renew`: makes a running proxy request a new token for a client, and waits for it.

use std::ops::ControlFlow;
use std::time::Duration;

use anyhow::bail;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::Method;

use super::admin_client::{AdminClient, TIMEOUT};
use super::polling::{INTERVAL, PollArgs, poll};
use super::status::report;
use super::write_out;
use crate::admin::Renewing;
use crate::admin::report::{ClientReport, FailureReport, NextKind, TokenReport};

/// Have a running proxy request a new token for a client now, and wait for it
///
/// The current token stays in use until the new one arrives. The request uses one token of the
/// client's pool: if the pool is empty, or a request is in flight already, the proxy refuses and
/// says when to retry. Call it on the machine (in the pod) of the proxy, at its loopback address or
/// its unix socket.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The client's name in the configuration
    client: String,

    #[command(flatten)]
    proxy: PollArgs,
}

/// Runs the command and prints the new token's generation.
///
/// # Errors
/// If nothing answers, if the proxy refuses, if the request fails, or if no token came in time.
pub async fn run(args: Args) -> anyhow::Result<()> {
    write_out(renew(&args.proxy, &args.client).await?)
}

async fn renew(proxy: &PollArgs, client: &str) -> anyhow::Result<String> {
    let (admin, deadline) = (&proxy.address.admin, proxy.deadline());
    let before = look(admin, client).await?.and_then(|client| client.failure);
    let path = utf8_percent_encode(client, NON_ALPHANUMERIC);
    let path = format!("/api/clients/{path}/renew");
    let refusals = [403, 404, 409, 429];
    let accepted = admin.call(Method::POST, &path, TIMEOUT, 202, &refusals);
    let renewing: Renewing = admin.json(&accepted.await?)?;
    let look = async |_| {
        let Some(now) = look(admin, client).await? else {
            bail!("{client} is no longer configured");
        };
        let is_new_token = |token: &TokenReport| token.generation > renewing.generation;
        if let Some(token) = now.token.filter(is_new_token) {
            let left = humantime::format_duration(Duration::from_secs(token.seconds_left));
            let generation = token.generation;
            let said = format!("{client}: token {generation}, good for {left}\n");
            return Ok(ControlFlow::Break(said));
        }
        let key = |failure: &FailureReport| (failure.at, failure.in_a_row);
        let is_new = |failure: &FailureReport| before.as_ref().map(key) != Some(key(failure));
        if let Some(failure) = now.failure.filter(is_new) {
            bail!("the token request failed: {}", failure.message);
        }
        let next = match (now.next.kind, now.next.in_seconds) {
            (NextKind::Request, Some(seconds)) => format!("is made in {seconds} s"),
            _ => "is in flight".to_owned(),
        };
        let timeout = humantime::format_duration(proxy.timeout);
        let late = format!(
            "no new token after {timeout}; the proxy keeps trying: its next request {next}"
        );
        Ok(ControlFlow::Continue(late))
    };
    poll(deadline, INTERVAL, look).await
}

/// Returns the proxy's report on the client, if it knows it.
async fn look(admin: &AdminClient, client: &str) -> anyhow::Result<Option<ClientReport>> {
    let (_, report) = report(admin).await?;
    let mut clients = report.clients.into_iter();
    Ok(clients.find(|one| one.name == client))
}

#[cfg(test)]
mod tests {
    use super::super::admin_client::AdminAddress;
    use super::super::admin_client::tests::answering;
    use super::*;
    use serde_json::{Value, json};

    fn status(generation: u64, failure: Value) -> (u16, String) {
        let client = json!({
            "name": "catalog", "instance": "https://acme.example", "client_id": "urn:1",
            "token": {
                "usable": true, "generation": generation, "seconds_left": 299,
                "issued": "2027-01-15T08:00:00Z", "expires": "2027-01-15T08:05:00Z",
            },
            "next": {"kind": "request", "at": "2027-01-15T08:02:30Z", "in_seconds": 150},
            "failure": failure,
            "pool": {"available": 4.0, "capacity": 5},
            "requests": {"total": 0, "in_flight": 0},
        });
        let report = json!({
            "version": "1.0.0", "started": "2027-01-15T08:00:00Z", "uptime_seconds": 1,
            "ready": true, "draining": false, "clients": [client], "listeners": [],
        });
        (200, report.to_string())
    }

    fn failed(in_a_row: u32) -> Value {
        json!({
            "outcome": "timeout", "message": "no answer from acme.example within 10 s",
            "at": "2027-01-15T08:00:00Z", "seconds_ago": 0, "in_a_row": in_a_row,
        })
    }

    fn accepted() -> (u16, String) {
        (
            202,
            json!({"client": "catalog", "generation": 7}).to_string(),
        )
    }

    async fn said(answers: Vec<(u16, String)>, timeout: Duration) -> Result<String, String> {
        let admin = answering(answers).await;
        let address = AdminAddress { admin };
        let renewed = renew(&PollArgs { address, timeout }, "catalog").await;
        renewed.map_err(|error| error.to_string())
    }

    const MINUTE: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn says_which_token_came() {
        let none = || Value::Null;
        let answers = vec![
            status(7, none()),
            accepted(),
            status(7, none()),
            status(8, none()),
        ];
        let said = said(answers, MINUTE).await;
        assert_eq!(said.unwrap(), "catalog: token 8, good for 4m 59s\n");
    }

    #[tokio::test]
    async fn a_failure_from_before_is_not_this_requests() {
        let answers = vec![
            status(7, failed(2)),
            accepted(),
            status(7, failed(2)),
            status(7, failed(3)),
        ];
        let said = said(answers, MINUTE).await.unwrap_err();
        let expected = "the token request failed: no answer from acme.example within 10 s";
        assert_eq!(said, expected);
    }

    #[tokio::test]
    async fn says_why_the_proxy_refuses_and_when_the_time_is_over() {
        let refusal = (429, "the token pool allows no request\n".to_owned());
        let refused = said(vec![status(7, Value::Null), refusal], MINUTE).await;
        let refused = refused.unwrap_err();
        assert!(
            refused.ends_with(" refuses: the token pool allows no request"),
            "{refused}"
        );
        let answers = vec![status(7, Value::Null), accepted(), status(7, Value::Null)];
        let late = said(answers, Duration::ZERO).await.unwrap_err();
        assert!(late.contains("its next request is made in 150 s"), "{late}");
    }
}
