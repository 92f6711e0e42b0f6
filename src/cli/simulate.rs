//! `simulate`: a simulated Collibra by itself, for trying things out and for users' own tests.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use humantime::format_duration;

use super::{interruption, write_out};
use crate::simulator::{self, Config, DEMO_CLIENT_ID, TlsFiles};

/// Run a simulated Collibra: a token endpoint with a small pool, and an API that requires tokens.
#[derive(clap::Args)]
pub struct Args {
    /// Address to listen on
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9400")]
    listen: SocketAddr,

    /// Certificate chain in PEM: serve https instead of http
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,

    /// Private key of the certificate, in PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,

    /// A client that may request tokens; repeatable
    ///
    /// Client ids contain colons, so this is split at the last colon, and the secret cannot contain
    /// one. Without this option there is one well-known client: its id is
    /// urn:sys:env:2eeadf60-1a11-5170-7e57-000000000000:i:1cnxtsn and its secret s3cr+t/=%&x y~!*
    /// (both must be form-urlencoded for client_secret_basic).
    #[arg(long = "client", value_name = "ID:SECRET", value_parser = parse_client)]
    clients: Vec<(String, String)>,

    /// Tokens that the pool of a client holds
    #[arg(long, value_name = "TOKENS", default_value_t = 5)]
    pool: u32,

    /// Time until a pool has one more token
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = humantime::parse_duration)]
    refill: Duration,

    /// Life of a token
    #[arg(long, value_name = "DURATION", default_value = "299s", value_parser = humantime::parse_duration)]
    lifetime: Duration,

    /// Simulated seconds a second: divides every duration
    ///
    /// The lifetime divided by this must be at least one second. Responses state it in whole
    /// seconds, rounded down.
    #[arg(long, value_name = "NUMBER", default_value_t = 1.0)]
    speed: f64,

    /// Send Retry-After with a 429
    #[arg(long)]
    retry_after: bool,

    /// Rows of an export, and number of assets
    #[arg(long, value_name = "ROWS", default_value_t = 1000)]
    rows: u64,
}

/// Runs until SIGINT or SIGTERM.
///
/// # Errors
/// If the address, the files or the numbers cannot be used.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let interruption = interruption()?;
    let mut config = Config {
        listen: args.listen,
        pool: args.pool,
        refill: args.refill,
        lifetime: args.lifetime,
        speed: args.speed,
        retry_after: args.retry_after,
        rows: args.rows,
        ..Config::default()
    };
    let files = args.tls_cert.zip(args.tls_key);
    config.tls = files.map(|(cert, key)| TlsFiles { cert, key });
    if !args.clients.is_empty() {
        config.clients = args.clients;
    }
    let started = simulator::start(config.clone()).await;
    let simulator = started.context("the simulator cannot start")?;
    write_out(introduction(&config, simulator.address()))?;
    interruption.await;
    simulator.shutdown().await;
    Ok(())
}

/// The text at the start. It contains no secret.
fn introduction(config: &Config, address: SocketAddr) -> String {
    let scheme = if config.tls.is_some() {
        "https"
    } else {
        "http"
    };
    let url = format!("{scheme}://{address}");
    let client = |(id, _): &(String, String)| match id == DEMO_CLIENT_ID {
        true => format!("  client   {id} (secret: see --help)\n"),
        false => format!("  client   {id}\n"),
    };
    let clients: String = config.clients.iter().map(client).collect();
    let (pool, refill) = (config.pool, format_duration(config.refill));
    let (lifetime, speed) = (format_duration(config.lifetime), config.speed);
    format!(
        "Simulated Collibra at {url}
{clients}  tokens   POST {url}/rest/oauth/v2/token (pool of {pool}, one more every {refill}, life {lifetime}, speed {speed})
  clients  {url}/rest/auth/v1/clients (user admin, password admin), as {url}/_simulator/openapi.json says
  control  GET {url}/_simulator/state; POST …/revoke, …/faults, …/reset
"
    )
}

/// Parses a client's id and secret.
fn parse_client(typed: &str) -> Result<(String, String), &'static str> {
    let parts = typed.rsplit_once(':');
    let parts = parts.filter(|(id, secret)| !id.is_empty() && !secret.is_empty());
    let parts = parts.map(|(id, secret)| (id.to_owned(), secret.to_owned()));
    parts.ok_or("write ID:SECRET, neither of them empty")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_split_at_its_last_colon() {
        let (id, secret) = parse_client(&format!("{DEMO_CLIENT_ID}:s3cret")).unwrap();
        assert_eq!((&*id, &*secret), (DEMO_CLIENT_ID, "s3cret"));
        for wrong in ["", "id", "id:", ":secret"] {
            assert!(parse_client(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_introduction_tells_no_secret() {
        let clients = vec![("urn:a".to_owned(), "canary".to_owned())];
        let config = Config {
            clients,
            ..Config::default()
        };
        let told = introduction(&config, config.listen);
        assert!(
            told.contains("urn:a") && told.contains("http://127.0.0.1:9400"),
            "{told}"
        );
        assert!(!told.contains("canary"), "{told}");
    }
}
