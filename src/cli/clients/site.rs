//! The instance whose clients are managed: one of the configuration, or one given by its URL.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;

use crate::cli::Usage;
use crate::cli::source::ConfigFile;
use crate::config::{self, Config};
use crate::registration::{self, RegistrationClient};
use crate::upstream::Instance;

/// The timeout of one call.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The options that select the instance.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Where")]
pub(super) struct SiteArgs {
    #[command(flatten)]
    file: ConfigFile,

    /// The instance of the configuration, if there is more than one
    #[arg(long, value_name = "NAME", conflicts_with = "url")]
    instance: Option<String>,

    /// The address of an instance, like https://acme.collibra.com, without a configuration
    #[arg(long, value_name = "URL", conflicts_with = "config")]
    url: Option<String>,

    /// With --url: certificates (PEM) to accept besides the system's
    #[arg(long, value_name = "FILE", requires = "url")]
    ca_file: Option<PathBuf>,

    /// With --url: accept http:// to another machine, although secrets travel unencrypted
    #[arg(long, requires = "url")]
    allow_insecure: bool,

    /// The platform's clients, below /rest/auth/v1/platform
    #[arg(long)]
    platform: bool,
}

/// An instance, and the configuration that it comes from.
#[derive(Debug)]
pub(super) struct Site {
    /// The configuration, if any.
    pub(super) config: Option<Config>,
    /// The instance.
    pub(super) instance: Arc<Instance>,
    /// Its registration API.
    pub(super) api: RegistrationClient,
}

impl SiteArgs {
    /// Selects the instance; by default that of `client`, a client of the configuration.
    ///
    /// # Errors
    /// [`Usage`], or the faults of the configuration.
    pub(super) fn resolve(&self, client: Option<&str>) -> anyhow::Result<Site> {
        let (config, instance) = match &self.url {
            Some(url) => {
                let ca_file = self.ca_file.as_deref();
                (None, config::instance(url, self.allow_insecure, ca_file)?)
            }
            None => {
                let config = self.file.load("say where: --url URL, or --config FILE")?;
                let instance = self.choose(&config, client)?;
                (Some(config), instance)
            }
        };
        let base = match self.platform {
            true => registration::PLATFORM,
            false => registration::ENVIRONMENT,
        };
        let api = RegistrationClient::new(&instance.route(), base, TIMEOUT)?;
        Ok(Site {
            config,
            instance,
            api,
        })
    }

    fn choose(&self, config: &Config, client: Option<&str>) -> anyhow::Result<Arc<Instance>> {
        let instances = &config.instances;
        let of_client = client.and_then(|name| config.clients.get(name));
        let chosen = match (&self.instance, of_client) {
            (Some(name), _) => instances.get(name.as_str()),
            (None, Some(client)) => instances.get(&client.instance),
            (None, None) => instances.values().next().filter(|_| instances.len() == 1),
        };
        chosen.cloned().with_context(|| {
            let all = names(instances);
            Usage(match &self.instance {
                Some(name) => format!("there is no [instance.{name}]; there are {all}"),
                None => format!("choose one with --instance: {all}"),
            })
        })
    }
}

impl Site {
    /// Looks up a client of the configuration.
    ///
    /// # Errors
    /// [`Usage`] if there is no such client, or no configuration.
    pub(super) fn client(&self, name: &str) -> anyhow::Result<&config::Client> {
        let missing = "--client names a client of the configuration; give --config";
        let config = self.config.as_ref();
        let clients = &config.with_context(|| Usage(missing.to_owned()))?.clients;
        clients.get(name).with_context(|| {
            let all = names(clients);
            Usage(format!("there is no [client.{name}]; there are {all}"))
        })
    }
}

fn names<T>(tables: &BTreeMap<Arc<str>, T>) -> String {
    let names: Vec<&str> = tables.keys().map(AsRef::as_ref).collect();
    names.join(", ")
}
