//! `serve`: the main job.

use std::process::ExitCode;
use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};
use tracing::{error, info, warn};

use super::source::{Source, environment};
use crate::app::{self, Running};
use crate::clock::SystemClock;
use crate::config::watch::Files;
use crate::config::{Config, reload};

/// Run the proxy.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    source: Source,
}

/// Serves until SIGTERM or SIGINT, then lets what is under way finish. Reads the configuration
/// again on SIGHUP, and when one of its files changes.
///
/// # Errors
/// [`crate::config::Faults`] if the configuration is wrong; otherwise why the server cannot start.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let config = args.source.load()?;
    for warning in &config.warnings {
        warn!("{warning}");
    }
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if config.server.threads > 0 {
        runtime.worker_threads(config.server.threads);
    }
    let serving = serve(args.source, config);
    runtime.enable_all().build()?.block_on(serving)
}

async fn serve(source: Source, config: Config) -> anyhow::Result<ExitCode> {
    // from here on a signal is kept for us, even one that comes while the server starts
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut files = config.files.clone();
    let mut running = app::start(config, Arc::new(SystemClock)).await?;
    let signal = loop {
        tokio::select! {
            _ = terminate.recv() => break "SIGTERM",
            _ = interrupt.recv() => break "SIGINT",
            _ = hangup.recv() => info!("reading the configuration again: SIGHUP"),
            changed = files.changed() => {
                info!(?changed, "reading the configuration again: its files have changed");
            }
        }
        files = read_again(&source, &mut running);
    };
    let drain = running.config().server.drain;
    info!(
        signal,
        drain_seconds = drain.as_secs_f64(),
        "finishing what is under way"
    );
    let cut = tokio::select! {
        cut = running.drain(drain) => cut,
        _ = terminate.recv() => return stopped_at_once(),
        _ = interrupt.recv() => return stopped_at_once(),
    };
    if cut > 0 {
        warn!(
            connections = cut,
            "the time to drain is over: cut what was still under way"
        );
    }
    info!("stopped");
    Ok(ExitCode::SUCCESS)
}

/// Takes the configuration over as it is now, if it is sound. Gives the files whose next change is
/// a reason to try again.
fn read_again(source: &Source, running: &mut Running) -> Files {
    let faults = match source.load() {
        Ok(config) => {
            let files = config.files.clone();
            take_over(running, config);
            return files;
        }
        Err(faults) => faults,
    };
    for fault in faults.iter() {
        error!("{fault}");
    }
    error!("the configuration is refused; the one before goes on");
    let mut files = faults.files().clone();
    // the one that goes on has files too: a secret may have been changed in the meantime
    if let Some(Ok(config)) = running.config().read_files_again(&environment) {
        files = files.and(&config.files);
        if !reload::differences(running.config(), &config).is_empty() {
            take_over(running, config);
        }
    }
    running.refused();
    files
}

fn take_over(running: &mut Running, config: Config) {
    let before = running.config();
    let changes = reload::differences(before, &config);
    let warned = |warning| before.warnings.contains(warning);
    for warning in config.warnings.iter().filter(|warning| !warned(warning)) {
        warn!("{warning}");
    }
    match running.reload(config) {
        Ok(_) if changes.is_empty() => info!("the configuration is what it was"),
        Ok(needs_restart) => {
            info!(
                changes = changes.join(", "),
                "the configuration is in force"
            );
            for key in needs_restart {
                warn!(key, "this change counts from the next start on");
            }
        }
        Err(e) => error!("the configuration is refused; the one before goes on: {e}"),
    }
}

/// A second signal means now.
fn stopped_at_once() -> anyhow::Result<ExitCode> {
    warn!("a second signal: stopped at once");
    Ok(ExitCode::FAILURE)
}
