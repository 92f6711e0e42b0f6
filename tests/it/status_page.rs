//! The status page in a real browser: it updates, shows faults and recoveries, says when the proxy
//! does not answer, and is accessible. Skipped, with a note, where there is no Chromium.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use crate::support::browser::{Browser, chromium};
use crate::support::certificate::Authority;
use crate::support::process::{self, Process};
use crate::support::proxy::message;
use crate::support::simulator::{self, CLIENT_ID, CLIENT_SECRET};
use crate::support::wait::now;
use crate::support::{Connection, Proxy, Simulator, http, made, until};

/// How soon the page shows what the proxy knows.
const SOON: Duration = Duration::from_secs(2);

/// How soon it shows that the proxy does not answer.
const LOST: Duration = Duration::from_secs(5);

/// Width and height of a desktop's window and of a phone's.
const WIDE: (u32, u32) = (1_400, 900);
const NARROW: (u32, u32) = (390, 844);

/// A running `demo`.
struct Demo {
    _process: Process,
    admin: SocketAddr,
    collibra: SocketAddr,
}

impl Demo {
    fn start() -> Demo {
        let args = [
            "demo",
            "--for",
            "10m",
            "--log-level",
            "info",
            "--log-format",
            "json",
        ];
        let process = Process::spawn(&mut process::command(args));
        let admin: SocketAddr = process.err.wait_for("the admin address", |line| {
            message(line, "admin address open")?["address"]
                .as_str()?
                .parse()
                .ok()
        });
        let collibra = until("the demo's instance", || {
            let instance = &status(admin)["clients"][0]["instance"];
            instance.as_str()?.strip_prefix("http://")?.parse().ok()
        });
        Demo {
            _process: process,
            admin,
            collibra,
        }
    }

    fn fault(&self, endpoint: &str, kind: &str) {
        let order = json!({ "endpoint": endpoint, "kind": kind });
        simulator::control(self.collibra, "faults", &order.to_string());
    }

    fn reset(&self) {
        simulator::control(self.collibra, "reset", "");
    }

    fn revoke(&self) {
        simulator::control(self.collibra, "revoke", "");
    }

    /// Waits until the proxy knows something of its client, and then at most [`SOON`] until the
    /// page shows it.
    fn shows(
        &self,
        browser: &mut Browser,
        what: &str,
        known: impl Fn(&Value) -> bool,
        shown: &str,
    ) {
        until(what, || {
            known(&status(self.admin)["clients"][0]).then_some(())
        });
        let start = now();
        browser.until(what, shown);
        let took = start.elapsed();
        assert!(took < SOON, "{what}: shown after {took:?}");
    }
}

fn status(admin: SocketAddr) -> Value {
    http::get(admin, "/api/status").json()
}

/// Whether a card tells of `text`.
fn notice(text: &str) -> String {
    format!(
        "[...document.querySelectorAll('#clients .notice strong')].some(it => it.textContent.includes('{text}'))"
    )
}

const NO_NOTICE: &str = "document.querySelectorAll('#clients .notice').length === 0 \
    && document.querySelector('#clients .badge').textContent === 'usable'";

const LIVE: &str = "document.getElementById('live').textContent === 'live'";

