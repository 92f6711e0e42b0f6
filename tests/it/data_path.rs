//! The data path between a caller and the instance, whatever library it is built on: keep-alive and
//! its limits, interim responses, message framing, hop-by-hop fields, routes, retries and the
//! connection pool, and bounds on callers that stall or flood.

mod bodies;
mod cuts;
mod early;
mod floods;
mod framing;
mod heads;
mod idle;
mod interim;
mod no_body;
mod paths;
mod requests;
mod retries;
mod slow_head;
mod stalls;
mod streams;
mod trailers;
mod upgrades;

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::support::certificate::Authority;
use crate::support::h2_caller::{Heard, Served};
use crate::support::h2_origin::H2Origin;
use crate::support::origin::After;
use crate::support::{Origin, Proxy};

/// One instance of each protocol. Both echo the request's body: `/sized` with a Content-Length,
/// `/echo` without.
struct Instances {
    http1: Origin,
    http2: H2Origin,
    authority: Authority,
}

/// Two proxies in front of one instance: one serves HTTP/1.1, the other HTTP/2.
struct Fronts {
    /// The instance's protocol.
    name: &'static str,
    plain: Proxy,
    tls: Served<()>,
}

impl Instances {
    fn start() -> Instances {
        let authority = Authority::new();
        let http1 = Origin::start(|request, stream| {
            let body = &request.body;
            match request.target() {
                "/sized" => {
                    let length = body.len();
                    write!(
                        stream,
                        "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n"
                    )?;
                    stream.write_all(body)?;
                }
                "/closing" => {
                    stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")?;
                    stream.write_all(body)?;
                    return Ok(After::Close);
                }
                _ => {
                    stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
                    for piece in body.chunks(7_000) {
                        write!(stream, "{:x}\r\n", piece.len())?;
                        stream.write_all(piece)?;
                        stream.write_all(b"\r\n")?;
                    }
                    stream.write_all(b"0\r\n\r\n")?;
                }
            }
            Ok(After::Keep)
        });
        Instances {
            http1,
            http2: H2Origin::new(&authority),
            authority,
        }
    }

    /// Proxies in front of the HTTP/1.1 instance, and in front of the HTTP/2 one.
    fn fronts(&self) -> [Fronts; 2] {
        let keys = format!("ca_file = {:?}", self.authority.ca_file());
        [
            Fronts::to("HTTP/1.1", &self.http1.url(), ""),
            Fronts::to("HTTP/2", &self.http2.url(), &keys),
        ]
    }

    /// The fields of the last request that reached the instance behind `fronts`.
    fn last(&self, fronts: &Fronts) -> HeaderMap {
        if fronts.name == "HTTP/2" {
            return self.http2.last_head();
        }
        let last = self.http1.requests().pop().unwrap();
        let fields = last.head.split("\r\n").skip(1);
        let field = |line: &str| {
            let (name, value) = line.split_once(':').unwrap();
            let name: HeaderName = name.parse().unwrap();
            (name, HeaderValue::from_str(value.trim()).unwrap())
        };
        let mut map = HeaderMap::new();
        for (name, value) in fields.map(field) {
            map.append(name, value);
        }
        map
    }
}

impl Fronts {
    /// Starts both in front of `url`; `keys` go into the instance's table.
    fn to(name: &'static str, url: &str, keys: &str) -> Fronts {
        let plain = Proxy::configured(url, keys, "").start();
        plain.has_token();
        let tls = Served::before(url, keys, (), "");
        Fronts { name, plain, tls }
    }
}
