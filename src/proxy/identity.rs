//! Identifies the caller: by its socket, its certificate, its key or a local token. Its credentials
//! are not forwarded.

use std::sync::Arc;
use std::time::SystemTime;

use http::header::{AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::app::App;
use super::client::Client;
use super::listener_state::ListenerState;
use crate::downstream::peer::Peer;
use crate::local_token::request::{Credentials, basic};
use crate::local_token::{Subject, UnverifiedToken, login};

/// The sender of a request.
#[derive(Clone, Debug)]
pub(super) enum Identity {
    /// Anyone who reaches the listener: there are no apps.
    Anyone,
    /// An app.
    App(Arc<App>),
    /// A caller with the client's own id and secret.
    Owner,
}

impl Identity {
    /// The app, if the sender is one.
    pub(super) fn app(&self) -> Option<&Arc<App>> {
        match self {
            Identity::App(app) => Some(app),
            Identity::Anyone | Identity::Owner => None,
        }
    }
}

/// Those who may send a request.
#[derive(Clone, Copy)]
pub(super) struct Callers<'a> {
    /// The state with the apps and the revoked local tokens.
    pub(super) state: &'a ListenerState,
    /// The client that the request is for, whose owner is known by its credentials.
    pub(super) client: &'a Client,
    /// The wall-clock time.
    pub(super) now: SystemTime,
}

impl Callers<'_> {
    /// Identifies the caller of a request with these `headers` from `peer`. `None` if it is
    /// unknown.
    pub(super) fn identify(&self, peer: &Peer, headers: &HeaderMap) -> Option<Identity> {
        if self.state.apps.is_empty() {
            return Some(Identity::Anyone);
        }
        self.by_connection(peer)
            .or_else(|| self.by_proxy_authorization(peer, headers))
            .or_else(|| self.by_authorization(only(headers, AUTHORIZATION)?))
            .or_else(|| {
                let mut shown = sessions(headers).filter_map(UnverifiedToken::parse);
                shown.find_map(|token| self.by_local_token(&token))
            })
    }

    /// The app that the connection identifies: its listener's, or that of its certificate.
    pub(super) fn by_connection(&self, peer: &Peer) -> Option<Identity> {
        let by_certificate = || self.state.apps.on_certificate(&peer.certificate_names);
        let app = self.state.app.as_ref().or_else(by_certificate)?;
        Some(Identity::App(Arc::clone(app)))
    }

    /// The caller with the credentials for the proxy, at a forward listener.
    pub(super) fn by_proxy_authorization(
        &self,
        peer: &Peer,
        headers: &HeaderMap,
    ) -> Option<Identity> {
        self.state.forward.as_ref()?;
        self.by_authorization(proxy_authorization(peer, headers)?)
    }

    /// The caller whose credentials are in `header`, a value of `Authorization`; `None` if they are
    /// not valid.
    fn by_authorization(&self, header: &HeaderValue) -> Option<Identity> {
        let Some(shown) = bearer(header) else {
            return self.by_pair(&basic(header.as_bytes()));
        };
        let by_key = self.state.apps.with_key(shown).map(Arc::clone);
        let token = || self.by_local_token(&UnverifiedToken::parse(text(shown)?)?);
        by_key.map(Identity::App).or_else(token)
    }

    /// The caller for whom a local token was issued, if it is valid.
    fn by_local_token(&self, token: &UnverifiedToken<'_>) -> Option<Identity> {
        if self.state.revoked.contains(token) {
            return None;
        }
        let own = &self.client.own;
        let (key, identity) = match token.subject() {
            Subject::App(name) => {
                let app = self.state.apps.named(name)?;
                (app.signing.as_ref()?, Identity::App(Arc::clone(app)))
            }
            Subject::Client(name) if name == &*self.client.name => (&own.signing, Identity::Owner),
            Subject::Client(_) | Subject::Anyone => return None,
        };
        token.is_valid(key, self.now).then_some(identity)
    }

    /// The caller with one of these pairs of name and key, or the client's id and secret.
    pub(super) fn by_pair(&self, shown: &[Credentials]) -> Option<Identity> {
        let own = &self.client.own;
        shown.iter().find_map(|Credentials { name, secret }| {
            let apps = &self.state.apps;
            let app = apps.with_name_and_key(name, secret.expose().as_bytes());
            let is_owner = || own.id.as_str() == name && own.secret == *secret;
            match app {
                Some(app) => Some(Identity::App(Arc::clone(app))),
                None => is_owner().then_some(Identity::Owner),
            }
        })
    }

    /// Revokes the valid local tokens in `headers`.
    pub(super) fn revoke(&self, headers: &HeaderMap) {
        for token in shown_tokens(headers) {
            if self.by_local_token(&token).is_some() {
                self.state.revoked.revoke(&token, self.now);
            }
        }
    }

    /// The app that a request with these `headers` claims to come from, without proof.
    pub(super) fn claimed(&self, headers: &HeaderMap) -> Option<Arc<str>> {
        let shown = headers.get_all(AUTHORIZATION).iter();
        let pairs: Vec<Credentials> = shown.flat_map(|it| basic(it.as_bytes())).collect();
        self.claimed_by(&pairs).or_else(|| {
            let mut tokens = shown_tokens(headers);
            tokens.find_map(|token| match token.subject() {
                Subject::App(name) => self.known_name(name),
                Subject::Client(_) | Subject::Anyone => None,
            })
        })
    }

    /// The app that one of these pairs of a name and a key names.
    pub(super) fn claimed_by(&self, shown: &[Credentials]) -> Option<Arc<str>> {
        shown.iter().find_map(|shown| self.known_name(&shown.name))
    }

    /// The name of an app, if one has it. Any other text may be a key in the wrong place, which no
    /// log must show.
    fn known_name(&self, name: &str) -> Option<Arc<str>> {
        let app = self.state.apps.named(name)?;
        Some(Arc::clone(app.name()))
    }
}

