//! A connection to an instance through its forward proxy, as pingora asks for one: TLS comes on top
//! of it, end to end.

use std::pin::pin;
use std::time::Duration;

use async_trait::async_trait;
use pingora_core::connectors::L4Connect;
use pingora_core::protocols::l4::socket::SocketAddr;
use pingora_core::protocols::l4::stream::Stream;
use pingora_core::{Error, ErrorType, Result};
use tokio::net::TcpStream;

use super::config::Instance;
use crate::outgoing::tunnel::Proxy;

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
        let mut late = pin!(tokio::time::sleep(self.limit));
        let limit = humantime::format_duration(self.limit);
        let unreached = |kind, problem: String| {
            let problem = format!("cannot connect to the proxy {}: {problem}", self.proxy);
            Error::because(kind, "proxy", Unreached(problem))
        };
        let connected = tokio::select! {
            connected = TcpStream::connect(address) => connected,
            () = &mut late => {
                let problem = format!("no answer within {limit}");
                return Err(unreached(ErrorType::ConnectTimedout, problem));
            }
        };
        let stream = connected.map_err(|e| unreached(ErrorType::ConnectError, e.to_string()))?;
        let (host, port) = (self.host.as_str(), self.port);
        let opened = tokio::select! {
            opened = self.proxy.connect(stream, host, port) => opened,
            () = &mut late => Err(self.proxy.late(host, port, self.limit)),
        };
        opened.map(Stream::from).map_err(|cause| {
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
