//! `tls` of `[listener.NAME]`: its certificate, and the authorities of client certificates.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::context::LoadContext;
use super::credentials::{CERT_REMEDY, KEY_REMEDY, ca_file, identity, warn_of_expiry};
use super::fault::Spanned;
use super::tables;
use crate::clock::{Clock, SystemClock};
use crate::local_authority::Authority;
use crate::proxy::config::Tls;
use crate::tls;

/// A certificate that expires sooner than this causes a warning.
const SOON: Duration = Duration::from_secs(14 * 24 * 3600);

const CLIENT_CA_REMEDY: &str = "name a PEM file with the authority of callers' certificates";

/// Parses a listener's TLS settings.
pub(super) fn parse(raw: &tables::Tls, context: &LoadContext<'_>) -> Option<Tls> {
    let demand = |key, field, remedy| raw.demand(key, field, "it is missing", remedy, context);
    let cert = demand("cert_file", &raw.cert_file, CERT_REMEDY);
    let key = demand("key_file", &raw.key_file, KEY_REMEDY);
    let client_ca = raw.client_ca_file.as_ref();
    let client_ca = client_ca.and_then(|file| ca_file(file, CLIENT_CA_REMEDY, context));
    let (cert, key) = (cert?, key?);
    let identity = identity(cert, key, context)?;
    let begins = identity.certificates().first().and_then(tls::begins);
    if begins.is_some_and(|begins| begins > SystemClock.wall()) {
        context.warning(cert.location.fault(
            "the certificate is not valid yet: callers that verify it refuse it",
            "check this machine's clock, or wait until the certificate is valid",
        ));
    }
    let text = [
        "the certificate",
        "callers that verify it refuse it",
        "renew it; the files are read again once they change",
    ];
    warn_of_expiry(identity.expires(), SOON, text, &cert.location, context);
    // the pair is known to match, so only the authority can be at fault
    let made = Tls::new(identity, client_ca);
    context.sound(made, &raw.at("client_ca_file"), CLIENT_CA_REMEDY)
}

/// TLS with certificates of the local `authority` for `hosts`, as `word` says. Without an authority
/// that covers one of them there is none to show, and every handshake fails.
pub(super) fn local(
    word: &Spanned<String>,
    is_forward: bool,
    hosts: BTreeSet<String>,
    authority: Option<&Authority>,
    context: &LoadContext<'_>,
) -> Option<Tls> {
    if word.value != "local" {
        context.fault(word.location.fault(
            "this is not known",
            "write \"local\", or a table like { cert_file = \"…\", key_file = \"…\" }",
        ));
        return None;
    }
    if is_forward {
        context.fault(word.location.fault(
            "the local authority certifies the instances' hosts, and programs call a forward proxy by its own name",
            "remove it: the TLS inside tunnels needs no key; or name a certificate of this machine's name",
        ));
        return None;
    }
    if hosts.is_empty() {
        context.fault(word.location.fault(
            "no instance of this listener is called by https:// and a DNS name, which the local authority could certify",
            "name a certificate, or write the instance's DNS name in its url",
        ));
        return None;
    }
    let mut covered = hosts;
    covered.retain(|host| authority.is_some_and(|authority| authority.covers(host)));
    let made = match authority.filter(|_| !covered.is_empty()) {
        Some(authority) => {
            let hosts = covered.into_iter().collect();
            Tls::local(authority, hosts, Arc::new(SystemClock))
        }
        None => Tls::without_certificate(),
    };
    context.sound(made, &word.location, "use another build")
}
