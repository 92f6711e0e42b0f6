//! The configuration without a file: one instance, one client, one listener.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};

use super::context::LoadContext;
use super::declare::Declared;
use super::fault::{Field, Location, Spanned};
use super::tables::{self, Client, Instance, Listener, Tables};
use super::value;
use crate::oauth::AuthMethod;
use crate::secret::Secret;
use crate::socket::Address;

const URL: &str = "COLLIBRA_URL";
const CLIENT_ID: &str = "COLLIBRA_CLIENT_ID";
const CLIENT_SECRET: &str = "COLLIBRA_CLIENT_SECRET";
// set by the container image, where a published port does not lead to the loopback
const LISTEN: &str = "COLLIBRA_AUTH_PROXY_LISTEN";
// COLLIBRA_AUTH_PROXY_ADMIN says where the other commands find a running proxy
const LISTEN_ADMIN: &str = "COLLIBRA_AUTH_PROXY_LISTEN_ADMIN";
const ALLOW_UNAUTHENTICATED: &str = "COLLIBRA_AUTH_PROXY_ALLOW_UNAUTHENTICATED";

macro_rules! flags {
    ($(#[$about:meta])* $flags:ident {
        $($(#[$meta:meta])* $name:literal $key:ident: $type:ty $(=> [$($path:tt)+])?,)*
    }) => {
        $(#[$about])*
        pub struct $flags {
            $($(#[$meta])* #[arg(long = $name)] pub $key: $type,)*
        }

        impl $flags {
            /// The names of the flags that were given.
            #[must_use]
            pub fn given(&self) -> Vec<&'static str> {
                let none = $flags::default();
                let given = [$((concat!("--", $name), self.$key != none.$key),)*];
                let given = given.into_iter().filter(|(_, is_given)| *is_given);
                given.map(|(name, _)| name).collect()
            }

            /// Puts each value where its flag says.
            fn put(self, tables: &mut Tables) {
                $($(tables.$($path)+ = flag(concat!("--", $name), self.$key);)?)*
            }
        }
    };
}

flags! {
    /// What can be given on the command line in place of a file. The secret itself cannot: every
    /// user of a machine sees every command line.
    #[derive(Clone, Debug, Default, clap::Args)]
    #[command(next_help_heading = "Configuration without a file")]
    Flags {
        /// The Collibra instance's URL.
        #[arg(
            value_name = "URL",
            help = "The Collibra instance, like https://acme.collibra.com [env: COLLIBRA_URL]"
        )]
        "upstream" upstream: Option<String>,
        /// The registered application's id [env: COLLIBRA_CLIENT_ID]
        #[arg(value_name = "ID")]
        "client-id" client_id: Option<String>,
        /// A file that holds the id
        #[arg(value_name = "FILE")]
        "client-id-file" client_id_file: Option<PathBuf> => [client[0].client_id_file],
        /// A file that holds the secret [or the secret itself in env: COLLIBRA_CLIENT_SECRET]
        #[arg(value_name = "FILE")]
        "client-secret-file" client_secret_file: Option<PathBuf> => [client[0].client_secret_file],
        /// Where apps are served [default: 127.0.0.1:8080] [env: COLLIBRA_AUTH_PROXY_LISTEN]
        #[arg(value_name = "ADDRESS", value_parser = value::address)]
        "listen" listen: Option<Address>,
        /// Where health, metrics and status are served [default: 127.0.0.1:9902] [env:
        /// COLLIBRA_AUTH_PROXY_LISTEN_ADMIN]
        #[arg(value_name = "ADDRESS", value_parser = value::address)]
        "admin" admin: Option<Address>,
        /// How id and secret are sent [default: client_secret_basic]
        #[arg(value_name = "METHOD", value_parser = auth_method())]
        "auth-method" auth_method: Option<AuthMethod> => [client[0].auth_method],
        /// Certificates (PEM) to accept besides the system's
        #[arg(value_name = "FILE")]
        "ca-file" ca_file: Option<PathBuf> => [instance[0].ca_file],
        /// Accept http:// to another machine: secret and token travel unencrypted
        "allow-insecure" allow_insecure: bool,
        /// Values of `Host` to accept in place of the listener's own.
        #[arg(
            value_name = "HOST",
            help = "A value of Host to accept, in place of localhost, 127.0.0.1, [::1] and the address listened on; any port; repeatable"
        )]
        "host" hosts: Vec<String>,
        /// Listen beyond this machine without authentication: every program that reaches the port
        /// gets the token [env: COLLIBRA_AUTH_PROXY_ALLOW_UNAUTHENTICATED]
        "allow-unauthenticated" allow_unauthenticated: bool,
        /// How many tokens the issuer's pool holds [default: 5]
        #[arg(value_name = "N")]
        "pool-capacity" pool_capacity: Option<u32> => [client[0].pool.capacity],
        /// How long it takes for one more to come [default: 60s]
        #[arg(value_name = "DURATION", value_parser = value::duration)]
        "pool-refill" pool_refill: Option<Duration> => [client[0].pool.refill],
        /// The longest time for a token request [default: 10s, at most a sixth of --pool-refill]
        #[arg(value_name = "DURATION", value_parser = value::duration)]
        "token-timeout" token_timeout: Option<Duration> => [client[0].token_timeout],
        /// How long a request waits when there is no token [default: 10s]
        #[arg(value_name = "DURATION", value_parser = value::duration)]
        "wait-for-token" wait_for_token: Option<Duration> => [client[0].wait_for_token],
        /// A directory to keep tokens in, over restarts and for all processes of this machine
        #[arg(value_name = "DIR")]
        "store-path" store_path: Option<PathBuf> => [store.path],
        /// How long requests in flight may take to finish after SIGTERM [default: 20s]
        #[arg(value_name = "DURATION", value_parser = value::duration)]
        "drain" drain: Option<Duration> => [server.drain],
        /// Worker threads; 0: one per core [default: 0]
        #[arg(value_name = "N")]
        "threads" threads: Option<u32> => [server.threads],
    }
}

