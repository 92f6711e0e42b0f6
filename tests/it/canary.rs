//! No output of the program, and no page, contains the secret, a token or an app's credentials, at
//! any log level and in any failure.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

use crate::support::origin::After;
use crate::support::simulator::CLIENT_ID;
use crate::support::{Origin, PATIENCE, Proxy, file, http, process};

const SECRET: &str = "cAnArY+secret/= &x";
const SECRET_AS_FORM: &str = "cAnArY%2Bsecret%2F%3D+%26x";

/// An origin whose responses depend on the path.
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

/// A request of an app that has its credentials everywhere: in the query, headers and body.
fn shown(first: &str, more: &str) -> String {
    let basic = STANDARD.encode("app:cAnArY-password");
    let body = "field=cAnArY-body";
    let length = body.len();
    let (method, rest) = first.split_once(' ').unwrap();
    let mark = if rest.contains('?') { '&' } else { '?' };
    format!(
        "{method} {rest}{mark}q=cAnArY-query HTTP/1.1\nHost: {{host}}\n\
         Authorization: Basic {basic}\n\
         Authorization: Bearer cAnArY-bearer\n\
         Proxy-Authorization: Basic {basic}\n\
         Cookie: JSESSIONID=cAnArY-cookie\n\
         X-CSRF-TOKEN: cAnArY-csrf\n\
         X-Api-Key: cAnArY-header\n\
         {more}Content-Length: {length}\n\n{body}"
    )
}

/// Uses every feature of the proxy; returns all responses.
fn use_all(proxy: &Proxy) -> String {
    let mut heard = String::new();
    let mut hear = |answer: http::Answer| heard += &format!("{answer:?} {}\n", answer.text());
    for path in [
        "/ok",
        "/ok?q=1",
        "/unauthorized",
        "/nonsense",
        "/cut",
        "/close",
        "//x",
        "/rest/%2e%2e/x",
        "/rest/auth/v1",
        "/rest/oauth/v2/token",
        "http://cAnArY:cAnArY@localhost/x",
        "cAnArY",
        "/ok",
    ] {
        for method in ["GET", "POST"] {
            hear(proxy.ask(&shown(&format!("{method} {path}"), "")));
        }
    }
    for (first, more) in [
        ("TRACE /x", ""),
        ("GET /x", "Host: cAnArY.example\n"),
        ("GET /x", "Origin: http://cAnArY.example\n"),
        ("GET /x", "Sec-Fetch-Site: cAnArY\n"),
        ("GET /x", "X_Underscore: cAnArY\n"),
        ("GET /x", "Transfer-Encoding: cAnArY\n"),
        ("GET /x", "No colon cAnArY\n"),
        ("GET /x", "X: cAnArY\0\n"),
        ("GET /x", "Expect: cAnArY\n"),
        ("GET /x", "Connection: upgrade, cAnArY\nUpgrade: cAnArY\n"),
    ] {
        hear(proxy.ask(&shown(first, more)));
    }
    let large = format!("X: {}cAnArY\n", "x".repeat(70_000));
    for request in [
        "GET /x HTTP/1.1\nHost: cAnArY.example\n\n",
        "cAnArY\n\n",
        &shown("GET /x", &large),
    ] {
        hear(proxy.ask(request));
    }
    // a caller that aborts its request
    let mut connection = proxy.connect();
    let begun = shown("POST /ok", "").replace("\n\nfield=", "\nX: y\n\nfield=");
    connection.send(&proxy.bytes(&begun)[..begun.len() - 8]);
    drop(connection);
    for path in [
        "/metrics",
        "/api/status",
        "/",
        "/readyz?verbose",
        "/livez",
        "/nothing",
        "/nothing?cAnArY=1",
    ] {
        let answer = http::get(proxy.admin, path);
        assert!(
            matches!(answer.status, 200 | 404 | 503),
            "{path}: {}",
            answer.status
        );
        hear(answer);
    }
    heard
}

/// The output of the other commands, and what the system shows of the process.
fn shown_beside(proxy: &Proxy, secret: &std::path::Path) -> String {
    let admin = proxy.admin.to_string();
    let secret = secret.to_str().unwrap();
    let config = [
        "--upstream",
        "http://127.0.0.1:1",
        "--client-id",
        CLIENT_ID,
        "--client-secret-file",
        secret,
    ];
    let mut shown = String::new();
    for (args, takes_config) in [
        (&["status", "--admin", &admin][..], false),
        (&["status", "--json", "--admin", &admin], false),
        (&["check"], true),
        (&["check", "--live"], true),
        (&["serve", "--help"], false),
        (&["check", "--help"], false),
        (&["serve", "--log-level", "cAnArY-is-none"], true),
    ] {
        let mut command = process::command(args);
        if takes_config {
            command.args(config);
        }
        command.env("COLLIBRA_CLIENT_SECRET", SECRET);
        let ended = process::run(&mut command);
        shown += &(ended.out + &ended.err.replace("cAnArY-is-none", ""));
    }
    for name in ["cmdline", "comm", "status"] {
        let path = format!("/proc/{}/{name}", proxy.process.id());
        shown += &std::fs::read_to_string(path).unwrap();
    }
    shown
}

#[test]
fn neither_the_secret_nor_a_token_is_seen_anywhere_but_upstream() {
    let (_folder, path) = file("secret", SECRET.as_bytes());
    for (level, format) in [
        ("trace", "json"),
        ("trace", "text"),
        ("debug", "json"),
        ("info", "text"),
    ] {
        let origin = origin();
        let mut proxy = Proxy::to(&origin.url())
            .without("COLLIBRA_CLIENT_SECRET")
            .file("--client-secret-file", &path)
            .variable("RUST_LOG", "trace")
            .variable("RUST_BACKTRACE", "full")
            .flag("--log-level", level)
            .start_with_log(format);
        let mut seen = use_all(&proxy);
        seen += &shown_beside(&proxy, &path);
        proxy.process.signal("TERM");
        assert_eq!(proxy.process.ended_within(PATIENCE), 0);
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
            STANDARD.encode("app:cAnArY-password"),
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
