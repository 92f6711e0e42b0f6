//! Callers that do not read their responses: the proxy buffers a bounded part for each, and
//! `min_body_rate` cuts them.

use std::net::TcpStream;
use std::time::Duration;

use crate::support::frames::{self, Frames, HEADERS, RST_STREAM};
use crate::support::h2_caller::Served;
use crate::support::wait::now;
use crate::support::{Proxy, Simulator, http, until};

/// Streams per connection.
const STREAMS: u32 = 100;

/// A response larger than all buffers on the way.
const LARGE: &str = "/_bytes/2000000";

/// How long memory must not grow to count as settled.
const STEADY: Duration = Duration::from_secs(2);

/// The proxy's resident memory in KiB, once it has stopped growing.
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

/// For an instance that must accept thousands of connections at once: a SYN that finds its queue
/// full is sent again after 1, 3 and 7 s.
const PATIENT: &str = "connect_timeout = \"1m\"";

/// A connection with a zero window and as many streams as there may be.
fn stalled(served: &Served) -> Frames {
    let mut connection = served.frames();
    connection.greet_without_a_window();
    for nth in 0..STREAMS {
        assert!(connection.request(2 * nth + 1, "GET", LARGE, true));
    }
    connection
}

#[test]
fn http_2_callers_with_a_zero_window_cost_bounded_memory() {
    let simulator = Simulator::start();
    let served = Served::before(&simulator.url(), PATIENT, simulator, "min_body_rate = 0");
    served.serves();
    let before = served.proxy.process.memory_kib("VmRSS");
    let callers: Vec<Frames> = (0..30).map(|_| stalled(&served)).collect();
    let asked = 30 * u64::from(STREAMS);
    until("all requests at the simulator", || {
        (served.simulator.count("requests") > asked).then_some(())
    });
    let held = settled(&served.proxy);
    println!("{asked} streams: {held} KiB, {before} KiB before");
    // 64 KiB a stream, and its bookkeeping
    assert!(held < before + 200 * 1024, "{before} KiB -> {held} KiB");
    drop(callers);
    until("the memory to be given back", || {
        let held = served.proxy.process.memory_kib("VmRSS");
        (held < 60 * 1024).then_some(())
    });
}

#[test]
fn a_stalled_stream_is_cut_by_min_body_rate() {
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
    // other streams go on, and the upstream request has ended
    assert!(connection.request(3, "GET", "/_status/204", true));
    assert_eq!(connection.find("an answer", answered(3)), Some(204));
    served.proxy.metric_becomes(
        r#"collibra_auth_proxy_requests_in_flight{client="catalog"}"#,
        0.0,
    );
}

#[test]
fn a_thousand_http_1_callers_that_read_nothing_cost_bounded_memory() {
    let simulator = Simulator::start();
    let proxy = Proxy::configured(&simulator.url(), PATIENT, "min_body_rate = 0").start();
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
