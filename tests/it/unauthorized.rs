//! After a 401 from the API, one new token is requested for all, and the request is sent once more.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crate::support::http::Answer;
use crate::support::origin::After;
use crate::support::wait::now;
use crate::support::{Origin, Proxy, Simulator, pair, until};

const REPLAYED: &str = r#"collibra_auth_proxy_replays_total{client="default",outcome="ok"}"#;

/// `POST /echo` with a body of `length` bytes.
fn post(proxy: &Proxy, length: usize) -> Answer {
    let mut request = proxy.bytes(&format!(
        "POST /echo HTTP/1.1\nHost: {{host}}\nContent-Length: {length}\n\n"
    ));
    request.resize(request.len() + length, b'x');
    let mut connection = proxy.connect();
    connection.send(request);
    connection.answer("POST")
}

#[test]
fn a_revoked_token_is_noticed_by_no_app() {
    let simulator = Simulator::with(&["--rows", "10"]);
    let proxy = Proxy::to(&simulator.url()).start();
    proxy.has_token();
    let stop = AtomicBool::new(false);
    let answered = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| {
                let request =
                    proxy.bytes("GET /rest/2.0/application/info HTTP/1.1\nHost: {host}\n\n");
                let mut connection = proxy.connect();
                while !stop.load(Ordering::Relaxed) {
                    connection.send(&request);
                    let answer = connection.answer("GET");
                    assert_eq!(answer.status, 200, "{}", answer.text());
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let reaches = |count| {
            until("more answers", || {
                (answered.load(Ordering::Relaxed) >= count).then_some(())
            });
        };
        reaches(200);
        simulator.revoke();
        reaches(answered.load(Ordering::Relaxed) + 200);
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(simulator.of_client("issued"), 2, "one more token for all");
    assert!(simulator.count("unauthorized") <= 20, "at most one each");
}

#[test]
fn a_post_is_sent_again_with_its_body_whole() {
    for length in [0, 10, 65_536] {
        let (simulator, proxy) = pair();
        simulator.revoke();
        let answer = post(&proxy, length);
        assert_eq!(answer.status, 200, "{length}: {}", answer.text());
        assert_eq!(answer.json()["body"]["length"], length);
        assert_eq!(simulator.count("requests"), 2, "the 401 and the answer");
        assert_eq!(proxy.metric(REPLAYED), Some(1.0));
    }
}

#[test]
fn a_body_that_is_not_at_hand_is_not_sent_again_but_the_token_is_replaced() {
    let (simulator, proxy) = pair();
    simulator.revoke();
    let answer = post(&proxy, 65_537);
    assert_eq!(answer.status, 401, "the API's own answer");
    assert_eq!(answer.json()["errorCode"], "expiredToken");
    until("the next token", || {
        (simulator.of_client("issued") == 2).then_some(())
    });
    assert_eq!(post(&proxy, 65_537).status, 200);
}

#[test]
fn an_api_that_refuses_everything_costs_two_tokens_and_its_answers_pass() {
    let (simulator, proxy) = pair();
    simulator.fault("api", "status:401");
    for _ in 0..50 {
        assert_eq!(proxy.get("/rest/2.0/assets").status, 401);
    }
    assert_eq!(simulator.of_client("issued"), 2);
    assert_eq!(simulator.count("requests"), 51, "one replay in all");
    simulator.fault("api", "none");
    assert_eq!(proxy.get("/rest/2.0/application/info").status, 200);
}

/// A simulated minute, at twenty times real speed.
const MINUTE: Duration = Duration::from_secs(3);

#[test]
fn in_a_minute_of_401s_no_request_is_sent_more_than_once_again() {
    // the responses of each request, by its method and number
    let answers: Arc<Mutex<HashMap<String, Vec<u16>>>> = Arc::default();
    let storm = Arc::new(AtomicBool::new(false));
    let (seen, refuses) = (Arc::clone(&answers), Arc::clone(&storm));
    let origin = Origin::start(move |request, stream| {
        let status = if refuses.load(Ordering::SeqCst) {
            401
        } else {
            200
        };
        let id = format!("{} {}", request.method(), request.target());
        seen.lock().unwrap().entry(id).or_default().push(status);
        write!(stream, "HTTP/1.1 {status} X\r\nContent-Length: 2\r\n\r\nok")?;
        Ok(After::Keep)
    });
    let refill = format!("{}s", MINUTE.as_secs());
    let proxy = Proxy::to(&origin.url())
        .flag("--pool-refill", &refill)
        .start();
    proxy.has_token();
    let stop = AtomicBool::new(false);
    let sent = AtomicUsize::new(0);
    let spent = thread::scope(|scope| {
        for _ in 0..200 {
            scope.spawn(|| {
                let mut connection = proxy.connect();
                while !stop.load(Ordering::Relaxed) {
                    let nth = sent.fetch_add(1, Ordering::SeqCst);
                    let (method, body) = [("POST", "body"), ("GET", "")][nth % 2];
                    let length = body.len();
                    let request = format!(
                        "{method} /{nth} HTTP/1.1\r\nHost: {}\r\nContent-Length: {length}\r\n\r\n{body}",
                        proxy.address
                    );
                    connection.send(&request);
                    let answer = connection.answer(method);
                    let id = format!("{method} /{nth}");
                    let theirs = answers.lock().unwrap()[&id].last().copied();
                    assert_eq!(Some(answer.status), theirs, "{id}: the last answer is passed on");
                }
            });
        }
        let more = |count: usize| {
            let before = sent.load(Ordering::SeqCst);
            until("more requests", || {
                (sent.load(Ordering::SeqCst) >= before + count).then_some(())
            });
        };
        more(400);
        storm.store(true, Ordering::SeqCst);
        let began = now();
        thread::sleep(MINUTE);
        storm.store(false, Ordering::SeqCst);
        more(400);
        let spent = began.elapsed();
        stop.store(true, Ordering::Relaxed);
        spent
    });
    let answers = answers.lock().unwrap();
    let mut again = 0;
    for (id, statuses) in answers.iter() {
        match statuses[..] {
            [_] => {}
            [401, _] => again += 1,
            _ => panic!("{id}: {statuses:?}"),
        }
    }
    assert!(again > 0, "none was sent again");
    let refused = answers.values().filter(|s| s[0] == 401).count();
    assert!(
        refused > again,
        "{refused} were refused, {again} sent again"
    );
    // the previous one, one at once, and one for each minute since
    let allowed = 2.0 + spent.div_duration_f64(MINUTE).ceil();
    let tokens = origin.tokens().len();
    assert!(tokens as f64 <= allowed, "{tokens} tokens in {spent:?}");
}

#[test]
fn a_403_is_no_reason_for_another_token() {
    let (simulator, proxy) = pair();
    assert_eq!(proxy.get("/_status/403").status, 403);
    assert_eq!(simulator.count("requests"), 1);
    assert_eq!(simulator.of_client("issued"), 1);
}
