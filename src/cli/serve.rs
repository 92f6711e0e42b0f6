//! `serve`: the main job.

use std::process::ExitCode;
use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};
use tracing::{info, warn};

use super::source::Source;
use crate::app;
use crate::clock::SystemClock;
use crate::config::Config;

/// Run the proxy.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    source: Source,
}

/// Serves until SIGTERM or SIGINT, then lets what is under way finish.
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
    runtime.enable_all().build()?.block_on(serve(config))
}

async fn serve(config: Config) -> anyhow::Result<ExitCode> {
    let drain = config.server.drain;
    // from here on a signal is kept for us, even one that comes while the server starts
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let running = app::start(config, Arc::new(SystemClock)).await?;
    let signal = tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    };
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

/// A second signal means now.
fn stopped_at_once() -> anyhow::Result<ExitCode> {
    warn!("a second signal: stopped at once");
    Ok(ExitCode::FAILURE)
}
