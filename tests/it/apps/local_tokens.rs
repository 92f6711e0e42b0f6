//! An app that requests a token, or logs in, gets a local token.

use super::*;

const GRANT: &str = "grant_type=client_credentials";

fn token_of(answer: &Answer) -> String {
    assert_eq!(answer.status, 200, "{}", answer.text());
    let told = answer.json();
    assert_eq!(told["token_type"], "Bearer");
    assert_eq!(told["expires_in"], 3_600);
    assert_eq!(told.get("scope"), None);
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(answer.header("x-collibra-auth-proxy"), Some("local-token"));
    told["access_token"].as_str().unwrap().to_owned()
}

fn with(proxy: &Proxy, token: &str, line: &str) -> Answer {
    call(proxy, line, &format!("Authorization: Bearer {token}\n"))
}

#[test]
fn without_apps_any_credentials_do() {
    let (simulator, proxy) = crate::support::pair();
    for (headers, form) in [
        (basic("any", "thing"), GRANT.to_owned()),
        (
            String::new(),
            format!("{GRANT}&client_id=any&client_secret=thing"),
        ),
    ] {
        let token = token_of(&ask_for_token(&proxy, &headers, &form));
        assert_eq!(with(&proxy, &token, "GET /rest/2.0/assets").status, 200);
    }
    simulator.assert_one_token_and_none_unauthorized();
    assert_eq!(
        proxy.metric("collibra_auth_proxy_local_tokens_total{app=\"\"}"),
        Some(2.0)
    );
}

#[test]
fn an_app_gets_a_token_for_its_key_in_both_ways() {
    let (simulator, proxy) = known_apps("");
    let in_body = format!("{GRANT}&client_id=reader&client_secret={READER_KEY}");
    for (headers, form) in [
        (basic("reader", READER_KEY), GRANT),
        (String::new(), &*in_body),
    ] {
        let token = token_of(&ask_for_token(&proxy, &headers, form));
        assert_eq!(with(&proxy, &token, "GET /rest/2.0/assets").status, 200);
        // it stands for the app, with the app's permissions
        with(&proxy, &token, "GET /rest/catalog/1.0").assert_refused(403, "denied");
    }
    simulator.assert_one_token_and_none_unauthorized();
    assert_eq!(
        proxy.metric("collibra_auth_proxy_local_tokens_total{app=\"reader\"}"),
        Some(2.0)
    );
}

#[test]
fn the_clients_own_id_and_secret_do_as_well() {
    use crate::support::simulator::{CLIENT_ID, CLIENT_SECRET};
    let (simulator, proxy) = known_apps("");
    let encoded =
        |text: &str| -> String { url::form_urlencoded::byte_serialize(text.as_bytes()).collect() };
    let (id, secret) = (encoded(CLIENT_ID), encoded(CLIENT_SECRET));
    for (headers, form) in [
        (basic(&id, &secret), GRANT.to_owned()),
        (
            String::new(),
            format!("{GRANT}&client_id={id}&client_secret={secret}"),
        ),
    ] {
        let token = token_of(&ask_for_token(&proxy, &headers, &form));
        assert_eq!(with(&proxy, &token, "GET /rest/catalog/1.0").status, 200);
    }
    simulator.assert_one_token_and_none_unauthorized();
}

