//! Serves a forward listener's connection by its first head. CONNECT opens a tunnel. A tunnel to an
//! instance is terminated here, with the local authority's certificates, and its requests are
//! served like any others. A tunnel to another host is relayed if the listener allows that. Other
//! requests name an instance by an absolute target.
//!
//! A refused CONNECT ends the connection: the caller may already have sent bytes for the tunnel,
//! which must not be read as requests to this proxy.

use std::sync::Arc;

use bytes::BytesMut;
use http::header::{CONTENT_LENGTH, HOST, PROXY_AUTHORIZATION, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Version};
use rustls::AlertDescription;
use tokio::io::{AsyncWriteExt, BufReader};
use tokio::time::timeout;
use tracing::info;

use super::config::Others;
use super::connection::{self, Awaited, FAREWELL, ReadAhead};
use super::forward::{self, Forward, Served};
use super::head;
use super::identify::{Caller, ConnectionIdentity, Known};
use super::idle::Registered;
use super::listener::{self, Limits, Listening, READ_BUFFER};
use super::listener_state::ListenerState;
use super::peer::{Peer, Tunnel};
use super::relay::Relay;
use super::respond::Refusal;
use super::stream::CallerStream;
use super::target::{self, Malformed};
use super::tls::Tls;
use super::transport::{Prefixed, Transport};
use crate::clock::Clock;
use crate::outgoing::via;
use crate::telemetry::Label as _;

const METHOD: &[u8] = b"CONNECT ";

const ESTABLISHED: &[u8] = b"HTTP/1.1 200 Connection established\r\n\r\n";

/// The most headers of a CONNECT request.
const MOST_HEADERS: usize = 64;

/// A CONNECT request.
#[derive(Debug, PartialEq)]
struct Connect {
    /// In lower case; an IPv6 address in brackets.
    host: String,
    port: u16,
    authorization: Option<HeaderValue>,
}

/// Where a CONNECT request leads.
enum Destination<'a> {
    Instance(&'a Served),
    Other,
}

/// Serves a connection to a forward listener until it ends.
pub(super) async fn serve(
    mut stream: CallerStream,
    peer: &Peer,
    limits: Limits,
    listening: &Arc<Listening>,
    registered: &Registered,
) {
    let mut read = BytesMut::new();
    let awaited = connection::await_head(&mut stream, &mut read, limits, registered, true).await;
    let end = match awaited {
        Awaited::Head(end) if read.starts_with(METHOD) => end,
        awaited => {
            let ahead = ReadAhead {
                read,
                awaited: Some(awaited),
            };
            return connection::serve(stream, ahead, peer, limits, listening, registered).await;
        }
    };
    let state = listening.state.load_full();
    let head = read.split_to(end);
    let (connect, destination, app) = match decide(&state, peer, &head, &*listening.clock) {
        Ok(decided) => decided,
        Err(refusal) => return refuse(stream, &state, &refusal, "").await,
    };
    let app = app.as_deref().unwrap_or_default();
    match destination {
        Destination::Instance(served) => {
            let is_plain = !served.client.upstream.instance().tls;
            if !is_plain && served.tls.is_none() {
                let refusal = Refusal::NoAuthority { host: connect.host };
                return refuse(stream, &state, &refusal, app).await;
            }
            let tls = served.tls.clone().filter(|_| !is_plain);
            // released, because the connection may outlast the configuration
            drop(state);
            if establish(&mut stream).await.is_ok() {
                let tunnel = InstanceTunnel {
                    stream,
                    read,
                    connect,
                    tls,
                };
                tunnel.serve(peer, limits, listening, registered).await;
            }
        }
        Destination::Other => {
            let relay = Relay {
                host: connect.host,
                port: connect.port,
                listener: Arc::clone(&state.listener.name),
                app: app.to_owned(),
                is_logged: state.access_log,
            };
            let own = state.forward.as_ref().map(|forward| &*forward.own);
            match relay.dial(own.unwrap_or_default()).await {
                Err(refusal) => refuse(stream, &state, &refusal, app).await,
                Ok(server) => {
                    drop(state);
                    if establish(&mut stream).await.is_ok() {
                        relay.run(stream, read, server, listening).await;
                    }
                }
            }
        }
    }
}

