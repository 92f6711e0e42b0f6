//! `mode = "forward"` of `[listener.NAME]`: a forward proxy for the instances.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value as Json;
use toml::de::DeValue;

use super::context::LoadContext;
use super::location::{Field, Location};
use super::names::Names;
use super::nearest::listed;
use super::settings::Client;
use super::value::{Value, Wrong, named, word};
use super::{authority, instance, tables};
use crate::clock::SystemClock;
use crate::downstream::tls::Tls;
use crate::local_authority::Authority;
use crate::proxy::config::{Forward, Others};

/// What a listener may refer to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Targets<'a> {
    /// The names of all clients.
    pub(super) clients: &'a Names,
    /// The names of all apps.
    pub(super) apps: &'a Names,
    /// The clients that were parsed.
    pub(super) parsed: &'a BTreeMap<Arc<str>, Client>,
    /// The instances that were parsed.
    pub(super) instances: &'a BTreeMap<Arc<str>, instance::Parsed>,
    /// The local authority, if there is one.
    pub(super) authority: Option<&'a Authority>,
}

/// What is known of a forward listener besides its keys.
#[derive(Debug)]
pub(super) struct Known {
    /// The listener's `client`, if given.
    pub(super) client: Option<Arc<str>>,
    /// Whether only this machine can connect.
    pub(super) is_local: bool,
    /// Whether it speaks TLS itself.
    pub(super) has_tls: bool,
}

/// Reports the keys that only a forward listener has, at another one.
pub(super) fn refuse(raw: &tables::Listener, context: &LoadContext<'_>) {
    let others = raw.others.given().map(|spanned| &spanned.location);
    let remote = raw.allow_remote.given().map(|spanned| &spanned.location);
    for location in others.into_iter().chain(remote) {
        context.fault(location.fault(
            "only a forward listener has this",
            "remove it, or write `mode = \"forward\"`",
        ));
    }
}

/// Reports keys that a forward listener cannot have.
pub(super) fn check(raw: &tables::Listener, context: &LoadContext<'_>) {
    if !raw.route.is_empty() {
        context.fault(raw.at("route").fault(
            "a forward listener chooses the client by the host that is called",
            "remove it, or listen on another port for these paths",
        ));
    }
    if let Field::Given(spanned) = &raw.hosts {
        context.fault(spanned.location.fault(
            "a forward listener accepts the instances' hosts",
            "remove it",
        ));
    }
    if let Field::Given(spanned) = &raw.address
        && let Some(mode) = raw.mode.given()
        && spanned.value.tcp().is_none()
    {
        context.fault(mode.location.fault(
            "programs find a forward proxy by host and port, not by a unix socket",
            "write an address like \"127.0.0.1:9900\"",
        ));
    }
}

/// Parses what a forward listener serves.
pub(super) fn parse(
    raw: &tables::Listener,
    known: Known,
    targets: Targets<'_>,
    context: &LoadContext<'_>,
) -> Option<Forward> {
    let table = &raw.location;
    let others = match &raw.others {
        Field::Absent => Others::Refuse,
        others => others.given()?.value,
    };
    raw.show_as("others", others.show(context));
    // these are the instances'
    raw.show_as("hosts", Json::Null);
    if let (false, Some(address)) = (known.is_local, raw.address.given()) {
        let is_allowed = raw
            .allow_remote
            .given()
            .is_some_and(|spanned| spanned.value);
        let location = &address.location;
        check_remote(
            is_allowed,
            others,
            known.has_tls,
            location,
            targets,
            context,
        );
    }
    let clients = clients(known.client, table, targets, context)?;
    let instances = clients.iter().filter_map(|client| {
        let instance = &targets.parsed.get(client)?.instance;
        Some(&*targets.instances.get(instance)?.instance)
    });
    let instances: Vec<_> = instances.collect();
    for instance in &instances {
        if instance.tls && authority::hosts([*instance].into_iter()).next().is_none() {
            context.warning(table.child("mode").fault(
                format!("[instance.{}] has an IP address as its host, which the local authority does not certify: programs cannot call it by https:// through this listener", instance.name.escape_debug()),
                "write the instance's DNS name in its url, and the address in its `address`",
            ));
        }
    }
    let mut tls = BTreeMap::new();
    if let Some(authority) = targets.authority {
        let hosts = authority::hosts(instances.into_iter());
        for host in hosts.filter(|host| authority.covers(host)) {
            let one = vec![host.to_owned()];
            match Tls::local(authority, one, Arc::new(SystemClock)) {
                Ok(made) => drop(tls.insert(host.to_owned(), made)),
                Err(error) => context.fault(table.fault(error.to_string(), "use another build")),
            }
        }
    }
    Some(Forward {
        clients,
        tls,
        others,
    })
}

/// Checks a listener that other machines can reach.
fn check_remote(
    is_allowed: bool,
    others: Others,
    has_tls: bool,
    location: &Location,
    targets: Targets<'_>,
    context: &LoadContext<'_>,
) {
    if !is_allowed {
        context.fault(location.fault(
            "a forward proxy is meant for the programs of this machine, and this one is open beyond it",
            "listen on 127.0.0.1, or write `allow_remote = true` if that is meant",
        ));
    }
    if others == Others::Tunnel && targets.apps.all().is_empty() {
        context.fault(location.fault(
            "with `others = \"tunnel\"` anyone who can reach this port can leave this network through it",
            "add [app.NAME] so that callers must say who they are, or write `others = \"refuse\"`",
        ));
    }
    if is_allowed && !has_tls && !targets.apps.all().is_empty() {
        context.warning(location.fault(
            "the apps' keys travel to this listener unencrypted",
            "give it a certificate (`tls`), and programs an https:// proxy address",
        ));
    }
}

/// The client for the calls of each instance that has one: `given`, or the only one there is.
/// `given`, or else the first in the order of names, comes first.
fn clients(
    given: Option<Arc<str>>,
    table: &Location,
    targets: Targets<'_>,
    context: &LoadContext<'_>,
) -> Option<Vec<Arc<str>>> {
    let mut by_instance: BTreeMap<&Arc<str>, Vec<&Arc<str>>> = BTreeMap::new();
    for (name, client) in targets.parsed {
        by_instance.entry(&client.instance).or_default().push(name);
    }
    let mut chosen: Vec<Arc<str>> = given.iter().cloned().collect();
    let of_given = given.and_then(|given| Some(&targets.parsed.get(&given)?.instance));
    for (instance, clients) in by_instance {
        match &clients[..] {
            _ if of_given == Some(instance) => {}
            [only] => chosen.push(Arc::clone(only)),
            _ => context.fault(table.child("client").fault(
                format!(
                    "[instance.{}] has several clients, and this does not say which",
                    instance.escape_debug()
                ),
                format!(
                    "write one of {}",
                    listed(clients.iter().map(|name| name.as_ref()))
                ),
            )),
        }
    }
    (!chosen.is_empty()).then_some(chosen)
}

const OTHERS: [(&str, Others); 2] = [("refuse", Others::Refuse), ("tunnel", Others::Tunnel)];

impl Value for Others {
    fn read(value: &DeValue<'_>) -> Result<Others, Vec<Wrong>> {
        let remedy = "write \"refuse\" or \"tunnel\"";
        word(value, &OTHERS, "this is not known", remedy)
    }

    fn show(&self, _: &LoadContext<'_>) -> Json {
        named(self, &OTHERS)
    }
}