/// A folder of what a person may want to look at after the test.
fn kept(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

fn pictures(browser: &mut Browser, name: &str) {
    for (width, height) in [WIDE, NARROW] {
        for scheme in ["light", "dark"] {
            browser.size(width, height);
            browser.prefers(scheme);
            browser.picture(&kept(&format!("status-{name}-{width}-{scheme}.png")));
        }
    }
    browser.size(WIDE.0, WIDE.1);
    browser.prefers("light");
}

/// That everything the page has asked for so far was at `admin`, and the console is empty.
fn assert_quiet(browser: &mut Browser, admin: SocketAddr) {
    assert_eq!(browser.complaints(), [] as [&str; 0]);
    let own = format!("http://{admin}/");
    let elsewhere = |url: &&str| !url.starts_with(&own) && !url.starts_with("data:");
    let requests = browser.requests();
    assert!(requests.len() > 5, "{requests:?}");
    let elsewhere: Vec<&str> = requests.into_iter().filter(elsewhere).collect();
    assert_eq!(elsewhere, [] as [&str; 0]);
}

#[test]
fn it_shows_what_is_and_says_when_it_cannot() {
    let Some(program) = chromium() else {
        println!("left out: there is no Chromium here (tests/setup installs it)");
        return;
    };
    let mut browser = Browser::start(&program);
    browser.size(WIDE.0, WIDE.1);
    a_demo_is_followed(&mut browser);
    browser.forget();
    a_hundred_apps_are_within_everyones_reach(&mut browser);
}

fn a_demo_is_followed(browser: &mut Browser) {
    let demo = Demo::start();
    browser.open(&format!("http://{}/", demo.admin));
    browser.until("a live page", LIVE);
    browser.until("a client that is well", NO_NOTICE);

    let bar = "document.querySelector('.bar i').style.width";
    let before = browser.eval(bar);
    browser.until("the bar moves", &format!("{bar} !== {before}"));
    let plot = "document.querySelector('.plots path').getAttribute('d')";
    browser.until("a first step", &format!("({plot} ?? '').length > 0"));
    let before = browser.eval(plot);
    browser.until("the plot moves", &format!("{plot} !== {before}"));
    let plots = browser.eval(
        "[...document.querySelectorAll('.plots svg')].map(it => it.getAttribute('aria-label'))",
    );
    let plots: Vec<String> = serde_json::from_value(plots).unwrap();
    for (plot, start) in plots.iter().zip([
        "Requests/s: ",
        "Failed: 0 % now, at most 0 % in 2 min",
        "Latency: p50 ",
        "Tokens taken: ",
        "Pool: ",
    ]) {
        assert!(plot.starts_with(start), "{plots:?}");
    }
    assert_eq!(plots.len(), 5);
    let from = "document.querySelector('.plots [data-field=from]').textContent";
    assert_eq!(browser.eval(from), "2 min ago");
    browser.eval("document.querySelector('#range [value=day]').click()");
    assert_eq!(browser.eval(from), "2 h ago");
    let pressed = "document.querySelector('#range [aria-pressed=true]').textContent";
    assert_eq!(browser.eval(pressed), "24 h");
    browser.eval("document.querySelector('#range [value=recent]').click()");
    pictures(browser, "demo");

    let generation = status(demo.admin)["clients"][0]["token"]["generation"].as_u64();
    demo.revoke();
    let is_replaced = |client: &Value| {
        client["requests"]["rejected"].as_u64() > Some(0)
            && client["token"]["generation"].as_u64() > generation
    };
    demo.shows(
        browser,
        "a revoked token",
        is_replaced,
        &notice("token rejected"),
    );
    browser.until("the end of it", NO_NOTICE);

    demo.fault("api", "status:503");
    let failed = status(demo.admin)["clients"][0]["requests"]["failed"].as_u64();
    let is_failing = |client: &Value| client["requests"]["failed"].as_u64() > failed;
    demo.shows(
        browser,
        "an outage of the API",
        is_failing,
        &notice("requests failing"),
    );
    demo.reset();
    browser.until("the end of it", NO_NOTICE);

    demo.fault("token", "status:503");
    let has_failed = |client: &Value| client["failure"]["outcome"] == "server_error";
    let shown = notice("token request: server error");
    demo.shows(
        browser,
        "an outage of the token endpoint",
        has_failed,
        &shown,
    );
    let logged = "document.querySelector('.log li .outcome').textContent";
    assert_eq!(browser.eval(logged), "server error");
    pictures(browser, "outage");
    demo.reset();
    let is_over = |client: &Value| client["failure"].is_null();
    let shown = format!("!({shown})");
    demo.shows(browser, "the end of it", is_over, &shown);
    assert_quiet(browser, demo.admin);

    browser.scripts(false);
    browser.open(&format!("http://{}/", demo.admin));
    let text = "document.body.innerText";
    browser.until("text", &format!("{text}.includes('Without JavaScript')"));
    let read = browser.eval(text).as_str().unwrap().to_owned();
    for part in [
        "default",
        CLIENT_ID,
        "holds token",
        "127.0.0.1",
        "server_error",
        "ready",
    ] {
        assert!(read.contains(part), "{part} is not in {read}");
    }
    let own = format!("http://{}/", demo.admin);
    let loaded = |browser: &Browser| {
        let requests = browser.requests();
        requests.iter().filter(|url| **url == own).count()
    };
    let before = loaded(browser);
    until("it reloads", || {
        browser.eval("0");
        (loaded(browser) > before).then_some(())
    });
    pictures(browser, "plain");
    browser.scripts(true);
    assert_quiet(browser, demo.admin);
}

/// A configuration with a hundred apps, a listener with a certificate about to expire, and a store.
fn crowded(collibra: &str, folder: &Path, authority: &Authority, admin: &str) -> String {
    let day = Duration::from_secs(24 * 3_600);
    let files = authority.valid_for("localhost", 9 * day + day / 2);
    let mut text = format!(
        r#"
[instance.acme]
url = "{collibra}"
[client.catalog]
instance = "acme"
client_id = "{CLIENT_ID}"
client_secret = "{CLIENT_SECRET}"
[listener.local]
address = "127.0.0.1:0"
client = "catalog"
[listener.tls]
address = "127.0.0.1:0"
client = "catalog"
tls = {{ cert_file = {:?}, key_file = {:?} }}
[store]
kind = "file"
path = {:?}
[admin]
address = "{admin}"
"#,
        files.cert,
        files.key,
        folder.join("store"),
    );
    for nth in 0..100 {
        let file = folder.join(format!("{nth}.key"));
        fs::write(&file, key(nth)).unwrap();
        write!(text, "[app.app-{nth:03}]\nkey_file = {file:?}\n").unwrap();
        if nth % 3 == 0 {
            text.push_str("requests_per_second = 500\nmax_in_flight = 4\n");
        }
    }
    text
}

/// The key of the app with this number.
fn key(nth: u32) -> String {
    format!("a-key-for-the-tests-{nth:03}")
}

/// Sends a request of the app with this number.
fn send(proxy: &Proxy, nth: u32, path: &str) -> Connection {
    let mut connection = proxy.connect();
    let shown = BASE64_STANDARD.encode(format!("app-{nth:03}:{}", key(nth)));
    let request = format!("GET {path} HTTP/1.1\nHost: {{host}}\nAuthorization: Basic {shown}\n\n");
    connection.send(proxy.bytes(&request));
    connection
}

/// The texts of a column of the apps' table.
fn column(browser: &mut Browser, name: &str) -> Vec<String> {
    let script = format!(
        "[...document.querySelectorAll('#apps [data-field={name}]')].map(it => it.textContent)"
    );
    serde_json::from_value(browser.eval(&script)).unwrap()
}

fn a_hundred_apps_are_within_everyones_reach(browser: &mut Browser) {
    let simulator = Simulator::start();
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let text = |admin: &str| crowded(&simulator.url(), folder.path(), &authority, admin);
    let proxy = Proxy::by_text(&text("127.0.0.1:0")).start();
    proxy.has_token();
    let _busy: Vec<_> = (0..3).map(|_| send(&proxy, 42, "/_sleep/600000")).collect();
    for nth in (0..100).step_by(7) {
        for _ in 0..nth {
            let answer = send(&proxy, nth, "/rest/2.0/application/info").answer("GET");
            assert_eq!(answer.status, 200);
        }
    }
    browser.open(&format!("http://{}/", proxy.admin));
    browser.until("a live page", LIVE);
    let card = "document.querySelector('#clients .card').innerText";
    browser.until(
        "the store",
        &format!("/Store\\s+file, up, [\\d.,]+ ms/.test({card})"),
    );
    let certificate = "document.getElementById('certificates').innerText";
    browser.until(
        "the certificate",
        &format!("{certificate}.includes('9 days left: renew it')"),
    );
    let listeners = "document.getElementById('listeners').innerText";
    browser.until(
        "the connections",
        &format!("{listeners}.includes('3 of 10,000')"),
    );

    can_be_searched_by_keyboard(browser);
    is_accessible(browser);
    pictures(browser, "apps");
    assert_quiet(browser, proxy.admin);
    it_asks_where_too_many_listen(browser, proxy.admin);
    a_lost_connection_is_told(browser, proxy, &text);
}

fn can_be_searched_by_keyboard(browser: &mut Browser) {
    let names = column(browser, "name");
    assert_eq!((names.len(), names.is_sorted()), (100, true), "{names:?}");
    browser.eval("document.querySelector('#app-heads [data-key=requests] button').focus()");
    browser.press("Enter", 13);
    assert_eq!(column(browser, "requests")[..2], ["98", "91"]);
    let sorted =
        "[...document.querySelectorAll('[aria-sort]')].map(it => it.dataset.key + it.ariaSort)";
    assert_eq!(browser.eval(sorted), json!(["requestsdescending"]));
    browser.press("Enter", 13);
    assert_eq!(column(browser, "requests")[0], "0");
    assert_eq!(browser.eval(sorted), json!(["requestsascending"]));
    browser.eval("document.querySelector('#app-heads [data-key=used] button').focus()");
    browser.press("Enter", 13);
    assert_eq!(column(browser, "name")[0], "app-042");
    assert_eq!(column(browser, "flight")[0], "3 of 4");
    assert_eq!(column(browser, "used")[0], "75 %");
    browser.eval("document.getElementById('filter').focus()");
    browser.call("Input.insertText", &json!({ "text": "P-09" }));
    assert_eq!(column(browser, "name").len(), 10);
    let counted = "document.getElementById('app-count').textContent";
    assert_eq!(browser.eval(counted), "10 of 100 apps");
    for _ in 0..4 {
        browser.press("Backspace", 8);
    }
    assert_eq!(column(browser, "name").len(), 100);
}

/// That axe-core finds nothing, and nothing is to be scrolled to at the side.
fn is_accessible(browser: &mut Browser) {
    let axe = fs::read_to_string(made("target/node/node_modules/axe-core/axe.min.js")).unwrap();
    browser.eval(&format!("{axe}; 0"));
    for (width, height) in [WIDE, NARROW] {
        browser.size(width, height);
        let overflow =
            "document.documentElement.scrollWidth - document.documentElement.clientWidth";
        assert_eq!(browser.eval(overflow), 0, "at {width} px");
        for scheme in ["light", "dark"] {
            browser.prefers(scheme);
            let findings = browser.eval(
                "axe.run(document, { preload: false }).then(found => [found.passes.length, found.violations.map(it =>
                    [it.id, it.help, it.nodes.slice(0, 3).map(node => node.html + node.failureSummary)])])",
            );
            assert!(findings[0].as_u64() > Some(20), "{findings}");
            assert_eq!(findings[1], json!([]), "at {width} px, {scheme}");
        }
    }
}

