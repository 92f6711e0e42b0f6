//! A simulated Collibra, for demonstrations and for tests of anything that talks to one.
//!
//! It issues access tokens out of a small pool per client, as the real service does, refuses every
//! request to its API that carries no live token, counts all of it, and misbehaves on demand. It
//! stands for another party, so it uses nothing else of this crate: no misunderstanding can be
//! shared between the two.
//!
//! A request's way: `server` → `token_endpoint`, `control` or `api` → `faults` decide
//! whether it goes wrong, `outage` how → `reply`. What is remembered is in `world`; `pool`,
//! `issuer` and `faults` are pure and are told the time, which only `clock` reads.
//!
//! What is known of the real service is in its OpenAPI documents. Where those are silent, this is
//! what happens here: a refused request draws nothing from the pool; a new token does not end the
//! old one; a request that has begun goes on when its token ends; a 429 has a body like the other
//! errors, and `Retry-After` only if [`Config::retry_after`] says so.

mod api;
mod body;
mod catalogue;
mod clock;
mod control;
mod credentials;
mod faults;
mod form;
mod issuer;
mod multipart;
mod outage;
mod pool;
mod reply;
mod server;
mod state;
#[cfg(test)]
mod tests;
mod tls;
mod token_endpoint;
mod unique;
mod wire;
mod world;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use self::issuer::Rules;
pub use self::state::{ClientState, State};
use self::world::{Settings, World};

/// The identifier of the client that there is when none is configured.
pub const DEMO_CLIENT_ID: &str = "urn:sys:env:2eeadf60-1a11-5170-7e57-000000000000:i:1cnxtsn";

/// The secret of [`DEMO_CLIENT_ID`]: well known, and full of what must be encoded.
pub const DEMO_CLIENT_SECRET: &str = "s3cr+t/=%&x y~!*";

/// The longest duration and the greatest pool that a configuration may ask for.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);
const GREATEST_POOL: u32 = 1_000_000;

/// How a simulated Collibra is to be.
#[derive(Clone)]
pub struct Config {
    /// Where it listens; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Serves `https` with these files, instead of `http`.
    pub tls: Option<TlsFiles>,
    /// The clients: identifier and secret.
    pub clients: Vec<(String, String)>,
    /// How many tokens a client's pool holds.
    pub pool: u32,
    /// How long it takes until there is one more in a pool, in Collibra's time.
    pub refill: Duration,
    /// How long a token lives, in Collibra's time.
    pub lifetime: Duration,
    /// Collibra's seconds a second: every duration is divided by it.
    pub speed: f64,
    /// Whether a 429 says in `Retry-After` when the pool has one again (whole seconds, real time).
    pub retry_after: bool,
    /// How many rows an export has unless asked otherwise, and how many assets there are (at most
    /// ten thousand).
    pub rows: u64,
    /// Whether `PUT …/clients/{client_id}` gives the client a new secret and answers with it. The
    /// documents leave that open.
    pub update_rotates_secret: bool,
}

/// The files that `https` needs, in PEM.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// The certificate, followed by those that lead up to its root.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

impl Default for Config {
    /// Port 9400 of this machine, `http`, one well-known client, and the pool, refill and lifetime
    /// that Collibra documents, at its own speed.
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

/// Why a simulated Collibra cannot start. All of these are permanent: the configuration has to
/// change, or something else that holds the address has to go.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address that was asked for.
        address: SocketAddr,
        /// What the system says.
        source: std::io::Error,
    },
    /// A certificate or key cannot be used.
    #[error("cannot use {path} for TLS: {reason}", path = path.display())]
    Tls {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// `expires_in` counts whole seconds, so tokens must live for at least one.
    #[error(
        "a token would live for {real:?} only: the lifetime divided by the speed must be at least \
         1 second, so choose a longer lifetime or a lower speed"
    )]
    Lifetime {
        /// How long a token would live, in real time.
        real: Duration,
    },
    /// Another setting is out of its range.
    #[error("{0}")]
    Range(&'static str),
}

/// A simulated Collibra that runs. Dropping it stops it.
pub struct Simulator {
    address: SocketAddr,
    world: Arc<World>,
    stop: Option<oneshot::Sender<()>>,
    serving: JoinHandle<()>,
}

/// Starts a simulated Collibra on the current tokio runtime, whose timers and sockets must be
/// enabled. It accepts connections as soon as this returns.
///
/// # Errors
/// [`Error`], if the address, the files or the numbers cannot be used.
pub async fn start(config: Config) -> Result<Simulator, Error> {
    let settings = settings(&config)?;
    let acceptor = config.tls.as_ref().map(tls::acceptor).transpose()?;
    let unusable = |source| Error::Listen {
        address: config.listen,
        source,
    };
    let listener = server::listen(config.listen).map_err(unusable)?;
    let address = listener.local_addr().map_err(unusable)?;
    let world = Arc::new(World::new(settings));
    for (id, secret) in config.clients {
        world.issuer().add(id.clone(), secret, id, world.now());
    }
    let (stop, stopped) = oneshot::channel();
    let serving = tokio::spawn(server::serve(listener, acceptor, world.clone(), stopped));
    Ok(Simulator {
        address,
        world,
        stop: Some(stop),
        serving,
    })
}

impl Simulator {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it has counted: the same as `GET /_simulator/state`.
    pub fn state(&self) -> State {
        self.world.state()
    }

    /// Stops it at once: requests under way are cut off. When this returns, the address is free.
    pub async fn shutdown(mut self) {
        if let Some(stop) = self.stop.take()
            && stop.send(()).is_ok()
        {
            // it ends by itself now; if it panicked instead, it has ended as well
            let _ = (&mut self.serving).await;
        }
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// Turns a configuration into real time, or says what is wrong with it.
fn settings(config: &Config) -> Result<Settings, Error> {
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
    let real = |collibra: Duration| Duration::from_secs_f64(collibra.as_secs_f64() / speed);
    let (refill, lifetime) = (real(config.refill), real(config.lifetime));
    if refill.is_zero() {
        return Err(Error::Range("the refill must take more than 0 seconds"));
    }
    if lifetime < Duration::from_secs(1) {
        return Err(Error::Lifetime { real: lifetime });
    }
    Ok(Settings {
        speed,
        rules: Rules {
            capacity: config.pool,
            refill,
            lifetime,
        },
        expires_in: lifetime.as_secs(),
        retry_after: config.retry_after,
        rows: config.rows,
        tls: config.tls.is_some(),
        update_rotates_secret: config.update_rotates_secret,
    })
}
