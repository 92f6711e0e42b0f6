//! Callers that take nothing of what they asked for: the instance is read no faster than they take
//! it, and those who stall are cut.

use std::net::TcpStream;
use std::time::Duration;

use crate::support::frames::{self, Frames, HEADERS, RST_STREAM};
use crate::support::h2_caller::Served;
use crate::support::wait::now;
use crate::support::{Proxy, Simulator, http, until};

/// Requests of one connection.
const STREAMS: u32 = 100;

/// What each asks for.
const LARGE: &str = "/_bytes/2000000";

/// For how long memory has to be the same to be what it comes to.
const STEADY: Duration = Duration::from_secs(2);

/// What the proxy's memory comes to once it grows no more, in KiB.
fn settled(proxy: &Proxy) -> u64 {
    let (mut most, mut since) = (0, now());
    until("the memory to grow no more", || {
        let held = proxy.process.memory_kib("VmRSS");
        if held > most + most / 100 {
            (most, since) = (held, now());
        }
        (since.elapsed() > STEADY).then_some(most)
    })
}

/// A connection all of whose streams wait for their answers' first byte.
fn stalled(served: &Served) -> Frames {
    let mut connection = served.frames();
    connection.greet_without_a_window();
    for nth in 0..STREAMS {
        assert!(connection.request(2 * nth + 1, "GET", LARGE, true));
    }
    connection
}

#[test]
fn callers_of_http_2_that_take_nothing_cost_little_and_are_forgotten() {
    let served = Served::with("min_body_rate = 0");
    served.serves();
    let before = served.proxy.process.memory_kib("VmRSS");
    let callers: Vec<Frames> = (0..10).map(|_| stalled(&served)).collect();
    let asked = 10 * u64::from(STREAMS);
    until("all requests at the simulator", || {
        (served.simulator.count("requests") > asked).then_some(())
    });
    let held = settled(&served.proxy);
    println!("{asked} streams: {held} KiB, {before} KiB before");
    // at most 64 KiB a stream, and what the stream itself takes
    assert!(held < before + 90 * 1024, "{before} KiB -> {held} KiB");
    drop(callers);
    until("the memory to be given back", || {
        let held = served.proxy.process.memory_kib("VmRSS");
        (held < 60 * 1024).then_some(())
    });
}

#[test]
fn a_stalled_stream_is_cut_as_over_http_1() {
    let served = Served::with("");
    let mut connection = served.frames();
    connection.greet_without_a_window();
    assert!(connection.request(1, "GET", LARGE, true));
    let answered = |stream| {
        move |frame: &frames::Frame| {
            (frame.stream == stream && frame.kind == HEADERS).then(|| frame.status())
        }
    };
    assert_eq!(connection.find("an answer", answered(1)), Some(200));
    let start = now();
    connection.find("the stream's end", |frame| {
        (frame.stream == 1 && frame.kind == RST_STREAM).then_some(())
    });
    let after = start.elapsed();
    println!("cut after {after:?}");
    assert!(after < Duration::from_secs(30), "cut after {after:?}");
    // others on the connection go on, and the instance is free
    assert!(connection.request(3, "GET", "/_status/204", true));
    assert_eq!(connection.find("an answer", answered(3)), Some(204));
    served.proxy.metric_becomes(
        r#"collibra_auth_proxy_requests_in_flight{client="catalog"}"#,
        0.0,
    );
}

#[test]
fn a_thousand_callers_of_http_1_that_take_nothing_cost_little() {
    let simulator = Simulator::start();
    let proxy = Proxy::configured(&simulator.url(), "", "min_body_rate = 0").start();
    proxy.has_token();
    let ask = proxy.bytes(&format!("GET {LARGE} HTTP/1.1\nHost: {{host}}\n\n"));
    let connect = |_| {
        let mut stream = http::tcp(proxy.address);
        std::io::Write::write_all(&mut stream, &ask).unwrap();
        stream
    };
    let callers: Vec<TcpStream> = (0..1_000).map(connect).collect();
    until("all requests at the simulator", || {
        (simulator.count("requests") == 1_000).then_some(())
    });
    let held = settled(&proxy);
    println!("1000 callers: {held} KiB");
    assert!(held < 150 * 1024, "{held} KiB");
    drop(callers);
}
