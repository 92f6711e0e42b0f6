//! `[client.NAME]`: one registered application.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::fault::Report;
use super::instance;
use super::location::{Field, Spanned};
use super::names::Names;
use super::parse::{LoadContext, reference};
use super::{Client, credentials, raw};
use crate::oauth::{self, AuthMethod};
use crate::token::{budget, schedule};

const TOKEN_TIMEOUT: Duration = Duration::from_secs(10);
const WAIT_FOR_TOKEN: Duration = Duration::from_secs(10);
/// Collibra's pool: 5 tokens, refilled by one per minute.
const POOL: budget::Config = budget::Config {
    capacity: 5,
    refill: Duration::from_secs(60),
};

/// Parses a client. `names` are the names of all instances, `instances` the valid ones.
pub(super) fn parse(
    raw: raw::Client,
    names: &Names,
    instances: &BTreeMap<Arc<str>, instance::Parsed>,
    context: &LoadContext<'_>,
    report: &mut Report,
) -> Option<Client> {
    let instance = reference(raw.instance, &raw.location, "instance", names, report);
    let kept = credentials::location(&raw.id, &raw.secret, context);
    let client_id = credentials::id(raw.id, &raw.location, context, report);
    let client_secret = credentials::secret(raw.secret, &raw.location, context, report);
    let auth_method = match raw.auth_method.given() {
        Some(spanned) => auth_method(&spanned, report),
        None => AuthMethod::default(),
    };
    let is_pool_assumed =
        matches!(raw.pool_capacity, Field::Absent) || matches!(raw.pool_refill, Field::Absent);
    let pool = budget::Config {
        capacity: raw.pool_capacity.sound_or(
            POOL.capacity,
            |&capacity| capacity >= 1,
            "a pool of no tokens gives none",
            "write 1 or more; Collibra's pool has 5",
            report,
        ),
        refill: raw.pool_refill.above_zero_or(POOL.refill, report),
    };
    // the mirrored pool is not refilled during a request, so the request must end long before the
    // next refill
    let token_timeout = raw
        .token_timeout
        .above_zero_or(TOKEN_TIMEOUT.min(pool.refill / 6), report);
    let schedule = schedule::Config {
        refresh_at: raw.refresh_at.sound_or(
            0.5,
            |&share| share > 0.0 && share < 1.0,
            "it is not between 0 and 1",
            "write the share of a token's life after which it is renewed, like 0.5",
            report,
        ),
        refresh_jitter: raw.refresh_jitter.sound_or(
            0.05,
            |share| (0.0..=1.0).contains(share),
            "it is not between 0 and 1",
            "write the share by which a renewal is brought forward at most, like 0.05",
            report,
        ),
        pool,
    };
    let wait_for_token = raw.wait_for_token.or(WAIT_FOR_TOKEN);
    let scope = raw.scope.or(String::new());

    let parsed = instances.get(&instance?)?;
    Some(Client {
        name: raw.name,
        instance: parsed.instance.name.clone(),
        credentials: kept,
        oauth: oauth::Config {
            token_url: parsed.token_url.clone(),
            client_id: client_id?,
            client_secret: client_secret?,
            auth_method,
            scope: (!scope.trim().is_empty()).then(|| scope.trim().to_owned()),
            timeout: token_timeout,
            connect_timeout: parsed.instance.connect_timeout,
            ca_file: parsed.instance.ca_file.clone(),
            identity: parsed.instance.identity.clone(),
            proxy: parsed.token_proxy.clone(),
            address: parsed.instance.address.clone(),
        },
        schedule,
        is_pool_assumed,
        wait_for_token,
    })
}

fn auth_method(spanned: &Spanned<String>, report: &mut Report) -> AuthMethod {
    match spanned.value.as_str() {
        "client_secret_basic" => AuthMethod::ClientSecretBasic,
        "client_secret_post" => AuthMethod::ClientSecretPost,
        _ => {
            report.fault(spanned.location.fault(
                "there is no such method",
                "write \"client_secret_basic\" or \"client_secret_post\"",
            ));
            AuthMethod::default()
        }
    }
}
