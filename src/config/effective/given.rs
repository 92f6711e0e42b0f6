//! The sources of files, variables and secrets, which the validated configuration does not keep.

use std::fmt;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::REDACTED;
use crate::config::fault::Origin;
use crate::config::location::{Field, Location, Spanned};
use crate::config::parse::LoadContext;
use crate::config::raw::{ListenerTls, Raw, Source, Sources};
use crate::outgoing::tunnel::Proxy;
use crate::secret::Secret;

/// The keys that name files, variables and secrets, by their paths.
#[derive(Clone, Default)]
pub(in crate::config) struct Given(Vec<(Vec<String>, Value)>);

/// The sources are ignored when configurations are compared.
impl fmt::Debug for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Given")
    }
}

impl Given {
    /// Returns the sources in `raw`.
    pub(in crate::config) fn of(raw: &Raw, context: &LoadContext<'_>) -> Given {
        let mut given = Collector {
            context,
            found: Vec::new(),
        };
        for instance in &raw.instances {
            let mut table = given.table(&["instance", &instance.name]);
            table.file("ca_file", &instance.ca_file);
            table.file("client_cert_file", &instance.client_cert_file);
            table.file("client_key_file", &instance.client_key_file);
            table.file("proxy_credentials_file", &instance.proxy_credentials_file);
            table.proxy("proxy", &instance.proxy);
            table.proxy("token_proxy", &instance.token_proxy);
        }
        for client in &raw.clients {
            let mut table = given.table(&["client", &client.name]);
            table.source("client_id", &client.id, false);
            table.source("client_secret", &client.secret, true);
        }
        for listener in &raw.listeners {
            let mut table = given.table(&["listener", &listener.name]);
            table.value("allow_unauthenticated", &listener.allow_unauthenticated);
            if let Field::Given(_) = &listener.allow_remote {
                table.value("allow_remote", &listener.allow_remote);
            }
            if let Some(ListenerTls::Word(word)) = &listener.tls {
                table.put("tls", json!(word.value));
            }
            if let Some(ListenerTls::Files(tls)) = &listener.tls {
                let mut table = given.table(&["listener", &listener.name, "tls"]);
                table.file("cert_file", &tls.cert_file);
                table.file("key_file", &tls.key_file);
                table.file("client_ca_file", &tls.client_ca_file);
            }
        }
        for app in &raw.apps {
            given
                .table(&["app", &app.name])
                .source("key", &app.key, true);
        }
        given.table(&["ca"]).file("dir", &raw.ca_dir);
        let mut store = given.table(&["store"]);
        store.file("password_file", &raw.store.password_file);
        store.file("ca_file", &raw.store.ca_file);
        store.file("kubeconfig", &raw.store.kubeconfig);
        if let Field::Given(spanned) = &raw.store.url {
            store.put("url", json!(without_password(spanned.value.expose())));
        }
        Given(given.found)
    }

    /// Adds the sources to the tree of the configuration.
    pub(super) fn add_to(&self, root: &mut Value) {
        for (path, value) in &self.0 {
            let at = path.iter().fold(&mut *root, |table, key| &mut table[key]);
            *at = value.clone();
        }
    }
}

struct Collector<'a> {
    context: &'a LoadContext<'a>,
    found: Vec<(Vec<String>, Value)>,
}

struct Table<'a, 'c> {
    collector: &'c mut Collector<'a>,
    path: Vec<String>,
}

impl<'a> Collector<'a> {
    fn table(&mut self, path: &[&str]) -> Table<'a, '_> {
        let path = path.iter().map(|key| (*key).to_owned()).collect();
        Table {
            collector: self,
            path,
        }
    }
}

impl Table<'_, '_> {
    fn put(&mut self, key: &str, value: Value) {
        let mut path = self.path.clone();
        path.push(key.to_owned());
        self.collector.found.push((path, value));
    }

    fn value(&mut self, key: &str, field: &Field<bool>) {
        let value = matches!(field, Field::Given(spanned) if spanned.value);
        self.put(key, json!(value));
    }

    fn file(&mut self, key: &str, field: &Field<PathBuf>) {
        if let Field::Given(spanned) = field {
            let path = self.collector.context.path(&spanned.value);
            self.put(key, json!(path.display().to_string()));
        }
    }

    /// Adds a forward proxy, unless its URL contains credentials.
    fn proxy(&mut self, key: &str, field: &Field<Secret>) {
        let Field::Given(Spanned { value, .. }) = field else {
            return;
        };
        if let Ok(proxy) = Proxy::parse(value.expose())
            && !proxy.has_credentials()
        {
            self.put(key, json!(format!("http://{proxy}")));
        }
    }

    /// Adds the source of an id, a secret or a key.
    fn source(&mut self, key: &str, sources: &Sources, is_secret: bool) {
        let [Spanned { value, location }] = &sources.given[..] else {
            return;
        };
        let path = |path: &PathBuf| json!(self.collector.context.path(path).display().to_string());
        match (value, variable(location)) {
            (Source::File(file), _) => self.put(&format!("{key}_file"), path(file)),
            (Source::Json(file), _) => self.put("credentials_file", path(file)),
            (Source::Variable(name), _) => self.put(&format!("{key}_env"), json!(name)),
            (Source::Inline(_), Some(name)) => self.put(&format!("{key}_env"), json!(name)),
            (Source::Inline(_), None) if is_secret => self.put(key, json!(REDACTED)),
            (Source::Inline(id), None) => self.put(key, json!(id.expose())),
        }
    }
}

/// The variable at `location`, if a value comes from the environment.
fn variable(location: &Location) -> Option<&str> {
    (location.origin == Origin::Environment).then_some(&location.key)
}

/// Returns a server's URL without its password.
fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return REDACTED.to_owned();
    };
    let (authority, path) = match rest.find('/') {
        Some(at) => rest.split_at(at),
        None => (rest, ""),
    };
    match authority.rsplit_once('@') {
        Some((login, hosts)) => {
            let login = match login.split_once(':') {
                Some((user, _password)) => format!("{user}:{REDACTED}"),
                None => login.to_owned(),
            };
            format!("{scheme}://{login}@{hosts}{path}")
        }
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_left_out_of_a_url() {
        for (url, shown) in [
            ("redis://r:6379/1", "redis://r:6379/1"),
            ("rediss://me@r:6379", "rediss://me@r:6379"),
            (
                "rediss://me:p:w@r:6379/0",
                "rediss://me:<redacted>@r:6379/0",
            ),
            ("redis://:pw@r", "redis://:<redacted>@r"),
            (
                "redis+sentinel://u:p@q@a:1,b/primary",
                "redis+sentinel://u:<redacted>@a:1,b/primary",
            ),
            (
                "unix:///run/r.sock?user=me&db=1",
                "unix:///run/r.sock?user=me&db=1",
            ),
            ("pw", "<redacted>"),
        ] {
            assert_eq!(without_password(url), shown);
        }
    }
}