/// Decides about a CONNECT request; returns it, where it leads, and the app that sent it.
fn decide<'a>(
    state: &'a ListenerState,
    peer: &Peer,
    head: &[u8],
    clock: &dyn Clock,
) -> Result<(Connect, Destination<'a>, Option<String>), Refusal> {
    let forward: &Forward = state.forward.as_ref().ok_or(Refusal::Method)?;
    let connect = parse(head)?;
    let served = forward.served(&connect.host, connect.port);
    let client = served.map_or(&state.client, |served| &served.client);
    let identity = ConnectionIdentity {
        app: state.app.as_ref(),
        certificate: &peer.certificate_names,
    };
    let known = Known {
        apps: &state.apps,
        client,
        revoked: &state.revoked,
        now: clock.wall(),
    };
    let shown = connect.authorization.as_ref();
    let caller = known.identify(identity, shown, &HeaderMap::new());
    // before the host is looked up: only known callers learn which hosts are served
    let caller = caller.ok_or(Refusal::ProxyAuthentication)?;
    let app = match &caller {
        Caller::App(app) => Some(app.name().to_string()),
        Caller::Anyone | Caller::Owner => None,
    };
    let Some(served) = served else {
        return match forward.others {
            Others::Tunnel => Ok((connect, Destination::Other, app)),
            Others::Refuse => {
                let why = "The host and port belong to no configured instance.";
                Err(forward.refusal(state, why))
            }
        };
    };
    if let Caller::App(app) = &caller
        && let Some(own) = app.client()
    {
        forward.check_client(state, &served.client, own)?;
    }
    Ok((connect, Destination::Instance(served), app))
}

/// Parses a CONNECT request (RFC 9110, section 9.3.6). `Host` may be missing, as from old programs,
/// but must not differ from the target.
fn parse(bytes: &[u8]) -> Result<Connect, Refusal> {
    head::check(bytes).map_err(Refusal::Malformed)?;
    let mut fields = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let mut request = httparse::Request::new(&mut fields);
    let parsed = request.parse(bytes);
    if !matches!(parsed, Ok(httparse::Status::Complete(_))) {
        return Err(Refusal::Unreadable);
    }
    let mut headers = HeaderMap::new();
    for field in request.headers.iter() {
        let name = HeaderName::try_from(field.name).map_err(|_| Refusal::Unreadable)?;
        let value = HeaderValue::from_bytes(field.value).map_err(|_| Refusal::Unreadable)?;
        headers.append(name, value);
    }
    let malformed = |why| Err(Refusal::Malformed(why));
    if via::is_loop(&headers) {
        return Err(Refusal::Loop);
    }
    target::check_headers(Version::HTTP_11, &headers).map_err(Refusal::Malformed)?;
    let length = headers.get(CONTENT_LENGTH).map(HeaderValue::as_bytes);
    if headers.contains_key(TRANSFER_ENCODING) || length.is_some_and(|length| length != b"0") {
        // where the body ends and the tunnel starts would be ambiguous
        return malformed(Malformed::Framing);
    }
    let target = request.path.unwrap_or_default();
    let asked = forward::split(target, 0).filter(|(_, port)| *port != 0);
    let Some((host, port)) = asked else {
        return malformed(Malformed::TargetForm);
    };
    let mut hosts = headers.get_all(HOST).iter();
    let is_meant = |value: &HeaderValue| {
        let named = value
            .to_str()
            .ok()
            .and_then(|text| forward::split(text, port));
        named.is_some_and(|named| named == (host.clone(), port))
    };
    if hosts.next().is_some_and(|host| !is_meant(host)) || hosts.next().is_some() {
        return malformed(Malformed::Host);
    }
    let mut shown = headers.get_all(PROXY_AUTHORIZATION).iter();
    let authorization = shown
        .next()
        .filter(|_| shown.next().is_none())
        .map(|value| {
            let mut value = value.clone();
            value.set_sensitive(true);
            value
        });
    Ok(Connect {
        host,
        port,
        authorization,
    })
}

/// Sends the 200 that opens the tunnel.
async fn establish(stream: &mut CallerStream) -> std::io::Result<()> {
    let sending = async {
        stream.write_all(ESTABLISHED).await?;
        stream.flush().await
    };
    timeout(FAREWELL, sending).await?
}

/// A tunnel to an instance, terminated here.
struct InstanceTunnel {
    stream: CallerStream,
    /// What the caller sent after its request, without waiting for the answer.
    read: BytesMut,
    connect: Connect,
    /// `None` for an `http://` instance.
    tls: Option<Tls>,
}

impl InstanceTunnel {
    /// Serves the requests in the tunnel until it ends.
    async fn serve(
        self,
        peer: &Peer,
        limits: Limits,
        listening: &Arc<Listening>,
        registered: &Registered,
    ) {
        let Connect {
            host,
            port,
            authorization,
        } = self.connect;
        let name = host.clone();
        let tunnel = Tunnel {
            host,
            port,
            authorization,
        };
        let peer = Peer {
            tls: self.tls.is_some(),
            tunnel: Some(Arc::new(tunnel)),
            ..peer.clone()
        };
        let Some(tls) = self.tls else {
            let ahead = ReadAhead {
                read: self.read,
                awaited: None,
            };
            connection::serve(self.stream, ahead, &peer, limits, listening, registered).await;
            return;
        };
        let below = Prefixed {
            read: self.read,
            stream: self.stream.into_transport(),
        };
        let below = BufReader::with_capacity(READ_BUFFER, below);
        let accepted = timeout(limits.header_timeout, tls.acceptor().accept(below)).await;
        let stream = match accepted {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                let listener = Arc::clone(&listening.state.load().listener.name);
                let why = handshake_failure(&error);
                info!(%listener, host = %name, "TLS handshake with an app failed inside its tunnel: {why}");
                return;
            }
            Err(_elapsed) => return,
        };
        let transport = Transport::Tunnel(Box::new(stream));
        let is_http2 = transport.is_http2();
        let stream = CallerStream::new(transport, limits.min_body_rate);
        listener::serve(stream, &peer, is_http2, limits, listening, registered).await;
    }
}

