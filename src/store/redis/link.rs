//! The connection to the server: made on demand, and replaced when it breaks. `primary.rs` finds
//! the server.
//!
//! The library's connection manager and its sentinel and cluster clients are not used. The manager
//! keeps a connection whose answers never come, so a path that swallows all packets would never be
//! left. It also loads the system's certificates for every connection, by rules other than this
//! program's.
//!
//! Guarantees: every operation ends within [`DEADLINE`]. No message quotes the server, because its
//! text may contain the password.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, FromRedisValue, ProtocolVersion, PushInfo, PushKind,
    RedisConnectionInfo, RedisError, ScriptInvocation, Value,
};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{Mutex, Notify, watch};
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;

use super::bounded::Bounded;
use super::scripts::Keys;
use super::{Config, Server};
use crate::store::locked;
use crate::tls;
use crate::token::ports::StoreError;

/// The timeout of an operation, connecting included.
pub(super) const DEADLINE: Duration = Duration::from_secs(2);

/// A connection that is made on demand.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) server: Server,
    tls: Option<Arc<rustls::ClientConfig>>,
    pub(super) login: RedisConnectionInfo,
    channel: String,
    /// A key in the slot of all of the client's keys.
    pub(super) key: String,
    pub(super) notices: Arc<Notices>,
    /// Whether a connection was closed because the server sent too much.
    exceeded: Arc<AtomicBool>,
    /// Whether notifications work: the user may subscribe.
    is_subscribed: AtomicBool,
    connection: Mutex<Option<Connection>>,
    /// Why the last operation failed.
    problem: std::sync::Mutex<String>,
}

/// A connection to a server.
#[derive(Clone, Debug)]
pub(super) struct Connection {
    pub(super) commands: MultiplexedConnection,
    /// The task that drives the connection; it ends with the connection's last user.
    driver: Arc<AbortOnDropHandle<()>>,
}

/// The notifications that the server pushed. Only the newest counts, however many arrive.
#[derive(Debug, Default)]
pub(super) struct Notices {
    /// The version that is stored now.
    pub(super) version: watch::Sender<String>,
    /// The server must be polled: a member came or left, or the connection ended.
    pub(super) poll: Notify,
}

impl Notices {
    fn push(&self, push: &PushInfo) {
        match (&push.kind, push.data.as_slice()) {
            (PushKind::Message, [_channel, Value::BulkString(version)]) if !version.is_empty() => {
                let version = String::from_utf8_lossy(version).into_owned();
                self.version.send_replace(version);
            }
            _ => self.poll.notify_one(),
        }
    }
}

impl Link {
    /// Returns a link to the server of `config`, subscribed to the channel of `keys`. Does not
    /// connect yet.
    ///
    /// # Errors
    /// [`tls::Error`] if no certificate authority is available to verify the server.
    pub(super) fn new(config: &Config, keys: &Keys) -> Result<Link, tls::Error> {
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
        Ok(Link {
            server: config.server.clone(),
            tls,
            login,
            channel: keys.channel.clone(),
            key: keys.record.clone(),
            notices: Arc::default(),
            exceeded: Arc::default(),
            is_subscribed: AtomicBool::new(false),
            connection: Mutex::new(None),
            problem: std::sync::Mutex::default(),
        })
    }

    /// Returns whether notifications work.
    pub(super) fn is_subscribed(&self) -> bool {
        self.is_subscribed.load(Ordering::Relaxed)
    }

    /// Why the last operation failed.
    pub(super) fn last_problem(&self) -> String {
        locked(&self.problem).clone()
    }

