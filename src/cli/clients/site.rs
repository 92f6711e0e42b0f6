//! The instance whose clients are managed: one of the configuration, or one given by its URL.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::cli::Usage;
use crate::cli::source::environment;
use crate::config::{self, Config};
use crate::registration::{self, RegistrationClient};
use crate::upstream::Instance;

/// The timeout of one call.
pub(super) const TIMEOUT: Duration = Duration::from_secs(30);

/// The options that select the instance.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Where")]
pub(super) struct SiteArgs {
    /// The configuration file (TOML) [env: COLLIBRA_AUTH_PROXY_CONFIG]
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,

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
                let config = self.load()?;
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

    /// The path of the configuration.
    ///
    /// # Errors
    /// [`Usage`] if none is given.
    pub(super) fn config_path(&self) -> anyhow::Result<PathBuf> {
        let named = || environment(config::FILE_VARIABLE).filter(|path| !path.is_empty());
        let path = self.config.clone().or_else(|| named().map(PathBuf::from));
        let missing = "say where: --url URL, or --config FILE";
        Ok(path.ok_or_else(|| Usage(missing.to_owned()))?)
    }

    fn load(&self) -> anyhow::Result<Config> {
        Ok(config::load(&self.config_path()?, &environment)?)
    }

    fn choose(&self, config: &Config, client: Option<&str>) -> anyhow::Result<Arc<Instance>> {
        let instances = &config.instances;
        let all = || {
            let names: Vec<&str> = instances.keys().map(AsRef::as_ref).collect();
            names.join(", ")
        };
        if let Some(name) = &self.instance {
            let found = instances.get(name.as_str()).cloned();
            let unknown = || format!("there is no [instance.{name}]; there are {}", all());
            return Ok(found.ok_or_else(|| Usage(unknown()))?);
        }
        let of_client = client.and_then(|name| config.clients.get(name));
        if let Some(client) = of_client {
            return Ok(Arc::clone(&instances[&client.instance]));
        }
        let mut each = instances.values();
        match (each.next(), each.next()) {
            (Some(only), None) => Ok(Arc::clone(only)),
            _ => Err(Usage(format!("choose one with --instance: {}", all())).into()),
        }
    }
}

impl Site {
    /// Looks up a client of the configuration.
    ///
    /// # Errors
    /// [`Usage`] if there is no such client, or no configuration.
    pub(super) fn client(&self, name: &str) -> anyhow::Result<&config::Client> {
        let Some(config) = &self.config else {
            let missing = "--client names a client of the configuration; give --config";
            return Err(Usage(missing.to_owned()).into());
        };
        Ok(config.clients.get(name).ok_or_else(|| {
            let names: Vec<&str> = config.clients.keys().map(AsRef::as_ref).collect();
            let all = names.join(", ");
            Usage(format!("there is no [client.{name}]; there are {all}"))
        })?)
    }
}
