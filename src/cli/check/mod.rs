//! `check`: reads the configuration, prints a summary, and with `--live` tries it.

mod client;
mod live;

use std::io::{self, Write};
use std::sync::Arc;

use anyhow::ensure;

use super::source::{Source, environment};
use super::{Exit, loops, probe};
use crate::config::{Config, effective};
use crate::outgoing::addresses::Target;
use crate::outgoing::tunnel::Proxy;
use crate::process;
use crate::proxy::config::{ANY_HOST, Others};
use crate::socket::Address;
use crate::store;

/// Find every fault in the configuration.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Try it out too: resolve, reach and verify each instance, read the store, request one token
    /// for each client from its pool unless the store has a usable one, and call the API with it
    /// once
    #[arg(long)]
    pub live: bool,
    /// Print the configuration as a file with every key and the value that counts, in place of the
    /// summary; a secret is shown as where it comes from
    #[arg(long, conflicts_with = "live")]
    pub print: bool,
    /// The path that --live calls
    #[arg(long, value_name = "PATH", requires = "live", default_value = client::PROBE, value_parser = probe::path)]
    pub probe: String,
    // last: its flags have a heading of their own, which would include any flags that follow
    /// The configuration's source.
    #[command(flatten)]
    pub source: Source,
}

/// Prints a summary to standard output, and the result of each step of `--live`.
///
/// # Errors
/// [`crate::config::Faults`] if the configuration is wrong, `Exit` if a step failed, an I/O error
/// if writing fails.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let config = args.source.load()?;
    let mut out = io::stdout();
    if args.print {
        for warning in &config.warnings {
            writeln!(out, "# warning: {warning}")?;
        }
        return Ok(out.write_all(effective::toml(&config).as_bytes())?);
    }
    let listeners = config.listeners.iter();
    let listeners = listeners.map(|it| (Arc::clone(&it.name), it.address.clone()));
    let loops = loops::find(&config, listeners.collect()).await;
    for found in &loops {
        writeln!(out, "fault: {found}")?;
    }
    ensure!(loops.is_empty(), Exit(1));
    if process::is_in_container(&environment) {
        unpublished(&config, &mut out)?;
    }
    summary(&config, &mut out)?;
    let all_well = !args.live || live::run(&config, &args.probe, &mut out).await?;
    ensure!(all_well, Exit(1));
    Ok(())
}

/// Warns of listeners on loopback, which no published port of this container reaches.
fn unpublished(config: &Config, out: &mut impl Write) -> io::Result<()> {
    for listener in &config.listeners {
        let loopback = listener.address.tcp().filter(|tcp| tcp.ip().is_loopback());
        if let Some(tcp) = loopback {
            let (name, port) = (&listener.name, tcp.port());
            writeln!(
                out,
                "warning: listener {name}: {tcp} is this container's own loopback, which no published \
                 port reaches: to serve programs outside this container, listen on 0.0.0.0:{port}"
            )?;
        }
    }
    Ok(())
}

/// Prints one line per warning, instance, client and listener.
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
        let (id, instance) = (&client.oauth.client_id, &client.instance);
        let proxy = through(client.oauth.proxy.as_ref());
        let pool = client::pool(client.schedule.pool, client.is_pool_assumed);
        writeln!(out, "client {name}: {id} at {instance}{proxy}, {pool}")?;
    }
    for listener in &config.listeners {
        let (name, url) = (&listener.name, url(listener.scheme(), &listener.address));
        if let Some(forward) = &listener.forward {
            let served = forward.clients.iter().map(|client| {
                let instance = &config.instances[&config.clients[client].instance];
                format!("{} with the token of {client}", instance.origin())
            });
            let served = served.collect::<Vec<_>>().join(", ");
            let others = match forward.others {
                Others::Refuse => "refuses other hosts",
                Others::Tunnel => "lets CONNECT to other hosts through",
            };
            let said = format!("forward proxy at {url} for {served}; {others}");
            writeln!(out, "listener {name}: {said}")?;
            continue;
        }
        let client = &listener.client;
        let hosts = match &listener.hosts[..] {
            [any] if any == ANY_HOST => "any host".to_owned(),
            hosts => hosts.join(", "),
        };
        writeln!(
            out,
            "listener {name}: {url} with the token of {client}, for {hosts}"
        )?;
    }
    if let Some(authority) = &config.ca.authority {
        let (path, hosts) = (config.ca.files.certificate.display(), authority.hosts());
        writeln!(out, "local authority: {path}, for {}", hosts.join(", "))?;
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
    writeln!(out, "admin: {}", url("http", &config.admin.address))?;
    writeln!(out, "the configuration is sound")
}

/// The configured addresses of an instance, if there are any.
fn at(address: &[Target]) -> String {
    let listed: Vec<String> = address.iter().map(Target::to_string).collect();
    match listed.is_empty() {
        true => String::new(),
        false => format!(" at {}", listed.join(", ")),
    }
}

/// The URL of an address, or its unix socket.
fn url(scheme: &str, address: &Address) -> String {
    match (address, scheme) {
        (Address::Tcp(address), _) => format!("{scheme}://{address}"),
        (Address::Unix { .. }, "http") => address.to_string(),
        (Address::Unix { .. }, _) => format!("{address} (TLS)"),
    }
}

/// The forward proxy, if there is one.
fn through(proxy: Option<&Proxy>) -> String {
    proxy.map_or_else(String::new, |proxy| format!(" through the proxy {proxy}"))
}

#[cfg(test)]
mod tests {
    use super::super::source::ConfigFile;
    use super::*;
    use crate::config::{Flags, from_flags};

    /// Returns a configuration for the instance at `url`.
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
        client default: urn:x at default, a pool of 5 and one more every 6s (a guess: Collibra's own; set pool if yours is another)
        listener local: http://127.0.0.1:8080 with the token of default, for localhost, 127.0.0.1, [::1]
        admin: http://127.0.0.1:9902
        the configuration is sound
        ");
    }

    #[test]
    fn a_containers_loopback_is_warned_of() {
        let mut out = Vec::new();
        let mut config = config("https://acme.example");
        unpublished(&config, &mut out).unwrap();
        config.listeners[0].address = Address::Tcp(([0, 0, 0, 0], 8080).into());
        unpublished(&config, &mut out).unwrap();
        insta::assert_snapshot!(String::from_utf8(out).unwrap(), @"warning: listener local: 127.0.0.1:8080 is this container's own loopback, which no published port reaches: to serve programs outside this container, listen on 0.0.0.0:8080");
    }

    #[test]
    fn an_address_is_shown_as_it_is_called() {
        let tcp = Address::Tcp(([127, 0, 0, 1], 8080).into());
        let unix = Address::Unix {
            path: "/run/a.sock".into(),
            mode: 0o660,
        };
        assert_eq!(url("https", &tcp), "https://127.0.0.1:8080");
        assert_eq!(url("http", &unix), "unix:/run/a.sock");
        assert_eq!(url("https", &unix), "unix:/run/a.sock (TLS)");
    }

    #[tokio::test]
    async fn faults_come_back_as_such() {
        let args = Args {
            source: Source {
                file: ConfigFile {
                    config: Some("/none.toml".into()),
                },
                ..Source::default()
            },
            print: false,
            live: false,
            probe: client::PROBE.to_owned(),
        };
        let error = run(args).await.unwrap_err();
        assert!(error.downcast_ref::<crate::config::Faults>().is_some());
    }
}
