//! Old and unusual uses of HTTP by real programs: each gets its own complete response.

use crate::support::origin::After;
use crate::support::{Origin, Proxy, pair};

#[test]
fn http_1_0_is_served_and_its_connection_closed() {
    let (simulator, proxy) = pair();
    let mut connection = proxy.connect();
    let request = "GET /echo?x=1 HTTP/1.0\nHost: {host}\n\n";
    connection.send(proxy.bytes(request));
    let answer = connection.answer(request);
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json()["query"], "x=1");
    connection.is_closed();

    // a body without a length ends with the connection: this caller does not support chunks
    let mut connection = proxy.connect();
    connection.send(proxy.bytes("GET /_bytes/100000?chunked=1 HTTP/1.0\nHost: {host}\n\n"));
    let answer = connection.answer("GET");
    assert_eq!(answer.header("transfer-encoding"), None);
    assert_eq!(answer.body.len(), 100_000);
    simulator.assert_one_token_and_none_unauthorized();
}

#[test]
fn one_connection_carries_many_requests() {
    let (simulator, proxy) = pair();
    let mut connection = proxy.connect();
    for n in 0..200 {
        let answer = connection.get(proxy.address, &format!("/echo?n={n}"));
        assert_eq!(answer.json()["query"], format!("n={n}"));
    }
    assert_eq!(simulator.count("requests"), 200);
    simulator.assert_one_token_and_none_unauthorized();
}

#[test]
fn a_connection_for_each_call_is_fine() {
    let (simulator, proxy) = pair();
    for n in 0..200 {
        let request = format!("GET /echo?n={n} HTTP/1.1\nHost: {{host}}\nConnection: close\n\n");
        let mut connection = proxy.connect();
        connection.send(proxy.bytes(&request));
        assert_eq!(
            connection.answer(&request).json()["query"],
            format!("n={n}")
        );
        connection.is_closed();
    }
    simulator.assert_one_token_and_none_unauthorized();
}

#[test]
fn uploads_in_chunks_arrive_whole() {
    let origin = Origin::answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let proxy = Proxy::to(&origin.url()).start();
    let head = "POST /x HTTP/1.1\nHost: {host}\nTransfer-Encoding: chunked\n\n";
    let mut connection = proxy.connect();
    connection.send(proxy.bytes(head));
    let mut sent = Vec::new();
    for size in [1, 10, 4096, 70_000, 3] {
        let piece = vec![b'a' + (size % 26) as u8; size];
        connection.send(format!("{size:x}\r\n"));
        connection.send(&piece);
        connection.send("\r\n");
        sent.extend(piece);
    }
    connection.send("0\r\n\r\n");
    assert_eq!(connection.answer(head).status, 200);
    // and an empty one
    connection.send(proxy.bytes(head));
    connection.send("0\r\n\r\n");
    assert_eq!(connection.answer(head).status, 200);
    let arrived = origin.requests();
    assert!(arrived[0].body == sent && arrived[0].whole);
    assert!(arrived[1].body.is_empty() && arrived[1].whole);
}

#[test]
fn a_caller_that_waits_to_be_asked_for_its_body_is_asked() {
    let (simulator, proxy) = pair();
    let mut connection = proxy.connect();
    let head = "POST /_bytes HTTP/1.1\nHost: {host}\nExpect: 100-continue\nContent-Length: 5\n\n";
    connection.send(proxy.bytes(head));
    assert_eq!(connection.head().status, 100);
    connection.send("hello");
    let answer = connection.answer(head);
    assert_eq!(
        (answer.status, &answer.json()["received"]),
        (200, &5.into())
    );

    // a refused caller gets no 100
    let mut connection = proxy.connect();
    let head = head.replace("/_bytes", "/rest/auth/v1/clients");
    connection.send(proxy.bytes(&head));
    let answer = connection.head();
    assert_eq!(answer.status, 403);
    assert_eq!(simulator.count("requests"), 1);
}

