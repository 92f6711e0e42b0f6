//! `check --live`: resolves, reaches and verifies each instance, then tries each of its clients.
//! Prints the result of each step, and what to do after a failure.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConnection;
use rustls::pki_types::CertificateDer;
use tokio_util::either::Either;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use super::client::Trial;
use crate::cli::date;
use crate::clock::{Clock, SystemClock};
use crate::config::Config;
use crate::outgoing::addresses::Addresses;
use crate::outgoing::dial::{Dialer, Protocols, Step};
use crate::tls;
use crate::upstream::Instance;

/// Tries all of `config`, with a call of `probe` for each client. Returns whether every step
/// succeeded.
///
/// # Errors
/// Only if writing to `out` fails.
pub(super) async fn run(config: &Config, probe: &str, out: &mut impl Write) -> io::Result<bool> {
    let mut all_well = true;
    for (name, instance) in &config.instances {
        writeln!(out, "trying instance {name}")?;
        let reached = reach(instance, out).await?;
        all_well &= reached;
        for client in config.clients.values().filter(|c| c.instance == *name) {
            let trial = Trial {
                instance,
                client,
                store: &config.store,
                probe,
            };
            all_well &= trial.run(reached, out).await?;
        }
    }
    Ok(all_well)
}

/// A step's result and a text about it, or the cause of its failure and what to do.
pub(super) type Found<T> = anyhow::Result<(T, String)>;

/// Prints how a step ended; returns its result, if it succeeded.
pub(super) fn step<T>(out: &mut impl Write, name: &str, found: Found<T>) -> io::Result<Option<T>> {
    match found {
        Ok((result, said)) => writeln!(out, "  {name}: {said}").map(|()| Some(result)),
        Err(why) => writeln!(out, "  {name}: FAILED: {why}").map(|()| None),
    }
}

/// Connects to `instance` as the proxy does, and prints the result of each step.
async fn reach(instance: &Instance, out: &mut impl Write) -> io::Result<bool> {
    let route = instance.route();
    let limit = instance.connect_timeout;
    let addresses = Addresses::new(route.targets(), limit, instance.resolve_ttl_max);
    let dialer = match Dialer::new(&route, Arc::clone(&addresses)) {
        Ok(dialer) => dialer,
        Err(error) => return writeln!(out, "  tls: FAILED: {error}").map(|()| false),
    };
    let dialed = dialer.dial(Protocols::Any).await;
    if !matches!(&dialed, Err(error) if error.step == Step::Resolve) {
        let names: Vec<&str> = addresses.targets().iter().map(|t| &*t.host).collect();
        let found = addresses.current();
        let found: Vec<String> = found.iter().map(|a| a.ip().to_string()).collect();
        let (names, found) = (names.join(", "), found.join(", "));
        writeln!(out, "  resolve: {names} is {found}")?;
    }
    let dialed = match dialed {
        Ok(dialed) => dialed,
        Err(error) => {
            let failed = match error.step {
                Step::Resolve => "resolve",
                Step::Connect => "connect",
                Step::Proxy => "proxy",
                Step::Tls(address) => {
                    writeln!(out, "  connect: {address}")?;
                    "tls"
                }
            };
            return writeln!(out, "  {failed}: FAILED: {error}").map(|()| false);
        }
    };
    let (address, took) = (dialed.address, dialed.took);
    writeln!(out, "  connect: {address} in {}", milliseconds(took.tcp))?;
    if let Some(proxy) = &instance.proxy {
        let (to, spent) = (&instance.authority, milliseconds(took.tunnel));
        writeln!(out, "  proxy: {proxy} connected to {to} in {spent}")?;
    }
    let said = match &dialed.transport {
        Either::Left(_) => "none: the instance's url is http://".to_owned(),
        Either::Right(stream) => verified(stream.get_ref().1, took.tls),
    };
    writeln!(out, "  tls: {said}")?;
    Ok(true)
}

/// Describes a handshake.
fn verified(session: &ClientConnection, took: Duration) -> String {
    let version = session.protocol_version();
    let version = version
        .and_then(|version| version.as_str())
        .unwrap_or("TLS");
    let version = version.replace("TLSv1_", "TLS 1.");
    let certificate = session.peer_certificates().and_then(<[_]>::first);
    let certificate = certificate.and_then(describe);
    let certificate = certificate.unwrap_or_else(|| "certificate accepted".to_owned());
    format!("{version} in {}, {certificate}", milliseconds(took))
}

/// Describes a certificate: its name and its expiry.
fn describe(der: &CertificateDer<'_>) -> Option<String> {
    let end = tls::expiry(der)?;
    let days = end
        .duration_since(SystemClock.wall())
        .unwrap_or_default()
        .as_secs()
        / 86_400;
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let issuer = certificate.issuer().to_string();
    let (issuer, end) = (issuer.escape_debug(), date(end));
    Some(format!(
        "certificate accepted, issued by {issuer}, valid until {end} ({days} days)"
    ))
}

