//! What a forward listener serves: the configured instances, by the host and port that its callers
//! name with CONNECT or an absolute target. Pure.
//!
//! A request that names another host than its tunnel is refused, so that no caller takes an
//! instance's response for another server's.

use std::sync::Arc;

use http::header::{HOST, PROXY_AUTHORIZATION};
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Uri};
use pingora::http::RequestHeader;

use super::config::{Others, Tls};
use super::listener_state::{Client, ListenerState};
use super::peer::Peer;
use super::respond::Refusal;
use super::target::{self, Malformed};
use crate::browser::{self, host_of_authority};
use crate::socket::Address;

/// What a forward listener serves.
#[derive(Debug)]
pub struct Forward {
    /// The instances.
    pub served: Vec<Served>,
    /// What happens to calls to other hosts.
    pub others: Others,
    /// This process's own addresses, to which no tunnel leads.
    pub own: Vec<Address>,
}

/// An instance behind a forward listener.
#[derive(Debug)]
pub struct Served {
    /// The client for its calls.
    pub client: Arc<Client>,
    /// The TLS of tunnels to it; `None` without a local authority that covers its host.
    pub tls: Option<Tls>,
}

impl Served {
    /// Whether it is the server at `host` (brackets around an IPv6 address) and `port`.
    fn is_at(&self, host: &str, port: u16) -> bool {
        let instance = self.client.upstream.instance();
        instance.port == port && instance.host == host.trim_matches(['[', ']'])
    }
}

impl Forward {
    /// The instance at `host` and `port`, if there is one.
    pub(super) fn served(&self, host: &str, port: u16) -> Option<&Served> {
        self.served.iter().find(|served| served.is_at(host, port))
    }

    /// The refusal of a call that this listener does not serve, with the reason `why`.
    pub(super) fn refusal(&self, state: &ListenerState, why: &'static str) -> Refusal {
        let instances = self.served.iter();
        let instances: Vec<&str> = instances
            .map(|served| served.client.upstream.instance().authority.as_str())
            .collect();
        Refusal::NotAnInstance {
            why,
            listener: state.listener.name.to_string(),
            instances: instances.join(", "),
        }
    }

    /// Checks that a request names one instance, the tunnel's if it came through one, and was sent
    /// by a program, not a page. Returns the instance's client. An absolute target becomes its
    /// path.
    ///
    /// # Errors
    /// [`Refusal`] says why it is not served.
    pub(super) fn check_form(
        &self,
        state: &ListenerState,
        peer: &Peer,
        request: &mut RequestHeader,
    ) -> Result<&Arc<Client>, Refusal> {
        target::host(&request.headers).map_err(Refusal::Malformed)?;
        let named = absolute(request.raw_path());
        let (served, host) = match (&peer.tunnel, named) {
            (Some(tunnel), named) => {
                let other = || Refusal::OtherHost(tunnel.host.clone());
                let default = if peer.tls { 443 } else { 80 };
                let is_meant = |authority: &str, default| {
                    split(authority, default)
                        .is_some_and(|(host, port)| host == tunnel.host && port == tunnel.port)
                };
                let by_target = named.as_ref().is_none_or(|(scheme, authority)| {
                    let default = if scheme == "http" { 80 } else { 443 };
                    is_meant(authority, default)
                });
                let host = request.headers.get(HOST);
                let host = host.and_then(|host| host.to_str().ok());
                if !by_target || !host.is_some_and(|host| is_meant(host, default)) {
                    return Err(other());
                }
                let served = self.served(&tunnel.host, tunnel.port).ok_or_else(other)?;
                (served, tunnel.host.clone())
            }
            (None, Some((scheme, authority))) => {
                let (default, is_plain) = if scheme == "http" {
                    (80, true)
                } else {
                    (443, false)
                };
                let named = split(&authority, default);
                let (host, port) = named.ok_or(Refusal::Malformed(Malformed::TargetForm))?;
                // http:// to an https:// instance is forwarded over https
                let usual = || self.served(&host, 443).filter(|_| is_plain && port == 80);
                let served = self.served(&host, port).or_else(usual);
                let why = "The target is no configured instance.";
                (served.ok_or_else(|| self.refusal(state, why))?, host)
            }
            (None, None) if request.raw_path().first() == Some(&b'/') => {
                return Err(Refusal::ForwardOnly {
                    listener: state.listener.name.to_string(),
                });
            }
            (None, None) => return Err(Refusal::Malformed(Malformed::TargetForm)),
        };
        let is_host = |named: &str| named == host;
        let path = target::check_target(request.raw_path(), is_host).map_err(Refusal::Malformed)?;
        if browser::is_cross_site(is_host, &request.headers) {
            return Err(Refusal::CrossSite);
        }
        if let Some(path) = path {
            request.set_uri(path);
        }
        Ok(&served.client)
    }

