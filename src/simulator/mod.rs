//! A simulated Collibra for demonstrations and tests.
//!
//! It issues access tokens from a small pool per client, as the real service does. It refuses API
//! requests without a valid token, counts everything, and fails on demand. It shares no code with
//! the rest of this crate, so that the two cannot share a misunderstanding.
//!
//! The path of a request: `server` → `token_endpoint`, `control` or `api` → `faults` decide whether
//! it fails and `outage` how → `reply`. `world` holds the state, `catalogue` the data behind the
//! API. `pool`, `issuer`, `faults` and `catalogue` get the time as an argument; only `clock` reads
//! it. A path that `api` does not know gets an echo of its request.
//!
//! The behaviour follows Collibra's OpenAPI documents. Where they say nothing, the simulator
//! decides: a refused request takes nothing from the pool. A new token does not invalidate the old
//! one. A request in progress continues when its token expires. A 429 has a body like the other
//! errors, and `Retry-After` only with [`Config::retry_after`].

mod api;
mod body;
mod catalogue;
mod clock;
mod control;
mod credentials;
mod faults;
mod form;
mod issuer;
mod outage;
mod pool;
mod random;
mod reply;
mod server;
mod state;
#[cfg(test)]
mod tests;
mod tls;
mod token_endpoint;
mod wire;
mod world;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;

pub use self::state::{ClientState, State};
use self::world::World;

/// The id of the default client.
pub const DEMO_CLIENT_ID: &str = "urn:sys:env:2eeadf60-1a11-5170-7e57-000000000000:i:1cnxtsn";

/// The secret of [`DEMO_CLIENT_ID`]: well known, and full of characters that need encoding.
pub const DEMO_CLIENT_SECRET: &str = "s3cr+t/=%&x y~!*";

/// The longest duration and the largest pool that a configuration may have.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);
const GREATEST_POOL: u32 = 1_000_000;

/// The configuration of a simulated Collibra.
#[derive(Clone)]
pub struct Config {
    /// The address to listen on; port 0 chooses a free one.
    pub listen: SocketAddr,
    /// Serves `https` with these files.
    pub tls: Option<TlsFiles>,
    /// The clients: id and secret.
    pub clients: Vec<(String, String)>,
    /// The capacity of a client's pool.
    pub pool: u32,
    /// The time in which one token refills, in simulated time.
    pub refill: Duration,
    /// The lifetime of a token, in simulated time.
    pub lifetime: Duration,
    /// Simulated seconds per second: every duration is divided by it.
    pub speed: f64,
    /// Whether a 429 has a `Retry-After` (whole seconds, real time).
    pub retry_after: bool,
    /// The default number of rows of an export, and the number of assets (at most ten thousand).
    pub rows: u64,
    /// Whether a `PUT` on a client changes its secret.
    pub update_rotates_secret: bool,
}

/// The PEM files for `https`.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// The certificate and its chain.
    pub cert: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

impl Default for Config {
    /// Port 9400 of this machine, `http`, one well-known client, and the pool, refill and lifetime
    /// that Collibra documents, at real speed.
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 9400)),
            tls: None,
            clients: vec![(DEMO_CLIENT_ID.to_owned(), DEMO_CLIENT_SECRET.to_owned())],
            pool: 5,
            refill: Duration::from_secs(60),
            lifetime: Duration::from_secs(299),
            speed: 1.0,
            retry_after: false,
            rows: 1000,
            update_rotates_secret: false,
        }
    }
}

/// Why a simulated Collibra cannot start. All are permanent until the configuration changes or the
/// address is free.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address cannot be bound.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The configured address.
        address: SocketAddr,
        /// The system's error.
        source: std::io::Error,
    },
    /// A certificate or key is unusable.
    #[error("cannot use {path} for TLS: {reason}", path = path.display())]
    Tls {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// `expires_in` is in whole seconds, so a token must live for at least one.
    #[error(
        "a token would live for {real:?} only: the lifetime divided by the speed must be at least \
         1 second, so choose a longer lifetime or a lower speed"
    )]
    Lifetime {
        /// The lifetime in real time.
        real: Duration,
    },
    /// Another setting is out of range.
    #[error("{0}")]
    Range(&'static str),
}

/// A running simulated Collibra. Dropping it stops it.
pub struct Simulator {
    address: SocketAddr,
    world: Arc<World>,
    serving: JoinHandle<()>,
}

/// Starts a simulated Collibra on the current tokio runtime, which needs timers and IO. It accepts
/// connections once this returns.
///
/// # Errors
/// [`Error`], if the address, the files or the numbers are unusable.
pub async fn start(config: Config) -> Result<Simulator, Error> {
    let config = in_real_time(config)?;
    let acceptor = config.tls.as_ref().map(tls::acceptor).transpose()?;
    let unusable = |source| Error::Listen {
        address: config.listen,
        source,
    };
    let listener = TcpListener::bind(config.listen).await.map_err(unusable)?;
    let address = listener.local_addr().map_err(unusable)?;
    let world = Arc::new(World::new(config));
    let serving = tokio::spawn(server::serve(listener, acceptor, Arc::clone(&world)));
    Ok(Simulator {
        address,
        world,
        serving,
    })
}

impl Simulator {
    /// The address it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The counters, as in `GET /_simulator/state`.
    pub fn state(&self) -> State {
        self.world.state()
    }

    /// Stops at once; requests in progress are cut off. The address is free when this returns.
    pub async fn shutdown(mut self) {
        self.serving.abort();
        let _ = (&mut self.serving).await;
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// Validates a configuration and converts it to real time.
fn in_real_time(config: Config) -> Result<Config, Error> {
    let speed = config.speed;
    if !(0.001..=1_000_000.0).contains(&speed) {
        return Err(Error::Range("the speed must be from 0.001 to 1000000"));
    }
    if !(1..=GREATEST_POOL).contains(&config.pool) {
        return Err(Error::Range("the pool must hold from 1 to 1000000 tokens"));
    }
    if config.refill.max(config.lifetime) > LONGEST {
        return Err(Error::Range("refill and lifetime must be a year at most"));
    }
    let (refill, lifetime) = (config.refill.div_f64(speed), config.lifetime.div_f64(speed));
    if refill.is_zero() {
        return Err(Error::Range("the refill must take more than 0 seconds"));
    }
    if lifetime < Duration::from_secs(1) {
        return Err(Error::Lifetime { real: lifetime });
    }
    Ok(Config {
        refill,
        lifetime,
        ..config
    })
}
