//! How apps authenticate.

use super::*;

#[test]
fn an_app_is_known_by_its_name_and_key_or_by_its_key() {
    let (simulator, proxy) = known_apps("");
    for shown in [
        basic("lineage", KEY),
        // as in RFC 6749, section 2.3.1
        basic("lineage", "lin%2Beage%2520key%2F0123456789"),
        basic("reader", READER_KEY),
        format!("Authorization: Bearer {KEY}\n"),
        format!("authorization: bearer   {READER_KEY}\n"),
    ] {
        let answer = call(&proxy, "GET /rest/2.0/assets", &shown);
        assert_eq!(answer.status, 200, "{shown}: {}", answer.text());
    }
    simulator.assert_one_token_and_none_unauthorized();
    let counted = |app: &str| {
        let labels = format!("{{app=\"{app}\",client=\"catalog\",code=\"200\",method=\"GET\"}}");
        proxy.metric(&format!("collibra_auth_proxy_requests_total{labels}"))
    };
    assert_eq!(
        (counted("lineage"), counted("reader")),
        (Some(3.0), Some(2.0))
    );
}

#[test]
fn nobody_else_is_served() {
    let (simulator, proxy) = known_apps("");
    let before = simulator.count("requests");
    let both = format!("{}{}", basic("lineage", KEY), basic("reader", READER_KEY));
    for shown in [
        String::new(),
        basic("lineage", READER_KEY),
        basic("reader", KEY),
        basic("nobody", KEY),
        basic("lineage", ""),
        basic("", KEY),
        format!("Authorization: Basic {KEY}\n"),
        "Authorization: Bearer wrong-key-0123456789\n".to_owned(),
        "Authorization: Bearer\n".to_owned(),
        "Authorization: Bearer cap1.a.lineage.9999999999.AAAA\n".to_owned(),
        "Cookie: JSESSIONID=cap1.a.lineage.9999999999.AAAA\n".to_owned(),
        format!("Proxy-{}", basic("lineage", KEY)),
        format!("X-{}", basic("lineage", KEY)),
        both,
    ] {
        let answer = call(&proxy, "GET /rest/2.0/assets", &shown);
        assert_eq!(answer.status, 401, "{shown}");
        answer.assert_refused(401, "unknown-app");
        let challenge = answer.header("www-authenticate").unwrap();
        assert!(challenge.starts_with("Basic realm="), "{challenge}");
    }
    assert_eq!(simulator.count("requests"), before);
    assert_eq!(
        proxy
            .metric("collibra_auth_proxy_refused_total{listener=\"local\",reason=\"unknown-app\"}"),
        Some(14.0)
    );
}

#[test]
fn what_an_app_shows_ends_here() {
    let (_simulator, proxy) = known_apps("");
    let answer = call(&proxy, "GET /echo", &basic("lineage", KEY));
    let told = answer.json();
    assert_eq!(answer.status, 200, "{told}");
    assert_eq!(told["headers"]["authorization"], serde_json::Value::Null);
    assert!(!answer.text().contains(KEY), "{told}");
}

#[test]
fn a_key_that_changes_counts_at_once_and_the_old_one_no_more() {
    let simulator = Simulator::start();
    let (_folder, path) = crate::support::file("key", b"first-key-0123456789\n");
    let app = format!("[app.lineage]\nkey_file = \"{}\"\n", path.display());
    let proxy = Proxy::configured(&simulator.url(), "", &app).start();
    proxy.has_token();
    let status = |key: &str| call(&proxy, "GET /rest/2.0/assets", &basic("lineage", key)).status;
    assert_eq!(status("first-key-0123456789"), 200);
    let token = ask_for_token(
        &proxy,
        &basic("lineage", "first-key-0123456789"),
        "grant_type=client_credentials",
    );
    let token = token.json()["access_token"].as_str().unwrap().to_owned();
    std::fs::write(&path, "second-key-0123456789").unwrap();
    proxy.process.signal("HUP");
    crate::support::until("the new key counts", || {
        (status("second-key-0123456789") == 200).then_some(())
    });
    assert_eq!(status("first-key-0123456789"), 401);
    let shown = format!("Authorization: Bearer {token}\n");
    assert_eq!(call(&proxy, "GET /rest/2.0/assets", &shown).status, 401);
    simulator.assert_one_token_and_none_unauthorized();
}

#[test]
fn the_log_tells_who_did_what_and_by_which_id() {
    let simulator = Simulator::start();
    let proxy = Proxy::configured(&simulator.url(), "", APPS)
        .variable("LINEAGE_KEY", KEY)
        .variable("READER_KEY", READER_KEY)
        .start();
    proxy.has_token();
    let line = |path: &str| {
        proxy.process.err.wait_for("the request's line", |line| {
            let line: serde_json::Value = serde_json::from_str(line).ok()?;
            (line["path"] == path).then_some(line)
        })
    };
    let shown = basic("reader", READER_KEY);
    let headers = format!("{shown}X-Request-Id: job-7.1\n");
    let answer = call(&proxy, "GET /rest/2.0/assets/1?secret=q", &headers);
    assert_eq!(answer.header("x-request-id"), Some("job-7.1"));
    let told = line("/rest/2.0/assets/1");
    assert_eq!(told["app"], "reader", "{told}");
    assert_eq!(told["request_id"], "job-7.1");
    assert_eq!(told["token_generation"], 1);

    let headers = format!("{shown}X-Request-Id: not plain\n");
    let answer = call(&proxy, "DELETE /rest/2.0/assets/2", &headers);
    answer.assert_refused(403, "denied");
    let id = answer.header("x-request-id").unwrap().to_owned();
    let told = line("/rest/2.0/assets/2");
    assert_eq!(
        (&told["app"], &told["refused"]),
        (&"reader".into(), &"denied".into())
    );
    assert_eq!(told["request_id"], *id);
    assert_eq!(id.len(), 32);
}
