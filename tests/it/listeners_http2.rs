//! HTTP/2 from apps: the same guarantees as over HTTP/1, and protection against exhaustion.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use serde_json::Value;

use crate::support::frames::{self, Frames};
use crate::support::h2_caller::{Served, exchange, get, runtime};
use crate::support::origin::{After, Gate};
use crate::support::{Origin, PATIENCE};

const OPEN: &str = "collibra_auth_proxy_connections{listener=\"local\"}";

#[test]
fn requests_at_once_on_one_connection_go_the_way_of_all() {
    let served = Served::with("");
    runtime().block_on(async {
        let requests = served.connect().await;
        let mut tasks = tokio::task::JoinSet::new();
        for nth in 0..60_usize {
            let mut requests = requests.clone().ready().await.unwrap();
            let uri = served.uri(&format!("/echo?n={nth}"));
            let body = Bytes::from(vec![7; nth * 5_000]);
            tasks.spawn(async move {
                let request = Request::put(uri)
                    .header("authorization", "Basic c2VjcmV0")
                    .header("cookie", "JSESSIONID=1")
                    .body(())
                    .unwrap();
                let length = body.len();
                let (status, _, told) = exchange(&mut requests, request, body).await;
                let told: Value = serde_json::from_slice(&told).unwrap();
                assert_eq!(status, StatusCode::OK, "{told}");
                assert_eq!(told["body"]["length"], length);
                assert_eq!(told["query"], format!("n={nth}"));
                assert_eq!(told["headers"]["cookie"], Value::Null);
            });
        }
        while let Some(done) = tasks.join_next().await {
            done.unwrap();
        }
        let mut requests = requests;
        let large = get(&served.uri("/_bytes/3000000"));
        let (_, _, body) = exchange(&mut requests, large, Bytes::new()).await;
        assert_eq!(body.len(), 3_000_000);
    });
    served.proxy.metric_becomes(OPEN, 0.0);
    served.simulator.assert_one_token_and_none_unauthorized();
}

