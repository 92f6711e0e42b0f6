//! Serves a forward listener's connection by its first head. CONNECT opens a tunnel. A tunnel to an
//! instance is terminated here, with the local authority's certificates, and its requests are
//! served like any others. A tunnel to another host is relayed if the listener allows that. Other
//! requests name an instance by an absolute target.
//!
//! A refused CONNECT ends the connection: the caller may already have sent bytes for the tunnel,
//! which must not be read as requests to this proxy.

use std::io::ErrorKind;
use std::sync::Arc;

use bytes::BytesMut;
use http::header::{CONTENT_LENGTH, HOST, PROXY_AUTHORIZATION, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Version};
use rustls::AlertDescription;
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;
use tracing::info;

use super::config::Others;
use super::connection::Connection;
use super::forward::{self, Served};
use super::http1::{self, FAREWELL};
use super::http2;
use super::identity::Callers;
use super::listener_state::ListenerState;
use super::relay::Relay;
use super::respond::Refusal;
use crate::downstream::peer::Tunnel;
use crate::downstream::stream::CallerStream;
use crate::downstream::tls::Tls;
use crate::downstream::transport::{is_http2, shake_hands};
use crate::outgoing::via;
use crate::policy::head;
use crate::policy::target::{self, Malformed};
use crate::telemetry::Label as _;

const METHOD: &[u8] = b"CONNECT ";

const ESTABLISHED: &[u8] = b"HTTP/1.1 200 Connection established\r\n\r\n";

/// The most headers of a CONNECT request.
const MOST_HEADERS: usize = 64;

/// Serves a connection to a forward listener until it ends.
pub(super) async fn serve(mut stream: CallerStream, mut connection: Connection) {
    let mut read = BytesMut::new();
    let end = match http1::await_head(&mut stream, &mut read, &connection, true).await {
        Ok(end) if read.starts_with(METHOD) => end,
        awaited => return http1::serve(stream, read, Some(awaited), &connection).await,
    };
    let state = connection.listening.state.load_full();
    let head = read.split_to(end);
    let (tunnel, served, app) = match decide(&state, &mut connection, &head) {
        Ok(decided) => decided,
        Err(refusal) => return refuse(stream, &state, &refusal, "").await,
    };
    let app = app.as_deref().unwrap_or_default();
    let Some(served) = served else {
        let relay = Relay {
            tunnel: &tunnel,
            listening: &connection.listening,
            listener: Arc::clone(&state.listener.name),
            app,
            is_logged: state.access_log,
        };
        let own = state.forward.as_ref().map(|forward| &*forward.own);
        match relay.dial(own.unwrap_or_default()).await {
            Err(refusal) => refuse(stream, &state, &refusal, app).await,
            Ok(server) => {
                drop(state);
                if establish(&mut stream).await.is_ok() {
                    relay.run(stream, read, server).await;
                }
            }
        }
        return;
    };
    let instance = served.client.upstream.instance();
    let tls = served.tls.as_ref().filter(|_| instance.tls);
    let tls = tls.map(Tls::acceptor);
    if instance.tls && tls.is_none() {
        let host = tunnel.host.clone();
        return refuse(stream, &state, &Refusal::NoAuthority { host }, app).await;
    }
    // released, because the connection may outlast the configuration
    drop(state);
    if establish(&mut stream).await.is_err() {
        return;
    }
    connection.peer.tls = tls.is_some();
    let Some(tls) = tls else {
        return http1::serve(stream, read, None, &connection).await;
    };
    let limits = connection.limits;
    let below = stream.into_transport();
    let stream = match shake_hands(below, &read, tls, limits.header_timeout).await {
        Ok(stream) => stream,
        Err(error) if error.kind() == ErrorKind::TimedOut => return,
        Err(error) => {
            let listener = Arc::clone(&connection.listening.state.load().listener.name);
            let (host, why) = (&tunnel.host, handshake_failure(&error));
            info!(%listener, host, "TLS handshake with an app failed inside its tunnel: {why}");
            return;
        }
    };
    let is_http2 = is_http2(&stream);
    let stream = CallerStream::new(Box::new(stream), limits.min_body_rate);
    if is_http2 {
        http2::serve(stream, connection).await;
    } else {
        http1::serve(stream, BytesMut::new(), None, &connection).await;
    }
}

