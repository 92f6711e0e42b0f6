//! One build of the program in front of its own instance.

use std::path::Path;

use super::outcome::{Message, without_its_own};
use crate::support::Proxy;
use crate::support::certificate::Authority;
use crate::support::h2_caller::Served;
use crate::support::h2_origin::{Arrived, H2Origin};
use crate::support::proxy::Builder;
use crate::support::recorder::Recorder;
use crate::support::strict::Strict;

/// The build that a side runs: the other one, at a path, or this one.
#[derive(Clone, Copy)]
pub(super) struct Build<'a>(Option<&'a Path>);

/// Calls `start` for the other build, then for this one.
pub(super) fn both<T>(other: &Path, start: impl Fn(Build<'_>) -> T) -> [T; 2] {
    [start(Build(Some(other))), start(Build(None))]
}

impl Build<'_> {
    /// Starts a proxy.
    pub(super) fn start(self, builder: Builder) -> Proxy {
        let builder = match self.0 {
            Some(path) => builder.program(path),
            None => builder,
        };
        let proxy = builder.start();
        proxy.has_token();
        proxy
    }

    /// Starts a proxy with a TLS listener.
    pub(super) fn start_with_tls(self, url: &str, instance: &str) -> Served<()> {
        let authority = Authority::new();
        let files = authority.files("localhost");
        let tls = format!(
            "tls = {{ cert_file = {:?}, key_file = {:?} }}\n",
            files.cert, files.key
        );
        Served {
            proxy: self.start(Proxy::configured(url, instance, &tls)),
            authority,
            simulator: (),
        }
    }
}

/// An instance that records its requests.
pub(super) trait Instance {
    fn url(&self) -> String;

    /// The keys for its table.
    fn keys(&self) -> String {
        String::new()
    }

    /// The requests so far that contain `mark`.
    fn with_mark(&self, mark: &str) -> Vec<Message>;
}

impl Instance for Recorder {
    fn url(&self) -> String {
        Recorder::url(self)
    }

    fn with_mark(&self, mark: &str) -> Vec<Message> {
        let all = Recorder::with_mark(self, mark).into_iter();
        let message = |it: Strict| Message {
            is: it.method,
            target: it.target,
            fields: it.fields,
            body: it.body,
            whole: true,
            trailers: Vec::new(),
        };
        all.map(message).collect()
    }
}

/// An HTTP/2 instance and its authority.
pub(super) struct OverHttp2(pub(super) H2Origin, Authority);

impl OverHttp2 {
    pub(super) fn start() -> OverHttp2 {
        let authority = Authority::new();
        OverHttp2(H2Origin::new(&authority), authority)
    }
}

impl Instance for OverHttp2 {
    fn url(&self) -> String {
        self.0.url()
    }

    fn keys(&self) -> String {
        format!("ca_file = {:?}", self.1.ca_file())
    }

    fn with_mark(&self, mark: &str) -> Vec<Message> {
        // timing decides whether an aborted request gets this far
        let all = self.0.all().into_iter().filter(|it| it.whole).map(message);
        let has_mark = |it: &Message| {
            let text = format!(
                "{} {:?} {}",
                it.target,
                it.fields,
                String::from_utf8_lossy(&it.body)
            );
            text.contains(mark)
        };
        all.filter(has_mark).collect()
    }
}

fn message(it: Arrived) -> Message {
    Message {
        is: it.method,
        target: it.target,
        fields: [(":authority".to_owned(), it.authority)]
            .into_iter()
            .chain(pairs(&it.fields))
            .collect(),
        body: it.body.to_vec(),
        whole: true,
        trailers: it.trailers.as_ref().map(pairs).unwrap_or_default(),
    }
}

/// Fields as text, in Latin-1.
pub(super) fn pairs(fields: &http::HeaderMap) -> Vec<(String, String)> {
    let pair = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
        let value = value.as_bytes().iter().copied().map(char::from).collect();
        (name.as_str().to_owned(), value)
    };
    fields.iter().map(pair).collect()
}

/// A build in front of an instance: one proxy without TLS, one with.
pub(super) struct Side<I> {
    pub(super) instance: I,
    pub(super) plain: Proxy,
    pub(super) tls: Served<()>,
}

impl<I: Instance> Side<I> {
    pub(super) fn start(build: Build<'_>, instance: I, listener: &str) -> Side<I> {
        let (url, keys) = (instance.url(), instance.keys());
        Side {
            plain: build.start(Proxy::configured(&url, &keys, listener)),
            tls: build.start_with_tls(&url, &keys),
            instance,
        }
    }

    /// Makes `messages` comparable: replaces addresses, tokens and the trial's mark.
    pub(super) fn common(&self, messages: &mut [Message], mark: &str) {
        let url = self.instance.url();
        let authority = url.split_once("://").unwrap().1.to_owned();
        let own = [
            (self.plain.address.to_string(), "{proxy}"),
            (self.tls.proxy.address.to_string(), "{proxy}"),
            (
                format!("localhost:{}", self.tls.proxy.address.port()),
                "{proxy}",
            ),
            (authority, "{origin}"),
            (mark.to_owned(), "{m}"),
        ];
        for message in messages {
            if message.field("x-collibra-auth-proxy") == Some("upstream") {
                // it quotes the system's error, which depends on timing: reset or broken pipe
                message.body.clear();
                message.fields.retain(|(name, _)| name != "content-length");
            }
            message.target = without_its_own(&message.target, &own);
            for (name, value) in message.fields.iter_mut().chain(&mut message.trailers) {
                *value = without_its_own(value, &own);
                if name == "authorization" && value.starts_with("Bearer ") {
                    *value = "Bearer {token}".to_owned();
                }
            }
            if let Ok(text) = std::str::from_utf8(&message.body) {
                let text = without_its_own(text, &own);
                message.body = text.into_bytes();
            }
        }
    }
}