    /// Checks that `client`, the one of the request's app, belongs to the same instance as `named`.
    /// Otherwise the caller would take another instance's responses for those of the host that it
    /// called.
    ///
    /// # Errors
    /// [`Refusal::NotAnInstance`].
    pub(super) fn check_client(
        &self,
        state: &ListenerState,
        named: &Client,
        client: &Client,
    ) -> Result<(), Refusal> {
        let is_same = named.upstream.instance().name == client.upstream.instance().name;
        let why = "The app's own client belongs to another instance.";
        is_same
            .then_some(())
            .ok_or_else(|| self.refusal(state, why))
    }
}

/// The credentials for the proxy: the tunnel's, or without a tunnel those in `headers`.
pub(super) fn authorization<'a>(peer: &'a Peer, headers: &'a HeaderMap) -> Option<&'a HeaderValue> {
    if let Some(tunnel) = &peer.tunnel {
        return tunnel.authorization.as_ref();
    }
    let mut shown = headers.get_all(PROXY_AUTHORIZATION).iter();
    shown.next().filter(|_| shown.next().is_none())
}

/// The scheme and authority of an absolute target; `None` for another form.
fn absolute(target: &[u8]) -> Option<(String, String)> {
    let uri: Uri = std::str::from_utf8(target).ok()?.parse().ok()?;
    let scheme = uri.scheme_str()?.to_ascii_lowercase();
    Some((scheme, uri.authority().map(Authority::to_string)?))
}

/// Splits `host[:port]` into the host, in lower case, and the port, `default` if there is none.
pub(super) fn split(authority: &str, default: u16) -> Option<(String, u16)> {
    let host = host_of_authority(authority)?;
    let port = authority.get(host.len()..)?.trim_start_matches(':');
    let port = if port.is_empty() {
        default
    } else {
        port.parse().ok()?
    };
    Some((host.into_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_is_a_host_and_a_port() {
        for (authority, host, port) in [
            ("acme.example", "acme.example", 443),
            ("acme.example:", "acme.example", 443),
            ("ACME.example:8443", "acme.example", 8443),
            ("[::1]:80", "[::1]", 80),
            ("[::1]", "[::1]", 443),
        ] {
            assert_eq!(split(authority, 443), Some((host.to_owned(), port)));
        }
        for odd in [
            "", ":443", "a:b", "a:1:2", "a:65536", "u@a:1", "a/b", "a:-1",
        ] {
            assert_eq!(split(odd, 443), None, "{odd:?}");
        }
    }

    #[test]
    fn only_an_absolute_target_names_a_server() {
        let named = |target: &str| absolute(target.as_bytes());
        let acme = Some(("http".to_owned(), "acme.example".to_owned()));
        assert_eq!(named("HTTP://acme.example/a?b"), acme);
        for other in ["/a", "*", "acme.example:443", "//acme.example/a", "a b"] {
            assert_eq!(named(other), None, "{other:?}");
        }
    }

    #[test]
    fn a_callers_credentials_are_those_of_its_tunnel() {
        let mut headers = HeaderMap::new();
        let value = |text| HeaderValue::from_static(text);
        assert_eq!(authorization(&Peer::default(), &headers), None);
        headers.append(PROXY_AUTHORIZATION, value("Basic a"));
        let shown = Some(&headers[PROXY_AUTHORIZATION]);
        assert_eq!(authorization(&Peer::default(), &headers), shown);
        let tunnel = super::super::peer::Tunnel {
            host: "acme.example".to_owned(),
            port: 443,
            authorization: None,
        };
        let inside = Peer {
            tunnel: Some(Arc::new(tunnel)),
            ..Peer::default()
        };
        assert_eq!(authorization(&inside, &headers), None);
        headers.append(PROXY_AUTHORIZATION, value("Basic b"));
        assert_eq!(authorization(&Peer::default(), &headers), None, "two");
    }
}
