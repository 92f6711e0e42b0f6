//! `serve`: the main job.

use std::process::ExitCode;
use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};
use tracing::{error, info, warn};

use super::source::{Source, environment};
use crate::app::{self, Running};
use crate::clock::SystemClock;
use crate::config::watch::Files;
use crate::config::{Config, Fault, reload};
use crate::service_manager::ServiceManager;

/// What is said of a configuration that is not taken over.
const REFUSED: &str = "configuration refused: the one before stays in force";

/// Run the proxy.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    source: Source,
}

/// Serves until SIGTERM, SIGINT or `POST /drain` at the admin address, then lets what is under way finish. Reads the configuration
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
    let mut reloader = Reloader::of(source, &config);
    let mut running = app::start(config, Arc::new(SystemClock)).await?;
    let manager = ServiceManager::of(environment, std::process::id());
    // on a worker: it is heard of only as long as the runtime turns
    tokio::spawn(manager.clone().keep_watchdog_quiet());
    manager.ready(&serving(&running));
    let reason = loop {
        tokio::select! {
            _ = terminate.recv() => break "SIGTERM",
            _ = interrupt.recv() => break "SIGINT",
            () = running.drain_asked() => break "POST /drain",
            _ = hangup.recv() => {
                info!("SIGHUP: reading the configuration again");
                reloader.said.clear();
            }
            changed = reloader.files.changed() => {
                info!(?changed, "files have changed: reading the configuration again");
            }
        }
        manager.reloading();
        let status = if reloader.reload(&mut running) {
            serving(&running)
        } else {
            format!("{REFUSED}; {}", serving(&running))
        };
        manager.ready(&status);
    };
    let drain = running.config().server.drain;
    info!(
        reason,
        drain_seconds = drain.as_secs_f64(),
        "finishing what is under way"
    );
    manager.stopping(&format!(
        "finishing what is under way, for at most {} s",
        drain.as_secs()
    ));
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

/// Reads the configuration again, whenever there is a reason to.
struct Reloader {
    source: Source,
    /// The files whose change is a reason.
    files: Files,
    /// The faults and warnings that have been reported and still hold.
    said: Vec<Fault>,
}

impl Reloader {
    fn of(source: Source, config: &Config) -> Reloader {
        Reloader {
            source,
            files: config.files.clone(),
            said: config.warnings.clone(),
        }
    }

    /// Has the configuration as it is now take the place of the one in force, if it is sound.
    /// Gives whether it is.
    fn reload(&mut self, running: &mut Running) -> bool {
        match self.source.load() {
            Ok(config) => {
                self.files = config.files.clone();
                self.say(&config.warnings, |warning| warn!("{warning}"));
                take_over(running, config)
            }
            Err(faults) => {
                self.files = faults.files().clone();
                let faults: Vec<Fault> = faults.iter().cloned().collect();
                self.say(&faults, |fault| error!("{fault}"));
                error!("{REFUSED}");
                self.refresh(running);
                running.refused();
                false
            }
        }
    }

    /// The configuration in force has files too, whatever became of its own: a secret may have
    /// been changed in the meantime.
    fn refresh(&mut self, running: &mut Running) {
        if let Some(Ok(config)) = running.config().read_files_again(&environment) {
            self.files = self.files.clone().and(&config.files);
            if !reload::differences(running.config(), &config).is_empty() {
                take_over(running, config);
            }
        }
    }

    /// Reports what has not been reported yet.
    fn say(&mut self, faults: &[Fault], report: impl Fn(&Fault)) {
        for fault in faults.iter().filter(|fault| !self.said.contains(fault)) {
            report(fault);
        }
        self.said = faults.to_vec();
    }
}

/// Where it serves, in a line for people.
fn serving(running: &Running) -> String {
    let listeners = running.listeners();
    let addresses = listeners.iter().map(|(_, address)| address.to_string());
    let addresses: Vec<_> = addresses.collect();
    let addresses = addresses.join(", ");
    format!(
        "listening at {addresses}; admin address {}",
        running.admin()
    )
}

/// Has `config` take the place of the one in force; gives whether it has.
fn take_over(running: &mut Running, config: Config) -> bool {
    let changes = reload::differences(running.config(), &config);
    let reloaded = running.reload(config);
    let is_in_force = reloaded.is_ok();
    match reloaded {
        Ok(_) if changes.is_empty() => info!("configuration unchanged"),
        Ok(needs_restart) => {
            info!(changes = changes.join(", "), "configuration taken over");
            for key in needs_restart {
                warn!(key, "this change takes effect at the next start");
            }
        }
        Err(e) => error!("{REFUSED}: {e}"),
    }
    is_in_force
}

/// A second signal means now.
fn stopped_at_once() -> anyhow::Result<ExitCode> {
    warn!("a second signal: stopped at once");
    Ok(ExitCode::FAILURE)
}
