//! Every response that the proxy makes itself: status, reason and body. Refused requests never
//! reach Collibra.

use std::time::Duration;

use crate::support::{Origin, Proxy, Simulator, pair};

#[test]
fn what_can_be_read_in_two_ways_is_refused() {
    let (simulator, proxy) = pair();
    for request in [
        // the target
        "GET //evil.example/x HTTP/1.1\nHost: {host}\n\n",
        "GET http://evil.example/x HTTP/1.1\nHost: {host}\n\n",
        "GET http://{host}@evil.example/ HTTP/1.1\nHost: {host}\n\n",
        "GET @evil.example/ HTTP/1.1\nHost: {host}\n\n",
        "GET rest/2.0 HTTP/1.1\nHost: {host}\n\n",
        "GET x/../rest/auth/v1/clients HTTP/1.1\nHost: {host}\n\n",
        "GET ?x HTTP/1.1\nHost: {host}\n\n",
        "GET {host} HTTP/1.1\nHost: {host}\n\n",
        "GET ftp://{host}/ HTTP/1.1\nHost: {host}\n\n",
        "GET http://localhost/ HTTP/1.1\nHost: {host}\n\n",
        "GET http://{host}//x HTTP/1.1\nHost: {host}\n\n",
        "OPTIONS * HTTP/1.1\nHost: {host}\n\n",
        "GET /rest/%2e%2e/auth HTTP/1.1\nHost: {host}\n\n",
        "GET /rest/%2E./auth HTTP/1.1\nHost: {host}\n\n",
        "GET /rest%2fauth HTTP/1.1\nHost: {host}\n\n",
        "GET /rest%5Cauth HTTP/1.1\nHost: {host}\n\n",
        "GET /rest\\auth HTTP/1.1\nHost: {host}\n\n",
        "GET /rest/%00 HTTP/1.1\nHost: {host}\n\n",
        "GET /rest/%zz HTTP/1.1\nHost: {host}\n\n",
        "GET /rest/..;/auth HTTP/1.1\nHost: {host}\n\n",
        "GET /rest/.;x=1/auth HTTP/1.1\nHost: {host}\n\n",
        // the host
        "GET /x HTTP/1.1\n\n",
        "GET /x HTTP/1.0\n\n",
        "GET /x HTTP/1.1\nHost: {host}\nHost: {host}\n\n",
        "GET /x HTTP/1.1\nHost: a b\n\n",
        "GET /x HTTP/1.1\nHost:\n\n",
        "GET /x HTTP/1.1\nHost: u@{host}\n\n",
        // the framing
        "POST /x HTTP/1.1\nHost: {host}\nContent-Length: 5,5\n\nhello",
        "POST /x HTTP/1.1\nHost: {host}\nContent-Length: +5\n\nhello",
        "POST /x HTTP/1.1\nHost: {host}\nContent-Length: 5\nContent-Length: 6\n\nhello",
        "POST /x HTTP/1.1\nHost: {host}\nContent-Length: 5\nContent-Length: 5\n\nhello",
        "POST /x HTTP/1.1\nHost: {host}\nTransfer-Encoding: gzip, chunked\n\n0\n\n",
        "POST /x HTTP/1.1\nHost: {host}\nTransfer-Encoding: xchunked\n\n0\n\n",
        "POST /x HTTP/1.0\nHost: {host}\nTransfer-Encoding: chunked\n\n0\n\n",
        // the headers
        "GET /x HTTP/1.1\nHost: {host}\nX_Forwarded_For: 1\n\n",
        "GET /x HTTP/1.1\nHost: {host}\nBad Name: 1\n\n",
        "GET /x HTTP/1.1\nHost: {host}\n folded: 1\n\n",
        "nonsense\n\n",
    ] {
        let answer = proxy.ask(request);
        assert!(
            answer.header("x-collibra-auth-proxy").is_some(),
            "{request:?}: {answer:?}"
        );
        answer.assert_refused(400, "bad-request");
    }
    assert_eq!(simulator.count("requests"), 0);
}

