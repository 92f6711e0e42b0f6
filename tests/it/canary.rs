//! Nothing that the program prints, answers or shows has the secret or a token in it, at whatever
//! level it logs and whatever goes wrong.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

use crate::support::http;
use crate::support::origin::After;
use crate::support::simulator::CLIENT_ID;
use crate::support::{Origin, Proxy, file};

const SECRET: &str = "cAnArY+secret/= &x";
const SECRET_AS_FORM: &str = "cAnArY%2Bsecret%2F%3D+%26x";

/// An origin whose API answers what the path asks for.
fn origin() -> Origin {
    Origin::start(|request, stream| {
        let answer: &[u8] = match request.target() {
            "/unauthorized" => b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n",
            "/nonsense" => b"HTTP/1.1 abc\r\n\r\n",
            "/cut" => b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",
            "/close" => b"",
            _ => b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        };
        stream.write_all(answer)?;
        Ok(if request.target() == "/ok" {
            After::Keep
        } else {
            After::Close
        })
    })
}

/// Uses the proxy in every way; gives all that it answered.
fn use_all(proxy: &Proxy) -> String {
    let mut heard = String::new();
    for path in [
        "/ok",
        "/ok?q=1",
        "/unauthorized",
        "/nonsense",
        "/cut",
        "/close",
        "//x",
        "/rest/auth/v1",
        "/rest/oauth/v2/token",
        "/ok",
    ] {
        let answer = proxy.get(path);
        heard += &format!("{answer:?} {}\n", answer.text());
    }
    for request in [
        "TRACE /x HTTP/1.1\nHost: {host}\n\n",
        "GET /x HTTP/1.1\nHost: evil.example\n\n",
        "GET /x HTTP/1.1\nHost: {host}\nOrigin: null\n\n",
        "POST /unauthorized HTTP/1.1\nHost: {host}\nContent-Length: 2\n\n{}",
        "nonsense\n\n",
    ] {
        let answer = proxy.ask(request);
        heard += &format!("{answer:?} {}\n", answer.text());
    }
    for path in [
        "/metrics",
        "/api/status",
        "/",
        "/readyz?verbose",
        "/livez",
        "/nothing",
    ] {
        let answer = http::get(proxy.admin, path);
        assert!(
            matches!(answer.status, 200 | 404 | 503),
            "{path}: {}",
            answer.status
        );
        heard += &format!("{answer:?} {}\n", answer.text());
    }
    heard
}

#[test]
fn neither_the_secret_nor_a_token_is_seen_anywhere_but_upstream() {
    let (_folder, path) = file("secret", SECRET.as_bytes());
    for (level, format) in [("trace", "json"), ("trace", "text"), ("debug", "json")] {
        let origin = origin();
        let mut proxy = Proxy::to(&origin.url())
            .without("COLLIBRA_CLIENT_SECRET")
            .file("--client-secret-file", &path)
            .flag("--log-level", level)
            .start_with_log(format);
        let mut seen = use_all(&proxy);
        seen += &format!(
            "{:?}",
            std::fs::read_to_string(format!("/proc/{}/cmdline", proxy.process.id())).unwrap()
        );
        let status = crate::support::process::run(&mut crate::support::process::command([
            "status",
            "--admin",
            &proxy.admin.to_string(),
        ]));
        seen += &(status.out + &status.err);
        proxy.process.signal("TERM");
        assert_eq!(proxy.process.ended_within(crate::support::PATIENCE), 0);
        seen += &proxy.process.out.all();
        let logged = proxy.process.err.all();
        assert!(
            logged.contains("token received") && logged.contains("access"),
            "{logged}"
        );
        seen += &logged;

        let token_request = origin.token_requests().remove(0);
        let shown = token_request.header("authorization").unwrap();
        let basic = shown.strip_prefix("Basic ").unwrap();
        assert_eq!(
            STANDARD.decode(basic).unwrap(),
            format!("{}:{SECRET_AS_FORM}", CLIENT_ID.replace(':', "%3A")).as_bytes()
        );
        let sent_with: Vec<String> = origin
            .requests()
            .iter()
            .map(|request| request.header("authorization").unwrap().to_owned())
            .collect();
        let tokens = origin.tokens();
        assert!(
            sent_with
                .iter()
                .all(|sent| tokens.iter().any(|t| *sent == format!("Bearer {t}")))
        );
        let mut banned: Vec<String> = tokens;
        banned.extend([
            "canary-token".to_owned(),
            SECRET.to_owned(),
            "cAnArY".to_owned(),
            SECRET_AS_FORM.to_owned(),
            basic.to_owned(),
            STANDARD.encode(SECRET),
            URL_SAFE_NO_PAD.encode(SECRET),
            STANDARD.encode(format!("{CLIENT_ID}:{SECRET}")),
        ]);
        for canary in banned {
            assert!(
                !seen.contains(&canary),
                "{level} {format}: {canary} in\n{seen}"
            );
        }
    }
}

#[test]
fn a_token_endpoint_that_echoes_the_secret_is_not_quoted() {
    let answer = format!(
        r#"{{"error":"invalid_client","error_description":"bad secret {SECRET} or {SECRET_AS_FORM}"}}"#
    );
    let refused = format!(
        "HTTP/1.1 401 Unauthorized\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{answer}",
        answer.len()
    );
    let origin = Origin::answering(refused);
    let (_folder, path) = file("secret", SECRET.as_bytes());
    let text = format!(
        "[instance.acme]\nurl = \"{}\"\ntoken_path = \"/elsewhere\"\n[client.catalog]\nclient_id = \"{CLIENT_ID}\"\nclient_secret_file = \"{}\"\n[listener.local]\naddress = \"127.0.0.1:0\"\n[admin]\naddress = \"127.0.0.1:0\"\n",
        origin.url(),
        path.display()
    );
    let (_config, path) = file("proxy.toml", text.as_bytes());
    let proxy = Proxy::by_file(&path).flag("--log-level", "trace").start();
    let answer = proxy.get("/x");
    answer.assert_refused(503, "no-token");
    let status = http::get(proxy.admin, "/api/status").text();
    let seen = format!("{}{status}{}", answer.text(), proxy.process.err.all());
    assert!(seen.contains("[redacted]"), "{seen}");
    assert!(!seen.contains("cAnArY"), "{seen}");
}