#[test]
fn others_are_told_in_the_standards_words() {
    let (simulator, proxy) = known_apps("");
    let refused = |headers: &str, form: &str, status: u16, error: &str| {
        let answer = ask_for_token(&proxy, headers, form);
        assert_eq!(answer.status, status, "{headers}{form}");
        let told = answer.json();
        assert_eq!(told["error"], error, "{headers}{form}");
        assert!(told["error_description"].is_string());
        answer
    };
    let wrong = basic("reader", KEY);
    let answer = refused(&wrong, GRANT, 401, "invalid_client");
    let reason = answer.header("x-collibra-auth-proxy");
    assert_eq!(reason, Some("unknown-app"));
    assert!(
        answer
            .header("www-authenticate")
            .unwrap()
            .starts_with("Basic")
    );
    let form = format!("{GRANT}&client_id=reader&client_secret=x");
    let answer = refused("", &form, 401, "invalid_client");
    assert_eq!(
        answer.header("www-authenticate"),
        None,
        "it did not try the header"
    );
    refused("", GRANT, 401, "invalid_client");
    let right = basic("reader", READER_KEY);
    refused(&right, "", 400, "invalid_request");
    refused(&right, "grant_type=password", 400, "unsupported_grant_type");
    refused(&right, &format!("{GRANT}&{GRANT}"), 400, "invalid_request");
    refused(&right, &form, 400, "invalid_request");
    let large = format!("{GRANT}&x={}", "x".repeat(20_000));
    ask_for_token(&proxy, &right, &large).assert_refused(400, "bad-request");
    assert_eq!(simulator.of_client("issued"), 1);
}

#[test]
fn a_token_is_good_after_a_restart_and_at_a_replica_and_not_for_another_app() {
    let (simulator, proxy) = known_apps("");
    let token = token_of(&ask_for_token(&proxy, &basic("reader", READER_KEY), GRANT));
    let replica = Proxy::configured(&simulator.url(), "", APPS)
        .variable("LINEAGE_KEY", KEY)
        .variable("READER_KEY", READER_KEY)
        .start();
    replica.has_token();
    assert_eq!(with(&replica, &token, "GET /rest/2.0/assets").status, 200);
    let forged = token.replace(".reader.", ".lineage.");
    with(&replica, &forged, "GET /rest/2.0/assets").assert_refused(401, "unknown-app");
    // Collibra does not accept it
    let direct = http::get(simulator.address, "/rest/2.0/assets");
    assert_eq!(direct.status, 401);
}

#[test]
fn a_program_that_logs_in_works_and_no_session_is_opened() {
    let (simulator, proxy) = known_apps("");
    let before = simulator.count("requests");
    let answer = log_in(&proxy, "reader", READER_KEY);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let csrf = answer.json()["csrfToken"].as_str().unwrap().to_owned();
    let cookie = answer.header("set-cookie").unwrap().to_owned();
    assert!(cookie.contains("; HttpOnly; SameSite=Strict"), "{cookie}");
    assert_eq!(simulator.count("requests"), before, "nothing travelled on");

    let session = cookie.split(';').next().unwrap();
    let headers =
        format!("Cookie: JSESSIONID=of-collibra; other=1; {session}\nX-CSRF-TOKEN: {csrf}\n");
    assert_eq!(call(&proxy, "GET /rest/2.0/assets", &headers).status, 200);
    let current = call(&proxy, "GET /rest/2.0/auth/sessions/current", &headers);
    assert_eq!(current.status, 200, "{}", current.text());
    call(&proxy, "GET /rest/catalog/1.0", &headers).assert_refused(403, "denied");
    let before = simulator.count("requests");
    let ended = call(&proxy, "DELETE /rest/2.0/auth/sessions/current", &headers);
    assert_eq!((ended.status, ended.body.len()), (204, 0));
    assert!(ended.header("set-cookie").unwrap().contains("Max-Age=0"));
    assert_eq!(simulator.count("requests"), before);
    call(&proxy, "GET /rest/2.0/assets", &headers).assert_refused(401, "unknown-app");

    log_in(&proxy, "reader", "wrong").assert_refused(401, "unknown-app");
    simulator.assert_one_token_and_none_unauthorized();
}

