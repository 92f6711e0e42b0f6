//! An `https://` instance with a name of its own, and a forward listener in front of it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::support::certificate::Authority;
use crate::support::http::{self, Answer, Connection};
use crate::support::origin::{After, Rules};
use crate::support::process::{Ended, command, run};
use crate::support::proxy::Builder;
use crate::support::simulator::{CLIENT_ID, CLIENT_SECRET};
use crate::support::{Origin, Proxy};

/// The instance's host.
pub(super) const HOST: &str = "acme.example";

/// A configuration with an authority, whose proxy is not started yet.
pub(super) struct Prepared {
    pub(super) folder: tempfile::TempDir,
    pub(super) origin: Origin,
}

/// A running proxy with a forward listener.
pub(super) struct Rig {
    pub(super) folder: tempfile::TempDir,
    pub(super) origin: Origin,
    pub(super) proxy: Proxy,
}

/// TLS inside a tunnel.
pub(super) type Inside = StreamOwned<ClientConnection, TcpStream>;

/// An `https://` origin named [`HOST`] that answers every call with `ok`, and the authority that
/// certified it.
fn origin(authority: &Authority) -> Origin {
    origin_with(authority, |request, stream| {
        let more = match request.header("upgrade") {
            Some(_) => {
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nwelcome"
            }
            None => "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        };
        stream.write_all(more.as_bytes())?;
        Ok(After::Keep)
    })
}

fn origin_with(
    authority: &Authority,
    api: impl Fn(&crate::support::request::Request, &mut dyn Write) -> std::io::Result<After>
    + Send
    + Sync
    + 'static,
) -> Origin {
    let server = authority.server(HOST);
    let rules = Rules {
        tls: Some(Box::new(move |_| Arc::clone(&server))),
        ..Rules::default()
    };
    Origin::with(rules, api)
}

impl Prepared {
    /// With these keys in the listener's table, and more tables; its authority is not made yet.
    pub(super) fn without_authority(keys: &str, tables: &str) -> Prepared {
        let issuer = Authority::new();
        let origin = origin(&issuer);
        Prepared::before(origin, &issuer, keys, tables)
    }

    /// The same before an origin that answers with `api`.
    pub(super) fn answering(
        keys: &str,
        api: impl Fn(&crate::support::request::Request, &mut dyn Write) -> std::io::Result<After>
        + Send
        + Sync
        + 'static,
    ) -> Prepared {
        let issuer = Authority::new();
        let origin = origin_with(&issuer, api);
        let prepared = Prepared::before(origin, &issuer, keys, "");
        prepared.ca(&["init"]);
        prepared
    }

    fn before(origin: Origin, issuer: &Authority, keys: &str, tables: &str) -> Prepared {
        let folder = tempfile::tempdir().unwrap();
        std::fs::copy(issuer.ca_file(), folder.path().join("instance-ca.pem")).unwrap();
        let text = format!(
            r#"
[instance.acme]
url = "https://{HOST}"
address = "{}"
ca_file = "instance-ca.pem"
[client.catalog]
client_id = "{CLIENT_ID}"
client_secret = "{CLIENT_SECRET}"
[listener.forward]
address = "127.0.0.1:0"
mode = "forward"
{keys}
[admin]
address = "127.0.0.1:0"
{tables}
"#,
            origin.address
        );
        std::fs::write(folder.path().join("proxy.toml"), text).unwrap();
        Prepared { folder, origin }
    }

    /// Runs a subcommand of `ca`, which must succeed.
    pub(super) fn ca(&self, words: &[&str]) -> Ended {
        ca(self.folder.path(), words)
    }

    /// Makes the authority of a configuration that reads this variable.
    pub(super) fn ca_with(&self, name: &str, value: &str) {
        let file = self.folder.path().join("proxy.toml");
        let mut command = command(["ca", "init", "--config"]);
        let ended = run(command.arg(file).env(name, value));
        assert_eq!(ended.status, 0, "{}", ended.err);
    }

    pub(super) fn builder(&self) -> Builder {
        Proxy::by_file(&self.folder.path().join("proxy.toml"))
    }

    pub(super) fn start(self) -> Rig {
        let builder = self.builder();
        self.start_by(builder)
    }

    pub(super) fn start_by(self, builder: Builder) -> Rig {
        let proxy = builder.start();
        proxy.has_token();
        Rig {
            folder: self.folder,
            origin: self.origin,
            proxy,
        }
    }
}

/// Runs a subcommand of `ca` for the configuration in `folder`, which must succeed.
pub(super) fn ca(folder: &Path, words: &[&str]) -> Ended {
    let file = folder.join("proxy.toml");
    let mut command = command(["ca"].iter().chain(words));
    let ended = run(command.arg("--config").arg(file));
    assert_eq!(ended.status, 0, "{}", ended.err);
    ended
}

impl Rig {
    /// A running one with these keys in the listener's table, and more tables.
    pub(super) fn with(keys: &str, tables: &str) -> Rig {
        let prepared = Prepared::without_authority(keys, tables);
        prepared.ca(&["init"]);
        prepared.start()
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.proxy.address
    }

    /// The local authority's certificate.
    pub(super) fn ca_file(&self) -> PathBuf {
        self.folder.path().join("local-ca.pem")
    }

    /// Sends `head`, with line feeds for line ends, on a new connection; returns its answer and the
    /// connection.
    pub(super) fn ask(&self, head: &str) -> (Answer, Connection) {
        let mut connection = self.proxy.connect();
        connection.send(head.replace('\n', "\r\n"));
        (connection.answer(head), connection)
    }

    /// Opens a tunnel to the instance with these further lines in its head, and TLS in it.
    pub(super) fn inside_with(&self, lines: &str, alpn: &[&str]) -> Inside {
        let tcp = connected(self.address(), &format!("{HOST}:443"), lines);
        handshake(tcp, &self.ca_file(), HOST, alpn).unwrap()
    }

    /// The same for HTTP/1.1.
    pub(super) fn inside(&self) -> Connection {
        Connection::over(self.inside_with("", &["http/1.1"]))
    }

    /// Asserts that the origin's last request has the token and the instance's host.
    pub(super) fn has_token(&self) {
        let request = self.origin.requests().pop().expect("a request");
        let token = format!("Bearer {}", self.origin.tokens()[0]);
        assert_eq!(request.header("authorization"), Some(token.as_str()));
        assert_eq!(request.header("host"), Some(HOST));
        assert_eq!(request.header("proxy-authorization"), None);
    }
}

/// Asks for `path` inside a tunnel.
pub(super) fn get(inside: &mut Connection, path: &str) -> Answer {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    inside.send(&request);
    inside.answer(&request)
}

/// A connection to the proxy at `address` with a tunnel to `target`.
pub(super) fn connected(address: SocketAddr, target: &str, lines: &str) -> TcpStream {
    let mut tcp = http::tcp(address);
    let request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{lines}\r\n");
    tcp.write_all(request.as_bytes()).unwrap();
    let head = head(&mut tcp);
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    tcp
}

/// Reads a head and not a byte more.
pub(super) fn head(tcp: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        assert_eq!(
            tcp.read(&mut byte).unwrap(),
            1,
            "{:?}",
            String::from_utf8_lossy(&head)
        );
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

/// A client's configuration that trusts the certificate in `ca_file`.
pub(super) fn trusting(ca_file: &Path, alpn: &[&str]) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(ca_file).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    Arc::new(config)
}

/// TLS over `tcp` with the server `name`.
pub(super) fn handshake(
    tcp: TcpStream,
    ca_file: &Path,
    name: &str,
    alpn: &[&str],
) -> std::io::Result<Inside> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let tls = ClientConnection::new(trusting(ca_file, alpn), name).unwrap();
    let mut stream = StreamOwned::new(tls, tcp);
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock)?;
    }
    Ok(stream)
}
