//! The setup: a simulated Collibra behind two addresses, a name server, a Redis server,
//! files, and the proxy.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use kit::Simulator;
use kit::network::{NameServer, Records, is_root};
use kit::redis::Redis;
use kit::simulator::{CLIENT_ID, CLIENT_SECRET};

use crate::proxy::Proxy;
use crate::relay::Relay;

/// Where the instance is, twice.
const ADDRESSES: [Ipv4Addr; 2] = [Ipv4Addr::new(127, 53, 1, 1), Ipv4Addr::new(127, 53, 1, 2)];

/// Where the name server is.
const NAME_SERVER: &str = "127.53.1.53";

/// A token's life in Collibra's time, and the shortest in real time, in seconds: a token must
/// outlive the step with a wrong secret.
const LIFE: u64 = 300;
const SHORTEST_LIFE: u64 = 60;

/// All of it.
pub(crate) struct Rig {
    /// The proxy.
    pub(crate) proxy: Proxy,
    /// The instance's two addresses.
    pub(crate) relays: [Relay; 2],
    /// Whether the name server is silent; `None`: there is none.
    pub(crate) dns_is_silent: Option<Arc<AtomicBool>>,
    /// The store; `None`: there is none.
    pub(crate) redis: Option<Redis>,
    config: String,
    folder: tempfile::TempDir,
    _name_server: Option<NameServer>,
    _simulator: Simulator,
}

impl Rig {
    /// Starts all of it for a run of so many minutes.
    pub(crate) async fn start(minutes: u64) -> Rig {
        // it divides every duration of Collibra's
        let most = (LIFE / SHORTEST_LIFE).min(15 / minutes).max(1);
        let speed = (1..=most)
            .rev()
            .find(|n| LIFE.is_multiple_of(*n))
            .unwrap_or(1);
        let simulator = Simulator::with(&["--speed", &speed.to_string(), "--lifetime", "300s"]);
        let server = simulator.address;
        let [first, second] = ADDRESSES.map(IpAddr::from);
        let first = Relay::start(first, 0, server).await;
        let port = first.address.port();
        let relays = [first, Relay::start(second, port, server).await];

        let silent = Arc::new(AtomicBool::new(false));
        let name_server = is_root().then(|| {
            let silent = Arc::clone(&silent);
            NameServer::start(NAME_SERVER, move |records, _| {
                let addresses = match records {
                    Records::A => ADDRESSES.map(IpAddr::from).to_vec(),
                    Records::Aaaa => Vec::new(),
                };
                (!silent.load(Ordering::Relaxed)).then_some(addresses)
            })
        });
        let redis = Redis::is_installed().then(Redis::start);

        let folder = tempfile::tempdir().unwrap();
        let secret = folder.path().join("secret");
        let addresses = match name_server {
            Some(_) => String::new(),
            None => {
                let [first, second] = relays.each_ref().map(|relay| relay.address);
                format!("address = [\"{first}\", \"{second}\"]\n")
            }
        };
        let store = redis.as_ref().map(|redis| {
            let port = redis.port;
            format!("[store]\nkind = \"redis\"\nurl = \"redis://127.0.0.1:{port}\"\n")
        });
        let config = format!(
            "[instance.acme]\nurl = \"http://collibra.test:{port}\"\nallow_insecure = true\n{addresses}\
             [client.catalog]\nclient_id = \"{CLIENT_ID}\"\nclient_secret_file = {secret:?}\n\
             pool = {{ capacity = 5, refill = \"{}s\" }}\n\
             [listener.local]\naddress = \"127.0.0.1:0\"\n\
             [admin]\naddress = \"127.0.0.1:0\"\n{}",
            60 / speed,
            store.unwrap_or_default()
        );
        fs::write(&secret, CLIENT_SECRET).unwrap();
        let path = folder.path().join("proxy.toml");
        fs::write(&path, &config).unwrap();
        let wrapper = name_server.as_ref().map(NameServer::wrapper);
        Rig {
            proxy: Proxy::start(&path, &wrapper.unwrap_or_default()),
            relays,
            dns_is_silent: name_server.as_ref().map(|_| silent),
            redis,
            config,
            folder,
            _name_server: name_server,
            _simulator: simulator,
        }
    }

    /// Writes the first half of the secret, or all of it.
    pub(crate) fn write_secret(&self, is_torn: bool) {
        let length = CLIENT_SECRET.len() / if is_torn { 2 } else { 1 };
        self.write("secret", &CLIENT_SECRET[..length]);
    }

    /// Writes the configuration, with `more` at its end.
    pub(crate) fn write_config(&self, more: &str) {
        self.write("proxy.toml", &format!("{}{more}", self.config));
    }

    fn write(&self, name: &str, text: &str) {
        let path: PathBuf = self.folder.path().join(name);
        fs::write(path, text).unwrap();
    }
}