#[test]
fn logins_may_be_denied_or_passed_on() {
    for (sessions, status, reason, travelled) in
        [("deny", 403, Some("denied"), 0), ("pass", 200, None, 1)]
    {
        let simulator = Simulator::start();
        let policy = format!("[policy]\nsessions = \"{sessions}\"\n");
        let proxy = Proxy::configured(&simulator.url(), "", &policy).start();
        proxy.has_token();
        let before = simulator.count("requests");
        let answer = log_in(&proxy, "a", "b");
        assert_eq!(answer.status, status, "{sessions}: {}", answer.text());
        assert_eq!(answer.header("x-collibra-auth-proxy"), reason);
        assert_eq!(simulator.count("requests"), before + travelled);
    }
}

#[test]
fn a_logout_ends_its_own_session_at_every_listener_and_no_other() {
    let second = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    let more = format!("[listener.second]\naddress = \"{second}\"\n");
    let (_simulator, proxy) = known_apps(&more);
    let session = || {
        let answer = log_in(&proxy, "reader", READER_KEY);
        let cookie = answer.header("set-cookie").unwrap().to_owned();
        assert!(cookie.contains("; Max-Age=28800;"), "{cookie}");
        format!("Cookie: {}\n", cookie.split(';').next().unwrap())
    };
    let (one, other) = (session(), session());
    assert_ne!(one, other, "both within a second");
    let token = token_of(&ask_for_token(&proxy, &basic("reader", READER_KEY), GRANT));
    let bearer = format!("Authorization: Bearer {token}\n");
    let get = "GET /rest/2.0/assets";
    assert_eq!(call(&proxy, get, &one).status, 200);
    // a token that nobody signed ends nothing
    let forged = one.replace(".reader.", ".lineage.");
    assert_eq!(
        call(&proxy, "DELETE /rest/2.0/auth/sessions", &forged).status,
        204
    );
    assert_eq!(call(&proxy, get, &one).status, 200);

    assert_eq!(
        call(&proxy, "DELETE /rest/2.0/auth/sessions/current", &one).status,
        204
    );
    call(&proxy, get, &one).assert_refused(401, "unknown-app");
    let mut elsewhere = crate::support::Connection::open(second);
    let request = format!(
        "{get} HTTP/1.1\r\nHost: {second}\r\n{}\r\n\r\n",
        one.trim_end()
    );
    elsewhere.send(&request);
    elsewhere
        .answer(&request)
        .assert_refused(401, "unknown-app");
    assert_eq!(call(&proxy, get, &other).status, 200);
    assert_eq!(call(&proxy, get, &bearer).status, 200);
    assert_eq!(
        call(&proxy, "DELETE /rest/2.0/auth/sessions/current", &bearer).status,
        204
    );
    call(&proxy, get, &bearer).assert_refused(401, "unknown-app");
    assert_eq!(call(&proxy, get, &other).status, 200);
}

#[test]
fn a_flood_of_token_requests_meets_a_limit_of_its_own() {
    let (_simulator, proxy) = known_apps("");
    // as many as a second's worth may come at once; more than that is refused
    let flood = |headers: &str, most: usize| {
        let mut refused = 0;
        for _ in 0..10 * most {
            let answer = ask_for_token(&proxy, headers, GRANT);
            if answer.status == 429 {
                assert_eq!(answer.json()["error"], "slow_down");
                assert_eq!(answer.header("x-collibra-auth-proxy"), Some("token-limit"));
                assert_eq!(answer.header("retry-after"), Some("1"));
                refused += 1;
            }
        }
        refused
    };
    assert!(flood(&basic("nobody", "wrong"), 100) > 0);
    // strangers take nothing from an app, nor one app from another
    let right = basic("reader", READER_KEY);
    token_of(&ask_for_token(&proxy, &right, GRANT));
    assert!(flood(&right, 20) > 0);
    let answer = log_in(&proxy, "reader", READER_KEY);
    if answer.status != 200 {
        answer.assert_refused(429, "token-limit");
    }
    token_of(&ask_for_token(&proxy, &basic("lineage", KEY), GRANT));
    let counted = "collibra_auth_proxy_refused_total{listener=\"local\",reason=\"token-limit\"}";
    assert!(proxy.metric(counted).unwrap() > 0.0);
}
