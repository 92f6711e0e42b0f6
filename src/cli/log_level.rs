//! `log-level`: shows what a running proxy logs, or changes it.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::admin_client::{AdminAddress, AdminClient};
use super::write_out;
use crate::admin::LogLevel;

/// The timeout of a call.
const PATIENCE: Duration = Duration::from_secs(5);

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
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let admin = AdminClient::new(&args.address)?;
    let level = level(&admin, args.level.as_deref()).await?;
    write_out(format!("{level}\n").as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

async fn level(admin: &AdminClient, wanted: Option<&str>) -> anyhow::Result<String> {
    const PATH: &str = "/api/log-level";
    let answer = match wanted {
        None => admin.get(PATH, PATIENCE).await?,
        Some(level) => {
            let level = utf8_percent_encode(level, NON_ALPHANUMERIC);
            let path = format!("{PATH}?level={level}");
            admin.post(&path, PATIENCE).await?
        }
    };
    let (address, status) = (admin.address(), answer.status);
    match status {
        200 => {
            let read = serde_json::from_str(&answer.text);
            let LogLevel { level } =
                read.with_context(|| format!("the answer of {address} is no log level"))?;
            Ok(level)
        }
        400 | 403 => bail!("{address} refuses: {}", answer.text.trim_end()),
        _ => bail!(
            "{address} answers {status} to {PATH}; is this the proxy's admin address (--admin)?"
        ),
    }
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
