//! A body that is cut on one side is cut on the other: neither a caller nor the instance mistakes a
//! truncated body for a complete one.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use h2::Reason;

use super::{Fronts, Instances};
use crate::support::frames;
use crate::support::h2_caller::{get, hear, runtime};
use crate::support::origin::After;
use crate::support::raw_origin::RawOrigin;
use crate::support::{Origin, until};

/// An HTTP/1.1 instance that truncates its responses.
fn cutting() -> Origin {
    Origin::start(|request, stream| {
        stream.write_all(match request.target() {
            "/length" => b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhello".as_slice(),
            "/length/at-once" => b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n",
            "/chunks" => b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
            "/chunks/within" => b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nhello",
            "/chunks/at-once" => b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            _ => b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
        })?;
        Ok(After::Close)
    })
}

#[test]
fn a_truncated_response_is_truncated_for_the_caller() {
    let origin = cutting();
    let fronts = Fronts::to("HTTP/1.1", &origin.url(), "");
    for path in [
        "/length",
        "/length/at-once",
        "/chunks",
        "/chunks/within",
        "/chunks/at-once",
        "/chunks/last",
    ] {
        is_cut(&fronts, path);
    }
    let instances = Instances::start();
    is_cut(&instances.fronts()[1], "/cut");
}

/// Asserts that the response to `path` is truncated for callers of both protocols.
fn is_cut(fronts: &Fronts, path: &str) {
    // for an HTTP/1.0 caller the proxy speaks HTTP/1.1 to the instance
    let versions: &[&str] = if fronts.name == "HTTP/2" {
        &["1.1"]
    } else {
        &["1.1", "1.0"]
    };
    for version in versions {
        let request = format!("GET {path} HTTP/{version}\nHost: {{host}}\n\n");
        let answer = fronts.plain.ask(&request);
        // without a length an HTTP/1.0 body ends with the connection, so nothing shows the cut
        let untold = *version == "1.0" && answer.header("content-length").is_none();
        if answer.status == 200 && !untold {
            assert!(!answer.whole, "{path} {version}: it looks complete");
        } else if answer.status != 200 {
            // the proxy may notice before it has sent a head
            answer.assert_refused(502, "upstream");
        }
    }
    let error = runtime().block_on(async {
        let mut requests = fronts.tls.connect().await;
        let (response, _) = requests
            .send_request(get(&fronts.tls.uri(path)), true)
            .unwrap();
        match hear(response).await {
            Err(error) => Some(error),
            Ok(heard) => {
                assert_eq!(heard.head.status, 502, "{path}: it looks complete");
                None
            }
        }
    });
    if let Some(error) = error {
        assert!(error.is_reset(), "{path}: {error}");
        assert_ne!(error.reason(), Some(Reason::NO_ERROR), "{path}");
    }
}

#[test]
fn a_truncated_upload_is_truncated_for_an_http_1_instance() {
    let (begun, ended) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (begins, ends) = (Arc::clone(&begun), Arc::clone(&ended));
    let origin = RawOrigin::start(move |_, line| {
        begins.fetch_add(1, Ordering::SeqCst);
        let _ = line.read_to_end();
        ends.fetch_add(1, Ordering::SeqCst);
        Ok(After::Close)
    });
    let fronts = Fronts::to("HTTP/1.1", &origin.url(), "");
    let uploads = each_breaks_off(&fronts, |nth| {
        until("the request at the instance", || {
            (begun.load(Ordering::SeqCst) == nth).then_some(())
        });
    });
    until("the end of each at the instance", || {
        (ended.load(Ordering::SeqCst) == uploads).then_some(())
    });
    for text in origin.received() {
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        if head
            .to_ascii_lowercase()
            .contains("\r\ntransfer-encoding: chunked")
        {
            assert!(!body.ends_with("0\r\n\r\n"), "{text}");
        } else {
            assert!(
                head.to_ascii_lowercase()
                    .contains("\r\ncontent-length: 1000")
            );
            assert!(body.len() < 1000, "{text}");
        }
    }
}

#[test]
fn a_truncated_upload_is_reset_for_an_http_2_instance() {
    let instances = Instances::start();
    let [_, fronts] = instances.fronts();
    let uploads = each_breaks_off(&fronts, |nth| {
        until("the request at the instance", || {
            (instances.http2.begun() == nth).then_some(())
        });
    });
    until("the end of each at the instance", || {
        (instances.http2.all().len() == uploads).then_some(())
    });
    for arrived in instances.http2.all() {
        assert!(!arrived.whole, "{arrived:?}");
    }
    // the connections to the instance survive
    let before = instances.http2.connections();
    assert_eq!(fronts.plain.get("/echo").status, 200);
    assert_eq!(instances.http2.connections(), before);
}

/// Starts one upload of each kind, waits until `begun` returns for it, and aborts it. Returns their
/// number.
fn each_breaks_off(fronts: &Fronts, begun: impl Fn(usize)) -> usize {
    let mut uploads = 0;
    for framing in ["Content-Length: 1000", "Transfer-Encoding: chunked"] {
        let mut connection = fronts.plain.connect();
        let head = format!("POST /echo HTTP/1.1\nHost: {{host}}\n{framing}\n\n3\nabc\n");
        connection.send(fronts.plain.bytes(&head));
        uploads += 1;
        begun(uploads);
        drop(connection);
    }
    let length = |name: &str| {
        [
            &[0, 14],
            b"content-length".as_slice(),
            &[4],
            name.as_bytes(),
        ]
        .concat()
    };
    for fields in [length("1000"), Vec::new()] {
        let mut connection = fronts.tls.frames();
        connection.greet();
        let head = [frames::request("POST", "/echo"), fields].concat();
        assert!(connection.send_head(1, &head, false));
        assert!(connection.send(frames::DATA, 0, 1, b"abc"));
        uploads += 1;
        begun(uploads);
        assert!(connection.send(frames::RST_STREAM, 0, 1, &8_u32.to_be_bytes()));
        // the connection survives the reset
        assert!(connection.send(frames::PING, 0, 0, &[7; 8]));
        connection.find("its echo", |frame| {
            (frame.kind == frames::PING).then_some(())
        });
    }
    uploads
}
