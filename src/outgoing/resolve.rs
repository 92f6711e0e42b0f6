//! DNS: resolves a name, with one query per family.
//!
//! Each query reads the system's settings anew, because a laptop changes networks. A name that DNS
//! does not know is then looked up by the system, which may know it otherwise (NIS, mDNS).

use std::net::IpAddr;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::LookupIpStrategy;
use hickory_resolver::net::NetError;
use tokio::time::{Instant, timeout};

/// How often an unanswered query is sent again, as UDP loses packets.
const RETRIES: usize = 2;

/// The name servers.
#[derive(Clone, Debug, Default)]
pub(super) enum Servers {
    /// The system's.
    #[default]
    System,
    /// A test's own.
    #[cfg(test)]
    At(std::net::SocketAddr),
}

/// The answer to one query.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) addresses: Vec<IpAddr>,
    /// When the records expire.
    pub(super) valid_until: Instant,
}

/// Why a name could not be resolved.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Problem {
    /// The name does not exist.
    #[error("DNS says that the name does not exist")]
    NoSuchName,
    /// The name has no address of this family.
    #[error("DNS has no address for the name")]
    NoRecords,
    /// No name server answered within this time limit.
    #[error("no answer from DNS within {limit}", limit = humantime::format_duration(*.0))]
    Silent(Duration),
    /// Another error, described.
    #[error("{0}")]
    Other(String),
}

impl From<NetError> for Problem {
    fn from(error: NetError) -> Problem {
        if error.is_nx_domain() {
            Problem::NoSuchName
        } else if error.is_no_records_found() {
            Problem::NoRecords
        } else {
            Problem::Other(error.to_string())
        }
    }
}

/// The two families of addresses, each with its own query.
pub(super) const FAMILIES: [LookupIpStrategy; 2] =
    [LookupIpStrategy::Ipv6Only, LookupIpStrategy::Ipv4Only];

/// Queries `servers` for the addresses of `host` in one `family`. Takes at most `limit`.
///
/// # Errors
/// [`Problem`] if there are no addresses.
pub(super) async fn ask(
    servers: &Servers,
    host: &str,
    family: LookupIpStrategy,
    limit: Duration,
) -> Result<Found, Problem> {
    let asking = async {
        let mut builder = match servers {
            Servers::System => TokioResolver::builder_tokio()?,
            #[cfg(test)]
            Servers::At(server) => tests::at(*server),
        };
        let options = builder.options_mut();
        options.ip_strategy = family;
        options.cache_size = 0;
        options.attempts = RETRIES;
        let tries = u32::try_from(RETRIES).unwrap_or(u32::MAX) + 1;
        options.timeout = limit / tries;
        builder.build()?.lookup_ip(host).await
    };
    match timeout(limit, asking).await {
        Ok(Ok(found)) => Ok(Found {
            addresses: found.iter().collect(),
            valid_until: Instant::from_std(found.valid_until()),
        }),
        Ok(Err(NetError::Timeout)) | Err(_) => Err(Problem::Silent(limit)),
        Ok(Err(error)) => Err(error.into()),
    }
}

/// The addresses of `host` according to the system resolver; empty if there are none.
pub(super) async fn ask_system(host: &str) -> Vec<IpAddr> {
    let found = tokio::net::lookup_host((host, 0)).await;
    found.map_or_else(
        |_| Vec::new(),
        |found| found.map(|address| address.ip()).collect(),
    )
}

#[cfg(test)]
pub(super) mod tests {
    //! A name server for tests.

    use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
    use std::sync::{Arc, Mutex};

    use hickory_resolver::config::{NameServerConfig, ResolverConfig};
    use hickory_resolver::net::runtime::TokioRuntimeProvider;
    use hickory_resolver::{ResolverBuilder, TokioResolver};
    use tokio::net::UdpSocket;

    use super::*;

    /// Returns a resolver that uses only the name server at `address`.
    pub(super) fn at(address: SocketAddr) -> ResolverBuilder<TokioRuntimeProvider> {
        let mut server = NameServerConfig::udp(address.ip());
        for connection in &mut server.connections {
            connection.port = address.port();
        }
        let config = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
        TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
    }

    /// The behaviour of a name server for the queries of one family.
    #[derive(Clone, Debug)]
    pub(in crate::outgoing) enum Reply {
        /// Answers with these addresses and this TTL in seconds.
        Addresses(Vec<IpAddr>, u32),
        /// Answers that the name does not exist.
        NoSuchName,
        /// Drops queries.
        Nothing,
    }