/// The stream is refused, and the page goes on by asking.
fn it_asks_where_too_many_listen(browser: &mut Browser, admin: SocketAddr) {
    browser.open("about:blank");
    let listen = || {
        let mut listener = Connection::open(admin);
        listener.send("GET /api/events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n");
        (listener.head().status == 200).then_some(listener)
    };
    // the page before may have to be noticed to be gone
    let listeners: Vec<_> = (0..16).map(|_| until("a place", listen)).collect();
    assert!(listen().is_none());
    browser.open(&format!("http://{admin}/"));
    let drawn = "document.querySelector('.plots path')?.getAttribute('d')?.length > 0";
    browser.until("a live page", &format!("{LIVE} && {drawn}"));
    drop(listeners);
}

fn a_lost_connection_is_told(browser: &mut Browser, proxy: Proxy, text: &dyn Fn(&str) -> String) {
    let lost = "document.getElementById('live').textContent === 'connection lost' \
        && document.getElementById('note').checkVisibility() \
        && document.getElementById('state').textContent === 'not answering'";
    let is_told_within = |browser: &mut Browser, start: Instant| {
        browser.until("the loss", lost);
        let took = start.elapsed();
        assert!(took < LOST, "the loss is shown after {took:?}");
    };
    let found = format!("{LIVE} && !document.getElementById('note').checkVisibility()");

    // it hangs, and goes on
    let start = now();
    proxy.process.signal("STOP");
    is_told_within(browser, start);
    browser.picture(&kept("status-lost.png"));
    proxy.process.signal("CONT");
    browser.until("the connection", &found);

    // it is gone, and another one comes
    let admin = proxy.admin;
    let start = now();
    drop(proxy);
    is_told_within(browser, start);
    let _other = Proxy::by_text(&text(&admin.to_string())).start();
    browser.until("the connection", &found);
}