impl Flags {
    /// Converts the flags to the tables that an equivalent file would have. An empty variable
    /// counts as unset, and a flag overrides a variable. A variable that cannot be read is a fault.
    pub(super) fn into_tables(self, context: &LoadContext<'_>) -> Tables {
        let root = Location::flag("");
        let set = |name: &str| (context.env)(name).filter(|value| !value.is_empty());
        // the name of a variable that is set, unless a flag is given
        let variable = |name: &str, is_given: bool| {
            let named = (!is_given && set(name).is_some()).then(|| name.to_owned());
            at(Location::variable(name), named)
        };
        let address = |given: &Option<Address>, by_flag: &str, name: &str| match (given, set(name))
        {
            (None, Some(text)) => {
                let location = Location::variable(name);
                let problem = "this is no address to listen on";
                let report = |remedy| context.fault(location.fault(problem, remedy));
                let address = value::address(&text).map_err(report);
                at(location.clone(), address.ok())
            }
            (given, _) => flag(by_flag, given.clone()),
        };
        let allow = set(ALLOW_UNAUTHENTICATED).filter(|_| !self.allow_unauthenticated);
        let allow = allow.and_then(|text| {
            let allow = text
                .parse::<bool>()
                .map_err(|_| "it is neither true nor false");
            let location = Location::variable(ALLOW_UNAUTHENTICATED);
            context.sound(allow, &location, "write true, or unset it")
        });
        let is_allowed = self.allow_unauthenticated || allow == Some(true);
        let id = self.client_id.clone().map(Secret::from);
        let has_id = id.is_some() || self.client_id_file.is_some();
        let hosts = (!self.hosts.is_empty()).then(|| self.hosts.clone());
        let kind = self.store_path.as_ref().map(|_| "file".to_owned());
        let local = Listener::local(root.child("listen"), tables::LISTENER.into());
        let mut tables = Tables {
            instance: vec![Instance {
                url: match self.upstream.clone() {
                    None => at(Location::variable(URL), set(URL)),
                    url => flag("--upstream", url),
                },
                allow_insecure: flag("--allow-insecure", Some(self.allow_insecure)),
                ..Declared::absent("default", root.clone())
            }],
            client: vec![Client {
                client_id: flag("--client-id", id),
                client_id_env: variable(CLIENT_ID, has_id),
                client_secret_env: variable(CLIENT_SECRET, self.client_secret_file.is_some()),
                ..Declared::absent("default", root.clone())
            }],
            listener: vec![Listener {
                address: address(&self.listen, "--listen", LISTEN).or(local.address),
                hosts: flag("--host", hosts),
                allow_unauthenticated: flag("--allow-unauthenticated", Some(is_allowed)),
                ..local
            }],
            ..Declared::absent("", root)
        };
        tables.admin.address = address(&self.admin, "--admin", LISTEN_ADMIN);
        tables.store.kind = flag("--store-path", kind);
        self.put(&mut tables);
        tables
    }
}

/// An instance given by the flags `--url`, `--allow-insecure` and `--ca-file`.
pub(super) fn instance(url: &str, allow_insecure: bool, ca_file: Option<&Path>) -> Instance {
    Instance {
        url: flag("--url", Some(url.to_owned())),
        allow_insecure: flag("--allow-insecure", Some(allow_insecure)),
        ca_file: flag("--ca-file", ca_file.map(Path::to_owned)),
        ..Declared::absent("default", Location::flag(""))
    }
}

fn auth_method() -> impl TypedValueParser<Value = AuthMethod> {
    let names = PossibleValuesParser::new(["client_secret_basic", "client_secret_post"]);
    names.try_map(|name| serde_json::from_value(name.into()))
}

/// A key with the value of the flag `name`, if it is given.
fn flag<T>(name: &str, value: Option<T>) -> Field<T> {
    at(Location::flag(name), value)
}

fn at<T>(location: Location, value: Option<T>) -> Field<T> {
    let value = value?;
    Some(Spanned { value, location })
}

/// Warns about a variable that is ignored because a configuration file is used.
pub(super) fn warn_of_ignored(raw: &Tables, context: &LoadContext<'_>) {
    let clients = raw.client.iter();
    let named = clients.flat_map(|client| [&client.client_id_env, &client.client_secret_env]);
    let named: Vec<&str> = named
        .filter_map(|field| Some(&*field.as_ref()?.value))
        .collect();
    for name in [URL, CLIENT_ID, CLIENT_SECRET] {
        if !named.contains(&name) && (context.env)(name).is_some_and(|value| !value.is_empty()) {
            let remedy = match name {
                CLIENT_ID => "unset it, or name it in the file with `client_id_env`",
                CLIENT_SECRET => "unset it, or name it in the file with `client_secret_env`",
                _ => "unset it, or write its value in the file, as an instance's `url`",
            };
            let problem = "ignored, because a configuration file is used";
            context.warning(Location::variable(name).fault(problem, remedy));
        }
    }
}
