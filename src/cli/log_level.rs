//! `log-level`: shows what a running proxy logs, or changes it.

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::Method;

use super::admin_client::{AdminAddress, AdminClient, TIMEOUT};
use super::write_out;
use crate::admin::LogLevel;

/// Show a running proxy's log level, or change it until the proxy exits
///
/// The change is not stored: a proxy starts with --log-level. The level is this program's own.
/// Libraries log at info at most, because below that they print what they send. Change it on the
/// machine (in the pod) of the proxy, at its loopback address or its unix socket.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The new level: off, error, warn, info, debug or trace; without it, the current level is
    /// shown
    level: Option<String>,

    #[command(flatten)]
    address: AdminAddress,
}

/// Runs the command and prints the current level.
///
/// # Errors
/// If nothing answers, or if the proxy refuses.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let level = level(&args.address.admin, args.level.as_deref()).await?;
    write_out(format!("{level}\n"))
}

async fn level(admin: &AdminClient, wanted: Option<&str>) -> anyhow::Result<String> {
    let (method, query) = match wanted {
        None => (Method::GET, String::new()),
        Some(level) => {
            let level = utf8_percent_encode(level, NON_ALPHANUMERIC);
            (Method::POST, format!("?level={level}"))
        }
    };
    let path = format!("/api/log-level{query}");
    let text = admin.call(method, &path, TIMEOUT, 200, &[400, 403]).await?;
    let LogLevel { level } = admin.json(&text)?;
    Ok(level)
}

#[cfg(test)]
mod tests {
    use super::super::admin_client::tests::answering;
    use super::*;

    #[tokio::test]
    async fn says_the_level_or_why_it_stays() {
        let answers = [
            (200, "{\"level\":\"info\"}"),
            (200, "{\"level\":\"debug\"}"),
            (400, "\"loud\" is no log level\n"),
            (404, ""),
        ];
        let answers = answers.map(|(status, body)| (status, body.to_owned()));
        let admin = answering(answers.into()).await;
        assert_eq!(level(&admin, None).await.unwrap(), "info");
        assert_eq!(level(&admin, Some("debug")).await.unwrap(), "debug");
        let refused = level(&admin, Some("loud")).await.unwrap_err().to_string();
        assert!(
            refused.ends_with(" refuses: \"loud\" is no log level"),
            "{refused}"
        );
        let other = level(&admin, None).await.unwrap_err().to_string();
        assert!(other.contains("answers 404 to /api/log-level"), "{other}");
    }
}
