//! `serve`: runs the proxy.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail};
use futures_util::future::OptionFuture;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::{JoinError, JoinHandle};
use tracing::{error, info, warn};

use super::source::{Source, environment};
use super::successor::{Program, Successor, start_successor};
use super::{Exit, loops};
use crate::clock::SystemClock;
use crate::config::watch::Files;
use crate::config::{Config, Fault, Faults, reload};
use crate::process;
use crate::server::handoff::{Channel, IncomingHandoff};
use crate::server::{self, Running, StartError};
use crate::service_manager::ServiceManager;
use crate::socket::inherited::Inherited;

/// The message about a configuration that is refused.
const REFUSED: &str = "configuration refused: the one before stays in force";

/// How long the process waits for tasks and threads that hang when it exits.
const LAST_MOMENT: Duration = Duration::from_millis(500);

/// Run the proxy.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    source: Source,

    /// Take over from the process at standard input, which starts this one on SIGUSR2.
    #[arg(long, hide = true)]
    take_over: bool,

    /// Start the process that takes over from the one at standard input.
    #[arg(long, hide = true)]
    start_successor: bool,
}

/// Serves until SIGTERM, SIGINT or `POST /drain` at the admin address, then drains. Reloads the
/// configuration on SIGHUP and when one of its files changes. On SIGUSR2, starts a successor and
/// hands off the sockets and tokens.
///
/// # Errors
/// [`crate::config::Faults`] if the configuration is wrong; otherwise why the server cannot start.
pub fn run(args: Args) -> anyhow::Result<()> {
    if args.start_successor {
        bail!(Exit(start_successor()?));
    }
    let config = args.source.load()?;
    for warning in &config.warnings {
        warn!("{warning}");
    }
    warn_of_few_files(&config);
    let predecessor = args.take_over.then(Channel::of_predecessor).transpose()?;
    let incoming = match &predecessor {
        Some(channel) => channel.take_over(),
        None => Inherited::from_service_manager(
            environment("LISTEN_PID").as_deref(),
            environment("LISTEN_FDNAMES").as_deref(),
        )
        .map(IncomingHandoff::from),
    };
    let incoming = incoming.context("cannot take over the sockets of another process")?;
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if config.server.threads > 0 {
        runtime.worker_threads(config.server.threads);
    }
    let serving = async {
        // later ones are queued, even while the server starts
        let signals = Signals {
            end: end_signals()?,
            hangup: signal(SignalKind::hangup())?,
            upgrade: signal(SignalKind::user_defined2())?,
        };
        let reloader = Reloader {
            source: args.source,
            files: config.files.clone(),
            said: config.warnings.clone(),
        };
        let running = server::start(config, Arc::new(SystemClock), incoming).await?;
        if let Some(predecessor) = predecessor {
            tokio::task::spawn_blocking(move || predecessor.serves()).await??;
        }
        running.own_files(true);
        serve(running, reloader, signals).await
    };
    let runtime = runtime.enable_all().build()?;
    let served = runtime.block_on(serving);
    // a thread that waits for a name server or a file system may never return
    runtime.shutdown_timeout(LAST_MOMENT);
    served
}

/// Raises the limit of open files, and warns if it is too low for the listeners of `config`: a
/// connection takes one, and its call to the instance another.
fn warn_of_few_files(config: &Config) {
    let open_files = process::raise_open_files();
    let wanted = connections(config).saturating_mul(2);
    if open_files < wanted {
        warn!(
            open_files,
            wanted,
            "the process may open few files: at the limit, idle connections are closed and others wait; raise it (ulimit -n, or LimitNOFILE= of systemd) or lower max_connections"
        );
    }
}

/// The most connections of all listeners together.
fn connections(config: &Config) -> u64 {
    let connections = config.listeners.iter().map(|l| l.max_connections as u64);
    connections.fold(0, u64::saturating_add)
}

/// The signals that the process handles.
struct Signals {
    /// The signals that end the process, by name.
    end: UnboundedReceiver<&'static str>,
    hangup: Signal,
    upgrade: Signal,
}

