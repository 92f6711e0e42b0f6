//! A TLS front for the simulator that can show the token endpoint's callers another certificate.
//!
//! Instance and token endpoint share a host and a port. The TLS handshake tells their connections
//! apart: the proxy offers HTTP/2 for the API, and not for a token request.

use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::Acceptor;
use tempfile::NamedTempFile;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_rustls::LazyConfigAcceptor;

use super::now;

/// A running front; it ends on drop.
pub(super) struct Front {
    address: SocketAddr,
    ca_file: NamedTempFile,
    wrong_until: watch::Sender<Option<Instant>>,
    _serving: JoinSet<()>,
}

#[derive(Clone)]
struct Certificates {
    right: Arc<ServerConfig>,
    wrong: Arc<ServerConfig>,
    wrong_until: watch::Receiver<Option<Instant>>,
}

impl Front {
    pub(super) async fn start(origin: SocketAddr) -> Front {
        let (right, pem) = certificate();
        let (wrong, _) = certificate();
        let mut ca_file = NamedTempFile::new().unwrap();
        ca_file.write_all(pem.as_bytes()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (wrong_until, changes) = watch::channel(None);
        let certificates = Certificates {
            right,
            wrong,
            wrong_until: changes,
        };
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((caller, _)) = listener.accept().await {
                connections.spawn(serve(caller, origin, certificates.clone()));
            }
        });
        Front {
            address,
            ca_file,
            wrong_until,
            _serving: serving,
        }
    }

    pub(super) fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    pub(super) fn ca_file(&self) -> &Path {
        self.ca_file.path()
    }

    /// Sends the wrong certificate for `span`.
    pub(super) fn go_wrong(&self, span: Duration) {
        self.wrong_until.send_replace(Some(now() + span));
    }

    /// Sends the right certificate again.
    pub(super) fn mend(&self) {
        self.wrong_until.send_replace(None);
    }
}

async fn serve(caller: TcpStream, origin: SocketAddr, certificates: Certificates) {
    caller.set_nodelay(true).unwrap();
    let Ok(hello) = LazyConfigAcceptor::new(Acceptor::default(), caller).await else {
        return;
    };
    let asks_for_a_token = {
        let hello = hello.client_hello();
        let mut offered = hello.alpn().into_iter().flatten();
        !offered.any(|protocol| protocol == b"h2")
    };
    let is_wrong = asks_for_a_token
        && certificates
            .wrong_until
            .borrow()
            .is_some_and(|end| now() < end);
    if is_wrong {
        // it will not be accepted
        let _ = hello.into_stream(certificates.wrong).await;
        return;
    }
    let Ok(mut caller) = hello.into_stream(certificates.right).await else {
        return;
    };
    let Ok(mut origin) = TcpStream::connect(origin).await else {
        return;
    };
    origin.set_nodelay(true).unwrap();
    // both ends check how the connection ends
    let _ = tokio::io::copy_bidirectional(&mut caller, &mut origin).await;
}

fn certificate() -> (Arc<ServerConfig>, String) {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    (Arc::new(config), made.cert.pem())
}
