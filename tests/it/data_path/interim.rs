//! Interim responses (RFC 9110, section 15.2): `Expect: 100-continue` gets its 100 on every path
//! and protocol, 1xx responses pass unchanged, and an unsolicited 101 is refused.

use std::time::Duration;

use ::http::request::Builder;
use ::http::{Request, StatusCode};
use bytes::Bytes;

use crate::support::certificate::Authority;
use crate::support::frames::{self, PREFACE, frame};
use crate::support::h2_caller::{Heard, Served, get, hear, interim, runtime, send_piece};
use crate::support::h2_origin::H2Origin;
use crate::support::origin::After;
use crate::support::tls::Client;
use crate::support::{Connection, Origin, Proxy, Simulator, http};

const TOKEN: &str = "POST /rest/oauth/v2/token HTTP/1.1\nHost: {host}\n\
     Content-Type: application/x-www-form-urlencoded\nExpect: 100-continue\nContent-Length: 29\n\n";
const LOGIN: &str = "POST /rest/2.0/auth/sessions HTTP/1.1\nHost: {host}\n\
     Content-Type: application/json\nExpect: 100-continue\nContent-Length: 33\n\n";
const ASKS_FOR_A_TOKEN: &str = "grant_type=client_credentials";
const LOGS_IN: &str = r#"{"username":"me","password":"you"}"#;

