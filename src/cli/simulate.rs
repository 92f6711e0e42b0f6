//! `simulate`: a simulated Collibra by itself, for trying things out and for users' own tests.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};

use crate::simulator::{self, Config, DEMO_CLIENT_ID, TlsFiles};

/// Run a simulated Collibra: a token endpoint with a small pool, and an API that wants tokens.
#[derive(clap::Args)]
pub struct Args {
    /// Address to listen on
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9400")]
    pub listen: SocketAddr,

    /// Certificate chain in PEM: serve https instead of http
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,

    /// Private key of the certificate, in PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,

    /// A client that may ask for tokens; may be given several times
    ///
    /// Client ids contain colons, so this is split at the last colon, and the secret cannot contain
    /// one. Without this option there is one well-known client: its id is
    /// urn:sys:env:2eeadf60-1a11-5170-7e57-000000000000:i:1cnxtsn and its secret s3cr+t/=%&x y~!*
    /// (both must be form-urlencoded for client_secret_basic).
    #[arg(long = "client", value_name = "ID:SECRET", value_parser = parse_client)]
    pub clients: Vec<Client>,

    /// Tokens that the pool of a client holds
    #[arg(long, value_name = "TOKENS", default_value_t = 5)]
    pub pool: u32,

    /// Time until a pool has one more token
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = humantime::parse_duration)]
    pub refill: Duration,

    /// Life of a token
    #[arg(long, value_name = "DURATION", default_value = "299s", value_parser = humantime::parse_duration)]
    pub lifetime: Duration,

    /// Simulated seconds a second: divides every duration
    ///
    /// The lifetime divided by this must be at least one second, and is told to clients in whole
    /// seconds, rounded down.
    #[arg(long, value_name = "NUMBER", default_value_t = 1.0)]
    pub speed: f64,

    /// Send Retry-After with a 429
    #[arg(long)]
    pub retry_after: bool,

    /// Rows of an export, and number of assets
    #[arg(long, value_name = "ROWS", default_value_t = 1000)]
    pub rows: u64,
}

/// A client as typed.
#[derive(Clone)]
pub struct Client {
    id: String,
    secret: String,
}

/// Runs until SIGINT or SIGTERM.
///
/// # Errors
/// When the address, the files or the numbers cannot be used.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let config = args.into_config();
    let introduction = Introduction::of(&config);
    let simulator = simulator::start(config)
        .await
        .context("the simulator cannot start")?;
    let written = introduction.write(simulator.address(), &mut std::io::stdout().lock());
    written.context("cannot write to standard output")?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    simulator.shutdown().await;
    Ok(())
}

impl Args {
    fn into_config(self) -> Config {
        let mut config = Config {
            listen: self.listen,
            tls: self
                .tls_cert
                .zip(self.tls_key)
                .map(|(cert, key)| TlsFiles { cert, key }),
            pool: self.pool,
            refill: self.refill,
            lifetime: self.lifetime,
            speed: self.speed,
            retry_after: self.retry_after,
            rows: self.rows,
            ..Config::default()
        };
        if !self.clients.is_empty() {
            config.clients = self
                .clients
                .into_iter()
                .map(|client| (client.id, client.secret))
                .collect();
        }
        config
    }
}

/// The text at the start. It contains no secret.
struct Introduction {
    scheme: &'static str,
    clients: Vec<String>,
    rules: String,
}

impl Introduction {
    fn of(config: &Config) -> Self {
        Self {
            scheme: if config.tls.is_some() {
                "https"
            } else {
                "http"
            },
            clients: config.clients.iter().map(|(id, _)| id.clone()).collect(),
            rules: format!(
                "pool of {}, one more every {}, life {}, speed {}",
                config.pool,
                humantime::format_duration(config.refill),
                humantime::format_duration(config.lifetime),
                config.speed,
            ),
        }
    }

    fn write(&self, address: SocketAddr, out: &mut impl Write) -> std::io::Result<()> {
        let url = format!("{}://{address}", self.scheme);
        writeln!(out, "Simulated Collibra at {url}")?;
        for client in &self.clients {
            let known = if client == DEMO_CLIENT_ID {
                " (secret: see --help)"
            } else {
                ""
            };
            writeln!(out, "  client   {client}{known}")?;
        }
        writeln!(
            out,
            "  tokens   POST {url}/rest/oauth/v2/token ({})",
            self.rules
        )?;
        writeln!(
            out,
            "  clients  {url}/rest/auth/v1/clients (user admin, password admin), as {url}/_simulator/openapi.json says"
        )?;
        writeln!(
            out,
            "  control  GET {url}/_simulator/state; POST …/revoke, …/faults, …/reset"
        )?;
        out.flush()
    }
}

fn parse_client(typed: &str) -> Result<Client, &'static str> {
    match typed.rsplit_once(':') {
        Some((id, secret)) if !id.is_empty() && !secret.is_empty() => Ok(Client {
            id: id.to_owned(),
            secret: secret.to_owned(),
        }),
        _ => Err("write ID:SECRET, neither of them empty"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_split_at_its_last_colon() {
        let client = parse_client(&format!("{DEMO_CLIENT_ID}:s3cret")).unwrap();
        assert_eq!(
            (client.id.as_str(), client.secret.as_str()),
            (DEMO_CLIENT_ID, "s3cret")
        );
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
        let mut out = Vec::new();
        Introduction::of(&config)
            .write(config.listen, &mut out)
            .unwrap();
        let told = String::from_utf8(out).unwrap();
        assert!(
            told.contains("urn:a") && told.contains("http://127.0.0.1:9400"),
            "{told}"
        );
        assert!(!told.contains("canary"), "{told}");
    }
}
