//! `[app.NAME]`: a program that may call, how it authenticates, and what it may call.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::context::LoadContext;
use super::credentials::{self, Source, Sources};
use super::declare::{any, only};
use super::location::Location;
use super::names::Names;
use super::tables;
use crate::policy::limit::Limits;
use crate::proxy::config::{App, Listener};
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
        (&raw.location, app(raw, clients, has_listener, context))
    });
    let apps: Vec<(&Location, App)> = apps.collect();
    one_key_each(&apps, context);
    let apps = apps.into_iter();
    apps.map(|(_, app)| (app.name.clone(), Arc::new(app)))
        .collect()
}

/// Reports apps that share a key, since a key identifies one app.
fn one_key_each(apps: &[(&Location, App)], context: &LoadContext<'_>) {
    let mut owners: HashMap<&str, &App> = HashMap::with_capacity(apps.len());
    for (location, app) in apps {
        let Some(key) = &app.key else { continue };
        if let Some(first) = owners.get(key.expose()) {
            context.fault(location.fault(
                format!("it has the same key as [app.{}]", first.name.escape_debug()),
                "give each app a key of its own",
            ));
        } else {
            owners.insert(key.expose(), app);
        }
    }
}

fn app(raw: &tables::App, clients: &Names, has_listener: bool, context: &LoadContext<'_>) -> App {
    let sources = Sources::default()
        .and(&raw.key_file, Source::File)
        .and(&raw.key_env, Source::Variable);
    let is_keyless = sources.given.is_empty() && !sources.faulty;
    let key = key(sources, &raw.location, context);
    if is_keyless && raw.certificate.is_absent() && !has_listener {
        context.fault(raw.at("key_file").fault(
            "nobody could say that they are this app",
            "write `key_file` or `key_env`; or `certificate`, the name on its client certificate; \
             or name it with `app` in a listener of its own",
        ));
    }
    let client = clients.find(&raw.client, context);
    let allow = raw.allow.given().map(|spanned| {
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
    let requests_per_second = raw.requests_per_second.checked(rate, context);
    let most = only(
        |&most| most > 0,
        "no request of it could be served",
        "write 1 or more, or leave the key out for no limit",
    );
    let max_in_flight = raw.max_in_flight.checked(most, context);
    let certificate = raw.certificate.settle(raw.name.to_string(), any, context);
    raw.show_as("certificate", &*certificate);
    App {
        certificate,
        name: raw.name.clone(),
        key,
        client,
        allow,
        limits: Limits {
            requests_per_second,
            max_in_flight: max_in_flight.and_then(|most| usize::try_from(most).ok()),
        },
    }
}

/// The app's key, if it has one.
fn key(sources: Sources, app: &Location, context: &LoadContext<'_>) -> Option<Secret> {
    let mut given = sources.given.into_iter();
    let source = given.next()?;
    if given.next().is_some() {
        context.fault(app.child("key_file").fault(
            "the key is given twice: `key_file`, `key_env`",
            "keep one of them",
        ));
        return None;
    }
    let text = match &source {
        Source::File(path) => credentials::secret_file(path, context)?,
        Source::Variable(name) => credentials::variable(name, context)?,
        Source::Inline(_) | Source::Json(_) => return None,
    };
    let key = match Secret::parse(text.expose()) {
        Ok(key) if key.expose().len() >= SHORTEST_KEY => Ok(key),
        Ok(_) => Err("the key has fewer than 16 bytes".to_owned()),
        Err(error) => Err(error.to_string()),
    };
    let remedy = "make one with `openssl rand -hex 32`, or any text of one line";
    context.sound(key.map_err(|problem| source.location().fault(problem, remedy)))
}
