//! Identifies the caller: by its socket, its certificate, its key or a local token. Its credentials
//! are not forwarded.

use std::sync::Arc;
use std::time::SystemTime;

use http::HeaderMap;
use http::header::{AUTHORIZATION, COOKIE};

use super::app::{App, Apps};
use super::plan::Client;
use crate::local_token::request::{self, Credentials};
use crate::local_token::{self, Subject, login};

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
pub(super) struct Door<'a> {
    /// The app of every caller of this listener, if set.
    pub(super) app: Option<&'a Arc<App>>,
    /// The names in its verified certificate.
    pub(super) certificate: &'a [String],
}

impl Door<'_> {
    /// The app that the connection identifies, if it does.
    pub(super) fn app(&self, apps: &Apps) -> Option<Arc<App>> {
        let by_certificate = || apps.on_certificate(self.certificate);
        self.app.or_else(by_certificate).map(Arc::clone)
    }
}

/// Identifies the sender of a request with these `headers` for `client`, at `now`; `None` if it is
/// unknown.
pub(super) fn identify(
    apps: &Apps,
    door: Door<'_>,
    client: &Client,
    headers: &HeaderMap,
    now: SystemTime,
) -> Option<Caller> {
    if apps.is_empty() {
        return Some(Caller::Anyone);
    }
    if let Some(app) = door.app(apps) {
        return Some(Caller::App(app));
    }
    let mut shown = headers.get_all(AUTHORIZATION).iter();
    let by_header = match (shown.next(), shown.next()) {
        (Some(only), None) => by_authorization(apps, client, only.as_bytes(), now),
        _ => None,
    };
    by_header.or_else(|| {
        let cookies = headers.get_all(COOKIE).iter();
        let session = login::session(cookies.filter_map(|line| line.to_str().ok()))?;
        by_local_token(apps, client, session, now)
    })
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

fn by_authorization(
    apps: &Apps,
    client: &Client,
    header: &[u8],
    now: SystemTime,
) -> Option<Caller> {
    let bearer = header.split_at_checked(7);
    match bearer.filter(|(scheme, _)| scheme.eq_ignore_ascii_case(b"bearer ")) {
        Some((_, shown)) => {
            let shown = shown.trim_ascii();
            let token = || by_local_token(apps, client, std::str::from_utf8(shown).ok()?, now);
            let by_key = apps.with_key(shown).map(Arc::clone).map(Caller::App);
            by_key.or_else(token)
        }
        None => by_pair(apps, client, &request::basic(header)),
    }
}

fn by_local_token(apps: &Apps, client: &Client, text: &str, now: SystemTime) -> Option<Caller> {
    let shown = local_token::UnverifiedToken::parse(text)?;
    match shown.subject() {
        Subject::App(name) => {
            let app = apps.named(name)?;
            let valid = shown.is_valid(app.signing()?, now);
            valid.then(|| Caller::App(Arc::clone(app)))
        }
        Subject::Client(name) if name == &*client.name => shown
            .is_valid(&client.own.signing, now)
            .then_some(Caller::Owner),
        Subject::Client(_) | Subject::Anyone => None,
    }
}