/// Formats a duration.
pub(super) fn milliseconds(spent: Duration) -> String {
    format!("{} ms", spent.as_millis())
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::SocketAddr;

    use super::super::client::PROBE;
    use super::super::tests::config;
    use super::*;
    use crate::store;

    async fn said(config: &Config) -> (bool, String) {
        let mut out = Vec::new();
        let well = run(config, PROBE, &mut out).await.unwrap();
        (well, String::from_utf8(out).unwrap())
    }

    /// Starts a server that sends `answer` on three connections, the first of which sends no
    /// request.
    fn serve(answer: &'static str) -> SocketAddr {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming().take(3) {
                let mut stream = stream.unwrap();
                if stream.read(&mut [0; 4096]).is_ok_and(|n| n > 0) {
                    let _ = stream.write_all(answer.as_bytes());
                }
            }
        });
        address
    }

    #[tokio::test]
    async fn every_step_is_told_and_the_token_is_not() {
        let address = serve(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n\
             {\"access_token\": \"canary-token\", \"token_type\": \"Bearer\", \"expires_in\":299}",
        );
        let (well, said) = said(&config(&format!("http://{address}"))).await;
        assert!(well, "{said}");
        for step in [
            "resolve: 127.0.0.1 is",
            "connect: 127.0.0.1:",
            "tls: none",
            "lives 4m 59s",
            "pool: at most 4 of 5 left: a guess",
            "api: GET /rest/2.0/application/info was answered 200 in ",
        ] {
            assert!(said.contains(step), "{said}");
        }
        assert!(!said.contains("canary"), "{said}");
    }

    #[tokio::test]
    async fn the_store_is_looked_into_and_one_that_is_away_fails() {
        let address = serve("HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n");
        let mut config = config(&format!("http://{address}"));
        let directory = tempfile::tempdir().unwrap();
        config.store = store::Config::File {
            directory: directory.path().to_owned(),
        };
        let (_, told) = said(&config).await;
        assert!(told.contains("store: file store, read in "), "{told}");
        assert!(told.contains("ms: nothing yet\n"), "{told}");

        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        config.store = store::Config::Redis(store::redis::Config {
            server: store::redis::Server::Tcp {
                host: "127.0.0.1".to_owned(),
                port,
            },
            user: None,
            password: None,
            database: 0,
            key_prefix: "a".to_owned(),
        });
        let (well, told) = said(&config).await;
        let failed = format!("store: FAILED: redis://127.0.0.1:{port} cannot be reached");
        assert!(!well && told.contains(&failed), "{told}");
    }

    #[tokio::test]
    async fn a_refused_client_fails() {
        let address = serve("HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n");
        let (well, said) = said(&config(&format!("http://{address}"))).await;
        assert!(!well);
        assert!(said.contains("token: FAILED: "), "{said}");
    }

    #[tokio::test]
    async fn a_port_on_which_nothing_listens_fails_and_no_token_is_asked_for() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let (well, said) = said(&config(&format!("http://{address}"))).await;
        assert!(!well);
        assert!(said.contains("connect: FAILED: "), "{said}");
        assert!(
            said.ends_with("not trying client default: see above\n"),
            "{said}"
        );
    }

    #[tokio::test]
    async fn a_port_without_tls_is_told_from_one_with() {
        let address = serve("HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n");
        let (well, said) = said(&config(&format!("https://{address}"))).await;
        assert!(!well);
        assert!(
            said.contains("tls: FAILED: 127.0.0.1:") && said.contains("does not speak TLS"),
            "{said}"
        );
    }

    #[tokio::test]
    async fn a_certificate_is_verified_and_described() {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let ca_file = directory.path().join("ca.pem");
        std::fs::write(&ca_file, made.cert.pem()).unwrap();
        let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let server = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key.unwrap())
            .unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(server));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let _ = acceptor.accept(stream).await;
            }
        });

        let mut config = config(&format!("https://localhost:{port}"));
        let (well, told) = said(&config).await;
        assert!(!well);
        assert!(
            told.contains("tls: FAILED: the certificate of localhost:"),
            "{told}"
        );
        assert!(
            told.contains("name that authority's certificate in ca_file"),
            "{told}"
        );

        for instance in config.instances.values_mut() {
            Arc::make_mut(instance).ca_file = Some(crate::tls::CaFile::read(&ca_file).unwrap());
        }
        let (_, told) = said(&config).await;
        assert!(told.contains("tls: TLS 1.3 in "), "{told}");
        assert!(told.contains("valid until 4096-01-01"), "{told}");
    }
}
