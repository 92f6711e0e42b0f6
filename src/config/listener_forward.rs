//! `mode = "forward"` of `[listener.NAME]`: a forward proxy for the instances.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value as Json;

use super::context::LoadContext;
use super::fault::{Location, Spanned};
use super::names::Names;
use super::nearest::listed;
use super::settings::Client;
use super::value::Value;
use super::{authority, instance, tables};
use crate::clock::SystemClock;
use crate::local_authority::Authority;
use crate::proxy::config::{Forward, Others, Tls};
use crate::upstream::Instance;

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

impl<'a> Targets<'a> {
    /// The instances of `clients`.
    pub(super) fn instances_of<'c>(
        self,
        clients: impl Iterator<Item = &'c Arc<str>>,
    ) -> impl Iterator<Item = &'a Instance> {
        clients.filter_map(move |client| {
            let instance = &self.parsed.get(client)?.instance;
            Some(&*self.instances.get(instance)?.instance)
        })
    }
}

/// Reports the keys that only a forward listener has, at another one.
pub(super) fn refuse(raw: &tables::Listener, context: &LoadContext<'_>) {
    let others = raw.others.as_ref().map(|spanned| &spanned.location);
    let remote = raw.allow_remote.as_ref().map(|spanned| &spanned.location);
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
    if let Some(spanned) = &raw.hosts {
        context.fault(spanned.location.fault(
            "a forward listener accepts the instances' hosts",
            "remove it",
        ));
    }
    if let Some(spanned) = &raw.address
        && let Some(mode) = &raw.mode
        && spanned.value.tcp().is_none()
    {
        context.fault(mode.location.fault(
            "programs find a forward proxy by host and port, not by a unix socket",
            "write an address like \"127.0.0.1:9900\"",
        ));
    }
}

/// Parses what a forward listener serves. `client` is its client, if given; `is_local` says that
/// only this machine can connect, and `has_tls` that it speaks TLS itself.
pub(super) fn parse(
    raw: &tables::Listener,
    client: Option<&Arc<str>>,
    is_local: bool,
    has_tls: bool,
    targets: Targets<'_>,
    context: &LoadContext<'_>,
) -> Option<Forward> {
    let table = &raw.location;
    let others = raw.others.as_ref();
    let others = others.map_or(Others::Refuse, |spanned| spanned.value);
    raw.show_as("others", others.show(context));
    // these are the instances'
    raw.show_as("hosts", Json::Null);
    if !is_local {
        check_remote(raw, others, has_tls, targets, context);
    }
    let clients = clients(client, table, targets, context)?;
    for instance in targets.instances_of(clients.iter()) {
        if instance.tls && authority::hosts([instance]).is_empty() {
            context.warning(table.child("mode").fault(
                format!("[instance.{}] has an IP address as its host, which the local authority does not certify: programs cannot call it by https:// through this listener", instance.name.escape_debug()),
                "write the instance's DNS name in its url, and the address in its `address`",
            ));
        }
    }
    let mut tls = BTreeMap::new();
    if let Some(authority) = targets.authority {
        let hosts = authority::hosts(targets.instances_of(clients.iter()));
        for host in hosts.into_iter().filter(|host| authority.covers(host)) {
            let made = Tls::local(authority, vec![host.clone()], Arc::new(SystemClock));
            tls.extend(
                context
                    .sound(made, table, "use another build")
                    .map(|made| (host, made)),
            );
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
    raw: &tables::Listener,
    others: Others,
    has_tls: bool,
    targets: Targets<'_>,
    context: &LoadContext<'_>,
) {
    let Some(Spanned { location, .. }) = &raw.address else {
        return;
    };
    let is_allowed = raw
        .allow_remote
        .as_ref()
        .is_some_and(|spanned| spanned.value);
    if !is_allowed {
        context.fault(location.fault(
            "a forward proxy is meant for the programs of this machine, and this one is open beyond it",
            "listen on 127.0.0.1, or write `allow_remote = true` if that is meant",
        ));
    }
    if others == Others::Tunnel && targets.apps.names.is_empty() {
        context.fault(location.fault(
            "with `others = \"tunnel\"` anyone who can reach this port can leave this network through it",
            "add [app.NAME] so that callers must authenticate, or write `others = \"refuse\"`",
        ));
    }
    if is_allowed && !has_tls && !targets.apps.names.is_empty() {
        context.warning(location.fault(
            "the apps' keys travel to this listener unencrypted",
            "give it a certificate (`tls`), and programs an https:// proxy address",
        ));
    }
}

/// The client for the calls of each instance that has one: `given`, or the only one there is.
/// `given`, or else the first in the order of names, comes first.
fn clients(
    given: Option<&Arc<str>>,
    table: &Location,
    targets: Targets<'_>,
    context: &LoadContext<'_>,
) -> Option<Vec<Arc<str>>> {
    let mut by_instance: BTreeMap<&Arc<str>, Vec<&Arc<str>>> = BTreeMap::new();
    for (name, client) in targets.parsed {
        by_instance.entry(&client.instance).or_default().push(name);
    }
    let mut chosen: Vec<Arc<str>> = given.into_iter().cloned().collect();
    let of_given = given.and_then(|given| Some(&targets.parsed.get(given)?.instance));
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
