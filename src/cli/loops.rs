//! Loops: an instance whose name resolves to a listener of this proxy, by /etc/hosts or DNS. The
//! configuration already refuses addresses.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::net::lookup_host;
use tokio::time::timeout;
use tracing::error;

use crate::config::Config;
use crate::socket::Address;

/// The timeout of a lookup; without an answer, no loop is reported.
const PATIENCE: Duration = Duration::from_secs(2);

/// The instances' names and the listeners' addresses.
#[derive(Clone, Debug)]
pub(super) struct Names {
    /// Each instance's name in the configuration, host and port.
    instances: Vec<(Arc<str>, String, u16)>,
    /// Each listener's name and address.
    listeners: Vec<(Arc<str>, Address)>,
}

impl Names {
    /// Returns those of `config`, whose actual addresses are `listeners`.
    pub(super) fn of(config: &Config, listeners: Vec<(Arc<str>, Address)>) -> Names {
        // behind a forward proxy, the proxy resolves the name
        let direct = config.instances.values().filter(|i| i.proxy.is_none());
        let instances = direct.map(|i| (Arc::clone(&i.name), i.host.clone(), i.port));
        Names {
            instances: instances.collect(),
            listeners,
        }
    }

    /// Returns those of `config` before it is served.
    pub(super) fn configured(config: &Config) -> Names {
        let listeners = config.listeners.iter();
        let listeners = listeners.map(|l| (Arc::clone(&l.name), l.address.clone()));
        Names::of(config, listeners.collect())
    }

    /// Resolves the instances. Returns a message for each that leads to a listener.
    pub(super) async fn loops(self) -> Vec<String> {
        let looking = self.instances.iter().map(async |(name, host, port)| {
            // by the system, which reads /etc/hosts; a lookup that hangs does not delay the exit
            let found = timeout(PATIENCE, lookup_host((host.as_str(), *port))).await;
            found.ok()?.ok()?.find_map(|address| {
                let mut listeners = self.listeners.iter();
                let (listener, _) = listeners.find(|(_, at)| at.receives(address))?;
                Some(format!(
                    "instance {name}: {host} is {address}, where listener {listener} of this proxy listens, so that each request comes back to it; \
                     write Collibra's own address as the instance's url (COLLIBRA_URL), or the address to connect to as its address"
                ))
            })
        });
        join_all(looking).await.into_iter().flatten().collect()
    }

    /// Logs each loop, from a background task.
    pub(super) fn report(self) {
        tokio::spawn(async move {
            for found in self.loops().await {
                error!("{found}");
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn loops(host: &str, port: u16, listener: &str) -> Vec<String> {
        let names = Names {
            instances: vec![("acme".into(), host.to_owned(), port)],
            listeners: vec![("local".into(), Address::Tcp(listener.parse().unwrap()))],
        };
        names.loops().await
    }

    #[tokio::test]
    async fn a_name_that_leads_to_a_listener_is_found() {
        let found = loops("localhost", 8080, "127.0.0.1:8080").await;
        assert_eq!(found.len(), 1);
        assert!(found[0].contains("listener local"), "{found:?}");
        assert_eq!(loops("localhost", 8080, "0.0.0.0:8080").await.len(), 1);
        for (host, port, listener) in [
            ("localhost", 8081, "127.0.0.1:8080"),
            ("localhost", 8080, "127.0.0.2:8080"),
            ("nowhere.invalid", 8080, "0.0.0.0:8080"),
        ] {
            assert!(loops(host, port, listener).await.is_empty(), "{host}");
        }
    }
}
