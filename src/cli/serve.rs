//! `serve`: the main job.

use std::collections::HashSet;
use std::io;
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{error, info, warn};

use super::source::{Source, environment};
use super::successor::{Program, Successor};
use crate::app::handover::{Channel, Inheritance};
use crate::app::{self, Running};
use crate::clock::SystemClock;
use crate::config::watch::Files;
use crate::config::{Config, Fault, reload};
use crate::process;
use crate::service_manager::ServiceManager;
use crate::socket::inherited::Inherited;

/// What is said of a configuration that is not taken over.
const REFUSED: &str = "configuration refused: the one before stays in force";

/// Run the proxy.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    source: Source,

    /// Take the place of the process at standard input, which starts this one so on SIGUSR2.
    #[arg(long, hide = true)]
    take_over: bool,
}

/// Serves until SIGTERM, SIGINT or `POST /drain` at the admin address, then lets what is under way
/// finish. Reads the configuration again on SIGHUP, and when one of its files changes. On SIGUSR2
/// it starts a successor and leaves the sockets and tokens to it.
///
/// # Errors
/// [`crate::config::Faults`] if the configuration is wrong; otherwise why the server cannot start.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let config = args.source.load()?;
    for warning in &config.warnings {
        warn!("{warning}");
    }
    let limit = process::raise_open_files();
    if limit < files_wanted(&config) {
        warn!(
            limit,
            "the process may open few files, and each call takes two: raise the limit (ulimit -n, or LimitNOFILE= of systemd)"
        );
    }
    let predecessor = match args.take_over {
        true => Some(Channel::of_predecessor()?),
        false => None,
    };
    let inheritance = match &predecessor {
        Some(channel) => channel.take_over(),
        None => Inherited::from_service_manager(environment("LISTEN_FDNAMES").as_deref())
            .map(Inheritance::from),
    };
    let inheritance = inheritance.context("cannot take over the sockets of another process")?;
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if config.server.threads > 0 {
        runtime.worker_threads(config.server.threads);
    }
    let serving = async {
        let signals = Signals::kept()?;
        let reloader = Reloader::of(args.source, &config);
        let running = app::start(config, Arc::new(SystemClock), inheritance).await?;
        if let Some(predecessor) = predecessor {
            tokio::task::spawn_blocking(move || predecessor.serves()).await??;
        }
        running.own_files(true);
        serve(running, reloader, signals).await
    };
    runtime.enable_all().build()?.block_on(serving)
}

/// How many files the process should be able to open: two for each connection that its listeners
/// take, within reason, and some of its own.
fn files_wanted(config: &Config) -> u64 {
    const ENOUGH: u64 = 4096;
    const OWN: u64 = 64;
    let connections = config.listeners.iter().map(|l| l.max_connections as u64);
    let connections = connections.fold(0, u64::saturating_add);
    connections
        .saturating_mul(2)
        .saturating_add(OWN)
        .min(ENOUGH)
}

/// What the process is told from outside.
struct Signals {
    end: EndSignals,
    hangup: Signal,
    upgrade: Signal,
}

/// Of those, what ends it.
struct EndSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// From here on a signal is kept for us, even one that comes while the server starts.
    fn kept() -> io::Result<Signals> {
        Ok(Signals {
            end: EndSignals {
                terminate: signal(SignalKind::terminate())?,
                interrupt: signal(SignalKind::interrupt())?,
            },
            hangup: signal(SignalKind::hangup())?,
            upgrade: signal(SignalKind::user_defined2())?,
        })
    }
}

impl EndSignals {
    /// The name of the next one that comes.
    async fn recv(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// Why the process is to end.
enum End {
    /// It was told to.
    Asked(&'static str),
    /// A successor serves in its place.
    Succeeded(u32, Channel),
}

async fn serve(
    mut running: Running,
    mut reloader: Reloader,
    mut signals: Signals,
) -> anyhow::Result<ExitCode> {
    let manager = ServiceManager::of(environment, std::process::id());
    // on a worker: it is heard of only as long as the runtime turns
    tokio::spawn(manager.clone().keep_watchdog_quiet());
    manager.ready(&serving(&running));
    let program = Program::of_this_process();
    let mut successor = None;
    let end = loop {
        tokio::select! {
            reason = signals.end.recv() => break End::Asked(reason),
            () = running.drain_asked() => break End::Asked("POST /drain"),
            _ = signals.upgrade.recv() => {
                if successor.is_none() {
                    successor = succeed(&program, &running);
                }
                continue;
            }
            (id, serves) = served(&mut successor) => {
                match serves {
                    Ok(channel) => break End::Succeeded(id, channel),
                    Err(error) => error!(process = id, "the successor does not serve, going on: {error}"),
                }
                successor = None;
                continue;
            }
            _ = signals.hangup.recv() => {
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
    let drain_seconds = drain.as_secs_f64();
    let ending: Pin<Box<dyn Future<Output = usize>>> = match end {
        End::Asked(reason) => {
            if let Some(successor) = successor {
                successor.stop();
            }
            info!(reason, drain_seconds, "finishing what is under way");
            manager.stopping(&format!(
                "finishing what is under way, for at most {drain_seconds} s"
            ));
            Box::pin(running.drain(drain))
        }
        End::Succeeded(id, channel) => {
            info!(
                process = id,
                drain_seconds, "a successor serves: finishing what is under way"
            );
            manager.succeeded_by(id);
            running.own_files(false);
            // one that is gone again cannot be helped: the sockets were its own already
            if let Err(error) = channel.let_go() {
                error!(process = id, "the successor is gone: {error}");
            }
            Box::pin(running.leave(drain))
        }
    };
    let cut = tokio::select! {
        cut = ending => cut,
        _ = signals.end.recv() => return stopped_at_once(),
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

/// Starts a process that is to take this one's place.
fn succeed(program: &Program, running: &Running) -> Option<Successor> {
    let started = running
        .legacy()
        .and_then(|legacy| program.succeed(legacy))
        .inspect_err(|error| error!("no successor can be started, going on: {error}"));
    let successor = started.ok()?;
    info!(process = successor.id(), "SIGUSR2: a successor starts");
    Some(successor)
}

/// Ends when the successor serves or has failed to, if there is one.
async fn served(successor: &mut Option<Successor>) -> (u32, io::Result<Channel>) {
    match successor {
        Some(successor) => (successor.id(), successor.serves().await),
        None => std::future::pending().await,
    }
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
        let said: HashSet<&Fault> = self.said.iter().collect();
        for fault in faults.iter().filter(|fault| !said.contains(fault)) {
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
