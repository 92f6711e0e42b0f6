//! An app that connects to the proxy with TLS.

use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::certificate::Authority;
use super::http::{self, Connection};

/// TLS over TCP, from the app's side.
pub(crate) type Stream = StreamOwned<ClientConnection, TcpStream>;

/// A TLS client configuration.
pub(crate) struct Client(Arc<ClientConfig>);

impl Client {
    /// Creates a client that trusts `authority`, offers the protocols `alpn`, and uses a
    /// certificate of the second authority.
    pub(crate) fn new(
        authority: &Authority,
        alpn: &[&str],
        shown: Option<(&Authority, &str)>,
    ) -> Client {
        let mut roots = RootCertStore::empty();
        let trusted = CertificateDer::from_pem_file(authority.ca_file()).unwrap();
        roots.add(trusted).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match shown {
            None => config.with_no_client_auth(),
            Some((issuer, name)) => {
                let (cert, key) = issuer.certify(name);
                let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
                config
                    .with_client_auth_cert(vec![cert.der().clone()], key)
                    .unwrap()
            }
        };
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Client(Arc::new(config))
    }

    /// Connects to the proxy as `localhost`, including the handshake.
    pub(crate) fn connect(&self, address: SocketAddr) -> std::io::Result<Stream> {
        let name = "localhost".try_into().unwrap();
        let tls = ClientConnection::new(Arc::clone(&self.0), name).unwrap();
        let mut stream = StreamOwned::new(tls, http::tcp(address));
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(stream)
    }

    /// As [`Client::connect`], for HTTP/1.1.
    pub(crate) fn open(&self, address: SocketAddr) -> Connection {
        Connection::over(self.connect(address).unwrap())
    }

    /// The configuration, for tokio.
    pub(crate) fn config(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.0)
    }
}
