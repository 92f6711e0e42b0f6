//! `[app.NAME]`: a program that may call, how it authenticates, and what it may call.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::credentials;
use super::fault::Report;
use super::location::{Field, Location};
use super::names::Names;
use super::parse::{LoadContext, reference};
use super::policy::patterns;
use super::raw::{self, Source, Sources};
use crate::proxy::config::{App, Listener};
use crate::proxy::limit::Limits;
use crate::secret::Secret;

/// The shortest key, in bytes, so that a key cannot be guessed.
const SHORTEST_KEY: usize = 16;

/// Parses the apps. `clients` are the names of all clients.
pub(super) fn parse(
    raw: Vec<raw::App>,
    clients: &Names,
    listeners: &[Listener],
    context: &LoadContext<'_>,
    report: &mut Report,
) -> BTreeMap<Arc<str>, Arc<App>> {
    let on_listeners: HashSet<_> = listeners.iter().filter_map(|l| l.app.as_ref()).collect();
    let mut apps = Vec::with_capacity(raw.len());
    for raw in raw {
        let location = raw.location.clone();
        let has_listener = on_listeners.contains(&raw.name);
        if let Some(app) = app(raw, clients, has_listener, context, report) {
            apps.push((location, app));
        }
    }
    one_key_each(&apps, report);
    let apps = apps.into_iter();
    apps.map(|(_, app)| (app.name.clone(), Arc::new(app)))
        .collect()
}

/// Reports apps that share a key, since a key identifies one app.
fn one_key_each(apps: &[(Location, App)], report: &mut Report) {
    let mut owners: HashMap<&str, &App> = HashMap::with_capacity(apps.len());
    for (location, app) in apps {
        let Some(key) = &app.key else { continue };
        if let Some(first) = owners.get(key.expose()) {
            report.fault(location.fault(
                format!("it has the same key as [app.{}]", first.name.escape_debug()),
                "give each app a key of its own",
            ));
        } else {
            owners.insert(key.expose(), app);
        }
    }
}

fn app(
    raw: raw::App,
    clients: &Names,
    has_listener: bool,
    context: &LoadContext<'_>,
    report: &mut Report,
) -> Option<App> {
    let has_certificate = !matches!(raw.certificate, Field::Absent);
    let is_keyless = raw.key.given.is_empty() && !raw.key.faulty;
    let key = key(raw.key, &raw.location, context, report);
    if is_keyless && !has_certificate && !has_listener {
        report.fault(raw.location.child("key_file").fault(
            "nobody could say that they are this app",
            "write `key_file` or `key_env`; or `certificate`, the name on its client certificate; \
             or name it with `app` in a listener of its own",
        ));
    }
    let client = match raw.client {
        Field::Absent => None,
        given => reference(given, &raw.location, "client", clients, report),
    };
    let allow = raw.allow.given().map(|spanned| {
        if spanned.value.is_empty() {
            report.warning(spanned.location.fault(
                "it allows nothing, so every request of this app is refused",
                "write what it may do, like [\"GET /rest/2.0/**\"]; or leave the key out",
            ));
        }
        patterns(&spanned.value, &spanned.location, report)
    });
    let requests_per_second = raw.requests_per_second.given().and_then(|spanned| {
        let sound = (0.001..=1e6).contains(&spanned.value);
        if !sound {
            report.fault(spanned.location.fault(
                "it is out of bounds",
                "write a number from 0.001 to 1000000, or leave the key out for no limit",
            ));
        }
        sound.then_some(spanned.value)
    });
    let max_in_flight = raw.max_in_flight.given().and_then(|spanned| {
        if spanned.value == 0 {
            report.fault(spanned.location.fault(
                "no request of it could be served",
                "write 1 or more, or leave the key out for no limit",
            ));
        }
        usize::try_from(spanned.value).ok()
    });
    Some(App {
        certificate: raw.certificate.or(raw.name.to_string()),
        name: raw.name,
        key,
        client,
        allow,
        limits: Limits {
            requests_per_second,
            max_in_flight,
        },
    })
}

/// The app's key, if it has one.
fn key(
    sources: Sources,
    app: &Location,
    context: &LoadContext<'_>,
    report: &mut Report,
) -> Option<Secret> {
    let mut given = sources.given.into_iter();
    let source = given.next()?;
    if given.next().is_some() {
        report.fault(app.child("key_file").fault(
            "the key is given twice: `key_file`, `key_env`",
            "keep one of them",
        ));
        return None;
    }
    let text = match &source.value {
        Source::File(path) => credentials::secret_file(path, &source.location, context, report),
        Source::Variable(name) => credentials::variable(name, &source.location, context, report),
        Source::Inline(_) | Source::Json(_) => None,
    }?;
    const REMEDY: &str = "make one with `openssl rand -hex 32`, or any text of one line";
    match Secret::parse(text.expose()) {
        Ok(key) if key.expose().len() >= SHORTEST_KEY => Some(key),
        Ok(_) => {
            report.fault(
                source
                    .location
                    .fault("the key has fewer than 16 bytes", REMEDY),
            );
            None
        }
        Err(error) => {
            report.fault(source.location.fault(error.to_string(), REMEDY));
            None
        }
    }
}