#[test]
fn answers_without_a_body_have_none() {
    let (simulator, proxy) = pair();
    let mut connection = proxy.connect();
    for (request, status) in [
        ("HEAD /_bytes/12345 HTTP/1.1\nHost: {host}\n\n", 200),
        ("GET /_status/204 HTTP/1.1\nHost: {host}\n\n", 204),
        (
            "GET /_status/304 HTTP/1.1\nHost: {host}\nIf-None-Match: \"1\"\n\n",
            304,
        ),
        ("GET /_bytes/0 HTTP/1.1\nHost: {host}\n\n", 200),
        ("GET /_bytes/0?chunked=1 HTTP/1.1\nHost: {host}\n\n", 200),
        ("HEAD /x HTTP/1.1\nHost: {host}\n\n", 200),
        (
            "DELETE /rest/2.0/auth/sessions/current HTTP/1.1\nHost: {host}\n\n",
            204,
        ),
    ] {
        connection.send(proxy.bytes(request));
        let answer = connection.answer(request);
        assert_eq!(answer.status, status, "{request}");
        assert!(
            answer.whole && answer.body.is_empty(),
            "{request}: {answer:?}"
        );
        if request.starts_with("HEAD /_bytes") {
            assert_eq!(answer.header("content-length"), Some("12345"));
        }
        // what follows on the connection is the next response
        assert_eq!(
            connection.get(proxy.address, "/echo?after=1").json()["query"],
            "after=1"
        );
    }
    assert_eq!(simulator.count("unauthorized"), 0);
}

#[test]
fn every_method_of_the_api_arrives_as_itself() {
    let (_simulator, proxy) = pair();
    let mut connection = proxy.connect();
    for method in [
        "GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND",
    ] {
        let request = format!("{method} /echo HTTP/1.1\nHost: {{host}}\nContent-Length: 3\n\nabc");
        connection.send(proxy.bytes(&request));
        let told = connection.answer(&request).json();
        assert_eq!(told["method"], method);
        assert_eq!(told["body"]["length"], 3, "{method}");
    }
}

#[test]
fn requests_sent_without_waiting_get_their_own_answers_or_none() {
    let (simulator, proxy) = pair();
    let mut connection = proxy.connect();
    let mut all: String = (0..5)
        .map(|n| format!("GET /echo?n={n} HTTP/1.1\nHost: {{host}}\n\n"))
        .collect();
    all.push_str("GET /echo?last HTTP/1.1\nHost: {host}\nConnection: close\n\n");
    connection.send(proxy.bytes(&all));
    let text = String::from_utf8(connection.rest()).unwrap();
    let answered = text.matches("HTTP/1.1 200 OK").count();
    assert!((1..=6).contains(&answered), "{text}");
    for n in 0..answered.min(5) {
        assert!(
            text.contains(&format!("\"query\":\"n={n}\"")),
            "{n} in {text}"
        );
    }
    assert_eq!(text.matches("\"query\"").count(), answered, "{text}");
    assert_eq!(simulator.count("requests"), answered as u64);
}

#[test]
fn interim_answers_and_trailers_do_not_confuse() {
    let origin = Origin::start(|_, stream| {
        stream.write_all(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n")?;
        stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        stream.write_all(b"3\r\nabc\r\n2;extension=1\r\nde\r\n0\r\n\r\n")?;
        Ok(After::Keep)
    });
    let proxy = Proxy::to(&origin.url()).start();
    let mut connection = proxy.connect();
    for _ in 0..3 {
        let answer = connection.get(proxy.address, "/x");
        assert_eq!((answer.status, answer.text().as_str()), (200, "abcde"));
    }
}

#[test]
fn an_answer_that_ends_with_its_connection_arrives_whole() {
    let origin = Origin::start(|_, stream| {
        stream.write_all(b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nuntil the end")?;
        Ok(After::Close)
    });
    let proxy = Proxy::to(&origin.url()).start();
    for _ in 0..3 {
        let answer = proxy.get("/x");
        assert_eq!(
            (answer.status, answer.text().as_str()),
            (200, "until the end")
        );
        assert!(answer.whole);
    }
}
