//! `tls` of `[listener.NAME]`: its certificate, and the authorities of client certificates.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::context::LoadContext;
use super::location::{Field, Location, Spanned};
use super::{credentials::ca_file, tables};
use crate::clock::{Clock, SystemClock};
use crate::downstream::tls::{Error as TlsError, Tls};
use crate::local_authority::Authority;
use crate::tls::{self, CaFile};

/// A certificate that expires sooner than this causes a warning.
const SOON: Duration = Duration::from_secs(14 * 24 * 3600);

const CERT_REMEDY: &str =
    "name a PEM file with the certificate and, below it, those that lead to its authority";
const CLIENT_CA_REMEDY: &str = "name a PEM file with the authority of callers' certificates";
const KEY_REMEDY: &str = "name the PEM file with the certificate's private key";

const UNUSABLE_KEY: &str = "the key cannot be used: it is damaged, or none of RSA, ECDSA and EdDSA";

/// Parses a listener's TLS settings.
pub(super) fn parse(raw: &tables::Tls, context: &LoadContext<'_>) -> Option<Tls> {
    let demand = |field, key, remedy| demand(field, raw.at(key), remedy, context);
    let cert = demand(&raw.cert_file, "cert_file", CERT_REMEDY);
    let key = demand(&raw.key_file, "key_file", KEY_REMEDY);
    let client_ca = match &raw.client_ca_file {
        Field::Absent => Some(None),
        Field::Faulty => None,
        Field::Given(spanned) => ca_file(spanned, CLIENT_CA_REMEDY, context).map(Some),
    };
    let (cert, key, client_ca) = (cert?, key?, client_ca?);
    let cert_file = context.readable(cert, CERT_REMEDY);
    let key_file = context.readable(key, KEY_REMEDY);
    let (cert_file, key_file) = (cert_file?, key_file?);
    let tls = match Tls::read(&cert_file, &key_file, client_ca) {
        Ok(tls) => tls,
        Err(error) => {
            let mut problem = error.to_string();
            let (location, remedy) = match error {
                // the library has only this error for an unusable key
                TlsError::Unusable(rustls::Error::General(_)) => {
                    problem = UNUSABLE_KEY.to_owned();
                    (&key.location, KEY_REMEDY)
                }
                TlsError::Certificate(_) | TlsError::Unusable(_) => (&cert.location, CERT_REMEDY),
                TlsError::ClientAuthority => (&raw.at("client_ca_file"), CLIENT_CA_REMEDY),
                TlsError::KeyUnreadable(_) | TlsError::NoKey | TlsError::Mismatch => {
                    (&key.location, KEY_REMEDY)
                }
            };
            context.fault(location.fault(problem, context.file_remedy(remedy)));
            return None;
        }
    };
    if is_too_early(&cert_file) {
        context.warning(cert.location.fault(
            "the certificate is not valid yet: callers that verify it refuse it",
            "check this machine's clock, or wait until the certificate is valid",
        ));
    }
    let expires = tls.expires()?;
    match expires.duration_since(SystemClock.wall()) {
        Err(_) => context.warning(cert.location.fault(
            "the certificate has expired: callers that verify it refuse it",
            "renew it; the files are read again once they change",
        )),
        Ok(left) if left < SOON => context.warning(cert.location.fault(
            format!(
                "the certificate expires in {} days",
                left.as_secs() / 86_400
            ),
            "renew it; the files are read again once they change",
        )),
        Ok(_) => {}
    }
    Some(tls)
}

/// TLS with certificates of the local `authority` for `hosts`, as `word` says. Without an authority
/// that covers one of them there is none to show, and every handshake fails.
pub(super) fn local(
    word: &Spanned<String>,
    is_forward: bool,
    hosts: Vec<String>,
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
    let covered = |authority: &&Authority| hosts.iter().any(|host| authority.covers(host));
    let made = match authority.filter(covered) {
        Some(authority) => {
            let hosts = hosts.iter().filter(|host| authority.covers(host));
            Tls::local(authority, hosts.cloned().collect(), Arc::new(SystemClock))
        }
        None => Tls::without_certificate(),
    };
    context.sound(made.map_err(|error| word.location.fault(error.to_string(), "use another build")))
}

/// Returns whether the first certificate at `path` is not yet valid.
fn is_too_early(path: &Path) -> bool {
    let chain = CaFile::read(path);
    let begins = chain
        .iter()
        .find_map(|chain| tls::begins(chain.certificates().first()?));
    let now = jiff::Timestamp::try_from(SystemClock.wall()).ok();
    begins
        .zip(now)
        .is_some_and(|(begins, now)| begins > now.as_second())
}

/// Returns a file name that is required at `location`.
fn demand<'a>(
    field: &'a Field<PathBuf>,
    location: Location,
    remedy: &str,
    context: &LoadContext<'_>,
) -> Option<&'a Spanned<PathBuf>> {
    if field.is_absent() {
        context.fault(location.fault("it is missing", remedy));
    }
    field.given()
}
