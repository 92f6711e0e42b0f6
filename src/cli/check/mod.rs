//! `check`: reads the configuration, says what is in it, and with `--live` tries it out.

mod live;

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;

use super::loops::Names;
use super::source::Source;
use crate::clock::SystemClock;
use crate::config::Config;
use crate::outgoing::addresses::Target;
use crate::outgoing::tunnel::Proxy;
use crate::store;

/// Find every fault in the configuration.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Args {
    /// Try it out too: find, reach and verify each instance, take one token for each client out of
    /// its pool, and look into the store
    #[arg(long)]
    pub live: bool,
    // last: its flags have a heading of their own, under which any that followed would stand
    /// The configuration's source.
    #[command(flatten)]
    pub source: Source,
}

/// Writes to standard output what is configured, and what each step of `--live` found. The exit
/// status is 0, or 1 if a step failed.
///
/// # Errors
/// [`crate::config::Faults`] if the configuration is wrong; an I/O error if nothing can be
/// written.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let config = args.source.load()?;
    let mut out = io::stdout();
    let loops = Names::configured(&config).loops().await;
    if !loops.is_empty() {
        for found in loops {
            writeln!(out, "fault: {found}")?;
        }
        return Ok(ExitCode::FAILURE);
    }
    summary(&config, &mut out)?;
    if args.live && !live::run(&config, Arc::new(SystemClock), &mut out).await? {
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

/// One line for each warning, instance, client and listener.
fn summary(config: &Config, out: &mut impl Write) -> io::Result<()> {
    for warning in &config.warnings {
        writeln!(out, "warning: {warning}")?;
    }
    for (name, instance) in &config.instances {
        let proxy = through(instance.proxy.as_ref());
        let at = at(&instance.address);
        writeln!(out, "instance {name}: {}{at}{proxy}", instance.origin())?;
    }
    for (name, client) in &config.clients {
        let pool = client.schedule.pool;
        writeln!(
            out,
            "client {name}: {} at {}{}, a pool of {} and one more every {}",
            client.oauth.client_id,
            client.instance,
            through(client.oauth.proxy.as_ref()),
            pool.capacity,
            humantime::format_duration(pool.refill),
        )?;
    }
    for listener in &config.listeners {
        writeln!(
            out,
            "listener {}: http://{} with the token of {}, for {}",
            listener.name,
            listener.address,
            listener.client,
            listener.hosts.join(", "),
        )?;
    }
    match &config.store {
        store::Config::Memory => {}
        store::Config::File { directory } => {
            writeln!(out, "store: files in {}", directory.display())?;
        }
        store::Config::Redis(redis) => {
            let prefix = redis.key_prefix.escape_debug();
            writeln!(out, "store: {}, keys below {prefix}", redis.server)?;
        }
        #[cfg(feature = "kubernetes")]
        store::Config::Kubernetes(kubernetes) => writeln!(
            out,
            "store: {}, Secret {} and Lease {} in the namespace {}",
            kubernetes.access, kubernetes.secret, kubernetes.lease, kubernetes.namespace
        )?,
    }
    writeln!(out, "admin: http://{}", config.admin.address)?;
    writeln!(out, "the configuration is sound")
}

/// Where it is connected to, if that is configured.
fn at(address: &[Target]) -> String {
    let listed: Vec<String> = address.iter().map(Target::to_string).collect();
    if listed.is_empty() {
        return String::new();
    }
    format!(" at {}", listed.join(", "))
}

/// The way there, if it is not the straight one.
fn through(proxy: Option<&Proxy>) -> String {
    proxy.map_or_else(String::new, |proxy| format!(" through the proxy {proxy}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Flags, from_flags};

    /// A configuration for the instance at `url`.
    pub(super) fn config(url: &str) -> Config {
        let flags = Flags {
            upstream: Some(url.to_owned()),
            client_id: Some("urn:x".to_owned()),
            pool_refill: Some(std::time::Duration::from_secs(6)),
            ..Flags::default()
        };
        let env = |name: &str| (name == "COLLIBRA_CLIENT_SECRET").then(|| "canary-5d".to_owned());
        from_flags(flags, &env).unwrap()
    }

    #[test]
    fn says_what_is_configured_and_no_secret() {
        let mut out = Vec::new();
        let mut config = config("https://acme.example");
        for instance in config.instances.values_mut() {
            let address = Target::parse("10.1.2.3:443").unwrap();
            Arc::make_mut(instance).address = vec![address];
        }
        summary(&config, &mut out).unwrap();
        insta::assert_snapshot!(String::from_utf8(out).unwrap(), @"
        instance default: https://acme.example at 10.1.2.3:443
        client default: urn:x at default, a pool of 5 and one more every 6s
        listener local: http://127.0.0.1:8080 with the token of default, for localhost, 127.0.0.1, [::1]
        admin: http://127.0.0.1:9902
        the configuration is sound
        ");
    }

    #[tokio::test]
    async fn faults_come_back_as_such() {
        let args = Args {
            source: Source {
                config: Some("/none.toml".into()),
                ..Source::default()
            },
            live: false,
        };
        let error = run(args).await.unwrap_err();
        assert!(error.downcast_ref::<crate::config::Faults>().is_some());
    }
}
