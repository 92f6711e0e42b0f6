//! `demo`: a simulated Collibra, the proxy and some apps in one process, next to the same apps that
//! each request their own tokens.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use super::terminal::{Screen, Wish};
use crate::clock::{Clock, SystemClock};
use crate::config::{self, Config, Faults, Flags};
use crate::server::handoff::IncomingHandoff;
use crate::server::{self, Running};
use crate::simulator::{self, DEMO_CLIENT_ID, DEMO_CLIENT_SECRET, Simulator};
use crate::socket::Address;

mod apps;
mod board;
mod view;

use apps::Tokens;
use board::{Board, total};
use view::{Addresses, Scene, Side};

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
/// If one of its parts cannot start.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let apps = usize::from(args.apps);
    let left = Stage::set(&args, Tokens::Own, apps).await?;
    let right = Stage::set(&args, Tokens::FromProxy, apps).await?;
    let started = SystemClock.now();
    let scene = || Scene {
        elapsed: SystemClock.now().since(started).min(args.length),
        length: args.length,
        speed: args.speed,
        own: left.look("each for itself"),
        proxied: right.look("behind the proxy"),
        addresses: right.addresses(),
    };

    let mut out = io::stdout();
    let mut screen = out.is_terminal().then(Screen::enter).transpose()?;
    let mut tick = tokio::time::interval(if screen.is_some() { FRAME } else { LINE });
    tick.tick().await;
    if screen.is_none() {
        let lines = view::addresses(&scene().addresses);
        writeln!(out, "{}", lines.join("\n"))?;
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
            is_over = is_over(&mut screen) => if is_over? {
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
    let lost = total(&last.proxied.apps).lost();
    let held = lost == 0 && last.proxied.rate_limited == 0;
    let nothing_happened = total(&last.proxied.apps).answered == 0;
    let verdict = if held && !nothing_happened {
        "\nBehind the proxy no call failed and none got a 429.\nPut it before your own apps: collibra-auth-proxy serve --help"
    } else {
        "\nAn app behind the proxy saw a failure or a 429, which should never happen.\nPlease report it."
    };
    writeln!(out, "{verdict}")?;
    left.clear().await;
    right.clear().await;
    Ok(if held && (!nothing_happened || interrupted) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Returns whether the viewer quits; returns early if the screen must be redrawn.
async fn is_over(screen: &mut Option<Screen>) -> io::Result<bool> {
    match screen {
        Some(screen) => Ok(screen.wish().await? == Wish::Quit),
        None => tokio::signal::ctrl_c().await.map(|()| true),
    }
}

/// One side: its Collibra, its apps, and the proxy between them, if any.
struct Stage {
    collibra: Simulator,
    proxy: Option<Running>,
    board: Arc<Board>,
    apps: tokio::task::JoinSet<()>,
}

impl Stage {
    async fn set(args: &Args, tokens: Tokens, apps: usize) -> anyhow::Result<Stage> {
        let collibra = simulator::start(simulator::Config {
            listen: ([127, 0, 0, 1], 0).into(),
            speed: args.speed,
            refill: REFILL,
            ..simulator::Config::default()
        })
        .await?;
        let mut base = format!("http://{}", collibra.address());
        let mut proxy = None;
        if tokens == Tokens::FromProxy {
            let running = server::start(
                proxy_config(&base, args.speed)?,
                Arc::new(SystemClock),
                IncomingHandoff::default(),
            )
            .await?;
            base = format!("http://{}", running.listeners()[0].1);
            proxy = Some(running);
        }
        let board = Arc::new(Board::new(apps));
        let apps = apps::start(&base, tokens, &board, apps);
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
        Side {
            title,
            apps: self.board.apps(),
            tokens: client.map_or(0, |c| c.issued),
            rate_limited: client.map_or(0, |c| c.rate_limited),
            pool: client.map_or(0.0, |c| c.pool_available),
        }
    }

    /// Where the proxy's status page and its listener are.
    fn addresses(&self) -> Addresses {
        let proxy = self.proxy.as_ref();
        let listeners = proxy.map(Running::listeners).unwrap_or_default();
        Addresses {
            admin: proxy.map(|proxy| proxy.admin().to_string()),
            listener: listeners.first().map(|(_, address)| address.to_string()),
        }
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
