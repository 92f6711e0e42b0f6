//! The access log says who asked, and which side ended an exchange early.

use std::sync::Arc;

use serde_json::Value;

use crate::support::origin::{After, Gate};
use crate::support::{Origin, Proxy, until};

const APPS: &str = r#"
trusted_proxies = ["127.0.0.0/8"]
[app.lineage]
key_env = "LINEAGE_KEY"
"#;

const KEY: &str = "lineage-key-0123456789";

fn ok() -> Origin {
    Origin::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
}

/// The line of the request for `path`.
fn line(proxy: &Proxy, path: &str) -> Value {
    proxy.process.err.wait_for(path, |line| {
        let line: Value = serde_json::from_str(line).ok()?;
        (line["target"] == "access" && line["path"] == path).then_some(line)
    })
}

/// How many requests were counted with this value of `code`.
fn counted(proxy: &Proxy, code: &str) -> Option<f64> {
    proxy.metric(&format!(
        "collibra_auth_proxy_requests_total{{app=\"\",client=\"catalog\",code=\"{code}\",method=\"GET\"}}"
    ))
}

fn basic(name: &str, key: &str) -> String {
    use base64::Engine;
    let pair = base64::engine::general_purpose::STANDARD.encode(format!("{name}:{key}"));
    format!("Authorization: Basic {pair}\n")
}

#[test]
fn it_says_who_asked() {
    let origin = ok();
    let proxy = Proxy::configured(&origin.url(), "", APPS)
        .variable("LINEAGE_KEY", KEY)
        .start();
    proxy.has_token();
    let ask = |path: &str, fields: &str| {
        proxy.ask(&format!("GET {path} HTTP/1.1\nHost: {{host}}\n{fields}\n"))
    };
    let right = basic("lineage", KEY);
    let agent = "User-Agent: canary-agent/1\n";
    let through = "X-Forwarded-For: 192.0.2.1, 203.0.113.9, 127.0.0.5\n";
    assert_eq!(
        ask("/known", &format!("{right}{agent}{through}")).status,
        200
    );
    let known = line(&proxy, "/known");
    let peer = known["peer"].as_str().unwrap();
    assert!(peer.starts_with("127.0.0.1:"), "{known}");
    assert_eq!(known["forwarded"], "203.0.113.9");
    assert_eq!(known["app"], "lineage");
    assert!(known.get("claimed_app").is_none(), "{known}");
    assert!(known.get("user_agent").is_none(), "it was not asked for");

    for (path, fields, claimed) in [
        (
            "/wrong-key",
            basic("lineage", "wrong-key-0123456789"),
            Some("lineage"),
        ),
        ("/no-app", basic("canary-name", KEY), None),
        ("/key-as-name", basic(KEY, ""), None),
        (
            "/old-token",
            "Authorization: Bearer cap1.a.lineage.9.AAAA\n".to_owned(),
            Some("lineage"),
        ),
    ] {
        ask(path, &fields).assert_refused(401, "unknown-app");
        let line = line(&proxy, path);
        assert_eq!(
            line.get("claimed_app").and_then(Value::as_str),
            claimed,
            "{line}"
        );
        assert!(line.get("app").is_none(), "{line}");
    }
    let printed = proxy.process.err.all();
    for canary in ["canary", KEY, "wrong-key-0123456789"] {
        assert!(!printed.contains(canary), "{canary} in\n{printed}");
    }
}

#[test]
fn the_user_agent_is_logged_on_request_and_nobody_is_believed_about_addresses() {
    let origin = ok();
    let proxy = Proxy::configured(&origin.url(), "", "[log]\nuser_agent = true\n").start();
    proxy.has_token();
    proxy.ask(
        "GET /x HTTP/1.1\nHost: {host}\nX-Forwarded-For: 192.0.2.1\nUser-Agent: exporter/1.0 (\"a\")\n\n",
    );
    let line = line(&proxy, "/x");
    assert_eq!(line["user_agent"], "exporter/1.0 (\"a\")");
    assert!(line.get("forwarded").is_none(), "{line}");
}

#[test]
fn a_caller_that_leaves_is_not_an_upstream_that_breaks() {
    let gate = Gate::default();
    let held = Arc::new(gate.clone());
    let origin = Origin::start(move |request, stream| {
        match request.target() {
            "/held" => {
                held.pass();
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")?;
            }
            _ => stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhello")?,
        }
        Ok(After::Close)
    });
    let proxy = Proxy::configured(&origin.url(), "", "").start();
    proxy.has_token();

    let mut caller = proxy.connect();
    caller.send(proxy.bytes("GET /held HTTP/1.1\nHost: {host}\n\n"));
    until("the request at the instance", || {
        let requests = origin.requests();
        requests
            .iter()
            .any(|it| it.target() == "/held")
            .then_some(())
    });
    drop(caller);
    let left = line(&proxy, "/held");
    gate.open();
    assert_eq!(
        (&left["cut"], &left["status"]),
        (&"client_closed".into(), &0.into())
    );
    assert_eq!(counted(&proxy, "client_closed"), Some(1.0));

    let answer = proxy.get("/broken");
    assert!(!answer.whole, "{answer:?}");
    let broken = line(&proxy, "/broken");
    assert_eq!(
        (&broken["cut"], &broken["status"]),
        (&"upstream_reset".into(), &200.into())
    );
    assert_eq!(counted(&proxy, "upstream_reset"), Some(1.0));
    assert_eq!(counted(&proxy, "other"), None);
}