    /// Runs `script`. If it fails without an answer from the server, the connection is dropped.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] says what failed and what to do.
    pub(super) async fn run<T: FromRedisValue>(
        &self,
        script: &ScriptInvocation<'_>,
    ) -> Result<T, StoreError> {
        let mut used = None;
        let running = async {
            let mut connection = self.connection().await?;
            used = Some(Arc::clone(&connection.driver));
            let done = script.invoke_async(&mut connection.commands).await;
            done.map_err(|e| (is_answer(&e) && !is_wrong_server(&e), self.problem(&e)))
        };
        let ended = tokio::time::timeout(DEADLINE, running).await;
        let (answered, problem) = match ended {
            Ok(Ok(done)) => return Ok(done),
            Ok(Err(failed)) => failed,
            Err(_elapsed) => (false, self.timed_out()),
        };
        if !answered && let Some(used) = used {
            let mut held = self.connection.lock().await;
            held.take_if(|connection| Arc::ptr_eq(&connection.driver, &used));
        }
        locked(&self.problem).clone_from(&problem);
        Err(StoreError::Unavailable(problem))
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
                self.log_in(stream, &self.login).await?
            }
            Server::Tcp { host, port } | Server::Tls { host, port, .. } => {
                self.open(host, *port, &self.login).await?
            }
            Server::Sentinel { nodes, primary, .. } => self.primary(nodes, Some(primary)).await?,
            Server::Cluster { nodes, .. } => self.primary(nodes, None).await?,
        };
        self.subscribe(opened).await
    }

    /// Connects to the server at `host`.
    pub(super) async fn open(
        &self,
        host: &str,
        port: u16,
        login: &RedisConnectionInfo,
    ) -> Result<Connection, String> {
        let stream = TcpStream::connect((host, port)).await;
        let stream = stream.and_then(|stream| stream.set_nodelay(true).map(|()| stream));
        let stream = stream.map_err(|e| self.unreachable(&e))?;
        let Some(config) = &self.tls else {
            return self.log_in(stream, login).await;
        };
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| format!("{}: {host} cannot have a certificate", self.server))?;
        let stream = TlsConnector::from(Arc::clone(config))
            .connect(name, stream)
            .await;
        let stream = stream.map_err(|e| self.refused(&e))?;
        self.log_in(stream, login).await
    }

    async fn log_in<S>(&self, stream: S, login: &RedisConnectionInfo) -> Result<Connection, String>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        // this file enforces the only deadline
        let mut config = AsyncConnectionConfig::new().set_response_timeout(None);
        if login.protocol() == ProtocolVersion::RESP3 {
            let notices = Arc::clone(&self.notices);
            config = config.set_push_sender(move |push: PushInfo| {
                notices.push(&push);
                Ok::<(), ()>(())
            });
        }
        let stream = Bounded::new(stream, Arc::clone(&self.exceeded));
        let opened = MultiplexedConnection::new_with_config(login, stream, config).await;
        let (commands, driver) = opened.map_err(|e| self.problem(&e))?;
        let driver = Arc::new(AbortOnDropHandle::new(tokio::spawn(driver)));
        Ok(Connection { commands, driver })
    }

    async fn subscribe(&self, mut connection: Connection) -> Result<Connection, String> {
        let is_subscribed = match connection.commands.subscribe(&self.channel).await {
            Ok(()) => true,
            // the user may not subscribe, so changes are found by polling
            Err(e) if is_answer(&e) => false,
            Err(e) => return Err(self.problem(&e)),
        };
        self.is_subscribed.store(is_subscribed, Ordering::Relaxed);
        Ok(connection)
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
                format!("{server} does not speak TLS; use redis:// if it should not")
            }
            _ => self.unreachable(e),
        }
    }

    fn timed_out(&self) -> String {
        let seconds = DEADLINE.as_secs();
        format!("{} does not answer within {seconds} s", self.server)
    }

    /// Describes `e` without quoting the server.
    pub(super) fn problem(&self, e: &RedisError) -> String {
        let server = &self.server;
        if self.exceeded.swap(false, Ordering::Relaxed) {
            return format!(
                "{server} sent more than 1 MiB at once, and the connection was closed; check whether the store's url names a Redis server"
            );
        }
        if e.is_io_error() || e.is_connection_dropped() {
            return format!("the connection to {server} is broken ({})", e.category());
        }
        let problem = match e.code() {
            Some("WRONGPASS" | "NOAUTH") => {
                "does not accept user and password; see the store's url and password_file"
            }
            Some("NOPERM") => {
                "does not grant this user the permissions it needs; give it +@read +@write +@scripting +@pubsub +@connection +time, and the keys and channels below key_prefix"
            }
            Some("READONLY") => {
                "is a replica; name the primary, or the sentinels with redis+sentinel://"
            }
            Some("MOVED") if !matches!(server, Server::Cluster { .. }) => {
                "is part of a cluster; use redis+cluster:// in the store's url"
            }
            Some(
                "MOVED" | "ASK" | "CLUSTERDOWN" | "LOADING" | "BUSY" | "MASTERDOWN" | "TRYAGAIN",
            ) => {
                return format!("{server} is not ready yet ({})", e.category());
            }
            Some("OOM") => "has no memory left; see its maxmemory",
            Some(code) => {
                return format!(
                    "{server} answers with the error {}; this program needs Redis 6, Valkey 7 or later",
                    code.escape_debug()
                );
            }
            // the library may have failed to parse an answer
            None => "does not answer like Redis; this program needs Redis 6, Valkey 7 or later",
        };
        format!("{server} {problem}")
    }
}

/// Returns whether the error is the server's answer: the connection still works.
fn is_answer(e: &RedisError) -> bool {
    !e.is_io_error() && !e.is_connection_dropped() && e.code().is_some()
}

/// Returns whether another server is the right one by now.
fn is_wrong_server(e: &RedisError) -> bool {
    matches!(
        e.code(),
        Some("READONLY" | "MOVED" | "CLUSTERDOWN" | "MASTERDOWN")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_newest_version_counts_and_all_else_means_a_poll() {
        let notices = Notices::default();
        let mut versions = notices.version.subscribe();
        let message = |version: &str| PushInfo {
            kind: PushKind::Message,
            data: ["channel", version]
                .map(|text| Value::BulkString(text.into()))
                .to_vec(),
        };
        notices.push(&message("1"));
        notices.push(&message("2"));
        versions.changed().await.unwrap();
        assert_eq!(*versions.borrow_and_update(), "2");
        // an empty version: a member came or left
        notices.push(&message(""));
        notices.poll.notified().await;
        notices.push(&PushInfo {
            kind: PushKind::Disconnection,
            data: Vec::new(),
        });
        notices.poll.notified().await;
        assert!(!versions.has_changed().unwrap());
    }
}
