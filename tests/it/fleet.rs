//! A fleet of proxies shares one client by a Redis server: it takes no more tokens than one proxy
//! alone, whatever happens to its members, to the server, and to what lies there.
//!
//! Real processes and a real server, at 60 times Collibra's speed: a token lives for 5 s, and the
//! pool of 5 gains one a second.

mod away;
mod contract;
mod load;
mod members;
mod stored;

use std::time::Duration;

use crate::support::redis::Redis;
use crate::support::simulator::{CLIENT_ID, CLIENT_SECRET};
use crate::support::{Proxy, Simulator};

/// A minute of Collibra's time.
const MINUTE: Duration = Duration::from_secs(1);

/// A simulated Collibra, 60 times as fast.
fn collibra() -> Simulator {
    Simulator::with(&["--speed", "60", "--lifetime", "300s"])
}

/// The configuration of a member of a fleet.
struct Member<'a> {
    simulator: &'a Simulator,
    /// `[store]`.
    store: String,
    secret: &'a str,
    /// How long a minute of Collibra's takes.
    minute: Duration,
}

impl Member<'_> {
    fn sharing<'a>(simulator: &'a Simulator, url: &str) -> Member<'a> {
        Member {
            simulator,
            store: format!("kind = \"redis\"\nurl = \"{url}\""),
            secret: CLIENT_SECRET,
            minute: MINUTE,
        }
    }

    fn alone(simulator: &Simulator) -> Member<'_> {
        Member {
            simulator,
            store: String::new(),
            secret: CLIENT_SECRET,
            minute: MINUTE,
        }
    }

    /// Starts it; it may not have a token yet.
    fn start(&self) -> Proxy {
        Proxy::by_text(&self.text()).start()
    }

    /// Its configuration.
    fn text(&self) -> String {
        let Member {
            simulator,
            store,
            secret,
            minute,
        } = self;
        format!(
            r#"
[instance.acme]
url = "{url}"
[client.catalog]
client_id = "{CLIENT_ID}"
client_secret = "{secret}"
pool = {{ capacity = 5, refill = "{refill}s" }}
wait_for_token = "300ms"
[listener.local]
address = "127.0.0.1:0"
[server]
threads = 1
[admin]
address = "127.0.0.1:0"
[log]
access = false
[store]
{store}
"#,
            url = simulator.url(),
            refill = minute.as_secs(),
        )
    }
}

/// `size` members, started at once; each serves, with or without a token.
fn fleet(member: &Member<'_>, size: usize) -> Vec<Proxy> {
    std::thread::scope(|scope| {
        let starting: Vec<_> = (0..size).map(|_| scope.spawn(|| member.start())).collect();
        starting.into_iter().map(|s| s.join().unwrap()).collect()
    })
}

/// A fleet on a server, each member with the token that it shares with the others.
fn sharing(size: usize) -> (Simulator, Redis, Vec<Proxy>) {
    let (simulator, redis) = (collibra(), Redis::start());
    let proxies = fleet(&Member::sharing(&simulator, &redis.url()), size);
    for proxy in &proxies {
        holds(proxy);
    }
    (simulator, redis, proxies)
}

/// Waits until a proxy holds a token that may be sent.
fn holds(proxy: &Proxy) {
    proxy.metric_becomes(r#"collibra_auth_proxy_token_usable{client="catalog"}"#, 1.0);
}

/// The generation of the token that a proxy holds.
fn generation(proxy: &Proxy) -> u64 {
    let metric = r#"collibra_auth_proxy_token_generation{client="catalog"}"#;
    proxy.metric(metric).unwrap() as u64
}
