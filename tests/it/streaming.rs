//! Bodies are streamed: of any size with little memory, piece by piece, and a body that is
//! truncated on one side is truncated on the other.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::support::origin::After;
use crate::support::{Origin, Proxy, pair, until};

/// The size of a body with an announced length, in bytes.
const LARGE: u64 = 2 << 30;

/// The size of a chunked body, in bytes.
const LARGE_IN_CHUNKS: u64 = 256 << 20;

/// How much the proxy's memory may grow meanwhile, in KiB.
const GROWTH: u64 = 16 << 10;

/// Watches the proxy's memory until `transfer` ends; returns the growth of its peak, in KiB.
fn growth(proxy: &Proxy, transfer: impl FnOnce() + Send) -> u64 {
    let before = proxy.process.memory_kib("VmRSS");
    let done = AtomicBool::new(false);
    let peak = std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut peak = before;
            while !done.load(Ordering::SeqCst) {
                peak = peak.max(proxy.process.memory_kib("VmRSS"));
                std::thread::sleep(Duration::from_millis(5));
            }
            peak
        });
        // also on a panic, or the watch would never end
        let _end = OnDrop(&done);
        transfer();
        drop(_end);
        watch.join().unwrap()
    });
    peak - before
}

struct OnDrop<'a>(&'a AtomicBool);

impl Drop for OnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn a_large_download_takes_little_memory() {
    let (_simulator, proxy) = pair();
    assert_eq!(proxy.get("/_bytes/1000000").body.len(), 1_000_000);
    for (query, size) in [("", LARGE), ("?chunked=1", LARGE_IN_CHUNKS)] {
        let grown = growth(&proxy, || {
            let mut connection = proxy.connect();
            let request = format!(
                "GET /_bytes/{size}{query} HTTP/1.1\nHost: {{host}}\nConnection: close\n\n"
            );
            connection.send(proxy.bytes(&request));
            assert_eq!(connection.head().status, 200);
            let mut received = 0;
            loop {
                match connection.some().len() as u64 {
                    0 => break,
                    n => received += n,
                }
            }
            // chunks add their own lines
            assert!(received >= size, "{received}");
        });
        println!("{size} bytes down {query}: {grown} KiB more");
        assert!(grown < GROWTH, "{query}: {grown} KiB");
    }
}

#[test]
fn a_large_upload_takes_little_memory() {
    let (_simulator, proxy) = pair();
    let piece = vec![b'x'; 1 << 20];
    for (chunked, size) in [(false, LARGE), (true, LARGE_IN_CHUNKS)] {
        let grown = growth(&proxy, || {
            let mut connection = proxy.connect();
            let length = if chunked {
                "Transfer-Encoding: chunked".to_owned()
            } else {
                format!("Content-Length: {size}")
            };
            let head = format!("POST /_bytes HTTP/1.1\nHost: {{host}}\n{length}\n\n");
            connection.send(proxy.bytes(&head));
            for _ in 0..size >> 20 {
                if chunked {
                    connection.send(format!("{:x}\r\n", piece.len()));
                }
                connection.send(&piece);
                if chunked {
                    connection.send("\r\n");
                }
            }
            if chunked {
                connection.send("0\r\n\r\n");
            }
            assert_eq!(connection.answer(&head).json()["received"], size);
        });
        println!("{size} bytes up, chunked {chunked}: {grown} KiB more");
        assert!(grown < GROWTH, "chunked {chunked}: {grown} KiB");
    }
}

#[test]
fn a_body_that_breaks_off_upstream_breaks_off_here() {
    let (_simulator, proxy) = pair();
    for (query, sent) in [
        ("cut=300000", 300_000),
        ("chunked=1&cut=300000", 300_000),
        ("cut=1", 1),
        ("chunked=1&cut=1", 1),
    ] {
        let answer = proxy.get(&format!("/_bytes/1000000?{query}"));
        assert_eq!(answer.status, 200, "{query}");
        assert!(!answer.whole, "{query}: it ended as if it were whole");
        assert!(answer.body.len() <= sent, "{query}: {}", answer.body.len());
    }
    // the raw bytes show it: no last chunk
    let mut connection = proxy.connect();
    connection.send(proxy.bytes("GET /_bytes/9?chunked=1&cut=5 HTTP/1.1\nHost: {host}\n\n"));
    let raw = String::from_utf8(connection.rest()).unwrap();
    assert!(raw.starts_with("HTTP/1.1 200"), "{raw}");
    assert!(!raw.ends_with("0\r\n\r\n"), "{raw}");
    // and the next call is not affected
    assert_eq!(proxy.get("/_bytes/9").text(), "012345678");
}