/// An origin that sends 103 before its response.
fn hinting() -> Origin {
    Origin::start(|_, stream| {
        stream.write_all(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n")?;
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")?;
        Ok(After::Keep)
    })
}

/// Sends `request` over HTTP/2, and `body` after the 100.
fn continued(served: &Served<impl Sized>, request: Builder, body: &str) -> Heard {
    let body = Bytes::copy_from_slice(body.as_bytes());
    let request = request
        .header("expect", "100-continue")
        .header("content-length", body.len())
        .body(())
        .unwrap();
    runtime().block_on(async {
        let mut requests = served.connect().await;
        let (mut response, mut stream) = requests.send_request(request, false).unwrap();
        let asked = interim(&mut response).await.expect("a 100");
        assert_eq!(asked.status(), StatusCode::CONTINUE);
        assert!(asked.headers().is_empty(), "{:?}", asked.headers());
        send_piece(&mut stream, body, true).await.unwrap();
        hear(response).await.unwrap()
    })
}

fn post(served: &Served<impl Sized>, path: &str, kind: &str) -> Builder {
    Request::post(served.uri(path)).header("content-type", kind)
}

#[test]
fn expect_over_http_2_gets_its_100() {
    let served = Served::with("");
    for _ in 0..3 {
        let heard = continued(&served, post(&served, "/_bytes", "text/plain"), "hello");
        assert_eq!(heard.head.status, StatusCode::OK);
        let told: serde_json::Value = serde_json::from_slice(&heard.body).unwrap();
        assert_eq!(told["received"], 5);
    }
}

#[test]
fn expect_over_http_2_gets_no_100_before_a_refusal() {
    let served = Served::with("");
    let request = post(&served, "/rest/auth/v1/clients", "text/plain");
    let request = request.header("expect", "100-continue").body(()).unwrap();
    runtime().block_on(async {
        let mut requests = served.connect().await;
        let (mut response, _stream) = requests.send_request(request, false).unwrap();
        assert!(interim(&mut response).await.is_none());
        assert_eq!(response.await.unwrap().status(), StatusCode::FORBIDDEN);
    });
    assert_eq!(served.simulator.count("requests"), 0);
}

#[test]
fn expect_gets_its_100_from_an_http_2_instance() {
    let authority = Authority::new();
    let origin = H2Origin::new(&authority);
    let keys = format!("ca_file = {:?}", authority.ca_file());
    let proxy = Proxy::configured(&origin.url(), &keys, "").start();
    proxy.has_token();
    let mut connection = proxy.connect();
    let head = "POST /continue HTTP/1.1\nHost: {host}\nExpect: 100-continue\nContent-Length: 5\n\n";
    connection.send(proxy.bytes(head));
    let asked = connection.head();
    assert_eq!((asked.status, asked.headers), (100, vec![]));
    connection.send("hello");
    assert_eq!(connection.answer(head).text(), "hello");

    let url = origin.url();
    let served = Served::before(&url, &keys, origin, "");
    let heard = continued(&served, post(&served, "/continue", "text/plain"), "hello");
    assert_eq!(heard.body, b"hello");
}

#[test]
fn expect_on_the_local_token_endpoint_gets_its_100() {
    let (_simulator, proxy) = crate::support::pair();
    gets_its_100(&proxy, TOKEN, ASKS_FOR_A_TOKEN);

    let served = Served::with("");
    let kind = "application/x-www-form-urlencoded";
    let request = post(&served, "/rest/oauth/v2/token", kind);
    let heard = continued(&served, request, ASKS_FOR_A_TOKEN);
    assert_eq!(heard.head.status, StatusCode::OK, "{:?}", heard.head);
}

#[test]
fn expect_on_a_local_session_login_gets_its_100() {
    let (_simulator, proxy) = crate::support::pair();
    let length = format!("Content-Length: {}", LOGS_IN.len());
    let login = LOGIN.replace("Content-Length: 33", &length);
    gets_its_100(&proxy, &login, LOGS_IN);

    let served = Served::with("");
    let request = post(&served, "/rest/2.0/auth/sessions", "application/json");
    let heard = continued(&served, request, LOGS_IN);
    assert_eq!(heard.head.status, StatusCode::OK, "{:?}", heard.head);
}

/// Asserts that an HTTP/1.1 caller gets a 100 before it sends its body, then a 200.
fn gets_its_100(proxy: &Proxy, head: &str, body: &str) {
    let mut connection = proxy.connect();
    connection.send(proxy.bytes(head));
    let asked = connection.head();
    assert_eq!((asked.status, asked.headers), (100, vec![]), "{head}");
    connection.send(body);
    let answer = connection.answer(head);
    assert_eq!(answer.status, 200, "{head}: {}", answer.text());
    // the connection stays usable
    assert_eq!(connection.get(proxy.address, "/echo").status, 200);
}

#[test]
fn interim_responses_pass_unchanged_and_are_not_counted() {
    let simulator = Simulator::start();
    let proxy = Proxy::to(&simulator.url()).start();
    proxy.has_token();
    gets_its_100(
        &proxy,
        "POST /_bytes HTTP/1.1\nHost: {host}\nExpect: 100-continue\nContent-Length: 5\n\n",
        "hello",
    );
    counts_no_interim_response(&proxy, 2.0);

    let origin = hinting();
    let proxy = Proxy::to(&origin.url()).start();
    proxy.has_token();
    let mut connection = proxy.connect();
    connection.send(proxy.bytes("GET /x HTTP/1.1\nHost: {host}\nX-Request-Id: mine\n\n"));
    let hint = connection.head();
    let link = vec![("link".to_owned(), "</x>".to_owned())];
    assert_eq!((hint.status, hint.headers), (103, link));
    assert_eq!(connection.answer("GET").text(), "ok");
    counts_no_interim_response(&proxy, 1.0);
}

/// Asserts that `requests` were counted, none with a 1xx code.
fn counts_no_interim_response(proxy: &Proxy, requests: f64) {
    // a request is counted just after its caller has the answer
    let what = format!("{requests} requests are counted");
    crate::support::until(&what, || {
        let text = http::get(proxy.admin, "/metrics").text();
        let of_requests = text
            .lines()
            .filter(|line| line.starts_with("collibra_auth_proxy_requests_total{"));
        let mut sum = 0.0;
        for line in of_requests {
            assert!(!line.contains("code=\"1"), "{line}");
            sum += line.rsplit(' ').next().unwrap().parse::<f64>().unwrap();
        }
        (sum == requests).then_some(())
    });
}

#[test]
fn an_early_hint_passes_over_http_2() {
    let origin = hinting();
    let url = origin.url();
    let served = Served::to(&url, origin, "");
    runtime().block_on(async {
        let mut requests = served.connect().await;
        let request = get(&served.uri("/x"));
        let (mut response, _) = requests.send_request(request, true).unwrap();
        let hint = interim(&mut response).await.expect("a hint");
        assert_eq!(hint.status(), StatusCode::EARLY_HINTS);
        let names: Vec<&str> = hint.headers().keys().map(|name| name.as_str()).collect();
        assert_eq!(names, ["link"]);
        assert_eq!(hear(response).await.unwrap().body, b"ok");
    });
}

#[test]
fn an_http_1_0_caller_gets_no_interim_response() {
    let origin = hinting();
    let proxy = Proxy::to(&origin.url()).start();
    proxy.has_token();
    let mut connection = proxy.connect();
    connection.send(proxy.bytes("GET /x HTTP/1.0\nHost: {host}\n\n"));
    let raw = String::from_utf8(connection.rest()).unwrap();
    assert!(raw.contains(" 200 OK\r\n"), "{raw}");
    assert!(!raw.contains(" 103 "), "{raw}");
    assert_eq!(raw.matches("HTTP/1.").count(), 1, "{raw}");
}

#[test]
fn an_unsolicited_101_is_refused() {
    let switching =
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    for upgrades in [false, true] {
        let origin = Origin::answering(switching);
        let keys = format!("upgrades = {upgrades}");
        let proxy = Proxy::configured(&origin.url(), "", &keys).start();
        proxy.has_token();
        let answer = proxy.ask("GET /x HTTP/1.1\nHost: {host}\n\n");
        answer.assert_refused(502, "upstream");
        let served = Served::to(&origin.url(), (), &keys);
        let heard = runtime().block_on(async {
            let mut requests = served.connect().await;
            let request = get(&served.uri("/x"));
            let (response, _) = requests.send_request(request, true).unwrap();
            hear(response).await
        });
        let status = heard.expect("an answer over HTTP/2").head.status;
        assert_eq!(status, StatusCode::BAD_GATEWAY);
    }
}

#[test]
fn http_2_with_prior_knowledge_is_answered_400_or_505() {
    let (_simulator, proxy) = crate::support::pair();
    let served = Served::with("");
    let whole = [
        PREFACE.to_vec(),
        frame(frames::SETTINGS, 0, 0, &[]),
        frame(frames::WINDOW_UPDATE, 0, 0, &[0, 1, 0, 0]),
        frames::get_request("/echo"),
    ]
    .concat();
    let over_tls = || Client::new(&served.authority, &[], None).open(served.proxy.address);
    for cut in [whole.len(), PREFACE.len(), 18, 1] {
        for mut connection in [proxy.connect(), over_tls()] {
            connection.send(&whole[..cut]);
            if cut < whole.len() {
                // the proxy has read the first piece on its own
                assert!(connection.is_silent_for(Duration::from_millis(50)) || cut > 1);
                let _ = connection.try_send(&whole[cut..]);
            }
            refuses_the_version(&mut connection, cut);
        }
    }
}

fn refuses_the_version(connection: &mut Connection, cut: usize) {
    let answer = connection.answer_or_end("PRI");
    let answer = answer.unwrap_or_else(|| panic!("cut at {cut}: closed without an answer"));
    let status = answer.status;
    assert!(matches!(status, 400 | 505), "cut at {cut}: {status}");
    answer.assert_refused(status, answer.header("x-collibra-auth-proxy").unwrap());
    connection.is_closed();
}