/// Why a handshake failed, and what to do if the app does not trust the local authority.
fn handshake_failure(error: &std::io::Error) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    match inner {
        Some(rustls::Error::AlertReceived(
            alert @ (AlertDescription::UnknownCA
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateUnknown),
        )) => format!(
            "the app does not accept the certificate ({alert:?}): make it trust the local authority, as `collibra-auth-proxy ca show` explains"
        ),
        _ => error.to_string(),
    }
}

/// Refuses a CONNECT request, and closes the connection.
async fn refuse(stream: CallerStream, state: &ListenerState, refusal: &Refusal, app: &str) {
    let reason = refusal.reason();
    state.metrics.refused(reason, app);
    if state.access_log {
        let listener = &state.listener.name;
        info!(%listener, app, refused = reason.label(), status = refusal.status().as_u16(), "CONNECT refused");
    }
    connection::answer_and_close(stream, refusal).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(head: &str) -> Result<Connect, &'static str> {
        parse(head.replace('\n', "\r\n").as_bytes()).map_err(|refusal| refusal.reason().label())
    }

    #[test]
    fn connect_names_a_host_and_a_port() {
        for (head, host, port) in [
            (
                "CONNECT acme.example:443 HTTP/1.1\nHost: acme.example:443\n\n",
                "acme.example",
                443,
            ),
            (
                "CONNECT ACME.example:443 HTTP/1.1\nHost: acme.EXAMPLE\n\n",
                "acme.example",
                443,
            ),
            ("CONNECT acme.example:443 HTTP/1.0\n\n", "acme.example", 443),
            (
                "CONNECT [::1]:8443 HTTP/1.1\nHost: [::1]:8443\n\n",
                "[::1]",
                8443,
            ),
            (
                "CONNECT a:1 HTTP/1.1\nHost: a:1\nContent-Length: 0\n\n",
                "a",
                1,
            ),
        ] {
            let connect = parsed(head).unwrap();
            assert_eq!((&*connect.host, connect.port), (host, port), "{head:?}");
        }
    }

    #[test]
    fn an_ambiguous_connect_is_refused() {
        for head in [
            "CONNECT acme.example HTTP/1.1\nHost: acme.example\n\n",
            "CONNECT acme.example:0 HTTP/1.1\nHost: acme.example:0\n\n",
            "CONNECT /path HTTP/1.1\nHost: acme.example\n\n",
            "CONNECT https://acme.example:443 HTTP/1.1\nHost: acme.example\n\n",
            "CONNECT u:p@acme.example:443 HTTP/1.1\nHost: acme.example\n\n",
            "CONNECT acme.example:443 HTTP/1.1\nHost: other.example:443\n\n",
            "CONNECT acme.example:443 HTTP/1.1\nHost: acme.example:444\n\n",
            "CONNECT acme.example:443 HTTP/1.1\nHost: acme.example\nHost: acme.example\n\n",
            "CONNECT acme.example:443 HTTP/1.1\nHost: acme.example\nContent-Length: 5\n\n",
            "CONNECT acme.example:443 HTTP/1.1\nHost: acme.example\nTransfer-Encoding: chunked\n\n",
            "CONNECT acme.example:443 HTTP/1.1\nHost: acme.example\nX_Y: 1\n\n",
            "CONNECT acme.example:443 HTTP/9\n\n",
        ] {
            assert_eq!(parsed(head).err(), Some("bad-request"), "{head:?}");
        }
        let via = via::own();
        let head = format!(
            "CONNECT a:1 HTTP/1.1\nHost: a:1\n{}: {}\n\n",
            via::VIA_FIELD,
            via.to_str().unwrap()
        );
        assert_eq!(parsed(&head).err(), Some("loop"));
    }

    #[test]
    fn credentials_are_never_shown() {
        let head = "CONNECT a:1 HTTP/1.1\nHost: a:1\nProxy-Authorization: Basic canary\n\n";
        let connect = parsed(head).unwrap();
        assert_eq!(connect.authorization.as_ref().unwrap(), "Basic canary");
        assert!(!format!("{connect:?}").contains("canary"), "{connect:?}");
        let twice = head.replace("\n\n", "\nProxy-Authorization: Basic other\n\n");
        assert_eq!(parsed(&twice).unwrap().authorization, None);
    }
}