/// The credentials for the proxy: the tunnel's, or without a tunnel those in `headers`.
fn proxy_authorization<'a>(peer: &'a Peer, headers: &'a HeaderMap) -> Option<&'a HeaderValue> {
    match &peer.tunnel {
        Some(tunnel) => tunnel.authorization.as_ref(),
        None => only(headers, PROXY_AUTHORIZATION),
    }
}

/// The value of a field that `headers` have once.
fn only(headers: &HeaderMap, name: HeaderName) -> Option<&HeaderValue> {
    let mut shown = headers.get_all(name).iter();
    shown.next().filter(|_| shown.next().is_none())
}

/// The credentials in a header `Authorization: Bearer`.
fn bearer(header: &HeaderValue) -> Option<&[u8]> {
    let (scheme, shown) = header.as_bytes().split_at_checked(7)?;
    let is_bearer = scheme.eq_ignore_ascii_case(b"bearer ");
    is_bearer.then(|| shown.trim_ascii())
}

/// The session's cookie.
fn sessions(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let cookies = headers.get_all(COOKIE).into_iter();
    login::sessions(cookies.filter_map(|line| line.to_str().ok()))
}

/// The texts in a request that have the form of a local token.
fn shown_tokens(headers: &HeaderMap) -> impl Iterator<Item = UnverifiedToken<'_>> {
    let bearers = headers.get_all(AUTHORIZATION).into_iter();
    let bearers = bearers.filter_map(|value| text(bearer(value)?));
    let shown = bearers.chain(sessions(headers));
    shown.filter_map(UnverifiedToken::parse)
}

fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::downstream::peer::Tunnel;

    #[test]
    fn a_callers_credentials_are_those_of_its_tunnel() {
        let mut headers = HeaderMap::new();
        let value = |text| HeaderValue::from_static(text);
        assert_eq!(proxy_authorization(&Peer::default(), &headers), None);
        headers.append(PROXY_AUTHORIZATION, value("Basic a"));
        let shown = Some(&headers[PROXY_AUTHORIZATION]);
        assert_eq!(proxy_authorization(&Peer::default(), &headers), shown);
        let tunnel = Tunnel {
            host: "acme.example".to_owned(),
            port: 443,
            authorization: None,
        };
        let inside = Peer {
            tunnel: Some(Arc::new(tunnel)),
            ..Peer::default()
        };
        assert_eq!(proxy_authorization(&inside, &headers), None);
        headers.append(PROXY_AUTHORIZATION, value("Basic b"));
        assert_eq!(proxy_authorization(&Peer::default(), &headers), None, "two");
    }
}
