//! Identifies the caller: by its socket, its certificate, its key or a local token. Its credentials
//! are not forwarded.

use std::sync::Arc;
use std::time::SystemTime;

use http::header::{AUTHORIZATION, COOKIE};
use http::{HeaderMap, HeaderValue};

use super::app::{App, Apps};
use super::listener_state::Client;
use crate::local_token::request::{self, Credentials};
use crate::local_token::{self, Revoked, Subject, login};

/// The sender of a request.
#[derive(Clone, Debug)]
pub(super) enum Caller {
    /// Anyone who reaches the listener: there are no apps.
    Anyone,
    /// An app.
    App(Arc<App>),
    /// A caller with the client's own id and secret.
    Owner,
}

/// What a connection reveals about its caller before any request.
#[derive(Clone, Copy, Debug)]
pub(super) struct ConnectionIdentity<'a> {
    /// The app of every caller of this listener, if set.
    pub(super) app: Option<&'a Arc<App>>,
    /// The names in its verified certificate.
    pub(super) certificate: &'a [String],
}

impl ConnectionIdentity<'_> {
    /// The app that the connection identifies, if it does.
    pub(super) fn app(&self, apps: &Apps) -> Option<Arc<App>> {
        let by_certificate = || apps.on_certificate(self.certificate);
        self.app.or_else(by_certificate).map(Arc::clone)
    }
}

/// By what callers are known.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known<'a> {
    pub(super) apps: &'a Apps,
    /// The client that the request is for, whose owner is known by its credentials.
    pub(super) client: &'a Client,
    /// The local tokens that were ended.
    pub(super) revoked: &'a Revoked,
    /// The wall-clock time.
    pub(super) now: SystemTime,
}

impl Known<'_> {
    /// Identifies the caller of a request with these `headers`, and at a forward listener with
    /// `to_proxy` as `Proxy-Authorization`. `None` if it is unknown.
    pub(super) fn identify(
        &self,
        identity: ConnectionIdentity<'_>,
        to_proxy: Option<&HeaderValue>,
        headers: &HeaderMap,
    ) -> Option<Caller> {
        if self.apps.is_empty() {
            return Some(Caller::Anyone);
        }
        if let Some(app) = identity.app(self.apps) {
            return Some(Caller::App(app));
        }
        if let Some(shown) = to_proxy
            && let Some(caller) = self.by_authorization(shown.as_bytes())
        {
            return Some(caller);
        }
        let mut shown = headers.get_all(AUTHORIZATION).iter();
        let by_header = match (shown.next(), shown.next()) {
            (Some(only), None) => self.by_authorization(only.as_bytes()),
            _ => None,
        };
        by_header.or_else(|| {
            let mut shown = sessions(headers).filter_map(shown_token);
            shown.find_map(|token| self.by_local_token(&token))
        })
    }

    /// The caller whose credentials are in `header`, a value of `Authorization`; `None` if they are
    /// not valid.
    pub(super) fn by_authorization(&self, header: &[u8]) -> Option<Caller> {
        let Some(shown) = bearer(header) else {
            return by_pair(self.apps, self.client, &request::basic(header));
        };
        let by_key = self.apps.with_key(shown).map(Arc::clone).map(Caller::App);
        let token = || self.by_local_token(&shown_token(std::str::from_utf8(shown).ok()?)?);
        by_key.or_else(token)
    }

    /// Whom a local token stands for, if it holds.
    fn by_local_token(&self, token: &local_token::UnverifiedToken<'_>) -> Option<Caller> {
        if self.revoked.contains(token) {
            return None;
        }
        match token.subject() {
            Subject::App(name) => {
                let app = self.apps.named(name)?;
                let holds = token.is_valid(app.signing()?, self.now);
                holds.then(|| Caller::App(Arc::clone(app)))
            }
            Subject::Client(name) if name == &*self.client.name => token
                .is_valid(&self.client.own.signing, self.now)
                .then_some(Caller::Owner),
            Subject::Client(_) | Subject::Anyone => None,
        }
    }

    /// Ends the local tokens in `headers` that hold.
    pub(super) fn revoke(&self, headers: &HeaderMap) {
        for token in shown_tokens(headers) {
            if self.by_local_token(&token).is_some() {
                self.revoked.revoke(&token, self.now);
            }
        }
    }

    /// The app that a request with these `headers` claims to come from, without proof.
    pub(super) fn claimed(&self, headers: &HeaderMap) -> Option<Arc<str>> {
        let shown = headers.get_all(AUTHORIZATION).iter();
        let pairs: Vec<Credentials> = shown.flat_map(|it| request::basic(it.as_bytes())).collect();
        claimed_by(self.apps, &pairs).or_else(|| {
            let mut tokens = shown_tokens(headers);
            tokens.find_map(|token| match token.subject() {
                Subject::App(name) => known_name(self.apps, name),
                Subject::Client(_) | Subject::Anyone => None,
            })
        })
    }
}

/// Identifies the caller with one of these pairs of name and key, or the client's id and secret.
pub(super) fn by_pair(apps: &Apps, client: &Client, shown: &[Credentials]) -> Option<Caller> {
    shown.iter().find_map(|Credentials { name, secret }| {
        let app = apps.with_name_and_key(name, secret.expose().as_bytes());
        let is_owner = || client.own.id.as_str() == name && client.own.secret == *secret;
        match app {
            Some(app) => Some(Caller::App(Arc::clone(app))),
            None => is_owner().then_some(Caller::Owner),
        }
    })
}

/// The app that one of these pairs of a name and a key names.
pub(super) fn claimed_by(apps: &Apps, shown: &[Credentials]) -> Option<Arc<str>> {
    shown.iter().find_map(|shown| known_name(apps, &shown.name))
}

/// The name of an app, if there is one of it. Any other text may be a key in the wrong place, which
/// no log must show.
fn known_name(apps: &Apps, name: &str) -> Option<Arc<str>> {
    apps.named(name).map(|app| Arc::clone(app.name()))
}

/// What a header `Authorization: Bearer` shows.
fn bearer(header: &[u8]) -> Option<&[u8]> {
    let (scheme, shown) = header.split_at_checked(7)?;
    let is_bearer = scheme.eq_ignore_ascii_case(b"bearer ");
    is_bearer.then(|| shown.trim_ascii())
}

/// The session's cookie.
fn sessions(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let cookies = headers.get_all(COOKIE).into_iter();
    login::sessions(cookies.filter_map(|line| line.to_str().ok()))
}

fn shown_token(text: &str) -> Option<local_token::UnverifiedToken<'_>> {
    local_token::UnverifiedToken::parse(text)
}

/// What of a request has the form of a local token.
fn shown_tokens(headers: &HeaderMap) -> impl Iterator<Item = local_token::UnverifiedToken<'_>> {
    let bearers = headers.get_all(AUTHORIZATION).into_iter();
    let bearers = bearers.filter_map(|value| std::str::from_utf8(bearer(value.as_bytes())?).ok());
    bearers.chain(sessions(headers)).filter_map(shown_token)
}
