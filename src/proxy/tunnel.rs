//! A connection to an instance through its forward proxy, as pingora asks for one: TLS comes on top
//! of it, end to end.

use std::time::Duration;

use async_trait::async_trait;
use pingora_core::connectors::L4Connect;
use pingora_core::protocols::l4::socket::SocketAddr;
use pingora_core::protocols::l4::stream::Stream;
use pingora_core::{Error, ErrorType, Result};
use tokio::net::TcpStream;

use super::config::Instance;
use crate::tunnel::Proxy;

/// The share of the time for a connection that the way to its other side may take: it can be told
/// then what took so long, before pingora gives the whole up.
const SHARE: f64 = 0.9;

/// The way to one instance through its proxy.
#[derive(Debug)]
pub(super) struct Tunnel {
    proxy: Proxy,
    host: String,
    port: u16,
    limit: Duration,
}

impl Tunnel {
    /// The way to `instance` through `proxy`.
    pub(super) fn new(proxy: Proxy, instance: &Instance) -> Tunnel {
        Tunnel {
            proxy,
            host: instance.host.clone(),
            port: instance.port,
            limit: instance.connect_timeout.mul_f64(SHARE),
        }
    }
}

#[async_trait]
impl L4Connect for Tunnel {
    async fn connect(&self, address: &SocketAddr) -> Result<Stream> {
        let address = address
            .as_inet()
            .ok_or_else(|| Error::explain(ErrorType::InternalError, "a proxy has an IP address"))?;
        let began = tokio::time::Instant::now();
        let connecting = tokio::time::timeout(self.limit, TcpStream::connect(address));
        let unreached = |problem: String| {
            let problem = format!("cannot connect to the proxy {}: {problem}", self.proxy);
            Unreached(problem)
        };
        let stream = match connecting.await {
            Ok(Ok(stream)) => stream,
            Ok(Err(e)) => {
                let cause = unreached(e.to_string());
                return Error::e_because(ErrorType::ConnectError, "proxy", cause);
            }
            Err(_elapsed) => {
                let limit = humantime::format_duration(self.limit);
                let cause = unreached(format!("no answer within {limit}"));
                return Error::e_because(ErrorType::ConnectTimedout, "proxy", cause);
            }
        };
        let left = self.limit.saturating_sub(began.elapsed());
        let opened = self.proxy.connect(stream, &self.host, self.port, left);
        opened.await.map(Stream::from).map_err(|cause| {
            let kind = if cause.is_timeout() {
                ErrorType::ConnectTimedout
            } else {
                ErrorType::ConnectProxyFailure
            };
            Error::because(kind, "proxy", cause)
        })
    }
}

/// Why there is no connection to a proxy, in words.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Unreached(String);