/// Both lengths at once: the request is refused and the connection closed (RFC 9112, section 6.3).
#[test]
fn a_length_beside_chunks_smuggles_nothing() {
    let origin = Origin::answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let proxy = Proxy::to(&origin.url()).start();
    let mut connection = proxy.connect();
    let head =
        "POST /x HTTP/1.1\nHost: {host}\nContent-Length: 5\nTransfer-Encoding: chunked\n\n0\n\n";
    let smuggled = "GET /smuggled HTTP/1.1\nHost: {host}\n\n";
    connection.send(proxy.bytes(&format!("{head}{smuggled}")));
    connection.answer(head).assert_refused(400, "bad-request");
    connection.is_closed();
    assert!(origin.requests().is_empty());
}

#[test]
fn an_absolute_target_of_ours_is_taken_as_its_path() {
    let (simulator, proxy) = pair();
    let instance = simulator.address;
    for target in [
        format!("http://{}/echo?x=1", proxy.address),
        format!("http://localhost:{}/echo?x=1", proxy.address.port()),
        format!("https://{instance}/echo?x=1"),
    ] {
        let host = target.split('/').nth(2).unwrap();
        let answer = proxy.ask(&format!("GET {target} HTTP/1.1\nHost: {host}\n\n"));
        assert_eq!(answer.status, 200, "{target}: {}", answer.text());
        let told = answer.json();
        assert_eq!(
            (&told["path"], &told["query"]),
            (&"/echo".into(), &"x=1".into())
        );
        assert_eq!(
            told["headers"]["host"],
            serde_json::json!([instance.to_string()])
        );
    }
    let denied = format!("GET http://{instance}/rest/auth/v1 HTTP/1.1\nHost: {instance}\n\n");
    proxy.ask(&denied).assert_refused(403, "denied");
    simulator.assert_one_token_and_none_unauthorized();
}

#[test]
fn the_token_endpoint_and_the_management_of_clients_are_denied() {
    let (simulator, proxy) = pair();
    for path in [
        "/rest/auth/v1/clients",
        "/rest/auth/v1/platform/clients/1",
        "/REST/Auth/V1/clients",
        "/rest/2.0/../auth/v1/clients",
        "/rest//auth/v1/clients",
        "/rest/%61uth/v1/clients",
        "/rest/auth;x/v1/clients",
    ] {
        let answer = proxy.get(path);
        assert_eq!(answer.status, 403, "{path}");
        answer.assert_refused(403, "denied");
    }
    for request in [
        "GET /rest/oauth/v2/token HTTP/1.1\nHost: {host}\n\n",
        "POST /rest/oauth/v2/token/x HTTP/1.1\nHost: {host}\nContent-Length: 0\n\n",
        "POST /rest/oauth/v2/%2574oken HTTP/1.1\nHost: {host}\nContent-Length: 0\n\n",
        "PUT /rest/2.0/auth/sessions/current HTTP/1.1\nHost: {host}\nContent-Length: 0\n\n",
        "POST /rest/2.0/auth/%2573essions HTTP/1.1\nHost: {host}\nContent-Length: 0\n\n",
    ] {
        proxy.ask(request).assert_refused(403, "denied");
    }
    assert_eq!(simulator.count("requests"), 0);
    simulator.assert_one_token_and_none_unauthorized();
}

#[test]
fn methods_that_echo_or_tunnel_are_refused() {
    let (simulator, proxy) = pair();
    for method in ["TRACE", "TRACK", "CONNECT"] {
        let request = format!("{method} /x HTTP/1.1\nHost: {{host}}\n\n");
        proxy.ask(&request).assert_refused(405, "method");
    }
    let tunnel = proxy.ask("CONNECT {host} HTTP/1.1\nHost: {host}\n\n");
    tunnel.assert_refused(405, "method");
    assert_eq!(simulator.count("requests"), 0);
}

