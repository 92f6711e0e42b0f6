//! Loops: an instance whose name resolves to a listener of this proxy, by /etc/hosts or DNS. The
//! configuration already refuses addresses.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::net::lookup_host;
use tokio::time::timeout;
use tracing::error;

use crate::config::Config;
use crate::server::Running;
use crate::socket::Address;
use crate::upstream::Instance;

/// The timeout of a lookup; without an answer, no loop is reported.
const PATIENCE: Duration = Duration::from_secs(2);

/// The names and addresses of listeners.
type Listeners = Vec<(Arc<str>, Address)>;

/// Resolves the instances of `config`. Returns a message for each that leads to one of `listeners`.
pub(super) fn find(
    config: &Config,
    listeners: Listeners,
) -> impl Future<Output = Vec<String>> + use<> {
    // behind a forward proxy, the proxy resolves the name
    let direct = config.instances.values().filter(|it| it.proxy.is_none());
    let instances: Vec<Arc<Instance>> = direct.cloned().collect();
    async move {
        let looking = instances.iter();
        let looking = looking.map(|it| look_up(&it.name, &it.host, it.port, &listeners));
        join_all(looking).await.into_iter().flatten().collect()
    }
}

/// Logs each loop of a server, from a background task.
pub(super) fn report(running: &Running) {
    let loops = find(running.config(), running.listeners());
    tokio::spawn(async {
        for found in loops.await {
            error!("{found}");
        }
    });
}

/// Resolves the host of the instance `name`. Returns a message if it leads to one of `listeners`.
async fn look_up(name: &str, host: &str, port: u16, listeners: &Listeners) -> Option<String> {
    // by the system, which reads /etc/hosts; a lookup that hangs does not delay the exit
    let found = timeout(PATIENCE, lookup_host((host, port))).await;
    found.ok()?.ok()?.find_map(|address| {
        let (listener, _) = listeners.iter().find(|(_, at)| at.receives(address))?;
        Some(format!(
            "instance {name}: {host} is {address}, where listener {listener} of this proxy listens, so that each request comes back to it; \
             write Collibra's own address as the instance's url (COLLIBRA_URL), or the address to connect to as its address"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn found(host: &str, port: u16, listener: &str) -> Option<String> {
        let address = Address::Tcp(listener.parse().unwrap());
        look_up("acme", host, port, &vec![("local".into(), address)]).await
    }

    #[tokio::test]
    async fn a_name_that_leads_to_a_listener_is_found() {
        let said = found("localhost", 8080, "127.0.0.1:8080").await.unwrap();
        assert!(said.contains("listener local"), "{said}");
        assert!(found("localhost", 8080, "0.0.0.0:8080").await.is_some());
        for (host, port, listener) in [
            ("localhost", 8081, "127.0.0.1:8080"),
            ("localhost", 8080, "127.0.0.2:8080"),
            ("nowhere.invalid", 8080, "0.0.0.0:8080"),
        ] {
            assert_eq!(found(host, port, listener).await, None, "{host}");
        }
    }
}
