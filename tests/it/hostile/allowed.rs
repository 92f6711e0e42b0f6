//! What an app may not do, in other spellings and with other methods: none of it reaches an origin.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::support::recorder::Recorder;
use crate::support::{Proxy, lenient};

const KEY: &str = "reader-key-0123456789";

/// An app that may read, and send one thing.
const APP: &str = r#"
[app.reader]
key_env = "READER_KEY"
allow = ["GET /rest/2.0/**", "POST /graphql/**"]
"#;

/// Ways up from an allowed path.
const UP: &[&str] = &[
    "../",
    "./../",
    ".//../",
    "x/../../",
    "..//",
    "..;/",
    "..;a=b/",
    "..%3b/",
    "..%3Ba/",
    "%2e%2e/",
    "%2E%2e/",
    ".%2e/",
    "%2e./",
    "..%2f",
    "..%2F",
    "%2e%2e%2f",
    "..%5c",
    "..\\",
    ".\\..\\",
    "%252e%252e/",
    ".%252e/",
    "..%252f",
    "..%255c",
    "..%253b/",
    "..%c0%af",
    "%c0%ae%c0%ae/",
    "%e0%80%ae%e0%80%ae/",
    "%u002e%u002e/",
    "..%00/",
    "..%0d/",
    "..%09/",
    "..%20/",
    "%20../",
    "..%2520/",
    ".. /",
];

fn known() -> (Recorder, Proxy) {
    let recorder = Recorder::start();
    let proxy = Proxy::configured(&recorder.url(), "", APP)
        .variable("READER_KEY", KEY)
        .start();
    proxy.has_token();
    (recorder, proxy)
}

/// Sends `METHOD target` with header lines as the app; returns the status.
fn ask(proxy: &Proxy, line: &str, more: &str) -> u16 {
    let basic = STANDARD.encode(format!("reader:{KEY}"));
    let request = format!(
        "{line} HTTP/1.1\nHost: {{host}}\nAuthorization: Basic {basic}\n{more}Content-Length: 0\n\n"
    );
    proxy.ask(&request).status
}

#[test]
fn no_spelling_leads_out_of_what_is_allowed() {
    let (recorder, proxy) = known();
    for target in ["catalog/1.0/x", "auth/v1/clients", "oauth/v2/token", "x"] {
        for up in UP {
            for place in ["/rest/2.0/", "/rest/2.0/assets/../", "//rest/2.0/"] {
                let line = format!("GET {place}{up}{target}");
                let status = ask(&proxy, &line, "");
                assert!(matches!(status, 200 | 400 | 403), "{status} to {line}");
            }
        }
    }
    // forwarded requests stay within the allowed paths in every reading
    for request in recorder.requests() {
        for reading in lenient::readings(&request.target) {
            let below = lenient::at_or_below(&reading, "/rest/2.0");
            assert!(!below.is_empty(), "{}: {reading}", request.target);
        }
    }
    recorder.assert_no_faults();
    assert_eq!(ask(&proxy, "GET /rest/2.0/assets", ""), 200);
}

#[test]
fn no_other_method_is_had_by_another_name() {
    let (recorder, proxy) = known();
    for (line, more) in [
        ("POST /rest/2.0/assets", ""),
        ("get /rest/2.0/assets", ""),
        ("GET /graphql", ""),
        ("POST /rest/2.0/assets", "X-HTTP-Method-Override: GET\n"),
        ("GET /rest/2.0/assets", "X-HTTP-Method-Override: DELETE\n"),
        ("GET /rest/2.0/assets", "x-http-method-override: delete\n"),
        ("GET /rest/2.0/assets", "X-HTTP-Method: PUT\n"),
        ("GET /rest/2.0/assets", "X-Method-Override: PATCH\n"),
        (
            "GET /rest/2.0/assets",
            "X-HTTP-Method-Override: GET\nX-HTTP-Method-Override: DELETE\n",
        ),
        ("GET /rest/2.0/assets", "X-HTTP-Method-Override: TRACE\n"),
        ("GET /rest/2.0/assets", "X-HTTP-Method-Override: a b\n"),
        ("GET /rest/2.0/assets?_method=DELETE", ""),
        ("GET /rest/2.0/assets?a=b&_METHOD=delete", ""),
        ("GET /rest/2.0/assets?%5fmethod=DELETE", ""),
        ("GET /rest/2.0/assets?a&_method=GET&_method=PUT", ""),
        ("POST /graphql?_method=DELETE", ""),
        ("POST /graphql", "X-HTTP-Method-Override: GET\n"),
    ] {
        let status = ask(&proxy, line, more);
        assert!(matches!(status, 403 | 405), "{status} to {line} {more}");
    }
    assert_eq!(recorder.count(), 0);
    assert_eq!(ask(&proxy, "POST /graphql", ""), 200);
    assert_eq!(
        ask(&proxy, "GET /rest/2.0/x", "X-HTTP-Method-Override: GET\n"),
        200
    );
}