/// A tunnel, the instance to which it leads (`None` for another host), and the app that requested
/// it.
type Decided<'a> = (Arc<Tunnel>, Option<&'a Served>, Option<Arc<str>>);

/// Decides about a CONNECT request, which becomes the connection's tunnel.
fn decide<'a>(
    state: &'a ListenerState,
    connection: &mut Connection,
    head: &[u8],
) -> Result<Decided<'a>, Refusal> {
    let forward = state.forward.as_ref().ok_or(Refusal::Method)?;
    let tunnel = Arc::new(parse(head)?);
    connection.peer.tunnel = Some(Arc::clone(&tunnel));
    let served = forward.served(&tunnel.host, tunnel.port);
    let client = served.map_or(&state.client, |served| &served.client);
    let callers = Callers {
        state,
        client,
        now: connection.listening.clock.wall(),
    };
    // before the host is looked up: only known callers learn which hosts are served
    let identity = callers.identify(&connection.peer, &HeaderMap::new());
    let identity = identity.ok_or(Refusal::ProxyAuthentication)?;
    if served.is_none() && forward.others == Others::Refuse {
        let why = "The host and port belong to no configured instance.";
        return Err(forward.refusal(why));
    }
    let app = identity.app();
    if let Some(served) = served
        && let Some(own) = app.and_then(|app| app.client.as_ref())
    {
        forward.check_client(&served.client, own)?;
    }
    Ok((tunnel, served, app.map(|app| Arc::clone(app.name()))))
}

/// Parses a CONNECT request (RFC 9110, section 9.3.6). `Host` may be missing, as from old programs,
/// but must not differ from the target.
fn parse(bytes: &[u8]) -> Result<Tunnel, Refusal> {
    head::check(bytes)?;
    let mut fields = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let mut request = httparse::Request::new(&mut fields);
    if !matches!(request.parse(bytes), Ok(parsed) if parsed.is_complete()) {
        return Err(Refusal::Unreadable);
    }
    let mut headers = HeaderMap::new();
    for field in request.headers.iter() {
        let name = HeaderName::try_from(field.name).map_err(|_| Refusal::Unreadable)?;
        let value = HeaderValue::from_bytes(field.value).map_err(|_| Refusal::Unreadable)?;
        headers.append(name, value);
    }
    if via::is_loop(&headers) {
        return Err(Refusal::Loop);
    }
    target::check_headers(Version::HTTP_11, &headers)?;
    let length = headers.get(CONTENT_LENGTH).map(HeaderValue::as_bytes);
    if headers.contains_key(TRANSFER_ENCODING) || length.is_some_and(|length| length != b"0") {
        // where the body ends and the tunnel starts would be ambiguous
        return Err(Malformed::Framing.into());
    }
    let target = request.path.unwrap_or_default();
    let asked = forward::split(target, 0).filter(|(_, port)| *port != 0);
    let (host, port) = asked.ok_or(Malformed::TargetForm)?;
    let mut hosts = headers.get_all(HOST).iter();
    let is_meant = |value: &HeaderValue| {
        let named = value.to_str().ok();
        let named = named.and_then(|text| forward::split(text, port));
        named.is_some_and(|named| named == (host.clone(), port))
    };
    if hosts.next().is_some_and(|host| !is_meant(host)) || hosts.next().is_some() {
        return Err(Malformed::Host.into());
    }
    let mut shown = headers.get_all(PROXY_AUTHORIZATION).iter().cloned();
    let mut authorization = shown.next().filter(|_| shown.next().is_none());
    if let Some(value) = &mut authorization {
        value.set_sensitive(true);
    }
    Ok(Tunnel {
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
        info!(%listener, app, refused = reason.label(), status = refusal.status(reason).as_u16(), "CONNECT refused");
    }
    http1::answer_and_close(stream, refusal).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(head: &str) -> Result<Tunnel, &'static str> {
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
