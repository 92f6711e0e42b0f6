//! A request arrives with the client's token, and its response is the proxy's: the right headers
//! are replaced, and everything else is unchanged.

use serde_json::{Value, json};

use crate::support::origin::After;
use crate::support::{Origin, Proxy, pair};

/// What the simulator received with these header lines.
fn echo(proxy: &Proxy, lines: &str) -> Value {
    let answer = proxy.ask(&format!("GET /echo HTTP/1.1\nHost: {{host}}\n{lines}\n"));
    assert_eq!(answer.status, 200, "{lines}: {}", answer.text());
    answer.json()
}

#[test]
fn whatever_an_app_shows_the_instance_sees_the_one_token() {
    let (simulator, proxy) = pair();
    for shown in [
        "",
        "Authorization: Basic dXNlcjpwYXNzd29yZA==\n",
        "Authorization: Bearer stale\n",
        "Authorization: Bearer a\nAuthorization: Basic Yg==\n",
        "authorization: Bearer a\nAUTHORIZATION: Bearer b\n",
        "Connection: authorization\n",
        "Connection: keep-alive, Authorization\nAuthorization: Bearer a\n",
        "Authorization:\n",
        "Proxy-Authorization: Basic Yg==\n",
    ] {
        echo(&proxy, shown);
    }
    simulator.assert_one_token_and_none_unauthorized();
}

#[test]
fn what_speaks_of_sessions_and_of_the_way_is_left_behind() {
    let (simulator, proxy) = pair();
    let mut told = echo(
        &proxy,
        "Cookie: JSESSIONID=1\n\
         cookie: b=2\n\
         X-CSRF-TOKEN: t\n\
         Proxy-Authorization: Basic Yg==\n\
         Forwarded: for=1.2.3.4\n\
         X-Forwarded-For: 1.2.3.4\n\
         X-Forwarded-Host: evil.example\n\
         x-forwarded-proto: https\n\
         X-Forwarded-Anything: x\n\
         X-Original-URL: /rest/auth/v1/clients\n\
         X-Rewrite-URL: /rest/auth/v1/clients\n\
         X-Remote-User: admin\n\
         Remote-User: admin\n\
         X-Auth-Request-User: admin\n\
         X-Real-IP: 1.2.3.4\n\
         Content-Type: application/json\n\
         X-Empty:\n\
         X-HTTP-Method-Override: PATCH\n\
         Accept-Encoding: gzip, x-odd\n",
    );
    // the mark of the process that it passed
    let fields = told["headers"].as_object_mut().unwrap();
    let via = fields.remove("x-collibra-auth-proxy-via").unwrap();
    assert_eq!(via[0].as_str().unwrap().len(), 32);
    assert_eq!(
        told["headers"],
        json!({
            "host": [simulator.address.to_string()],
            "content-type": ["application/json"],
            "x-empty": [""],
            "x-http-method-override": ["PATCH"],
            "accept-encoding": ["gzip, x-odd"],
        })
    );
}

#[test]
fn the_instances_session_and_its_promise_of_https_do_not_come_back() {
    let (_simulator, proxy) = pair();
    let answer = proxy.get("/rest/2.0/auth/sessions/current");
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("set-cookie"), None);
    assert_eq!(answer.header("strict-transport-security"), None);
    assert_eq!(answer.header("x-collibra-auth-proxy"), None);
}

#[test]
fn a_location_on_the_instance_leads_back_to_the_proxy() {
    let (simulator, proxy) = pair();
    let location = |location: &str| {
        let answer = proxy.get(&format!("/_status/302?location={location}"));
        assert_eq!(answer.status, 302, "it is not followed");
        answer.header("location").unwrap().to_owned()
    };
    let instance = simulator.url();
    let own = format!("http://{}", proxy.address);
    assert_eq!(
        location(&format!("{instance}/x?y=1")),
        format!("{own}/x?y=1")
    );
    assert_eq!(location(&instance), own);
    for elsewhere in [
        "https://sso.example/login?next=/x".to_owned(),
        format!("{instance}.evil.example/"),
        format!("{instance}@evil.example/"),
        "/relative".to_owned(),
        "//other.example/x".to_owned(),
    ] {
        assert_eq!(location(&elsewhere), elsewhere);
    }
    assert_eq!(simulator.count("requests"), 7);
}

#[test]
fn a_location_leads_back_by_the_name_that_the_app_used() {
    let (simulator, proxy) = pair();
    let (instance, port) = (simulator.url(), proxy.address.port());
    let request =
        format!("GET /_status/307?location={instance}/x HTTP/1.1\nHost: localhost:{port}\n\n");
    let answer = proxy.ask(&request);
    let location = format!("http://localhost:{port}/x");
    assert_eq!(answer.header("location"), Some(location.as_str()));
}

