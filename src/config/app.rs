//! `[app.NAME]`: a program that may call, how it authenticates, and what it may call.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use super::context::LoadContext;
use super::credentials::{self, Source};
use super::declare::{Head, any, checked, only, repeated, settle};
use super::names::Names;
use super::tables;
use crate::proxy::config::{App, Listener};
use crate::proxy::limit::Limits;
use crate::secret::Secret;

/// The shortest key, in bytes, so that a key cannot be guessed.
const SHORTEST_KEY: usize = 16;

/// Parses the apps. `clients` are the names of all clients.
pub(super) fn parse(
    raw: &[tables::App],
    clients: &Names,
    listeners: &[Listener],
    context: &LoadContext<'_>,
) -> BTreeMap<Arc<str>, Arc<App>> {
    let on_listeners: HashSet<_> = listeners.iter().filter_map(|l| l.app.as_ref()).collect();
    let apps = raw.iter().map(|raw| {
        let has_listener = on_listeners.contains(&raw.name);
        (&raw.head, app(raw, clients, has_listener, context))
    });
    let apps: Vec<(&Head, App)> = apps.collect();
    // a key identifies one app
    let keys = apps
        .iter()
        .filter_map(|(raw, app)| Some((*raw, app.key.as_ref()?.expose())));
    for (raw, first) in repeated(keys) {
        context.fault(raw.location.fault(
            format!("it has the same key as [app.{}]", first.name.escape_debug()),
            "give each app a key of its own",
        ));
    }
    let apps = apps.into_iter().map(|(_, app)| app);
    apps.map(|app| (app.name.clone(), Arc::new(app))).collect()
}

fn app(raw: &tables::App, clients: &Names, has_listener: bool, context: &LoadContext<'_>) -> App {
    let sources = credentials::given([
        raw.key_file.as_ref().map(Source::File),
        raw.key_env.as_ref().map(Source::Variable),
    ]);
    let is_known = has_listener
        || ["key_file", "key_env", "certificate"]
            .map(|key| raw.has(key))
            .contains(&true);
    if !is_known {
        context.fault(raw.at("key_file").fault(
            "no caller can authenticate as this app",
            "write `key_file` or `key_env`; or `certificate`, the name on its client certificate; \
             or name it with `app` in a listener of its own",
        ));
    }
    let key = credentials::only(&sources, raw, "key_file", context).and_then(|source| {
        let remedy = "make one with `openssl rand -hex 32`, or any text of one line";
        source.read(true, parse_key, remedy, context)
    });
    let client = raw.client.as_ref();
    let client = client.and_then(|_| clients.find(&raw.client, raw, context));
    let allow = raw.allow.as_ref().map(|spanned| {
        if spanned.value.is_empty() {
            context.warning(spanned.location.fault(
                "it allows nothing, so every request of this app is refused",
                "write what it may do, like [\"GET /rest/2.0/**\"]; or leave the key out",
            ));
        }
        spanned.value.clone()
    });
    let rate = only(
        |rate| (0.001..=1e6).contains(rate),
        "it is out of bounds",
        "write a number from 0.001 to 1000000, or leave the key out for no limit",
    );
    let most = only(
        |&most| most > 0,
        "the app could send no request",
        "write 1 or more, or leave the key out for no limit",
    );
    let max_in_flight = checked(&raw.max_in_flight, most, context);
    let certificate = settle(&raw.certificate, raw.name.to_string(), any, context);
    raw.show_as("certificate", &*certificate);
    App {
        certificate,
        name: raw.name.clone(),
        key,
        client,
        allow,
        limits: Limits {
            requests_per_second: checked(&raw.requests_per_second, rate, context),
            max_in_flight: max_in_flight.and_then(|most| usize::try_from(most).ok()),
        },
    }
}

fn parse_key(text: &str) -> Result<Secret, String> {
    match Secret::parse(text) {
        Ok(key) if key.expose().len() < SHORTEST_KEY => {
            Err("the key has fewer than 16 bytes".to_owned())
        }
        key => key.map_err(|error| error.to_string()),
    }
}
