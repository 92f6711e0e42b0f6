//! `[client.NAME]`: one registered application.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::context::LoadContext;
use super::declare::{above_zero, settle};
use super::names::Names;
use super::settings::Client;
use super::value::Value;
use super::{credentials, instance, tables};
use crate::oauth;
use crate::token::{budget, schedule};

const TOKEN_TIMEOUT: Duration = Duration::from_secs(10);

/// Parses a client. `names` are the names of all instances, `instances` the valid ones.
pub(super) fn parse(
    raw: &tables::Client,
    names: &Names,
    instances: &BTreeMap<Arc<str>, instance::Parsed>,
    context: &LoadContext<'_>,
) -> Option<Client> {
    let instance = names.find(&raw.instance, raw, context);
    let (credentials, client_id, client_secret) = credentials::of_client(raw, context);
    let pool = budget::Config {
        capacity: raw.pool.capacity(context),
        refill: raw.pool.refill(context),
    };
    // the mirrored pool is not refilled during a request, so the request must end long before the
    // next refill
    let default = TOKEN_TIMEOUT.min(pool.refill / 6);
    let timeout = settle(&raw.token_timeout, default, above_zero, context);
    let schedule = schedule::Config {
        refresh_at: raw.refresh_at(context),
        refresh_jitter: raw.refresh_jitter(context),
        pool,
    };
    let scope = raw.scope(context).trim().to_owned();

    let parsed = instances.get(&instance?)?;
    raw.show_as("instance", &*parsed.instance.name);
    raw.show_as("scope", &*scope);
    raw.show_as("token_timeout", timeout.show(context));
    Some(Client {
        name: raw.name.clone(),
        instance: parsed.instance.name.clone(),
        credentials,
        oauth: oauth::Config {
            token_url: parsed.token_url.clone(),
            client_id: client_id?,
            client_secret: client_secret?,
            auth_method: raw.auth_method(context),
            scope: (!scope.is_empty()).then_some(scope),
            timeout,
            connect_timeout: parsed.instance.connect_timeout,
            ca_file: parsed.instance.ca_file.clone(),
            identity: parsed.instance.identity.clone(),
            proxy: parsed.token_proxy.clone(),
            address: parsed.instance.address.clone(),
        },
        schedule,
        is_pool_assumed: raw.pool.capacity.is_none() || raw.pool.refill.is_none(),
        wait_for_token: raw.wait_for_token(context),
    })
}
