//! `serve`: the main job.

use std::collections::HashSet;
use std::io;
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::{JoinError, JoinHandle};
use tracing::{error, info, warn};

use super::loops::Names;
use super::source::{Source, environment};
use super::successor::{Program, Successor, start_successor};
use crate::clock::SystemClock;
use crate::config::watch::Files;
use crate::config::{Config, Fault, Faults, reload};
use crate::process;
use crate::server::handoff::{Channel, IncomingHandoff};
use crate::server::{self, Running, StartError};
use crate::service_manager::ServiceManager;
use crate::socket::inherited::Inherited;

/// What is said of a configuration that is not taken over.
const REFUSED: &str = "configuration refused: the one before stays in force";

/// How long the process waits at its end for tasks and threads that hang.
const LAST_MOMENT: Duration = Duration::from_millis(500);

/// Run the proxy.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    source: Source,

    /// Take the place of the process at standard input, which starts this one so on SIGUSR2.
    #[arg(long, hide = true)]
    take_over: bool,

    /// Start the process that is to take the place of the one at standard input.
    #[arg(long, hide = true)]
    start_successor: bool,
}

/// Serves until SIGTERM, SIGINT or `POST /drain` at the admin address, then lets what is under way
/// finish. Reads the configuration again on SIGHUP, and when one of its files changes. On SIGUSR2
/// it starts a successor and leaves the sockets and tokens to it.
///
/// # Errors
/// [`crate::config::Faults`] if the configuration is wrong; otherwise why the server cannot start.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    if args.start_successor {
        return Ok(start_successor()?);
    }
    let config = args.source.load()?;
    for warning in &config.warnings {
        warn!("{warning}");
    }
    let open_files = process::raise_open_files();
    warn_of_few_files(&config, open_files);
    let predecessor = match args.take_over {
        true => Some(Channel::of_predecessor()?),
        false => None,
    };
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
        let signals = Signals::kept()?;
        let reloader = Reloader::of(args.source, &config, open_files);
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

/// Warns if the process may open fewer files than the listeners of `config` let it need: a connection
/// takes one, and its call to the instance another.
fn warn_of_few_files(config: &Config, open_files: u64) {
    let wanted = connections(config).saturating_mul(2);
    if open_files < wanted {
        warn!(
            open_files,
            wanted,
            "the process may open few files: at the limit, idle connections are closed and others wait; raise it (ulimit -n, or LimitNOFILE= of systemd) or lower max_connections"
        );
    }
}

/// How many connections the listeners serve at once.
fn connections(config: &Config) -> u64 {
    let connections = config.listeners.iter().map(|l| l.max_connections as u64);
    connections.fold(0, u64::saturating_add)
}

/// What the process is told from outside.
struct Signals {
    end: EndSignals,
    hangup: Signal,
    upgrade: Signal,
}

/// The names of the signals that came and end the process.
struct EndSignals(UnboundedReceiver<&'static str>);

impl Signals {
    /// From here on a signal is kept for us, even one that comes while the server starts.
    fn kept() -> io::Result<Signals> {
        Ok(Signals {
            end: EndSignals::kept()?,
            hangup: signal(SignalKind::hangup())?,
            upgrade: signal(SignalKind::user_defined2())?,
        })
    }
}

impl EndSignals {
    /// They have a thread and a runtime of their own: a second signal ends the process although
    /// every other thread is busy or stuck.
    fn kept() -> io::Result<EndSignals> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
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
                    // the process should have ended by now
                    std::process::exit(1);
                }
            }
        };
        thread::Builder::new()
            .name("signals".to_owned())
            .spawn(move || runtime.block_on(forward))?;
        Ok(EndSignals(signals))
    }

    /// The name of the next one that comes.
    async fn recv(&mut self) -> &'static str {
        match self.0.recv().await {
            Some(name) => name,
            // the thread that sends them never ends
            None => std::future::pending().await,
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
    Names::of(running.config(), running.listeners()).report();
    let program = Program::of_this_process();
    let mut successor = None;
    let mut reading = None;
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
            read = next_read(&mut reading) => {
                reading = None;
                let status = if reloader.take_over(read, &mut running) {
                    Names::of(running.config(), running.listeners()).report();
                    serving(&running)
                } else {
                    format!("{REFUSED}; {}", serving(&running))
                };
                manager.ready(&status);
                continue;
            }
            _ = signals.hangup.recv(), if reading.is_none() => {
                info!("SIGHUP: reading the configuration again");
                reloader.said.clear();
            }
            changed = reloader.files.changed(), if reading.is_none() => {
                info!(?changed, "files have changed: reading the configuration again");
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
        .handoff()
        .and_then(|handoff| program.succeed(handoff))
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

/// A configuration that was read again.
struct Read {
    config: Result<Config, Faults>,
    /// If that is faulty: the one in force, with its files read again. A secret may have changed in
    /// the meantime.
    in_force: Option<Config>,
}

/// What comes of `reading`, if something is being read.
async fn next_read(reading: &mut Option<JoinHandle<Read>>) -> Result<Read, JoinError> {
    match reading {
        Some(reading) => reading.await,
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
    /// How many files the process may open.
    open_files: u64,
}

impl Reloader {
    fn of(source: Source, config: &Config, open_files: u64) -> Reloader {
        Reloader {
            source,
            files: config.files.clone(),
            said: config.warnings.clone(),
            open_files,
        }
    }

    /// Reads the configuration on a thread of its own: files may hang, and signals go on.
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

    /// Has the configuration that was read take the place of the one in force, if it is sound.
    /// Gives whether it is.
    fn take_over(&mut self, read: Result<Read, JoinError>, running: &mut Running) -> bool {
        let read = match read {
            Ok(read) => read,
            Err(error) => {
                let failed = format!("reading it failed: {error}");
                error!("{REFUSED}: {failed}");
                running.refused(vec![failed]);
                return false;
            }
        };
        match read.config {
            Ok(config) => {
                self.files = config.files.clone();
                self.say(&config.warnings, |warning| warn!("{warning}"));
                if connections(&config) != connections(running.config()) {
                    warn_of_few_files(&config, self.open_files);
                }
                take_over(running, config, Running::reload)
            }
            Err(faults) => {
                self.files = faults.files().clone();
                let faults: Vec<Fault> = faults.iter().cloned().collect();
                self.say(&faults, |fault| error!("{fault}"));
                error!("{REFUSED}");
                running.refused(faults.iter().map(ToString::to_string).collect());
                if let Some(config) = read.in_force {
                    self.files = self.files.clone().and(&config.files);
                    if !reload::differences(running.config(), &config).is_empty() {
                        take_over(running, config, Running::reread);
                    }
                }
                false
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

/// Has `config` take the place of the one in force, by `exchange`; gives whether it has.
fn take_over(
    running: &mut Running,
    config: Config,
    exchange: fn(&mut Running, Config) -> Result<Vec<&'static str>, StartError>,
) -> bool {
    let changes = reload::differences(running.config(), &config);
    let reloaded = exchange(running, config);
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
