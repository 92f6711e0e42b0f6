//! `status`: the state of a running proxy, for people or as JSON.

use std::io::{self, IsTerminal};
use std::time::Duration;

use anyhow::Context;
use reqwest::Method;

use super::admin_client::{AdminAddress, AdminClient, TIMEOUT};
use super::status_table::{render, screen};
use super::terminal::{Screen, width};
use super::write_out;
use crate::admin::report::StatusReport;

/// The polling interval of `--watch`.
const INTERVAL: Duration = Duration::from_secs(1);

/// Show what a running proxy is doing: its clients, tokens, pools, apps and listeners
///
/// OK and P95 are of the last five minutes: the share of requests that did not fail, and the
/// duration that 95 % of them stayed within. On a terminal lines are cut to its width; a pipe gets
/// them whole, or cut to COLUMNS if that is set.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    address: AdminAddress,

    /// Print the answer of /api/status as it is; its fields are stable
    #[arg(long)]
    json: bool,

    /// Look again every second, until interrupted: on a terminal like top, the busiest apps first
    #[arg(long)]
    watch: bool,
}

/// Runs the command. It succeeds even if the proxy is not ready.
///
/// # Errors
/// If the address does not answer, or is not a proxy's.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let admin = &args.address.admin;
    if args.watch && !args.json && io::stdout().is_terminal() {
        return watch(admin).await;
    }
    let mut before = "";
    loop {
        write_out(format!("{before}{}", look(admin, args.json).await?))?;
        if !args.watch {
            return Ok(());
        }
        before = if args.json { "" } else { "\n" };
        tokio::time::sleep(INTERVAL).await;
    }
}

/// Shows one screen after the other until a key or a signal ends it. Continues while the proxy does
/// not answer, since it may be restarting.
async fn watch(admin: &AdminClient) -> anyhow::Result<()> {
    let (_, mut seen) = report(admin).await?;
    let mut notice = None;
    let lost = "the terminal cannot be used";
    let mut terminal = Screen::enter().context(lost)?;
    let mut looks = tokio::time::interval(INTERVAL);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    // the first status is already here
    looks.tick().await;
    loop {
        let lines = screen(&seen, notice.as_deref(), terminal.size());
        terminal.draw(&lines).context(lost)?;
        let next = async {
            looks.tick().await;
            report(admin).await
        };
        tokio::select! {
            quits = terminal.quits() => if quits.context(lost)? {
                return Ok(());
            },
            looked = next => match looked {
                Ok((_, report)) => (seen, notice) = (report, None),
                Err(error) => notice = Some(error.to_string()),
            },
        }
    }
}

/// Formats one status as requested, with a line break at its end.
async fn look(admin: &AdminClient, json: bool) -> anyhow::Result<String> {
    let (text, report) = report(admin).await?;
    Ok(match json {
        true => format!("{}\n", text.trim_end()),
        false => render(&report, width()),
    })
}

/// The status as received and parsed.
///
/// # Errors
/// If the address does not answer, or is not a proxy's.
pub(super) async fn report(admin: &AdminClient) -> anyhow::Result<(String, StatusReport)> {
    let asked = admin.call(Method::GET, "/api/status", TIMEOUT, 200, &[]);
    let text = asked.await?;
    let report = admin.json(&text)?;
    Ok((text, report))
}

#[cfg(test)]
mod tests {
    use super::super::admin_client::tests::{answering, nobody};
    use super::*;
    use crate::telemetry::printable::is_printable;

    const EMPTY: &str = r#"{"version":"9.9.9","started":"2027-01-15T08:00:00Z","uptime_seconds":61,
        "ready":true,"draining":false,"clients":[],"listeners":[],"of_a_later_version":1}"#;

    #[tokio::test]
    async fn json_is_passed_on_as_it_is() {
        let admin = answering(vec![(200, EMPTY.to_owned()), (200, EMPTY.to_owned())]).await;
        assert_eq!(look(&admin, true).await.unwrap(), format!("{EMPTY}\n"));
        let table = look(&admin, false).await.unwrap();
        assert!(table.starts_with("collibra-auth-proxy 9.9.9, up 1m 1s: ready\n"));
    }

    #[tokio::test]
    async fn nothing_in_it_steers_the_terminal() {
        let odd = "\\u001b]0;x\\u0007\\u009b2J\\u202e\u{9d}\u{2066}\\n";
        let listener = format!(
            r#""listeners":[{{"name":"{odd}","address":"{odd}","client":"{odd}","connections":1}}]"#
        );
        let text = EMPTY.replace("\"listeners\":[]", &listener);
        let text = text.replace("9.9.9", &format!("9{odd}"));
        let admin = answering(vec![(200, text.clone()), (200, text)]).await;
        let table = look(&admin, false).await.unwrap();
        let json = look(&admin, true).await.unwrap();
        for shown in [&table, &json] {
            let is_shown = |c| c == '\n' || is_printable(c);
            assert!(shown.chars().all(is_shown), "{shown:?}");
        }
        assert!(table.contains("\u{fffd}]0;x\u{fffd}"), "{table}");
        assert_eq!(table.lines().count(), 4, "{table}");
    }

    #[tokio::test]
    async fn what_is_no_proxy_is_told_apart_from_what_is_not_there() {
        let admin = answering(vec![(404, String::new()), (200, "<html>".to_owned())]).await;
        let error = look(&admin, false).await.unwrap_err();
        assert!(error.to_string().contains("answers 404 to /api/status"));
        let error = look(&admin, true).await.unwrap_err();
        assert!(error.to_string().contains("is not a proxy's"), "{error}");
        let error = look(&nobody().await, false).await.unwrap_err();
        assert!(error.to_string().contains("nothing answers at"), "{error}");
    }
}