/// Handles the signals that end the process on a separate thread and runtime, so that a second
/// signal ends it even if every other thread is busy or stuck. Returns their names as they arrive;
/// the channel is never closed.
fn end_signals() -> io::Result<UnboundedReceiver<&'static str>> {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().build()?;
    let (mut terminate, mut interrupt) = {
        let _within = runtime.enter();
        (
            signal(SignalKind::terminate())?,
            signal(SignalKind::interrupt())?,
        )
    };
    let (came, signals) = unbounded_channel();
    let forward = async move {
        for nth in 1.. {
            let name = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            };
            let heard = came.send(name);
            if nth > 1 || heard.is_err() {
                tokio::time::sleep(LAST_MOMENT).await;
                // the process should have exited by now
                std::process::exit(1);
            }
        }
    };
    thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || runtime.block_on(forward))?;
    Ok(signals)
}

/// Why the process ends.
enum End {
    /// A signal or the admin address asked for it.
    Asked(&'static str),
    /// A successor serves in its place.
    Succeeded(u32, Channel),
}

async fn serve(
    mut running: Running,
    mut reloader: Reloader,
    mut signals: Signals,
) -> anyhow::Result<()> {
    let manager = ServiceManager::of(environment, std::process::id());
    // on a worker thread: the watchdog is notified only while the runtime works
    tokio::spawn(manager.clone().keep_watchdog_quiet());
    manager.ready(&serving(&running));
    loops::report(&running);
    let program = Program::of_this_process();
    let mut successor: Option<Successor> = None;
    let mut reading: Option<JoinHandle<Read>> = None;
    let end = loop {
        tokio::select! {
            Some(reason) = signals.end.recv() => break End::Asked(reason),
            () = running.drain_asked() => break End::Asked("POST /drain"),
            _ = signals.upgrade.recv() => {
                if successor.is_none() {
                    successor = succeed(&program, &running);
                }
                continue;
            }
            Some((id, serves)) = OptionFuture::from(successor.as_mut().map(Successor::serves)) => {
                match serves {
                    Ok(channel) => break End::Succeeded(id, channel),
                    Err(error) => error!(process = id, "the successor did not start to serve, so this process continues: {error}"),
                }
                successor = None;
                continue;
            }
            Some(read) = OptionFuture::from(reading.as_mut()) => {
                reading = None;
                let status = if reloader.take_over(read, &mut running) {
                    loops::report(&running);
                    serving(&running)
                } else {
                    format!("{REFUSED}; {}", serving(&running))
                };
                manager.ready(&status);
                continue;
            }
            _ = signals.hangup.recv(), if reading.is_none() => {
                info!("SIGHUP: reloading the configuration");
                reloader.said.clear();
            }
            changed = reloader.files.changed(), if reading.is_none() => {
                info!(?changed, "files changed: reloading the configuration");
            }
        }
        manager.reloading();
        reading = Some(reloader.read(&running));
    };
    let drain = running.config().server.drain;
    let drain_seconds = drain.as_secs_f64();
    let ending: Pin<Box<dyn Future<Output = usize>>> = match end {
        End::Asked(reason) => {
            if let Some(successor) = successor {
                successor.stop();
            }
            info!(
                reason,
                drain_seconds, "draining: finishing requests in flight"
            );
            manager.stopping(&format!("draining, for at most {drain_seconds} s"));
            Box::pin(running.drain(drain))
        }
        End::Succeeded(id, channel) => {
            info!(process = id, drain_seconds, "a successor serves: draining");
            manager.succeeded_by(id);
            running.own_files(false);
            // a successor that has ended already cannot be helped: it owned the sockets
            if let Err(error) = channel.let_go() {
                error!(process = id, "the successor is gone: {error}");
            }
            Box::pin(running.leave(drain))
        }
    };
    let cut = tokio::select! {
        cut = ending => cut,
        Some(_) = signals.end.recv() => {
            warn!("a second signal: stopped at once");
            bail!(Exit(1));
        }
    };
    if cut > 0 {
        warn!(
            connections = cut,
            "the drain timed out: connections were cut"
        );
    }
    info!("stopped");
    Ok(())
}

/// Starts a successor.
fn succeed(program: &Program, running: &Running) -> Option<Successor> {
    let handoff = running.handoff();
    match handoff.and_then(|handoff| program.succeed(handoff)) {
        Ok(successor) => {
            info!(process = successor.id, "SIGUSR2: a successor starts");
            Some(successor)
        }
        Err(error) => {
            error!("cannot start a successor, so this process continues: {error}");
            None
        }
    }
}

/// A configuration that was read again.
struct Read {
    config: Result<Config, Faults>,
    /// If the new one is faulty: the one in force with its files read again, as a secret may have
    /// changed.
    in_force: Option<Config>,
}

/// Reloads the configuration.
struct Reloader {
    source: Source,
    /// The files whose change causes a reload.
    files: Files,
    /// The faults and warnings that were reported and still hold.
    said: Vec<Fault>,
}

impl Reloader {
    /// Reads the configuration on a separate thread, so that a file that hangs does not delay
    /// signals.
    fn read(&self, running: &Running) -> JoinHandle<Read> {
        let source = self.source.clone();
        let text = running.config().text.clone();
        tokio::task::spawn_blocking(move || {
            let config = source.load();
            let in_force = match &config {
                Ok(_) => None,
                Err(_) => text.and_then(|text| text.read_files_again(&environment).ok()),
            };
            Read { config, in_force }
        })
    }