#[test]
fn a_body_that_breaks_off_here_breaks_off_upstream() {
    let origin = Origin::answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let proxy = Proxy::to(&origin.url()).start();
    proxy.has_token();
    for length in ["Content-Length: 1000", "Transfer-Encoding: chunked"] {
        let mut connection = proxy.connect();
        let head = format!("POST /x HTTP/1.1\nHost: {{host}}\n{length}\n\n");
        connection.send(proxy.bytes(&head));
        connection.send("3\r\nabc\r\n");
        drop(connection);
    }
    until("both broken requests at the origin", || {
        (origin.requests().len() == 2).then_some(())
    });
    for request in origin.requests() {
        assert!(!request.whole, "{}", request.head);
    }
}

#[test]
fn a_slow_answer_comes_piece_by_piece() {
    let (_simulator, proxy) = pair();
    let mut connection = proxy.connect();
    // with a pause after each of the three pieces it would take ten minutes
    let request = "GET /_bytes/15?piece=5&pause=600000 HTTP/1.1\nHost: {host}\n\n";
    connection.send(proxy.bytes(request));
    assert_eq!(connection.head().status, 200);
    assert_eq!(connection.some(), b"01234");
    let mut connection = proxy.connect();
    let request = request.replace("pause", "chunked=1&pause");
    connection.send(proxy.bytes(&request));
    assert_eq!(connection.head().status, 200);
    assert_eq!(connection.some(), b"5\r\n01234\r\n");
}

#[test]
fn a_slow_request_goes_up_piece_by_piece() {
    let begun = Arc::new(AtomicBool::new(false));
    let (simulator, proxy) = pair();
    let mut connection = proxy.connect();
    let head = "POST /_bytes HTTP/1.1\nHost: {host}\nContent-Length: 10\n\n";
    connection.send(proxy.bytes(head));
    connection.send("01234");
    // the instance has the request long before its end is sent
    until("the request at the simulator", || {
        (simulator.count("requests") == 1).then(|| begun.store(true, Ordering::SeqCst))
    });
    connection.send("56789");
    assert_eq!(connection.answer(head).json()["received"], 10);
    assert!(begun.load(Ordering::SeqCst));
}

#[test]
fn an_app_that_goes_away_frees_the_instance() {
    let broken = Arc::new(AtomicBool::new(false));
    let noticed = Arc::clone(&broken);
    let origin = Origin::start(move |_, stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n")?;
        while stream.write_all(&[b'x'; 65_536]).is_ok() {}
        noticed.store(true, Ordering::SeqCst);
        Ok(After::Close)
    });
    let proxy = Proxy::to(&origin.url()).start();
    let mut connection = proxy.connect();
    connection.send(proxy.bytes("GET /x HTTP/1.1\nHost: {host}\n\n"));
    assert_eq!(connection.head().status, 200);
    assert!(!connection.some().is_empty());
    drop(connection);
    until("the origin to notice", || {
        broken.load(Ordering::SeqCst).then_some(())
    });
    proxy.metric_becomes(
        r#"collibra_auth_proxy_requests_in_flight{client="default"}"#,
        0.0,
    );
    proxy.metric_becomes(r#"collibra_auth_proxy_connections{listener="local"}"#, 0.0);
}

#[test]
fn an_app_that_goes_away_while_it_waits_frees_the_instance() {
    let (_simulator, proxy) = pair();
    let in_flight = r#"collibra_auth_proxy_requests_in_flight{client="default"}"#;
    let mut connection = proxy.connect();
    connection.send(proxy.bytes("GET /_sleep/600000 HTTP/1.1\nHost: {host}\n\n"));
    proxy.metric_becomes(in_flight, 1.0);
    drop(connection);
    proxy.metric_becomes(in_flight, 0.0);
}
