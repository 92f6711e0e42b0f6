//! The metrics of the running program: their documentation, how many series there are, and how
//! large a scrape is.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::io::Read as _;
use std::path::Path;

use crate::support::certificate::Authority;
use crate::support::http;
use crate::support::simulator::{CLIENT_ID, CLIENT_SECRET};
use crate::support::{Connection, Proxy, Simulator};

/// One family, as a scrape shows it.
#[derive(Default)]
struct Family {
    kind: String,
    help: String,
    /// The values of each label.
    labels: BTreeMap<String, BTreeSet<String>>,
}

/// The labels whose values are a closed list.
const CLOSED: [&str; 5] = ["kind", "operation", "outcome", "reason", "source"];

#[test]
fn the_documentation_lists_every_metric() {
    let authority = Authority::new();
    let own = authority.files("localhost");
    let (cert, key) = (own.cert.to_str().unwrap(), own.key.to_str().unwrap());
    let simulator = Simulator::with(&["--tls-cert", cert, "--tls-key", key]);
    let url = simulator.url().replace("127.0.0.1", "localhost");
    let text = format!(
        r#"
[instance.acme]
url = "{url}"
ca_file = {ca:?}
client_cert_file = {cert:?}
client_key_file = {key:?}
[client.catalog]
instance = "acme"
client_id = "{CLIENT_ID}"
client_secret = "{CLIENT_SECRET}"
[listener.local]
address = "127.0.0.1:0"
client = "catalog"
[listener.secure]
address = "127.0.0.1:0"
client = "catalog"
tls = {{ cert_file = {cert:?}, key_file = {key:?} }}
[app.lineage]
key_env = "APP_KEY"
requests_per_second = 50
max_in_flight = 32
[admin]
address = "127.0.0.1:0"
"#,
        ca = authority.ca_file(),
    );
    let key = "a-key-that-is-long-enough";
    let proxy = Proxy::by_text(&text).variable("APP_KEY", key).start();
    proxy.has_token();
    assert_eq!(proxy.get("/").status, 401);
    let known = format!("GET /echo HTTP/1.1\nHost: {{host}}\nAuthorization: Bearer {key}\n\n");
    assert_eq!(proxy.ask(&known).status, 200);
    // a request is counted after its response has left
    proxy.metric_becomes(
        "collibra_auth_proxy_requests_total{source=\"instance\"}",
        1.0,
    );
    let expected = table(&families(&http::get(proxy.admin, "/metrics").text()));

    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md");
    let text = fs::read_to_string(&page).unwrap();
    let (preamble, documented) = text.split_at(text.find("| Metric |").unwrap_or(text.len()));
    if documented != expected {
        let written = Path::new(env!("CARGO_TARGET_TMPDIR")).join("metrics.md");
        fs::write(&written, format!("{preamble}{expected}")).unwrap();
        let written = written.display();
        panic!("docs/metrics.md is not up to date: read {written}, and copy it there");
    }
}

/// What stands in a scrape, without the library's own families.
fn families(text: &str) -> BTreeMap<String, Family> {
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let mut name = String::new();
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (family, help) = help.split_once(' ').unwrap();
            name = family.to_owned();
            families.entry(name.clone()).or_default().help = help.to_owned();
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (_, kind) = kind.split_once(' ').unwrap();
            families.get_mut(&name).unwrap().kind = kind.to_owned();
        } else if let Some((_, labels)) = line.split_once('{') {
            let labels = labels.rsplit_once('}').unwrap().0;
            for label in labels.split("\",") {
                let (label, value) = label.split_once("=\"").unwrap();
                if label != "le" {
                    let family = families.get_mut(&name).unwrap();
                    let values = family.labels.entry(label.to_owned()).or_default();
                    values.insert(value.trim_end_matches('"').to_owned());
                }
            }
        }
    }
    families.retain(|name, _| !name.starts_with("process_"));
    families
}

fn table(families: &BTreeMap<String, Family>) -> String {
    let mut table = "| Metric | Type | Labels | Meaning |\n|---|---|---|---|\n".to_owned();
    for (name, family) in families {
        let labels = family.labels.iter().map(|(label, values)| {
            if CLOSED.contains(&label.as_str()) {
                let values: Vec<_> = values.iter().map(|value| format!("`{value}`")).collect();
                format!("`{label}`: {}", values.join(" "))
            } else {
                format!("`{label}`")
            }
        });
        let labels: Vec<_> = labels.collect();
        let Family { kind, help, .. } = family;
        writeln!(
            table,
            "| `{name}` | {kind} | {} | {help} |",
            labels.join("; ")
        )
        .unwrap();
    }
    table.push_str(
        "| `process_*` | | | CPU time, memory, open files and threads of the process (Linux). |\n",
    );
    table
}