#[test]
fn bodies_pass_to_the_byte_whatever_their_coding() {
    let noise: Vec<u8> = (0..70_000_u32)
        .map(|i| (i.wrapping_mul(i) >> 7) as u8)
        .collect();
    let sent = noise.clone();
    let origin = Origin::start(move |request, stream| {
        let coding = request.header("x-wanted").unwrap_or_default();
        let length = sent.len();
        write!(
            stream,
            "HTTP/1.1 200 OK\r\nContent-Encoding: {coding}\r\nContent-Length: {length}\r\n\r\n"
        )?;
        stream.write_all(&sent)?;
        Ok(After::Keep)
    });
    let proxy = Proxy::to(&origin.url()).start();
    for coding in ["gzip", "br", "x-unknown", "identity"] {
        let mut connection = proxy.connect();
        let length = noise.len();
        let head = format!(
            "PUT /x HTTP/1.1\nHost: {{host}}\nX-Wanted: {coding}\nContent-Encoding: {coding}\nContent-Length: {length}\n\n"
        );
        connection.send(proxy.bytes(&head));
        connection.send(&noise);
        let answer = connection.answer(&head);
        assert_eq!(answer.header("content-encoding"), Some(coding));
        assert!(answer.body == noise, "{coding}: the answer differs");
        let request = origin.requests().pop().unwrap();
        assert_eq!(request.header("content-encoding"), Some(coding));
        assert!(request.body == noise, "{coding}: the request differs");
    }
}

#[test]
fn targets_pass_to_the_byte() {
    let origin = Origin::answering("HTTP/1.1 204 No Content\r\n\r\n");
    let proxy = Proxy::to(&origin.url()).start();
    let targets = [
        "/",
        "/?",
        "/rest/2.0/assets?name=a%2Fb&x=%20+&y=%C3%A9",
        "/rest/2.0/assets?q=%2e%2e/..;/&&==",
        "/rest/2.0/assets?sql=select%20*%20from%20x%3B&json={%22a%22:[1]}",
        "/rest/2.0/assets?x='()*!~$,:@/?",
        "/a/../b/./c",
        "/rest/2.0/assets/urn:1;v=2",
        "/caf%C3%A9/%E2%82%AC",
    ];
    for target in targets {
        let answer = proxy.get(target);
        assert_eq!(answer.status, 204, "{target}: {}", answer.text());
    }
    let arrived = origin.requests();
    let arrived: Vec<&str> = arrived.iter().map(|request| request.target()).collect();
    assert_eq!(arrived, targets);
}

#[test]
fn other_headers_pass_as_they_are_those_of_one_name_in_their_order() {
    let origin = Origin::answering(
        "HTTP/1.1 200 OK\r\nX-B: 1\r\nx-a: \"q\", b=c;d\r\nX-B: 2\r\nETag: W/\"1\"\r\nContent-Length: 0\r\n\r\n",
    );
    let proxy = Proxy::to(&origin.url()).start();
    let lines = "X-Zulu: 1\n\
                 x-many: a, b;q=0.5\n\
                 X-Quote: \"a\\\"b\" <c> {d} [e] ~!@#$%^&*()\n\
                 X-Many: second\n\
                 Accept: */*\n\
                 X-Tab: a\tb\n";
    let answer = proxy.ask(&format!("GET /x HTTP/1.1\nHost: {{host}}\n{lines}\n"));
    let back = |name| -> Vec<&str> {
        let same = answer.headers.iter().filter(|(n, _)| n == name);
        same.map(|(_, value)| value.as_str()).collect()
    };
    assert_eq!(back("x-b"), ["1", "2"]);
    assert_eq!(back("x-a"), ["\"q\", b=c;d"]);
    assert_eq!(back("etag"), ["W/\"1\""]);
    let request = origin.requests().pop().unwrap();
    assert_eq!(request.values("x-zulu"), ["1"]);
    assert_eq!(request.values("x-many"), ["a, b;q=0.5", "second"]);
    assert_eq!(
        request.values("x-quote"),
        ["\"a\\\"b\" <c> {d} [e] ~!@#$%^&*()"]
    );
    assert_eq!(request.values("x-tab"), ["a\tb"]);
    assert_eq!(request.values("accept"), ["*/*"]);
    // names keep their spelling
    assert!(
        request.head.contains("\r\nX-Zulu: 1\r\n"),
        "{}",
        request.head
    );
}