#[test]
fn what_is_refused_over_http_1_is_refused_here() {
    let served = Served::with("");
    let uri = served.uri("/echo");
    let port = served.proxy.address.port();
    runtime().block_on(async {
        let mut requests = served.connect().await;
        let with =
            |name: &str, value: &str| Request::get(&uri).header(name, value).body(()).unwrap();
        for (request, status, reason) in [
            (get("https://evil.example/echo"), 421, Some("host")),
            (with("host", "evil.example"), 400, None),
            (with("host", &format!("localhost:{port}")), 200, None),
            (
                with("origin", "https://evil.example"),
                403,
                Some("cross-site"),
            ),
            (with("x_odd", "1"), 400, Some("bad-request")),
            (
                get(&served.uri("/rest/auth/v1/clients")),
                403,
                Some("denied"),
            ),
            (get(&served.uri("//evil.example/x")), 400, None),
            (get(&served.uri("/a/%2e%2e/b")), 400, Some("bad-request")),
        ] {
            let shown = format!("{request:?}");
            let (found, said, _) = exchange(&mut requests, request, Bytes::new()).await;
            assert_eq!(found.as_u16(), status, "{shown}");
            if let Some(reason) = reason {
                assert_eq!(said.as_deref(), Some(reason), "{shown}");
            }
        }
        let large = with("x-fill", &"x".repeat(70_000));
        let (status, ..) = exchange(&mut requests, large, Bytes::new()).await;
        assert_eq!(status, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    });
    assert_eq!(served.simulator.count("requests"), 1);
}

#[test]
fn what_is_under_way_ends_well_when_the_proxy_ends() {
    let gate = Gate::default();
    let opened = gate.clone();
    let origin = Origin::start(move |_, stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n")?;
        stream.write_all(&[7; 100_000])?;
        stream.flush()?;
        opened.pass();
        stream.write_all(&[7; 100_000])?;
        Ok(After::Keep)
    });
    let url = origin.url();
    let mut served = Served::to(&url, origin, "");
    runtime().block_on(async {
        let mut requests = served.connect().await;
        let slow = get(&served.uri("/slow"));
        let (response, _) = requests.send_request(slow, true).unwrap();
        let (head, mut body) = response.await.unwrap().into_parts();
        assert_eq!(head.status, StatusCode::OK);
        served.proxy.process.signal("TERM");
        // after GOAWAY the client opens no more streams
        let another = tokio::time::timeout(PATIENCE, async {
            while let Ok(next) = requests.clone().ready().await {
                requests = next;
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        another.await.unwrap();
        gate.open();
        let mut length = 0;
        while let Some(data) = body.data().await {
            let data = data.unwrap();
            body.flow_control().release_capacity(data.len()).unwrap();
            length += data.len();
        }
        assert_eq!(length, 200_000);
    });
    assert_eq!(served.proxy.process.ended_within(PATIENCE), 0);
}

#[test]
fn an_answer_that_is_not_taken_is_cut() {
    let served = Served::with("min_body_rate = 10000000");
    runtime().block_on(async {
        let mut requests = served.connect().await;
        let (response, _) = requests
            .send_request(get(&served.uri("/_bytes/3000000")), true)
            .unwrap();
        let mut body = response.await.unwrap().into_body();
        let mut length = 0;
        // the window that it came in through is never reopened
        let cut = tokio::time::timeout(PATIENCE, async {
            loop {
                match body.data().await {
                    Some(Ok(data)) => length += data.len(),
                    Some(Err(error)) => return error,
                    None => panic!("it ended as if it were whole"),
                }
            }
        });
        assert!(cut.await.unwrap().is_reset());
        drop(body);
        assert!(length < 70_000, "{length}");
        // other streams on the connection continue
        let (status, ..) = exchange(&mut requests, get(&served.uri("/echo")), Bytes::new()).await;
        assert_eq!(status, StatusCode::OK);
    });
}

#[test]
fn a_connection_that_asks_nothing_is_ended() {
    let served = Served::with("header_timeout = \"1s\"");
    let mut silent = served.frames();
    silent.greet();
    silent.ends();
    // not even the preface
    let mut mute = served.frames();
    mute.ends();
    served.proxy.metric_becomes(OPEN, 0.0);
}

#[test]
fn it_is_not_spoken_without_tls() {
    let (_simulator, proxy) = crate::support::pair();
    let mut connection = proxy.connect();
    connection.send(frames::PREFACE);
    let answer = connection.answer("PRI");
    answer.assert_refused(400, "bad-request");
}

#[test]
fn what_breaks_the_protocol_ends_its_own_connection_only() {
    let served = Served::with("");
    let bad_preface = |frames: &mut Frames| frames.send_raw(b"GET / HTTP/1.1\r\n\r\n\r\n\r\n\r\n");
    let beyond_the_window = |frames: &mut Frames| {
        frames.greet();
        frames.request(1, "POST", "/echo", false);
        for _ in 0..64 {
            frames.send(frames::DATA, 0, 1, &[0; 16_384]);
        }
    };
    let endless_head = |frames: &mut Frames| {
        frames.greet();
        frames.send(frames::HEADERS, 0, 1, &frames::request("GET", "/echo"));
        for _ in 0..10_000 {
            // a literal field that is never ended by END_HEADERS
            let mut field = vec![0, 6];
            field.extend(b"x-fill");
            field.extend([100]);
            field.extend([b'x'; 100]);
            if !frames.send(frames::CONTINUATION, 0, 1, &field) {
                return;
            }
        }
    };
    let too_large = |frames: &mut Frames| {
        frames.greet();
        frames.send_raw(&[0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1]);
        frames.send_raw(&[0; 20_000]);
    };
    let on_stream_zero = |frames: &mut Frames| {
        frames.greet();
        frames.send(frames::DATA, 0, 0, b"x");
    };
    type Case<'a> = (&'a str, &'a dyn Fn(&mut Frames));
    let cases: [Case; 5] = [
        ("a bad preface", &|frames| {
            let _ = bad_preface(frames);
        }),
        ("data beyond the window", &beyond_the_window),
        ("an endless head", &endless_head),
        ("a frame too large", &too_large),
        ("data on stream 0", &on_stream_zero),
    ];
    for (what, attack) in cases {
        println!("{what}");
        let mut frames = served.frames();
        attack(&mut frames);
        frames.ends();
        served.serves();
    }
    served.proxy.metric_becomes(OPEN, 0.0);
}

#[test]
fn floods_are_bounded() {
    let served = Served::with("");
    served.serves();
    let before = served.proxy.process.memory_kib("VmRSS");

    // streams that are cancelled as soon as they are opened
    let mut resets = served.frames();
    resets.greet();
    for nth in 0..20_000_u32 {
        let stream = 2 * nth + 1;
        let sent = resets.request(stream, "GET", "/_bytes/100000", true)
            && resets.send(frames::RST_STREAM, 0, stream, &8_u32.to_be_bytes());
        if !sent {
            break;
        }
    }
    resets.ends();

    // pings whose replies are not read
    let mut pings = served.frames();
    pings.greet();
    pings.gives_up_after(Duration::from_secs(3));
    for nth in 0..2_000_000_u64 {
        if !pings.send(frames::PING, 0, 0, &nth.to_be_bytes()) {
            break;
        }
    }
    served.serves();
    drop(pings);

    // more streams than allowed, whose responses are not read
    let mut many = served.frames();
    many.greet();
    for nth in 0..1_000_u32 {
        if !many.request(2 * nth + 1, "GET", "/_bytes/10000000", true) {
            break;
        }
    }
    served.serves();
    let most = served.proxy.process.memory_kib("VmHWM");
    println!("floods: {} KiB above {before} KiB", most - before);
    assert!(most - before < 64 * 1024, "{before} KiB -> {most} KiB");
}