/// A proxy with `apps` apps, each of which has a key of its own: `key-of-app-NNN-NNN`.
fn with_apps(url: &str, apps: usize) -> Proxy {
    let mut more = String::new();
    for nth in 0..apps {
        write!(more, "[app.app-{nth:03}]\nkey_env = \"KEY_{nth}\"\n").unwrap();
    }
    let text = format!(
        r#"
[instance.acme]
url = "{url}"
[client.catalog]
instance = "acme"
client_id = "{CLIENT_ID}"
client_secret = "{CLIENT_SECRET}"
[listener.local]
address = "127.0.0.1:0"
client = "catalog"
[admin]
address = "127.0.0.1:0"
[log]
access = false
{more}"#
    );
    let mut builder = Proxy::by_text(&text);
    for nth in 0..apps {
        builder = builder.variable(&format!("KEY_{nth}"), &key(nth));
    }
    let proxy = builder.start();
    proxy.has_token();
    proxy
}

fn key(nth: usize) -> String {
    format!("key-of-app-{nth:03}-{nth:03}")
}

fn ask(connection: &mut Connection, method: &str, path: &str, more: &str) {
    let request = format!("{method} {path} HTTP/1.1\r\n{more}\r\n");
    connection.send(request.into_bytes());
    let _ = connection.answer(method);
}

#[test]
fn odd_requests_add_no_series() {
    let simulator = Simulator::start();
    let proxy = with_apps(&simulator.url(), 1);
    let count = || http::get(proxy.admin, "/metrics").text().lines().count();
    let address = proxy.address;
    let odd = |nth: usize| {
        let host = format!("Host: {address}\r\n");
        let basic = format!("Authorization: Bearer wrong-key-number-{nth}\r\n");
        let known = format!("Authorization: Bearer {}\r\n", key(0));
        match nth % 4 {
            0 => ("GET".to_owned(), format!("/odd/{nth}"), host + &known),
            1 => (format!("ODD{nth}"), "/x".to_owned(), host + &known),
            2 => (
                "GET".to_owned(),
                "/x".to_owned(),
                format!("Host: h{nth}.example\r\n"),
            ),
            _ => ("GET".to_owned(), "/x".to_owned(), host + &basic),
        }
    };
    let send = |from: usize, to: usize| {
        let mut connection = proxy.connect();
        for nth in from..to {
            let (method, path, more) = odd(nth);
            ask(&mut connection, &method, &path, &more);
        }
    };
    // each kind once
    send(0, 8);
    let before = count();
    send(8, 10_000);
    assert_eq!(count(), before);
}

#[test]
fn a_scrape_with_a_hundred_busy_apps_stays_small() {
    let simulator = Simulator::start();
    let proxy = with_apps(&simulator.url(), 100);
    let host = format!("Host: {}\r\n", proxy.address);
    let mut connection = proxy.connect();
    for nth in 0..100 {
        let more = format!("{host}Authorization: Bearer {}\r\n", key(nth));
        for (method, path) in [
            ("GET", "/rest/2.0/application/info"),
            ("GET", "/rest/2.0/none"),
            ("POST", "/rest/2.0/none"),
        ] {
            let body = if method == "POST" {
                "Content-Length: 0\r\n"
            } else {
                ""
            };
            ask(&mut connection, method, path, &format!("{more}{body}"));
        }
    }
    let mut scrape = Connection::open(proxy.admin);
    let request = format!(
        "GET /metrics HTTP/1.1\r\nHost: {}\r\nAccept-Encoding: gzip\r\n\r\n",
        proxy.admin
    );
    scrape.send(request.into_bytes());
    let answer = scrape.answer("GET");
    let mut text = String::new();
    let mut decoder = flate2::read::GzDecoder::new(&answer.body[..]);
    decoder.read_to_string(&mut text).unwrap();
    assert!(text.contains("app=\"app-099\""), "{text}");
    let size = answer.body.len();
    assert!(size < 100_000, "{size} bytes");
}
