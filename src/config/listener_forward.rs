//! `mode = "forward"` of `[listener.NAME]`: a forward proxy for the instances.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::fault::Report;
use super::listener::Targets;
use super::location::{Field, Location};
use super::nearest::listed;
use super::{authority, raw};
use crate::clock::SystemClock;
use crate::proxy::config::{Forward, Others, Tls};

/// The keys that only a forward listener has.
#[derive(Debug)]
pub(super) struct Keys {
    pub(super) others: Field<String>,
    pub(super) allow_remote: Field<bool>,
}

/// What is known of a forward listener besides its keys.
#[derive(Debug)]
pub(super) struct Known {
    /// The listener's `client`, if given.
    pub(super) client: Option<Arc<str>>,
    /// Where it listens: whether only this machine can connect, and the key.
    pub(super) address: Option<(bool, Location)>,
    /// Whether it speaks TLS itself.
    pub(super) has_tls: bool,
}

/// Takes `mode` if it says how the listener serves. Returns its location if that is as a forward
/// proxy.
pub(super) fn take_mode(mode: &mut Field<String>) -> Option<Location> {
    let Field::Given(spanned) = &*mode else {
        return None;
    };
    let location = spanned.location.clone();
    let is_forward = match spanned.value.as_str() {
        "forward" => true,
        "reverse" => false,
        _ => return None,
    };
    *mode = Field::Absent;
    is_forward.then_some(location)
}

/// Reports the keys that only a forward listener has, at another one.
pub(super) fn refuse(keys: Keys, report: &mut Report) {
    let others = keys.others.given().map(|spanned| spanned.location);
    let remote = keys.allow_remote.given().map(|spanned| spanned.location);
    for location in others.into_iter().chain(remote) {
        report.fault(location.fault(
            "only a forward listener has this",
            "remove it, or write `mode = \"forward\"`",
        ));
    }
}

/// Reports keys that a forward listener, whose mode is at `mode`, cannot have.
pub(super) fn check(raw: &raw::Listener, mode: &Location, report: &mut Report) {
    if !raw.routes.is_empty() {
        report.fault(raw.location.child("route").fault(
            "a forward listener chooses the client by the host that is called",
            "remove it, or listen on another port for these paths",
        ));
    }
    if let Field::Given(spanned) = &raw.hosts {
        report.fault(spanned.location.fault(
            "a forward listener accepts the instances' hosts",
            "remove it",
        ));
    }
    if let Field::Given(spanned) = &raw.address
        && spanned.value.tcp().is_none()
    {
        report.fault(mode.fault(
            "programs find a forward proxy by host and port, not by a unix socket",
            "write an address like \"127.0.0.1:9900\"",
        ));
    }
}

/// Parses what a forward listener serves.
pub(super) fn parse(
    keys: Keys,
    known: Known,
    table: &Location,
    targets: Targets<'_>,
    report: &mut Report,
) -> Option<Forward> {
    let others = match keys.others.given() {
        None => Others::Refuse,
        Some(spanned) => match spanned.value.as_str() {
            "refuse" => Others::Refuse,
            "tunnel" => Others::Tunnel,
            _ => {
                report.fault(
                    spanned
                        .location
                        .fault("this is not known", "write \"refuse\" or \"tunnel\""),
                );
                return None;
            }
        },
    };
    if let Some((false, location)) = &known.address {
        check_remote(
            keys.allow_remote.or(false),
            others,
            known.has_tls,
            location,
            targets,
            report,
        );
    }
    let clients = clients(known.client, table, targets, report)?;
    let instances = clients.iter().filter_map(|client| {
        let instance = &targets.parsed.get(client)?.instance;
        Some(&*targets.instances.get(instance)?.instance)
    });
    let instances: Vec<_> = instances.collect();
    for instance in &instances {
        if instance.tls && authority::hosts([*instance].into_iter()).next().is_none() {
            report.warning(table.child("mode").fault(
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
                Err(error) => report.fault(table.fault(error.to_string(), "use another build")),
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
    report: &mut Report,
) {
    if !is_allowed {
        report.fault(location.fault(
            "a forward proxy is meant for the programs of this machine, and this one is open beyond it",
            "listen on 127.0.0.1, or write `allow_remote = true` if that is meant",
        ));
    }
    if others == Others::Tunnel && targets.apps.all().is_empty() {
        report.fault(location.fault(
            "with `others = \"tunnel\"` anyone who can reach this port can leave this network through it",
            "add [app.NAME] so that callers must say who they are, or write `others = \"refuse\"`",
        ));
    }
    if is_allowed && !has_tls && !targets.apps.all().is_empty() {
        report.warning(location.fault(
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
    report: &mut Report,
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
            _ => report.fault(table.child("client").fault(
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