#[test]
fn a_head_must_come_in_time_and_be_of_a_size() {
    let simulator = Simulator::start();
    let limits = "header_timeout = \"300ms\"\nmax_header_bytes = 2048";
    let proxy = Proxy::configured(&simulator.url(), "", limits).start();
    proxy.has_token();

    let large = format!(
        "GET /x HTTP/1.1\nHost: {{host}}\nX: {}\n\n",
        "x".repeat(2048)
    );
    proxy.ask(&large).assert_refused(431, "large-header");
    let endless = format!("GET /{}", "x".repeat(4096));
    proxy.ask(&endless).assert_refused(431, "large-header");

    for begun in [
        "G",
        "GET /x HTTP/1.1\nHost: {host}\n",
        "GET /x HTTP/1.1\nHost: {host}\nX: ",
    ] {
        let mut connection = proxy.connect();
        connection.send(proxy.bytes(begun));
        let answer = connection.answer("GET");
        answer.assert_refused(408, "slow-header");
        connection.is_closed();
    }
    // sending byte by byte does not help
    let mut connection = proxy.connect();
    for byte in proxy.bytes(&format!("GET /x HTTP/1.1\nX: {}", "x".repeat(1000))) {
        if connection.try_send([byte]).is_err()
            || !connection.is_silent_for(Duration::from_millis(20))
        {
            break;
        }
    }
    connection.answer("GET").assert_refused(408, "slow-header");
    assert_eq!(simulator.count("requests"), 0);
}

#[test]
fn an_instance_that_is_gone_is_told() {
    // a fixed address, so that no other test takes the port
    let simulator = Simulator::at("127.9.8.6:0", &[]);
    let proxy = Proxy::to(&simulator.url()).start();
    proxy.has_token();
    simulator.kill();
    let answer = proxy.get("/x");
    answer.assert_refused(502, "upstream");
    let posted = proxy.ask("POST /x HTTP/1.1\nHost: {host}\nContent-Length: 2\n\n{}");
    posted.assert_refused(502, "upstream");
}

#[test]
fn an_instance_that_falls_silent_is_told_after_idle_timeout() {
    let simulator = Simulator::start();
    let proxy = Proxy::configured(&simulator.url(), "idle_timeout = \"300ms\"", "").start();
    proxy.has_token();
    let answer = proxy.get("/_sleep/600000");
    answer.assert_refused(504, "upstream");
    // a body that stalls is cut
    let answer = proxy.get("/_bytes/10?piece=5&pause=600000");
    assert_eq!((answer.status, answer.whole), (200, false));
}

#[test]
fn an_instance_that_breaks_off_is_told() {
    let (simulator, proxy) = pair();
    for kind in ["close", "reset"] {
        simulator.fault("api", kind);
        let posted = proxy.ask("POST /x HTTP/1.1\nHost: {host}\nContent-Length: 2\n\n{}");
        posted.assert_refused(502, "upstream");
    }
}

#[test]
fn a_refusal_keeps_the_connection_if_there_is_no_body_left() {
    let (simulator, proxy) = pair();
    let mut connection = proxy.connect();
    for refused in [
        "GET /rest/auth/v1/clients HTTP/1.1\nHost: {host}\n\n",
        "GET /x HTTP/1.1\nHost: attacker.example\n\n",
        "GET /x HTTP/1.1\nHost: {host}\nOrigin: null\n\n",
        "TRACE /x HTTP/1.1\nHost: {host}\n\n",
        "GET //x HTTP/1.1\nHost: {host}\n\n",
    ] {
        connection.send(proxy.bytes(refused));
        let answer = connection.answer(refused);
        assert!(answer.status >= 400, "{refused}: {}", answer.status);
        assert_eq!(connection.get(proxy.address, "/x").status, 200, "{refused}");
    }
    let head = "HEAD /rest/auth/v1/clients HTTP/1.1\nHost: {host}\n\n";
    connection.send(proxy.bytes(head));
    assert_eq!(connection.answer(head).status, 403);
    assert_eq!(connection.get(proxy.address, "/x").status, 200);
    assert_eq!(simulator.count("requests"), 6);
}

#[test]
fn a_refused_body_is_not_taken_for_the_next_request() {
    let (simulator, proxy) = pair();
    let smuggled = proxy.bytes("GET /smuggled HTTP/1.1\nHost: {host}\n\n");
    let length = smuggled.len();
    let mut connection = proxy.connect();
    let head = format!(
        "POST /rest/auth/v1/clients HTTP/1.1\nHost: {{host}}\nContent-Length: {length}\n\n"
    );
    connection.send([proxy.bytes(&head), smuggled].concat());
    connection.answer(&head).assert_refused(403, "denied");
    connection.is_closed();
    assert_eq!(simulator.count("requests"), 0);
}