    /// Applies the configuration that was read, if it is valid. Returns whether it was applied.
    fn take_over(&mut self, read: Result<Read, JoinError>, running: &mut Running) -> bool {
        let Read { config, in_force } = match read {
            Ok(read) => read,
            Err(error) => {
                let failed = format!("reading it failed: {error}");
                error!("{REFUSED}: {failed}");
                running.refused(vec![failed]);
                return false;
            }
        };
        let faults = match config {
            Ok(config) => {
                self.files = config.files.clone();
                self.say(&config.warnings, |warning| warn!("{warning}"));
                if connections(&config) != connections(running.config()) {
                    warn_of_few_files(&config);
                }
                return take_over(running, config, Running::reload);
            }
            Err(faults) => faults,
        };
        self.files = faults.files().clone();
        let faults: Vec<Fault> = faults.iter().cloned().collect();
        self.say(&faults, |fault| error!("{fault}"));
        error!("{REFUSED}");
        running.refused(faults.iter().map(ToString::to_string).collect());
        if let Some(config) = in_force {
            self.files = self.files.clone().and(&config.files);
            if !reload::differences(running.config(), &config).is_empty() {
                take_over(running, config, Running::reread);
            }
        }
        false
    }

    /// Logs the messages that have not been logged before.
    fn say(&mut self, faults: &[Fault], report: impl Fn(&Fault)) {
        for fault in faults.iter().filter(|fault| !self.said.contains(fault)) {
            report(fault);
        }
        self.said = faults.to_vec();
    }
}

/// Describes the listeners in one line.
fn serving(running: &Running) -> String {
    let listeners = running.listeners().into_iter();
    let addresses: Vec<String> = listeners.map(|(_, address)| address.to_string()).collect();
    let (addresses, admin) = (addresses.join(", "), running.admin());
    format!("listening at {addresses}; admin address {admin}")
}

/// Applies `config` by `exchange`; returns whether that succeeded.
fn take_over(
    running: &mut Running,
    config: Config,
    exchange: fn(&mut Running, Config) -> Result<Vec<String>, StartError>,
) -> bool {
    let changes = reload::differences(running.config(), &config);
    let needs_restart = match exchange(running, config) {
        Ok(needs_restart) => needs_restart,
        Err(e) => {
            error!("{REFUSED}: {e}");
            return false;
        }
    };
    match changes.is_empty() {
        true => info!("configuration unchanged"),
        false => info!(changes = changes.join(", "), "configuration applied"),
    }
    for key in needs_restart {
        warn!(key, "this change needs a restart");
    }
    true
}
