//! What an app may do.

use super::*;

#[test]
fn an_app_does_what_it_may_and_nothing_else() {
    let (_simulator, proxy) = known_apps("");
    let shown = basic("reader", READER_KEY);
    for line in [
        "GET /rest/2.0/assets",
        "HEAD /rest/2.0/assets",
        "GET /rest/2.0/assets?name=/../x",
        "POST /graphql",
        "POST /graphql/knowledgeGraph/v1",
    ] {
        let answer = call(&proxy, line, &shown);
        assert_ne!(
            answer.header("x-collibra-auth-proxy"),
            Some("denied"),
            "{line}"
        );
    }
    for line in [
        "POST /rest/2.0/assets",
        "DELETE /rest/2.0/assets/1",
        "GET /graphql",
        "GET /rest/catalog/1.0/x",
        "GET /rest/2.0/../catalog/1.0/x",
        "GET /rest/2.0/%252e%252e/catalog/1.0/x",
        "GET /REST/2.0/assets",
        "GET /",
    ] {
        call(&proxy, line, &shown).assert_refused(403, "denied");
        let everything = call(&proxy, line, &basic("lineage", KEY));
        assert_ne!(
            everything.header("x-collibra-auth-proxy"),
            Some("denied"),
            "{line}"
        );
    }
}

#[test]
fn another_method_in_a_header_or_the_query_is_judged_as_well() {
    let (simulator, proxy) = known_apps("");
    let shown = basic("reader", READER_KEY);
    let before = simulator.count("requests");
    for header in [
        "X-HTTP-Method-Override",
        "X-HTTP-Method",
        "X-Method-Override",
    ] {
        let headers = format!("{shown}{header}: DELETE\n");
        call(&proxy, "POST /graphql", &headers).assert_refused(403, "denied");
        let headers = format!("{shown}{header}: TRACE\n");
        call(&proxy, "POST /graphql", &headers).assert_refused(405, "method");
    }
    for query in ["_method=DELETE", "a=1;_method=DELETE", "a=1&.method=delete"] {
        let line = format!("POST /graphql?{query}");
        call(&proxy, &line, &shown).assert_refused(403, "denied");
    }
    assert_eq!(simulator.count("requests"), before);
    // an app that may do all of it may use this form
    let headers = format!("{}X-HTTP-Method-Override: PATCH\n", basic("lineage", KEY));
    assert_eq!(call(&proxy, "POST /echo", &headers).status, 200);
}

#[test]
fn what_is_denied_is_denied_to_every_app() {
    let (simulator, proxy) = known_apps("[policy]\ndeny = [\"DELETE /rest/2.0/**\", \"/echo\"]\n");
    let before = simulator.count("requests");
    let shown = basic("lineage", KEY);
    for line in [
        "DELETE /rest/2.0/assets/1",
        "DELETE /Rest/2.0/x",
        "GET /echo",
        "GET /ECHO/",
    ] {
        call(&proxy, line, &shown).assert_refused(403, "denied");
    }
    let headers = format!("{shown}X-HTTP-Method-Override: DELETE\n");
    call(&proxy, "POST /rest/2.0/assets/1", &headers).assert_refused(403, "denied");
    assert_eq!(simulator.count("requests"), before);
    // the deny list is the operator's: it does not have client management here
    let answer = call(&proxy, "GET /rest/auth/v1/clients", &shown);
    assert_ne!(answer.header("x-collibra-auth-proxy"), Some("denied"));
}

#[test]
fn another_method_in_a_form_is_judged_before_the_form_is_whole() {
    let origin =
        crate::support::Origin::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let proxy = Proxy::configured(&origin.url(), "", APPS)
        .variable("LINEAGE_KEY", KEY)
        .variable("READER_KEY", READER_KEY)
        .start();
    proxy.has_token();
    let part = |name: &str, value: &str| {
        format!(
            "--b\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n--b--\r\n"
        )
    };
    let url_encoded = "application/x-www-form-urlencoded";
    let multipart = "multipart/form-data; boundary=b";
    let send = |who: &str, content_type: &str, pieces: &[&str]| {
        let length: usize = pieces.iter().map(|piece| piece.len()).sum();
        let mut connection = proxy.connect();
        connection.send(proxy.bytes(&format!(
            "POST /graphql HTTP/1.1\nHost: {{host}}\n{who}Content-Type: {content_type}\nContent-Length: {length}\n\n"
        )));
        for piece in pieces {
            // it may have been answered already
            let _ = connection.try_send(piece);
            std::thread::sleep(std::time::Duration::from_millis(30));
        }
        connection.answer("POST")
    };
    let reader = basic("reader", READER_KEY);
    for (content_type, pieces) in [
        (url_encoded, &["_method=DELETE"][..]),
        (url_encoded, &["a=1;_method=DELETE;b=2"]),
        (url_encoded, &["a=1&_met", "hod=DEL", "ETE"]),
        (url_encoded, &["%5Fmethod=delete&", "b=2"]),
        (multipart, &[&*part("_method", "DELETE")]),
    ] {
        send(&reader, content_type, pieces).assert_refused(403, "denied");
    }
    send(&reader, url_encoded, &["_method=TRACE"]).assert_refused(405, "method");
    assert!(origin.requests().iter().all(|request| !request.whole));
    // what is allowed goes on, to the byte
    let lineage = basic("lineage", KEY);
    for (who, content_type, body) in [
        (&reader, url_encoded, "a=1&method=DELETE".to_owned()),
        (&reader, multipart, part("x", "_method=DELETE")),
        (
            &reader,
            "application/json",
            "{\"_method\":\"DELETE\"}".to_owned(),
        ),
        (&lineage, url_encoded, "_method=DELETE".to_owned()),
    ] {
        assert_eq!(send(who, content_type, &[&body]).status, 200, "{body}");
        let arrived = origin.requests().pop().unwrap();
        assert_eq!(arrived.body, body.as_bytes());
    }
}
