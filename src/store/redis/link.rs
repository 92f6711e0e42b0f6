//! The connection to the server: made when it is needed, and made anew when it is broken. Which server
//! it is, is in `primary.rs`.
//!
//! The library's own manager of connections is not used, nor its clients of sentinels and clusters: it keeps a connection whose answers do not
//! come, as it has to for its own reasons, and a way that swallows everything would never be left;
//! and it reads the system's certificates for every connection, by rules other than this program's.
//!
//! Promises: every operation ends within [`DEADLINE`]; nothing that the server says is passed on in
//! its own words, which may have the password in them.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, ProtocolVersion, PushInfo, RedisConnectionInfo, RedisError};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Mutex;
use tokio::task::AbortHandle;
use tokio_rustls::TlsConnector;

use super::bounded::Bounded;
use super::notices::Notices;
use super::scripts::Keys;
use super::{Config, Server};
use crate::tls;
use crate::token::ports::StoreError;

/// How long an operation may take, connecting included.
pub(super) const DEADLINE: Duration = Duration::from_secs(2);

/// A connection that is there when it is needed.
#[derive(Debug)]
pub(super) struct Link {
    server: Server,
    tls: Option<Arc<rustls::ClientConfig>>,
    login: Login,
    channel: String,
    /// A key in the slot of all keys.
    key: String,
    notices: Arc<Notices>,
    /// Whether a connection was left because of the size of what the server sent.
    exceeded: Arc<AtomicBool>,
    /// Whether the server tells of changes: this user may listen.
    listens: AtomicBool,
    connection: Mutex<Option<Connection>>,
}

/// Has no `Debug` of the library's: it holds the password.
struct Login(RedisConnectionInfo);

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Login")
    }
}

/// A connection to a server.
#[derive(Clone, Debug)]
pub(super) struct Connection {
    pub(super) commands: MultiplexedConnection,
    driver: Arc<Driver>,
}

/// What carries the bytes; it ends with the last who uses the connection.
#[derive(Debug)]
struct Driver(AbortHandle);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Link {
    /// A link to the server of `config` that listens to the channel of `keys`. Connects to nothing.
    ///
    /// # Errors
    /// [`tls::Error`] if there is no certificate to verify the server by.
    pub(super) fn new(config: &Config, keys: &Keys) -> Result<(Link, Arc<Notices>), tls::Error> {
        let ca_file = match &config.server {
            Server::Tls { ca_file, .. } => Some(ca_file),
            Server::Sentinel { tls, .. } | Server::Cluster { tls, .. } => {
                tls.as_ref().map(|trust| &trust.ca_file)
            }
            Server::Tcp { .. } | Server::Unix { .. } => None,
        };
        let tls = ca_file.map(|ca_file| tls::client_config(ca_file.as_ref()));
        let tls = tls.transpose()?.map(Arc::new);
        let mut login = RedisConnectionInfo::default()
            .set_protocol(ProtocolVersion::RESP3)
            .set_skip_set_lib_name()
            .set_db(config.database.into());
        if let Some(user) = &config.user {
            login = login.set_username(user);
        }
        if let Some(password) = &config.password {
            login = login.set_password(password.expose());
        }
        let notices = Arc::<Notices>::default();
        let link = Link {
            server: config.server.clone(),
            tls,
            login: Login(login),
            channel: keys.channel.clone(),
            key: keys.record.clone(),
            notices: Arc::clone(&notices),
            exceeded: Arc::default(),
            listens: AtomicBool::new(false),
            connection: Mutex::new(None),
        };
        Ok((link, notices))
    }

    /// Whether the server tells of changes.
    pub(super) fn listens(&self) -> bool {
        self.listens.load(Ordering::Relaxed)
    }

    /// Has `command` carried out. A connection on which one failed otherwise than by an answer is
    /// left.
    ///
    /// # Errors
    /// [`StoreError::Away`] says what failed and what to do.
    pub(super) async fn run<T>(
        &self,
        command: impl AsyncFnOnce(&mut MultiplexedConnection) -> Result<T, RedisError>,
    ) -> Result<T, StoreError> {
        let mut used = None;
        let running = async {
            let mut connection = self.connection().await?;
            used = Some(Arc::clone(&connection.driver));
            let done = command(&mut connection.commands).await;
            done.map_err(|e| (is_answer(&e) && !is_elsewhere(&e), self.problem(&e)))
        };
        let ended = tokio::time::timeout(DEADLINE, running).await;
        let (answered, problem) = match ended {
            Ok(Ok(done)) => return Ok(done),
            Ok(Err(failed)) => failed,
            Err(_elapsed) => (false, self.silent()),
        };
        if !answered && let Some(used) = used {
            let mut held = self.connection.lock().await;
            held.take_if(|connection| Arc::ptr_eq(&connection.driver, &used));
        }
        Err(StoreError::Away(problem))
    }

    async fn connection(&self) -> Result<Connection, (bool, String)> {
        let mut held = self.connection.lock().await;
        if let Some(connection) = &*held {
            return Ok(connection.clone());
        }
        let connection = self.connect().await.map_err(|problem| (false, problem))?;
        Ok(held.insert(connection).clone())
    }

    async fn connect(&self) -> Result<Connection, String> {
        let opened = match &self.server {
            Server::Unix { path } => {
                let stream = UnixStream::connect(path).await;
                let stream = stream.map_err(|e| self.unreachable(&e))?;
                self.log_in(stream, &self.login.0, true).await?
            }
            Server::Tcp { host, port } | Server::Tls { host, port, .. } => {
                self.open(host, *port, &self.login.0, true).await?
            }
            Server::Sentinel { nodes, primary, .. } => self.of_sentinels(nodes, primary).await?,
            Server::Cluster { nodes, .. } => self.of_cluster(nodes).await?,
        };
        self.subscribe(opened).await
    }