    /// A name server that treats every name the same.
    #[derive(Clone, Debug)]
    pub(in crate::outgoing) struct NameServer {
        pub(in crate::outgoing) address: SocketAddr,
        /// The behaviour for A and AAAA.
        replies: Arc<Mutex<[Reply; 2]>>,
        queries: Arc<Mutex<usize>>,
    }

    impl NameServer {
        pub(in crate::outgoing) async fn start(v4: Reply, v6: Reply) -> NameServer {
            let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            let server = NameServer {
                address: socket.local_addr().unwrap(),
                replies: Arc::new(Mutex::new([v4, v6])),
                queries: Arc::default(),
            };
            let serving = server.clone();
            tokio::spawn(async move {
                let mut query = [0; 512];
                loop {
                    let (n, from) = socket.recv_from(&mut query).await.unwrap();
                    *serving.queries.lock().unwrap() += 1;
                    if let Some(reply) = serving.reply(&query[..n]) {
                        socket.send_to(&reply, from).await.unwrap();
                    }
                }
            });
            server
        }

        /// Changes the behaviour.
        pub(in crate::outgoing) fn reply_with(&self, v4: Reply, v6: Reply) {
            *self.replies.lock().unwrap() = [v4, v6];
        }

        /// The number of queries received.
        pub(in crate::outgoing) fn queries(&self) -> usize {
            *self.queries.lock().unwrap()
        }

        /// Returns the response to a query, which has one question (RFC 1035, section 4).
        fn reply(&self, query: &[u8]) -> Option<Vec<u8>> {
            let mut end = 12;
            while query[end] != 0 {
                end += usize::from(query[end]) + 1;
            }
            let question = &query[12..end + 5];
            let kind = query[end + 2];
            let replies = self.replies.lock().unwrap();
            let (reply, kind) = match kind {
                1 => (&replies[0], kind),
                28 => (&replies[1], kind),
                _ => panic!("a query for records of type {kind}"),
            };
            let (addresses, ttl, code) = match reply {
                Reply::Addresses(addresses, ttl) => (addresses.as_slice(), *ttl, 0),
                Reply::NoSuchName => (&[][..], 0, 3),
                Reply::Nothing => return None,
            };
            let mut bytes = query[..2].to_vec();
            bytes.extend([0x81, 0x80 | code, 0, 1, 0]);
            bytes.push(u8::try_from(addresses.len()).unwrap());
            bytes.extend([0; 4]);
            bytes.extend(question);
            for address in addresses {
                bytes.extend([0xc0, 12, 0, kind, 0, 1]);
                bytes.extend(ttl.to_be_bytes());
                match address {
                    IpAddr::V4(ip) => bytes.extend([&[0, 4][..], &ip.octets()].concat()),
                    IpAddr::V6(ip) => bytes.extend([&[0, 16][..], &ip.octets()].concat()),
                }
            }
            Some(bytes)
        }
    }

    #[tokio::test]
    async fn each_family_is_asked_for_by_itself() {
        let (v4, v6) = (Ipv4Addr::new(192, 0, 2, 1), Ipv6Addr::LOCALHOST);
        let server = NameServer::start(
            Reply::Addresses(vec![v4.into()], 60),
            Reply::Addresses(vec![v6.into()], 60),
        )
        .await;
        let servers = Servers::At(server.address);
        let limit = Duration::from_secs(5);
        let found = ask(&servers, "acme.example", LookupIpStrategy::Ipv4Only, limit).await;
        assert_eq!(found.unwrap().addresses, [IpAddr::from(v4)]);
        let found = ask(&servers, "acme.example", LookupIpStrategy::Ipv6Only, limit).await;
        assert_eq!(found.unwrap().addresses, [IpAddr::from(v6)]);
    }

    #[tokio::test]
    async fn why_there_is_no_address_is_told_apart() {
        let server = NameServer::start(Reply::NoSuchName, Reply::Nothing).await;
        let servers = Servers::At(server.address);
        let limit = Duration::from_millis(300);
        let found = ask(&servers, "acme.example", LookupIpStrategy::Ipv4Only, limit).await;
        assert_eq!(found.unwrap_err(), Problem::NoSuchName);
        let found = ask(&servers, "acme.example", LookupIpStrategy::Ipv6Only, limit).await;
        assert_eq!(found.unwrap_err(), Problem::Silent(limit));
        assert!(server.queries() >= 3, "a lost query is sent again");
    }
}
