//! `[ca]`: where the local authority is, and whether it serves the listeners that use it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::context::{LoadContext, directory};
use super::fault::Location;
use super::settings::Ca;
use super::{credentials, instance, tables};
use crate::local_authority::{Authority, Files};
use crate::upstream::Instance;

/// An authority that expires sooner than this causes a warning: it takes a while until every
/// program trusts the next one.
const SOON: Duration = Duration::from_secs(30 * 24 * 3600);

/// Reads the authority if `is_used`.
pub(super) fn parse(
    raw: &tables::Ca,
    is_used: bool,
    instances: &BTreeMap<Arc<str>, instance::Parsed>,
    context: &LoadContext<'_>,
) -> Ca {
    let (dir, location) = match &raw.dir {
        Some(spanned) => (&*spanned.value, &spanned.location),
        None => (Path::new(""), &raw.location),
    };
    let files = Files::beside(&context.path(dir));
    let authority = is_used.then(|| read(&files, location, context)).flatten();
    if let Some(authority) = &authority {
        let instances = instances.values().map(|parsed| &*parsed.instance);
        let mut hosts = hosts(instances);
        hosts.retain(|host| !authority.covers(host));
        for host in hosts {
            context.warning(location.fault(
                format!("the local authority does not cover {host}, so programs cannot call it by https:// through this proxy"),
                "run `collibra-auth-proxy ca renew` with this configuration",
            ));
        }
    }
    Ca { files, authority }
}

fn read(files: &Files, location: &Location, context: &LoadContext<'_>) -> Option<Authority> {
    let mut is_there = true;
    for path in [&files.certificate, &files.key] {
        let noted = context.note(path);
        let noted = noted.map_err(|unfit| format!("{}: {unfit}", path.display()));
        context.sound(
            noted,
            location,
            "run `collibra-auth-proxy ca init` elsewhere",
        )?;
        is_there &= path.symlink_metadata().is_ok();
    }
    if !is_there {
        let place = directory(files.certificate.parent().unwrap_or(Path::new("")));
        context.warning(location.fault(
            format!("there is no local authority in {place}, so programs cannot call https:// through this proxy"),
            "run `collibra-auth-proxy ca init` with this configuration",
        ));
        return None;
    }
    credentials::warn_if_readable_by_all(&files.key, location, context);
    let authority = Authority::read(files).map_err(|error| {
        let path = match error.is_of_key() {
            true => &files.key,
            false => &files.certificate,
        };
        format!("{}: {error}", path.display())
    });
    let remedy = "let the user that runs the proxy own both files; or delete them and run `collibra-auth-proxy ca init`";
    let authority = context.sound(authority, location, remedy)?;
    let text = [
        "the local authority",
        "programs refuse its certificates",
        "run `collibra-auth-proxy ca renew` with this configuration, and let programs trust the new certificate",
    ];
    credentials::warn_of_expiry(Some(authority.expires()), SOON, text, location, context);
    Some(authority)
}

/// The hosts of these instances that an authority can certify, in order: DNS names that are called
/// by https.
pub(super) fn hosts<'a>(instances: impl IntoIterator<Item = &'a Instance>) -> BTreeSet<String> {
    let instances = instances.into_iter();
    let certified = instances.filter(|i| i.tls && i.host.parse::<IpAddr>().is_err());
    certified.map(|instance| instance.host.clone()).collect()
}
