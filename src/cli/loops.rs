//! Loops: an instance whose name resolves to a listener of this proxy, by /etc/hosts or DNS. The
//! configuration already refuses addresses.

use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;
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
        let mut found = Vec::new();
        let instances = self.instances.into_iter();
        // concurrently
        let looking: Vec<_> = instances
            .map(|(name, host, port)| (name, host.clone(), tokio::spawn(look_up(host, port))))
            .collect();
        for (name, host, addresses) in looking {
            for address in addresses.await.unwrap_or_default() {
                let mut listeners = self.listeners.iter();
                if let Some((listener, _)) = listeners.find(|(_, at)| at.receives(address)) {
                    found.push(format!(
                        "instance {name}: {host} is {address}, where listener {listener} of this proxy listens, so that each request comes back to it; \
                         write Collibra's own address as the instance's url (COLLIBRA_URL), or the address to connect to as its address"
                    ));
                    break;
                }
            }
        }
        found
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

/// Resolves `host`; empty if it takes too long.
async fn look_up(host: String, port: u16) -> Vec<SocketAddr> {
    let (answer, answered) = oneshot::channel();
    // on its own thread: the system may take long, and a thread of the runtime would delay the exit
    let looking = thread::Builder::new().spawn(move || {
        let found = (host.as_str(), port).to_socket_addrs();
        let _ = answer.send(found.map(Iterator::collect).unwrap_or_default());
    });
    match looking {
        Ok(_) => match timeout(PATIENCE, answered).await {
            Ok(Ok(found)) => found,
            _ => Vec::new(),
        },
        Err(_) => Vec::new(),
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
