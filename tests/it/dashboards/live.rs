//! A real Prometheus scrapes proxies during every incident that the dashboard and the alerts cover.

use std::io::Write;
use std::process::{Command, Stdio};

use super::expressions::{self, Expression, filled_in};
use super::prometheus::Prometheus;
use crate::support::certificate::Authority;
use crate::support::redis::Redis;
use crate::support::simulator::{CLIENT_ID, CLIENT_SECRET};
use crate::support::wait::now;
use crate::support::{PATIENCE, Proxy, Simulator, file, http, until};

/// The life of a token. An alert watches the last third of it, so the test takes as long.
const LIFE: &str = "20s";

const KEY: &str = "lineage-key-0123456789";

const DROPPED: &str = "collibra_auth_proxy_log_lines_dropped_total";
const REFUSED: &str =
    r#"collibra_auth_proxy_token_requests_total{client="catalog",outcome="rate_limited"}"#;

/// The alerts whose incidents come last, in their order.
const LATER: [&str; 7] = [
    "CollibraAuthProxyLogLinesDropped",
    "CollibraAuthProxyDown",
    "CollibraAuthProxyTokenExpiring",
    "CollibraAuthProxyTokenRateLimited",
    "CollibraAuthProxyPoolContended",
    "CollibraAuthProxyStoreUnavailable",
    "CollibraAuthProxyConfigRejected",
];

/// A proxy with two clients, of which Collibra refuses one; an app with limits; a listener whose
/// certificate expires soon; a store.
fn configuration(simulator: &Simulator, redis: &Redis, authority: &Authority) -> String {
    let url = simulator.url();
    let store = redis.url();
    let certificate = authority.valid_for("localhost", std::time::Duration::from_secs(10 * 86_400));
    let (cert, key) = (certificate.cert.display(), certificate.key.display());
    format!(
        r#"
[instance.acme]
url = "{url}"
[client.catalog]
instance = "acme"
client_id = "{CLIENT_ID}"
client_secret = "{CLIENT_SECRET}"
pool = {{ capacity = 100, refill = "1s" }}
[client.refused]
instance = "acme"
client_id = "{CLIENT_ID}-unknown"
client_secret = "{CLIENT_SECRET}"
pool = {{ refill = "2s" }}
[listener.local]
address = "127.0.0.1:0"
client = "catalog"
[listener.secure]
address = "127.0.0.1:0"
client = "refused"
tls = {{ cert_file = "{cert}", key_file = "{key}" }}
[app.lineage]
key_env = "LINEAGE_KEY"
requests_per_second = 20
max_in_flight = 8
[store]
kind = "redis"
url = "{store}"
[admin]
address = "127.0.0.1:0"
"#
    )
}

/// Calls as an app makes them, and some that are refused.
fn call(proxy: &Proxy) {
    let bearer = format!("Authorization: Bearer {KEY}\n");
    for (line, headers, body) in [
        ("GET /rest/2.0/assets", &*bearer, ""),
        ("GET /rest/2.0/no-such-thing", &bearer, ""),
        ("GET /rest/2.0/assets", "", ""),
        ("POST /rest/2.0/assets", &bearer, "{}"),
        (
            "POST /rest/oauth/v2/token",
            &bearer,
            "grant_type=client_credentials",
        ),
    ] {
        let length = match body.len() {
            0 => String::new(),
            length => format!("Content-Length: {length}\n"),
        };
        proxy.ask(&format!(
            "{line} HTTP/1.1\nHost: {{host}}\n{headers}{length}\n{body}"
        ));
    }
}

/// Stops reading the proxy's log and sends requests until lines of it are dropped.
fn drop_lines(proxy: &Proxy) {
    proxy.process.err.pause();
    let dropped = || proxy.metric(DROPPED) > Some(0.0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut connection = proxy.connect();
                until("lines that are dropped", || {
                    for _ in 0..500 {
                        // denied, so that no instance has to answer
                        connection.get(proxy.address, "/rest/auth/v1/clients");
                    }
                    dropped().then_some(())
                });
            });
        }
    });
}

/// Expressions that have found no series yet.
struct Pending(Vec<Expression>);

impl Pending {
    /// Evaluates each, and drops those that find series, until only those in `later` are left;
    /// `step` goes first each time.
    fn look_until(&mut self, prometheus: &Prometheus, later: &[&str], mut step: impl FnMut()) {
        let start = now();
        while self.0.iter().any(|e| !later.contains(&&*e.place)) {
            step();
            self.0
                .retain(|e| prometheus.values(&filled_in(&e.text)).is_empty());
            let list = || {
                let lines = self.0.iter().map(|e| format!("{}: {}", e.place, e.text));
                lines.collect::<Vec<_>>().join("\n")
            };
            assert!(start.elapsed() < PATIENCE, "no series:\n{}", list());
        }
    }
}

#[test]
fn a_real_prometheus_finds_the_series_of_every_expression() {
    let simulator = Simulator::with(&["--lifetime", LIFE, "--pool", "100"]);
    let mut redis = Redis::start();
    let authority = Authority::new();
    let text = configuration(&simulator, &redis, &authority);
    let (_folder, path) = file("proxy.toml", text.as_bytes());
    let proxy = Proxy::by_file(&path).variable("LINEAGE_KEY", KEY).start();
    proxy.has_token();
    // a replica that drops log lines and then dies
    let other = Proxy::to(&simulator.url()).start();
    other.has_token();
    let prometheus = Prometheus::scraping(&[proxy.admin, other.admin]);
    until("a scrape of both", || {
        (prometheus.values("collibra_auth_proxy_build_info").len() == 2).then_some(())
    });

    // the API rejects a token and fails in two ways; apps are refused, and so is a client
    let mut pending = Pending(expressions::all());
    call(&proxy);
    simulator.revoke();
    pending.look_until(&prometheus, &LATER, || {
        for weather in ["status:500", "reset", "none"] {
            simulator.fault("api", weather);
            call(&proxy);
        }
    });

    drop_lines(&other);
    pending.look_until(&prometheus, &LATER[1..], || {});
    drop(other);

    // no token is renewed, the configuration has a fault, the store dies
    simulator.fault("token", "status:429");
    std::fs::write(&path, "[instance.acme]\nurl = 1\n").unwrap();
    proxy.process.signal("HUP");
    pending.look_until(&prometheus, &[], || {
        // the store arbitrates token requests until one was refused
        if proxy.metric(REFUSED) > Some(0.0) {
            redis.stop();
        }
    });

    let unhealthy: Vec<_> = prometheus
        .rules()
        .into_iter()
        .filter(|rule| rule["health"] != "ok")
        .map(|rule| rule.to_string())
        .collect();
    super::assert_none(&unhealthy);
    assert_metrics_are_clean(&http::get(proxy.admin, "/metrics").text());
}

/// Fails unless `promtool check metrics` has nothing to say.
fn assert_metrics_are_clean(text: &str) {
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = promtool.stdin.take().unwrap();
    input.write_all(text.as_bytes()).unwrap();
    drop(input);
    let ended = promtool.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success() && said.is_empty(), "{said}");
}
