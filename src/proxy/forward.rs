//! What a forward listener serves: the configured instances, by the host and port that its callers
//! name with CONNECT or an absolute target. Pure.
//!
//! A request that names another host than its tunnel is refused, so that no caller takes an
//! instance's response for another server's.

use std::sync::Arc;

use http::Uri;
use http::header::HOST;
use http::uri::Scheme;
use pingora::http::RequestHeader;

use super::client::Client;
use super::config::Others;
use super::respond::Refusal;
use crate::browser::{self, host_of_authority};
use crate::downstream::peer::Peer;
use crate::downstream::tls::Tls;
use crate::policy::target::{self, Malformed};
use crate::socket::Address;

/// What a forward listener serves.
#[derive(Debug)]
pub struct Forward {
    /// The listener's name.
    pub listener: Arc<str>,
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

impl Forward {
    /// The instance at `host` (brackets around an IPv6 address) and `port`, if there is one.
    pub(super) fn served(&self, host: &str, port: u16) -> Option<&Served> {
        let host = host.trim_matches(['[', ']']);
        self.served.iter().find(|served| {
            let instance = served.client.upstream.instance();
            instance.port == port && instance.host == host
        })
    }

    /// The refusal of a call that this listener does not serve, with the reason `why`.
    pub(super) fn refusal(&self, why: &'static str) -> Refusal {
        let instances = self.served.iter();
        let instances: Vec<&str> = instances
            .map(|served| served.client.upstream.instance().authority.as_str())
            .collect();
        Refusal::NotAnInstance {
            why,
            listener: self.listener.to_string(),
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
        peer: &Peer,
        request: &mut RequestHeader,
    ) -> Result<&Arc<Client>, Refusal> {
        target::host(&request.headers)?;
        let named = absolute(request.raw_path());
        let (served, host) = match (&peer.tunnel, named) {
            (Some(tunnel), named) => {
                let other = || Refusal::OtherHost(tunnel.host.clone());
                let is_meant = |authority: &str, default| {
                    split(authority, default)
                        .is_some_and(|(host, port)| host == tunnel.host && port == tunnel.port)
                };
                let by_target = named.is_none_or(|(port, authority)| is_meant(&authority, port));
                let default = if peer.tls { 443 } else { 80 };
                let host = request.headers.get(HOST);
                let host = host.and_then(|host| host.to_str().ok());
                if !by_target || !host.is_some_and(|host| is_meant(host, default)) {
                    return Err(other());
                }
                let served = self.served(&tunnel.host, tunnel.port).ok_or_else(other)?;
                (served, tunnel.host.clone())
            }
            (None, Some((default, authority))) => {
                let (host, port) = split(&authority, default).ok_or(Malformed::TargetForm)?;
                // http:// to an https:// instance is forwarded over https
                let is_usual = (default, port) == (80, 80);
                let usual = || self.served(&host, 443).filter(|_| is_usual);
                let served = self.served(&host, port).or_else(usual);
                let why = "The target is no configured instance.";
                (served.ok_or_else(|| self.refusal(why))?, host)
            }
            (None, None) if request.raw_path().first() == Some(&b'/') => {
                return Err(Refusal::ForwardOnly {
                    listener: self.listener.to_string(),
                });
            }
            (None, None) => return Err(Malformed::TargetForm.into()),
        };
        let is_host = |named: &str| named == host;
        let path = target::check_target(request.raw_path(), is_host)?;
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
    pub(super) fn check_client(&self, named: &Client, client: &Client) -> Result<(), Refusal> {
        let is_same = named.upstream.instance().name == client.upstream.instance().name;
        let why = "The app's own client belongs to another instance.";
        is_same.then_some(()).ok_or_else(|| self.refusal(why))
    }
}

/// The default port and the authority of an absolute target; `None` for another form.
fn absolute(target: &[u8]) -> Option<(u16, String)> {
    let uri: Uri = std::str::from_utf8(target).ok()?.parse().ok()?;
    let is_plain = uri.scheme()? == &Scheme::HTTP;
    let authority = uri.authority()?.to_string();
    Some((if is_plain { 80 } else { 443 }, authority))
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
        let acme = Some((80, "acme.example".to_owned()));
        assert_eq!(named("HTTP://acme.example/a?b"), acme);
        for other in ["/a", "*", "acme.example:443", "//acme.example/a", "a b"] {
            assert_eq!(named(other), None, "{other:?}");
        }
    }
}
