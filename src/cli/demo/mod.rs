//! `demo`: a simulated Collibra, the proxy and some apps in one process, next to the same apps that
//! each request their own tokens.

use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::ensure;
use tokio::task::JoinSet;

use super::Exit;
use super::terminal::Screen;
use crate::clock::{Clock, SystemClock};
use crate::config::{self, Config, Faults, Flags};
use crate::server::handoff::IncomingHandoff;
use crate::server::{self, Running};
use crate::simulator::{self, DEMO_CLIENT_ID, DEMO_CLIENT_SECRET, Simulator};
use crate::socket::Address;

mod apps;
mod view;

use apps::{App, Board};
use view::{Scene, Side};

/// The path of a call to make by hand.
const CALL: &str = "/rest/2.0/communities";

/// How often the table is redrawn.
const FRAME: Duration = Duration::from_millis(125);

/// How often a line is written to a pipe.
const LINE: Duration = Duration::from_secs(1);

/// The refill interval of Collibra's pool, in simulated time.
const REFILL: Duration = Duration::from_secs(60);

/// Watch what the proxy does for you, without a Collibra: everything in one process
///
/// Two simulated Collibras run side by side, each with a pool of 5 tokens that refills at one a
/// minute. On the left, some apps each request their own tokens. On the right, the same apps call
/// through the proxy. Exits with 1 if an app behind the proxy saw a failure or a 429.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How long to run
    #[arg(long = "for", value_name = "DURATION", default_value = "30s", value_parser = humantime::parse_duration)]
    length: Duration,

    /// How many apps run on each side
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=64))]
    apps: u16,

    /// Simulated seconds per real second
    #[arg(long, value_name = "N", default_value_t = 20.0)]
    speed: f64,
}

/// Runs the demo.
///
/// # Errors
/// If one of its parts cannot start, or `Exit` if an app behind the proxy saw a failure.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let left = Stage::set(&args, false).await?;
    let right = Stage::set(&args, true).await?;
    let started = SystemClock.now();
    let scene = || Scene {
        elapsed: SystemClock.now().since(started).min(args.length),
        length: args.length,
        speed: args.speed,
        sides: [left.look("each for itself"), right.look("behind the proxy")],
        addresses: right.addresses(),
    };

    let mut out = io::stdout();
    let mut screen = out.is_terminal().then(Screen::enter).transpose()?;
    let mut tick = tokio::time::interval(if screen.is_some() { FRAME } else { LINE });
    tick.tick().await;
    if screen.is_none() {
        writeln!(out, "{}", right.addresses().join("\n"))?;
    }
    let interrupted = loop {
        let now = scene();
        match &mut screen {
            Some(screen) => screen.draw(&view::table(&now, screen.size()))?,
            None => writeln!(out, "{}", view::line(&now))?,
        }
        if now.elapsed >= args.length {
            break false;
        }
        tokio::select! {
            _ = tick.tick() => {}
            () = tokio::time::sleep(args.length.saturating_sub(now.elapsed)) => {}
            quits = async {
                match &mut screen {
                    Some(screen) => screen.quits().await,
                    None => tokio::signal::ctrl_c().await.map(|()| true),
                }
            } => if quits? {
                break true;
            },
        }
    };

    let last = scene();
    if let Some(screen) = screen {
        let size = screen.size();
        drop(screen);
        writeln!(out, "{}", view::sides(&last, size).join("\n"))?;
    }
    write!(out, "\n{}", view::summary(&last))?;
    let [answered, lost, _, rate_limited] = last.sides[1].figures();
    let held = lost == 0 && rate_limited == 0;
    let something_happened = answered > 0;
    let verdict = if held && something_happened {
        "\nBehind the proxy no call failed and none got a 429.\nPut it before your own apps: collibra-auth-proxy serve --help"
    } else {
        "\nAn app behind the proxy saw a failure or a 429, which should never happen.\nPlease report it."
    };
    writeln!(out, "{verdict}")?;
    left.clear().await;
    right.clear().await;
    ensure!(held && (something_happened || interrupted), Exit(1));
    Ok(())
}

/// One side: its Collibra, its apps, and the proxy between them, if any.
struct Stage {
    collibra: Simulator,
    proxy: Option<Running>,
    board: Board,
    apps: JoinSet<()>,
}

impl Stage {
    async fn set(args: &Args, behind_the_proxy: bool) -> anyhow::Result<Stage> {
        let collibra = simulator::start(simulator::Config {
            listen: ([127, 0, 0, 1], 0).into(),
            speed: args.speed,
            refill: REFILL,
            ..simulator::Config::default()
        })
        .await?;
        let base = format!("http://{}", collibra.address());
        let config = proxy_config(&base, args.speed)?;
        let apps = usize::from(args.apps);
        let board = Arc::new(Mutex::new(vec![App::default(); apps]));
        let (proxy, apps) = if behind_the_proxy {
            let incoming = IncomingHandoff::default();
            let proxy = server::start(config, Arc::new(SystemClock), incoming).await?;
            let base = format!("http://{}", proxy.listeners()[0].1);
            (Some(proxy), apps::start(apps, &base, None, &board)?)
        } else {
            let client = config.clients.values().next();
            let client = client.map(|client| &client.oauth);
            (None, apps::start(apps, &base, client, &board)?)
        };
        Ok(Stage {
            collibra,
            proxy,
            board,
            apps,
        })
    }

    fn look(&self, title: &'static str) -> Side {
        let state = self.collibra.state();
        let client = state.clients.get(DEMO_CLIENT_ID);
        let apps = self.board.lock().map(|apps| apps.clone());
        Side {
            title,
            apps: apps.unwrap_or_default(),
            tokens: client.map_or(0, |c| c.issued),
            rate_limited: client.map_or(0, |c| c.rate_limited),
            pool: client.map_or(0.0, |c| c.pool_available),
        }
    }

    /// What there is to open and to call while the demo runs.
    fn addresses(&self) -> Vec<String> {
        let Some(proxy) = &self.proxy else {
            return Vec::new();
        };
        let (admin, listener) = (proxy.admin(), &proxy.listeners()[0].1);
        vec![
            format!("open http://{admin}/   the proxy's status page"),
            format!("curl http://{listener}{CALL}   a call without a token"),
        ]
    }

    async fn clear(mut self) {
        self.apps.shutdown().await;
        if let Some(proxy) = self.proxy {
            proxy.drain(Duration::from_secs(1)).await;
        }
        self.collibra.shutdown().await;
    }
}

/// The configuration of a proxy in front of the simulated Collibra at `base`.
fn proxy_config(base: &str, speed: f64) -> Result<Config, Faults> {
    let any_port = Some(Address::Tcp(([127, 0, 0, 1], 0).into()));
    let flags = Flags {
        upstream: Some(base.to_owned()),
        client_id: Some(DEMO_CLIENT_ID.to_owned()),
        listen: any_port.clone(),
        admin: any_port,
        pool_refill: Some(REFILL.div_f64(speed)),
        ..Flags::default()
    };
    let secret =
        |name: &str| (name == "COLLIBRA_CLIENT_SECRET").then(|| DEMO_CLIENT_SECRET.to_owned());
    let mut config = config::from_flags(flags, &secret)?;
    config.access_log = false;
    Ok(config)
}