    /// A connection to the server at `host`, which tells of changes if it `listens`.
    pub(super) async fn open(
        &self,
        host: &str,
        port: u16,
        login: &RedisConnectionInfo,
        listens: bool,
    ) -> Result<Connection, String> {
        let stream = dial(host, port).await.map_err(|e| self.unreachable(&e))?;
        let Some(config) = &self.tls else {
            return self.log_in(stream, login, listens).await;
        };
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| format!("{}: {host} can have no certificate", self.server))?;
        let stream = TlsConnector::from(Arc::clone(config))
            .connect(name, stream)
            .await;
        let stream = stream.map_err(|e| self.refused(&e))?;
        self.log_in(stream, login, listens).await
    }

    async fn log_in<S>(
        &self,
        stream: S,
        login: &RedisConnectionInfo,
        listens: bool,
    ) -> Result<Connection, String>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        // there is one deadline, and it is this file's
        let mut config = AsyncConnectionConfig::new().set_response_timeout(None);
        if listens {
            let notices = Arc::clone(&self.notices);
            config = config.set_push_sender(move |push: PushInfo| {
                notices.tell(&push);
                Ok::<(), ()>(())
            });
        }
        let stream = Bounded::new(stream, Arc::clone(&self.exceeded));
        let opened = MultiplexedConnection::new_with_config(login, stream, config).await;
        let (commands, driver) = opened.map_err(|e| self.problem(&e))?;
        let driver = Arc::new(Driver(tokio::spawn(driver).abort_handle()));
        Ok(Connection { commands, driver })
    }

    async fn subscribe(&self, mut connection: Connection) -> Result<Connection, String> {
        let listens = match connection.commands.subscribe(&self.channel).await {
            Ok(()) => true,
            // the user may not listen, so changes are seen by looking
            Err(e) if is_answer(&e) => false,
            Err(e) => return Err(self.problem(&e)),
        };
        self.listens.store(listens, Ordering::Relaxed);
        Ok(connection)
    }

    /// A key in the slot of all keys.
    pub(super) fn key(&self) -> &str {
        &self.key
    }

    /// The server, for people.
    pub(super) fn server(&self) -> &Server {
        &self.server
    }

    /// By which user it is logged in.
    pub(super) fn login(&self) -> &RedisConnectionInfo {
        &self.login.0
    }

    fn unreachable(&self, e: &io::Error) -> String {
        let server = &self.server;
        format!("{server} cannot be reached ({e}); see that it runs, and the store's url")
    }

    fn refused(&self, e: &io::Error) -> String {
        let cause = e.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>());
        let server = &self.server;
        match cause {
            Some(rustls::Error::InvalidCertificate(reason)) => format!(
                "the certificate of {server} is not accepted ({}); {}",
                reason.to_string().escape_debug(),
                tls::certificate_advice(reason)
            ),
            Some(rustls::Error::InvalidMessage(_)) => {
                format!("{server} does not speak TLS; see whether redis:// is meant")
            }
            _ => self.unreachable(e),
        }
    }

    fn silent(&self) -> String {
        let seconds = DEADLINE.as_secs();
        format!("{} does not answer within {seconds} s", self.server)
    }

    /// What `e` means, in words of this program.
    pub(super) fn problem(&self, e: &RedisError) -> String {
        let server = &self.server;
        if self.exceeded.swap(false, Ordering::Relaxed) {
            return format!(
                "{server} sends more than 1 MiB as one value, and was not listened to further; see whether the store's url leads to Redis"
            );
        }
        if e.is_io_error() || e.is_connection_dropped() {
            return format!("the connection to {server} is broken ({})", e.category());
        }
        match e.code() {
            Some("WRONGPASS" | "NOAUTH") => {
                format!(
                    "{server} does not accept user and password; see the store's url and password_file"
                )
            }
            Some("NOPERM") => {
                format!(
                    "{server} does not let this user do what is needed; give it +@read +@write +@scripting +@pubsub +@connection +time, and the keys and channels below key_prefix"
                )
            }
            Some("READONLY") => {
                format!(
                    "{server} is a replica; name the one that can be written to, or sentinels by redis+sentinel://"
                )
            }
            Some("MOVED") if !matches!(server, Server::Cluster { .. }) => {
                format!("{server} is part of a cluster; write redis+cluster:// in the store's url")
            }
            Some(
                "MOVED" | "ASK" | "CLUSTERDOWN" | "LOADING" | "BUSY" | "MASTERDOWN" | "TRYAGAIN",
            ) => {
                format!("{server} is not ready yet ({})", e.category())
            }
            Some("OOM") => format!("{server} has no memory left; see its maxmemory"),
            Some(code) => format!(
                "{server} answers with the error {}; this program needs Redis 6, Valkey 7 or later",
                code.escape_debug()
            ),
            // it may have been the library's, of an answer that it could not make out
            None => format!(
                "{server} answers otherwise than Redis does; this program needs Redis 6, Valkey 7 or later"
            ),
        }
    }
}

/// Whether the server said so itself: the connection is as good as before.
fn is_answer(e: &RedisError) -> bool {
    !e.is_io_error() && !e.is_connection_dropped() && e.code().is_some()
}

/// Whether another server is the right one by now.
fn is_elsewhere(e: &RedisError) -> bool {
    matches!(
        e.code(),
        Some("READONLY" | "MOVED" | "CLUSTERDOWN" | "MASTERDOWN")
    )
}

async fn dial(host: &str, port: u16) -> io::Result<TcpStream> {
    let stream = TcpStream::connect((host, port)).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}
