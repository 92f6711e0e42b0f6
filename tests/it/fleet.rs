//! A fleet of proxies shares one client through a store. It requests no more tokens than one proxy,
//! whatever happens to its members, to the server and to the stored record.
//!
//! Real processes, at 60 times real speed: a token lives for 5 s, and the pool of 5 refills at one
//! a second. The same tests run with a real Redis server, with sentinels, with a Redis Cluster,
//! with a stand-in for the Kubernetes API server, and, if `KUBECONFIG` is set, with a real cluster:
//! `cargo test --test it kubernetes -- --ignored`.

mod available;
mod away;
mod by_redis;
pub(crate) mod contract;
mod load;
mod members;
mod partly;
mod protected;
mod sentinels;
mod server;
mod stored;

use std::time::Duration;

use crate::support::simulator::{CLIENT_ID, CLIENT_SECRET};
use crate::support::{Proxy, Simulator};
use server::{Kind, Server};

/// Declares one test per promise for a kind of store.
macro_rules! promises {
    ($kind:ident: $($file:ident::$promise:ident),* $(,)?) => {
        $(#[test] fn $promise() { super::$file::$promise(super::Kind::$kind); })*
    };
    (ignored $kind:ident: $($file:ident::$promise:ident),* $(,)?) => {
        $(
            #[test]
            #[ignore = "needs a cluster: KUBECONFIG"]
            fn $promise() { super::$file::$promise(super::Kind::$kind); }
        )*
    };
}

/// Promises that any server can be tested for.
macro_rules! promises_of_members {
    ($($how:ident)+) => {
        promises!($($how)+:
            contract::each_knows_how_many_came_before_it,
            contract::many_writers_at_once_lose_nothing,
            contract::one_at_a_time_has_the_right_to_ask_and_gives_up_no_other_than_its_own,
            contract::what_one_keeps_the_other_reads_and_is_told_of,
            contract::one_that_falls_silent_loses_its_place_to_the_next,
            contract::who_has_lost_the_right_changes_nothing,
            contract::who_leaves_gives_its_place_to_the_next,
            members::one_that_is_told_of_the_server_while_it_runs_brings_its_token_there,
            members::ten_run_for_a_quarter_of_an_hour_on_as_many_tokens_as_one,
            members::ten_that_start_at_once_take_one_token_and_none_for_restarting,
            members::the_one_who_asks_may_be_killed_in_the_middle_of_it,
            members::the_one_who_asks_may_be_stopped_beyond_the_end_of_its_lock,
            stored::neither_token_nor_secret_nor_id_can_be_read_there,
            stored::one_with_a_wrong_secret_costs_the_others_nothing,
            stored::whatever_is_put_there_under_load_no_app_notices,
        );
    };
}

/// Promises whose tests disturb the server.
macro_rules! promises_whatever_happens_to_the_server {
    ($kind:ident) => {
        promises!($kind:
            away::ten_minutes_without_it_leave_four_that_serve_and_the_others_say_so,
            away::two_minutes_without_the_server_are_not_noticed,
            contract::a_server_that_swallows_everything_holds_nobody_up,
            partly::a_server_that_can_only_be_read_leaves_some_that_serve_and_then_all_are_back,
        );
    };
}

mod redis {
    promises_of_members!(Redis);
    promises_whatever_happens_to_the_server!(Redis);
}

mod sentinel {
    promises_of_members!(Sentinel);
    promises!(Sentinel:
        partly::a_server_that_can_only_be_read_leaves_some_that_serve_and_then_all_are_back,
    );
}

mod cluster {
    promises_of_members!(RedisCluster);
    promises!(RedisCluster:
        partly::a_server_that_can_only_be_read_leaves_some_that_serve_and_then_all_are_back,
    );
}

#[cfg(feature = "kubernetes")]
mod kubernetes {
    promises_of_members!(Kubernetes);
    promises_whatever_happens_to_the_server!(Kubernetes);
}

/// Each test creates its own Secret and Lease there, and deletes them.
#[cfg(feature = "kubernetes")]
mod kubernetes_cluster {
    promises_of_members!(ignored Cluster);
}

/// A simulated minute.
const MINUTE: Duration = Duration::from_secs(1);

/// A simulated Collibra at 60 times real speed.
fn collibra() -> Simulator {
    Simulator::with(&["--speed", "60", "--lifetime", "300s"])
}

/// The configuration of a fleet's member.
struct Member<'a> {
    simulator: &'a Simulator,
    /// `[store]`.
    store: String,
    secret: &'a str,
    /// The duration of a simulated minute.
    minute: Duration,
}

impl Member<'_> {
    fn sharing<'a>(simulator: &'a Simulator, server: &Server) -> Member<'a> {
        Member {
            simulator,
            store: server.store(),
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

    /// Starts it, possibly without a token yet.
    fn start(&self) -> Proxy {
        Proxy::by_text(&self.text()).start()
    }

    /// The configuration.
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

/// Starts `size` members at once; each serves, with or without a token.
fn fleet(member: &Member<'_>, size: usize) -> Vec<Proxy> {
    std::thread::scope(|scope| {
        let starting: Vec<_> = (0..size).map(|_| scope.spawn(|| member.start())).collect();
        starting.into_iter().map(|s| s.join().unwrap()).collect()
    })
}

/// Starts a fleet on a server; each member holds the shared token.
fn sharing(kind: Kind, size: usize) -> (Simulator, Server, Vec<Proxy>) {
    let (simulator, server) = (collibra(), Server::start(kind));
    let proxies = fleet(&Member::sharing(&simulator, &server), size);
    for proxy in &proxies {
        holds(proxy);
    }
    (simulator, server, proxies)
}

/// Waits until a proxy holds a usable token.
fn holds(proxy: &Proxy) {
    proxy.metric_becomes(r#"collibra_auth_proxy_token_usable{client="catalog"}"#, 1.0);
}

/// The generation of a proxy's token.
fn generation(proxy: &Proxy) -> u64 {
    let metric = r#"collibra_auth_proxy_token_generation{client="catalog"}"#;
    proxy.metric(metric).unwrap() as u64
}
